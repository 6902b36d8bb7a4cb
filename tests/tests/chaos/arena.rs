//! Where the brokers run: seats, each with a network, a disk and a clock of its own, and the process that sits there.

pub(crate) mod disk;
pub(crate) mod namespaces;
pub(crate) mod network;
pub(crate) mod process;
mod relays;
pub(crate) mod seat;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use tandem_client::{Client, Settings};
use tandem_tests::Home;
use tokio::sync::{Mutex as AsyncMutex, MutexGuard};

use self::{
    network::Network,
    process::Ended,
    seat::{Place, Seat},
};
use crate::{arena::disk::Disk, settings::Settings as RunSettings};

/// Nodes that are started at first, on the first seats.
pub(crate) const NODES: usize = 3;
/// Seats: two more, for nodes that take the place of others.
pub(crate) const SEATS: usize = 5;

/// Everything that a run happens in.
pub(crate) struct Arena {
    pub(crate) network: Network,
    seats: Vec<AsyncMutex<Seat>>,
    places: Vec<Place>,
    next_id: AtomicU64,
    /// Held by who changes who the nodes are.
    pub(crate) changing: AsyncMutex<()>,
    /// What must not have happened to a process.
    complaints: Mutex<Vec<String>>,
    history: PathBuf,
    /// Dropped last: the seats write there.
    pub(crate) home: Home,
}

impl Arena {
    /// Places for all, with nobody running.
    pub(crate) async fn make(settings: &RunSettings) -> Self {
        let home = Home::new();
        let history = settings.keep.clone().unwrap_or_else(|| home.path().join("history"));
        let loopback = settings.loopback;
        let network = Network::make(loopback, SEATS).await;
        let secret = home.path().join("secret");
        std::fs::write(&secret, "the secret of this cluster").unwrap();
        let mut places = Vec::new();
        let mut seats = Vec::new();
        for number in 0..SEATS {
            let folder = home.path().join(format!("seat-{}", number + 1));
            std::fs::create_dir(&folder).unwrap();
            let place = Place { number, addresses: network.addresses(number), folder, secret: secret.clone() };
            let disk = Disk::make(&place.folder, network.is_isolated());
            seats.push(AsyncMutex::new(Seat::empty(place.clone(), disk)));
            places.push(place);
        }
        let next_id = AtomicU64::new(NODES as u64 + 1);
        Self {
            network,
            seats,
            places,
            next_id,
            changing: AsyncMutex::default(),
            complaints: Mutex::default(),
            history,
            home,
        }
    }

    /// Starts the first nodes, which make a cluster.
    pub(crate) async fn found(&self) {
        for number in 0..NODES {
            let mut seat = self.seat(number).await;
            seat.take_place(number as u64 + 1, false);
            seat.start(self);
        }
    }

    pub(crate) async fn seat(&self, number: usize) -> MutexGuard<'_, Seat> {
        self.seats[number].lock().await
    }

    /// The seats whose nodes are members, as far as the run knows.
    pub(crate) async fn taken(&self) -> Vec<usize> {
        let mut taken = Vec::new();
        for number in 0..SEATS {
            if self.seat(number).await.node_id.is_some() {
                taken.push(number);
            }
        }
        taken
    }

    /// An id that no node ever had.
    pub(crate) fn new_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// The members that a node on this seat is told of when it starts for the first time.
    pub(crate) fn members(&self, number: usize, node_id: u64, joins: bool) -> Vec<String> {
        let first = (0..NODES).map(|other| (other, other as u64 + 1));
        let mut members: Vec<(usize, u64)> = if joins { Vec::new() } else { first.collect() };
        if joins {
            for (other, id) in self.known_ids() {
                members.push((other, id));
            }
            members.push((number, node_id));
        }
        let entry = |(to, id): (usize, u64)| format!("n{id}={}", self.network.peer_address(number, to));
        members.into_iter().map(entry).collect()
    }

    /// Seats and ids of those that sit somewhere. A seat that somebody works on is passed over: it is not the only one.
    fn known_ids(&self) -> Vec<(usize, u64)> {
        let known = |number: usize| self.seats[number].try_lock().ok()?.node_id.map(|id| (number, id));
        (0..SEATS).filter_map(known).collect()
    }

    /// Where clients find the brokers, running or not.
    pub(crate) fn endpoints(&self) -> Vec<SocketAddr> {
        self.places.iter().map(|place| place.addresses.grpc).collect()
    }

    /// A client of one seat, which gives up soon: it has others to turn to.
    pub(crate) fn client(&self, number: usize) -> Client {
        client(self.places[number].addresses.grpc)
    }

    pub(crate) fn complain(&self, text: String) {
        println!("  !! {text}");
        self.complaints.lock().unwrap().push(text);
    }

    pub(crate) fn complaints(&self) -> Vec<String> {
        self.complaints.lock().unwrap().clone()
    }

    /// Looks whether a process ended that nobody had asked to.
    pub(crate) async fn watch(&self) {
        for number in 0..SEATS {
            let mut seat = self.seat(number).await;
            if let Some(Ended { code, log }) = seat.ended_by_itself() {
                let id = seat.node_id.unwrap_or(0);
                self.complain(format!("node {id} on seat {} ended by itself with {code}:\n{log}", number + 1));
            }
        }
    }

    /// Where what clients saw is written down.
    pub(crate) fn history(&self) -> &Path {
        &self.history
    }
}

/// A client that notices soon when nobody answers.
pub(crate) fn client(address: SocketAddr) -> Client {
    use std::time::Duration;
    let settings = Settings {
        connect_timeout: Duration::from_secs(1),
        request_timeout: Duration::from_secs(4),
        attempts: 1,
        resume_attempts: 1,
        // Some of them do.
        follow_leader: matches!(address.ip(), std::net::IpAddr::V4(ip) if ip.octets()[2] % 2 == 1),
        keepalive_interval: Duration::from_secs(2),
        keepalive_timeout: Duration::from_secs(2),
        ..Settings::for_endpoint(format!("http://{address}"))
    };
    Client::with_settings(settings).expect("the address is an endpoint")
}
