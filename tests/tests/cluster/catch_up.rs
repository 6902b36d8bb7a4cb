//! A node that has nothing gets a snapshot while load goes on, and is killed in the middle of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tandem_client::Client;

use crate::{
    load::{check, fill_up, publish},
    membership::replace,
    trio::{Trio, WORKSPACE},
};

/// Bytes of one message of those that fill the state.
const LARGE: usize = 256 << 10;

/// Until the log is purged behind the last snapshot but one.
async fn fill(client: &Client) {
    let shard = client.workspaces().get(WORKSPACE).await.unwrap().shard_id;
    let mut snapshots = BTreeSet::new();
    fill_up(client, &["carol"], LARGE, async |count| {
        if let Ok(info) = client.server_info().await {
            snapshots.extend(info.shards.iter().filter(|seen| seen.shard_id == shard).map(|seen| seen.snapshot_index));
        }
        assert!(count < 2_000, "500 MiB, and these snapshots: {snapshots:?}");
        count > 300 && snapshots.len() > 3
    })
    .await;
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
    fill(&trio.client(trio.leader().await)).await;
    // So much may have cost the leader its place.
    let leader = trio.leader().await;
    let stop = Arc::new(AtomicBool::new(false));
    let load = publish(vec![trio.client(leader)], "meanwhile", Arc::clone(&stop));

    let lost = (leader + 1) % 3;
    trio.kill_nine(lost);
    let (node, peer) = trio.prepare_node(4);
    let cluster = trio.client(leader).cluster();
    replace(&cluster, lost as u64 + 1, 4, &peer).await;
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
