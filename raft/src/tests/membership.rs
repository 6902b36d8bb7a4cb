//! Members come, go, and take each other's place; nothing that was acknowledged is lost or there twice.

use std::collections::BTreeMap;

use bytes::Bytes;
use openraft::impls::BasicNode;

use super::{
    cluster::{applied, command, insist},
    hub::{NODES, Trio, address, until, until_connected},
    journal::{Journal, rocks_states},
};
use crate::{Change, ChangeCode, ChangeError, MemberState, Node, RefusalCode, Roll, type_config::Membership};

fn add(node: u64) -> Change {
    Change::Add { node, address: address(node) }
}

/// Asks a node for a change until somebody has decided it: a busy machine may have no leader for a while.
async fn change(trio: &Trio, at: u64, change: &Change) -> Result<Roll, ChangeError> {
    let cluster = trio.nodes[&at].cluster().unwrap();
    for _ in 0..20 {
        match cluster.change(change).await {
            Err(ChangeError::Unavailable(_)) => {}
            decided => return decided,
        }
    }
    panic!("nobody decides on {change:?}");
}

#[track_caller]
fn code(changed: Result<Roll, ChangeError>) -> ChangeCode {
    match changed {
        Err(ChangeError::Refused { code, .. }) => code,
        other => panic!("not refused: {other:?}"),
    }
}

