//! Where a benchmark takes place: a workspace of its own with the sandboxes that it needs.

use std::{fs, path::Path, time::Duration};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tandem_client::Client;

use super::plan::Plan;
use crate::{clock, exit::Failure, output::Output, run::Context};

/// Sandboxes that are registered at the same time: enough that they share fsyncs.
const REGISTERING: usize = 64;

/// How long the broker may take to delete the workspace.
const REMOVING: Duration = Duration::from_secs(5);

pub(super) struct Arena {
    pub(super) workspace_id: String,
    pub(super) client: Client,
    output: Output,
}

impl Arena {
    /// With the policy of a file, where there is one.
    pub(super) async fn create(context: &Context, plan: &Plan, policy: Option<&Path>) -> Result<Self, Failure> {
        let policy = policy.map(|file| fs::read_to_string(file).map_err(|error| Failure::file(file, &error)));
        let policy = policy.transpose()?;
        let workspace_id = format!("bench-{}", clock::run_id());
        let arena = Self { workspace_id, client: context.client()?, output: context.output };
        arena.client.workspaces().create(arena.workspace_id.as_str()).await?;
        let prepared = async {
            arena.register(plan).await?;
            if let Some(policy) = policy {
                arena.client.policies(arena.workspace_id.as_str()).set(policy, None).await?;
            }
            Ok(())
        };
        match prepared.await {
            Ok(()) => Ok(arena),
            Err(failure) => {
                arena.remove().await;
                Err(failure)
            }
        }
    }

    async fn register(&self, plan: &Plan) -> Result<(), Failure> {
        let senders = (0..plan.publishers).map(sender_id);
        let loads = [Some(plan), plan.backlog.as_deref(), plan.dead_letters.as_deref()];
        let inboxes = loads.into_iter().flatten().flat_map(|load| (0..load.inboxes).map(|index| load.inbox_id(index)));
        let idle = (0..plan.idle_inboxes).map(idle_id);
        let registry = self.client.registry(self.workspace_id.as_str());
        stream::iter(senders.chain(inboxes).chain(idle))
            .map(|id| registry.register_with_agents(id, Vec::new()))
            .buffer_unordered(REGISTERING)
            .try_for_each(async |_| Ok(()))
            .await?;
        Ok(())
    }

    /// Deletes the workspace, or gives up: the measurement stands, and a broker that has stalled must not hold up its end.
    pub(super) async fn remove(&self) {
        let workspaces = self.client.workspaces();
        let deleting = workspaces.delete(self.workspace_id.as_str());
        let text = match tokio::time::timeout(REMOVING, Box::pin(deleting)).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {REMOVING:?}"),
        };
        self.output.note(&format!("workspace {} could not be deleted: {text}", self.workspace_id));
    }
}

pub(super) fn sender_id(index: usize) -> String {
    format!("publisher-{index}")
}

pub(super) fn idle_id(index: usize) -> String {
    format!("idle-{index}")
}
