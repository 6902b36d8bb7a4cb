//! The model of what comes back: dead letters that are redriven or purged, and history that is replayed.

use super::{publish::Answer, state::*};
use crate::rejection::Reason;

impl Workspace {
    /// As first attempts with their old sequence and priority, whatever their ttl was. One that waits there already is in its
    /// place.
    pub(super) fn redrive(&mut self, now: u64, letters: &[(u32, u64)], to: &str) -> Answer {
        let target = self.number_of(to);
        if !to.is_empty() && target.is_none() {
            return Answer::Refused(Reason::UnknownSandbox);
        }
        let (mut redriven, mut skipped) = (0, 0);
        for place in letters {
            let Some(letter) = self.dead.get(place).cloned() else { continue };
            let sandbox = self.sandboxes.get_mut(&target.unwrap_or(place.0));
            if sandbox.is_some_and(|sandbox| sandbox.put_back(now, letter.message, letter.history) != PutBack::NoRoom) {
                self.dead.remove(place);
                redriven += 1;
            } else {
                skipped += 1;
            }
        }
        Answer::Counts(redriven, skipped)
    }

    pub(super) fn purge(&mut self, letters: &[(u32, u64)]) -> Answer {
        Answer::Count(letters.iter().filter(|place| self.dead.remove(place).is_some()).count() as u64)
    }

    /// What waits there already is passed over; what waits in a lane is never asked for.
    pub(super) fn replay(&mut self, now: u64, name: &str, sequences: &[u64]) -> Answer {
        let messages: Vec<Message> = sequences.iter().filter_map(|sequence| self.log.get(sequence).cloned()).collect();
        let Some(sandbox) = self.named(name) else { return Answer::Refused(Reason::UnknownSandbox) };
        let mut replayed = 0;
        for message in messages {
            match sandbox.put_back(now, message, Vec::new()) {
                PutBack::Done => replayed += 1,
                PutBack::WaitsAlready => {}
                PutBack::NoRoom => return Answer::Refused(Reason::InboxFull),
            }
        }
        Answer::Count(replayed)
    }
}

#[derive(PartialEq, Eq)]
enum PutBack {
    Done,
    WaitsAlready,
    NoRoom,
}

impl Sandbox {
    fn put_back(&mut self, now: u64, message: Message, history: Vec<Failed>) -> PutBack {
        if self.inbox.iter().any(|waiting| waiting.is(&Source::Alone, message.sequence)) {
            return PutBack::WaitsAlready;
        }
        if !self.has_room(message.bytes()) {
            return PutBack::NoRoom;
        }
        let mut waiting = Waiting::new(Source::Alone, message);
        (waiting.expires, waiting.history) = (0, history);
        self.full = false;
        self.put_alone(now, waiting);
        PutBack::Done
    }
}
