//! A cluster in one thread, in simulated time: the real replication, machine, batchers and deliveries of every node, over wires,
//! disks and clocks that a seed decides. The edge is not a part of it: clients call what the edge calls.
//!
//! Each node has a tokio runtime of its own with a paused clock. The world lets them run one after the other for a
//! millisecond, in an order that the seed draws, and between two rounds it lets bytes arrive and causes faults. Dropping a
//! runtime is a process that ends in the middle of anything.
//!
//! The same seed gives the same trace, so what went wrong once can be looked at again:
//! `SIMULATION_SEED=17 SIMULATION_LOG=tandem_broker::simulation=info make test ARGS="-E 'test(one_seed)' --no-capture"`.

mod clients;
mod disks;
mod draw;
mod history;
mod host;
mod invariants;
mod nemesis;
mod net;
pub(crate) mod observer;
mod publisher;
mod subscriber;
mod tests;
mod world;
