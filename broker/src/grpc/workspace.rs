//! Workspaces.

use tandem_proto::workspace::v1::{
    CreateWorkspaceRequest, CreateWorkspaceResponse, DeleteWorkspaceRequest, DeleteWorkspaceResponse, GetQuotasRequest,
    GetQuotasResponse, GetWorkspaceRequest, GetWorkspaceResponse, ListWorkspacesRequest, ListWorkspacesResponse,
    SetQuotasRequest, SetQuotasResponse, UpdateWorkspaceRequest, UpdateWorkspaceResponse, Workspace, WorkspaceSettings,
    workspace_service_server::WorkspaceService,
};
use tonic::{Request, Response, Status};

use super::{
    Edge,
    time::{duration, milliseconds, timestamp},
};
use crate::{
    auth::Caller,
    command::{CreateWorkspace, DeleteWorkspace, Outcome, UpdateWorkspace, Verb, create_workspace::Settings},
    error::RequestError,
    field, machine,
    rejection::Rejection,
    shard::Shard,
};

#[tonic::async_trait]
impl WorkspaceService for Edge {
    async fn create_workspace(
        &self,
        request: Request<CreateWorkspaceRequest>,
    ) -> Result<Response<CreateWorkspaceResponse>, Status> {
        let caller = Caller::of(&request)?;
        let CreateWorkspaceRequest { workspace_id: name, settings: wanted } = request.into_inner();
        let settings = settings(wanted)?;
        caller.workspace(&name)?;
        let shard = self.shards.of(&name);
        let max_workspaces = self.limits.max_workspaces_per_shard;
        let verb = Verb::CreateWorkspace(CreateWorkspace { workspace: name.clone(), max_workspaces, settings });
        match shard.batcher.call(caller.asks(verb), 0).await? {
            Outcome::CreateWorkspace(result) => result?,
            other => return Err(RequestError::internal(format!("a creation came to {other:?}")).into()),
        }
        let workspace = shard.reader.workspace(&name)?;
        Ok(Response::new(CreateWorkspaceResponse { workspace: Some(on_wire(shard, name, &workspace)) }))
    }

    async fn get_workspace(
        &self,
        request: Request<GetWorkspaceRequest>,
    ) -> Result<Response<GetWorkspaceResponse>, Status> {
        let caller = Caller::of(&request)?;
        let name = request.into_inner().workspace_id;
        caller.workspace(&name)?;
        let shard = self.shards.of(&name);
        shard.group.read_barrier().await.map_err(RequestError::from)?;
        let workspace = shard.reader.workspace(&name)?;
        Ok(Response::new(GetWorkspaceResponse { workspace: Some(on_wire(shard, name, &workspace)) }))
    }

