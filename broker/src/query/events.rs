//! Reads the events of a workspace.

use std::ops::ControlFlow;

use bytes::Bytes;
use tandem_storage::Direction;

use super::{QueryError, StateReader};
use crate::{
    encoding::{DecodeError, Field as _},
    field,
    machine::{
        events::{Event, MAX_EVENTS},
        keys::{self, EVENTS},
        workspace::Workspace,
    },
    rejection::{Reason, Rejection},
};

/// Events that one call looks at, at the most.
pub(crate) const MAX_EXAMINED: u64 = 10_000;
/// Bytes of events in one page at the most, give or take one event.
const MAX_PAGE_BYTES: usize = 2 << 20;

/// Which events.
#[derive(Debug, Clone, Default)]
pub(crate) struct EventFilter {
    /// A bit for each type, by its number in the contract; 0 for all.
    pub(crate) types: u32,
    /// The name of the sandbox they are about; empty for all.
    pub(crate) sandbox: String,
}

/// A part of the events.
#[derive(Debug)]
pub(crate) struct EventPage {
    /// Each with its number.
    pub(crate) events: Vec<(u64, Event)>,
    /// The first event that was not looked at.
    pub(crate) next: u64,
}

struct Collector<'a> {
    filter: &'a EventFilter,
    limit: usize,
    bytes: usize,
    from: u64,
    page: EventPage,
}

impl StateReader {
    /// Up to `limit` events from a number on, or the refusal that says which of them are not kept any more. `name` is that
    /// of the workspace, for the refusal. A number behind the newest event is an empty page.
    pub(crate) fn events(
        &self,
        (name, workspace): (&str, &Workspace),
        from: u64,
        filter: &EventFilter,
        limit: usize,
    ) -> Result<EventPage, QueryError> {
        let page = EventPage { events: Vec::new(), next: from };
        let mut collector = Collector { filter, limit, bytes: 0, from, page };
        let last = workspace.last_event;
        if from > last {
            return Ok(collector.page);
        }
        let forgotten = last.saturating_sub(MAX_EVENTS);
        if from <= forgotten {
            return Err(gap(name, from, forgotten).into());
        }
        let range = (keys::event(workspace.number, from), keys::event(workspace.number, last.saturating_add(1)));
        // Events have no holes. One can only be missing because newer ones took its place since `workspace` was read.
        let mut oldest = last.saturating_add(1);
        let mut failure = None;
        self.engine().scan(EVENTS, &range.0, &range.1, Direction::Forward, &mut |key, value| {
            let number = keys::sequence_of(key);
            oldest = oldest.min(number);
            if oldest > from {
                return ControlFlow::Break(());
            }
            collector.add(number, value).unwrap_or_else(|error| {
                failure = Some(error);
                ControlFlow::Break(())
            })
        })?;
        if let Some(error) = failure {
            return Err(error.into());
        }
        if oldest > from {
            return Err(gap(name, from, oldest - 1).into());
        }
        Ok(collector.page)
    }
}

fn gap(name: &str, from: u64, to: u64) -> Rejection {
    let text = format!(
        "events {from} to {to} of workspace {:?} are not kept any more; go on with from_event {}",
        field::shown(name),
        to + 1
    );
    Rejection { reason: Reason::EventGap, text, field: "from_event".into(), retry_ms: 0 }
}

impl Collector<'_> {
    fn add(&mut self, number: u64, value: &[u8]) -> Result<ControlFlow<()>, DecodeError> {
        let full = self.page.events.len() >= self.limit || self.bytes >= MAX_PAGE_BYTES;
        if full || number - self.from >= MAX_EXAMINED {
            return Ok(ControlFlow::Break(()));
        }
        let event = Event::from_bytes(Bytes::copy_from_slice(value), "event")?;
        self.page.next = number + 1;
        if self.filter.matches(&event) {
            self.bytes += value.len();
            self.page.events.push((number, event));
        }
        Ok(ControlFlow::Continue(()))
    }
}

impl EventFilter {
    fn matches(&self, event: &Event) -> bool {
        (self.types == 0 || self.types & (1 << event.kind as u32) != 0)
            && (self.sandbox.is_empty() || self.sandbox == event.sandbox)
    }
}
