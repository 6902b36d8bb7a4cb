//! Where a scenario is played: its workspace, clients, inboxes, deliveries and what is in the background.

use std::collections::HashMap;

use serde_json::Value;
use tandem_client::{Client, Inbox, InboxDelivery, Settings, Token};
use tandem_tests::Relay;
use tokio::task::JoinHandle;

use crate::{broker::Broker, verbs::Failure};

/// See above.
pub(crate) struct Stage {
    pub(crate) broker: Broker,
    pub(crate) workspace: String,
    /// Before each node, where connections are to be cut.
    pub(crate) relays: Vec<Relay>,
    pub(crate) clients: HashMap<String, Client>,
    pub(crate) tokens: HashMap<String, Option<String>>,
    pub(crate) inboxes: HashMap<String, Inbox>,
    pub(crate) deliveries: HashMap<String, InboxDelivery>,
    pub(crate) calls: HashMap<String, JoinHandle<Result<Value, Failure>>>,
    /// Of this step.
    pub(crate) client: Client,
}

impl Stage {
    pub(crate) async fn new(broker: Broker, scenario: &str, is_cut: bool) -> Self {
        let mut relays = Vec::new();
        if is_cut {
            for address in broker.addresses() {
                relays.push(Relay::to(address).await);
            }
        }
        let client = Client::with_settings(settings(&broker, &relays)).unwrap();
        let workspace = format!("conf-{scenario}");
        client.workspaces().create(workspace.as_str()).await.unwrap();
        Self {
            broker,
            workspace,
            relays,
            clients: HashMap::from([("main".to_owned(), client.clone())]),
            tokens: HashMap::from([("none".to_owned(), None)]),
            inboxes: HashMap::new(),
            deliveries: HashMap::new(),
            calls: HashMap::new(),
            client,
        }
    }

    /// One more client.
    pub(crate) fn connect(&mut self, name: &str, change: impl FnOnce(&mut Settings)) {
        let mut settings = settings(&self.broker, &self.relays);
        change(&mut settings);
        self.clients.insert(name.to_owned(), Client::with_settings(settings).unwrap());
    }

    pub(crate) async fn step(&mut self, verb: &str, arguments: &Value, step: &Value) -> Result<Value, Failure> {
        let client = step["client"].as_str().unwrap_or("main");
        self.client = self.clients[client].clone();
        self.verb(verb, arguments, &step["expect"]).await
    }
}

fn settings(broker: &Broker, relays: &[Relay]) -> Settings {
    let addresses = broker.addresses().into_iter().map(|address| format!("http://{address}"));
    let endpoints = if relays.is_empty() { addresses.collect() } else { relays.iter().map(Relay::endpoint).collect() };
    let token = broker.admin.as_deref().map(Token::from_text);
    // Hints lead past the relays.
    Settings { endpoints, token, follow_leader: relays.is_empty(), ..Settings::default() }
}
