//! Line 9: a request and its response in one call.

use std::time::Duration;

use tandem_client::{
    Agent, Code, Error, Message, MessageBuilder, MessageType, Nack, Publisher, Response, to_capability, to_sandbox,
};
use tandem_tests::{Refused, Subscriber, broadcast, now};
use tokio::task::JoinHandle;

use super::{question, reply};
use crate::stage::{Stage, WORKSPACE, text};

/// Longer than any test takes.
const LONG: Duration = Duration::from_secs(60);
/// Far below [`LONG`], and above what a busy machine takes.
const SOON: Duration = Duration::from_secs(10);

/// A call under way.
fn call(publisher: Publisher, message: Message, timeout: Duration) -> JoinHandle<Result<Response, Error>> {
    tokio::spawn(async move { publisher.request(message, timeout).await })
}

async fn outcome(call: JoinHandle<Result<Response, Error>>) -> Result<Response, Error> {
    tokio::time::timeout(SOON, call).await.expect("the call ends soon").unwrap()
}

/// The only thing that waits for a sandbox.
async fn only(stage: &Stage, sandbox: &str) -> Message {
    let mut subscriber = stage.subscribe(sandbox).await;
    let delivery = subscriber.take(1).await.remove(0);
    subscriber.expect_silence().await;
    delivery.message
}

