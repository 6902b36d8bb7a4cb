//! Reads dead letters: by recipient and sequence, with filters.

use std::ops::ControlFlow;

use bytes::Bytes;
use tandem_storage::Direction;

use super::{QueryError, StateReader};
use crate::{
    batch::{Batch, MessageRef},
    encoding::{DecodeError, Field as _},
    machine::{
        dead_letter::DeadLetter,
        keys::{self, DEAD},
    },
    message,
};

/// Dead letters that one call looks at, at the most.
const MAX_EXAMINED: usize = 50_000;
/// What a jump over the dead letters of another sandbox counts for: a seek costs more than a step.
const JUMP_COST: usize = 10;
/// Bytes that one call looks at, at the most: 50,000 dead letters may hold gigabytes.
const MAX_EXAMINED_BYTES: usize = 64 << 20;
/// Bytes of dead letters in one page, unless a single one is larger.
const MAX_PAGE_BYTES: usize = 2 << 20;

/// Which dead letters. All that is set must hold.
#[derive(Debug, Clone, Default)]
pub(crate) struct DeadFilter {
    /// The name of the recipient; empty for all.
    pub(crate) sandbox: String,
    /// As the contract numbers it; 0 for all.
    pub(crate) reason: u8,
    /// The name of the sender; empty for all.
    pub(crate) from: String,
    pub(crate) correlation_id: String,
    /// As the contract numbers it; 0 for all.
    pub(crate) message_type: u8,
    /// Dead at this time or later, in milliseconds since 1970.
    pub(crate) start_ms: Option<u64>,
    /// Dead before this time.
    pub(crate) end_ms: Option<u64>,
    /// 0 for all. Only together with `sandbox`.
    pub(crate) sequence: u64,
}

/// Where a dead letter is: the number of its recipient, and its sequence. They sort in this order.
pub(crate) type Position = (u32, u64);

/// A dead letter, and the message in it.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) position: Position,
    pub(crate) letter: DeadLetter,
    pub(crate) message: MessageRef,
}

/// A part of the dead letters.
#[derive(Debug, Default)]
pub(crate) struct DeadPage {
    pub(crate) found: Vec<Found>,
    /// Where the next page begins; none at the end.
    pub(crate) next: Option<Position>,
}

/// Where a scan goes on.
enum Step {
    /// With the next key.
    On,
    /// At another position; none for the end.
    Jump(Option<Position>),
    /// Nowhere: the page is full.
    Full,
}

struct Collector<'a> {
    filter: &'a DeadFilter,
    limit: usize,
    examined: usize,
    examined_bytes: usize,
    bytes: usize,
    page: DeadPage,
}

impl StateReader {
    /// One dead letter of the sandbox that has this number now.
    pub(crate) fn dead_letter(&self, workspace: u32, position: Position) -> Result<Option<Found>, QueryError> {
        let record = self.engine().get(DEAD, &keys::dead(workspace, position.0, position.1))?;
        Ok(record.map(|record| Found::decode(position, record)).transpose()?)
    }

    /// Up to `limit` dead letters of a workspace from a position on. A page may hold fewer, even none, and have a successor.
    ///
    /// The dead letters of a name may lie under several numbers, as a sandbox that is registered anew has a new one. All
    /// under one number have one name, so those of other sandboxes are jumped over, one seek for each.
    pub(crate) fn dead_letters(
        &self,
        workspace: u32,
        from: Position,
        filter: &DeadFilter,
        limit: usize,
    ) -> Result<DeadPage, QueryError> {
        let page = DeadPage::default();
        let mut collector = Collector { filter, limit, examined: 0, examined_bytes: 0, bytes: 0, page };
        let (_, end) = keys::of_workspace(workspace);
        let mut at = Some(from);
        while let Some((sandbox, sequence)) = at.take() {
            let mut failure = None;
            let begin = keys::dead(workspace, sandbox, sequence);
            self.engine().scan(DEAD, &begin, &end, Direction::Forward, &mut |key, value| {
                match collector.look_at(keys::dead_parts(key), value) {
                    Ok(Step::On) => return ControlFlow::Continue(()),
                    Ok(Step::Jump(to)) => at = to,
                    Ok(Step::Full) => {}
                    Err(error) => failure = Some(error),
                }
                ControlFlow::Break(())
            })?;
            if let Some(error) = failure {
                return Err(error.into());
            }
        }
        Ok(collector.page)
    }
}

impl Collector<'_> {
    fn look_at(&mut self, position: Position, value: &[u8]) -> Result<Step, DecodeError> {
        let full = self.page.found.len() >= self.limit;
        if full || self.examined >= MAX_EXAMINED || self.examined_bytes >= MAX_EXAMINED_BYTES {
            self.page.next = Some(position);
            return Ok(Step::Full);
        }
        self.examined += 1;
        self.examined_bytes += value.len();
        let (sandbox, sequence) = position;
        let wanted = self.filter.sequence;
        if sequence < wanted {
            return Ok(self.jump(Some((sandbox, wanted))));
        }
        let found = Found::decode(position, Bytes::copy_from_slice(value))?;
        let other = !self.filter.sandbox.is_empty() && self.filter.sandbox != found.letter.sandbox;
        if other || (wanted > 0 && sequence > wanted) {
            return Ok(self.jump(sandbox.checked_add(1).map(|next| (next, wanted))));
        }
        if !self.filter.matches(&found) {
            return Ok(Step::On);
        }
        if !self.page.found.is_empty() && self.bytes + value.len() > MAX_PAGE_BYTES {
            self.page.next = Some(position);
            return Ok(Step::Full);
        }
        self.bytes += value.len();
        self.page.found.push(found);
        Ok(Step::On)
    }

    fn jump(&mut self, to: Option<Position>) -> Step {
        self.examined += JUMP_COST - 1;
        Step::Jump(to)
    }
}

