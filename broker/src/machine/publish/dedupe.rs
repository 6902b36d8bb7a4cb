//! Tells a message that was accepted before: by its id, or by its position in what its producer sends.

use std::collections::BTreeMap;

use crate::{
    batch::Record,
    command::publish::Exception,
    encoding::encoded,
    machine::{
        approval,
        keys::Remembered,
        state::{KnownId, State, StateError},
        workspace::Workspace,
    },
    rejection::{Reason, Rejection},
};

/// Stretches of a producer's positions whose sequences are remembered: a retry of what is still under way finds its answer.
const MAX_STRETCHES: usize = 256;

encoded! {
    /// What is known of a producer.
    #[derive(Debug, Clone, Default, PartialEq, Eq)]
    pub(crate) struct Producer {
        /// Its newest position.
        last: u64,
        /// The newest stretches of positions that lie side by side in the log: first position, then sequence, and count and time.
        stretches: Vec<((u64, u64), (u64, u64))>,
    }
}

/// What a position says of a message.
#[derive(Debug, PartialEq)]
pub(super) enum Position {
    /// It is the next one, or the message has none.
    Next,
    /// It came before, and this is how it ended.
    Known(Exception),
    /// It came before and was not accepted then, or not under this position.
    NotAccepted { next: u64 },
}

impl Producer {
    /// Decides on the message at a position.
    fn decide(&self, position: u64) -> Position {
        if position == 0 {
            let text = "the position of a producer begins with 1, not 0";
            return Position::Known(Exception::Refused(Rejection::field("producer.sequence", text)));
        }
        let next = self.last.saturating_add(1);
        if self.last == 0 || (position == next && position > self.last) {
            return Position::Next;
        }
        if position > self.last {
            let text = format!(
                "the producer is at {}, so its next message has the position {next}, not {position}; send what is missing first",
                self.last,
            );
            return Position::Known(Exception::Refused(Rejection::new(Reason::ProducerGap, text)));
        }
        if self.stretches.first().is_some_and(|((first, _), _)| position < *first) {
            // Too long ago: a duplicate whose sequence is not known.
            return Position::Known(Exception::Duplicate { sequence: 0, time_ms: 0 });
        }
        let known = self.stretches.iter().rev().find_map(|((first, sequence), (count, time_ms))| {
            let offset = position.checked_sub(*first).filter(|offset| offset < count)?;
            Some(Exception::Duplicate { sequence: sequence + offset, time_ms: *time_ms })
        });
        known.map_or(Position::NotAccepted { next }, Position::Known)
    }

    fn accept(&mut self, position: u64, sequence: u64, time_ms: u64) {
        self.last = position;
        if let Some(((first, at), (count, time))) = self.stretches.last_mut()
            && first.checked_add(*count) == Some(position)
            && *at + *count == sequence
            && *time == time_ms
        {
            *count += 1;
            return;
        }
        if self.stretches.len() >= MAX_STRETCHES {
            self.stretches.remove(0);
        }
        self.stretches.push(((position, sequence), (1, time_ms)));
    }
}

/// The producers of one publish.
#[derive(Default)]
pub(super) struct Producers(BTreeMap<u128, Producer>);

impl Producers {
    /// Decides on a message. One that will be refused for another reason has taken its position all
    /// the same, or what follows could never be sent.
    pub(super) fn decide(
        &mut self,
        state: &State,
        workspace: &Workspace,
        record: &Record<'_>,
    ) -> Result<Position, StateError> {
        let (hash, position) = record.producer;
        if hash == 0 {
            return Ok(Position::Next);
        }
        let producer = match self.0.entry(hash) {
            std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::btree_map::Entry::Vacant(entry) => {
                entry.insert(state.remembered(workspace, Remembered::Producer, hash)?.unwrap_or_default())
            }
        };
        let decided = producer.decide(position);
        if decided == Position::Next {
            producer.last = position;
        }
        Ok(decided)
    }

    pub(super) fn accept(&mut self, record: &Record<'_>, sequence: u64, time_ms: u64) {
        if let Some(producer) = self.0.get_mut(&record.producer.0) {
            producer.accept(record.producer.1, sequence, time_ms);
        }
    }

    pub(super) fn remember(self, state: &mut State, workspace: &Workspace) {
        for (hash, producer) in self.0 {
            state.remember(workspace, Remembered::Producer, hash, &producer);
        }
    }
}

/// The answer to a message whose position is taken by one that was not accepted.
pub(super) fn not_accepted(position: u64, next: u64) -> Exception {
    let text = format!(
        "the message at position {position} of the producer was refused when it came first; send it again with the position {next}"
    );
    Exception::Refused(Rejection::new(Reason::PositionRefused, text))
}

/// The answer to a message whose id is known.
pub(super) fn repeated(record: &Record<'_>, known: KnownId) -> Exception {
    if known.digest == record.digest {
        return Exception::Duplicate { sequence: known.sequence, time_ms: known.time_ms };
    }
    let known_as = match approval::in_log(known.sequence) {
        0 => "one that was held for approval".to_owned(),
        sequence => format!("with sequence {sequence}"),
    };
    let text =
        format!("message id {:?} was used for another message, {known_as}; choose a new id for new content", record.id);
    Exception::Refused(Rejection::new(Reason::MessageIdReused, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_producer_tells_new_from_repeated_and_missing() {
        let mut producer = Producer::default();
        assert_eq!(producer.decide(7), Position::Next, "a producer may begin anywhere");
        producer.accept(7, 100, 5);
        producer.accept(8, 101, 5);
        producer.accept(9, 200, 6);
        assert_eq!(producer.stretches.len(), 2);
        let duplicate = |sequence, time_ms| Position::Known(Exception::Duplicate { sequence, time_ms });
        assert_eq!([producer.decide(8), producer.decide(9)], [duplicate(101, 5), duplicate(200, 6)]);
        assert_eq!(producer.decide(3), duplicate(0, 0), "too long ago to know where");
        assert_eq!(producer.decide(10), Position::Next);
        producer.last = 10;
        assert_eq!(producer.decide(10), Position::NotAccepted { next: 11 }, "it was refused");
        for wrong in [0, 12] {
            assert!(matches!(producer.decide(wrong), Position::Known(Exception::Refused(_))), "{wrong}");
        }
    }

    #[test]
    fn a_producer_is_bounded() {
        let mut producer = Producer::default();
        (1..1_000).for_each(|position| producer.accept(position, position * 10, position));
        assert_eq!(producer.stretches.len(), MAX_STRETCHES);
        let known = Exception::Duplicate { sequence: 9_990, time_ms: 999 };
        assert_eq!(producer.decide(999), Position::Known(known));
    }

    #[test]
    fn a_producer_may_be_at_the_last_position_there_is() {
        let mut producer = Producer::default();
        assert_eq!(producer.decide(u64::MAX), Position::Next);
        producer.last = u64::MAX;
        assert_eq!(producer.decide(u64::MAX), Position::NotAccepted { next: u64::MAX });
        producer.accept(u64::MAX, 7, 1);
        assert_eq!(producer.decide(u64::MAX), Position::Known(Exception::Duplicate { sequence: 7, time_ms: 1 }));
        assert!(matches!(producer.decide(3), Position::Known(Exception::Duplicate { sequence: 0, .. })));
    }
}
