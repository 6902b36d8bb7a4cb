//! The one suite, on every engine.

use tandem_storage::{RocksOptions, conformance};

use crate::subjects::{FaultSubject, MemorySubject, RocksSubject};

#[test]
fn memory() {
    conformance::run(MemorySubject::new);
}

#[test]
fn fault() {
    conformance::run(FaultSubject::new);
}

#[test]
fn rocks_log() {
    conformance::run(|| RocksSubject::new(RocksOptions::log()));
}

#[test]
fn rocks_state() {
    conformance::run(|| RocksSubject::new(RocksOptions::state()));
}
