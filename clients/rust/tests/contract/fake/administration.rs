//! Topics, dead letters, workspaces and the registry: notes what was asked, and says it back.

use std::sync::Mutex;

use tandem_proto::{
    messaging::v1::{
        self as proto, DeadLetter, Follow, Topic, dead_letter_service_server::DeadLetterService,
        topic_service_server::TopicService,
    },
    registry::v1::{self as registry, registry_service_server::RegistryService},
    workspace::v1::{self as workspace, Workspace, workspace_service_server::WorkspaceService},
};
use tokio_stream as streams;
use tonic::{Code, Request, Response, Status};

use super::{Answers, Service, refusal};

#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) follows: Mutex<Vec<proto::FollowTopicsRequest>>,
    pub(crate) unfollows: Mutex<Vec<proto::UnfollowTopicsRequest>>,
    pub(crate) letters: Mutex<Vec<proto::ListDeadLettersRequest>>,
    pub(crate) redrives: Mutex<Vec<proto::RedriveDeadLettersRequest>>,
    pub(crate) purges: Mutex<Vec<proto::PurgeDeadLettersRequest>>,
}

fn topic(name: String) -> Option<Topic> {
    Some(Topic { name, message_count: 3, ..Topic::default() })
}

#[tonic::async_trait]
impl TopicService for Service {
    async fn create_topic(
        &self,
        request: Request<proto::CreateTopicRequest>,
    ) -> Result<Response<proto::CreateTopicResponse>, Status> {
        let topic = topic(request.into_inner().name);
        Ok(Response::new(proto::CreateTopicResponse { topic, created: true }))
    }

    async fn get_topic(
        &self,
        request: Request<proto::GetTopicRequest>,
    ) -> Result<Response<proto::GetTopicResponse>, Status> {
        Ok(Response::new(proto::GetTopicResponse { topic: topic(request.into_inner().name) }))
    }

    /// Two pages.
    async fn list_topics(
        &self,
        request: Request<proto::ListTopicsRequest>,
    ) -> Result<Response<proto::ListTopicsResponse>, Status> {
        let (name, next) = if request.into_inner().page_token.is_empty() { ("a", "more") } else { ("b", "") };
        let topics = topic(name.to_owned()).into_iter().collect();
        Ok(Response::new(proto::ListTopicsResponse { topics, next_page_token: next.to_owned() }))
    }

    async fn delete_topic(
        &self,
        request: Request<proto::DeleteTopicRequest>,
    ) -> Result<Response<proto::DeleteTopicResponse>, Status> {
        let name = request.into_inner().name;
        Err(refusal(Code::NotFound, "UNKNOWN_TOPIC", &format!("there is no topic {name}")))
    }

    async fn follow_topics(
        &self,
        request: Request<proto::FollowTopicsRequest>,
    ) -> Result<Response<proto::FollowTopicsResponse>, Status> {
        let request = request.into_inner();
        self.0.administration.follows.lock().unwrap().push(request.clone());
        let follow = Follow { sandbox_id: request.sandbox_id, pattern: request.pattern, from_sequence: 7 };
        Ok(Response::new(proto::FollowTopicsResponse { follow: Some(follow), created: true }))
    }

    async fn unfollow_topics(
        &self,
        request: Request<proto::UnfollowTopicsRequest>,
    ) -> Result<Response<proto::UnfollowTopicsResponse>, Status> {
        self.0.administration.unfollows.lock().unwrap().push(request.into_inner());
        Ok(Response::new(proto::UnfollowTopicsResponse {}))
    }

    async fn list_follows(
        &self,
        request: Request<proto::ListFollowsRequest>,
    ) -> Result<Response<proto::ListFollowsResponse>, Status> {
        let follow =
            Follow { sandbox_id: request.into_inner().sandbox_id, pattern: "build.>".into(), from_sequence: 7 };
        Ok(Response::new(proto::ListFollowsResponse { follows: vec![follow] }))
    }
}

#[tonic::async_trait]
impl DeadLetterService for Service {
    async fn list_dead_letters(
        &self,
        request: Request<proto::ListDeadLettersRequest>,
    ) -> Result<Response<proto::ListDeadLettersResponse>, Status> {
        let request = request.into_inner();
        let letter = DeadLetter { sandbox_id: "bob".to_owned(), chain: vec![1, 2], ..DeadLetter::default() };
        let (count, next) = if request.page_token.is_empty() { (2, "more") } else { (1, "") };
        self.0.administration.letters.lock().unwrap().push(request);
        let dead_letters = vec![letter; count];
        Ok(Response::new(proto::ListDeadLettersResponse { dead_letters, next_page_token: next.to_owned() }))
    }

    async fn get_dead_letter(
        &self,
        request: Request<proto::GetDeadLetterRequest>,
    ) -> Result<Response<proto::GetDeadLetterResponse>, Status> {
        let request = request.into_inner();
        let message = proto::Message { sequence: request.sequence, ..proto::Message::default() };
        let letter = DeadLetter { sandbox_id: request.sandbox_id, message: Some(message), ..DeadLetter::default() };
        Ok(Response::new(proto::GetDeadLetterResponse { dead_letter: Some(letter) }))
    }

