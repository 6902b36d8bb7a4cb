//! Topics, and who follows them.

use tandem_proto::raw::messaging::v1::{
    CreateTopicRequest, CreateTopicResponse, DeleteTopicRequest, DeleteTopicResponse, Follow, FollowTopicsRequest,
    FollowTopicsResponse, GetTopicRequest, GetTopicResponse, ListFollowsRequest, ListFollowsResponse,
    ListTopicsRequest, ListTopicsResponse, Topic, UnfollowTopicsRequest, UnfollowTopicsResponse,
    follow_topics_request::Start, topic_service_server::TopicService,
};
use tonic::{Request, Response, Status};

use super::{
    Edge,
    time::{self, timestamp},
};
use crate::{
    auth::Caller,
    command::{CreateTopic, DeleteTopic, FollowTopics, Outcome, UnfollowTopics, Verb},
    error::RequestError,
    field, machine,
    machine::workspace::Workspace,
    rejection::{Reason, Rejection},
    shard::Shard,
};

#[tonic::async_trait]
impl TopicService for Edge {
    async fn create_topic(
        &self,
        request: Request<CreateTopicRequest>,
    ) -> Result<Response<CreateTopicResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let workspace = caller.workspace(&request.workspace_id)?;
        let name = field::topic("name", &request.name)?;
        let shard = self.shards.of(workspace);
        let verb = Verb::CreateTopic(CreateTopic {
            workspace: workspace.to_owned(),
            topic: name.to_owned(),
            max_topics: self.limits.max_topics_per_workspace,
        });
        let created = match shard.batcher.call(caller.asks(verb), 0).await? {
            Outcome::CreateTopic(result) => result?.created,
            other => return Err(RequestError::internal(format!("a creation came to {other:?}")).into()),
        };
        let number = shard.reader.workspace(workspace)?.number;
        let topic = shard.reader.topic(number, name)?;
        Ok(Response::new(CreateTopicResponse { topic: Some(on_wire(name.to_owned(), &topic)), created }))
    }

    async fn get_topic(&self, request: Request<GetTopicRequest>) -> Result<Response<GetTopicResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let workspace = caller.workspace(&request.workspace_id)?;
        let name = field::topic("name", &request.name)?;
        let (shard, workspace) = read(self, workspace).await?;
        let topic = shard.reader.topic(workspace.number, name)?;
        Ok(Response::new(GetTopicResponse { topic: Some(on_wire(name.to_owned(), &topic)) }))
    }

    async fn list_topics(&self, request: Request<ListTopicsRequest>) -> Result<Response<ListTopicsResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let workspace = caller.workspace(&request.workspace_id)?;
        let limit = field::page_size(request.page_size)?;
        let after = page_token(&request.page_token)?;
        let (shard, workspace) = read(self, workspace).await?;
        let (found, more) = shard.reader.topics_after(workspace.number, after, limit)?;
        let next_page_token = found.last().filter(|_| more).map(|(name, _)| name.clone()).unwrap_or_default();
        let topics = found.into_iter().map(|(name, topic)| on_wire(name, &topic)).collect();
        Ok(Response::new(ListTopicsResponse { topics, next_page_token }))
    }

    async fn delete_topic(
        &self,
        request: Request<DeleteTopicRequest>,
    ) -> Result<Response<DeleteTopicResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let workspace = caller.workspace(&request.workspace_id)?;
        let name = field::topic("name", &request.name)?;
        let verb = Verb::DeleteTopic(DeleteTopic { workspace: workspace.to_owned(), topic: name.to_owned() });
        match self.shards.of(workspace).batcher.call(caller.asks(verb), 0).await? {
            Outcome::DeleteTopic(result) => result?,
            other => return Err(RequestError::internal(format!("a deletion came to {other:?}")).into()),
        }
        Ok(Response::new(DeleteTopicResponse {}))
    }

    async fn follow_topics(
        &self,
        request: Request<FollowTopicsRequest>,
    ) -> Result<Response<FollowTopicsResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let workspace = caller.workspace(&request.workspace_id)?;
        let sandbox = field::id("sandbox_id", &request.sandbox_id)?;
        caller.acts_as("sandbox_id", sandbox)?;
        let pattern = field::topic_pattern("pattern", &request.pattern)?;
        let from_sequence = first_sequence(self, workspace, request.start).await?;
        let verb = Verb::FollowTopics(FollowTopics {
            workspace: workspace.to_owned(),
            sandbox: sandbox.to_owned(),
            pattern: pattern.to_owned(),
            from_sequence,
            max_follows: self.limits.max_follows_per_sandbox,
        });
        let followed = match self.shards.of(workspace).batcher.call(verb, 0).await? {
            Outcome::FollowTopics(result) => result?,
            other => return Err(RequestError::internal(format!("a follow came to {other:?}")).into()),
        };
        let follow = Follow {
            sandbox_id: sandbox.to_owned(),
            pattern: pattern.to_owned(),
            from_sequence: followed.from_sequence,
        };
        Ok(Response::new(FollowTopicsResponse { follow: Some(follow), created: followed.created }))
    }

    async fn unfollow_topics(
        &self,
        request: Request<UnfollowTopicsRequest>,
    ) -> Result<Response<UnfollowTopicsResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let workspace = caller.workspace(&request.workspace_id)?;
        let sandbox = field::id("sandbox_id", &request.sandbox_id)?;
        caller.acts_as("sandbox_id", sandbox)?;
        let verb = Verb::UnfollowTopics(UnfollowTopics {
            workspace: workspace.to_owned(),
            sandbox: sandbox.to_owned(),
            pattern: field::topic_pattern("pattern", &request.pattern)?.to_owned(),
        });
        match self.shards.of(workspace).batcher.call(verb, 0).await? {
            Outcome::UnfollowTopics(result) => result?,
            other => return Err(RequestError::internal(format!("an unfollow came to {other:?}")).into()),
        }
        Ok(Response::new(UnfollowTopicsResponse {}))
    }

    async fn list_follows(
        &self,
        request: Request<ListFollowsRequest>,
    ) -> Result<Response<ListFollowsResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let workspace = caller.workspace(&request.workspace_id)?;
        let name = field::id("sandbox_id", &request.sandbox_id)?;
        let (shard, workspace) = read(self, workspace).await?;
        let sandbox = shard.reader.sandbox(workspace.number, name)?.number;
        let found = shard.reader.follows(workspace.number, sandbox)?.into_iter();
        let follow = |(pattern, from_sequence)| Follow { sandbox_id: name.to_owned(), pattern, from_sequence };
        Ok(Response::new(ListFollowsResponse { follows: found.map(follow).collect() }))
    }
}