#[tokio::test]
async fn line_9_a_call_returns_the_response_with_its_correlation_id_and_nothing_else() {
    let stage = Stage::with(&["alice", "bob"]).await;
    let mut bob = stage.subscribe("bob").await;
    for kind in [MessageType::Request, MessageType::Command] {
        let id = format!("{kind:?}");
        let asked = Message { r#type: kind.into(), ..question("alice", "bob", &id) };
        let waiting = call(stage.client.publisher(WORKSPACE), asked, LONG);
        let delivery = bob.take(1).await.remove(0);
        assert_eq!((delivery.message.r#type(), delivery.message.correlation_id.as_str()), (kind, id.as_str()));
        // Under another id, and under this one but no response: neither is what the caller waits for.
        let other = Message { correlation_id: format!("{id}-other"), ..delivery.message.clone() };
        stage.publish(reply(&other, "another answer")).await;
        let report = Message { r#type: MessageType::Notification.into(), ..reply(&delivery.message, "a report") };
        stage.publish(report).await;
        assert!(!waiting.is_finished());
        let answered = stage.publish(reply(&delivery.message, "42")).await;
        let response = outcome(waiting).await.unwrap();
        assert_eq!((text(&response.message), response.message.sequence), ("42", answered.sequence));
        assert_eq!((response.message.r#type(), response.message.correlation_id), (MessageType::Response, id));
        assert_eq!((response.request_sequence, response.resumed), (delivery.message.sequence, false));
        bob.ack(delivery.delivery_id, delivery.delivery_id).await;
    }
    let mut alice = stage.subscribe("alice").await;
    let inbox = alice.take(4).await;
    let seen: Vec<&str> = inbox.iter().map(|delivery| text(&delivery.message)).collect();
    assert_eq!(seen, ["another answer", "a report", "another answer", "a report"]);
    alice.expect_silence().await;
}

#[tokio::test]
async fn line_9_a_call_goes_to_whoever_has_a_capability() {
    let stage = Stage::with(&["alice"]).await;
    let publisher = stage.client.publisher(WORKSPACE);
    let ask = Message { destination: Some(to_capability("adding")), ..question("alice", "", "c") };
    let refused = Refused::from(publisher.request(ask.clone(), LONG).await.unwrap_err());
    refused.expect(Code::FailedPrecondition, "NO_CAPABLE_SANDBOX", &["\"adding\""]);
    let agent = Agent { name: "a".into(), capabilities: vec!["adding".into()], ..Default::default() };
    stage.client.registry(WORKSPACE).register_with_agents("bob", vec![agent]).await.unwrap();
    let mut bob = stage.subscribe("bob").await;
    let waiting = call(publisher, ask, LONG);
    let asked = bob.take(1).await.remove(0).message;
    stage.publish(MessageBuilder::response_to(&asked, "bob", "42").build()).await;
    let response = outcome(waiting).await.unwrap().message;
    assert_eq!((text(&response), response.from_sandbox_id.as_str()), ("42", "bob"));
}

/// Requests and commands have to be acknowledged like everything else: a response is no ack.
#[tokio::test]
async fn line_9_a_request_that_is_answered_and_not_acknowledged_comes_again() {
    let stage = Stage::with(&["alice", "bob"]).await;
    let mut bob = stage.subscribe("bob").await;
    let waiting = call(stage.client.publisher(WORKSPACE), question("alice", "bob", "c"), LONG);
    let first = bob.take(1).await.remove(0);
    stage.publish(reply(&first.message, "done")).await;
    outcome(waiting).await.unwrap();
    assert_eq!(stage.pending("bob").await, 1);
    drop(bob);
    let mut bob = stage.subscribe("bob").await;
    let again = bob.take(1).await.remove(0);
    assert_eq!((again.message.sequence, again.attempt), (first.message.sequence, 2));
    bob.ack(1, 1).await;
    assert_eq!(stage.pending("bob").await, 0);
}

/// Responses and notifications cannot ask for a response, and nobody is told when they fail; who sent a request is.
#[tokio::test]
async fn line_9_only_requests_and_commands_have_responses() {
    let stage = Stage::with(&["alice", "bob"]).await;
    let kinds = [MessageType::Request, MessageType::Response, MessageType::Notification, MessageType::Command];
    for kind in kinds {
        let id = format!("{kind:?}");
        let message = Message { r#type: kind.into(), ..question("alice", "bob", &id) };
        let published = stage.try_publish(Message { requires_response: true, ..message.clone() }).await;
        if matches!(kind, MessageType::Request | MessageType::Command) {
            published.unwrap();
            continue;
        }
        let says = ["only a request or a command can require a response"];
        let refused = Refused::from(published.unwrap_err());
        refused.expect(Code::InvalidArgument, "INVALID_FIELD", &says).at("requires_response");
        let refused =
            Refused::from(stage.client.publisher(WORKSPACE).request(message.clone(), LONG).await.unwrap_err());
        refused.expect(Code::InvalidArgument, "INVALID_FIELD", &["only a request or a command"]).at("message.type");
        stage.publish(message).await;
    }
    let mut bob = stage.client.subscribe(WORKSPACE, "bob", Default::default()).await.unwrap();
    for _ in kinds {
        let delivery = bob.next().await.unwrap().unwrap();
        bob.nack(&delivery, Nack::dead_letter("not for me"));
    }
    bob.flush_acks().await.unwrap();
    assert_eq!(bob.nack_counts().dead_lettered, 4);
    let mut alice = stage.subscribe("alice").await;
    for told in alice.take(2).await.iter().map(|delivery| &delivery.message) {
        assert!(["Request", "Command"].contains(&told.correlation_id.as_str()), "{told:?}");
        assert_eq!((told.r#type(), told.metadata["aintandem-error"].as_str()), (MessageType::Response, "REJECTED"));
    }
    alice.expect_silence().await;
}

#[tokio::test]
async fn line_9_the_deadline_ends_a_call_and_a_late_response_goes_to_the_inbox() {
    let stage = Stage::with(&["alice", "bob"]).await;
    let mut bob = stage.subscribe("bob").await;
    let started = now();
    let waiting = call(stage.client.publisher(WORKSPACE), question("alice", "bob", "c"), Duration::from_millis(300));
    let asked = bob.take(1).await.remove(0);
    let refused = Refused::from(outcome(waiting).await.unwrap_err());
    let says = ["no response to \"c\" came within 300 ms", "goes to the inbox of sandbox \"alice\""];
    refused.expect(Code::DeadlineExceeded, "RESPONSE_TIMEOUT", &says);
    assert!(started.elapsed() >= Duration::from_millis(300), "{:?}", started.elapsed());
    let late = stage.publish(reply(&asked.message, "late")).await;
    let found = only(&stage, "alice").await;
    assert_eq!((found.sequence, text(&found)), (late.sequence, "late"));
    // The request itself is as it was: the deadline ends the waiting, not the work.
    assert_eq!(stage.pending("bob").await, 1);
}

/// The caller went away for good; what was meant for it must not be lost.
#[tokio::test]
async fn line_9_a_response_that_nobody_fetched_goes_to_the_inbox_at_the_deadline() {
    let stage = Stage::with(&["alice", "bob"]).await;
    let mut bob = stage.subscribe("bob").await;
    let waiting = call(stage.client.publisher(WORKSPACE), question("alice", "bob", "c"), Duration::from_secs(2));
    let asked = bob.take(1).await.remove(0);
    waiting.abort();
    assert!(waiting.await.unwrap_err().is_cancelled());
    // The broker sees that the call is gone once a call behind it on the same connection is answered.
    stage.pending("alice").await;
    let answered = stage.publish(reply(&asked.message, "42")).await;
    assert_eq!(stage.pending("alice").await, 0, "it waits for the caller until the deadline");
    let stage = stage.crash_and_start().await;
    let found = only(&stage, "alice").await;
    assert_eq!((found.sequence, text(&found)), (answered.sequence, "42"));
}

/// The same message again, after its time was over: no second request, and a second wait.
#[tokio::test]
async fn line_9_a_call_that_is_made_again_after_its_deadline_waits_on() {
    let stage = Stage::with(&["alice", "bob"]).await;
    let ask = Message { message_id: "question".into(), ..question("alice", "bob", "c") };
    let publisher = stage.client.publisher(WORKSPACE);
    let timeout = Duration::from_millis(100);
    let refused = Refused::from(publisher.request(ask.clone(), timeout).await.unwrap_err());
    assert_eq!(refused.reason, "RESPONSE_TIMEOUT");
    let stage = stage.crash_and_start().await;
    let started = now();
    let refused = Refused::from(stage.client.publisher(WORKSPACE).request(ask.clone(), timeout).await.unwrap_err());
    assert_eq!(refused.reason, "RESPONSE_TIMEOUT");
    assert!(started.elapsed() >= timeout, "it did not wait");
    let asked = only(&stage, "bob").await;
    let mut waiting = call(stage.client.publisher(WORKSPACE), ask, LONG);
    // A response that comes before the call goes to the inbox, so there is one until the call has one.
    let response = loop {
        tokio::select! {
            response = &mut waiting => break response.unwrap().unwrap(),
            _ = stage.publish(reply(&asked, "42")) => {}
        }
    };
    assert_eq!((text(&response.message), response.request_sequence, response.resumed), ("42", asked.sequence, true));
}

/// What keeps a request from ever being answered ends the call, long before its deadline.
#[tokio::test]
async fn line_9_a_call_whose_request_dies_ends_at_once() {
    let stage = Stage::with(&["alice", "bob"]).await;
    let publisher = stage.client.publisher(WORKSPACE);
    let mut bob = stage.client.subscribe(WORKSPACE, "bob", Default::default()).await.unwrap();
    let waiting = call(publisher.clone(), question("alice", "bob", "rejected"), LONG);
    let asked = bob.next().await.unwrap().unwrap();
    bob.nack(&asked, Nack::dead_letter("I cannot"));
    bob.flush_acks().await.unwrap();
    let undeliverable = |error: Error| match error {
        Error::Undeliverable(undeliverable) => *undeliverable,
        other => panic!("{other:?}"),
    };
    let told = undeliverable(outcome(waiting).await.unwrap_err());
    assert_eq!((told.code.as_str(), told.text.as_str()), ("REJECTED", "I cannot"));
    assert_eq!(told.request_sequence, Some(asked.message.sequence));
    bob.close().await.unwrap();

    let brief = MessageBuilder::request("alice", to_sandbox("bob"), "?").correlation_id("expired");
    let waiting = call(publisher.clone(), brief.ttl(Duration::from_secs(1)).build(), LONG);
    assert_eq!(undeliverable(outcome(waiting).await.unwrap_err()).code, "EXPIRED");

    let settings = tandem_client::WorkspaceSettings { max_hops: 1, ..Default::default() };
    stage.client.workspaces().update(WORKSPACE, settings).await.unwrap();
    for (from, to) in [("alice", "bob"), ("bob", "alice")] {
        stage.publish(question(from, to, "loop")).await;
    }
    let told = undeliverable(outcome(call(publisher, question("alice", "bob", "loop"), LONG)).await.unwrap_err());
    assert_eq!(told.code, "LOOP");
}

#[tokio::test]
async fn line_9_a_call_that_cannot_be_is_refused_with_its_field() {
    let stage = Stage::with(&["alice", "bob"]).await;
    let publisher = stage.client.publisher(WORKSPACE);
    let ask = || question("alice", "bob", "c");
    let to_all = Message { destination: broadcast("alice", "").destination, ..ask() };
    let nobody = Message { destination: Some(to_sandbox("nobody")), ..ask() };
    let cases = [
        (ask(), Duration::from_millis(99), "timeout", Code::InvalidArgument, "INVALID_FIELD"),
        (ask(), Duration::from_secs(24 * 3600 + 1), "timeout", Code::InvalidArgument, "INVALID_FIELD"),
        (to_all, LONG, "message.destination", Code::InvalidArgument, "INVALID_FIELD"),
    ];
    for (message, timeout, field, code, reason) in cases {
        Refused::from(publisher.request(message, timeout).await.unwrap_err()).expect(code, reason, &[]).at(field);
    }
    let refused = Refused::from(publisher.request(nobody, LONG).await.unwrap_err());
    refused.expect(Code::NotFound, "UNKNOWN_SANDBOX", &["\"nobody\""]);
    assert_eq!(stage.history(Default::default()).await.len(), 0);
}

/// Calls that wait under one id are one request, and another request cannot take its place.
#[tokio::test]
async fn line_9_the_correlation_id_tells_a_repeated_call_from_another_request() {
    let stage = Stage::with(&["alice", "bob", "carol"]).await;
    let mut bob: Subscriber = stage.subscribe("bob").await;
    let calls: Vec<_> =
        (0..3).map(|_| call(stage.broker.client().publisher(WORKSPACE), question("alice", "bob", "c"), LONG)).collect();
    let asked = bob.take(1).await.remove(0);
    let other = Message { content: "something else".into(), ..question("alice", "bob", "c") };
    let refused = Refused::from(stage.client.publisher(WORKSPACE).request(other, LONG).await.unwrap_err());
    refused.expect(Code::AlreadyExists, "MESSAGE_ID_REUSED", &["\"alice\"", "same correlation id"]);
    // The id is the sender's: another sandbox may use the same.
    let carols = call(stage.client.publisher(WORKSPACE), question("carol", "bob", "c"), LONG);
    let from_carol = bob.take(1).await.remove(0);
    bob.expect_silence().await;
    stage.publish(reply(&asked.message, "for alice")).await;
    stage.publish(reply(&from_carol.message, "for carol")).await;
    let mut resumed = 0;
    for call in calls {
        let response = outcome(call).await.unwrap();
        assert_eq!((text(&response.message), response.request_sequence), ("for alice", asked.message.sequence));
        resumed += u32::from(response.resumed);
    }
    assert_eq!(resumed, 2, "one call published the request, the others joined it");
    assert_eq!(text(&outcome(carols).await.unwrap().message), "for carol");
    assert_eq!((stage.pending("alice").await, stage.pending("carol").await), (0, 0));
}
