//! Who publishes, and the how manieth message each is.

use crate::{ProducerPosition, clock};

/// Under which producer a [`PublishStream`](super::PublishStream) numbers its messages. The broker accepts each number of a
/// producer once: a message that is sent again under its number, after its stream broke, gets the sequence of the first time
/// and is marked as a duplicate.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Producer {
    /// A new one with a generated id, numbered from 1.
    #[default]
    New,
    /// One whose stream broke: the first message gets this number. Send all messages from there on again, in the same
    /// order; a message that was refused keeps its number too.
    Resume(ProducerPosition),
    /// None. Then only messages with an id are safe to send again.
    Off,
}

/// Gives out numbers: one to each message, also to those that the broker will refuse.
#[derive(Debug, Clone, Default)]
pub(super) struct Numbering {
    next: Option<ProducerPosition>,
}

impl Numbering {
    /// From this position on.
    pub(super) fn starting_at(position: ProducerPosition) -> Self {
        Self { next: Some(position) }
    }

    /// The position of the first of so many messages; None without a producer.
    pub(super) fn take(&mut self, messages: u32) -> Option<ProducerPosition> {
        let position = self.next.clone();
        self.skip(messages);
        position
    }

    /// The number of the next message, taken; 0 without a producer.
    pub(super) fn take_one(&mut self) -> u64 {
        let sequence = self.next.as_ref().map_or(0, |next| next.sequence);
        self.skip(1);
        sequence
    }

    fn skip(&mut self, messages: u32) {
        if let Some(next) = &mut self.next {
            next.sequence = next.sequence.saturating_add(messages.into());
        }
    }

    pub(super) fn producer_id(&self) -> Option<&str> {
        self.next.as_ref().map(|next| next.producer_id.as_str())
    }
}

impl From<Producer> for Numbering {
    fn from(producer: Producer) -> Self {
        match producer {
            Producer::New => Self::starting_at(ProducerPosition { producer_id: clock::new_id(), sequence: 1 }),
            Producer::Resume(position) => Self::starting_at(position),
            Producer::Off => Self::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_follow_one_another() {
        let mut numbering = Numbering::starting_at(ProducerPosition { producer_id: "p".into(), sequence: 7 });
        assert_eq!(numbering.take(3).map(|position| position.sequence), Some(7));
        assert_eq!((numbering.take_one(), numbering.take_one()), (10, 11));
        assert_eq!(numbering.take(1), Some(ProducerPosition { producer_id: "p".into(), sequence: 12 }));
    }

    #[test]
    fn every_stream_is_a_producer_of_its_own_unless_told_otherwise() {
        let (one, two) = (Numbering::from(Producer::default()), Numbering::from(Producer::default()));
        assert_ne!(one.producer_id(), two.producer_id());
        let mut none = Numbering::from(Producer::Off);
        assert_eq!((none.take_one(), none.take(5), none.producer_id()), (0, None, None));
    }
}
