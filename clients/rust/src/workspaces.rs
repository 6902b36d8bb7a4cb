//! Workspaces, the tenants of the broker.

use futures_util::Stream;
use tandem_proto::workspace::v1::{
    CreateWorkspaceRequest, DeleteWorkspaceRequest, GetQuotasRequest, GetWorkspaceRequest, ListWorkspacesRequest,
    SetQuotasRequest, UpdateWorkspaceRequest, workspace_service_client::WorkspaceServiceClient,
};

use crate::{Client, Error, Quotas, Workspace, WorkspaceSettings, again::Calls, pages};

/// The workspaces of a broker. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Workspaces {
    client: Client,
}

impl Workspaces {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    fn service(&self) -> WorkspaceServiceClient<Calls> {
        WorkspaceServiceClient::new(self.client.calls())
            .max_decoding_message_size(self.client.settings().max_response_bytes)
    }

    /// Creates a workspace with all settings at their defaults.
    ///
    /// # Errors
    /// [`Error::Refused`] with `ALREADY_EXISTS` when the id is taken, `INVALID_ARGUMENT` when it is no id.
    pub async fn create(&self, workspace_id: impl Into<String>) -> Result<Workspace, Error> {
        self.create_workspace(workspace_id.into(), None).await
    }

    /// Creates a workspace with settings; what is unset in them has its default.
    ///
    /// # Errors
    /// As [`create`](Self::create); with `INVALID_ARGUMENT` also when a setting is out of bounds.
    pub async fn create_with(
        &self,
        workspace_id: impl Into<String>,
        settings: WorkspaceSettings,
    ) -> Result<Workspace, Error> {
        self.create_workspace(workspace_id.into(), Some(settings)).await
    }

    /// Replaces the settings of a workspace; what is unset in them goes back to its default. They hold for what is published
    /// from then on, retention for all.
    ///
    /// # Errors
    /// [`Error::Refused`] with `NOT_FOUND` when there is no workspace with this id, `INVALID_ARGUMENT` when a setting is out
    /// of bounds.
    pub async fn update(
        &self,
        workspace_id: impl Into<String>,
        settings: WorkspaceSettings,
    ) -> Result<Workspace, Error> {
        let request = UpdateWorkspaceRequest { workspace_id: workspace_id.into(), settings: Some(settings) };
        let answer = self.service().update_workspace(self.client.request(request)).await;
        required(answer.map_err(|status| self.client.error(&status))?.into_inner().workspace)
    }

    async fn create_workspace(
        &self,
        workspace_id: String,
        settings: Option<WorkspaceSettings>,
    ) -> Result<Workspace, Error> {
        let request = CreateWorkspaceRequest { workspace_id, settings };
        let answer = self.service().create_workspace(self.client.request(request)).await;
        required(answer.map_err(|status| self.client.error(&status))?.into_inner().workspace)
    }

    /// Returns one workspace.
    ///
    /// # Errors
    /// [`Error::Refused`] with `NOT_FOUND` when there is none with this id.
    pub async fn get(&self, workspace_id: impl Into<String>) -> Result<Workspace, Error> {
        let request = GetWorkspaceRequest { workspace_id: workspace_id.into() };
        let answer = self.service().get_workspace(self.client.request(request)).await;
        required(answer.map_err(|status| self.client.error(&status))?.into_inner().workspace)
    }

    /// All workspaces by id, page by page as the stream is read.
    pub fn list(&self) -> impl Stream<Item = Result<Workspace, Error>> + Send + use<> {
        let workspaces = self.clone();
        pages::items(move |page_token| {
            let workspaces = workspaces.clone();
            async move {
                let request = ListWorkspacesRequest { page_size: 1000, page_token };
                let answer = workspaces.service().list_workspaces(workspaces.client.request(request)).await;
                let answer = answer.map_err(|status| workspaces.client.error(&status))?.into_inner();
                Ok((answer.workspaces, answer.next_page_token))
            }
        })
    }

    /// Replaces what a workspace may take; 0 is no limit of its own.
    ///
    /// # Errors
    /// [`Error::Refused`] with `UNKNOWN_WORKSPACE`; with `OTHER_WORKSPACE` when the caller is bound to a workspace.
    pub async fn set_quotas(&self, workspace_id: impl Into<String>, quotas: Quotas) -> Result<Quotas, Error> {
        let request = SetQuotasRequest { workspace_id: workspace_id.into(), quotas: Some(quotas) };
        let answer = self.service().set_quotas(self.client.request(request)).await;
        Ok(answer.map_err(|status| self.client.error(&status))?.into_inner().quotas.unwrap_or_default())
    }

    /// What a workspace may take.
    ///
    /// # Errors
    /// [`Error::Refused`] with `UNKNOWN_WORKSPACE`.
    pub async fn quotas(&self, workspace_id: impl Into<String>) -> Result<Quotas, Error> {
        let request = GetQuotasRequest { workspace_id: workspace_id.into() };
        let answer = self.service().get_quotas(self.client.request(request)).await;
        Ok(answer.map_err(|status| self.client.error(&status))?.into_inner().quotas.unwrap_or_default())
    }

    /// Deletes a workspace with its log, sandboxes and inboxes, at once and for good.
    ///
    /// # Errors
    /// [`Error::Refused`] with `NOT_FOUND` when there is none with this id.
    pub async fn delete(&self, workspace_id: impl Into<String>) -> Result<(), Error> {
        let request = DeleteWorkspaceRequest { workspace_id: workspace_id.into() };
        let answer = self.service().delete_workspace(self.client.request(request)).await;
        answer.map(|_| ()).map_err(|status| self.client.error(&status))
    }
}

fn required(workspace: Option<Workspace>) -> Result<Workspace, Error> {
    workspace.ok_or_else(|| Error::Contract("an answer about a workspace holds no workspace".to_owned()))
}
