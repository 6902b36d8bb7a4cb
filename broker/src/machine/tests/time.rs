//! Time in the log only goes forward, whatever clocks leaders have.

use super::harness::{Draft, TestShard, WORKSPACE};

#[test]
fn a_leader_whose_clock_is_behind_does_not_turn_back_time() {
    let mut shard = TestShard::with_sandboxes();
    let messages = [Draft::direct("a", "b"), Draft::direct("a", "b")];
    shard.time_ms = 5_000;
    shard.publish(&messages);
    shard.time_ms = 2_000;
    let after = shard.publish(&messages);
    assert_eq!(after.time_ms, 5_001, "the clock of the second leader said 2,001");
    let workspace = shard.reader.workspace(WORKSPACE).unwrap();
    let stored = shard.reader.batch(workspace.number, after.first_sequence).unwrap().unwrap();
    assert_eq!((stored.time_ms, stored.len()), (5_001, 2));
}
