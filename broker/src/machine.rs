//! Applies commands to the state of a shard: pure, deterministic, the same on every node.
//!
//! Reads no clock, randomness, environment or configuration. Returns an outcome for the caller and effects for whoever
//! delivers; the effects can be found again in the state by a new leader, so losing them loses nothing.

mod ack;
pub(crate) mod cursor;
mod delete_workspace;
pub(crate) mod inbox;
pub(crate) mod keys;
pub(crate) mod publish;
mod registry;
pub(crate) mod state;
pub(crate) mod workspace;

use std::sync::Arc;

use bytes::Bytes;
use tandem_storage::{Engine, WriteBatch};

use self::state::State;
pub(crate) use self::state::StateError;
use crate::{
    batch::Batch,
    command::{self, Outcome, Verb},
};

/// Something that happened, for the leader's delivery.
#[derive(Debug, Clone)]
pub(crate) enum Effect {
    /// A batch was appended.
    Appended(Appended),
    /// A sandbox and its inbox are gone.
    SandboxGone { workspace: u32, sandbox: u32 },
    /// A workspace is gone.
    WorkspaceGone { workspace: u32 },
}

/// A batch and who gets what of it.
#[derive(Debug, Clone)]
pub(crate) struct Appended {
    pub(crate) workspace: u32,
    pub(crate) batch: Arc<Batch>,
    /// Recipient, priority, indexes in the batch.
    pub(crate) direct: Vec<(u32, u8, Arc<[u16]>)>,
    /// Priority, indexes in the batch.
    pub(crate) broadcast: Vec<(u8, Arc<[u16]>)>,
}

/// The state of one shard and the rules by which commands change it.
pub(crate) struct Machine {
    state: State,
}

impl Machine {
    pub(crate) fn new(engine: Arc<dyn Engine>) -> Self {
        Self { state: State::new(engine) }
    }

    /// Applies one command. Its changes go to `writes`, what happened to `effects`.
    pub(crate) fn apply(
        &mut self,
        command: &Bytes,
        writes: &mut WriteBatch,
        effects: &mut Vec<Effect>,
    ) -> Result<Bytes, StateError> {
        let (header, verbs) = command::decode(command)?;
        // A new leader's clock may be behind the old one's; time in the log never is.
        let time_ms = self.state.advance_time(header.time_ms)?;
        let mut outcomes = Vec::with_capacity(verbs.len());
        for verb in verbs {
            let state = &mut self.state;
            outcomes.push(match verb {
                Verb::Publish(verb) => {
                    Outcome::Publish(publish::apply(state, verb, header.max_inbox_messages, writes, effects)?)
                }
                Verb::Ack(verb) => Outcome::Ack(ack::apply(state, &verb, writes)?),
                Verb::RegisterSandbox(verb) => {
                    Outcome::RegisterSandbox(registry::register(state, &verb, time_ms, writes)?)
                }
                Verb::UnregisterSandbox(verb) => {
                    Outcome::UnregisterSandbox(registry::unregister(state, &verb, writes, effects)?)
                }
                Verb::Heartbeat(verb) => Outcome::Heartbeat(registry::heartbeat(state, &verb, time_ms, writes)?),
                Verb::CreateWorkspace(verb) => Outcome::CreateWorkspace(workspace::create(state, &verb, time_ms)?),
                Verb::DeleteWorkspace(verb) => {
                    Outcome::DeleteWorkspace(delete_workspace::apply(state, &verb, writes, effects)?)
                }
            });
        }
        self.state.write_changes(writes);
        Ok(command::encode_outcomes(&outcomes))
    }

    /// All changes so far can be read from the engine.
    pub(crate) fn visible(&mut self) {
        self.state.visible();
    }
}

#[cfg(test)]
mod tests;
