//! Several streams serve one inbox; each message goes to one of them.

use std::collections::BTreeSet;

use tandem_client::{Delivery, RetryPolicy, Sandbox};
use tandem_tests::{Random, Refused, Subscriber, direct};
use tonic::Code;

use crate::stage::{Stage, WORKSPACE};

fn sequences(deliveries: &[Delivery]) -> Vec<u64> {
    deliveries.iter().map(|delivery| delivery.message.sequence).collect()
}

#[tokio::test]
async fn promise_3_two_streams_share_an_inbox_without_doubles() {
    let stage = Stage::with(&["alice", "bob"]).await;
    let (mut one, mut two) =
        (stage.subscribe_with_credit("bob", 50).await, stage.subscribe_with_credit("bob", 50).await);
    let receipts = stage.publish_all((0..2_000).map(|number| direct("alice", "bob", number.to_string()))).await;
    let mut seen = Vec::new();
    for _ in 0..20 {
        for stream in [&mut one, &mut two] {
            let deliveries = stream.take(50).await;
            assert!(sequences(&deliveries).is_sorted(), "each stream sees commit order");
            seen.extend(sequences(&deliveries));
            let (first, last) = (deliveries[0].delivery_id, deliveries[49].delivery_id);
            assert_eq!(stream.ack(first, last).await.acknowledged, 50);
            stream.credit(50, 0);
        }
    }
    let published: BTreeSet<u64> = receipts.iter().map(|receipt| receipt.sequence).collect();
    assert_eq!(seen.len(), published.len());
    assert_eq!(seen.into_iter().collect::<BTreeSet<_>>(), published);
    assert_eq!(stage.pending("bob").await, 0);
    one.expect_silence().await;
    two.expect_silence().await;
}

/// What a stream did not acknowledge comes first to the one that stays, in the old order, before newer messages.
#[tokio::test]
async fn promise_5_what_an_ended_stream_left_is_delivered_again() {
    let stage = Stage::with(&["alice", "bob"]).await;
    stage.publish_all((0..100).map(|number| direct("alice", "bob", number.to_string()))).await;
    let mut leaves = stage.subscribe_with_credit("bob", 60).await;
    let held = sequences(&leaves.take(60).await);
    let mut stays = stage.subscribe_with_credit("bob", 10).await;
    assert_eq!(sequences(&stays.take(10).await), (61..=70).collect::<Vec<_>>());
    assert_eq!(leaves.ack(11, 20).await.acknowledged, 10);
    leaves.finish();
    assert!(leaves.answer().await.unwrap().is_none(), "the broker ends its half as well");
    stays.credit(1_000, 0);
    let rest = sequences(&stays.take(80).await);
    let expected: Vec<u64> =
        held.iter().copied().filter(|sequence| !(11..=20).contains(sequence)).chain(71..=100).collect();
    assert_eq!(rest, expected);
    assert_eq!(stays.ack(1, 90).await.acknowledged, 90);
    assert_eq!(stage.pending("bob").await, 0);
}

/// A delivery id is worth nothing on another stream: the lease is the subscription's.
#[tokio::test]
async fn promise_5_only_the_stream_that_holds_the_lease_can_acknowledge() {
    let stage = Stage::with(&["alice", "bob"]).await;
    stage.publish_all(vec![direct("alice", "bob", "x"); 5]).await;
    let mut holder = stage.subscribe("bob").await;
    holder.take(5).await;
    let mut other = stage.subscribe("bob").await;
    let outcome = other.ack(1, 5).await;
    assert_eq!(outcome.acknowledged, 0);
    let refused = Refused::from(outcome.refusals[0].status.clone().unwrap());
    refused.expect(Code::NotFound, "UNKNOWN_DELIVERY", &["from 1 to 5"]);
    assert_eq!(stage.pending("bob").await, 5);
    assert_eq!(holder.ack(1, 5).await.acknowledged, 5);
}

/// Streams come and go, hold leases, acknowledge some: in the end each message was acknowledged once.
#[tokio::test]
async fn promise_3_streams_that_come_and_go_lose_nothing_and_double_nothing() {
    const MESSAGES: u64 = 1_500;
    let stage = Stage::with(&["alice"]).await;
    // Each stream that breaks is a failed attempt of what it held.
    let retry_policy = Some(RetryPolicy { max_attempts: 1_000, ..RetryPolicy::default() });
    let bob = Sandbox { sandbox_id: "bob".into(), retry_policy, ..Sandbox::default() };
    stage.client.registry(WORKSPACE).register(bob).await.unwrap();
    let mut random = Random::from_environment();
    stage.publish_all((0..MESSAGES).map(|number| direct("alice", "bob", number.to_string()))).await;
    let mut streams: Vec<Subscriber> = Vec::new();
    let mut done = BTreeSet::new();
    while done.len() < MESSAGES as usize {
        if streams.len() < 3 {
            streams.push(stage.subscribe_with_credit("bob", 100).await);
        }
        let at = random.between(0, streams.len() as u64 - 1) as usize;
        // All that one stream leaves is taken by the next, so with leases on three streams some must be left here.
        let deliveries = streams[at].take_up_to(random.between(1, 60) as usize).await;
        for delivery in deliveries.iter().filter(|_| random.percent(80)) {
            assert_eq!(streams[at].ack(delivery.delivery_id, delivery.delivery_id).await.acknowledged, 1);
            assert!(done.insert(delivery.message.sequence), "{} was acknowledged before", delivery.message.sequence);
        }
        streams[at].credit(deliveries.len() as u32, 0);
        if random.percent(30) || deliveries.is_empty() {
            drop(streams.remove(at));
        }
    }
    assert_eq!(stage.pending("bob").await, 0);
    for stream in &mut streams {
        assert!(stream.take_up_to(1).await.is_empty(), "everything is acknowledged");
    }
}
