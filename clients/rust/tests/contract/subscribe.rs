//! Subscriptions: credit, acknowledgements, the end.

use std::time::Duration;

use prost::Message as _;
use tandem_client::{Error, Message, SubscribeOptions, Subscription};

use crate::fake::Fake;

fn fill(fake: &Fake, messages: u64) -> u64 {
    let inbox: Vec<_> =
        (1..=messages).map(|sequence| Message { sequence, content: "hello".into(), ..Message::default() }).collect();
    let bytes = inbox.iter().map(|message| message.encoded_len() as u64).sum();
    *fake.seen.inbox.waiting.lock().unwrap() = inbox;
    bytes
}

async fn open(fake: &Fake, credit_messages: u32, credit_bytes: u64) -> Subscription {
    let options = SubscribeOptions::default().credit(credit_messages, credit_bytes);
    fake.client().subscribe("w", "bob", options).await.expect("the sandbox exists")
}

#[tokio::test]
async fn everything_comes_although_the_window_is_small() {
    for (credit_messages, credit_bytes) in [(4, 1 << 20), (1, 1 << 20), (1000, 30), (1000, 1)] {
        let fake = Fake::start().await;
        let bytes = fill(&fake, 100);
        let mut inbox = open(&fake, credit_messages, credit_bytes).await;
        assert_eq!(inbox.id(), "sub-1");
        for sequence in 1..=100 {
            let delivery = inbox.next().await.expect("no error").expect("a delivery");
            assert_eq!((delivery.message.sequence, delivery.delivery_id), (sequence, sequence));
            inbox.ack(&delivery);
        }
        inbox.flush_acks().await.expect("all are confirmed");
        assert_eq!((inbox.ack_counts().given, inbox.ack_counts().confirmed), (100, 100));
        let credits = fake.seen.inbox.credits.lock().unwrap().clone();
        assert_eq!(credits[0], (credit_messages, credit_bytes));
        let given = credits[1..].iter().fold((0, 0), |sum, credit| (sum.0 + credit.0, sum.1 + credit.1));
        assert!(given.0 <= 100 && given.1 <= bytes, "more credit than was used: {given:?} of 100, {bytes}");
    }
}

#[tokio::test]
async fn acknowledgements_that_wait_are_merged() {
    let fake = Fake::start().await;
    fill(&fake, 9);
    let mut inbox = open(&fake, 100, 1 << 20).await;
    let mut deliveries = Vec::new();
    while deliveries.len() < 9 {
        deliveries.extend(inbox.next_batch().await.expect("no error").expect("deliveries"));
    }
    // No await in between: the connection cannot send before all are there.
    for delivery in &deliveries[..7] {
        inbox.ack(delivery);
    }
    inbox.acker().ack_range(9, 9);
    inbox.flush_acks().await.expect("all are confirmed");
    assert_eq!(*fake.seen.inbox.acks.lock().unwrap(), [[(1, 7), (9, 9)]]);
    assert_eq!(inbox.ack_counts().confirmed, 8);
    inbox.ack(&deliveries[7]);
    inbox.close().await.expect("it is confirmed");
    assert_eq!(fake.seen.inbox.acks.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn deliveries_that_come_during_a_flush_are_kept() {
    let fake = Fake::start().await;
    fill(&fake, 6);
    let mut inbox = open(&fake, 100, 1 << 20).await;
    let first = inbox.next().await.expect("no error").expect("a delivery");
    inbox.ack(&first);
    inbox.flush_acks().await.expect("it is confirmed");
    for sequence in 2..=6 {
        let delivery = inbox.next().await.expect("no error").expect("a delivery");
        assert_eq!(delivery.message.sequence, sequence);
    }
    let nothing = tokio::time::timeout(Duration::from_millis(50), inbox.next()).await;
    assert!(nothing.is_err(), "{nothing:?}");
}

#[tokio::test]
async fn a_refused_acknowledgement_is_told_once() {
    let fake = Fake::start().await;
    fill(&fake, 1);
    let mut inbox = open(&fake, 100, 1 << 20).await;
    inbox.next().await.expect("no error").expect("a delivery");
    inbox.acker().ack_range(1, 1);
    inbox.acker().ack_range(7, 8);
    let error = inbox.flush_acks().await.expect_err("7 and 8 were never delivered");
    assert_eq!(error.reason(), "DELIVERY_UNKNOWN");
    let counts = inbox.ack_counts();
    assert_eq!((counts.given, counts.confirmed, counts.refused), (3, 1, 2));
    inbox.flush_acks().await.expect("the refusal was told");
}

#[tokio::test]
async fn an_unknown_sandbox_cannot_be_opened() {
    let fake = Fake::start().await;
    let error = fake.client().subscribe("w", "carol", SubscribeOptions::default()).await.expect_err("not registered");
    assert_eq!(error.reason(), "SANDBOX_NOT_FOUND");
    assert!(matches!(error, Error::Refused(_)));
}
