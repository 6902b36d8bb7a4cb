//! All integration tests of the crate, in one binary so that RocksDB is linked once.
#![allow(clippy::unwrap_used, missing_docs)]

mod conformance;
mod fault;
mod lock;
mod memory;
mod model;
mod rocks;
mod rocks_damage;
mod rocks_open;
mod subjects;
