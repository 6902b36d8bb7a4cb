//! `tandem sandbox`.

use std::time::{Duration, SystemTime};

use futures_util::TryStreamExt as _;
use serde_json::{Value, json};
use tandem_client::{Agent, InboxLimits, Liveness, Registry, RetryPolicy, Sandbox};

use super::containers;
use crate::{
    args::{InboxArgs, SandboxArgs, SandboxCommand},
    exit::Failure,
    output::{Output, table, time},
    run::Context,
};

impl InboxArgs {
    /// None where nothing was named: the defaults.
    fn retry_policy(&self) -> Option<RetryPolicy> {
        let wire = |duration: Duration| duration.try_into().ok();
        let named = self.max_attempts.is_some() || self.backoff.is_some() || self.max_backoff.is_some();
        named.then(|| RetryPolicy {
            max_attempts: self.max_attempts.unwrap_or(0),
            initial_backoff: self.backoff.and_then(wire),
            max_backoff: self.max_backoff.and_then(wire),
        })
    }

    fn limits(&self) -> Option<InboxLimits> {
        let named = self.max_messages.is_some() || self.max_bytes.is_some();
        let (max_messages, max_bytes) = (self.max_messages.unwrap_or(0), self.max_bytes.unwrap_or(0));
        named.then_some(InboxLimits { max_messages, max_bytes })
    }
}

pub(crate) async fn run(context: &Context, args: SandboxArgs) -> Result<(), Failure> {
    let output = context.output;
    let registry = || Ok::<_, Failure>(context.client()?.registry(context.workspace.as_str()));
    match args.command {
        SandboxCommand::Create(args) => containers::create(context, args).await,
        SandboxCommand::Ls => containers::list(context).await,
        SandboxCommand::Start { name } => containers::turn(context, &name, "start").await,
        SandboxCommand::Stop { name } => containers::turn(context, &name, "stop").await,
        SandboxCommand::Restart { name } => containers::turn(context, &name, "restart").await,
        SandboxCommand::Logs(args) => containers::logs(context, args).await,
        SandboxCommand::Stats { name } => containers::stats(context, &name).await,
        SandboxCommand::Exec(args) => containers::exec(context, args).await,
        SandboxCommand::Rm { name } => containers::remove(context, &name).await,
        SandboxCommand::Register { id, agents, labels, inbox } => {
            let sandbox = Sandbox {
                sandbox_id: id,
                agents: agents.into_iter().map(|spec| spec.0).collect(),
                labels: labels.into_iter().map(|label| (label.key, label.value)).collect(),
                retry_policy: inbox.retry_policy(),
                inbox_limits: inbox.limits(),
                ..Sandbox::default()
            };
            register(output, &registry()?, sandbox).await
        }
        SandboxCommand::List => {
            let sandboxes: Vec<Sandbox> = registry()?.list().try_collect().await?;
            let rows: Vec<_> = sandboxes.iter().map(|sandbox| (json(sandbox), row(sandbox))).collect();
            output.rows(&["SANDBOX", "LIVENESS", "PENDING", "LAST HEARTBEAT", "AGENTS"], &rows)
        }
        SandboxCommand::Show { id } => {
            let sandbox = registry()?.get(id).await?;
            output.result(|| json(&sandbox), || text(&sandbox))
        }
        SandboxCommand::Unregister { id } => {
            let abandoned = registry()?.unregister(id.as_str()).await?;
            output.result(
                || json!({ "sandbox_id": id, "unregistered": true, "abandoned_messages": abandoned }),
                || match abandoned {
                    0 => format!("sandbox {id} unregistered"),
                    n => format!("sandbox {id} unregistered; {n} messages that waited in its inbox are given up"),
                },
            )
        }
        SandboxCommand::Heartbeat { id } => heartbeat(output, &registry()?, &id).await,
    }
}

async fn register(output: Output, registry: &Registry, sandbox: Sandbox) -> Result<(), Failure> {
    let (sandbox, created) = registry.register(sandbox).await?;
    output.result(
        || {
            let mut value = json(&sandbox);
            value["created"] = created.into();
            value
        },
        || format!("sandbox {} {}", sandbox.sandbox_id, if created { "registered" } else { "updated" }),
    )
}

async fn heartbeat(output: Output, registry: &Registry, id: &str) -> Result<(), Failure> {
    let at: SystemTime = registry.heartbeat(id).await?;
    let at = humantime::format_rfc3339_millis(at).to_string();
    output.result(|| json!({ "sandbox_id": id, "server_time": at }), || format!("sandbox {id} is alive at {at}"))
}

/// `online`, `offline` or `unspecified`.
pub(super) fn liveness_name(liveness: Liveness) -> &'static str {
    match liveness {
        Liveness::Unspecified => "unspecified",
        Liveness::Online => "online",
        Liveness::Offline => "offline",
    }
}

pub(super) fn agent_json(agent: &Agent) -> Value {
    json!({ "name": agent.name, "role": agent.role, "capabilities": agent.capabilities })
}

fn json(sandbox: &Sandbox) -> Value {
    json!({
        "sandbox_id": sandbox.sandbox_id, "workspace_id": sandbox.workspace_id,
        "agents": sandbox.agents.iter().map(agent_json).collect::<Vec<_>>(), "labels": sandbox.labels,
        "create_time": time(sandbox.create_time), "last_heartbeat_time": time(sandbox.last_heartbeat_time),
        "liveness": liveness_name(sandbox.liveness()), "pending_messages": sandbox.pending_messages,
        "deferred_messages": sandbox.deferred_messages, "pending_bytes": sandbox.pending_bytes,
        "dead_letters": sandbox.dead_letters,
    })
}

fn row(sandbox: &Sandbox) -> Vec<String> {
    let agents: Vec<_> = sandbox.agents.iter().map(|agent| agent.name.as_str()).collect();
    vec![
        sandbox.sandbox_id.clone(),
        liveness_name(sandbox.liveness()).to_owned(),
        sandbox.pending_messages.to_string(),
        time(sandbox.last_heartbeat_time),
        agents.join(", "),
    ]
}

fn text(sandbox: &Sandbox) -> String {
    let mut labels: Vec<_> = sandbox.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    labels.sort();
    let facts = [
        ("sandbox", sandbox.sandbox_id.clone()),
        ("workspace", sandbox.workspace_id.clone()),
        ("liveness", liveness_name(sandbox.liveness()).to_owned()),
        ("pending", sandbox.pending_messages.to_string()),
        ("deferred", sandbox.deferred_messages.to_string()),
        ("bytes", sandbox.pending_bytes.to_string()),
        ("dead", sandbox.dead_letters.to_string()),
        ("created", time(sandbox.create_time)),
        ("heartbeat", time(sandbox.last_heartbeat_time)),
        ("labels", labels.join(", ")),
    ];
    let mut lines: Vec<_> =
        facts.iter().filter(|(_, fact)| !fact.is_empty()).map(|(name, fact)| format!("{name:<11}{fact}")).collect();
    if !sandbox.agents.is_empty() {
        let agents = sandbox
            .agents
            .iter()
            .map(|agent| vec![agent.name.clone(), agent.role.clone(), agent.capabilities.join(", ")]);
        lines.push(String::new());
        lines.push(table(&["AGENT", "ROLE", "CAPABILITIES"], agents));
    }
    lines.join("\n")
}
