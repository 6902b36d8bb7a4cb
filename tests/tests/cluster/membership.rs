//! Nodes come, go and take each other's place while messages flow: what was acknowledged is there, once, in order.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tandem_client::{Cluster, ClusterState, Code, NodeState};
use tandem_tests::{BrokerProcess, Refused, direct, now, tandem_command};

use crate::{
    load::{check, publish},
    trio::{PATIENCE, Trio, WORKSPACE, insist},
};

/// Messages that several publishers have acknowledged, while something else happens.
struct Load {
    stop: Arc<AtomicBool>,
    publishers: Vec<tokio::task::JoinHandle<(BTreeMap<String, u64>, Duration)>>,
}

impl Load {
    async fn begin(trio: &Trio, names: [&'static str; 2]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let clients = || trio.running().into_iter().map(|node| trio.client(node)).collect();
        let publishers = names.map(|name| publish(clients(), name, Arc::clone(&stop)));
        Self { stop, publishers: publishers.into() }
    }

    async fn end(self) -> BTreeMap<String, u64> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = BTreeMap::new();
        for publisher in self.publishers {
            let (acknowledged, _) = publisher.await.unwrap();
            assert!(acknowledged.len() > 10, "hardly anything was published: {}", acknowledged.len());
            all.extend(acknowledged);
        }
        all
    }
}

/// Runs `tandem cluster …` against a node until it is done.
pub(crate) async fn tandem(trio: &Trio, at: usize, arguments: &[&str]) -> tandem_tests::Exit {
    let mut command = tandem_command();
    let server = format!("http://{}", trio.process(at).grpc_address());
    command.args(["--server", &server, "cluster"]).args(arguments);
    let home = tandem_tests::Home::new();
    tandem_tests::run_to_exit(&home, command).await
}

/// Has a new node take the place of another one.
pub(crate) async fn replace(cluster: &Cluster, old: u64, new: u64, peer: &str) {
    insist(async || cluster.replace_node(old, new, peer, false).await).await;
}

async fn state(trio: &Trio, at: usize) -> ClusterState {
    let cluster = trio.client(at).cluster();
    insist(async || cluster.get().await).await
}

/// Waits until these nodes, and no others, vote in every shard, as each of them says.
pub(crate) async fn until_voting(trio: &Trio, ids: &[u64]) {
    trio.until("all shards have these voters", async |trio: &Trio| {
        for node in trio.running() {
            let state = state(trio, node).await;
            let listed: Vec<_> = state.nodes.iter().map(|node| node.node_id).collect();
            let shards = state.shards.iter().all(|shard| {
                shard.voter_node_ids == ids && shard.next_voter_node_ids.is_empty() && shard.learner_node_ids.is_empty()
            });
            if listed != ids || state.change.is_some() || !shards {
                return false;
            }
        }
        true
    })
    .await;
}

