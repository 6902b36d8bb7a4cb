//! Reads the log of a workspace: by sequence, by time, with filters, in either direction.

use std::ops::ControlFlow;

use bytes::Bytes;
use tandem_storage::Direction;

use super::{QueryError, StateReader};
use crate::{
    batch::{Batch, Kind, MessageRef},
    machine::{
        keys::{self, MESSAGES},
        workspace::Workspace,
    },
    message,
    rejection::{Reason, Rejection},
};

/// Messages that one call looks at, at the most: a filter that matches little must not hold a request for seconds.
const MAX_EXAMINED: usize = 50_000;
/// Bytes of messages in one answer at the most.
const MAX_ANSWER_BYTES: usize = 2 << 20;

/// Which messages.
#[derive(Debug, Clone, Default)]
pub(crate) struct Filter {
    pub(crate) sandbox: String,
    pub(crate) agent: String,
    pub(crate) correlation_id: String,
    /// As the contract numbers it; 0 for all.
    pub(crate) message_type: u64,
    /// Committed at this time or later, in milliseconds since 1970.
    pub(crate) start_ms: Option<u64>,
    /// Committed before this time.
    pub(crate) end_ms: Option<u64>,
}

/// A part of the history.
#[derive(Debug)]
pub(crate) struct Page {
    /// Encoded, and not as references: a page must not hold the batches that its messages stand in.
    pub(crate) messages: Vec<Bytes>,
    /// Where the next page begins; none at the end.
    pub(crate) next: Option<u64>,
}

/// Which part of the log: sequences with `from <= sequence <= to`; from where the history begins with a `from` of 0.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) descending: bool,
}

struct Collector<'a> {
    encode: &'a dyn Fn(&MessageRef) -> Result<Bytes, QueryError>,
    failed: Option<QueryError>,
    filter: &'a Filter,
    span: Span,
    limit: usize,
    examined: usize,
    bytes: usize,
    page: Page,
}

impl StateReader {
    /// Reads one page.
    pub(crate) fn history(
        &self,
        workspace: &Workspace,
        mut span: Span,
        filter: &Filter,
        limit: usize,
        encode: &dyn Fn(&MessageRef) -> Result<Bytes, QueryError>,
    ) -> Result<Page, QueryError> {
        span.to = span.to.min(workspace.last_sequence);
        if span.from == 0 {
            span.from = workspace.first_sequence;
        } else if span.from < workspace.first_sequence {
            return Err(gap(span.from, workspace).into());
        }
        if let Some(start_ms) = filter.start_ms {
            span.from = span.from.max(self.first_sequence_since(workspace, start_ms)?);
        }
        if let Some(end_ms) = filter.end_ms {
            span.to = span.to.min(self.first_sequence_since(workspace, end_ms)?.saturating_sub(1));
        }
        let page = Page { messages: Vec::new(), next: None };
        let mut collector = Collector { encode, failed: None, filter, span, limit, examined: 0, bytes: 0, page };
        if span.from > span.to {
            return Ok(collector.page);
        }
        // The batch that holds `from` may begin before it.
        let first = match self.batch_holding(workspace.number, span.from)? {
            Some(batch) => batch.first_sequence,
            None => span.from,
        };
        let range = (keys::message(workspace.number, first), keys::message(workspace.number, span.to + 1));
        let direction = if span.descending { Direction::Backward } else { Direction::Forward };
        let mut failure = None;
        self.engine().scan(MESSAGES, &range.0, &range.1, direction, &mut |key, value| match Batch::decode(
            keys::sequence_of(key),
            Bytes::copy_from_slice(value),
        ) {
            Ok(batch) => collector.add(batch),
            Err(error) => {
                failure = Some(error);
                ControlFlow::Break(())
            }
        })?;
        if let Some(error) = collector.failed {
            return Err(error);
        }
        failure.map_or(Ok(collector.page), |error| Err(error.into()))
    }

