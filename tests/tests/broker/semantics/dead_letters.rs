//! Line 3: a message that leaves without an ack is kept whole, with its history, in exactly one place.

use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures_util::StreamExt as _;
use tandem_client::{
    AttemptError, Code, DeadLetterQuery, DeadLetterReason, Message, MessageBuilder, MessageType, Nack, RedriveOptions,
    to_sandbox,
};
use tandem_proto::messaging::v1::{
    DeadLetterFilter, ListDeadLettersRequest, dead_letter_service_client::DeadLetterServiceClient,
};
use tandem_tests::{Random, Refused, direct, unix_nanos};

use super::scene::{because, deadline, fatal, of, quick, until};
use crate::stage::{Stage, WORKSPACE};

const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn clock_now() -> SystemTime {
    UNIX_EPOCH + Duration::from_nanos(unix_nanos())
}

fn millis(time: Option<prost_types::Timestamp>) -> i64 {
    let time = time.unwrap();
    time.seconds * 1000 + i64::from(time.nanos / 1_000_000)
}

#[tokio::test]
async fn line_3_a_dead_letter_holds_the_message_its_reason_and_every_attempt() {
    let stage = Stage::with(&["alice"]).await;
    stage.register_with_policy("bob", quick(3)).await;
    let order = MessageBuilder::command("alice", to_sandbox("bob"), vec![0, 159, 146, 150])
        .message_id("order-1")
        .content_type("application/octet-stream")
        .correlation_id("c-1")
        .from_agent("planner")
        .to_agent("builder")
        .priority(7)
        .ordering_key("k")
        .header("x-tenant", "blue")
        .header("x-\u{fc}", "\u{2713}")
        .traceparent(TRACEPARENT)
        .build();
    let receipt = stage.publish(order.clone()).await;

    let mut mortal = stage.subscribe_mortal(deadline("bob", 1), 10).await;
    let delivered = mortal.stream.take(1).await.remove(0).message;
    assert_eq!(mortal.stream.nack(1, 1, because("first: no disk")).await.deferred, 1);
    assert_eq!(mortal.stream.take(1).await[0].attempt, 2);
    mortal.stream.leases_lost().await;
    assert_eq!(mortal.stream.take(1).await[0].attempt, 3);
    mortal.vanish();
    until("the last attempt has failed", async || stage.dead_of("bob").await.len() == 1).await;

    let stage = stage.crash_and_start().await;
    assert_eq!(stage.pending("bob").await, 0);
    let letter = stage.client.dead_letters(WORKSPACE).get("bob", receipt.sequence).await.unwrap();
    assert_eq!(stage.dead_of("bob").await, std::slice::from_ref(&letter), "a list shows the same");
    assert_eq!((letter.sandbox_id.as_str(), letter.reason()), ("bob", DeadLetterReason::AttemptsExhausted));
    assert_eq!(letter.reason_text, "all 3 attempts failed, the last one: the stream broke");
    let message = letter.message.unwrap();
    assert_eq!(message, delivered, "payload, headers and traceparent, as they were delivered");
    let without_the_broker = Message { workspace_id: String::new(), sequence: 0, server_time: None, ..message.clone() };
    assert_eq!(without_the_broker, order, "and as they were published");

    let seen: Vec<_> = letter.attempts.iter().map(|failed| (failed.attempt, failed.error())).collect();
    assert_eq!(seen, [(1, AttemptError::Nacked), (2, AttemptError::Lapsed), (3, AttemptError::StreamBroken)]);
    assert_eq!(letter.attempts[0].text, "first: no disk");
    assert_eq!(letter.attempts[1].text, "no ack within 1000 ms");
    assert_eq!(letter.attempts[2].text, "the stream broke");
    let times: Vec<_> = letter.attempts.iter().map(|failed| millis(failed.time)).collect();
    assert!(millis(message.server_time) <= times[0] && times.is_sorted(), "{times:?}");
    assert!(times[1] - times[0] >= 1_000, "the second attempt took its ack deadline: {times:?}");
    assert_eq!(millis(letter.dead_time), times[2]);
    assert!(letter.chain.is_empty());
}

