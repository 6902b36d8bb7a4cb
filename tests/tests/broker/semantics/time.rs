//! Line 4: messages that wait no longer than their ttl, and those that wait for their time.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tandem_client::{
    Code, DeadLetterReason, EventQuery, EventType, Message, MessageBuilder, WorkspaceSettings, broadcast, to_sandbox,
    to_topic, wire_duration,
};
use tandem_tests::{Refused, Subscriber, direct, now, unix_nanos};

use super::scene::{after, attempts, deadline, texts, until};
use crate::stage::{PLENTY, Stage, WORKSPACE};

const SECOND: Duration = Duration::from_secs(1);

fn to_bob(text: &str) -> MessageBuilder {
    MessageBuilder::notification("alice", to_sandbox("bob"), text.to_owned())
}

fn brief(text: &str) -> Message {
    to_bob(text).ttl(SECOND).build()
}

fn clock_now() -> SystemTime {
    UNIX_EPOCH + Duration::from_nanos(unix_nanos())
}

#[tokio::test]
async fn line_4_what_has_expired_is_never_delivered() {
    let stage = Stage::with(&["alice", "bob"]).await;
    let query = EventQuery { types: vec![EventType::MessageExpired], ..EventQuery::default() };
    let mut events = stage.client.events(WORKSPACE, query).await.unwrap();
    // Long enough for a busy machine to look at them while they wait.
    let mortal = |text: &str| to_bob(text).ttl(3 * SECOND).build();
    stage
        .publish_all([mortal("1"), direct("alice", "bob", "2"), mortal("3"), to_bob("4").ttl(60 * SECOND).build()])
        .await;
    // Known to the queue in memory, and not sent for want of credit.
    let mut bob = stage.subscribe_with_credit("bob", 0).await;
    assert_eq!(stage.pending("bob").await, 4);
    let mut expired = 0;
    while expired < 2 {
        let event = events.next().await.unwrap().unwrap();
        assert_eq!((event.r#type(), event.sandbox_id.as_str()), (EventType::MessageExpired, "bob"));
        expired += event.count;
    }
    assert_eq!(stage.pending("bob").await, 2);
    bob.credit(10, 0);
    assert_eq!(texts(&bob.take(2).await), ["2", "4"]);
    bob.expect_silence().await;
    assert!(stage.dead_of("bob").await.is_empty(), "nobody asked for dead letters");
    assert_eq!(stage.history(Default::default()).await.len(), 4, "the history has it");
    assert_eq!(bob.ack(1, 2).await.acknowledged, 2);
    let seconds = brief("x");
    let too_short = Message { ttl: Some(wire_duration(Duration::from_millis(999))), ..seconds };
    let error = stage.try_publish(too_short).await.unwrap_err();
    Refused::from(error).expect(Code::InvalidArgument, "INVALID_FIELD", &["999"]).at("ttl");
}

/// The broker is dead when the time comes.
#[tokio::test]
async fn line_4_what_expires_while_the_broker_is_down_is_not_delivered_either() {
    let stage = Stage::with(&["alice", "bob", "carol"]).await;
    let all = MessageBuilder::notification("alice", broadcast(), "to all").ttl(SECOND).build();
    stage.publish_all([brief("1"), all, direct("alice", "bob", "2")]).await;
    let published = now();
    let Stage { home, config, broker, .. } = stage;
    broker.kill_nine();
    tokio::time::sleep_until((published + SECOND + Duration::from_millis(50)).into()).await;
    let broker = tandem_tests::BrokerProcess::start(&home, &config).await;
    let stage = Stage { client: broker.client(), home, config, broker };
    let mut bob = stage.subscribe("bob").await;
    assert_eq!(texts(&bob.take(1).await), ["2"]);
    bob.expect_silence().await;
    assert_eq!(bob.ack(1, 1).await.acknowledged, 1);
    let mut carol = stage.subscribe("carol").await;
    carol.expect_silence().await;
    until("nothing waits", async || stage.pending("bob").await == 0 && stage.pending("carol").await == 0).await;
}

#[tokio::test]
async fn line_4_what_was_broadcast_or_sent_to_a_topic_expires_too() {
    let stage = Stage::with(&["alice", "bob"]).await;
    let topics = stage.client.topics(WORKSPACE);
    topics.create("build.done").await.unwrap();
    topics.follow("bob", "build.*", Default::default()).await.unwrap();
    let say = |to, text: &'static str| MessageBuilder::notification("alice", to, text);
    stage.publish(say(broadcast(), "brief").ttl(SECOND).build()).await;
    stage.publish(say(to_topic("build.done"), "brief").ttl(SECOND).build()).await;
    let last = stage.publish(say(to_topic("build.done"), "lasting").build()).await;
    let mut bob = stage.subscribe_with_credit("bob", 0).await;
    until("both have expired", async || clock_now() > last.server_time + SECOND).await;
    bob.credit(10, 0);
    assert_eq!(texts(&bob.take(1).await), ["lasting"]);
    bob.expect_silence().await;
    assert_eq!(bob.ack(1, 1).await.acknowledged, 1);
    until("nothing waits", async || stage.pending("bob").await == 0).await;
}

#[tokio::test]
async fn line_4_a_workspace_has_a_default_ttl() {
    let stage = Stage::with(&[]).await;
    let settings = WorkspaceSettings { default_ttl: Some(wire_duration(SECOND)), ..WorkspaceSettings::default() };
    stage.client.workspaces().create_with("hasty", settings).await.unwrap();
    let registry = stage.client.registry("hasty");
    for sandbox in ["alice", "bob"] {
        registry.register_with_agents(sandbox, Vec::new()).await.unwrap();
    }
    let publisher = stage.client.publisher("hasty");
    publisher.publish(direct("alice", "bob", "default")).await.unwrap();
    publisher.publish(to_bob("own").ttl(60 * SECOND).build()).await.unwrap();
    until("the default has ended", async || registry.get("bob").await.unwrap().pending_messages == 1).await;
    let none = stage.client.workspaces().update("hasty", WorkspaceSettings::default()).await.unwrap();
    assert_eq!(none.settings.and_then(|settings| settings.default_ttl), None);
    let receipt = publisher.publish(direct("alice", "bob", "without")).await.unwrap();
    until("as long again", async || clock_now() > receipt.server_time + SECOND + Duration::from_millis(200)).await;
    let mut bob = Subscriber::open(stage.broker.channel(), "hasty", "bob").await;
    bob.credit(10, PLENTY.1);
    assert_eq!(texts(&bob.take(2).await), ["own", "without"]);
    bob.expect_silence().await;
}

#[tokio::test]
async fn line_4_dead_letter_on_expiry_keeps_what_expires() {
    let stage = Stage::with(&["alice", "bob"]).await;
    stage.publish(brief("gone")).await;
    stage
        .publish(
            to_bob("kept")
                .ttl(SECOND)
                .dead_letter_on_expiry()
                .traceparent("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
                .build(),
        )
        .await;
    // One that waits for its time, and one that waits for a retry.
    let soon = clock_now() + Duration::from_millis(100);
    let delayed = to_bob("delayed").ttl(SECOND).not_before(soon).dead_letter_on_expiry().build();
    stage.publish(delayed).await;
    let stage = stage.crash_and_start().await;
    until("all have expired", async || stage.pending("bob").await == 0).await;
    let letters = stage.dead_of("bob").await;
    let kept: Vec<_> = letters.iter().map(|letter| letter.message.as_ref().unwrap().content.clone()).collect();
    assert_eq!(kept, ["kept", "delayed"]);
    for letter in letters {
        assert_eq!(letter.reason(), DeadLetterReason::Expired);
        assert_eq!(letter.reason_text, "it waited for longer than its ttl of 1000 ms");
        assert!(letter.attempts.is_empty());
    }
    let mut bob = stage.subscribe("bob").await;
    bob.expect_silence().await;
}

#[tokio::test]
async fn line_4_nothing_is_delivered_before_its_time() {
    let stage = Stage::with(&["alice", "bob"]).await;
    let mut bob = stage.subscribe("bob").await;
    let due = clock_now() + 4 * SECOND;
    stage.publish(to_bob("later").not_before(due).priority(9).build()).await;
    stage.publish(to_bob("past").not_before(clock_now() - SECOND).build()).await;
    stage.publish(direct("alice", "bob", "now")).await;
    assert_eq!(texts(&bob.take(2).await), ["past", "now"]);
    let sandbox = stage.client.registry(WORKSPACE).get("bob").await.unwrap();
    assert_eq!((sandbox.pending_messages, sandbox.deferred_messages), (3, 1));
    let stage = stage.crash_and_start().await;
    let mut bob = stage.subscribe("bob").await;
    let mut taken = bob.take(2).await;
    if taken.iter().all(|delivery| delivery.message.sequence > 1) {
        taken.extend(bob.take(1).await);
        assert_eq!(texts(&taken), ["past", "now", "later"]);
    }
    assert!(clock_now() >= due, "{:?} too early", due.duration_since(clock_now()));
    assert!(clock_now() < due + 5 * SECOND);

    let far = clock_now() + 367 * 86_400 * SECOND;
    let error = stage.try_publish(to_bob("x").not_before(far).build()).await.unwrap_err();
    Refused::from(error).expect(Code::InvalidArgument, "INVALID_FIELD", &["366 days"]).at("not_before");
}

/// A ttl counts from the time before which a message is not delivered.
#[tokio::test]
async fn line_4_the_ttl_of_a_delayed_message_begins_with_its_time() {
    let stage = Stage::with(&["alice", "bob"]).await;
    let due = clock_now() + Duration::from_millis(1_200);
    stage.publish(to_bob("taken").not_before(due).ttl(SECOND).build()).await;
    stage.publish(to_bob("left").not_before(due).ttl(SECOND).build()).await;
    let mut bob = stage.subscribe_with_credit("bob", 1).await;
    assert_eq!(texts(&bob.take(1).await), ["taken"]);
    assert!(clock_now() >= due);
    assert_eq!(bob.ack(1, 1).await.acknowledged, 1);
    assert_eq!(stage.pending("bob").await, 1);
    until("the other one expires", async || stage.pending("bob").await == 0).await;
    assert!(clock_now() >= due + SECOND);
    bob.credit(1, 0);
    bob.expect_silence().await;
}

#[tokio::test]
async fn line_4_what_is_worked_on_does_not_expire_and_what_waits_for_a_retry_does() {
    let stage = Stage::with(&["alice", "bob"]).await;
    let mut bob = stage.subscribe_as_with_credit(deadline("bob", 4), 3).await;
    stage.publish_all([brief("worked on"), brief("retried"), brief("lapses")]).await;
    bob.take(3).await;
    assert_eq!(bob.nack(2, 2, after(60 * SECOND)).await.deferred, 1);
    until("the one that waits expires", async || stage.pending("bob").await == 2).await;
    until("well beyond the ttl", {
        let started = now();
        async move || started.elapsed() > Duration::from_millis(300)
    })
    .await;
    assert_eq!(bob.ack(1, 1).await.acknowledged, 1, "it was being worked on");
    bob.leases_lost().await;
    until("the one that lapsed expires", async || stage.pending("bob").await == 0).await;
    bob.credit(10, 0);
    bob.expect_silence().await;
}

/// A million times would cost no more: what waits is not looked at. Here the counts only have to be right.
#[tokio::test]
async fn line_4_many_delayed_messages_come_once_each_also_over_a_crash() {
    let stage = Stage::with(&["alice", "bob"]).await;
    let due = clock_now() + Duration::from_millis(700);
    stage.publish_all((0..2_000).map(|number| to_bob(&number.to_string()).not_before(due).build())).await;
    let stage = stage.crash_and_start().await;
    let mut bob = stage.subscribe("bob").await;
    let taken = bob.take(2_000).await;
    assert!(clock_now() >= due);
    assert!(attempts(&taken).iter().all(|(_, attempt)| *attempt == 1));
    let mut sequences: Vec<u64> = taken.iter().map(|delivery| delivery.message.sequence).collect();
    sequences.sort_unstable();
    sequences.dedup();
    assert_eq!(sequences.len(), 2_000);
    bob.expect_silence().await;
}