    /// The first sequence that was committed at this time or later; one past the newest when there is none. Times rise
    /// with sequences, so a handful of seeks finds it.
    pub(crate) fn first_sequence_since(&self, workspace: &Workspace, time_ms: u64) -> Result<u64, QueryError> {
        let (mut low, mut high) = (workspace.first_sequence, workspace.last_sequence + 1);
        while low < high {
            let middle = low + (high - low) / 2;
            match self.batch_before(workspace.number, middle)? {
                Some((first, committed_ms, length)) if committed_ms < time_ms => {
                    low = (middle + 1).max(first + length).min(high)
                }
                Some((first, ..)) => high = first,
                None => low = middle + 1,
            }
        }
        Ok(low)
    }

    /// First sequence, time and length of the batch that begins at or before a sequence.
    fn batch_before(&self, workspace: u32, sequence: u64) -> Result<Option<(u64, u64, u64)>, QueryError> {
        let (from, to) = (keys::message(workspace, 0), keys::message(workspace, sequence + 1));
        let mut found = None;
        self.engine().scan(MESSAGES, &from, &to, Direction::Backward, &mut |key, value| {
            found = Some((keys::sequence_of(key), Batch::read_header(value)));
            ControlFlow::Break(())
        })?;
        match found {
            Some((first, header)) => {
                let (time_ms, count) = header?;
                Ok(Some((first, time_ms, u64::from(count))))
            }
            None => Ok(None),
        }
    }

    /// One message by its sequence.
    ///
    /// Of the history only, whatever inboxes still wait for.
    pub(crate) fn message_in_history(
        &self,
        workspace: &Workspace,
        sequence: u64,
    ) -> Result<Option<MessageRef>, QueryError> {
        if (1..workspace.first_sequence).contains(&sequence) {
            let text = format!("message {sequence} was trimmed; the history begins with {}", workspace.first_sequence);
            return Err(Rejection::new(Reason::HistoryGap, text).into());
        }
        let Some(batch) = self.batch_holding(workspace.number, sequence)? else { return Ok(None) };
        let index = (sequence - batch.first_sequence) as usize;
        let present = batch.record(index).kind != Kind::Void;
        Ok(present.then(|| MessageRef { batch: batch.into(), index: index as u16 }))
    }
}

/// What was asked for was trimmed.
fn gap(from: u64, workspace: &Workspace) -> Rejection {
    let text = format!(
        "messages {from} to {} were trimmed; the history begins with {}",
        workspace.first_sequence - 1,
        workspace.first_sequence
    );
    Rejection::new(Reason::HistoryGap, text)
}

impl Collector<'_> {
    fn add(&mut self, batch: Batch) -> ControlFlow<()> {
        let batch = std::sync::Arc::new(batch);
        let mut indexes: Vec<usize> = (0..batch.len()).collect();
        if self.span.descending {
            indexes.reverse();
        }
        for index in indexes {
            let sequence = batch.sequence(index);
            if sequence < self.span.from || sequence > self.span.to || batch.record(index).kind == Kind::Void {
                continue;
            }
            let full = self.page.messages.len() >= self.limit || self.bytes >= MAX_ANSWER_BYTES;
            if full || self.examined >= MAX_EXAMINED {
                self.page.next = Some(sequence);
                return ControlFlow::Break(());
            }
            self.examined += 1;
            if self.filter.matches(batch.record(index).body) {
                self.bytes += batch.record(index).body.len();
                let message = MessageRef { batch: std::sync::Arc::clone(&batch), index: index as u16 };
                match (self.encode)(&message) {
                    Ok(encoded) => self.page.messages.push(encoded),
                    Err(error) => {
                        self.failed = Some(error);
                        return ControlFlow::Break(());
                    }
                }
            }
        }
        ControlFlow::Continue(())
    }
}

impl Filter {
    fn matches(&self, body: &[u8]) -> bool {
        let any = self.sandbox.is_empty() && self.agent.is_empty() && self.correlation_id.is_empty();
        if any && self.message_type == 0 {
            return true;
        }
        let Ok(view) = message::read(body) else { return false };
        let either = |wanted: &str, from: &str, to: &str| wanted.is_empty() || wanted == from || wanted == to;
        let to = if let message::Destination::Sandbox(to) = view.to { to } else { "" };
        either(&self.sandbox, view.from_sandbox_id, to)
            && either(&self.agent, view.from_agent, view.to_agent)
            && (self.correlation_id.is_empty() || self.correlation_id == view.correlation_id)
            && (self.message_type == 0 || self.message_type == view.message_type)
    }
}
