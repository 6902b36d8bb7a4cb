//! `tandem workspace`.

use futures_util::TryStreamExt as _;
use serde_json::{Value, json};
use tandem_client::Workspace;

use crate::{
    args::{WorkspaceArgs, WorkspaceCommand},
    exit::Failure,
    output::time,
    run::Context,
};

pub(crate) async fn run(context: &Context, args: WorkspaceArgs) -> Result<(), Failure> {
    let workspaces = context.client()?.workspaces();
    let rows = match args.command {
        WorkspaceCommand::Create { id } => {
            let workspace = workspaces.create(id).await?;
            return context
                .output
                .result(|| json(&workspace), || format!("workspace {} created", workspace.workspace_id));
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
    context.output.rows(&["WORKSPACE", "SANDBOXES", "LAST SEQUENCE", "SHARD", "CREATED"], &rows)
}

fn json(workspace: &Workspace) -> Value {
    json!({
        "workspace_id": workspace.workspace_id, "create_time": time(workspace.create_time),
        "last_sequence": workspace.last_sequence, "sandbox_count": workspace.sandbox_count,
        "shard_id": workspace.shard_id,
    })
}

fn row(workspace: &Workspace) -> Vec<String> {
    vec![
        workspace.workspace_id.clone(),
        workspace.sandbox_count.to_string(),
        workspace.last_sequence.to_string(),
        workspace.shard_id.to_string(),
        time(workspace.create_time),
    ]
}
