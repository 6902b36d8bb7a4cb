//! `tandem workspace`.

use std::time::Duration;

use futures_util::TryStreamExt as _;
use serde_json::{Value, json};
use tandem_client::{Workspace, WorkspaceSettings};

use crate::{
    args::{WorkspaceArgs, WorkspaceCommand, WorkspaceSettingsArgs},
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