    type RedriveDeadLettersStream = Answers<proto::RedriveDeadLettersResponse>;

    /// Breaks off when it shall go to `nowhere`.
    async fn redrive_dead_letters(
        &self,
        request: Request<proto::RedriveDeadLettersRequest>,
    ) -> Result<Response<Self::RedriveDeadLettersStream>, Status> {
        let request = request.into_inner();
        let done = request.to_sandbox_id != "nowhere";
        self.0.administration.redrives.lock().unwrap().push(request);
        let progress = |redriven, done| Ok(proto::RedriveDeadLettersResponse { redriven, skipped: 1, done });
        Ok(Response::new(Box::pin(streams::iter([progress(10, false), progress(15, done)]))))
    }

    type PurgeDeadLettersStream = Answers<proto::PurgeDeadLettersResponse>;

    async fn purge_dead_letters(
        &self,
        request: Request<proto::PurgeDeadLettersRequest>,
    ) -> Result<Response<Self::PurgeDeadLettersStream>, Status> {
        self.0.administration.purges.lock().unwrap().push(request.into_inner());
        let progress = |purged, done| Ok(proto::PurgeDeadLettersResponse { purged, done });
        Ok(Response::new(Box::pin(streams::iter([progress(4, false), progress(9, true)]))))
    }
}

/// What this fake does not play.
fn unplayed<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("the fake does not play this"))
}

#[tonic::async_trait]
impl WorkspaceService for Service {
    async fn create_workspace(
        &self,
        request: Request<workspace::CreateWorkspaceRequest>,
    ) -> Result<Response<workspace::CreateWorkspaceResponse>, Status> {
        let workspace::CreateWorkspaceRequest { workspace_id, settings } = request.into_inner();
        let workspace = Some(Workspace { workspace_id, settings, ..Workspace::default() });
        Ok(Response::new(workspace::CreateWorkspaceResponse { workspace }))
    }

    async fn get_workspace(
        &self,
        _: Request<workspace::GetWorkspaceRequest>,
    ) -> Result<Response<workspace::GetWorkspaceResponse>, Status> {
        unplayed()
    }

    async fn list_workspaces(
        &self,
        _: Request<workspace::ListWorkspacesRequest>,
    ) -> Result<Response<workspace::ListWorkspacesResponse>, Status> {
        unplayed()
    }

    async fn update_workspace(
        &self,
        request: Request<workspace::UpdateWorkspaceRequest>,
    ) -> Result<Response<workspace::UpdateWorkspaceResponse>, Status> {
        let workspace::UpdateWorkspaceRequest { workspace_id, settings } = request.into_inner();
        let workspace = Some(Workspace { workspace_id, settings, first_sequence: 9, ..Workspace::default() });
        Ok(Response::new(workspace::UpdateWorkspaceResponse { workspace }))
    }

    async fn set_quotas(
        &self,
        _: Request<workspace::SetQuotasRequest>,
    ) -> Result<Response<workspace::SetQuotasResponse>, Status> {
        unplayed()
    }

    async fn get_quotas(
        &self,
        _: Request<workspace::GetQuotasRequest>,
    ) -> Result<Response<workspace::GetQuotasResponse>, Status> {
        unplayed()
    }

    async fn delete_workspace(
        &self,
        _: Request<workspace::DeleteWorkspaceRequest>,
    ) -> Result<Response<workspace::DeleteWorkspaceResponse>, Status> {
        unplayed()
    }
}

#[tonic::async_trait]
impl RegistryService for Service {
    async fn register_sandbox(
        &self,
        request: Request<registry::RegisterSandboxRequest>,
    ) -> Result<Response<registry::RegisterSandboxResponse>, Status> {
        let sandbox = request.into_inner().sandbox.map(|sandbox| registry::Sandbox { dead_letters: 2, ..sandbox });
        Ok(Response::new(registry::RegisterSandboxResponse { sandbox, created: true }))
    }

    async fn heartbeat(
        &self,
        _: Request<registry::HeartbeatRequest>,
    ) -> Result<Response<registry::HeartbeatResponse>, Status> {
        unplayed()
    }

    async fn get_sandbox(
        &self,
        _: Request<registry::GetSandboxRequest>,
    ) -> Result<Response<registry::GetSandboxResponse>, Status> {
        unplayed()
    }

    async fn list_sandboxes(
        &self,
        _: Request<registry::ListSandboxesRequest>,
    ) -> Result<Response<registry::ListSandboxesResponse>, Status> {
        unplayed()
    }

    async fn discover_agents(
        &self,
        _: Request<registry::DiscoverAgentsRequest>,
    ) -> Result<Response<registry::DiscoverAgentsResponse>, Status> {
        unplayed()
    }

    async fn unregister_sandbox(
        &self,
        _: Request<registry::UnregisterSandboxRequest>,
    ) -> Result<Response<registry::UnregisterSandboxResponse>, Status> {
        unplayed()
    }
}
