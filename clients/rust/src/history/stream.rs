//! Messages of the log, as a stream that can go on into the future.

use std::fmt;

use futures_util::Stream;
use tandem_proto::messaging::v1::{
    StreamMessagesRequest, StreamMessagesResponse, history_service_client::HistoryServiceClient,
};
use tonic::{Status, Streaming};

use super::{History, MessageFilter};
use crate::{Error, Message, feed};

/// Which messages to stream, and whether to stay.
#[derive(Debug, Clone, Default)]
pub struct StreamQuery {
    /// The first sequence; 0 for the first there is. To go on: the [`cursor`](MessageStream::cursor) of an earlier stream.
    pub from_sequence: u64,
    /// The last sequence, included; 0 for the newest. Not together with `follow`.
    pub to_sequence: u64,
    /// Only these.
    pub filter: MessageFilter,
    /// Go on with what is committed from now on. Default: false.
    pub follow: bool,
}

/// Messages in the order of their sequences. When the broker is unavailable the stream goes on by itself from its cursor,
/// [`resume_attempts`](crate::Settings::resume_attempts) times in a row.
pub struct MessageStream {
    feed: feed::Feed<Source>,
}

impl MessageStream {
    pub(super) fn new(history: History, query: StreamQuery) -> Self {
        let (client, from) = (history.client.clone(), query.from_sequence);
        Self { feed: feed::Feed::new(client, Source { history, query }, from) }
    }

    /// The next message; None at the end, which a stream that follows does not have. Safe to cancel.
    ///
    /// # Errors
    /// [`Error::Refused`] with `HISTORY_GAP` when messages from the cursor on were trimmed, and every error that waiting
    /// did not heal. The next call tries again.
    pub async fn next(&mut self) -> Result<Option<Message>, Error> {
        self.feed.next().await
    }

    /// The sequence from which to go on behind what [`next`](Self::next) has returned: for a later stream, also after this
    /// program was started anew. Moves on while a filter matches nothing.
    pub fn cursor(&self) -> u64 {
        self.feed.cursor()
    }

    /// The messages as a stream, which ends after the first error.
    pub fn into_stream(self) -> impl Stream<Item = Result<Message, Error>> + Send {
        self.feed.into_stream()
    }
}

impl fmt::Debug for MessageStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MessageStream").field("cursor", &self.cursor()).finish_non_exhaustive()
    }
}

struct Source {
    history: History,
    query: StreamQuery,
}

impl feed::Source for Source {
    type Response = StreamMessagesResponse;
    type Item = Message;

    const NAME: &'static str = "history";

    async fn open(&self, cursor: u64) -> Result<Streaming<Self::Response>, Status> {
        let request = StreamMessagesRequest {
            workspace_id: self.history.workspace_id.clone(),
            from_sequence: cursor,
            to_sequence: self.query.to_sequence,
            filter: Some(self.query.filter.to_proto()),
            follow: self.query.follow,
        };
        // Not tried again below: the feed does that.
        let client = &self.history.client;
        let mut service =
            HistoryServiceClient::new(client.channel()).max_decoding_message_size(client.settings().max_response_bytes);
        Ok(service.stream_messages(client.stream_request(request)).await?.into_inner())
    }

    fn unpack(response: Self::Response) -> (Vec<Message>, u64) {
        (response.messages, response.next_sequence)
    }

    fn position(message: &Message) -> u64 {
        message.sequence
    }

    fn follows(&self) -> bool {
        self.query.follow
    }

    fn last(&self) -> u64 {
        self.query.to_sequence
    }
}
