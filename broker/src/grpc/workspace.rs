//! Workspaces.

use tandem_proto::workspace::v1::{
    CreateWorkspaceRequest, CreateWorkspaceResponse, DeleteWorkspaceRequest, DeleteWorkspaceResponse,
    GetWorkspaceRequest, GetWorkspaceResponse, ListWorkspacesRequest, ListWorkspacesResponse, Workspace,
    workspace_service_server::WorkspaceService,
};
use tonic::{Request, Response, Status};

use super::{Edge, time::timestamp};
use crate::{
    command::{CreateWorkspace, DeleteWorkspace, Outcome, Verb},
    error::RequestError,
    field, machine,
    shard::Shard,
};

#[tonic::async_trait]
impl WorkspaceService for Edge {
    async fn create_workspace(
        &self,
        request: Request<CreateWorkspaceRequest>,
    ) -> Result<Response<CreateWorkspaceResponse>, Status> {
        let name = request.into_inner().workspace_id;
        field::id("workspace_id", &name)?;
        let shard = self.shards.of(&name);
        let max_workspaces = self.limits.max_workspaces_per_shard;
        let verb = Verb::CreateWorkspace(CreateWorkspace { workspace: name.clone(), max_workspaces });
        match shard.batcher.call(verb, 0).await? {
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
        let name = request.into_inner().workspace_id;
        field::id("workspace_id", &name)?;
        let shard = self.shards.of(&name);
        shard.group.read_barrier().await.map_err(RequestError::from)?;
        let workspace = shard.reader.workspace(&name)?;
        Ok(Response::new(GetWorkspaceResponse { workspace: Some(on_wire(shard, name, &workspace)) }))
    }

    async fn list_workspaces(
        &self,
        request: Request<ListWorkspacesRequest>,
    ) -> Result<Response<ListWorkspacesResponse>, Status> {
        let request = request.into_inner();
        let limit = field::page_size(request.page_size)?;
        let after = if request.page_token.is_empty() { "" } else { field::id("page_token", &request.page_token)? };
        let mut workspaces = Vec::new();
        for shard in self.shards.iter() {
            shard.group.read_barrier().await.map_err(RequestError::from)?;
            let found = shard.reader.workspaces_after(after, limit + 1)?;
            workspaces.extend(found.into_iter().map(|(name, workspace)| on_wire(shard, name, &workspace)));
        }
        workspaces.sort_by(|a, b| a.workspace_id.cmp(&b.workspace_id));
        let more = workspaces.len() > limit;
        workspaces.truncate(limit);
        let last = workspaces.last().filter(|_| more);
        let next_page_token = last.map(|workspace| workspace.workspace_id.clone()).unwrap_or_default();
        Ok(Response::new(ListWorkspacesResponse { workspaces, next_page_token }))
    }

    async fn delete_workspace(
        &self,
        request: Request<DeleteWorkspaceRequest>,
    ) -> Result<Response<DeleteWorkspaceResponse>, Status> {
        let name = request.into_inner().workspace_id;
        field::id("workspace_id", &name)?;
        let verb = Verb::DeleteWorkspace(DeleteWorkspace { workspace: name.clone() });
        match self.shards.of(&name).batcher.call(verb, 0).await? {
            Outcome::DeleteWorkspace(result) => result?,
            other => return Err(RequestError::internal(format!("a deletion came to {other:?}")).into()),
        }
        Ok(Response::new(DeleteWorkspaceResponse {}))
    }
}

fn on_wire(shard: &Shard, workspace_id: String, workspace: &machine::workspace::Workspace) -> Workspace {
    Workspace {
        workspace_id,
        create_time: Some(timestamp(workspace.create_time_ms)),
        last_sequence: workspace.last_sequence,
        sandbox_count: workspace.sandboxes,
        shard_id: shard.group.shard(),
    }
}
