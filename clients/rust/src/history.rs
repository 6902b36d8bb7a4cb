//! The log of a workspace.

mod stream;

use std::time::SystemTime;

use futures_util::Stream;
use tandem_proto::messaging::v1::{
    self as proto, GetMessageRequest, ListMessagesRequest, ReplayMessagesRequest,
    history_service_client::HistoryServiceClient,
};

pub use self::stream::{MessageStream, StreamQuery};
use crate::{Client, Error, Message, MessageType, again::Calls, pages, wire_time};

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
    /// Of this type.
    pub message_type: Option<MessageType>,
    /// Newest first.
    pub descending: bool,
    /// Messages asked for at a time: 1 to 1,000; 0 for the broker's choice.
    pub page_size: u16,
}

/// Which messages to stream or to replay: all fields that are set must hold. The default is all.
#[derive(Debug, Clone, Default)]
pub struct MessageFilter {
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
    /// Of this type.
    pub message_type: Option<MessageType>,
}

impl MessageFilter {
    fn to_proto(&self) -> proto::MessageFilter {
        proto::MessageFilter {
            start_time: self.start_time.map(wire_time),
            end_time: self.end_time.map(wire_time),
            sandbox_id: self.sandbox_id.clone().unwrap_or_default(),
            agent: self.agent.clone().unwrap_or_default(),
            correlation_id: self.correlation_id.clone().unwrap_or_default(),
            r#type: self.message_type.unwrap_or_default().into(),
        }
    }
}

impl History {
    pub(crate) fn new(client: Client, workspace_id: String) -> Self {
        Self { client, workspace_id }
    }

    fn service(&self) -> HistoryServiceClient<Calls> {
        HistoryServiceClient::new(self.client.calls())
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

    /// The messages that fit from a position on, and then, if asked, those that are committed meanwhile. Opens when it is
    /// first read.
    ///
    /// ```no_run
    /// # async fn follow(client: tandem_client::Client) -> Result<(), tandem_client::Error> {
    /// use tandem_client::StreamQuery;
    ///
    /// let query = StreamQuery { follow: true, ..StreamQuery::default() };
    /// let mut messages = client.history("default").stream_messages(query);
    /// while let Some(message) = messages.next().await? {
    ///     println!("{} from {}; go on at {}", message.sequence, message.from_sandbox_id, messages.cursor());
    /// }
    /// # Ok(()) }
    /// ```
    pub fn stream_messages(&self, query: StreamQuery) -> MessageStream {
        MessageStream::new(self.clone(), query)
    }

    /// Puts the messages that fit from `from_sequence` to `to_sequence`, both included, into the inbox of a sandbox once
    /// more, as first attempts under their old sequences, and returns how many. What waits there already is passed over, so
    /// a call that breaks is simply repeated.
    ///
    /// # Errors
    /// [`Error::Refused`] when workspace or sandbox is unknown, when part of the range was trimmed or when the inbox is full:
    /// what was put there before stays.
    pub async fn replay_messages(
        &self,
        sandbox_id: impl Into<String>,
        from_sequence: u64,
        to_sequence: u64,
        filter: MessageFilter,
    ) -> Result<u64, Error> {
        let mut request = ReplayMessagesRequest {
            workspace_id: self.workspace_id.clone(),
            sandbox_id: sandbox_id.into(),
            from_sequence,
            to_sequence,
            filter: Some(filter.to_proto()),
        };
        let mut replayed = 0;
        loop {
            let answer = self.service().replay_messages(self.client.request(request.clone())).await;
            let answer = answer.map_err(|status| self.client.error(&status))?.into_inner();
            replayed += answer.replayed;
            match answer.next_sequence {
                0 => return Ok(replayed),
                next if next > request.from_sequence => request.from_sequence = next,
                next => {
                    let from = request.from_sequence;
                    return Err(Error::Contract(format!("a replay from {from} goes on at {next}")));
                }
            }
        }
    }

    fn page(&self, query: &HistoryQuery, page_token: String) -> ListMessagesRequest {
        ListMessagesRequest {
            workspace_id: self.workspace_id.clone(),
            page_size: query.page_size.into(),
            page_token,
            from_sequence: query.from_sequence,
            to_sequence: query.to_sequence,
            start_time: query.start_time.map(wire_time),
            end_time: query.end_time.map(wire_time),
            sandbox_id: query.sandbox_id.clone().unwrap_or_default(),
            agent: query.agent.clone().unwrap_or_default(),
            correlation_id: query.correlation_id.clone().unwrap_or_default(),
            descending: query.descending,
            r#type: query.message_type.unwrap_or_default().into(),
        }
    }
}
