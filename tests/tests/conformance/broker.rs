//! One node or three, open or closed.

use std::fs;

use tandem_client::{Client, Settings, Token};
use tandem_tests::{BrokerProcess, Home, run_to_exit, tandem_command};

use crate::trio::{Trio, is_spread};

/// See above.
pub(crate) struct Broker {
    nodes: Nodes,
    /// Of whom may do everything; None: it is open.
    pub(crate) admin: Option<String>,
    home: Home,
}

enum Nodes {
    One(BrokerProcess),
    Three(Box<Trio>),
}

impl Broker {
    pub(crate) async fn start(nodes: usize, is_closed: bool) -> Self {
        let home = Home::new();
        let key = home.path().join("key");
        fs::write(&key, "a secret that is long enough for it").unwrap();
        let close = |config: &mut tandem_broker::Config| {
            if is_closed {
                config.auth.open = false;
                config.auth.keys = vec![format!("k1=HS256:{}", key.display())];
                config.auth.clock_skew_s = 0;
            }
        };
        let nodes = if nodes == 1 {
            let mut config = home.config();
            close(&mut config);
            Nodes::One(BrokerProcess::start(&home, &config).await)
        } else {
            let mut trio = Trio::prepare();
            trio.seats.iter_mut().for_each(|seat| close(&mut seat.config));
            for node in 0..3 {
                trio.run(node).await;
            }
            Nodes::Three(Box::new(trio))
        };
        let mut broker = Self { nodes, admin: None, home };
        if is_closed {
            broker.admin = Some(broker.token(&["--role", "admin"]).await);
        }
        broker.until_served().await;
        broker.until_spread().await;
        broker
    }

    /// A token that this broker takes.
    pub(crate) async fn token(&self, arguments: &[&str]) -> String {
        let mut command = tandem_command();
        command.args(["token", "create", "--key-id", "k1", "--subject", "somebody", "--key-file"]);
        command.arg(self.home.path().join("key")).args(arguments);
        let exit = run_to_exit(&self.home, command).await;
        assert_eq!(exit.code, Some(0), "{exit:?}");
        exit.stdout.trim().to_owned()
    }

    /// Where its nodes listen, also those that were killed.
    pub(crate) fn addresses(&self) -> Vec<std::net::SocketAddr> {
        match &self.nodes {
            Nodes::One(node) => vec![node.grpc_address()],
            Nodes::Three(trio) => trio.running().into_iter().map(|node| trio.process(node).grpc_address()).collect(),
        }
    }

    /// Kills the node that leads a workspace, where there are others.
    pub(crate) async fn kill_leader(&mut self, workspace: &str) {
        let clients = self.clients();
        let Nodes::Three(trio) = &mut self.nodes else { return };
        for _ in 0..200 {
            for client in &clients {
                let (Ok(found), Ok(info)) = (client.workspaces().get(workspace).await, client.server_info().await)
                else {
                    continue;
                };
                let leader = info.shards.iter().find(|shard| shard.shard_id == found.shard_id);
                let leader = leader.map_or(0, |shard| shard.leader_node_id) as usize;
                if leader > 0 && trio.running().contains(&(leader - 1)) {
                    trio.kill_nine(leader - 1);
                    return;
                }
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        panic!("nobody leads {workspace}");
    }

    /// One for each node that runs.
    fn clients(&self) -> Vec<Client> {
        let of = |address| Settings {
            token: self.admin.as_deref().map(Token::from_text),
            attempts: 1,
            ..Settings::for_endpoint(format!("http://{address}"))
        };
        self.addresses().into_iter().map(|address| Client::with_settings(of(address)).unwrap()).collect()
    }

    /// Waits until no leader moves by itself any more: leases end with their leader, and scenarios are about those that are killed.
    async fn until_spread(&self) {
        let Nodes::Three(_) = self.nodes else { return };
        for client in self.clients() {
            let mut tries = 0;
            while !client.server_info().await.is_ok_and(|info| is_spread(&info)) {
                tries += 1;
                assert!(tries < 600, "leaders do not settle");
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        }
    }

    async fn until_served(&self) {
        for client in self.clients() {
            let mut tries = 0;
            while let Err(error) = client.workspaces().get("default").await {
                assert!(tries < 600, "the broker is not ready: {error}");
                tries += 1;
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        }
    }
}
