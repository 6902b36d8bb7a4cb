//! A stream is sent what it gave credit for, and no more.

use tandem_client::Message;
use tandem_tests::{Subscriber, direct};

use crate::stage::{Stage, WORKSPACE};

fn of_bytes(size: usize) -> Message {
    direct("alice", "bob", "x".repeat(size))
}

async fn open(stage: &Stage) -> Subscriber {
    Subscriber::open(stage.broker.channel(), WORKSPACE, "bob").await
}

#[tokio::test]
async fn promise_8_no_more_messages_than_credit() {
    let stage = Stage::with(&["alice", "bob"]).await;
    stage.publish_all(vec![of_bytes(10); 10]).await;
    let mut bob = open(&stage).await;
    bob.expect_silence().await;
    bob.credit(3, 1 << 20);
    assert_eq!(bob.take(3).await.iter().map(|delivery| delivery.delivery_id).collect::<Vec<_>>(), [1, 2, 3]);
    bob.expect_silence().await;
    assert_eq!(bob.ack(1, 3).await.acknowledged, 3);
    bob.expect_silence().await;
    bob.credit(1, 0);
    bob.credit(1, 0);
    bob.take(2).await;
    bob.expect_silence().await;
    bob.credit(60_000, 0);
    bob.take(5).await;
    stage.publish(of_bytes(10)).await;
    assert_eq!(bob.take(1).await[0].delivery_id, 11, "ids count the deliveries of the stream");
}

/// The contract: the broker sends while both credits are above zero, and carries the debt of a message that was larger.
#[tokio::test]
async fn promise_8_no_more_bytes_than_credit_but_for_one_message() {
    let stage = Stage::with(&["alice", "bob"]).await;
    stage.publish_all(vec![of_bytes(10_000); 4]).await;
    let mut bob = open(&stage).await;
    bob.credit(100, 15_000);
    let sent = bob.take(2).await;
    bob.expect_silence().await;
    let debt = sent.iter().map(|delivery| prost::Message::encoded_len(&delivery.message) as u64).sum::<u64>() - 15_000;
    bob.credit(0, debt);
    bob.expect_silence().await;
    bob.credit(0, 1);
    bob.take(1).await;
    bob.expect_silence().await;
}

#[tokio::test]
async fn a_message_larger_than_all_credit_is_sent_alone_and_once() {
    let stage = Stage::with(&["alice", "bob"]).await;
    stage.publish_all([of_bytes(900_000), of_bytes(1)]).await;
    let mut bob = open(&stage).await;
    bob.credit(100, 1);
    assert_eq!(bob.take(1).await[0].message.content.len(), 900_000);
    bob.expect_silence().await;
    bob.credit(0, 1 << 20);
    assert_eq!(bob.take(1).await[0].message.content.len(), 1);
    bob.expect_silence().await;
}

#[tokio::test]
async fn a_slow_reader_holds_back_nobody_else() {
    let stage = Stage::with(&["alice", "bob", "carol"]).await;
    let mut slow = open(&stage).await;
    slow.credit(1, 1 << 20);
    let mut carol = stage.subscribe("carol").await;
    let messages =
        (0..5_000).map(|number| direct("alice", if number % 2 == 0 { "bob" } else { "carol" }, "x".repeat(500)));
    stage.publish_all(messages).await;
    carol.take(2_500).await;
    slow.take(1).await;
    slow.expect_silence().await;
    assert_eq!((stage.pending("bob").await, stage.pending("carol").await), (2_500, 2_500));
}
