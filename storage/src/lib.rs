//! Ordered bytes on disk.
//!
//! This crate owns the seam between what the broker stores and how it is stored: atomic batches over a few ordered
//! keyspaces, scans on a consistent view, durability points, and checkpoints. It is the only crate that names `rocksdb`.
//!
//! It does not know what a key or a value means, what a message, a shard or a Raft term is, when something should become
//! durable, or to whom a data directory belongs. It knows no async runtime, no clock and no randomness.
//!
//! Read first: [`Engine`], whose documentation is the contract; [`WriteBatch`], the unit that becomes visible and durable;
//! [`Error`], which says whether the process may go on.
//!
//! | engine | for | durable |
//! |---|---|---|
//! | [`RocksEngine`] with [`RocksOptions::log`] | the Raft log | at a synced write, through a write-ahead log |
//! | [`RocksEngine`] with [`RocksOptions::state`] | the state machine | at a flush; the Raft log is its log |
//! | [`MemoryEngine`] | tests, throw-away brokers | never, except in a checkpoint |
//! | [`FaultEngine`] | tests of everything above | as a disk that loses power, tears, fills up or rots on demand |
//!
//! Invariants:
//! - A batch is visible and durable as a whole, across spaces, or not at all.
//! - After a crash an engine holds a prefix of its batches that reaches at least the last durability point.
//! - Bytes that were durable are returned unchanged or reported as [`Error::Corrupt`]; they are never silently shortened.
//! - After a fatal error an engine accepts no write until it is opened again.
//!
//! How it is tested: [`conformance`] runs one suite on every engine; property tests compare every engine with a sorted map;
//! RocksDB has its own tests for locks, torn logs and flipped bytes. A new engine is one file here and one line in
//! `tests/it/conformance.rs`.

pub mod conformance;
mod directory;
mod engine;
mod error;
mod fault;
pub mod lock;
mod memory;
mod poison;
mod record;
mod rocks;
mod write_batch;

pub use engine::{Direction, Durability, Engine, Pacer, Space, SpaceVisitor, Visitor};
pub use error::Error;
pub use fault::{Disk, FaultEngine, FaultHandle, Tear};
pub use lock::DirectoryLock;
pub use memory::MemoryEngine;
pub use rocks::{EngineStats, RocksEngine, RocksOptions, Role, SpaceOptions};
pub use write_batch::{Operation, WriteBatch};
