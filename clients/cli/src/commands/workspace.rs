//! `tandem workspace`.

use std::time::Duration;

use futures_util::TryStreamExt as _;
use serde_json::{Value, json};
use tandem_client::{Quotas, Rate, Workspace, WorkspaceSettings};

use crate::{
    args::{QuotaArgs, WorkspaceArgs, WorkspaceCommand, WorkspaceSettingsArgs},
    exit::Failure,
    output::time,
    run::Context,
};

pub(crate) async fn run(context: &Context, args: WorkspaceArgs) -> Result<(), Failure> {
    let workspaces = context.client()?.workspaces();
    let rows = match args.command {
        WorkspaceCommand::Create { id, settings } => {
            let workspace = workspaces.create_with(id, settings.over(WorkspaceSettings::default())).await?;
            return context
                .output
                .result(|| json(&workspace), || format!("workspace {} created", workspace.workspace_id));
        }
        WorkspaceCommand::Update { id, settings } => {
            let before = workspaces.get(id.as_str()).await?.settings.unwrap_or_default();
            vec![workspaces.update(id, settings.over(before)).await?]
        }
        WorkspaceCommand::Quotas { id, quotas } => {
            let before = workspaces.quotas(id.as_str()).await?;
            let after = quotas.over(before);
            let told = if after == before { before } else { workspaces.set_quotas(id, after).await? };
            return context.output.result(|| quotas_json(&told), || quotas_text(&told));
        }
        WorkspaceCommand::Delete { id } => {
            workspaces.delete(id.as_str()).await?;
            return context
                .output
                .result(|| json!({ "workspace_id": id, "deleted": true }), || format!("workspace {id} deleted"));
        }
        WorkspaceCommand::Show { id } => vec![workspaces.get(id).await?],
        WorkspaceCommand::List => workspaces.list().try_collect().await?,
    };
    let rows: Vec<_> = rows.iter().map(|workspace| (json(workspace), row(workspace))).collect();
    context.output.rows(&["WORKSPACE", "SANDBOXES", "SEQUENCES", "BYTES", "KEPT FOR", "SHARD", "CREATED"], &rows)
}

impl WorkspaceSettingsArgs {
    /// Settings with what was named changed.
    fn over(&self, before: WorkspaceSettings) -> WorkspaceSettings {
        let duration = |named: Option<Duration>, before| match named {
            Some(Duration::ZERO) => None,
            Some(named) => named.try_into().ok(),
            None => before,
        };
        WorkspaceSettings {
            default_ttl: duration(self.default_ttl, before.default_ttl),
            retention_age: duration(self.retention_age, before.retention_age),
            retention_bytes: self.retention_bytes.unwrap_or(before.retention_bytes),
            max_hops: self.max_hops.unwrap_or(before.max_hops),
        }
    }
}

impl QuotaArgs {
    /// Quotas with what was named changed.
    fn over(&self, before: Quotas) -> Quotas {
        let rate = |before: Option<Rate>, messages: Option<u64>, bytes: Option<u64>| {
            let before = before.unwrap_or_default();
            Some(Rate {
                messages_per_second: messages.unwrap_or(before.messages_per_second),
                bytes_per_second: bytes.unwrap_or(before.bytes_per_second),
            })
        };
        Quotas {
            workspace: rate(before.workspace, self.messages_per_second, self.bytes_per_second),
            sandbox: rate(before.sandbox, self.sandbox_messages_per_second, self.sandbox_bytes_per_second),
            caller: rate(before.caller, self.caller_messages_per_second, self.caller_bytes_per_second),
            max_stored_bytes: self.max_stored_bytes.unwrap_or(before.max_stored_bytes),
            max_message_bytes: self.max_message_bytes.unwrap_or(before.max_message_bytes),
            max_sandboxes: self.max_sandboxes.unwrap_or(before.max_sandboxes),
            max_streams: self.max_streams.unwrap_or(before.max_streams),
            max_connections: self.max_connections.unwrap_or(before.max_connections),
        }
    }
}

/// Each quota with its name.
fn quota_rows(quotas: &Quotas) -> [(&'static str, u64); 11] {
    let rate = |rate: Option<Rate>| rate.unwrap_or_default();
    let (workspace, sandbox, caller) = (rate(quotas.workspace), rate(quotas.sandbox), rate(quotas.caller));
    [
        ("messages_per_second", workspace.messages_per_second),
        ("bytes_per_second", workspace.bytes_per_second),
        ("sandbox_messages_per_second", sandbox.messages_per_second),
        ("sandbox_bytes_per_second", sandbox.bytes_per_second),
        ("caller_messages_per_second", caller.messages_per_second),
        ("caller_bytes_per_second", caller.bytes_per_second),
        ("max_stored_bytes", quotas.max_stored_bytes),
        ("max_message_bytes", quotas.max_message_bytes),
        ("max_sandboxes", quotas.max_sandboxes.into()),
        ("max_streams", quotas.max_streams.into()),
        ("max_connections", quotas.max_connections.into()),
    ]
}

fn quotas_json(quotas: &Quotas) -> Value {
    quota_rows(quotas).into_iter().map(|(name, value)| (name.to_owned(), json!(value))).collect()
}

fn quotas_text(quotas: &Quotas) -> String {
    let shown = |value: u64| if value == 0 { "no limit of its own".to_owned() } else { value.to_string() };
    let lines = quota_rows(quotas).map(|(name, value)| format!("{name:<28} {}", shown(value)));
    lines.join("\n")
}

/// Seconds of a setting; nothing where it is unset.
fn seconds(setting: Option<prost_types::Duration>) -> Value {
    setting
        .and_then(|setting| Duration::try_from(setting).ok())
        .map_or(Value::Null, |setting| json!(setting.as_secs_f64()))
}

fn json(workspace: &Workspace) -> Value {
    let settings = workspace.settings.unwrap_or_default();
    json!({
        "workspace_id": workspace.workspace_id, "create_time": time(workspace.create_time),
        "first_sequence": workspace.first_sequence, "last_sequence": workspace.last_sequence,
        "stored_bytes": workspace.stored_bytes, "sandbox_count": workspace.sandbox_count,
        "shard_id": workspace.shard_id, "default_ttl": seconds(settings.default_ttl),
        "retention_age": seconds(settings.retention_age), "retention_bytes": settings.retention_bytes,
        "max_hops": settings.max_hops,
    })
}

fn row(workspace: &Workspace) -> Vec<String> {
    let kept_for = workspace.settings.as_ref().and_then(|settings| settings.retention_age);
    let kept_for = kept_for.and_then(|age| Duration::try_from(age).ok());
    vec![
        workspace.workspace_id.clone(),
        workspace.sandbox_count.to_string(),
        format!("{} to {}", workspace.first_sequence, workspace.last_sequence),
        workspace.stored_bytes.to_string(),
        kept_for.map_or_else(String::new, |age| humantime::format_duration(age).to_string()),
        workspace.shard_id.to_string(),
        time(workspace.create_time),
    ]
}