#[tokio::test]
async fn line_3_a_nack_with_dead_letter_is_the_last_word() {
    let stage = Stage::with(&["alice", "bob"]).await;
    stage.publish_all((1..=4).map(|number| direct("alice", "bob", number.to_string()))).await;
    let mut bob = stage.subscribe("bob").await;
    bob.take(4).await;
    let outcome = bob.nack(2, 3, fatal("not for me")).await;
    assert_eq!((outcome.deferred, outcome.dead_lettered), (0, 2));
    let letters = stage.dead_of("bob").await;
    assert_eq!(letters.iter().map(|letter| letter.message.as_ref().unwrap().sequence).collect::<Vec<_>>(), [2, 3]);
    for letter in &letters {
        assert_eq!((letter.reason(), letter.reason_text.as_str()), (DeadLetterReason::Rejected, "not for me"));
        assert_eq!(letter.attempts.len(), 1);
    }
    assert_eq!(bob.ack_ranges(&[(1, 1), (4, 4)]).await.acknowledged, 2);
    let error = stage.client.dead_letters(WORKSPACE).get("bob", 1).await.unwrap_err();
    Refused::from(error).expect(Code::NotFound, "UNKNOWN_DEAD_LETTER", &["\"bob\"", "sequence 1"]);
}

#[tokio::test]
async fn line_3_dead_letters_are_listed_by_every_filter_and_by_page() {
    let stage = Stage::with(&["alice", "dora", "bob", "carol"]).await;
    let say = |from: &str, to: &str, kind, correlation: &str| {
        MessageBuilder::new(from, to_sandbox(to), kind, "x").correlation_id(correlation).build()
    };
    stage.publish(say("alice", "bob", MessageType::Notification, "c-1")).await;
    stage.publish(say("dora", "bob", MessageType::Command, "c-2")).await;
    stage.publish(say("alice", "carol", MessageType::Notification, "c-2")).await;
    stage.register_with_policy("carol", quick(1)).await;
    stage.kill_messages("bob", 2, "no").await;
    let middle = UNIX_EPOCH + Duration::from_millis(millis(stage.dead_of("bob").await[1].dead_time) as u64);
    // The broker tells times to the millisecond.
    until("the next millisecond", async || clock_now() > middle + Duration::from_millis(2)).await;
    let mut carol = stage.subscribe("carol").await;
    carol.take(1).await;
    assert_eq!(carol.nack(1, 1, because("no")).await.dead_lettered, 1);

    let all = DeadLetterQuery::default;
    let filters = [
        (all(), vec![1, 2, 3]),
        (of("bob"), vec![1, 2]),
        (of("nobody"), vec![]),
        (DeadLetterQuery { reason: Some(DeadLetterReason::Rejected), ..all() }, vec![1, 2]),
        (DeadLetterQuery { reason: Some(DeadLetterReason::AttemptsExhausted), ..all() }, vec![3]),
        (DeadLetterQuery { from_sandbox_id: Some("alice".into()), ..all() }, vec![1, 3]),
        (DeadLetterQuery { correlation_id: Some("c-2".into()), ..all() }, vec![2, 3]),
        (DeadLetterQuery { message_type: Some(MessageType::Command), ..all() }, vec![2]),
        (DeadLetterQuery { end_time: Some(middle + Duration::from_millis(1)), ..all() }, vec![1, 2]),
        (DeadLetterQuery { start_time: Some(middle + Duration::from_millis(1)), ..all() }, vec![3]),
        (DeadLetterQuery { sequence: Some(2), ..of("bob") }, vec![2]),
        (DeadLetterQuery { correlation_id: Some("c-2".into()), ..of("bob") }, vec![2]),
    ];
    for (query, expected) in filters {
        let found: Vec<_> =
            stage.dead(query.clone()).await.iter().map(|letter| letter.message.as_ref().unwrap().sequence).collect();
        assert_eq!(found, expected, "{query:?}");
    }
    let whose = DeadLetterQuery { sequence: Some(2), ..all() };
    let error = stage.client.dead_letters(WORKSPACE).list(whose).boxed().next().await.unwrap().unwrap_err();
    Refused::from(error).expect(Code::InvalidArgument, "INVALID_FIELD", &["without sandbox_id"]);

    let mut service = DeadLetterServiceClient::new(stage.broker.channel());
    let (mut seen, mut page_token) = (Vec::new(), String::new());
    loop {
        let filter = Some(DeadLetterFilter::default());
        let request = ListDeadLettersRequest { workspace_id: WORKSPACE.to_owned(), filter, page_size: 2, page_token };
        let page = service.list_dead_letters(request).await.unwrap().into_inner();
        assert!(page.dead_letters.len() <= 2);
        seen.extend(page.dead_letters.iter().map(|letter| letter.message.as_ref().unwrap().sequence));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(seen, [1, 2, 3]);
}

#[tokio::test]
async fn line_3_the_sender_of_what_requires_a_response_is_told() {
    let stage = Stage::with(&["alice", "bob"]).await;
    stage.register_with_policy("carol", quick(1)).await;
    let ask = |to: &str, correlation: &str| {
        MessageBuilder::request("alice", to_sandbox(to), "?").from_agent("planner").correlation_id(correlation)
    };
    stage.publish(ask("bob", "rejected").requires_response().build()).await;
    stage.publish(ask("bob", "silent").build()).await;
    stage.publish(ask("carol", "exhausted").requires_response().build()).await;
    stage.publish(ask("bob", "expired").requires_response().ttl(Duration::from_secs(1)).priority(0).build()).await;
    let mut bob = stage.subscribe_with_credit("bob", 2).await;
    bob.take(2).await;
    assert_eq!(bob.nack(1, 2, fatal("I \"cannot\"")).await.dead_lettered, 2);
    let mut carol = stage.subscribe("carol").await;
    carol.take(1).await;
    assert_eq!(carol.nack(1, 1, because("busy")).await.dead_lettered, 1);
    until("the last one expires", async || stage.pending("alice").await == 3).await;

    let stage = stage.crash_and_start().await;
    let mut alice = stage.subscribe("alice").await;
    let mut told = Vec::new();
    for delivery in alice.take(3).await {
        let message = delivery.message;
        assert_eq!((message.r#type(), message.to_agent.as_str()), (MessageType::Response, "planner"));
        let said: serde_json::Value = serde_json::from_slice(&message.content).unwrap();
        assert_eq!(said["error"], message.metadata["aintandem-error"]);
        told.push((message.correlation_id, message.from_sandbox_id, said["error"].clone(), said["text"].clone()));
    }
    alice.expect_silence().await;
    let expected = [
        ("rejected", "bob", "REJECTED", "I \"cannot\""),
        ("exhausted", "carol", "ATTEMPTS_EXHAUSTED", "its only attempt failed: busy"),
        ("expired", "bob", "EXPIRED", "it waited for longer than its ttl of 1000 ms"),
    ];
    let expected = expected.map(|(id, from, code, text)| (id.to_owned(), from.to_owned(), code.into(), text.into()));
    assert_eq!(told.iter().find(|told| told.0 == "silent"), None, "who needs no response is not told");
    told.sort_by_key(|told| expected.iter().position(|one| one.0 == told.0));
    assert_eq!(told, expected);
}

/// Whatever the moment: a message is in its inbox or a dead letter, never both and never neither.
#[tokio::test]
async fn promise_3_a_kill_around_the_move_leaves_a_message_in_exactly_one_place() {
    const MESSAGES: u64 = 400;
    const ROUNDS: u32 = 8;
    let mut random = Random::from_environment();
    let mut stage = Stage::with(&["alice", "bob"]).await;
    stage.publish_all((0..MESSAGES).map(|number| direct("alice", "bob", number.to_string()))).await;
    let (mut moves, mut round) = (0, 0);
    // A kill may come before or after all the moves, and then says nothing.
    while round < ROUNDS || (moves == 0 && round < 5 * ROUNDS) {
        round += 1;
        let mut inbox = stage.client.subscribe(WORKSPACE, "bob", Default::default()).await.unwrap();
        let redrives = round % 2 == 0;
        let letters = stage.client.dead_letters(WORKSPACE);
        let work = tokio::spawn(async move {
            if redrives {
                let mut answers =
                    letters.redrive(of("bob"), RedriveOptions { max_per_second: 2_000, ..Default::default() }).boxed();
                while let Some(Ok(_)) = answers.next().await {}
                return;
            }
            while let Ok(Some(delivery)) = inbox.next().await {
                inbox.nack(&delivery, Nack::dead_letter("round"));
            }
        });
        tokio::time::sleep(Duration::from_millis(random.between(1, 40))).await;
        stage = stage.crash_and_start().await;
        work.await.unwrap();

        let letters = stage.dead_of("bob").await;
        let dead: BTreeSet<u64> = letters.iter().map(|letter| letter.message.as_ref().unwrap().sequence).collect();
        assert_eq!(dead.len(), letters.len());
        let sandbox = stage.client.registry(WORKSPACE).get("bob").await.unwrap();
        assert_eq!((sandbox.dead_letters, sandbox.pending_messages), (dead.len() as u64, MESSAGES - dead.len() as u64));
        let mut bob = stage.subscribe("bob").await;
        let waiting = bob.take(sandbox.pending_messages as usize).await;
        let waiting: BTreeSet<u64> = waiting.iter().map(|delivery| delivery.message.sequence).collect();
        assert!(dead.is_disjoint(&waiting), "round {round}");
        assert_eq!(dead.union(&waiting).copied().collect::<Vec<_>>(), (1..=MESSAGES).collect::<Vec<_>>());
        bob.expect_silence().await;
        bob.finish();
        while bob.answer().await.unwrap().is_some() {}
        moves += u64::from(!dead.is_empty() && !waiting.is_empty());
        println!("round {round}: {} dead, {} waiting", dead.len(), waiting.len());
    }
    assert!(moves > 0, "none of {round} kills came in the middle of the moves");
}
