//! Random steps on every engine, compared with a sorted map.

use bytes::Bytes;
use proptest::{collection::vec, prelude::*, test_runner::Config};
use tandem_storage::{
    Direction, Durability, Operation, RocksOptions, Space,
    conformance::{
        SPACE_COUNT,
        model::{Step, check},
    },
};

use crate::subjects::{FaultSubject, MemorySubject, RocksSubject};

/// Few distinct keys, so that steps meet; bytes at the edges of the order.
fn key() -> impl Strategy<Value = Vec<u8>> {
    vec(prop_oneof![Just(0), Just(1), Just(b'm'), Just(0xfe), Just(0xff)], 0..3)
}

fn space() -> impl Strategy<Value = Space> {
    (0..SPACE_COUNT as u8).prop_map(Space)
}

fn durability() -> impl Strategy<Value = Durability> {
    prop_oneof![4 => Just(Durability::Deferred), 1 => Just(Durability::Synced)]
}

fn operation() -> impl Strategy<Value = Operation> {
    let bytes = |bytes: Vec<u8>| Bytes::from(bytes);
    prop_oneof![
        6 => (space(), key(), vec(any::<u8>(), 0..40))
            .prop_map(move |(space, key, value)| Operation::Put(space, bytes(key), bytes(value))),
        2 => (space(), key()).prop_map(move |(space, key)| Operation::Delete(space, bytes(key))),
        1 => (space(), key(), key())
            .prop_map(move |(space, from, to)| Operation::DeleteRange(space, bytes(from), bytes(to))),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let direction = prop_oneof![Just(Direction::Forward), Just(Direction::Backward)];
    prop_oneof![
        10 => (vec(operation(), 0..8), durability())
            .prop_map(|(operations, durability)| Step::Write(operations, durability)),
        3 => (space(), key()).prop_map(|(space, key)| Step::Get(space, key)),
        3 => (space(), key(), key(), direction)
            .prop_map(|(space, from, to, direction)| Step::Scan(space, from, to, direction)),
        1 => Just(Step::Flush),
        1 => Just(Step::Reopen),
        1 => Just(Step::Crash),
    ]
}

fn config(cases: u32) -> Config {
    // Failures are printed with their steps; files of old seeds would only pile up in the source folder.
    Config { cases, failure_persistence: None, ..Config::default() }
}

proptest! {
    #![proptest_config(config(400))]

    #[test]
    fn memory(steps in vec(step(), 1..60)) {
        check(&mut MemorySubject::new(), &steps);
    }

    #[test]
    fn fault(steps in vec(step(), 1..60)) {
        check(&mut FaultSubject::new(), &steps);
    }
}

proptest! {
    #![proptest_config(config(24))]

    #[test]
    fn rocks_log(steps in vec(step(), 1..40)) {
        check(&mut RocksSubject::new(RocksOptions::log()), &steps);
    }

    #[test]
    fn rocks_state(steps in vec(step(), 1..40)) {
        check(&mut RocksSubject::new(RocksOptions::state()), &steps);
    }
}
