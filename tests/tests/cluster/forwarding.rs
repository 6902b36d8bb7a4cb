//! Every node serves every client, whoever leads.

use futures_util::TryStreamExt as _;
use tandem_client::HistoryQuery;
use tandem_tests::{Subscriber, direct, named};

use crate::trio::{Trio, WORKSPACE};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn promise_7_every_node_takes_every_request() {
    let trio = Trio::start().await;
    trio.register("alice").await;
    trio.register("bob").await;
    let mut sequences = Vec::new();
    for node in 0..3 {
        let client = trio.client(node);
        let receipt =
            client.publisher(WORKSPACE).publish(direct("alice", "bob", format!("unary {node}"))).await.unwrap();
        sequences.push(receipt.sequence);
        let stream = client.publisher(WORKSPACE).stream(Default::default());
        for number in 0..20 {
            let pending = stream.send(direct("alice", "bob", format!("stream {node} {number}"))).await.unwrap();
            sequences.push(pending.await.unwrap().sequence);
        }
    }
    assert!(sequences.is_sorted_by(|one, next| one < next), "one log, whoever took the message: {sequences:?}");
    for node in 0..3 {
        let client = trio.client(node);
        let read: Vec<_> = trio.history(node).await.iter().map(|message| message.sequence).collect();
        assert_eq!(read, sequences, "node {node} reads what was acknowledged elsewhere");
        let names: Vec<_> = client.workspaces().list().try_collect::<Vec<_>>().await.unwrap();
        assert_eq!(names.iter().map(|workspace| workspace.workspace_id.as_str()).collect::<Vec<_>>(), [WORKSPACE]);
        let sandboxes: Vec<_> = client.registry(WORKSPACE).list().try_collect::<Vec<_>>().await.unwrap();
        assert_eq!(sandboxes.len(), 2);
        let missing = client.history("nowhere").list(HistoryQuery::default()).try_collect::<Vec<_>>().await;
        assert_eq!(missing.unwrap_err().reason(), "UNKNOWN_WORKSPACE", "refusals come through as they are");
    }
    // The third part of the inbox through each node, acknowledged through it.
    for node in 0..3 {
        let mut subscriber = Subscriber::open(trio.process(node).channel(), WORKSPACE, "bob").await;
        subscriber.credit(21, 1 << 20);
        let deliveries = subscriber.take(21).await;
        let seen: Vec<_> = deliveries.iter().map(|delivery| delivery.message.sequence).collect();
        assert_eq!(seen, sequences[node * 21..(node + 1) * 21]);
        let outcome = subscriber.ack(deliveries[0].delivery_id, deliveries[20].delivery_id).await;
        assert_eq!(outcome.acknowledged, 21);
        subscriber.finish();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn promise_2_a_retry_through_another_node_is_a_duplicate() {
    let trio = Trio::start().await;
    trio.register("alice").await;
    trio.register("bob").await;
    let message = named("once".to_owned(), direct("alice", "bob", "hello"));
    let first = trio.client(0).publisher(WORKSPACE).publish(message.clone()).await.unwrap();
    for node in 0..3 {
        let again = trio.client(node).publisher(WORKSPACE).publish(message.clone()).await.unwrap();
        assert_eq!((again.sequence, again.duplicate), (first.sequence, true));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaders_are_spread_and_every_node_says_so() {
    let trio = Trio::start().await;
    trio.until_spread().await;
    for node in 0..3 {
        assert!(trio.process(node).metric("tandem_peer_appends_total").await > 0.0);
        assert!(trio.process(node).get("/ready").await.body.contains("ready"));
    }
}
