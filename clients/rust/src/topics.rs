//! Topics, and who follows them.

use std::time::SystemTime;

use futures_util::Stream;
use tandem_proto::messaging::v1::{
    CreateTopicRequest, DeleteTopicRequest, FollowTopicsRequest, GetTopicRequest, ListFollowsRequest,
    ListTopicsRequest, UnfollowTopicsRequest, follow_topics_request::Start, topic_service_client::TopicServiceClient,
};

use crate::{Client, Error, Follow, Topic, again::Calls, pages, wire_time};

/// The topics of one workspace. Cheap to clone.
///
/// A name has up to 16 parts of `A-Z a-z 0-9 _ -`, divided by dots, and up to 128 bytes. A pattern may have `*` for one part,
/// and `>` at its end for one or more.
#[derive(Debug, Clone)]
pub struct Topics {
    client: Client,
    workspace_id: String,
}

/// Where following begins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum FollowFrom {
    /// With the next message.
    #[default]
    Next,
    /// With this sequence of the workspace's log.
    Sequence(u64),
    /// With the first message that was committed at this time or later.
    Time(SystemTime),
}

impl Topics {
    pub(crate) fn new(client: Client, workspace_id: String) -> Self {
        Self { client, workspace_id }
    }

    fn service(&self) -> TopicServiceClient<Calls> {
        TopicServiceClient::new(self.client.calls())
            .max_decoding_message_size(self.client.settings().max_response_bytes)
    }

    /// Creates a topic. Creating it again changes nothing. Returns it with whether it is new.
    ///
    /// # Errors
    /// [`Error::Refused`] when the workspace is unknown or the name is none.
    pub async fn create(&self, name: impl Into<String>) -> Result<(Topic, bool), Error> {
        let request = CreateTopicRequest { workspace_id: self.workspace_id.clone(), name: name.into() };
        let answer = self.service().create_topic(self.client.request(request)).await;
        let answer = answer.map_err(|status| self.client.error(&status))?.into_inner();
        Ok((required(answer.topic)?, answer.created))
    }

    /// Returns one topic.
    ///
    /// # Errors
    /// [`Error::Refused`] with `NOT_FOUND` when there is none with this name.
    pub async fn get(&self, name: impl Into<String>) -> Result<Topic, Error> {
        let request = GetTopicRequest { workspace_id: self.workspace_id.clone(), name: name.into() };
        let answer = self.service().get_topic(self.client.request(request)).await;
        required(answer.map_err(|status| self.client.error(&status))?.into_inner().topic)
    }

    /// All topics by name, page by page as the stream is read.
    pub fn list(&self) -> impl Stream<Item = Result<Topic, Error>> + Send + use<> {
        let topics = self.clone();
        pages::items(move |page_token| {
            let topics = topics.clone();
            async move {
                let request =
                    ListTopicsRequest { workspace_id: topics.workspace_id.clone(), page_size: 1000, page_token };
                let answer = topics.service().list_topics(topics.client.request(request)).await;
                let answer = answer.map_err(|status| topics.client.error(&status))?.into_inner();
                Ok((answer.topics, answer.next_page_token))
            }
        })
    }

    /// Deletes a topic with what waits in it for its followers. The messages stay in the history.
    ///
    /// # Errors
    /// [`Error::Refused`] with `NOT_FOUND` when there is none with this name.
    pub async fn delete(&self, name: impl Into<String>) -> Result<(), Error> {
        let request = DeleteTopicRequest { workspace_id: self.workspace_id.clone(), name: name.into() };
        let answer = self.service().delete_topic(self.client.request(request)).await;
        answer.map(|_| ()).map_err(|status| self.client.error(&status))
    }

    /// Lets a sandbox receive what is published to the topics that match, now and later; they need not exist yet. Returns
    /// the follow with whether it is new: following a pattern again changes nothing, not where it began either.
    ///
    /// # Errors
    /// [`Error::Refused`] when workspace or sandbox is unknown or the pattern is none.
    pub async fn follow(
        &self,
        sandbox_id: impl Into<String>,
        pattern: impl Into<String>,
        from: FollowFrom,
    ) -> Result<(Follow, bool), Error> {
        let start = match from {
            FollowFrom::Next => None,
            FollowFrom::Sequence(sequence) => Some(Start::FromSequence(sequence)),
            FollowFrom::Time(time) => Some(Start::FromTime(wire_time(time))),
        };
        let request = FollowTopicsRequest {
            workspace_id: self.workspace_id.clone(),
            sandbox_id: sandbox_id.into(),
            pattern: pattern.into(),
            start,
        };
        let answer = self.service().follow_topics(self.client.request(request)).await;
        let answer = answer.map_err(|status| self.client.error(&status))?.into_inner();
        let follow = answer.follow;
        let follow = follow.ok_or_else(|| Error::Contract("an answer about a follow holds no follow".to_owned()))?;
        Ok((follow, answer.created))
    }

    /// Ends following a pattern; what waits there and no other pattern covers is given up.
    ///
    /// # Errors
    /// [`Error::Refused`] with `NOT_FOUND` when the sandbox does not follow this pattern.
    pub async fn unfollow(&self, sandbox_id: impl Into<String>, pattern: impl Into<String>) -> Result<(), Error> {
        let request = UnfollowTopicsRequest {
            workspace_id: self.workspace_id.clone(),
            sandbox_id: sandbox_id.into(),
            pattern: pattern.into(),
        };
        let answer = self.service().unfollow_topics(self.client.request(request)).await;
        answer.map(|_| ()).map_err(|status| self.client.error(&status))
    }

    /// What a sandbox follows, by pattern.
    ///
    /// # Errors
    /// [`Error::Refused`] with `NOT_FOUND` when the sandbox is not registered.
    pub async fn follows(&self, sandbox_id: impl Into<String>) -> Result<Vec<Follow>, Error> {
        let request = ListFollowsRequest { workspace_id: self.workspace_id.clone(), sandbox_id: sandbox_id.into() };
        let answer = self.service().list_follows(self.client.request(request)).await;
        Ok(answer.map_err(|status| self.client.error(&status))?.into_inner().follows)
    }
}

fn required(topic: Option<Topic>) -> Result<Topic, Error> {
    topic.ok_or_else(|| Error::Contract("an answer about a topic holds no topic".to_owned()))
}
