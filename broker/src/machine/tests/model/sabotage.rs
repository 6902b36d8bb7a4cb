//! The comparison can fail: a fault that is planted behind the back of the model is found.

use std::ops::ControlFlow;

use bytes::Bytes;
use tandem_storage::{Direction, Durability, Engine as _, Space, WriteBatch};

use super::{search, shard::Shard};
use crate::machine::{
    Machine,
    keys::{DEAD, EVENTS, READY, REMEMBERED, RUNS},
};

/// Histories that are tried before a fault counts as not found.
const CASES: u32 = 500;

/// Removes a record from the state, if there is one.
fn lose(shard: &mut Shard, space: Space, direction: Direction) {
    let mut found = None;
    let first = &mut |key: &[u8], _: &[u8]| {
        found = Some(Bytes::copy_from_slice(key));
        ControlFlow::Break(())
    };
    shard.engine.scan(space, &[], &[], direction, first).unwrap();
    if let Some(key) = found {
        let mut writes = WriteBatch::new();
        writes.delete(space, key);
        shard.engine.write(writes, Durability::Deferred).unwrap();
        // Nothing of it may be left in a cache.
        shard.machine = Machine::open(shard.engine.clone()).unwrap();
        shard.reader.replace(shard.engine.clone(), shard.machine.recent_ids(), shard.machine.policies());
    }
}

fn is_found(fault: fn(&mut Shard)) -> bool {
    search(1, CASES, 40, 0, Some(fault)).is_some()
}

#[test]
fn a_lost_message_is_found() {
    assert!(is_found(|shard| lose(shard, RUNS, Direction::Forward)), "of a lane");
    assert!(is_found(|shard| lose(shard, READY, Direction::Forward)), "on its own");
    assert!(is_found(|shard| lose(shard, DEAD, Direction::Forward)), "a dead letter");
}

#[test]
fn a_forgotten_id_is_found() {
    assert!(is_found(|shard| lose(shard, REMEMBERED, Direction::Forward)));
}

#[test]
fn a_lost_event_is_found() {
    assert!(is_found(|shard| lose(shard, EVENTS, Direction::Backward)));
}

#[test]
fn a_delivery_that_hears_nothing_is_found() {
    // What is pushed from now on reaches another delivery than the one that streams read from.
    assert!(is_found(|shard| {
        shard.delivery = std::sync::Arc::new(crate::delivery::Delivery::new(
            shard.reader.clone(),
            crate::metrics::EventMetrics::default(),
        ));
    }));
}