/// A change may meet a moment without a leader.
async fn refused<T: std::fmt::Debug>(mut ask: impl AsyncFnMut() -> Result<T, tandem_client::Error>) -> Refused {
    let started = now();
    loop {
        let error = ask().await.unwrap_err();
        if !error.is_retryable() {
            return error.into();
        }
        assert!(started.elapsed() < PATIENCE, "{error}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn until_connected(trio: &Trio, at: usize, expected: &[u64]) {
    trio.until("the connections are as expected", async |trio: &Trio| {
        let state = state(trio, at).await;
        let connected = state.nodes.iter().filter(|node| node.connected).map(|node| node.node_id);
        connected.collect::<Vec<_>>() == expected
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn promise_1_2_a_fourth_node_joins_under_load_and_another_one_goes() {
    let mut trio = Trio::start().await;
    trio.register("alice").await;
    trio.register("bob").await;
    let load = Load::begin(&trio, ["a", "b"]).await;

    let (node, peer) = trio.prepare_node(4);
    // It is there before the cluster knows of it, and waits.
    let joining = trio.begin(node);
    let added = tandem(&trio, 1, &["add", "4", "--peer", &peer]).await;
    assert_eq!(added.code, Some(0), "{added:#?}");
    assert!(added.stdout.contains("node 4 is a member; 4 nodes vote, 3 are needed"), "{added:#?}");
    trio.seats[node].process = Some(joining.await.unwrap());
    until_voting(&trio, &[1, 2, 3, 4]).await;
    // Again, in the same words: nothing happens.
    let again = tandem(&trio, 2, &["add", "4", "--peer", &peer]).await;
    assert_eq!(again.code, Some(0), "{again:#?}");

    // Whoever leads goes: it hands over, is taken out, and stops.
    let leader = trio.leader().await;
    let goes = leader as u64 + 1;
    let removed = tandem(&trio, leader, &["remove", &goes.to_string()]).await;
    assert_eq!(removed.code, Some(0), "{removed:#?}");
    let exit = trio.seats[leader].process.take().unwrap().exit().await;
    assert_eq!(exit.code, Some(70), "{exit:#?}");
    assert!(exit.stderr.contains("code: NODE_REMOVED") && exit.stderr.contains("was removed from"), "{exit:#?}");
    let rest: Vec<u64> = (1..=4).filter(|id| *id != goes).collect();
    until_voting(&trio, &rest).await;

    let all = load.end().await;
    trio.until_served().await;
    check(&trio, &all).await;

    // Neither its id nor its disk comes back.
    let at = trio.running()[0];
    let client = trio.client(at).cluster();
    refused(async || client.add_node(goes, "127.0.0.1:9").await).await.expect(
        Code::AlreadyExists,
        "NODE_ID_REUSED",
        &["was removed", "another id"],
    );
    let seat = &trio.seats[leader];
    let exit = match BrokerProcess::try_start(&seat.home, &seat.config).await {
        Ok(process) => process.exit().await,
        Err(exit) => exit,
    };
    assert!(exit.stderr.contains("code: NODE_REMOVED"), "{exit:#?}");
    let status = tandem(&trio, at, &["status"]).await;
    assert!(status.stdout.contains(&format!("removed   node {goes}")), "{status:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn promise_1_2_a_node_that_lost_its_disk_is_replaced_under_load() {
    let mut trio = Trio::start().await;
    trio.register("alice").await;
    trio.register("bob").await;
    let load = Load::begin(&trio, ["a", "b"]).await;
    let lost = trio.leader().await;
    let (old, at) = (lost as u64 + 1, (lost + 1) % 3);
    trio.kill_nine(lost);
    std::fs::remove_dir_all(trio.seats[lost].home.data()).unwrap();

    let (node, peer) = trio.prepare_node(4);
    let cluster = trio.client(at).cluster();
    replace(&cluster, old, 4, &peer).await;
    let state = state(&trio, at).await;
    let change = state.change.expect("it waits for the new node");
    assert_eq!((change.node_id, change.state(), change.replaces_node_id), (4, NodeState::Joining, old));
    let status = tandem(&trio, at, &["status"]).await;
    assert!(status.stdout.contains("next: node 4 is not connected: start it with --join"), "{status:#?}");
    // Something else has to wait.
    refused(async || cluster.add_node(5, "127.0.0.1:9").await).await.expect(
        Code::FailedPrecondition,
        "CHANGE_IN_PROGRESS",
        &["takes the place of node"],
    );
    trio.run(node).await;
    let replaced = tandem(&trio, at, &["replace", &old.to_string(), "4", "--peer", &peer]).await;
    assert_eq!(replaced.code, Some(0), "{replaced:#?}");
    let rest: Vec<u64> = (1..=4).filter(|id| *id != old).collect();
    until_voting(&trio, &rest).await;
    let all = load.end().await;
    trio.until_served().await;
    check(&trio, &all).await;

    // Killed and started again without a flag, it is what it was.
    trio.kill_nine(node);
    trio.seats[node].config.cluster.members.clear();
    trio.seats[node].config.cluster.join = false;
    trio.run(node).await;
    trio.until_served().await;
    check(&trio, &all).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn promise_1_2_a_change_goes_on_when_its_leaders_are_killed() {
    let mut trio = Trio::start().await;
    trio.register("alice").await;
    trio.register("bob").await;
    let (node, peer) = trio.prepare_node(4);
    let accepted = tandem(&trio, 0, &["add", "4", "--peer", &peer, "--no-wait"]).await;
    assert_eq!(accepted.code, Some(0), "{accepted:#?}");
    trio.run(node).await;
    // Through the new node, too: the others come back at other addresses.
    let load = Load::begin(&trio, ["a", "b"]).await;
    for _ in 0..2 {
        let leaders = state(&trio, node).await.shards;
        let leader = leaders.iter().map(|shard| shard.leader_node_id).find(|id| (1..=3).contains(id)).unwrap_or(1);
        let dying = leader as usize - 1;
        trio.kill_nine(dying);
        trio.run(dying).await;
    }
    until_voting(&trio, &[1, 2, 3, 4]).await;
    let accepted = tandem(&trio, node, &["remove", "1", "--no-wait"]).await;
    assert_eq!(accepted.code, Some(0), "{accepted:#?}");
    trio.kill_nine(1);
    trio.run(1).await;
    let exit = trio.seats[0].process.take().unwrap().exit().await;
    assert!(exit.stderr.contains("code: NODE_REMOVED"), "{exit:#?}");
    until_voting(&trio, &[2, 3, 4]).await;
    let all = load.end().await;
    trio.until_served().await;
    check(&trio, &all).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_could_not_decide_is_refused_unless_it_may_wait() {
    let mut trio = Trio::start().await;
    trio.register("alice").await;
    until_connected(&trio, 0, &[1, 2, 3]).await;
    trio.kill_nine(2);
    until_connected(&trio, 0, &[1, 2]).await;
    until_connected(&trio, 1, &[1, 2]).await;
    let before = state(&trio, 0).await.revision;
    let refused = tandem(&trio, 0, &["remove", "2"]).await;
    assert_eq!(refused.code, Some(4), "{refused:#?}");
    assert!(refused.stderr.contains("code: QUORUM_AT_RISK"), "{refused:#?}");
    assert!(refused.stderr.contains("node 3 is not connected") && refused.stderr.contains("--force"), "{refused:#?}");
    assert_eq!(state(&trio, 0).await.revision, before, "nothing was changed");
    let forced = tandem(&trio, 0, &["remove", "2", "--force", "--timeout", "1s"]).await;
    assert!(forced.code == Some(5) && forced.stderr.contains("bring back node 3"), "it waits for it: {forced:#?}");
    // Nothing else waits.
    trio.register("bob").await;
    trio.client(0).publisher(WORKSPACE).publish(direct("alice", "bob", "meanwhile")).await.unwrap();
    trio.run(2).await;
    let exit = trio.seats[1].process.take().unwrap().exit().await;
    assert!(exit.stderr.contains("code: NODE_REMOVED"), "{exit:#?}");
    until_voting(&trio, &[1, 3]).await;
    trio.until_served().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaders_are_transferred_drained_and_spread_again() {
    let mut trio = Trio::start().await;
    let led = async |trio: &Trio, node: u64| {
        let state = state(trio, 0).await;
        state.shards.iter().filter(|shard| shard.leader_node_id == node).count()
    };
    trio.until("leaders are spread", async |trio: &Trio| led(trio, 2).await == 1 && led(trio, 3).await == 1).await;
    let moved = tandem(&trio, 0, &["transfer", "--shard", "0", "--to", "3"]).await;
    assert_eq!(moved.code, Some(0), "{moved:#?}");
    assert!(moved.stdout.contains("node 3 leads shard 0"), "{moved:#?}");
    let drained = tandem(&trio, 1, &["drain", "3"]).await;
    assert_eq!(drained.code, Some(0), "{drained:#?}");
    let status = tandem(&trio, 2, &["status"]).await;
    assert!(status.stdout.contains("voting, drained"), "{status:#?}");
    let refused = tandem(&trio, 0, &["transfer", "--shard", "0", "--to", "3"]).await;
    assert!(refused.code == Some(4) && refused.stderr.contains("code: NODE_NOT_READY"), "{refused:#?}");
    // A restart ends it.
    let (exit, _) = trio.seats[2].process.take().unwrap().stop().await;
    assert_eq!(exit.code, Some(0), "{exit:#?}");
    trio.run(2).await;
    trio.until("it is not drained", async |trio: &Trio| !state(trio, 0).await.nodes[2].drained).await;
    for arguments in [&["undrain", "3"][..], &["rebalance"]] {
        let exit = tandem(&trio, 0, arguments).await;
        assert_eq!(exit.code, Some(0), "{exit:#?}");
    }
    trio.until("leaders are spread again", async |trio: &Trio| led(trio, 2).await == 1 && led(trio, 3).await == 1)
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_inputs_are_refused_with_a_code() {
    let trio = Trio::start().await;
    until_connected(&trio, 1, &[1, 2, 3]).await;
    let cluster = trio.client(1).cluster();
    // The nodes agree on what all of them can do; that is a change, too.
    trio.until("the level is settled", async |trio| state(trio, 0).await.level == tandem_raft::NEWEST_LEVEL).await;
    let before = state(&trio, 0).await.revision;
    refused(async || cluster.add_node(0, "a:1").await)
        .await
        .expect(Code::InvalidArgument, "INVALID_FIELD", &["0"])
        .at("node_id");
    for address in ["", "host", "host:0", "host:x", ":7", "a b:7"] {
        refused(async || cluster.add_node(4, address).await)
            .await
            .expect(Code::InvalidArgument, "INVALID_FIELD", &["host:port"])
            .at("peer_address");
    }
    let taken = state(&trio, 0).await.nodes[2].peer_address.clone();
    refused(async || cluster.add_node(4, taken.as_str()).await).await.expect(
        Code::AlreadyExists,
        "NODE_EXISTS",
        &["node 3 is at"],
    );
    refused(async || cluster.add_node(2, "elsewhere:1").await).await.expect(
        Code::AlreadyExists,
        "NODE_EXISTS",
        &["node 2 is a member"],
    );
    refused(async || cluster.replace_node(3, 3, "a:1", false).await).await.expect(
        Code::AlreadyExists,
        "NODE_ID_REUSED",
        &["new id"],
    );
    refused(async || cluster.remove_node(9, true).await).await.expect(Code::NotFound, "UNKNOWN_NODE", &["1, 2, 3"]);
    refused(async || cluster.drain_node(9).await).await.expect(Code::NotFound, "UNKNOWN_NODE", &["node 9"]);
    refused(async || cluster.transfer_leader(9, 1).await).await.expect(Code::NotFound, "UNKNOWN_SHARD", &["shard 9"]);
    refused(async || cluster.transfer_leader(0, 9).await).await.expect(Code::NotFound, "UNKNOWN_NODE", &["node 9"]);
    let usage = tandem(&trio, 0, &["add", "4"]).await;
    assert!(usage.code == Some(2) && usage.stderr.contains("--peer"), "{usage:#?}");
    assert_eq!(state(&trio, 0).await.revision, before, "nothing was changed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_alone_has_no_cluster() {
    let home = tandem_tests::Home::new();
    let process = BrokerProcess::start(&home, &home.config()).await;
    refused(async || process.client().cluster().get().await).await.expect(
        Code::FailedPrecondition,
        "NOT_A_CLUSTER",
        &["alone"],
    );
}
