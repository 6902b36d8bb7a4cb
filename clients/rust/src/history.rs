//! The log of a workspace.

use std::time::SystemTime;

use futures_util::Stream;
use tandem_proto::messaging::v1::{
    GetMessageRequest, ListMessagesRequest, history_service_client::HistoryServiceClient,
};
use tonic::transport::Channel;

use crate::{Client, Error, Message, pages};

/// The log of one workspace. Reading it takes nothing out of any inbox. Cheap to clone.
#[derive(Debug, Clone)]
pub struct History {
    client: Client,
    workspace_id: String,
}

/// Which messages to list: all fields that are set must hold.
#[derive(Debug, Clone, Default)]
pub struct HistoryQuery {
    /// The first sequence; 0 for the first there is.
    pub from_sequence: u64,
    /// The last sequence, included; 0 for the last there is.
    pub to_sequence: u64,
    /// Committed at this time or later.
    pub start_time: Option<SystemTime>,
    /// Committed before this time.
    pub end_time: Option<SystemTime>,
    /// Sent by this sandbox or addressed to it by name.
    pub sandbox_id: Option<String>,
    /// Sent by this agent or addressed to it by name.
    pub agent: Option<String>,
    /// Of this conversation.
    pub correlation_id: Option<String>,
    /// Newest first.
    pub descending: bool,
    /// Messages asked for at a time: 1 to 1,000; 0 for the broker's choice.
    pub page_size: u16,
}

impl History {
    pub(crate) fn new(client: Client, workspace_id: String) -> Self {
        Self { client, workspace_id }
    }

    fn service(&self) -> HistoryServiceClient<Channel> {
        HistoryServiceClient::new(self.client.channel())
            .max_decoding_message_size(self.client.settings().max_response_bytes)
    }

    /// Returns one message by its id.
    ///
    /// # Errors
    /// [`Error::Refused`] with `NOT_FOUND` when the log holds none with this id.
    pub async fn get(&self, message_id: impl Into<String>) -> Result<Message, Error> {
        let request = GetMessageRequest { workspace_id: self.workspace_id.clone(), message_id: message_id.into() };
        let answer = self.service().get_message(self.client.request(request)).await;
        let message = answer.map_err(|status| self.client.error(&status))?.into_inner().message;
        message.ok_or_else(|| Error::Contract("an answer about a message holds no message".to_owned()))
    }

    /// The messages that fit in the order of their sequences, page by page as the stream is read.
    pub fn list(&self, query: HistoryQuery) -> impl Stream<Item = Result<Message, Error>> + Send + use<> {
        let history = self.clone();
        pages::items(move |page_token| {
            let history = history.clone();
            let request = history.page(&query, page_token);
            async move {
                let answer = history.service().list_messages(history.client.request(request)).await;
                let answer = answer.map_err(|status| history.client.error(&status))?.into_inner();
                Ok((answer.messages, answer.next_page_token))
            }
        })
    }

    fn page(&self, query: &HistoryQuery, page_token: String) -> ListMessagesRequest {
        ListMessagesRequest {
            workspace_id: self.workspace_id.clone(),
            page_size: query.page_size.into(),
            page_token,
            from_sequence: query.from_sequence,
            to_sequence: query.to_sequence,
            start_time: query.start_time.map(Into::into),
            end_time: query.end_time.map(Into::into),
            sandbox_id: query.sandbox_id.clone().unwrap_or_default(),
            agent: query.agent.clone().unwrap_or_default(),
            correlation_id: query.correlation_id.clone().unwrap_or_default(),
            descending: query.descending,
        }
    }
}
