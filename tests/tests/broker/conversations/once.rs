//! Line 10: published once, by message id and by producer.

use std::time::Duration;

use tandem_client::{
    BatchReceipt, Code, Error, ExceptionKind, Message, MessageBuilder, Placed, Producer, ProducerPosition,
    PublishStreamOptions, Receipt, to_sandbox,
};
use tandem_tests::{Refused, Relay, direct, named, now};

use crate::stage::{Stage, WORKSPACE, text};

fn position(producer_id: &str, sequence: u64) -> ProducerPosition {
    ProducerPosition { producer_id: producer_id.into(), sequence }
}

fn numbered(number: u64) -> Message {
    direct("alice", "bob", number.to_string())
}

async fn publish_as(stage: &Stage, producer_id: &str, sequence: u64) -> Result<Receipt, Error> {
    stage.client.publisher(WORKSPACE).publish_as(numbered(sequence), position(producer_id, sequence)).await
}

#[tokio::test]
async fn line_10_an_id_is_published_once_over_restarts_and_its_content_is_part_of_it() {
    let mut stage = Stage::with(&["alice", "bob", "carol"]).await;
    let message = MessageBuilder::request("alice", to_sandbox("bob"), "do it")
        .message_id("m-1")
        .priority(7)
        .header("k", "v")
        .ordering_key("key")
        .ttl(Duration::from_secs(3600))
        .build();
    let first = stage.publish(message.clone()).await;
    type Change = (&'static str, fn(&mut Message));
    let changes: [Change; 7] = [
        ("content", |m| m.content = "do that".into()),
        ("recipient", |m| m.destination = Some(to_sandbox("carol"))),
        ("sender", |m| m.from_sandbox_id = "carol".into()),
        ("priority", |m| m.priority = None),
        ("metadata", |m| m.metadata = [("k".into(), "w".into())].into()),
        ("ordering key", |m| m.ordering_key.clear()),
        ("ttl", |m| m.ttl = None),
    ];
    for round in 0..3 {
        let again = stage.publish(message.clone()).await;
        assert_eq!((again.sequence, again.duplicate, again.server_time), (first.sequence, true, first.server_time));
        // A retry runs under another span.
        let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into();
        assert!(stage.publish(Message { traceparent, ..message.clone() }).await.duplicate);
        for (what, change) in changes {
            let mut changed = message.clone();
            change(&mut changed);
            let refused = Refused::from(stage.try_publish(changed).await.expect_err(what));
            let says = ["\"m-1\"", "with sequence 1", "choose a new id for new content"];
            refused.expect(Code::AlreadyExists, "MESSAGE_ID_REUSED", &says);
        }
        assert_eq!(stage.history(Default::default()).await.len(), 1);
        stage = if round == 0 { stage.crash_and_start().await } else { stage.stop_and_start().await };
    }
    // Another workspace has ids of its own.
    stage.client.workspaces().create("other").await.unwrap();
    for sandbox in ["alice", "bob"] {
        stage.client.registry("other").register_with_agents(sandbox, Vec::new()).await.unwrap();
    }
    let elsewhere = stage.client.publisher("other").publish(named("m-1", direct("alice", "bob", "new"))).await.unwrap();
    assert!(!elsewhere.duplicate);
}

#[tokio::test]
async fn line_10_a_producer_tells_new_from_repeated_and_missing_over_restarts() {
    let mut stage = Stage::with(&["alice", "bob"]).await;
    for sequence in 1..=5 {
        let receipt = publish_as(&stage, "p", sequence).await.unwrap();
        assert_eq!((receipt.sequence, receipt.duplicate), (sequence, false));
    }
    for restart in 0..3 {
        for sequence in 1..=5 {
            let again = publish_as(&stage, "p", sequence).await.unwrap();
            assert_eq!((again.sequence, again.duplicate), (sequence, true), "after {restart} restarts");
        }
        for ahead in [7, 8, u64::MAX] {
            let refused = Refused::from(publish_as(&stage, "p", ahead).await.unwrap_err());
            let says = ["the producer is at 5", "position 6", "send what is missing first"];
            refused.expect(Code::FailedPrecondition, "PRODUCER_GAP", &says);
        }
        stage = if restart == 0 { stage.crash_and_start().await } else { stage.stop_and_start().await };
    }
    let zero = Refused::from(publish_as(&stage, "p", 0).await.unwrap_err());
    zero.expect(Code::InvalidArgument, "INVALID_FIELD", &["producer.sequence is 0", "begins with 1"])
        .at("producer.sequence");
    assert_eq!(publish_as(&stage, "p", 6).await.unwrap().sequence, 6);
    // Producers are strangers to each other, and may begin anywhere.
    assert_eq!(publish_as(&stage, "q", 70).await.unwrap().sequence, 7);
    assert!(publish_as(&stage, "q", 70).await.unwrap().duplicate);
    assert_eq!(stage.pending("bob").await, 7);
}

/// A batch that was answered to nobody is sent again, in other portions: what is known comes back with its sequence, what
/// is new goes on.
#[tokio::test]
async fn line_10_batches_of_a_producer_overlap() {
    let stage = Stage::with(&["alice", "bob"]).await;
    let send = async |first: u64, messages: &[Message]| -> BatchReceipt {
        let mut stream = stage.client.publisher(WORKSPACE).batch_stream_as(position("p", first));
        stream.send(messages.iter().collect()).unwrap();
        stream.finish();
        stream.next().await.unwrap().unwrap()
    };
    let messages: Vec<Message> = (1..=20).map(numbered).collect();
    assert_eq!(send(1, &messages[..10]).await.accepted, 10);
    let overlapping = send(6, &messages[5..15]).await;
    assert_eq!(overlapping.accepted, 5);
    let duplicates: Vec<Placed> = (0..5).map(|index| overlapping.placed(index).unwrap()).collect();
    assert_eq!(duplicates, [6, 7, 8, 9, 10].map(Placed::DuplicateOf));
    // One that is refused has taken its position all the same.
    let mut spoilt = messages[15..].to_vec();
    spoilt[1] = direct("alice", "nobody", "refused");
    let receipt = send(16, &spoilt).await;
    assert_eq!(receipt.accepted, 4);
    assert!(
        matches!(&receipt.exceptions[..], [one] if one.index == 1 && matches!(one.kind, ExceptionKind::Refused(_)))
    );
    let again = send(16, &spoilt).await;
    assert_eq!(again.accepted, 0);
    let sequence = |receipt: &BatchReceipt, index: u32| match receipt.placed(index).unwrap() {
        Placed::New(sequence) | Placed::DuplicateOf(sequence) => sequence,
        held => panic!("{held:?}"),
    };
    let known = [0, 2, 3, 4].map(|index| sequence(&again, index));
    assert_eq!(known, [0, 2, 3, 4].map(|index| sequence(&receipt, index)));
    let refused = again.exceptions.iter().find(|exception| exception.index == 1).map(|exception| &exception.kind);
    let Some(ExceptionKind::Refused(error)) = refused else { panic!("what was refused is no duplicate: {again:?}") };
    assert_eq!(error.reason(), "POSITION_REFUSED", "{error}");
    assert!(error.to_string().contains("position 21"), "{error}");
    assert_eq!(stage.pending("bob").await, 19);
}

#[tokio::test]
async fn line_10_the_last_position_there_is_can_be_taken_and_not_passed() {
    let stage = Stage::with(&["alice", "bob"]).await;
    let receipt = publish_as(&stage, "last", u64::MAX).await.unwrap();
    assert!(publish_as(&stage, "last", u64::MAX).await.unwrap().duplicate);
    let mut stream = stage.client.publisher(WORKSPACE).batch_stream_as(position("other", u64::MAX));
    stream.send([numbered(1), numbered(2)].iter().collect()).unwrap();
    stream.finish();
    let refused = match stream.next().await {
        Ok(answer) => panic!("two messages have no room at the last position: {answer:?}"),
        Err(error) => Refused::from(error),
    };
    refused.expect(Code::InvalidArgument, "INVALID_FIELD", &["positions end before"]).at("producer.sequence");
    let stage = stage.crash_and_start().await;
    assert_eq!(publish_as(&stage, "last", u64::MAX).await.unwrap().sequence, receipt.sequence);
}

/// What an SDK does: a stream breaks in the middle, by a cut and by a kill, and a new one goes on at the first message without
/// an answer. Nothing is missing, nothing is there twice.
#[tokio::test]
async fn line_10_streams_that_break_and_resume_publish_each_message_once() {
    const MESSAGES: u64 = 4_000;
    let mut stage = Stage::with(&["alice", "bob"]).await;
    let relay = Relay::to(stage.broker.grpc_address()).await;
    let client = relay.client();
    let mut producer = Producer::New;
    let mut next = 1;
    for round in 0..5 {
        let stream = client.publisher(WORKSPACE).stream(PublishStreamOptions { producer, ..Default::default() });
        let producer_id = stream.producer_id().unwrap().to_owned();
        let mut pending = Vec::new();
        let last = if round == 4 { MESSAGES } else { (next + 999).min(MESSAGES) };
        for number in next..=last {
            match stream.send(numbered(number)).await {
                Ok(receipt) => pending.push(receipt),
                Err(_) => break,
            }
            if round < 4 && number == next + 700 {
                relay.cut();
            }
        }
        for receipt in pending {
            let sequence = receipt.producer_sequence().unwrap();
            assert_eq!(sequence, next, "receipts come in order");
            match receipt.await {
                Ok(_) => next += 1,
                Err(_) => break,
            }
        }
        producer = Producer::Resume(position(&producer_id, next));
        if round == 1 {
            stage = stage.crash_and_start().await;
            relay.lead_to(stage.broker.grpc_address());
        }
    }
    assert_eq!(next, MESSAGES + 1, "the last round was not cut");
    let log = stage.history(Default::default()).await;
    let numbers: Vec<u64> = log.iter().map(|message| text(message).parse().unwrap()).collect();
    assert_eq!(numbers, (1..=MESSAGES).collect::<Vec<_>>());
}

/// Ids and producers are remembered for the window at least, and forgotten after two at the most.
#[tokio::test]
async fn line_10_after_the_window_an_id_is_free_again() {
    const WINDOW: Duration = Duration::from_secs(3);
    let stage = Stage::set_up(&[], |config| config.limits.dedupe_window_ms = WINDOW.as_millis() as u64).await;
    stage.register("alice").await;
    stage.register("bob").await;
    let message = named("m-1", direct("alice", "bob", "first"));
    let started = now();
    let first = stage.publish(message.clone()).await;
    publish_as(&stage, "p", 5).await.unwrap();
    while started.elapsed() < WINDOW - Duration::from_secs(1) {
        assert!(stage.publish(message.clone()).await.duplicate);
        assert!(publish_as(&stage, "p", 5).await.unwrap().duplicate);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // Younger than the last word of the producer, and asking for it does not keep it alive.
    let younger = named("m-2", direct("alice", "bob", "younger"));
    stage.publish(younger.clone()).await;
    let published_anew = async |message: &Message| loop {
        let again = stage.publish(message.clone()).await;
        if !again.duplicate {
            break again.sequence;
        }
        assert!(started.elapsed() < 5 * WINDOW, "{} is remembered for ever", message.message_id);
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let again = published_anew(&message).await;
    assert!(started.elapsed() >= WINDOW && again > first.sequence, "forgotten too early");
    published_anew(&younger).await;
    // The producer as well: its next message may have any number.
    assert!(!publish_as(&stage, "p", 1).await.unwrap().duplicate);
    // The id names the newer one now; the older one is found in the history.
    let get = stage.client.history(WORKSPACE).get("m-1").await.unwrap();
    assert_eq!(get.sequence, again);
    let log = stage.history(Default::default()).await;
    assert_eq!(log.iter().filter(|found| found.message_id == "m-1").count(), 2);
}
