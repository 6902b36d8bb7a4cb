//! States are compared at the same entry, and a state that is not what the others have is found.

use std::{ops::ControlFlow, time::Duration};

use tandem_storage::{Direction, Durability, Space, WriteBatch};

use super::{
    cluster::{command, insist},
    hub::{NODES, Trio, until, until_connected},
};
use crate::ShardDigests;

async fn verify(trio: &Trio, at: u64) -> Vec<ShardDigests> {
    trio.nodes[&at].cluster().unwrap().verify(Duration::from_secs(20)).await
}

/// The digests of a comparison for which everybody was there.
async fn compared(trio: &Trio, at: u64) -> Vec<ShardDigests> {
    for _ in 0..100 {
        let found = verify(trio, at).await;
        if found.iter().all(|shard| shard.nodes.values().all(Result::is_ok)) {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("not all nodes could be compared: {:#?}", verify(trio, at).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn promise_9_states_agree_under_load_and_one_changed_byte_is_found() {
    let trio = Trio::start(2).await;
    for number in 0..20 {
        insist(&trio, number % 2, &command(format!("{number}"))).await;
    }
    let load = async {
        for number in 0..200 {
            insist(&trio, number % 2, &command(format!("load {number}"))).await;
        }
    };
    let comparing = async {
        for at in NODES {
            let found = compared(&trio, at).await;
            assert!(found.len() == 2 && found.iter().all(ShardDigests::agree), "{found:#?}");
            assert!(found.iter().all(|shard| shard.index > 0 && shard.nodes.len() == 3), "{found:#?}");
        }
    };
    futures_util::future::join(load, comparing).await;

    // One byte of one value on one node.
    let liar = trio.leader(1).await % 3 + 1;
    let engine = trio.group(liar, 1).engine_for_tests();
    let mut first = None;
    let look = &mut |key: &[u8], value: &[u8]| {
        first = Some((key.to_vec(), value.to_vec()));
        ControlFlow::Break(())
    };
    engine.scan(Space(1), b"", b"", Direction::Forward, look).unwrap();
    let (key, mut value) = first.unwrap();
    value[0] ^= 1;
    let mut batch = WriteBatch::new();
    batch.put(Space(1), key, value);
    engine.write(batch, Durability::Deferred).unwrap();
    let found = compared(&trio, liar % 3 + 1).await;
    assert!(found[0].agree() && !found[1].agree(), "{found:#?}");
    let of = |node: u64| found[1].nodes[&node].as_ref().unwrap().hash;
    let honest: Vec<_> = NODES.into_iter().filter(|node| *node != liar).map(of).collect();
    assert!(honest[0] == honest[1] && honest[0] != of(liar), "{found:#?}");
    trio.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_away_is_named_and_one_that_came_back_agrees() {
    let mut trio = Trio::start(1).await;
    insist(&trio, 0, &command("before")).await;
    let away = trio.leader(0).await % 3 + 1;
    let at = trio.nodes.keys().copied().find(|id| *id != away).unwrap();
    until_connected(&trio).await;
    trio.stop(away).await;
    until("its connection is gone", || !trio.nodes[&at].cluster().unwrap().is_connected(away)).await;
    insist(&trio, 0, &command("meanwhile")).await;
    let found = verify(&trio, at).await;
    assert!(!found[0].agree());
    let said: Vec<_> =
        found[0].nodes.iter().filter_map(|(node, digest)| Some((*node, digest.clone().err()?))).collect();
    assert_eq!(said, [(away, "it is not connected".to_owned())], "{found:#?}");
    trio.run(away).await;
    until_connected(&trio).await;
    let found = compared(&trio, at).await;
    assert!(found[0].agree(), "{found:#?}");
    trio.shutdown().await;
}
