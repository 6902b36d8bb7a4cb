//! Doing what was decided, with a sandbox that is claimed.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value, json};
use tandem_client::{Code, Error as BrokerError, Liveness, NewToken, Sandbox};

use super::{
    super::{
        mcp_servers::Reached,
        networks::Way,
        sandbox::{Document, Spec, Wanted},
    },
    OVERDUE_MS, Sandboxes,
    decide::{self, RUNNING, STARTING, STOPPED},
};
use crate::{
    clock,
    error::{Failure, Reason},
    sandbox::{Container, Doing, LogQuery, RuntimeError},
    secrets::Secret,
    store::{Resource, StoreError},
};

/// How long a sandbox has to end when it is asked to.
pub(super) const GRACE: Duration = Duration::from_secs(10);
/// How long whoever has asked for a start waits for it.
const WAIT: Duration = Duration::from_secs(25);
/// Between two looks whether a sandbox is alive; longer each time.
const FIRST_LOOK: Duration = Duration::from_millis(5);
const LONGEST_LOOK: Duration = Duration::from_millis(250);
/// How long a token holds, and for how long it can be renewed: whoever runs longer gets another at his next start.
const TOKEN_LIFETIME: Duration = Duration::from_secs(900);
const TOKEN_RENEWABLE: Duration = Duration::from_secs(30 * 86_400);
/// Lines that are told of a sandbox that could not be started.
const LAST_LINES: u32 = 5;

/// What agents in a sandbox may use.
#[derive(Default)]
struct Tools {
    providers: Vec<Value>,
    mcp_servers: Vec<Value>,
    /// Texts by the name of their file.
    secrets: BTreeMap<String, String>,
}

impl Tools {
    /// Makes a secret a file, and says where it will be.
    fn keep(&mut self, place: &str, secret: &Secret) -> String {
        // Any name becomes one of a file.
        let plain = |letter: char| letter.is_ascii_alphanumeric() || "-_/".contains(letter);
        let name: String = place.chars().map(|letter| if plain(letter) { letter } else { '_' }).collect();
        self.secrets.insert(name.clone(), secret.expose().to_owned());
        format!("/run/tandem/secrets/{name}")
    }

    fn keep_all(&mut self, place: &str, secrets: BTreeMap<String, Secret>) -> BTreeMap<String, String> {
        let kept = secrets.into_iter().map(|(name, secret)| {
            let file = self.keep(&format!("{place}/{name}"), &secret);
            (name, file)
        });
        kept.collect()
    }
}

