//! Connections to all nodes, of which one is used until it fails.

use tandem_client::Client;
use tandem_tests::Random;

use crate::arena::{self, Arena};

/// See the module. Clones have connections of their own.
pub(crate) struct Ways {
    endpoints: Vec<std::net::SocketAddr>,
    clients: Vec<Client>,
    turn: usize,
}

impl Clone for Ways {
    fn clone(&self) -> Self {
        Self::new(self.endpoints.clone(), self.turn)
    }
}

impl Ways {
    pub(crate) fn to(arena: &Arena) -> Self {
        Self::new(arena.endpoints(), 0)
    }

    fn new(endpoints: Vec<std::net::SocketAddr>, turn: usize) -> Self {
        let clients = endpoints.iter().map(|address| arena::client(*address)).collect();
        Self { endpoints, clients, turn }
    }

    /// The same, beginning anywhere.
    pub(super) fn anywhere(&self, random: &mut Random) -> Self {
        Self::new(self.endpoints.clone(), random.between(0, self.endpoints.len() as u64 - 1) as usize)
    }

    /// The one in use.
    pub(crate) fn now(&self) -> &Client {
        self.at(self.turn)
    }

    /// Any one.
    pub(crate) fn at(&self, turn: usize) -> &Client {
        &self.clients[turn % self.clients.len()]
    }

    /// Turns to the next.
    pub(crate) fn turn(&mut self) {
        self.turn += 1;
    }
}
