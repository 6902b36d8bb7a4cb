//! Streams history and events as scripts tell, one script for each time a stream is opened.

use std::{collections::VecDeque, sync::Mutex};

use tandem_proto::messaging::v1::{
    GetMessageRequest, GetMessageResponse, ListMessagesRequest, ListMessagesResponse, ReplayMessagesRequest,
    ReplayMessagesResponse, ReportEventsRequest, ReportEventsResponse, StreamEventsRequest, StreamEventsResponse,
    StreamMessagesRequest, StreamMessagesResponse, event_service_server::EventService,
    history_service_server::HistoryService,
};
use tokio_stream::{self as streams, StreamExt as _};
use tonic::{Request, Response, Status};

use super::{Answers, Service, unavailable};

/// What one stream says; then it ends. No script left: the stream is silent.
type Script<T> = Vec<Result<T, Status>>;

#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) messages: Mutex<VecDeque<Script<StreamMessagesResponse>>>,
    pub(crate) message_streams: Mutex<Vec<StreamMessagesRequest>>,
    pub(crate) events: Mutex<VecDeque<Script<StreamEventsResponse>>>,
    pub(crate) event_streams: Mutex<Vec<StreamEventsRequest>>,
    pub(crate) lists: Mutex<Vec<ListMessagesRequest>>,
    pub(crate) replays: Mutex<Vec<ReplayMessagesRequest>>,
}

/// A script that is empty refuses the stream.
fn play<T: Send + 'static>(scripts: &Mutex<VecDeque<Script<T>>>) -> Result<Response<Answers<T>>, Status> {
    match scripts.lock().unwrap().pop_front() {
        None => Ok(Response::new(Box::pin(streams::pending()))),
        Some(script) if script.is_empty() => Err(unavailable()),
        Some(script) => Ok(Response::new(Box::pin(streams::iter(script).fuse()))),
    }
}

#[tonic::async_trait]
impl HistoryService for Service {
    async fn get_message(&self, request: Request<GetMessageRequest>) -> Result<Response<GetMessageResponse>, Status> {
        Err(Status::not_found(request.into_inner().message_id))
    }

    async fn list_messages(
        &self,
        request: Request<ListMessagesRequest>,
    ) -> Result<Response<ListMessagesResponse>, Status> {
        self.0.feeds.lists.lock().unwrap().push(request.into_inner());
        Ok(Response::new(ListMessagesResponse::default()))
    }

    type StreamMessagesStream = Answers<StreamMessagesResponse>;

    async fn stream_messages(
        &self,
        request: Request<StreamMessagesRequest>,
    ) -> Result<Response<Self::StreamMessagesStream>, Status> {
        self.0.feeds.message_streams.lock().unwrap().push(request.into_inner());
        play(&self.0.feeds.messages)
    }

    /// Looks at ten messages with each call.
    async fn replay_messages(
        &self,
        request: Request<ReplayMessagesRequest>,
    ) -> Result<Response<ReplayMessagesResponse>, Status> {
        let request = request.into_inner();
        let next = request.from_sequence + 10;
        let replayed = next.min(request.to_sequence + 1) - request.from_sequence;
        let next_sequence = if next > request.to_sequence { 0 } else { next };
        self.0.feeds.replays.lock().unwrap().push(request);
        Ok(Response::new(ReplayMessagesResponse { replayed, next_sequence }))
    }
}

#[tonic::async_trait]
impl EventService for Service {
    type StreamEventsStream = Answers<StreamEventsResponse>;

    async fn stream_events(
        &self,
        request: Request<StreamEventsRequest>,
    ) -> Result<Response<Self::StreamEventsStream>, Status> {
        self.0.feeds.event_streams.lock().unwrap().push(request.into_inner());
        play(&self.0.feeds.events)
    }

    async fn report_events(&self, _: Request<ReportEventsRequest>) -> Result<Response<ReportEventsResponse>, Status> {
        Err(Status::unimplemented("nothing here runs sandboxes"))
    }
}