/// What a program of a sandbox knows from its environment, wherever it is started.
pub(super) fn known(row: &Resource, broker: &[String], has_token: bool) -> Vec<(String, String)> {
    let mut known = vec![
        ("TANDEM_BROKER", broker.join(",")),
        ("TANDEM_SERVER", broker.first().cloned().unwrap_or_default()),
        ("TANDEM_WORKSPACE", row.scope.clone()),
        ("TANDEM_SANDBOX", row.name.clone()),
        ("TANDEM_AGENT_CONFIG", "/run/tandem/agent.json".to_owned()),
        ("TANDEM_SECRETS_DIR", "/run/tandem/secrets".to_owned()),
    ];
    if has_token {
        known.push(("TANDEM_TOKEN_FILE", "/run/tandem/token".to_owned()));
    }
    known.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

impl Sandboxes {
    /// The first start: what does not come up is taken away again.
    pub(super) async fn first_start(&self, row: Resource) -> Result<Resource, Failure> {
        match self.bring_up(row.clone(), true).await {
            Ok(row) => Ok(row),
            Err(why) => {
                if let Some(row) = self.0.store.get(super::KIND, &row.id).await?
                    && Document::of(&row)?.claimant == self.0.holder
                {
                    let document = Document { wanted: Wanted::Gone, ..Document::of(&row)? }.encode()?;
                    let row = Resource { document, state: decide::DELETING.to_owned(), due_ms: 0, ..row };
                    let row = self.0.store.update(&row).await?;
                    if let Err(later) = self.end(row).await {
                        tracing::warn!(code = later.code(), %later, "a sandbox that did not come up is removed later");
                    }
                }
                Err(why)
            }
        }
    }

    /// A start of one that was there before: what does not come up is failed, and says why.
    pub(super) async fn start_again(&self, row: Resource) -> Result<Resource, Failure> {
        match self.bring_up(row.clone(), true).await {
            Ok(row) => Ok(row),
            Err(why) => {
                self.fail(&row.id, &why).await?;
                Err(why)
            }
        }
    }

    pub(super) async fn fail(&self, id: &str, why: &Failure) -> Result<(), Failure> {
        let Some(row) = self.0.store.get(super::KIND, id).await? else { return Ok(()) };
        tracing::warn!(sandbox = id, code = why.code(), %why, "a sandbox does not start");
        if Document::of(&row)?.claimant != self.0.holder {
            // Somebody else goes on with it.
            return Ok(());
        }
        let document = Document {
            wanted: Wanted::Stopped,
            stopped_because: "failed".to_owned(),
            error: format!("{}: {why}", why.code()),
            ..Document::of(&row)?
        };
        self.settle(row, decide::FAILED, &document).await.map(drop)
    }

    /// The way from a sandbox to the broker.
    pub(super) async fn way(&self, row: &Resource) -> Result<Way, Failure> {
        let workspace = self.workspace(&row.scope).await?;
        self.0.networks.ensure(&row.scope, &workspace.settings.network).await
    }

    /// Makes the container, starts it, and with `wait` waits until the broker has heard of it. The row is claimed.
    pub(super) async fn bring_up(&self, row: Resource, wait: bool) -> Result<Resource, Failure> {
        let permit = self.0.starts.acquire().await.map_err(|_| Failure::internal("there are no more starts"))?;
        let way = self.way(&row).await?;
        let before = Document::of(&row)?;
        let container = self.container(&row, &before, &way);
        // Beside each other: Docker takes longest, and for none of it the container has to run.
        let (made, heard_ms, token, tools) = tokio::join!(
            self.0.runtime.create(&container),
            self.heard_ms(&row),
            self.token(&row, &before),
            self.tools(&row, &before.spec)
        );
        let (token_id, token) = token?.unzip();
        let ready = made.map_err(Failure::from).and_then(|()| Ok((heard_ms?, tools?)));
        let (heard_ms, tools) = match ready {
            Ok(ready) => ready,
            Err(why) => {
                // Nobody would know of it. Of both failures the first is told.
                self.revoke(token_id.as_deref().unwrap_or_default()).await.ok();
                return Err(why);
            }
        };
        let now_ms = clock::unix_ms();
        let document = Document {
            token_id: token_id.unwrap_or_default(),
            start_ms: now_ms,
            register_ms: 0,
            heard_ms,
            exit_code: None,
            stopped_because: String::new(),
            ..before
        };
        // Known before it starts: whoever goes on in our place finds it started.
        let row = Resource {
            state: STARTING.to_owned(),
            document: document.encode()?,
            update_ms: now_ms,
            due_ms: now_ms + OVERDUE_MS,
            ..row
        };
        let row = self.0.store.update(&row).await?;
        let assignment = assignment(&row, &document, &way, (token, tools));
        let assignment = assignment.to_string();
        match self.0.runtime.start(&row.id, assignment.as_bytes()).await {
            // Somebody has taken away what was there before: what is made now is its own.
            Err(RuntimeError::Gone(_)) => {
                self.0.runtime.create(&container).await?;
                self.0.runtime.start(&row.id, assignment.as_bytes()).await?;
            }
            started => started?,
        }
        drop(permit);
        if !wait {
            return self.settle(row, STARTING, &document).await;
        }
        self.wait_until_alive(row, document).await
    }

    async fn wait_until_alive(&self, row: Resource, document: Document) -> Result<Resource, Failure> {
        let until = clock::now() + WAIT;
        let mut pause = FIRST_LOOK;
        let mut looks = 0_u32;
        loop {
            tokio::time::sleep(pause).await;
            pause = (pause * 5 / 4).min(LONGEST_LOOK);
            looks += 1;
            if self.is_alive(&row, &document).await {
                let document = Document { register_ms: clock::unix_ms(), error: String::new(), ..document };
                return self.settle(row, RUNNING, &document).await;
            }
            // Docker is asked less often: most come up.
            if looks.is_multiple_of(8)
                && let Some(seen) = self.0.runtime.look_at(&row.id).await?
                && let Doing::Ended { exit_code, out_of_memory } = seen.doing
            {
                return Err(self.ended_at_once(&row, exit_code, out_of_memory).await);
            }
            if clock::now() > until {
                return self.settle(row, STARTING, &document).await;
            }
        }
    }

    async fn ended_at_once(&self, row: &Resource, exit_code: i64, out_of_memory: bool) -> Failure {
        use futures_util::TryStreamExt as _;
        let query = LogQuery { tail: Some(LAST_LINES), ..LogQuery::default() };
        let lines = match self.0.runtime.logs(&row.id, &query).await {
            Ok(lines) => lines.try_collect::<Vec<_>>().await.unwrap_or_default(),
            Err(_) => Vec::new(),
        };
        let said: Vec<_> = lines.iter().map(|line| line.text.chars().take(300).collect::<String>()).collect();
        let memory = if out_of_memory { ", because it had too little memory" } else { "" };
        let text = format!(
            "sandbox {:?} ended with exit code {exit_code} before it was ready{memory}; it said: {}",
            row.name,
            said.join(" | ")
        );
        Failure::new(Reason::SandboxEnded, text)
    }

    /// The providers of the workspace, and the MCP servers that the sandbox names. Their secrets become files of the sandbox.
    async fn tools(&self, row: &Resource, spec: &Spec) -> Result<Tools, Failure> {
        let mut tools = Tools::default();
        for provider in self.0.kit.providers.opened(&row.scope).await? {
            let place = format!("llm/{}", provider.name);
            let api_key_file = provider.api_key.map(|key| tools.keep(&format!("{place}/api_key"), &key));
            let headers = tools.keep_all(&format!("{place}/headers"), provider.headers);
            tools.providers.push(json!({
                "name": provider.name, "kind": provider.kind, "base_url": provider.base_url,
                "default_model": provider.default_model, "models": provider.models,
                "is_default": provider.is_default, "api_key_file": api_key_file, "header_files": headers,
            }));
        }
        for server in self.0.kit.mcp_servers.opened(&row.scope, &spec.mcp_servers).await? {
            let place = format!("mcp/{}", server.name);
            let shown = match server.reached {
                Reached::Stdio { command, args, env } => {
                    let files = tools.keep_all(&format!("{place}/env"), env);
                    json!({ "name": server.name, "transport": "stdio", "command": command, "args": args, "env_files": files })
                }
                Reached::Http { url, headers } => {
                    let files = tools.keep_all(&format!("{place}/headers"), headers);
                    json!({ "name": server.name, "transport": "http", "url": url, "header_files": files })
                }
            };
            tools.mcp_servers.push(shown);
        }
        Ok(tools)
    }

    /// Whether the broker has heard of a sandbox since its start.
    async fn is_alive(&self, row: &Resource, document: &Document) -> bool {
        match self.0.broker.registry(row.scope.as_str()).get(row.name.as_str()).await {
            Ok(sandbox) => is_fresh(&sandbox, document),
            Err(_) => false,
        }
    }

    /// When the broker has last heard of a sandbox of this name, by its own clock; 0: never.
    async fn heard_ms(&self, row: &Resource) -> Result<i64, Failure> {
        match self.0.broker.registry(row.scope.as_str()).get(row.name.as_str()).await {
            Ok(sandbox) => Ok(heartbeat_ms(&sandbox)),
            Err(BrokerError::Refused(refusal)) if refusal.code == Code::NotFound => Ok(0),
            Err(error) => Err(Failure::of_question(error)),
        }
    }

    /// A new token for a start, and the end of the one before: what was left in an old container opens nothing.
    async fn token(&self, row: &Resource, before: &Document) -> Result<Option<(String, String)>, Failure> {
        if !self.0.has_tokens {
            return Ok(None);
        }
        self.revoke(&before.token_id).await?;
        let new = NewToken {
            subject: format!("sandbox {}", row.name),
            roles: vec!["sandbox".to_owned()],
            workspace_id: Some(row.scope.clone()),
            sandbox_id: Some(row.name.clone()),
            lifetime: Some(TOKEN_LIFETIME),
            renewable_for: Some(TOKEN_RENEWABLE),
        };
        let (known, token) = self.0.broker.tokens().create(new).await?;
        Ok(Some((known.token_id, token.signed)))
    }

    async fn revoke(&self, token_id: &str) -> Result<(), Failure> {
        if token_id.is_empty() {
            return Ok(());
        }
        match self.0.broker.tokens().revoke(token_id, "", None).await {
            Ok(_) => Ok(()),
            Err(error) if error.reason() == "UNKNOWN_TOKEN" => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn container(&self, row: &Resource, document: &Document, way: &Way) -> Container {
        let resources = &document.spec.resources;
        Container {
            id: row.id.clone(),
            workspace: row.scope.clone(),
            name: row.name.clone(),
            image: document.spec.image.clone().unwrap_or_else(|| self.0.config.image.clone()),
            network: way.network.key.clone(),
            memory_bytes: resources.memory_mb << 20,
            cpus: resources.cpu_cores,
            pids: resources.pids,
            disk_bytes: resources.disk_mb << 20,
            tmp_bytes: resources.tmp_mb << 20,
            hosts: way.hosts.clone(),
        }
    }

    /// Ends a container, and says why. The row is claimed.
    pub(super) async fn bring_down(&self, row: Resource, because: &str) -> Result<Resource, Failure> {
        self.0.runtime.stop(&row.id, GRACE).await?;
        let before = Document::of(&row)?;
        // What was its token opens nothing any more.
        self.revoke(&before.token_id).await?;
        let exit_code = match self.0.runtime.look_at(&row.id).await?.map(|seen| seen.doing) {
            Some(Doing::Ended { exit_code, .. }) => Some(exit_code),
            _ => None,
        };
        let document = Document {
            wanted: Wanted::Stopped,
            token_id: String::new(),
            stop_ms: clock::unix_ms(),
            register_ms: 0,
            stopped_because: because.to_owned(),
            exit_code,
            ..before
        };
        self.settle(row, STOPPED, &document).await
    }

    /// Removes all there is of a sandbox. The row is claimed.
    pub(super) async fn end(&self, row: Resource) -> Result<(), Failure> {
        self.0.runtime.remove(&row.id, true).await?;
        self.revoke(&Document::of(&row)?.token_id).await?;
        match self.0.broker.registry(row.scope.as_str()).unregister(row.name.as_str()).await {
            Ok(_) => {}
            Err(BrokerError::Refused(refusal)) if refusal.code == Code::NotFound => {}
            Err(error) => return Err(error.into()),
        }
        match self.0.store.remove(&row).await {
            // Gone is gone, whoever has done it.
            Ok(()) | Err(StoreError::Changed) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// What was under way is done. Where somebody else was quicker it is as he has left it.
    pub(super) async fn settle(&self, row: Resource, state: &str, document: &Document) -> Result<Resource, Failure> {
        let (state, document) = (state.to_owned(), document.encode()?);
        let settled = Resource { state, document, due_ms: 0, update_ms: clock::unix_ms(), ..row.clone() };
        match self.0.store.update(&settled).await {
            Ok(settled) => Ok(settled),
            Err(StoreError::Changed) => Ok(self.0.store.get(super::KIND, &row.id).await?.unwrap_or(row)),
            Err(error) => Err(error.into()),
        }
    }
}

/// Whether the broker has heard of a sandbox since the start that a document tells of.
pub(super) fn is_fresh(sandbox: &Sandbox, document: &Document) -> bool {
    sandbox.liveness() == Liveness::Online && heartbeat_ms(sandbox) > document.heard_ms
}

fn heartbeat_ms(sandbox: &Sandbox) -> i64 {
    let time = sandbox.last_heartbeat_time.as_ref();
    time.map_or(0, |time| time.seconds.saturating_mul(1_000) + i64::from(time.nanos) / 1_000_000)
}

/// One line for the agent process of a sandbox.
fn assignment(row: &Resource, document: &Document, way: &Way, (token, tools): (Option<String>, Tools)) -> Value {
    let spec = &document.spec;
    let agents: Vec<_> = spec
        .agents()
        .map(|agent| json!({ "name": agent.name, "role": agent.role, "capabilities": agent.capabilities }))
        .collect();
    let work = match (&spec.handler, spec.command.as_slice()) {
        (Some(handler), _) => json!({ "handler": handler }),
        (None, []) => json!("idle"),
        (None, command) => json!({ "command": command }),
    };
    let mut labels = spec.labels.clone();
    labels.insert("aintandem.sandbox".to_owned(), row.id.clone());
    let agent_config = json!({
        "agents": spec.agent_config,
        "llm_providers": tools.providers,
        "mcp_servers": tools.mcp_servers,
    });
    json!({
        "broker": way.broker,
        "workspace_id": row.scope,
        "sandbox_id": row.name,
        "token": token,
        "labels": labels,
        "agents": agents,
        "environment": spec.environment,
        "secrets": tools.secrets,
        "agent_config": agent_config,
        "work": work,
    })
}