    async fn list_workspaces(
        &self,
        request: Request<ListWorkspacesRequest>,
    ) -> Result<Response<ListWorkspacesResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let limit = field::page_size(request.page_size)?;
        let after = if request.page_token.is_empty() { "" } else { field::id("page_token", &request.page_token)? };
        let mut workspaces = Vec::new();
        for shard in self.shards.iter() {
            shard.group.read_barrier().await.map_err(RequestError::from)?;
            let found = match &caller.identity().workspace {
                None => shard.reader.workspaces_after(after, limit + 1)?,
                Some(own) if own.as_str() > after && self.shards.of(own).group.shard() == shard.group.shard() => {
                    shard.reader.workspace(own).map(|found| (own.clone(), found)).into_iter().collect()
                }
                Some(_) => Vec::new(),
            };
            workspaces.extend(found.into_iter().map(|(name, workspace)| on_wire(shard, name, &workspace)));
        }
        workspaces.sort_by(|a, b| a.workspace_id.cmp(&b.workspace_id));
        let more = workspaces.len() > limit;
        workspaces.truncate(limit);
        let last = workspaces.last().filter(|_| more);
        let next_page_token = last.map(|workspace| workspace.workspace_id.clone()).unwrap_or_default();
        Ok(Response::new(ListWorkspacesResponse { workspaces, next_page_token }))
    }

    async fn update_workspace(
        &self,
        request: Request<UpdateWorkspaceRequest>,
    ) -> Result<Response<UpdateWorkspaceResponse>, Status> {
        let caller = Caller::of(&request)?;
        let UpdateWorkspaceRequest { workspace_id: name, settings: wanted } = request.into_inner();
        caller.workspace(&name)?;
        if wanted.is_none() {
            let text = "settings is missing; send all settings, those at their default left unset";
            return Err(Rejection::field("settings", text).into());
        }
        let shard = self.shards.of(&name);
        let verb = Verb::UpdateWorkspace(UpdateWorkspace { workspace: name.clone(), settings: settings(wanted)? });
        match shard.batcher.call(caller.asks(verb), 0).await? {
            Outcome::UpdateWorkspace(result) => result?,
            other => return Err(RequestError::internal(format!("an update came to {other:?}")).into()),
        }
        let workspace = shard.reader.workspace(&name)?;
        Ok(Response::new(UpdateWorkspaceResponse { workspace: Some(on_wire(shard, name, &workspace)) }))
    }

    async fn set_quotas(&self, request: Request<SetQuotasRequest>) -> Result<Response<SetQuotasResponse>, Status> {
        let caller = Caller::of(&request)?;
        let SetQuotasRequest { workspace_id, quotas } = request.into_inner();
        let workspace = caller.workspace(&workspace_id)?;
        let quotas = self.set_quotas_of(&caller, workspace, quotas).await?;
        Ok(Response::new(SetQuotasResponse { quotas: Some(quotas) }))
    }

    async fn get_quotas(&self, request: Request<GetQuotasRequest>) -> Result<Response<GetQuotasResponse>, Status> {
        let caller = Caller::of(&request)?;
        let workspace_id = request.into_inner().workspace_id;
        let quotas = self.quotas_of(caller.workspace(&workspace_id)?).await?;
        Ok(Response::new(GetQuotasResponse { quotas: Some(quotas) }))
    }

    async fn delete_workspace(
        &self,
        request: Request<DeleteWorkspaceRequest>,
    ) -> Result<Response<DeleteWorkspaceResponse>, Status> {
        let caller = Caller::of(&request)?;
        let name = request.into_inner().workspace_id;
        caller.workspace(&name)?;
        let verb = Verb::DeleteWorkspace(DeleteWorkspace { workspace: name.clone() });
        match self.shards.of(&name).batcher.call(caller.asks(verb), 0).await? {
            Outcome::DeleteWorkspace(result) => result?,
            other => return Err(RequestError::internal(format!("a deletion came to {other:?}")).into()),
        }
        Ok(Response::new(DeleteWorkspaceResponse {}))
    }
}

/// What a client says of a workspace, checked.
fn settings(wanted: Option<WorkspaceSettings>) -> Result<Settings, Rejection> {
    const YEAR_MS: u64 = 366 * 24 * 3_600_000;
    const MIN_RETENTION_BYTES: u64 = 1 << 20;
    let wanted = wanted.unwrap_or_default();
    let default_ttl = milliseconds("settings.default_ttl", wanted.default_ttl, 1_000..=YEAR_MS)?;
    let retention_age = milliseconds("settings.retention_age", wanted.retention_age, 60_000..=100 * YEAR_MS)?;
    let retention_bytes = wanted.retention_bytes;
    if (1..MIN_RETENTION_BYTES).contains(&retention_bytes) {
        let text = format!(
            "retention_bytes is {retention_bytes}; it must be at least {MIN_RETENTION_BYTES}, or 0 for no limit"
        );
        return Err(Rejection::field("settings.retention_bytes", text));
    }
    let max_hops = u8::try_from(wanted.max_hops).map_err(|_| {
        let text = format!("max_hops is {}; it must be 0 to 255", wanted.max_hops);
        Rejection::field("settings.max_hops", text)
    })?;
    Ok(Settings {
        default_ttl_ms: default_ttl.unwrap_or(0),
        retention_age_ms: retention_age.unwrap_or(0),
        retention_bytes,
        max_hops,
    })
}

fn on_wire(shard: &Shard, workspace_id: String, workspace: &machine::workspace::Workspace) -> Workspace {
    Workspace {
        workspace_id,
        settings: Some(WorkspaceSettings {
            default_ttl: Some(workspace.settings.default_ttl_ms).filter(|ttl_ms| *ttl_ms > 0).map(duration),
            retention_age: Some(duration(workspace.settings.retention_age())),
            retention_bytes: workspace.settings.retention_bytes,
            max_hops: u32::from(workspace.settings.hop_limit()),
        }),
        first_sequence: workspace.first_sequence,
        stored_bytes: workspace.committed_bytes - workspace.trimmed_bytes,
        create_time: Some(timestamp(workspace.create_time_ms)),
        last_sequence: workspace.last_sequence,
        sandbox_count: workspace.sandboxes,
        shard_id: shard.group.shard(),
    }
}
