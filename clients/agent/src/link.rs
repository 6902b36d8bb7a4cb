//! The sandbox at the broker: registered, alive, with a token that holds.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use tandem_client::{Agent, Client, Error, Sandbox, Settings, Token};
use tokio::sync::watch;

use crate::{assignment::Assignment, files};

/// Between two signs of life: the broker takes a sandbox for gone after 30 s, so two may be lost.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// Before the first retry; doubled up to [`LONGEST_WAIT`].
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// Heartbeats between two tokens: a token holds for 15 minutes, and is renewed every 4.
const BEATS_UNTIL_RENEWED: u32 = 24;

/// The broker, for this sandbox. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Link {
    pub(crate) client: Client,
    sandbox: Sandbox,
    workspace_id: String,
    /// Where the token stands; None: the broker asks nobody.
    token_file: Option<PathBuf>,
    /// Whether the broker has had the sandbox.
    registered: watch::Sender<bool>,
}

impl Link {
    /// Does not wait for the broker.
    pub(crate) fn open(assignment: &Assignment, run_dir: &Path) -> Result<Self, Error> {
        let token_file = assignment.token.as_ref().map(|_| files::token(run_dir));
        let settings = Settings {
            endpoints: assignment.broker.clone(),
            token: token_file.clone().map(Token::from_file),
            // The way to the broker is the one that was named; its nodes are not reached by their own names.
            follow_leader: false,
            request_timeout: Duration::from_secs(10),
            user_agent: concat!("tandem-agent/", env!("CARGO_PKG_VERSION")).to_owned(),
            ..Settings::default()
        };
        let agents = assignment.agents.iter().cloned().map(|agent| Agent {
            name: agent.name,
            role: agent.role,
            capabilities: agent.capabilities,
        });
        let sandbox = Sandbox {
            sandbox_id: assignment.sandbox_id.clone(),
            agents: agents.collect(),
            labels: assignment.labels.clone().into_iter().collect(),
            ..Sandbox::default()
        };
        let client = Client::with_settings(settings)?;
        let registered = watch::Sender::new(false);
        Ok(Self { client, sandbox, workspace_id: assignment.workspace_id.clone(), token_file, registered })
    }

    /// Until the broker has had the sandbox: before that there is no inbox.
    pub(crate) async fn registered(&self) {
        // The sender is here: it does not end.
        drop(self.registered.subscribe().wait_for(|registered| *registered).await);
    }

    /// Registers, and says that the sandbox is alive, until told to stop. `after`: what ends before that was never there.
    pub(crate) async fn live(self, after: Duration, mut stopping: watch::Receiver<bool>) {
        let living = async {
            tokio::time::sleep(after).await;
            self.register().await;
            let mut beats = 0_u32;
            loop {
                tokio::time::sleep(HEARTBEAT).await;
                beats = beats.wrapping_add(1);
                if let Err(error) = self.registry().heartbeat(self.sandbox.sandbox_id.as_str()).await {
                    eprintln!("tandem-agent: no heartbeat: {error}");
                    if error.reason() == "UNKNOWN_SANDBOX" {
                        self.register().await;
                    }
                }
                if beats.is_multiple_of(BEATS_UNTIL_RENEWED) {
                    self.renew().await;
                }
            }
        };
        tokio::select! {
            () = living => {}
            _ = stopping.wait_for(|stopping| *stopping) => {}
        }
    }

    /// Until the broker has it.
    async fn register(&self) {
        let mut wait = FIRST_WAIT;
        loop {
            match self.registry().register(self.sandbox.clone()).await {
                Ok(_) => {
                    self.registered.send_replace(true);
                    return;
                }
                Err(error) => eprintln!("tandem-agent: not registered: {error}"),
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }

    /// Of one that cannot be renewed the control plane makes another when it starts the sandbox again.
    async fn renew(&self) {
        let Some(file) = &self.token_file else { return };
        match self.client.tokens().renew().await {
            Ok(token) => {
                if let Err(error) = files::replace(file, &token.signed) {
                    eprintln!("tandem-agent: the new token is not written: {error}");
                }
            }
            Err(error) => eprintln!("tandem-agent: the token is not renewed: {error}"),
        }
    }

    fn registry(&self) -> tandem_client::Registry {
        self.client.registry(self.workspace_id.as_str())
    }
}
