//! A rolling upgrade: versions that can apply more meet versions that cannot.

use super::{
    cluster::{command, insist},
    hub::{NODES, Trio, address, until},
};
use crate::{Change, FatalSink, NEWEST_LEVEL, ProposeError, Versions};

/// A level that no version has yet.
const NEXT: u32 = NEWEST_LEVEL + 1;

fn upgraded() -> Versions {
    Versions { newest_level: NEXT, ..Versions::default() }
}

async fn restart(trio: &mut Trio, id: u64, versions: Versions) {
    trio.versions.insert(id, versions);
    trio.stop(id).await;
    trio.run(id).await;
}

/// The level of the cluster, as every node that runs says.
fn level(trio: &Trio) -> Option<u32> {
    let mut said = trio.nodes.values().map(|node| node.cluster().unwrap().roll().level());
    let first = said.next()?;
    said.all(|other| other == first).then_some(first)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_new_version_brings_is_used_once_every_node_can_apply_it() {
    let mut trio = Trio::start(2).await;
    insist(&trio, 0, &command("before")).await;
    until("all nodes use what they can", || level(&trio) == Some(NEWEST_LEVEL)).await;
    for (id, left) in [(1, vec![2, 3]), (2, vec![3])] {
        restart(&mut trio, id, upgraded()).await;
        let waits = || match trio.group(id, 1).allows(NEXT) {
            Err(ProposeError::LevelTooLow { needed, level, who }) => {
                // What its file did not say yet, its log does.
                assert!(needed == NEXT && level <= NEWEST_LEVEL, "{level}");
                level == NEWEST_LEVEL && who == left
            }
            other => panic!("the older nodes could not apply it: {other:?}"),
        };
        until("it names the nodes that are older", waits).await;
        assert!(trio.group(id, 1).allows(NEWEST_LEVEL).is_ok());
        insist(&trio, 0, &command(format!("with node {id} upgraded"))).await;
    }
    restart(&mut trio, 3, upgraded()).await;
    until("all nodes may use it", || level(&trio) == Some(NEXT)).await;
    for id in NODES {
        assert!(trio.group(id, 0).allows(NEXT).is_ok() && trio.group(id, 1).allows(NEXT).is_ok());
        assert!(trio.group(id, 0).allows(NEXT + 1).is_err());
    }
    // A node that is away takes nothing back, and neither does a restart of all.
    for id in NODES {
        restart(&mut trio, id, upgraded()).await;
        // States are in memory here: it applies its log again.
        until("it is not lowered", || trio.group(id, 0).allows(NEXT).is_ok()).await;
    }
    insist(&trio, 0, &command("after")).await;
    trio.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_too_old_for_the_cluster_stops_and_is_not_taken_in() {
    let mut trio = Trio::start(1).await;
    for id in NODES {
        restart(&mut trio, id, upgraded()).await;
    }
    until("the level is raised", || level(&trio) == Some(NEXT)).await;

    // One of them is started with the version before: its own state says that it must not go on.
    trio.stop(3).await;
    trio.versions.remove(&3);
    let fatal = FatalSink::default();
    let started = trio.run_with_disk(3, "disk-3", fatal.clone()).await;
    let reason = match started {
        Err(reason) => reason,
        Ok(()) => {
            let reason = tokio::time::timeout(std::time::Duration::from_secs(60), fatal.wait()).await.unwrap();
            // Its process ends with it: nobody may ask it who belongs to the cluster.
            trio.stop(3).await;
            reason
        }
    };
    assert_eq!(reason.code(), "NODE_TOO_OLD", "{reason}");
    assert!(reason.to_string().contains(&format!("level {NEXT}")), "{reason}");

    // And a new one of that version is not taken in.
    let cluster = trio.nodes[&1].cluster().unwrap();
    let add = Change::Add { node: 4, address: address(4) };
    while cluster.change(&add).await.is_err() {
        trio.group(1, 0).read_barrier().await.ok();
    }
    // Who has not applied the change says "not yet", as it should.
    until("the others know of it", || {
        trio.nodes.values().all(|node| node.cluster().unwrap().roll().members.contains_key(&4))
    })
    .await;
    let application = trio.application(4);
    let refused = application.wait(|refusal| panic!("it shall not wait: {refusal}"));
    let refused = tokio::time::timeout(std::time::Duration::from_secs(60), refused).await.unwrap().unwrap_err();
    assert_eq!(refused.code(), "NODE_TOO_OLD", "{refused}");
    insist(&trio, 0, &command("the others go on")).await;
}
