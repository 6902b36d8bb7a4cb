//! What connects the seats with each other and with the clients, and what can be done to it.

use std::{
    collections::BTreeMap,
    path::Path,
    process::Command,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use super::{namespaces::Namespaces, relays::Relays, seat::Addresses};

/// One end of a way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum End {
    /// A seat, by number.
    Seat(usize),
    /// All clients.
    Clients,
}

/// What is wrong with a way, which leads in one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing goes from one to the other.
    Cut(End, End),
    /// So many of a hundred packets are lost from one to the other.
    Lossy(End, End, u32),
    /// What goes to and from this seat goes slowly.
    Slow(usize),
}

/// A fault that is in force until it is healed.
#[derive(Debug)]
#[must_use = "it stays until it is healed"]
pub(crate) struct InForce(u64);

enum Kind {
    Namespaces(Namespaces),
    Relays(Relays),
}

/// See the module.
pub(crate) struct Network {
    kind: Kind,
    next: AtomicU64,
    faults: Mutex<BTreeMap<u64, Vec<Fault>>>,
}

impl Network {
    /// Namespaces, where this process may make them; otherwise the loopback interface, and relays between the nodes.
    pub(super) async fn make(loopback: bool, seats: usize) -> Self {
        let namespaces =
            if loopback { Err("TANDEM_CHAOS_LOOPBACK is set".to_owned()) } else { Namespaces::make(seats) };
        let kind = match namespaces {
            Ok(namespaces) => Kind::Namespaces(namespaces),
            Err(why) => {
                println!(
                    "no network namespaces ({why}): processes on the loopback interface, with relays between them."
                );
                println!("Faults left out: one-way and client partitions, slow and lossy links, full disks.");
                Kind::Relays(Relays::make(seats).await)
            }
        };
        Self { kind, next: AtomicU64::new(1), faults: Mutex::default() }
    }

    /// Whether each seat has a network of its own.
    pub(crate) fn is_isolated(&self) -> bool {
        matches!(self.kind, Kind::Namespaces(_))
    }

    pub(super) fn addresses(&self, seat: usize) -> Addresses {
        match &self.kind {
            Kind::Namespaces(namespaces) => namespaces.addresses(seat),
            Kind::Relays(relays) => relays.addresses(seat),
        }
    }

    /// Where one seat dials another.
    pub(crate) fn peer_address(&self, from: usize, to: usize) -> String {
        match &self.kind {
            Kind::Namespaces(namespaces) => namespaces.addresses(to).peer.to_string(),
            Kind::Relays(relays) => relays.peer_address(from, to).to_string(),
        }
    }

    /// A command that runs on a seat.
    pub(super) fn command(&self, seat: usize, program: &Path) -> Command {
        match &self.kind {
            Kind::Namespaces(namespaces) => namespaces.command(seat, program),
            Kind::Relays(_) => Command::new(program),
        }
    }

    /// Puts faults in force, beside those that are.
    pub(crate) fn strike(&self, faults: Vec<Fault>) -> InForce {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut all = self.faults.lock().unwrap();
        all.insert(number, faults);
        self.apply(&all);
        InForce(number)
    }

    pub(crate) fn heal(&self, in_force: InForce) {
        let mut all = self.faults.lock().unwrap();
        all.remove(&in_force.0);
        self.apply(&all);
    }

    fn apply(&self, all: &BTreeMap<u64, Vec<Fault>>) {
        let faults: Vec<Fault> = all.values().flatten().copied().collect();
        match &self.kind {
            Kind::Namespaces(namespaces) => namespaces.apply(&faults),
            Kind::Relays(relays) => relays.apply(&faults),
        }
    }
}