async fn read<'a>(edge: &'a Edge, name: &str) -> Result<(&'a Shard, Workspace), RequestError> {
    let shard = edge.shards.of(name);
    shard.group.read_barrier().await?;
    let workspace = shard.reader.workspace(name)?;
    Ok((shard, workspace))
}

/// Where a follow begins; none for the next message.
async fn first_sequence(edge: &Edge, workspace: &str, start: Option<Start>) -> Result<Option<u64>, RequestError> {
    match start {
        None => Ok(None),
        Some(Start::FromSequence(0)) => {
            let text = "from_sequence is 0; sequences begin with 1, and without a start the next message is the first";
            Err(Rejection::field("from_sequence", text).into())
        }
        Some(Start::FromSequence(sequence)) => Ok(Some(sequence)),
        Some(Start::FromTime(time)) => {
            let Some(time_ms) = time::unix_ms("from_time", Some(time))? else { return Ok(None) };
            let (shard, workspace) = read(edge, workspace).await?;
            Ok(Some(shard.reader.first_sequence_since(&workspace, time_ms)?))
        }
    }
}

/// The name behind which a page begins.
fn page_token(token: &str) -> Result<&str, Rejection> {
    if token.is_empty() {
        return Ok(token);
    }
    field::topic("page_token", token).map_err(|_| {
        let text = format!("page_token {:?} is not from a listing of topics", field::shown(token));
        Rejection { reason: Reason::InvalidPageToken, text, field: "page_token".into(), retry_ms: 0 }
    })
}

fn on_wire(name: String, topic: &machine::topic::Topic) -> Topic {
    Topic {
        name,
        create_time: Some(timestamp(topic.create_time_ms)),
        message_count: topic.messages,
        last_sequence: topic.newest.0.into_iter().max().unwrap_or(0),
    }
}