impl Found {
    fn decode(position: Position, record: Bytes) -> Result<Self, DecodeError> {
        let letter = DeadLetter::from_bytes(record, "dead letter")?;
        let batch = Batch::decode(position.1, letter.message.clone())?;
        if batch.len() != 1 {
            return Err(DecodeError::Short("the batch of a dead letter"));
        }
        Ok(Self { position, letter, message: MessageRef { batch: batch.into(), index: 0 } })
    }
}

impl DeadFilter {
    /// All but the sandbox and the sequence, which the scan itself looks at.
    fn matches(&self, found: &Found) -> bool {
        let (letter, record) = (&found.letter, found.message.record());
        (self.reason == 0 || self.reason == letter.reason as u8)
            && self.start_ms.is_none_or(|start_ms| letter.time_ms >= start_ms)
            && self.end_ms.is_none_or(|end_ms| letter.time_ms < end_ms)
            && (self.from.is_empty() || self.from == record.from)
            && (self.message_type == 0 || self.message_type == record.message_type)
            && (self.correlation_id.is_empty()
                || message::read(record.body).is_ok_and(|view| view.correlation_id == self.correlation_id))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::BytesMut;
    use tandem_storage::{Durability, Engine as _, MemoryEngine, WriteBatch};

    use super::*;
    use crate::{
        batch::{Kind, Record, encode_header},
        machine::dead_letter::DeadReason,
    };

    /// Sandbox "a" was registered as 1 and again as 3; "b" is 2.
    fn reader() -> StateReader {
        let engine = MemoryEngine::new(usize::from(keys::SPACES));
        let mut batch = WriteBatch::new();
        for (workspace, sandbox, name, sequence) in [
            (7, 1, "a", 5),
            (7, 1, "a", 9),
            (7, 2, "b", 5),
            (7, 2, "b", 6),
            (7, 3, "a", 5),
            (7, 3, "a", 7),
            (8, 1, "a", 5),
        ] {
            let mut message = BytesMut::new();
            encode_header(1, 1, &mut message);
            Record { kind: Kind::Direct, from: "s", to: name, message_type: 3, body: b"", ..Record::default() }
                .encode(&mut message);
            let letter = DeadLetter {
                sandbox: name.into(),
                message: message.freeze(),
                reason: DeadReason::Rejected,
                text: Bytes::new(),
                time_ms: sequence * 10,
                history: Vec::new(),
                chain: Vec::new(),
            };
            batch.put(DEAD, keys::dead(workspace, sandbox, sequence), letter.to_bytes());
        }
        engine.write(batch, Durability::Synced).unwrap();
        let reader = StateReader::default();
        reader.replace(Arc::new(engine), Arc::default(), Default::default());
        reader
    }

    /// All positions that a filter lets through, page by page.
    fn all(filter: &DeadFilter, limit: usize) -> Vec<Position> {
        let (reader, mut found, mut from) = (reader(), Vec::new(), Some((0, 0)));
        while let Some(position) = from {
            let page = reader.dead_letters(7, position, filter, limit).unwrap();
            assert!(page.found.len() <= limit && page.next.is_none_or(|next| next > position));
            found.extend(page.found.iter().map(|found| found.position));
            from = page.next;
        }
        found
    }

    #[test]
    fn filters_find_each_once_whatever_the_page_size() {
        let of = |sandbox: &str, sequence| DeadFilter { sandbox: sandbox.into(), sequence, ..DeadFilter::default() };
        for limit in [1, 2, 100] {
            assert_eq!(all(&of("", 0), limit), [(1, 5), (1, 9), (2, 5), (2, 6), (3, 5), (3, 7)]);
            assert_eq!(all(&of("a", 0), limit), [(1, 5), (1, 9), (3, 5), (3, 7)], "also under the old number");
            assert_eq!(all(&of("b", 0), limit), [(2, 5), (2, 6)]);
            assert_eq!(all(&of("a", 7), limit), [(3, 7)]);
            assert_eq!(all(&of("c", 0), limit), []);
            let times = DeadFilter { start_ms: Some(60), end_ms: Some(90), ..DeadFilter::default() };
            assert_eq!(all(&times, limit), [(2, 6), (3, 7)], "from the start on, before the end");
            let from =
                |from: &str| DeadFilter { from: from.into(), message_type: 3, reason: 2, ..DeadFilter::default() };
            assert_eq!((all(&from("s"), limit).len(), all(&from("x"), limit).len()), (6, 0));
        }
        let other = DeadFilter { reason: 1, ..DeadFilter::default() };
        assert_eq!(all(&other, 100), []);
        assert_eq!(all(&DeadFilter { message_type: 1, ..DeadFilter::default() }, 100), []);
    }
}
