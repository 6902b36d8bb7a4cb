//! What happens in a workspace.

use std::fmt;

use futures_util::Stream;
use tandem_proto::messaging::v1::{
    ReportEventsRequest, ReportedEvent, StreamEventsRequest, StreamEventsResponse,
    event_service_client::EventServiceClient,
};
use tonic::{Status, Streaming};

use crate::{Client, Error, Event, EventType, feed};

/// Which events, from where, and whether to stay.
#[derive(Debug, Clone)]
pub struct EventQuery {
    /// The first event wanted; 0 for those that happen from now on. To go on: the [`cursor`](EventStream::cursor) of an
    /// earlier stream. Default: 0.
    pub from_event: u64,
    /// Only these types. Default: none, which means all.
    pub types: Vec<EventType>,
    /// Only events about this sandbox. Default: None.
    pub sandbox_id: Option<String>,
    /// Go on with what happens from now on; otherwise the stream ends when there is nothing more. Default: true.
    pub follow: bool,
}

impl Default for EventQuery {
    fn default() -> Self {
        Self { from_event: 0, types: Vec::new(), sandbox_id: None, follow: true }
    }
}

pub(crate) async fn report(client: &Client, workspace_id: String, events: Vec<ReportedEvent>) -> Result<(), Error> {
    let request = client.request(ReportEventsRequest { workspace_id, events });
    let answer = EventServiceClient::new(client.calls()).report_events(request).await;
    answer.map(drop).map_err(|status| client.error(&status))
}

/// Events in the order in which they happened. When the broker is unavailable the stream goes on by itself from its cursor,
/// [`resume_attempts`](crate::Settings::resume_attempts) times in a row, so that nothing is missed.
pub struct EventStream {
    feed: feed::Feed<Source>,
}

impl EventStream {
    pub(crate) async fn open(client: Client, workspace_id: String, query: EventQuery) -> Result<Self, Error> {
        let from = query.from_event;
        let source = Source { client: client.clone(), workspace_id, query };
        let mut feed = feed::Feed::new(client, source, from);
        feed.begin().await?;
        Ok(Self { feed })
    }

    /// The next event; None at the end, which a stream that follows does not have. Safe to cancel.
    ///
    /// # Errors
    /// [`Error::Refused`] with `EVENT_GAP` when events from the cursor on are no longer kept, and every error that waiting
    /// did not heal. The next call tries again.
    pub async fn next(&mut self) -> Result<Option<Event>, Error> {
        self.feed.next().await
    }

    /// The event from which to go on behind what [`next`](Self::next) has returned: for a later stream, also after this
    /// program was started anew.
    pub fn cursor(&self) -> u64 {
        self.feed.cursor()
    }

    /// The events as a stream, which ends after the first error.
    pub fn into_stream(self) -> impl Stream<Item = Result<Event, Error>> + Send {
        self.feed.into_stream()
    }
}

impl fmt::Debug for EventStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventStream").field("cursor", &self.cursor()).finish_non_exhaustive()
    }
}

struct Source {
    client: Client,
    workspace_id: String,
    query: EventQuery,
}

impl feed::Source for Source {
    type Response = StreamEventsResponse;
    type Item = Event;

    const NAME: &'static str = "events";

    async fn open(&self, cursor: u64) -> Result<Streaming<Self::Response>, Status> {
        let mut service = EventServiceClient::new(self.client.channel())
            .max_decoding_message_size(self.client.settings().max_response_bytes);
        let request = StreamEventsRequest {
            workspace_id: self.workspace_id.clone(),
            from_event: cursor,
            types: self.query.types.iter().map(|&event_type| event_type.into()).collect(),
            sandbox_id: self.query.sandbox_id.clone().unwrap_or_default(),
            follow: self.query.follow,
        };
        Ok(service.stream_events(self.client.stream_request(request)).await?.into_inner())
    }

    fn unpack(response: Self::Response) -> (Vec<Event>, u64) {
        (response.events, response.next_event)
    }

    fn position(event: &Event) -> u64 {
        event.event_id
    }

    fn follows(&self) -> bool {
        self.query.follow
    }

    fn last(&self) -> u64 {
        0
    }
}
