//! Chooses who gets a message that is addressed by capability.

use super::Edge;
use crate::{
    machine::{keys, workspace::Workspace},
    message::{Capability, MessageView},
    query::QueryError,
    rejection::Rejection,
    shard::Shard,
};

/// Sandboxes that are looked at for one message.
const MAX_CANDIDATES: usize = 1_000;

/// Who was chosen.
pub(super) enum Choice {
    /// One sandbox, by name.
    One(String),
    /// Sandboxes by number, each four bytes.
    Several(Vec<u8>),
    /// Nobody is there, and the message is to wait.
    Nobody,
}

impl Edge {
    /// One that is online, with the fewest waiting messages, or, with an ordering key, always the same one while it stays
    /// online; or all there are.
    pub(super) fn choose(
        &self,
        shard: &Shard,
        workspace: &Workspace,
        wanted: Capability<'_>,
        view: &MessageView<'_>,
    ) -> Result<Choice, QueryError> {
        let mut candidates = shard.reader.capable(workspace.number, wanted.name, MAX_CANDIDATES)?;
        candidates.retain(|candidate| candidate.name != view.from_sandbox_id);
        if wanted.all {
            let numbers: Vec<u8> = candidates.iter().flat_map(|candidate| candidate.number.to_be_bytes()).collect();
            return if numbers.is_empty() { Err(nobody(wanted)) } else { Ok(Choice::Several(numbers)) };
        }
        candidates.retain(|candidate| self.is_online(shard, workspace.number, candidate.number, candidate.heard_ms));
        let chosen = if view.ordering_key.is_empty() {
            candidates.into_iter().min_by_key(|candidate| (candidate.held, candidate.number))
        } else {
            let ordering = keys::ordering_hash(view.ordering_key);
            candidates.into_iter().max_by_key(|candidate| keys::weight(ordering, candidate.number))
        };
        match chosen {
            Some(candidate) => Ok(Choice::One(candidate.name)),
            None if wanted.wait => Ok(Choice::Nobody),
            None => Err(nobody(wanted)),
        }
    }
}

fn nobody(wanted: Capability<'_>) -> QueryError {
    Rejection::no_capable_sandbox(wanted.name).into()
}
