//! An address that stays while brokers come and go, with connections that a test can cut.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tandem_client::Client;
use tokio::{
    io,
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

/// Passes bytes on to a broker. Dropping it closes its address and all its connections.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    way: Arc<Mutex<Way>>,
    /// Accepts connections for as long as the relay lives.
    _listening: JoinSet<()>,
}

#[derive(Debug)]
struct Way {
    /// None: nobody is there.
    target: Option<SocketAddr>,
    /// One task for each connection; aborting it closes both of its ends.
    connections: JoinSet<()>,
}

impl Relay {
    /// A relay to this broker.
    ///
    /// # Panics
    /// When this machine has no free port.
    pub async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("this machine has a free port");
        let address = listener.local_addr().expect("a listener has an address");
        let way = Arc::new(Mutex::new(Way { target: Some(target), connections: JoinSet::new() }));
        let mut listening = JoinSet::new();
        listening.spawn(listen(listener, Arc::clone(&way)));
        Self { address, way, _listening: listening }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it listens, as a client takes it.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A client that knows the relay only.
    ///
    /// # Panics
    /// Never: the address is one.
    pub fn client(&self) -> Client {
        Client::connect(self.endpoint()).expect("the address is an endpoint")
    }

    /// Breaks all connections that are open. New ones are taken.
    ///
    /// # Panics
    /// When another thread panicked in here.
    pub fn cut(&self) {
        self.way.lock().expect("nobody panics with the lock").connections.abort_all();
    }

    /// New connections lead there.
    ///
    /// # Panics
    /// When another thread panicked in here.
    pub fn lead_to(&self, target: SocketAddr) {
        self.way.lock().expect("nobody panics with the lock").target = Some(target);
    }

    /// Breaks all connections that are open, and closes new ones at once.
    ///
    /// # Panics
    /// When another thread panicked in here.
    pub fn lead_to_nobody(&self) {
        let mut way = self.way.lock().expect("nobody panics with the lock");
        way.target = None;
        way.connections.abort_all();
    }
}

async fn listen(listener: TcpListener, way: Arc<Mutex<Way>>) {
    while let Ok((mut near, _)) = listener.accept().await {
        let mut way = way.lock().expect("nobody panics with the lock");
        let Some(target) = way.target else { continue };
        way.connections.spawn(async move {
            // A broker that is away closes the connection, as it would itself.
            if let Ok(mut far) = TcpStream::connect(target).await {
                io::copy_bidirectional(&mut near, &mut far).await.ok();
            }
        });
    }
}
