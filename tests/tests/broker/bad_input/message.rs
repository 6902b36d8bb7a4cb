//! Messages that cannot be published.

use tandem_client::{Batch, Code, Destination, Error, ExceptionKind, HistoryQuery, Message, Placed, destination};
use tandem_proto::messaging::v1::{
    CapabilityDestination, PublishStreamRequest, publish_service_client::PublishServiceClient,
};
use tandem_tests::{Refused, broadcast, direct, named};

use crate::stage::{Stage, WORKSPACE, text};

/// What is wrong, the field that is named, and what the text must say.
type Fault = (fn(&mut Message), &'static str, &'static [&'static str]);

const WRONG_VALUES: [Fault; 17] = [
    (|m| m.content.clear(), "content", &["content is empty", "at least one byte"]),
    (|m| m.priority = Some(10), "priority", &["priority is 10", "0 to 9"]),
    (|m| m.priority = Some(u32::MAX), "priority", &["priority is 4294967295", "0 to 9"]),
    (|m| m.r#type = 0, "type", &["type is missing", "request, response, notification or command"]),
    (|m| m.r#type = 7, "type", &["type 7 does not exist", "1 to 4"]),
    (|m| m.destination = None, "destination", &["destination is missing", "name a sandbox, a topic, a capability"]),
    (|m| m.from_sandbox_id.clear(), "from_sandbox_id", &["is empty"]),
    (|m| m.from_sandbox_id = "a b".into(), "from_sandbox_id", &["\"a b\"", "A-Z a-z 0-9"]),
    (|m| m.message_id = "seq-1".into(), "message_id", &["\"seq-1\"", "the broker keeps for itself"]),
    (|m| m.message_id = "x".repeat(129), "message_id", &["longer than 128 bytes"]),
    (|m| m.requires_response = true, "requires_response", &["only a request or a command"]),
    (|m| m.traceparent = "hello".into(), "traceparent", &["\"hello\"", "W3C trace context, such as"]),
    (|m| m.sequence = 4, "message", &["field 31", "set by the broker; leave it empty"]),
    (|m| m.correlation_id = "c".repeat(129), "correlation_id", &["longer than 128 bytes"]),
    (|m| m.metadata = (0..65).map(|n| (format!("k{n}"), "v".into())).collect(), "metadata", &["more than 64 pairs"]),
    (|m| m.destination = Some(all_and_wait()), "destination.capability", &["both all and wait"]),
    (
        |m| m.metadata = [("k".into(), "v".into()), ("aintandem-error".into(), "EXPIRED".into())].into(),
        "metadata",
        &["\"aintandem-error\"", "the broker keeps for what it says itself", "choose another key"],
    ),
];

fn all_and_wait() -> Destination {
    let both = CapabilityDestination { capability: "review".into(), all: true, wait: true };
    Destination { kind: Some(destination::Kind::Capability(both)) }
}

#[tokio::test]
async fn each_wrong_value_is_named_also_within_a_batch() {
    let stage = Stage::with(&["alice", "bob"]).await;
    let (code, reason) = (Code::InvalidArgument, "INVALID_FIELD");
    for (spoil, field, says) in &WRONG_VALUES {
        let mut message = direct("alice", "bob", "hello");
        // The client names messages without an id before it sends them.
        message.message_id = format!("spoilt-{field}");
        spoil(&mut message);
        let refused = Refused::from(stage.try_publish(message.clone()).await.unwrap_err());
        refused.expect(code, reason, says).at(field);
        assert_eq!(refused.retry_delay, None, "a retry cannot help: {refused:?}");
        refused_within_a_batch(&stage, message).await.expect(code, reason, says).at(field);
    }
    assert_eq!(
        stage.pending("bob").await,
        2 * WRONG_VALUES.len() as u64,
        "the good messages beside the wrong ones, and no other"
    );
}

/// Publishes a wrong message between two good ones and returns its refusal.
async fn refused_within_a_batch(stage: &Stage, wrong: Message) -> Refused {
    let mut stream = stage.client.publisher(WORKSPACE).batch_stream();
    let good = || direct("alice", "bob", "good");
    let batch: Batch = [&good(), &wrong, &good()].into_iter().collect();
    stream.send(batch).unwrap();
    stream.finish();
    let receipt = stream.next().await.unwrap().unwrap();
    assert_eq!((receipt.messages, receipt.accepted), (3, 2), "{receipt:?}");
    let [exception] = &receipt.exceptions[..] else { panic!("one message is wrong: {receipt:?}") };
    assert_eq!(exception.index, 1);
    let ExceptionKind::Refused(error) = &exception.kind else { panic!("it is refused: {exception:?}") };
    Refused::from(error.clone())
}

/// The contract: the message at position i has the sequence first_sequence + i, and the places of refused ones stay empty.
#[tokio::test]
async fn sequences_follow_positions_around_a_refused_message() {
    let stage = Stage::with(&["alice", "bob"]).await;
    stage.publish(named("known", direct("alice", "bob", "known"))).await;
    let mut stream = stage.client.publisher(WORKSPACE).batch_stream();
    let messages = [
        named("first", direct("alice", "bob", "first")),
        direct("alice", "nobody", "refused by the log"),
        named("known", direct("alice", "bob", "known")),
        named("second", direct("alice", "bob", "second")),
        direct("alice", "bob", ""),
        named("third", direct("alice", "bob", "third")),
    ];
    stream.send(messages.iter().collect()).unwrap();
    stream.finish();
    let receipt = stream.next().await.unwrap().unwrap();
    assert_eq!((receipt.accepted, receipt.exceptions.len()), (3, 3), "{receipt:?}");
    assert_eq!(receipt.placed(2).unwrap(), Placed::DuplicateOf(1), "the known message keeps its sequence");
    for (index, id) in [(0, "first"), (3, "second"), (5, "third")] {
        let stored = stage.client.history(WORKSPACE).get(id).await.unwrap();
        assert_eq!(receipt.placed(index).unwrap(), Placed::New(stored.sequence), "what the receipt says of {id}");
    }
    let log: Vec<_> = stage.history(HistoryQuery::default()).await.iter().map(|m| text(m).to_owned()).collect();
    assert_eq!(log, ["known", "first", "second", "third"]);
}

#[tokio::test]
async fn an_id_that_stands_for_another_message_is_refused() {
    let stage = Stage::with(&["alice", "bob"]).await;
    stage.publish(named("m1", direct("alice", "bob", "the first"))).await;
    let error = stage.try_publish(named("m1", direct("alice", "bob", "another"))).await.unwrap_err();
    let says = ["\"m1\" was used for another message, with sequence 1", "choose a new id"];
    Refused::from(error).expect(Code::AlreadyExists, "MESSAGE_ID_REUSED", &says);
    assert_eq!(stage.pending("bob").await, 1);
}

#[tokio::test]
async fn content_over_the_limit_is_refused_with_the_limit() {
    let stage = Stage::set_up(&["alice", "bob"], |config| config.limits.max_message_bytes = 10_000).await;
    let fits = direct("alice", "bob", "x".repeat(9_900));
    stage.publish(fits).await;
    let error = stage.try_publish(direct("alice", "bob", "x".repeat(10_000))).await.unwrap_err();
    let says = ["at most 10000 are allowed", "send a reference to the content instead"];
    Refused::from(error).expect(Code::InvalidArgument, "MESSAGE_TOO_LARGE", &says).at("message");
    let refused = refused_within_a_batch(&stage, broadcast("alice", "x".repeat(10_000))).await;
    refused.expect(Code::InvalidArgument, "MESSAGE_TOO_LARGE", &says).at("message");
}

/// A message that is larger than any request may be is refused before it is read, and no less clearly.
#[tokio::test]
async fn content_over_every_limit_is_refused_as_clearly() {
    let stage = Stage::with(&["alice", "bob"]).await;
    let error = stage.try_publish(direct("alice", "bob", "x".repeat(6 << 20))).await.unwrap_err();
    Refused::from(error).expect(Code::InvalidArgument, "MESSAGE_TOO_LARGE", &["at most 1048576 are allowed"]);
}

#[tokio::test]
async fn a_batch_over_a_limit_is_refused_as_a_whole() {
    let stage = Stage::set_up(&["alice", "bob"], |config| {
        config.limits.max_batch_messages = 10;
        config.limits.max_batch_bytes = 20_000;
        config.limits.max_message_bytes = 10_000;
    })
    .await;
    let many: Batch = vec![direct("alice", "bob", "x"); 11].iter().collect();
    let large: Batch = vec![direct("alice", "bob", "x".repeat(8_000)); 3].iter().collect();
    for (batch, says) in [(many, "11 messages"), (large, "3 messages and 24"), (Batch::new(), "no messages")] {
        let mut stream = stage.client.publisher(WORKSPACE).batch_stream();
        let reason = if batch.is_empty() { "INVALID_FIELD" } else { "BATCH_TOO_LARGE" };
        let advice =
            if batch.is_empty() { "send at least one" } else { "at most 10 messages and 20000 bytes are allowed" };
        stream.send(batch).unwrap();
        let error: Error = stream.next().await.unwrap_err();
        Refused::from(error).expect(Code::InvalidArgument, reason, &[says, advice]).at("messages");
    }
    assert_eq!(stage.pending("bob").await, 0);
}

#[tokio::test]
async fn a_stream_that_turns_to_another_workspace_is_refused() {
    let stage = Stage::with(&["alice", "bob"]).await;
    let request = |workspace: &str| PublishStreamRequest {
        workspace_id: workspace.into(),
        messages: vec![direct("alice", "bob", "x")],
        ..PublishStreamRequest::default()
    };
    let requests = [WORKSPACE, "", WORKSPACE, "elsewhere"].map(request);
    let mut service = PublishServiceClient::new(stage.broker.channel());
    let mut answers = service.publish_stream(tokio_stream::iter(requests)).await.unwrap().into_inner();
    for _ in 0..3 {
        assert_eq!(answers.message().await.unwrap().unwrap().accepted, 1);
    }
    let refused = Refused::from(answers.message().await.unwrap_err());
    refused.expect(Code::InvalidArgument, "INVALID_FIELD", &["\"default\"", "\"elsewhere\"", "another stream"]);
    assert_eq!(refused.fields, ["workspace_id"]);
    assert_eq!(stage.pending("bob").await, 3);
}
