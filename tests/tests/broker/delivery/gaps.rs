//! Inboxes with many holes: what is acknowledged out of order must never hide what is not.

use std::{collections::BTreeSet, time::Duration};

use tandem_client::Delivery;
use tandem_tests::{Subscriber, broadcast, direct};

use crate::stage::{PLENTY, Stage, text};

/// More holes than a lane may have before it hands out nothing new.
const MESSAGES: usize = 6_000;
/// Who hears nothing for so long is held back: waited for once, at the end.
const HELD_BACK: Duration = Duration::from_secs(3);

/// Takes all that waits, with acks on the way: a lane with many holes hands out new messages only once some are closed.
async fn drain(stage: &Stage, sandbox: &str, count: usize) -> Vec<Delivery> {
    let mut subscriber = stage.subscribe(sandbox).await;
    let mut seen = Vec::new();
    while seen.len() < count {
        let mut deliveries = subscriber.take(1).await;
        deliveries.extend(subscriber.take_up_to((count - seen.len()).min(500) - 1).await);
        let (first, last) = (deliveries[0].delivery_id, deliveries[deliveries.len() - 1].delivery_id);
        assert_eq!(subscriber.ack(first, last).await.acknowledged, last - first + 1);
        seen.extend(deliveries);
    }
    subscriber.expect_silence().await;
    assert_eq!(stage.pending(sandbox).await, 0);
    seen
}

/// Acknowledges every second delivery for as long as new ones come; returns what it did not acknowledge.
async fn leave_every_second(subscriber: &mut Subscriber) -> BTreeSet<u64> {
    let mut left = BTreeSet::new();
    loop {
        let deliveries = subscriber.take_up_to_within(500, HELD_BACK).await;
        if deliveries.is_empty() {
            return left;
        }
        for delivery in &deliveries {
            if delivery.delivery_id % 2 == 0 {
                subscriber.ack(delivery.delivery_id, delivery.delivery_id).await;
            } else {
                left.insert(delivery.message.sequence);
            }
        }
    }
}

#[tokio::test]
async fn promise_3_many_holes_hide_nothing_after_kill_9() {
    let stage = Stage::with(&["alice", "bob"]).await;
    stage.publish_all((0..MESSAGES).map(|number| direct("alice", "bob", number.to_string()))).await;
    let mut holds = stage.subscribe_with_credit("bob", PLENTY.0).await;
    let left = leave_every_second(&mut holds).await;
    let waiting = stage.pending("bob").await as usize;
    assert!(waiting >= left.len() && left.len() > 1_000, "{} left of {waiting}", left.len());
    drop(holds);
    let stage = stage.crash_and_start().await;
    assert_eq!(stage.pending("bob").await as usize, waiting);
    let seen: BTreeSet<u64> = drain(&stage, "bob", waiting).await.iter().map(|d| d.message.sequence).collect();
    assert_eq!(seen.len(), waiting, "each came once");
    assert!(left.is_subset(&seen), "what was left is delivered again");
}

/// Own broadcasts are holes of another kind: many voices in one room, and one that speaks before it listens.
#[tokio::test]
async fn promise_3_who_broadcasts_much_still_hears_the_others() {
    let stage = Stage::with(&["alice", "bob"]).await;
    // In batches of one of each, so that no two own broadcasts stand side by side.
    stage.publish_all((0..MESSAGES).map(|n| broadcast(if n % 2 == 0 { "alice" } else { "bob" }, n.to_string()))).await;
    let stage = stage.crash_and_start().await;
    for (sandbox, odd) in [("alice", 1), ("bob", 0)] {
        assert_eq!(stage.pending(sandbox).await as usize, MESSAGES / 2);
        let heard = drain(&stage, sandbox, MESSAGES / 2).await;
        let numbers: Vec<usize> = heard.iter().map(|delivery| text(&delivery.message).parse().unwrap()).collect();
        assert_eq!(numbers, (0..MESSAGES / 2).map(|n| 2 * n + odd).collect::<Vec<_>>());
    }
}

/// A stream that is held back by the holes of another must hear when they are closed.
#[tokio::test]
async fn a_stream_held_back_by_holes_goes_on_when_another_closes_them() {
    const HELD: usize = 2_200;
    let stage = Stage::with(&["alice", "bob"]).await;
    stage.publish_all((0..2 * HELD + 100).map(|number| direct("alice", "bob", number.to_string()))).await;
    let mut holds = stage.subscribe_with_credit("bob", 0).await;
    let mut works = stage.subscribe_with_credit("bob", 0).await;
    let mut held = 0;
    loop {
        holds.credit(1, 0);
        if holds.take_up_to_within(1, HELD_BACK).await.is_empty() {
            break;
        }
        held += 1;
        works.credit(1, 0);
        let Some(delivery) = works.take_up_to_within(1, HELD_BACK).await.pop() else { break };
        works.ack(delivery.delivery_id, delivery.delivery_id).await;
    }
    let waiting = stage.pending("bob").await as usize;
    assert!(held > 1_000 && held < waiting, "{held} held of {waiting}: the holes hold new messages back");
    works.credit(PLENTY.0, 0);
    works.expect_silence().await;
    assert_eq!(holds.ack(1, held as u64).await.acknowledged, held as u64);
    works.take(waiting - held - 1).await;
}