/// Who should be a member and is one, of every shard, as every node that runs knows.
async fn until_members_are(trio: &Trio, expected: &[u64]) {
    let done = |trio: &Trio| {
        let known = |id: &&u64| trio.nodes.contains_key(id);
        assert!(expected.iter().any(|id| known(&id)), "nobody runs");
        expected.iter().filter_map(|id| trio.nodes.get(id)).all(|node| {
            let roll = node.cluster().unwrap().roll();
            let listed: Vec<u64> = roll.members.keys().copied().collect();
            let voters = |group: &std::sync::Arc<crate::Group<_>>| {
                let standing = group.standing();
                standing.voters == [expected.iter().copied().collect()] && standing.nodes.len() == expected.len()
            };
            listed == expected && roll.changing().is_none() && node.groups().iter().all(voters)
        })
    };
    for _ in 0..6_000 {
        if done(trio) {
            return;
        }
        trio.expect_health();
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let seen: Vec<_> = trio
        .nodes
        .iter()
        .map(|(id, node)| {
            let shards: Vec<_> = node.groups().iter().map(|group| group.standing()).collect();
            (id, node.cluster().unwrap().roll(), shards)
        })
        .collect();
    panic!("the members are not {expected:?} within 30 s: {seen:#?}");
}

async fn write(trio: &Trio, shards: u32, name: &str, count: u32, written: &mut Vec<Bytes>) {
    for number in 0..count {
        let command = command(format!("{name}/{number:0400}"));
        for shard in 0..shards {
            insist(trio, shard, &command).await;
        }
        written.push(command);
    }
}

async fn until_all_have(trio: &Trio, shards: u32, written: &[Bytes]) {
    for id in trio.nodes.keys() {
        for shard in 0..shards {
            until("every node has everything, once, in order", || applied(trio, *id, shard) == written).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_join_and_the_cluster_survives_what_three_would_not() {
    let mut trio = Trio::with(2, 20_000, rocks_states).await;
    let mut written = Vec::new();
    write(&trio, 2, "before", 100, &mut written).await;
    for (joining, asked) in [(4, 1), (5, 2)] {
        trio.wipe(joining);
        let roll = change(&trio, asked, &add(joining)).await.unwrap();
        assert_eq!(roll.members[&joining].state, MemberState::Joining);
        // Who has not heard of it yet would send it away, and it would end when all do.
        let knows = |node: &Node<Journal>| node.cluster().unwrap().roll().members.contains_key(&joining);
        until("all know it", || trio.nodes.values().all(knows)).await;
        trio.run(joining).await;
        write(&trio, 2, &format!("while {joining} joins"), 50, &mut written).await;
        let members: Vec<u64> = (1..=joining).collect();
        until_members_are(&trio, &members).await;
    }
    trio.stop(1).await;
    trio.stop(2).await;
    write(&trio, 2, "three of five", 20, &mut written).await;
    trio.run(1).await;
    trio.run(2).await;
    until_all_have(&trio, 2, &written).await;
    trio.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_joins_waits_until_it_is_named_and_learns_where_it_is() {
    let trio = Trio::start(1).await;
    let (said, mut hears) = tokio::sync::mpsc::unbounded_channel();
    let application = trio.application(4);
    let waiting = tokio::spawn(async move { application.wait(|refusal| said.send(refusal.code).unwrap()).await });
    // Until all run, some are not reached.
    while hears.recv().await.unwrap() != RefusalCode::NotAMember {}
    assert!(!waiting.is_finished());
    change(&trio, 2, &add(4)).await.unwrap();
    let admission = waiting.await.unwrap().unwrap();
    assert_eq!(admission.cluster_id, "test");
    assert_eq!(admission.members, (1..=4).map(|id| (id, address(id))).collect());
    for member in NODES {
        let mut once_more = trio.application(4);
        once_more.members.retain(|id, _| *id == member);
        once_more.wait(|_| ()).await.unwrap();
    }
    change(&trio, 2, &Change::Remove { node: 4, force: false }).await.unwrap();
    until("it is taken out", || {
        trio.nodes.values().all(|node| node.cluster().unwrap().roll().retired.contains_key(&4))
    })
    .await;
    let refused = trio.application(4).wait(|_| ()).await.unwrap_err();
    assert_eq!(refused.code(), "NODE_ID_REUSED", "{refused}");
    // Nor does its disk come back under a new id.
    change(&trio, 2, &add(5)).await.unwrap();
    until("all know", || trio.nodes.values().all(|node| node.cluster().unwrap().roll().members.contains_key(&5))).await;
    let mut other = trio.application(5);
    other.own.disk_id = "disk-4".into();
    let refused = other.wait(|_| ()).await.unwrap_err();
    assert_eq!(refused.code(), "DISK_ID_REUSED", "{refused}");
    trio.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_removed_stops_and_never_comes_back() {
    let mut trio = Trio::start(3).await;
    let mut written = Vec::new();
    write(&trio, 3, "before", 20, &mut written).await;
    // Whoever leads shard 0 decides, and so parts with itself.
    let leader = trio.leader(0).await;
    let other = leader % 3 + 1;
    until_connected(&trio).await;
    change(&trio, other, &Change::Remove { node: leader, force: false }).await.unwrap();
    trio.expect_removal(leader).await;
    let rest: Vec<u64> = NODES.into_iter().filter(|id| *id != leader).collect();
    until_members_are(&trio, &rest).await;
    write(&trio, 3, "after", 20, &mut written).await;
    until_all_have(&trio, 3, &written).await;
    assert_eq!(code(change(&trio, other, &add(leader)).await), ChangeCode::NodeIdReused);
    change(&trio, other, &Change::Remove { node: leader, force: false }).await.unwrap();
    // It is started again, with the disk that it had.
    trio.run(leader).await;
    trio.expect_removal(leader).await;
    trio.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_lost_its_disk_is_replaced() {
    let mut trio = Trio::start(2).await;
    let mut written = Vec::new();
    write(&trio, 2, "before", 20, &mut written).await;
    let lost = trio.leader(1).await;
    let other = lost % 3 + 1;
    trio.stop(lost).await;
    trio.wipe(lost);
    trio.wipe(4);
    let replace = Change::Replace { old: lost, new: 4, address: address(4), force: false };
    change(&trio, other, &replace).await.unwrap();
    trio.run(4).await;
    write(&trio, 2, "while it joins", 20, &mut written).await;
    let rest: Vec<u64> = NODES.into_iter().filter(|id| *id != lost).chain([4]).collect();
    until_members_are(&trio, &rest).await;
    change(&trio, other, &replace).await.unwrap();
    write(&trio, 2, "after", 20, &mut written).await;
    until_all_have(&trio, 2, &written).await;
    trio.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_away_while_all_others_were_replaced_comes_back() {
    let mut trio = Trio::start(2).await;
    let mut written = Vec::new();
    write(&trio, 2, "before", 20, &mut written).await;
    trio.stop(3).await;
    for (old, new, at) in [(1, 4, 2), (2, 5, 4)] {
        trio.wipe(new);
        trio.run(new).await;
        let replace = Change::Replace { old, new, address: address(new), force: false };
        change(&trio, at, &replace).await.unwrap();
        trio.expect_removal(old).await;
        write(&trio, 2, &format!("with {new}"), 20, &mut written).await;
    }
    // It knows nobody who is left, and they know it.
    trio.run(3).await;
    until_members_are(&trio, &[3, 4, 5]).await;
    until_all_have(&trio, 2, &written).await;
    trio.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_goes_on_when_leaders_die_in_the_middle() {
    let mut trio = Trio::start(2).await;
    let mut written = Vec::new();
    write(&trio, 2, "before", 10, &mut written).await;
    trio.wipe(4);
    change(&trio, 1, &add(4)).await.unwrap();
    trio.run(4).await;
    for round in 0..4 {
        let dying = trio.leader(round % 2).await;
        if !NODES.contains(&dying) {
            continue;
        }
        trio.stop(dying).await;
        write(&trio, 2, &format!("without {dying}, {round}"), 2, &mut written).await;
        trio.run(dying).await;
    }
    until_members_are(&trio, &[1, 2, 3, 4]).await;
    let asked = trio.leader(0).await;
    let gone = asked % 3 + 1;
    change(&trio, asked, &Change::Remove { node: gone, force: false }).await.unwrap();
    let dying = (gone % 3) + 1;
    trio.stop(dying).await;
    trio.run(dying).await;
    trio.expect_removal(gone).await;
    let rest: Vec<u64> = (1..=4).filter(|id| *id != gone).collect();
    until_members_are(&trio, &rest).await;
    write(&trio, 2, "after", 10, &mut written).await;
    until_all_have(&trio, 2, &written).await;
    trio.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dead_leader_left_is_ended_and_what_the_roll_does_not_say_is_undone() {
    let mut trio = Trio::start(2).await;
    let mut written = Vec::new();
    write(&trio, 2, "before", 10, &mut written).await;
    change(&trio, 1, &Change::Rebalance).await.unwrap();
    let leader = trio.leader(1).await;
    let others: std::collections::BTreeSet<u64> = NODES.into_iter().filter(|id| *id != leader).collect();
    let nodes: BTreeMap<u64, BasicNode> = NODES.map(|id| (id, BasicNode { addr: address(id) })).into();
    // Half of a change that parts with the leader, and nobody who asked for it.
    let joint = Membership::new(vec![NODES.into(), others], nodes).unwrap();
    let raft = trio.group(leader, 1).raft().clone();
    raft.append_membership(joint, openraft::EntryPayload::Blank, []).await.ok();
    trio.stop(leader).await;
    trio.run(leader).await;
    until_members_are(&trio, &NODES).await;
    write(&trio, 2, "after", 10, &mut written).await;
    until_all_have(&trio, 2, &written).await;
    trio.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn too_few_connected_voters_refuse_a_removal_and_force_waits_for_them() {
    let mut trio = Trio::start(3).await;
    let mut written = Vec::new();
    let leader = trio.leader(0).await;
    let (away, other) = (leader % 3 + 1, (leader + 1) % 3 + 1);
    trio.stop(away).await;
    let remove = |force| Change::Remove { node: other, force };
    // By both: whichever leads by then decides.
    let noticed = |id: &u64| !trio.nodes[id].cluster().unwrap().is_connected(away);
    until("its end is noticed", || [leader, other].iter().all(noticed)).await;
    let asked = change(&trio, leader, &remove(false)).await;
    let Err(ChangeError::Refused { code, text }) = asked else { panic!("it is not refused: {asked:?}") };
    assert_eq!(code, ChangeCode::QuorumAtRisk, "{text}");
    assert!(text.contains(&format!("node {away} is not connected")) && text.contains("--force"), "{text}");
    change(&trio, leader, &remove(true)).await.unwrap();
    // It waits, and nothing waits for it.
    write(&trio, 3, "meanwhile", 200, &mut written).await;
    assert!(trio.nodes[&leader].cluster().unwrap().roll().changing().is_some());
    trio.run(away).await;
    trio.expect_removal(other).await;
    let mut rest = [leader, away];
    rest.sort_unstable();
    until_members_are(&trio, &rest).await;
    write(&trio, 3, "after", 10, &mut written).await;
    until_all_have(&trio, 3, &written).await;
    trio.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leaders_go_where_they_are_sent_and_a_drained_node_leads_nothing() {
    let mut trio = Trio::start(3).await;
    let leads = |trio: &Trio, id: u64, shard| trio.group(id, shard).leadership().borrow().is_leader;
    until("leaders are spread", || (0..3).all(|shard| leads(&trio, u64::from(shard) + 1, shard))).await;
    change(&trio, 2, &Change::Transfer { shard: 0, to: 3 }).await.unwrap();
    until("it leads what it was given", || leads(&trio, 3, 0)).await;
    change(&trio, 2, &Change::Drain { node: 3 }).await.unwrap();
    until("it leads nothing", || (0..3).all(|shard| !leads(&trio, 3, shard))).await;
    assert_eq!(code(change(&trio, 3, &Change::Transfer { shard: 0, to: 3 }).await), ChangeCode::NodeNotReady);
    until("the others lead", || (0..3).all(|shard| leads(&trio, 1, shard) || leads(&trio, 2, shard))).await;
    // A restart ends it.
    trio.stop(3).await;
    trio.run(3).await;
    until("it may lead again", || trio.nodes[&1].cluster().unwrap().roll().members.values().all(|m| !m.drained)).await;
    change(&trio, 1, &Change::Transfer { shard: 1, to: 1 }).await.unwrap();
    until("it leads what it was given", || leads(&trio, 1, 1)).await;
    change(&trio, 3, &Change::Rebalance).await.unwrap();
    until("leaders are spread again", || (0..3).all(|shard| leads(&trio, u64::from(shard) + 1, shard))).await;
    trio.shutdown().await;
}
