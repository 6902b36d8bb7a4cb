//! Three nodes in one process: the real groups over connections in memory.

use bytes::Bytes;

use super::{
    hub::{NODES, Trio, until, within},
    journal::{commands, rocks_states},
};
use crate::{FatalSink, PeerState, ProposeError};

pub(super) fn command(text: impl Into<String>) -> Bytes {
    Bytes::from(text.into())
}

/// Proposes to whoever of all nodes leads until it is taken. A machine that is busy may change leaders at any time, so a
/// command without an outcome is proposed again and may then be there twice, one behind the other.
pub(super) async fn insist(trio: &Trio, shard: u32, command: &Bytes) -> Bytes {
    let everybody: Vec<u64> = trio.nodes.keys().copied().collect();
    insist_among(trio, &everybody, shard, command).await
}

pub(super) async fn insist_among(trio: &Trio, nodes: &[u64], shard: u32, command: &Bytes) -> Bytes {
    for _ in 0..12_000 {
        for node in nodes.iter().filter_map(|id| trio.nodes.get(id)) {
            let group = &node.groups()[shard as usize];
            if !group.leadership().borrow().is_leader {
                continue;
            }
            if let Ok(outcome) = group.propose(command.clone()).await {
                return outcome;
            }
        }
        trio.expect_health();
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let groups: Vec<_> = trio.nodes.iter().map(|(id, node)| (id, node.groups()[shard as usize].status())).collect();
    panic!("nobody took a command of {} bytes within a minute: {groups:#?}", command.len());
}

/// What a node applied, without what was proposed again.
pub(super) fn applied(trio: &Trio, id: u64, shard: u32) -> Vec<Bytes> {
    let mut seen = trio.journal(id, shard);
    seen.dedup();
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_cluster_spreads_its_leaders_and_applies_everywhere() {
    let trio = Trio::start(3).await;
    for (shard, should) in (0..3).zip(NODES) {
        until("each node leads what it should", || trio.group(should, shard).leadership().borrow().is_leader).await;
        let outcome = insist(&trio, shard, &command(format!("for {shard}"))).await;
        assert_eq!(outcome, command(format!("for {shard}")));
    }
    for id in NODES {
        for shard in 0..3 {
            until("all nodes apply", || applied(&trio, id, shard) == [command(format!("for {shard}"))]).await;
        }
    }
    trio.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_says_who_leads_and_reads_what_was_acknowledged() {
    let trio = Trio::start(1).await;
    let mut told = false;
    for _ in 0..100 {
        let leader = trio.leader(0).await;
        let follower = leader % 3 + 1;
        let refused = trio.group(follower, 0).propose(command("x")).await;
        told = matches!(refused, Err(ProposeError::NotLeader(Some(id))) if id == leader);
        if told {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert!(told, "a follower names the leader");
    for number in 0..50 {
        let written = command(format!("{number}"));
        insist(&trio, 0, &written).await;
        let follower = trio.group(trio.leader(0).await % 3 + 1, 0);
        while follower.read_barrier().await.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        let seen = commands(follower.engine_for_tests().as_ref());
        assert_eq!(seen.last(), Some(&written), "a read on a follower is not behind");
    }
    trio.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn promise_1_nothing_acknowledged_is_lost_when_leaders_stop() {
    let mut trio = Trio::start(1).await;
    let mut acknowledged = Vec::new();
    for round in 0..4 {
        for number in 0..50 {
            let command = command(format!("{round}/{number}"));
            insist(&trio, 0, &command).await;
            acknowledged.push(command);
        }
        let leader = trio.leader(0).await;
        trio.stop(leader).await;
        let after = command(format!("{round}/after"));
        insist(&trio, 0, &after).await;
        acknowledged.push(after);
        trio.run(leader).await;
    }
    for id in NODES {
        until("every node has everything, once, in order", || applied(&trio, id, 0) == acknowledged).await;
    }
    trio.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_cut_off_acknowledges_nothing_and_comes_back() {
    let trio = Trio::start(1).await;
    insist(&trio, 0, &command("before")).await;
    // A busy machine may change the leader in the moment before it is cut off.
    let (old, lost) = loop {
        let leader = trio.leader(0).await;
        trio.hub.cut_off(leader);
        let cluster = trio.nodes[&leader].cluster().unwrap();
        until("it is alone", || NODES.iter().all(|id| *id == leader || !cluster.is_connected(*id))).await;
        let group = trio.group(leader, 0);
        let before = group.status().last_log_index;
        let lost = {
            let group = std::sync::Arc::clone(group);
            tokio::spawn(async move { group.propose(command("lost")).await })
        };
        until("taken or refused", || lost.is_finished() || group.status().last_log_index > before).await;
        if !lost.is_finished() && group.leadership().borrow().is_leader {
            break (leader, lost);
        }
        trio.hub.heal();
        assert!(lost.await.unwrap().is_err(), "it did not lead, or its lease had ended");
    };
    let others: Vec<u64> = NODES.into_iter().filter(|id| *id != old).collect();
    insist_among(&trio, &others, 0, &command("after")).await;
    assert!(trio.group(old, 0).leader_barrier().await.is_err(), "a lease that has ended allows no read");
    assert!(!lost.is_finished(), "what has no majority has no outcome");
    trio.hub.heal();
    assert!(lost.await.unwrap().is_err());
    until("the old leader follows", || applied(&trio, old, 0) == [command("before"), command("after")]).await;
    trio.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leadership_is_handed_over_on_request() {
    let trio = Trio::start(1).await;
    let (mut tries, mut asked, mut led) = (0, 0, 0);
    while led < 6 {
        tries += 1;
        assert!(tries < 120, "leadership goes where it was asked to go {led} times of {asked}");
        insist(&trio, 0, &command("x")).await;
        let from = trio.leader(0).await;
        let to = from % 3 + 1;
        let group = trio.group(from, 0);
        if within(1_000, || group.matched().get(&to) == Some(&group.status().last_log_index)).await {
            asked += 1;
            let term = group.leadership().borrow().term;
            group.transfer_leader(to).await.unwrap();
            assert!(!group.lease().holds_in(term), "followers may vote for another one at once");
            led += u32::from(within(3_000, || trio.group(to, 0).leadership().borrow().is_leader).await);
        }
    }
    assert!(led * 2 > asked, "leadership goes where it was asked to go {led} times of {asked}");
    trio.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stops_in_order_hands_over_first() {
    let trio = Trio::start(3).await;
    for shard in 0..3 {
        insist(&trio, shard, &command("x")).await;
    }
    let leader = trio.leader(0).await;
    let now = |shard| *trio.group(leader, shard).leadership().borrow();
    let before = [0, 1, 2].map(|shard| now(shard).term);
    trio.nodes[&leader].hand_over().await;
    // It may have got one back by then.
    let gave_up = |shard: u32| !now(shard).is_leader || now(shard).term > before[shard as usize];
    until("it has handed over all that it led", || (0..3).all(gave_up)).await;
    trio.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leaders_are_spread_again_when_a_node_returns() {
    let mut trio = Trio::start(3).await;
    let led = |trio: &Trio, id: u64| trio.group(id, id as u32 - 1).leadership().borrow().is_leader;
    until("leaders are spread", || NODES.into_iter().all(|id| led(&trio, id))).await;
    trio.stop(2).await;
    assert_ne!(trio.leader(1).await, 2);
    trio.run(2).await;
    until("leaders are spread again", || NODES.into_iter().all(|id| led(&trio, id))).await;
    trio.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_away_for_too_long_gets_a_snapshot() {
    let mut trio = Trio::with(1, 20_000, rocks_states).await;
    let leader = trio.leader(0).await;
    let away = leader % 3 + 1;
    trio.stop(away).await;
    let mut expected = Vec::new();
    for number in 0..200 {
        let command = Bytes::from(format!("{number:01000}"));
        insist(&trio, 0, &command).await;
        expected.push(command);
    }
    // Whoever leads by now; a snapshot that was asked for while one was taken comes with the next commands.
    while !trio.nodes.values().all(|node| node.groups()[0].status().purged_index > 100) {
        let command = Bytes::from(format!("{:01000}", expected.len()));
        insist(&trio, 0, &command).await;
        expected.push(command);
        assert!(expected.len() < 20_000, "the log is never purged");
    }
    trio.run(away).await;
    expected.dedup();
    until("it has everything", || applied(&trio, away, 0) == expected).await;
    until("it came as a snapshot", || trio.group(away, 0).status().snapshot_index > 0).await;
    let home = trio.group(away, 0).home();
    until("nothing is left of the transfer", || !home.incoming().exists() && !home.received().exists()).await;
    insist(&trio, 0, &command("more")).await;
    until("it goes on", || trio.journal(away, 0).last() == Some(&command("more"))).await;

    // Power fails while a snapshot is installed: it is the node's own already, and the state is still an older one.
    expected.push(command("more"));
    let newest = || snapshots(&trio, away).last().copied();
    while newest().is_none_or(|index| index < trio.group(away, 0).status().purged_index) {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let states = || {
        let dir = std::fs::read_dir(trio.dirs[&away].path().join("shard-0")).unwrap();
        dir.filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("state-")).count()
    };
    until("the replaced state is gone", || states() == 1).await;
    trio.stop(away).await;
    let name = "state-0000000099";
    let record = format!("{name} {:08x}\n", crc32c::crc32c(name.as_bytes()));
    std::fs::write(trio.dirs[&away].path().join("shard-0/CURRENT"), record).unwrap();
    // The state that it had may still be closing.
    let disk = format!("disk-{away}");
    let mut tries = 0;
    while let Err(error) = trio.run_with_disk(away, &disk, FatalSink::default()).await {
        tries += 1;
        assert!(tries < 100, "{error}; there are snapshots {:?}", snapshots(&trio, away));
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    until("it has everything again", || applied(&trio, away, 0) == expected).await;
    trio.shutdown().await;
}

/// Up to where the snapshots on a node's disk reach, by rising index.
fn snapshots(trio: &Trio, id: u64) -> Vec<u64> {
    let dir = std::fs::read_dir(trio.dirs[&id].path().join("shard-0/snapshots")).unwrap();
    let mut found: Vec<u64> = dir.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok()).collect();
    found.sort_unstable();
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_an_empty_disk_under_an_old_id_is_kept_out_and_stops() {
    let mut trio = Trio::start(1).await;
    let leader = trio.leader(0).await;
    insist(&trio, 0, &command("kept")).await;
    let wiped = leader % 3 + 1;
    until("all are connected", || {
        trio.nodes
            .values()
            .all(|node| node.cluster().unwrap().peers().iter().all(|peer| peer.state == PeerState::Connected))
    })
    .await;
    trio.stop(wiped).await;
    trio.wipe(wiped);
    let fatal = FatalSink::default();
    if let Err(reason) = trio.run_with_disk(wiped, "an empty disk", fatal.clone()).await {
        assert_eq!(reason.code(), "NODE_ID_REUSED", "a start that fails for it says so: {reason}");
    }
    let reason = tokio::time::timeout(std::time::Duration::from_secs(60), fatal.wait()).await.unwrap();
    assert_eq!(reason.code(), "NODE_ID_REUSED", "{reason}");
    if trio.nodes.contains_key(&wiped) {
        assert!(trio.journal(wiped, 0).is_empty(), "nothing was sent to it");
    }
    insist(&trio, 0, &command("still two")).await;
    trio.shutdown().await;
}

/// What a process finds in its sockets after it was stopped: answers from when it led. They are no news of its followers.
#[tokio::test(flavor = "multi_thread")]
async fn answers_that_lay_unread_give_an_old_leader_no_lease() {
    for _ in 0..20 {
        if answers_lie_unread().await {
            return;
        }
    }
    panic!("twenty times the lease was over before anything was proven");
}

/// Whether it proves anything: a lease that ends too early does not.
async fn answers_lie_unread() -> bool {
    let trio = Trio::start(1).await;
    insist(&trio, 0, &command("before")).await;
    let old = trio.leader(0).await;
    let group = std::sync::Arc::clone(trio.group(old, 0));
    let term = group.leadership().borrow().term;
    trio.hub.leave_unread(old);
    let followers: Vec<u64> = NODES.into_iter().filter(|id| *id != old).collect();
    let reached = |index| followers.iter().all(|id| trio.group(*id, 0).status().last_log_index >= index);
    // Within the lease that there is.
    let mut has_held = true;
    for number in 0..12 {
        let next = group.status().last_log_index + 1;
        drop(group.submit(command(format!("unread/{number}"))).await.unwrap());
        has_held = within(600, || reached(next)).await;
        if !has_held {
            break;
        }
    }
    if has_held {
        trio.hub.silence(old);
        insist_among(&trio, &followers, 0, &command("after")).await;
    }
    let now = *group.leadership().borrow();
    if !has_held || !now.is_leader || now.term != term {
        trio.hub.read_at_last();
        trio.hub.heal();
        drop(group);
        trio.shutdown().await;
        return false;
    }
    trio.hub.read_at_last();
    let barrier = tokio::spawn(async move { group.leader_barrier().await });
    for _ in 0..700 {
        assert!(!trio.group(old, 0).lease().holds_in(term));
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    assert!(barrier.await.unwrap().is_err(), "another one leads");
    trio.shutdown().await;
    true
}
