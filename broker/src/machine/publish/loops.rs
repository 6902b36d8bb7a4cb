//! Conversations that go round in circles: a message over the limit becomes a dead letter, or is refused where it cannot.

use super::{Origin, Routes, route::Routed};
use crate::{
    batch::{Batch, MessageRef, Record},
    command::publish::Exception,
    machine::{
        dead_letter::{self, DeadReason, Death},
        events::{self, EventKind},
        park::Place,
        state::{State, StateError},
    },
    rejection::{Reason, Rejection},
};

impl Routes {
    /// Whether a message is over the limit. What the broker says itself never is.
    pub(super) fn is_too_often(&self, hops: u8) -> bool {
        hops > self.workspace.settings.hop_limit() && self.origin != Origin::Broker
    }

    /// Whether the recipient may have one more dead letter. They are bounded, however often somebody talks in circles.
    pub(super) fn may_bury(
        &self,
        state: &mut State,
        sandbox: u32,
        record: &Record<'_>,
        sequence: u64,
    ) -> Result<bool, StateError> {
        let place = Place { workspace: self.workspace.number, sandbox, priority: record.priority, sequence };
        dead_letter::has_room(state, place)
    }

    /// A message over the limit that cannot be a dead letter: its sender hears of it, and whoever watches.
    pub(super) fn refuse_loop(&self, state: &mut State, about: &str, sequence: u64, hops: u8) -> Routed {
        let limit = self.workspace.settings.hop_limit();
        let text =
            format!("the conversation went to and fro {hops} times, more than the {limit} that the workspace allows");
        events::raise(state, self.workspace.number, EventKind::Looped, about, (sequence, 1), text.clone())?;
        Ok(Err(Exception::Refused(Rejection::new(Reason::TooManyHops, text))))
    }

    /// Makes a message over the limit a dead letter, with the messages that led to it.
    pub(super) fn bury_loop(
        &mut self,
        state: &mut State,
        recipient: u32,
        batch: &Batch,
        index: usize,
        hops: u8,
    ) -> Result<(), StateError> {
        let record = batch.record(index);
        let sequence = batch.sequence(index);
        let place = Place { workspace: self.workspace.number, sandbox: recipient, priority: record.priority, sequence };
        let hopped = Batch::decode(sequence, batch.alone(index))?;
        let hopped = Batch::decode(sequence, hopped.with_hops(&[(0, hops)]))?;
        let limit = self.workspace.settings.hop_limit();
        let text = format!("the conversation went to and fro {hops} times; the workspace allows {limit}");
        // With this message, also where nobody may be reached yet.
        let mut known = self.conversations.get(&record.correlation).cloned().unwrap_or_default();
        known.extend_chain(hops, sequence);
        let chain = known.chain().to_vec();
        let death = Death { reason: DeadReason::Loop, text: text.into(), history: Vec::new(), chain };
        dead_letter::bury(state, place, &MessageRef { batch: hopped.into(), index: 0 }, death)
    }
}
