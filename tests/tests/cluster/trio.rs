//! Three brokers on this machine, and what tests do with them.

use std::{
    collections::HashSet,
    net::{Ipv4Addr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use futures_util::TryStreamExt as _;
use tandem_broker::Config;
use tandem_client::{Client, Error, HistoryQuery, Message, ServerInfo, Settings};
use tandem_tests::{BrokerProcess, Home, now};

/// How long a cluster may take for anything before the test gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
pub(crate) const WORKSPACE: &str = "default";

/// A node of the cluster, which may run or not.
pub(crate) struct Seat {
    pub(crate) home: Arc<Home>,
    pub(crate) config: Config,
    pub(crate) process: Option<BrokerProcess>,
}

/// Three nodes.
pub(crate) struct Trio {
    pub(crate) seats: Vec<Seat>,
}

/// A port that nobody else is likely to take before the broker does: below those that the system gives away for connections
/// and for port 0, and beginning at another place in each process, because tests run in several at once.
fn free_port() -> u16 {
    const FIRST: u32 = 10_000;
    const COUNT: u32 = 22_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let place = std::process::id() * 53 + NEXT.fetch_add(1, Ordering::Relaxed);
        let port = (FIRST + place % COUNT) as u16;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

fn seat(id: u64, members: Vec<String>) -> Seat {
    let home = Arc::new(Home::new());
    let secret = home.path().join("secret");
    std::fs::write(&secret, "the secret of this cluster").unwrap();
    let mut config = home.config();
    config.node_id = id;
    config.storage.shards = 4;
    config.cluster.members = members;
    config.cluster.secret_file = secret;
    Seat { home, config, process: None }
}

/// Whether a node says that all three are connected and each leads the shards that it should.
pub(crate) fn is_spread(info: &ServerInfo) -> bool {
    let leaders = info.shards.iter().map(|shard| shard.leader_node_id);
    leaders.eq([1, 2, 3, 1]) && info.members.iter().all(|member| member.connected)
}

/// Asks for what succeeds once there is somebody who can decide.
pub(crate) async fn insist<T>(mut ask: impl AsyncFnMut() -> Result<T, Error>) -> T {
    let started = now();
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(error) => assert!(error.is_retryable() && started.elapsed() < PATIENCE, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

impl Trio {
    /// Settings of three nodes that find each other, with a secret.
    pub(crate) fn prepare() -> Self {
        let members: Vec<_> = (1..=3).map(|id| format!("n{id}=127.0.0.1:{}", free_port())).collect();
        Self { seats: (1..=3).map(|id| seat(id, members.clone())).collect() }
    }

    /// The settings of a node that joins. Returns its place among the seats, and its peer address.
    pub(crate) fn prepare_node(&mut self, id: u64) -> (usize, String) {
        let peer = format!("127.0.0.1:{}", free_port());
        let mut members = self.seats[0].config.cluster.members.clone();
        members.push(format!("n{id}={peer}"));
        let mut joining = seat(id, members);
        joining.config.cluster.join = true;
        self.seats.push(joining);
        (self.seats.len() - 1, peer)
    }

    /// Starts a node that will be ready only later.
    pub(crate) fn begin(&self, node: usize) -> tokio::task::JoinHandle<BrokerProcess> {
        let (home, config) = (Arc::clone(&self.seats[node].home), self.seats[node].config.clone());
        tokio::spawn(async move { BrokerProcess::start(&home, &config).await })
    }

    /// Three nodes that serve, each of which leads what it should: no leader moves by itself any more.
    pub(crate) async fn start() -> Self {
        let mut trio = Self::prepare();
        for node in 0..3 {
            trio.run(node).await;
        }
        trio.until_served().await;
        trio.until_spread().await;
        trio
    }

    /// Starts a node.
    pub(crate) async fn run(&mut self, node: usize) {
        let seat = &mut self.seats[node];
        seat.process = Some(BrokerProcess::start(&seat.home, &seat.config).await);
    }

    /// kill -9.
    pub(crate) fn kill_nine(&mut self, node: usize) {
        self.seats[node].process.take().unwrap().kill_nine();
    }

    pub(crate) fn process(&self, node: usize) -> &BrokerProcess {
        self.seats[node].process.as_ref().unwrap()
    }

    /// One that does not stay with a node that is gone: there are others.
    pub(crate) fn client(&self, node: usize) -> Client {
        let endpoint = format!("http://{}", self.process(node).grpc_address());
        // What this node makes of it is what is tested.
        let settings = Settings { attempts: 3, follow_leader: false, ..Settings::for_endpoint(endpoint) };
        Client::with_settings(settings).expect("it is an address")
    }

    /// Waits until every node that runs serves the workspace.
    pub(crate) async fn until_served(&self) {
        for node in self.running() {
            self.until("the workspace is served", async |trio: &Self| {
                trio.client(node).workspaces().get(WORKSPACE).await.is_ok()
            })
            .await;
        }
    }

    /// Waits until all three run, are connected, and say that each leads the shards that it should.
    pub(crate) async fn until_spread(&self) {
        self.until("each node leads what it should", async |trio: &Self| {
            for node in 0..3 {
                let Ok(info) = trio.client(node).server_info().await else { return false };
                if !is_spread(&info) {
                    return false;
                }
            }
            true
        })
        .await;
    }

    pub(crate) fn running(&self) -> Vec<usize> {
        (0..self.seats.len()).filter(|node| self.seats[*node].process.is_some()).collect()
    }

    /// Which node leads the shard of the workspace, as all nodes that run say.
    pub(crate) async fn leader(&self) -> usize {
        let started = now();
        loop {
            let mut said = HashSet::new();
            for node in self.running() {
                said.insert(self.leader_seen_by(node).await);
            }
            if let [Some(leader)] = said.iter().copied().collect::<Vec<_>>()[..]
                && self.seats[leader].process.is_some()
            {
                return leader;
            }
            assert!(started.elapsed() < PATIENCE, "the nodes do not agree on a leader: {said:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn leader_seen_by(&self, node: usize) -> Option<usize> {
        let info = self.client(node).server_info().await.ok()?;
        let shard = self.client(node).workspaces().get(WORKSPACE).await.ok()?.shard_id;
        let leader = info.shards.iter().find(|seen| seen.shard_id == shard)?.leader_node_id;
        (leader > 0).then(|| leader as usize - 1)
    }

    /// Waits for a condition.
    pub(crate) async fn until(&self, what: &str, mut condition: impl AsyncFnMut(&Self) -> bool) {
        let started = now();
        while !condition(self).await {
            assert!(started.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub(crate) async fn register(&self, sandbox: &str) {
        let client = self.client(self.running()[0]);
        insist(async || client.registry(WORKSPACE).register_with_agents(sandbox, Vec::new()).await).await;
    }

    /// The log of the workspace, as a node tells it.
    pub(crate) async fn history(&self, node: usize) -> Vec<Message> {
        // A node that has come back takes its leaderships again about now.
        insist(async || {
            let query = HistoryQuery { page_size: 1_000, ..HistoryQuery::default() };
            self.client(node).history(WORKSPACE).list(query).try_collect().await
        })
        .await
    }
}
