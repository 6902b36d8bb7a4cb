//! A node that has nothing gets a snapshot while load goes on, and is killed in the middle of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tandem_client::{Message, PublishStreamOptions};
use tandem_tests::direct;

use crate::{
    load::{check, publish},
    trio::{Trio, WORKSPACE},
};

/// Bytes of one message of those that fill the state.
const LARGE: usize = 256 << 10;

/// Messages that no engine makes smaller, until the log is purged behind the last snapshot but one.
async fn fill(trio: &Trio, leader: usize) {
    let client = trio.client(leader);
    let shard = client.workspaces().get(WORKSPACE).await.unwrap().shard_id;
    let stream = client.publisher(WORKSPACE).stream(PublishStreamOptions::default());
    let mut seed = 1_u64;
    let mut snapshots = BTreeSet::new();
    for number in 0..2_000 {
        let words = std::iter::repeat_with(|| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            seed.to_be_bytes()
        });
        let content: Vec<u8> = words.flatten().take(LARGE).collect();
        drop(stream.send(Message { content: content.into(), ..direct("alice", "carol", "") }).await.unwrap());
        if number % 50 == 49 {
            stream.flush().await.unwrap();
            let info = client.server_info().await.unwrap();
            snapshots.extend(info.shards.iter().filter(|seen| seen.shard_id == shard).map(|seen| seen.snapshot_index));
            if number > 300 && snapshots.len() > 3 {
                return;
            }
        }
    }
    panic!("500 MiB, and these snapshots: {snapshots:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn promise_1_2_a_node_killed_while_it_gets_a_snapshot_goes_on_with_what_it_has() {
    let mut trio = Trio::prepare();
    for seat in &mut trio.seats {
        seat.config.cluster.snapshot_bytes_per_second = 16 << 20;
        seat.config.storage.snapshot_every_bytes = 16 << 20;
    }
    for node in 0..3 {
        trio.run(node).await;
    }
    trio.until_served().await;
    trio.until_spread().await;
    for sandbox in ["alice", "bob", "carol"] {
        trio.register(sandbox).await;
    }
    let leader = trio.leader().await;
    fill(&trio, leader).await;
    let stop = Arc::new(AtomicBool::new(false));
    let load = publish(vec![trio.client(leader)], "meanwhile", Arc::clone(&stop));

    let lost = (leader + 1) % 3;
    trio.kill_nine(lost);
    let (node, peer) = trio.prepare_node(4);
    let cluster = trio.client(leader).cluster();
    while let Err(error) = cluster.replace_node(lost as u64 + 1, 4, peer.clone(), false).await {
        assert!(error.is_retryable(), "{error}");
    }
    trio.run(node).await;
    // Whoever leads by now: without the node that is gone leaders are spread otherwise.
    trio.until("some of the snapshot is there", async |_: &Trio| {
        let state = cluster.get().await;
        let progress = state.iter().flat_map(|state| &state.shards).flat_map(|shard| &shard.snapshots);
        progress.into_iter().any(|one| {
            one.node_id == 4 && one.received_bytes > 24 << 20 && one.total_bytes > one.received_bytes + (8 << 20)
        })
    })
    .await;
    trio.kill_nine(node);
    trio.run(node).await;
    trio.until("the node is a member", async |_: &Trio| cluster.get().await.is_ok_and(|state| state.change.is_none()))
        .await;
    let mut resumed = 0.0;
    for other in trio.running().into_iter().filter(|other| *other != node) {
        resumed += trio.process(other).metric("tandem_peer_snapshot_resumed_bytes_total").await;
    }
    assert!(resumed > f64::from(8 << 20), "{resumed} bytes were not sent again");

    stop.store(true, Ordering::Relaxed);
    let (acknowledged, longest): (BTreeMap<String, u64>, _) = load.await.unwrap();
    trio.until_served().await;
    check(&trio, &acknowledged).await;
    println!("{resumed} bytes were there already; a publisher waited for {longest:?} at most");
}
