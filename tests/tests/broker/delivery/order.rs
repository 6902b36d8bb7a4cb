//! Promise 4: to one recipient, higher priority first; within a priority, commit order.

use tandem_client::{Delivery, Message};
use tandem_tests::{Random, at_priority, broadcast, direct};

use crate::stage::Stage;

/// The order that promise 4 asks for.
fn expected(messages: impl IntoIterator<Item = (u32, u64)>) -> Vec<(u32, u64)> {
    let mut expected: Vec<_> = messages.into_iter().collect();
    expected.sort_by_key(|(priority, sequence)| (9 - priority, *sequence));
    expected
}

fn seen(deliveries: &[Delivery]) -> Vec<(u32, u64)> {
    deliveries.iter().map(|delivery| (delivery.message.priority.unwrap_or(5), delivery.message.sequence)).collect()
}

/// Direct messages and broadcasts of all priorities, some with none.
fn mixed(random: &mut Random, count: usize) -> Vec<Message> {
    let mut message = |number| {
        let message = match random.percent(30) {
            true => broadcast("alice", format!("{number}")),
            false => direct("alice", "bob", format!("{number}")),
        };
        if random.percent(10) { message } else { at_priority(random.between(0, 9) as u32, message) }
    };
    (0..count).map(&mut message).collect()
}

#[tokio::test]
async fn promise_4_priority_first_then_commit_order() {
    let stage = Stage::with(&["alice", "bob"]).await;
    let mut random = Random::from_environment();
    let messages = mixed(&mut random, 3_000);
    let receipts = stage.publish_all(messages.clone()).await;
    assert!(receipts.is_sorted_by_key(|receipt| receipt.sequence), "one stream commits in stream order");
    let accepted =
        messages.iter().zip(&receipts).map(|(message, receipt)| (message.priority.unwrap_or(5), receipt.sequence));
    let mut bob = stage.subscribe("bob").await;
    assert_eq!(seen(&bob.take(3_000).await), expected(accepted));
}

#[tokio::test]
async fn promise_4_an_urgent_message_passes_what_waits() {
    let stage = Stage::with(&["alice", "bob"]).await;
    stage.publish_all(vec![direct("alice", "bob", "usual"); 600]).await;
    let mut bob = stage.subscribe_with_credit("bob", 100).await;
    bob.take(100).await;
    let urgent = stage.publish(at_priority(9, direct("alice", "bob", "urgent"))).await;
    let idle = stage.publish(at_priority(0, direct("alice", "bob", "idle"))).await;
    bob.credit(1_000, 0);
    let rest = seen(&bob.take(502).await);
    assert_eq!(rest[0], (9, urgent.sequence));
    assert_eq!(rest[501], (0, idle.sequence));
    assert!(rest[1..501].is_sorted());
}

/// With some messages acknowledged out of order before, so that what waits has holes.
#[tokio::test]
async fn promise_4_the_order_survives_kill_9_and_holes() {
    let mut random = Random::from_environment();
    let mut stage = Stage::with(&["alice", "bob"]).await;
    let messages = mixed(&mut random, 2_000);
    let receipts = stage.publish_all(messages.clone()).await;
    let mut waiting: Vec<(u32, u64)> = messages
        .iter()
        .zip(&receipts)
        .map(|(message, receipt)| (message.priority.unwrap_or(5), receipt.sequence))
        .collect();
    for round in 0..3 {
        let mut bob = stage.subscribe("bob").await;
        let deliveries = bob.take(waiting.len()).await;
        assert_eq!(seen(&deliveries), expected(waiting.clone()), "round {round}");
        let done: Vec<_> = deliveries.iter().filter(|_| random.percent(40)).collect();
        for delivery in &done[1..] {
            bob.send_ack(delivery.delivery_id, delivery.delivery_id);
        }
        bob.ack(done[0].delivery_id, done[0].delivery_id).await;
        waiting.retain(|(_, sequence)| done.iter().all(|delivery| delivery.message.sequence != *sequence));
        assert_eq!(stage.pending("bob").await, waiting.len() as u64);
        drop(bob);
        stage = stage.crash_and_start().await;
        assert_eq!(stage.pending("bob").await, waiting.len() as u64);
    }
}
