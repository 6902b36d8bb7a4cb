//! Subscriptions that break the rules of their stream.

use std::time::Duration;

use tandem_proto::messaging::v1::{AckOutcome, subscribe_request::Kind};
use tandem_tests::{Refused, Subscriber, direct};
use tonic::Code;

use crate::stage::{Stage, WORKSPACE};

#[tokio::test]
async fn a_stream_that_opens_twice_ends() {
    let stage = Stage::with(&["bob"]).await;
    let mut subscriber = Subscriber::open(stage.broker.channel(), WORKSPACE, "bob").await;
    subscriber.send_open(WORKSPACE, "bob");
    let says = ["open already", "use another stream"];
    subscriber.end().await.expect(Code::FailedPrecondition, "STREAM_OPENED_TWICE", &says);
}

#[tokio::test]
async fn a_stream_that_does_not_begin_with_open_ends() {
    let stage = Stage::with(&["bob"]).await;
    for kind in [Kind::Ack(Default::default()), Kind::Credit(Default::default())] {
        let mut subscriber = Subscriber::silent(stage.broker.channel()).await;
        subscriber.send(Some(kind));
        let says = ["the first request of a subscription must be open"];
        subscriber.end().await.expect(Code::FailedPrecondition, "STREAM_NOT_OPEN", &says);
    }
    let mut subscriber = Subscriber::silent(stage.broker.channel()).await;
    subscriber.send(None);
    subscriber
        .end()
        .await
        .expect(Code::InvalidArgument, "INVALID_FIELD", &["send open, credit, ack, nack or extend"])
        .at("kind");
}

#[tokio::test]
async fn a_stream_that_never_gives_credit_ends() {
    let stage = Stage::set_up(&["alice", "bob"], |config| config.limits.credit_timeout_ms = 200).await;
    stage.publish(direct("alice", "bob", "waits")).await;
    for credit in [None, Some((5, 0)), Some((0, 1_000))] {
        let mut subscriber = Subscriber::open(stage.broker.channel(), WORKSPACE, "bob").await;
        if let Some((messages, bytes)) = credit {
            subscriber.credit(messages, bytes);
        }
        let says = ["no credit for messages and bytes within 200 ms", "send credit right after open"];
        subscriber.end().await.expect(Code::FailedPrecondition, "NO_CREDIT", &says);
    }
    let mut patient = stage.subscribe("bob").await;
    patient.take(1).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(patient.ack(1, 1).await.acknowledged, 1, "who gave credit once may wait as long as it likes");
}

/// Otherwise a client could hold every place for streams for nothing.
#[tokio::test]
async fn a_stream_that_never_opens_ends() {
    let stage = Stage::set_up(&["bob"], |config| config.limits.credit_timeout_ms = 200).await;
    let mut subscriber = Subscriber::silent(stage.broker.channel()).await;
    subscriber.end().await.expect(Code::FailedPrecondition, "STREAM_NOT_OPEN", &["within 200 ms"]);
}

#[tokio::test]
async fn more_credit_than_the_limit_is_refused() {
    let stage = Stage::with(&["bob"]).await;
    for (messages, bytes) in [(65_537, 1), (1, (64 << 20) + 1), (u32::MAX, u64::MAX)] {
        let mut subscriber = Subscriber::open(stage.broker.channel(), WORKSPACE, "bob").await;
        subscriber.credit(messages, bytes);
        let says = ["above the limit of 65536 messages and 67108864 bytes", "give less"];
        subscriber.end().await.expect(Code::InvalidArgument, "CREDIT_TOO_LARGE", &says);
    }
    let mut subscriber = stage.subscribe("bob").await;
    subscriber.credit(60_000, 1);
    subscriber.end().await.expect(Code::InvalidArgument, "CREDIT_TOO_LARGE", &["credit of 60000 messages"]);
}

#[track_caller]
fn only_refusal(outcome: AckOutcome) -> Refused {
    let [refusal] = &outcome.refusals[..] else { panic!("one range is refused: {outcome:?}") };
    Refused::from(refusal.status.clone().unwrap())
}

#[tokio::test]
async fn acks_of_deliveries_that_never_were_are_refused_and_the_stream_goes_on() {
    let stage = Stage::with(&["alice", "bob"]).await;
    stage.publish_all((0..3).map(|n| direct("alice", "bob", n.to_string()))).await;
    let mut subscriber = stage.subscribe("bob").await;
    subscriber.take(3).await;
    for (first, last) in [(0, 0), (4, 4), (1, 4), (3, 2), (0, u64::MAX), (u64::MAX, u64::MAX)] {
        let outcome = subscriber.ack(first, last).await;
        assert_eq!(outcome.acknowledged, 0, "a range that is wrong is refused as a whole");
        let says = [&*format!("from {first} to {last}"), "made deliveries 1 to 3"];
        only_refusal(outcome).expect(Code::NotFound, "UNKNOWN_DELIVERY", &says);
    }
    assert_eq!(subscriber.ack(2, 2).await.acknowledged, 1);
    let outcome = subscriber.ack(1, 3).await;
    assert_eq!(outcome.acknowledged, 2, "what of a range is still leased is acknowledged");
    only_refusal(outcome).expect(Code::NotFound, "UNKNOWN_DELIVERY", &["1 to 3 are acknowledged already"]);
    let outcome = subscriber.ack(1, 3).await;
    assert_eq!(outcome.acknowledged, 0);
    only_refusal(outcome).expect(Code::NotFound, "UNKNOWN_DELIVERY", &["acknowledged already"]);
    assert_eq!(stage.pending("bob").await, 0);
}

#[tokio::test]
async fn a_client_that_vanishes_loses_its_leases_at_once() {
    let stage = Stage::with(&["alice", "bob"]).await;
    stage.publish_all((0..10).map(|n| direct("alice", "bob", n.to_string()))).await;
    let mut vanishes = stage.subscribe("bob").await;
    let first: Vec<_> = vanishes.take(10).await.into_iter().map(|delivery| delivery.message.sequence).collect();
    let mut stays = stage.subscribe("bob").await;
    stays.expect_silence().await;
    drop(vanishes);
    let second: Vec<_> = stays.take(10).await.into_iter().map(|delivery| delivery.message.sequence).collect();
    assert_eq!(first, second);
    assert_eq!(stays.ack(1, 10).await.acknowledged, 10);
    assert_eq!(stage.pending("bob").await, 0);
}
