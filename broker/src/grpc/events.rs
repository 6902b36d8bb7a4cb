//! Streams of events.

use futures_util::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use tandem_proto::raw::messaging::v1::{
    self as raw, Event, ReportEventsRequest, ReportEventsResponse, StreamEventsRequest, StreamEventsResponse,
    event_service_server::EventService,
};
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use super::{Edge, StreamPlace, time::timestamp};
use crate::{
    auth::Caller,
    command::{Outcome, ReportEvents, ReportedEvent, Verb},
    error::RequestError,
    field,
    machine::{self, events::EventKind},
    query::events::{EventFilter, MAX_EXAMINED},
    rejection::Rejection,
};

/// Events in one response.
const MAX_STREAMED: usize = 500;
/// So many events that do not match are passed at the most without telling the cursor: whoever waits for rare ones must not
/// be left with one so old that it cannot go on from there.
const TELL_EVERY: u64 = MAX_EXAMINED;
/// The highest number of a type.
const MAX_TYPE: i32 = *machine::events::REPORTED.end() as i32;
/// Events in one report.
const MAX_REPORTED: usize = 100;
/// Bytes of a reported text.
const MAX_TEXT_BYTES: usize = 1 << 10;
/// What an event takes beside its texts, in bytes: more than it does.
const EVENT_BYTES: usize = 32;

#[tonic::async_trait]
impl EventService for Edge {
    type StreamEventsStream = BoxStream<'static, Result<StreamEventsResponse, Status>>;

    async fn stream_events(
        &self,
        request: Request<StreamEventsRequest>,
    ) -> Result<Response<Self::StreamEventsStream>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let name = caller.workspace(&request.workspace_id)?.to_owned();
        let filter = EventFilter {
            types: types(&request.types)?,
            sandbox: field::name("sandbox_id", &request.sandbox_id)?.to_owned(),
        };
        let shard = self.shards.of(&name);
        shard.group.read_barrier().await.map_err(RequestError::from)?;
        let workspace = shard.reader.workspace(&name)?;
        let next = if request.from_event == 0 { workspace.last_event + 1 } else { request.from_event };
        let watching = Watching {
            edge: self.clone(),
            place: self.take_stream_place_of(&name)?,
            raised: shard.delivery.signals.events(),
            name,
            workspace: workspace.number,
            filter,
            next,
            told: None,
            follow: request.follow,
        };
        let pages = stream::try_unfold(Some(watching), |watching| async move {
            let Some(mut watching) = watching else { return Ok(None) };
            let page = watching.next().await?;
            Ok::<_, Status>(page.map(|(page, more)| (page, more.then_some(watching))))
        });
        Ok(Response::new(pages.boxed()))
    }

    async fn report_events(
        &self,
        request: Request<ReportEventsRequest>,
    ) -> Result<Response<ReportEventsResponse>, Status> {
        let caller = Caller::of(&request)?;
        let ReportEventsRequest { workspace_id, events } = request.into_inner();
        let workspace = caller.workspace(&workspace_id)?.to_owned();
        if !(1..=MAX_REPORTED).contains(&events.len()) {
            let text = format!("there are {} events; 1 to {MAX_REPORTED} are taken", events.len());
            return Err(Rejection::field("events", text).into());
        }
        let events = events.into_iter().enumerate().map(reported).collect::<Result<Vec<_>, Rejection>>()?;
        let bytes = events.iter().map(|event| event.sandbox.len() + event.text.len() + EVENT_BYTES).sum();
        let verb = Verb::ReportEvents(ReportEvents { workspace: workspace.clone(), events });
        match self.shards.of(&workspace).batcher.call(caller.asks(verb), bytes).await? {
            Outcome::ReportEvents(result) => result?,
            other => return Err(RequestError::internal(format!("a report came to {other:?}")).into()),
        }
        Ok(Response::new(ReportEventsResponse {}))
    }
}

fn reported((place, event): (usize, raw::ReportedEvent)) -> Result<ReportedEvent, Rejection> {
    let at = |name: &str| format!("events[{place}].{name}");
    let kind = EventKind::reported(event.r#type).ok_or_else(|| {
        let text = format!("{} is {}, which nobody reports; each must be 14 to {MAX_TYPE}", at("type"), event.r#type);
        Rejection::field(at("type"), text)
    })?;
    let sandbox = field::id(&at("sandbox_id"), &event.sandbox_id)?.to_owned();
    if event.text.len() > MAX_TEXT_BYTES {
        let text = format!("{} has {} bytes; at most {MAX_TEXT_BYTES} are taken", at("text"), event.text.len());
        return Err(Rejection::field(at("text"), text));
    }
    Ok(ReportedEvent { kind, sandbox, text: event.text.into() })
}

/// A stream of events under way.
struct Watching {
    edge: Edge,
    place: StreamPlace,
    /// Changes with every event of the shard.
    raised: watch::Receiver<u64>,
    name: String,
    /// The number of the workspace: one that is made anew under the name counts its events anew.
    workspace: u32,
    filter: EventFilter,
    next: u64,
    /// The cursor that the client knows; none before the first response.
    told: Option<u64>,
    follow: bool,
}

impl Watching {
    /// The next response, and whether more may follow. The next page is read when the client took this one.
    async fn next(&mut self) -> Result<Option<(StreamEventsResponse, bool)>, Status> {
        let _held = &self.place;
        loop {
            self.raised.mark_unchanged();
            let reader = &self.edge.shards.of(&self.name).reader;
            let workspace = reader.workspace(&self.name)?;
            if workspace.number != self.workspace {
                return Err(Rejection::unknown_workspace(&self.name).into());
            }
            let page = reader.events((&self.name, &workspace), self.next, &self.filter, MAX_STREAMED)?;
            self.next = page.next;
            let ends = !self.follow && self.next > workspace.last_event;
            let due = self.told.is_none_or(|told| self.next - told >= TELL_EVERY || (ends && self.next > told));
            if due || !page.events.is_empty() {
                self.told = Some(self.next);
                let events = page.events.into_iter().map(|(number, event)| on_wire(number, event)).collect();
                return Ok(Some((StreamEventsResponse { events, next_event: self.next }, !ends)));
            }
            if ends {
                return Ok(None);
            }
            if self.next <= workspace.last_event {
                continue;
            }
            tokio::select! {
                changed = self.raised.changed() => changed.map_err(|_| super::status::shutting_down())?,
                () = self.edge.stopped() => return Err(super::status::shutting_down()),
            }
        }
    }
}

/// A bit for each type; 0 for all.
fn types(wanted: &[i32]) -> Result<u32, Rejection> {
    wanted.iter().try_fold(0, |types, wanted| match wanted {
        1..=MAX_TYPE => Ok(types | 1 << wanted),
        _ => {
            let text = format!("types holds {wanted}, which does not exist; each must be 1 to {MAX_TYPE}");
            Err(Rejection::field("types", text))
        }
    })
}

fn on_wire(event_id: u64, event: machine::events::Event) -> Event {
    let (sequence, approval_id) = if event.kind.is_of_approval() { (0, event.sequence) } else { (event.sequence, 0) };
    Event {
        event_id,
        time: Some(timestamp(event.time_ms)),
        r#type: event.kind as i32,
        sandbox_id: event.sandbox,
        sequence,
        count: event.count,
        text: String::from_utf8_lossy(&event.text).into_owned(),
        approval_id,
    }
}
