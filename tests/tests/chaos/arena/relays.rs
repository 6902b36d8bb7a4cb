//! Processes on the loopback interface: what one node says to another goes through a relay, which can be cut.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr, TcpListener},
};

use tandem_tests::Relay;

use super::{
    network::{End, Fault},
    seat::Addresses,
};

/// See the module.
pub(crate) struct Relays {
    addresses: Vec<Addresses>,
    /// By who dials and who is dialled.
    ways: BTreeMap<(usize, usize), Relay>,
}

impl Relays {
    pub(super) async fn make(seats: usize) -> Self {
        // Below those that the system gives away for connections: a broker that starts again must find its port free.
        let begin = 10_000 + (std::process::id() * 53 % 20_000) as u16;
        let free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
        let ports: Vec<_> = (begin..32_000).filter(free).take(seats * 3).collect();
        let ports: Vec<SocketAddr> = ports.into_iter().map(|port| (Ipv4Addr::LOCALHOST, port).into()).collect();
        let addresses: Vec<_> =
            ports.chunks(3).map(|of| Addresses { grpc: of[0], metrics: of[1], peer: of[2] }).collect();
        let mut ways = BTreeMap::new();
        for from in 0..seats {
            for to in (0..seats).filter(|to| *to != from) {
                ways.insert((from, to), Relay::to(addresses[to].peer).await);
            }
        }
        Self { addresses, ways }
    }

    pub(super) fn addresses(&self, seat: usize) -> Addresses {
        self.addresses[seat]
    }

    pub(super) fn peer_address(&self, from: usize, to: usize) -> SocketAddr {
        self.ways.get(&(from, to)).map_or(self.addresses[to].peer, Relay::address)
    }

    /// A connection carries both directions, so a way is cut in both or in none.
    pub(super) fn apply(&self, faults: &[Fault]) {
        for ((from, to), relay) in &self.ways {
            let is_cut = |fault: &Fault| match fault {
                Fault::Cut(End::Seat(one), End::Seat(other)) => [(one, other), (other, one)].contains(&(from, to)),
                _ => false,
            };
            match faults.iter().any(is_cut) {
                true => relay.lead_to_nobody(),
                false => relay.lead_to(self.addresses[*to].peer),
            }
        }
    }
}
