//! Every node serves every client, whoever leads.

use std::time::Duration;

use futures_util::TryStreamExt as _;
use tandem_client::HistoryQuery;
use tandem_proto::{
    messaging::v1::{Open, SubscribeRequest, subscribe_request, subscribe_service_client::SubscribeServiceClient},
    registry::v1::{GetSandboxRequest, registry_service_client::RegistryServiceClient},
};
use tandem_tests::{Refused, Subscriber, direct, named};
use tonic::Request;

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

/// What one node passes to another is answered by who leads, or not at all: one that follows knows only what was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn promise_7_a_node_that_does_not_lead_answers_nothing_in_the_name_of_one_that_does() {
    let trio = Trio::start().await;
    trio.register("bob").await;
    let leader = trio.leader().await;
    let shard = trio.client(leader).workspaces().get(WORKSPACE).await.unwrap().shard_id;
    for (node, shard, leads) in [(leader, shard, true), ((leader + 1) % 3, shard, false), (leader, u32::MAX, false)] {
        let passed_on = move |mut request: Request<()>| {
            request.metadata_mut().insert("aintandem-forwarded", shard.into());
            Ok(request)
        };
        let mut registry = RegistryServiceClient::with_interceptor(trio.process(node).channel(), passed_on);
        let ask = GetSandboxRequest { workspace_id: WORKSPACE.into(), sandbox_id: "nobody".into() };
        let refused = Refused::from(registry.get_sandbox(ask).await.unwrap_err());
        assert_eq!(refused.reason, if leads { "UNKNOWN_SANDBOX" } else { "NOT_LEADER" }, "{refused:?}");

        let mut service = SubscribeServiceClient::with_interceptor(trio.process(node).channel(), passed_on);
        let open = Open { workspace_id: WORKSPACE.into(), sandbox_id: "nobody".into(), ..Open::default() };
        let open = SubscribeRequest { kind: Some(subscribe_request::Kind::Open(open)) };
        let refused = match service.subscribe(tokio_stream::iter([open])).await {
            Ok(answers) => answers.into_inner().message().await.unwrap_err(),
            Err(status) => status,
        };
        let refused = Refused::from(refused);
        assert_eq!(refused.reason, if leads { "UNKNOWN_SANDBOX" } else { "NOT_LEADER" }, "{refused:?}");
    }
}

/// What clients do not read waits in the windows of their own streams, on the way from the leader to the node that they came to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_read_nothing_stop_nobody_else_who_came_to_the_same_node() {
    const DEAF: usize = 12;
    let trio = Trio::start().await;
    let leader = trio.leader().await;
    let follower = (leader + 1) % 3;
    trio.register("alice").await;
    trio.register("bob").await;
    let large = "x".repeat(900_000);
    let mut deaf = Vec::new();
    for number in 0..DEAF {
        let name = format!("deaf-{number}");
        trio.register(&name).await;
        for _ in 0..3 {
            let publisher = trio.client(leader).publisher(WORKSPACE);
            publisher.publish(direct("alice", &name, large.clone())).await.unwrap();
        }
        let subscriber = Subscriber::open(trio.process(follower).channel(), WORKSPACE, &name).await;
        subscriber.credit(60_000, 60 << 20);
        deaf.push(subscriber);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let client = trio.client(follower);
    let others = async {
        for number in 0..20 {
            let publisher = client.publisher(WORKSPACE);
            publisher.publish(direct("alice", "bob", format!("unary {number}"))).await.unwrap();
            let stream = publisher.stream(Default::default());
            let pending = stream.send(direct("alice", "bob", format!("stream {number}"))).await.unwrap();
            pending.await.unwrap();
        }
        let mut bob = Subscriber::open(trio.process(follower).channel(), WORKSPACE, "bob").await;
        bob.credit(60_000, 60 << 20);
        assert_eq!(bob.take(40).await.len(), 40);
    };
    tokio::time::timeout(Duration::from_secs(20), others).await.expect("nobody waits for who reads nothing");
    drop(deaf);
}
