//! Applies commands to the state of a shard: pure, deterministic, the same on every node.
//!
//! Reads no clock, randomness, environment or configuration. Returns an outcome for the caller and effects for whoever
//! delivers; the effects can be found again in the state by a new leader, so losing them loses nothing.

mod ack;
pub(crate) mod api_key;
pub(crate) mod approval;
pub(crate) mod audit;
pub(crate) mod cursor;
pub(crate) mod dead_letter;
mod delete_workspace;
pub(crate) mod events;
pub(crate) mod follow;
pub(crate) mod inbox;
pub(crate) mod keys;
mod lineage;
mod nack;
pub(crate) mod notice;
pub(crate) mod park;
pub(crate) mod parked;
pub(crate) mod policy;
pub(crate) mod publish;
pub(crate) mod recent_ids;
pub(crate) mod registry;
mod remembered_filter;
pub(crate) mod request;
pub(crate) mod state;
mod tick;
pub(crate) mod token;
pub(crate) mod topic;
mod trim;
pub(crate) mod wanted;
pub(crate) mod workspace;

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::RwLock;
use tandem_storage::{Engine, WriteBatch};

pub(crate) use self::state::StateError;
use self::{events::EventKind, park::Place, policy::Policies, recent_ids::RecentIds, state::State};
use crate::{
    batch::Batch,
    command::{self, AckedRange, Outcome, Verb},
};

/// Something that happened, for the leader's delivery.
#[derive(Debug, Clone)]
pub(crate) enum Effect {
    /// A batch was appended.
    Appended(Appended),
    /// A message on its own may be delivered.
    Ready(Place),
    /// A message on its own, or one that was to be, left without an ack. None wait for its ordering key any more.
    Left { place: Place, ordering: u64 },
    /// A delivery failed whose message had left meanwhile, by its ttl for example. Its ordering key, if it is known, waits for
    /// no other attempt.
    LeftBefore { place: Place, ordering: Option<u64> },
    /// Messages of lanes have expired or were trimmed.
    Expired { workspace: u32, sandbox: u32, ranges: Vec<AckedRange> },
    /// Something is due at a time.
    Scheduled { time_ms: u64 },
    /// An event was written, about so many messages.
    Event { kind: EventKind, count: u64 },
    /// A response came for a request that waits.
    Answered { workspace: u32, sandbox: u32, correlation: u128 },
    /// A sandbox follows something else now.
    FollowsChanged { workspace: u32, sandbox: u32 },
    /// A topic is gone.
    TopicGone { workspace: u32 },
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
    /// What goes to everybody who follows.
    pub(crate) shared: Vec<SharedRun>,
}

/// A part of a batch that is written once for many.
#[derive(Debug, Clone)]
pub(crate) struct SharedRun {
    /// Of the runs: broadcast, or the number of the topic.
    pub(crate) source: u32,
    /// The name of the topic; empty for broadcast.
    pub(crate) topic: Arc<str>,
    pub(crate) priority: u8,
    pub(crate) indexes: Arc<[u16]>,
}

/// The state of one shard and the rules by which commands change it.
pub(crate) struct Machine {
    state: State,
}

impl Machine {
    /// Over the state as it is.
    pub(crate) fn open(engine: Arc<dyn Engine>) -> Result<Self, StateError> {
        Ok(Self { state: State::open(engine)? })
    }

    /// The ids that the engine does not hold yet, for whoever reads beside the machine.
    pub(crate) fn recent_ids(&self) -> Arc<RwLock<RecentIds>> {
        self.state.recent_ids()
    }

    /// The policies that it has ready, for whoever chooses beside the machine.
    pub(crate) fn policies(&self) -> Policies {
        self.state.policies()
    }

    /// Applies one command. Its changes go to `writes`, what happened to `effects`.
    pub(crate) fn apply(
        &mut self,
        command: &Bytes,
        writes: &mut WriteBatch,
        effects: &mut Vec<Effect>,
    ) -> Result<Bytes, StateError> {
        let (header, verbs) = command::decode(command)?;
        self.state.begin(header)?;
        let mut outcomes = Vec::with_capacity(verbs.len());
        for verb in verbs {
            let verb = audit::begin(&mut self.state, verb);
            let act = audit::describe(&mut self.state, &verb)?;
            let outcome = self.apply_verb(verb)?;
            if let Some(act) = act {
                audit::done(&mut self.state, act, &outcome)?;
            }
            outcomes.push(outcome);
            for notice in self.state.take_notices() {
                notice::publish(&mut self.state, notice)?;
            }
        }
        self.state.finish(writes, effects);
        Ok(command::encode_outcomes(&outcomes))
    }

    fn apply_verb(&mut self, verb: Verb) -> Result<Outcome, StateError> {
        let state = &mut self.state;
        Ok(match verb {
            Verb::Publish(verb) => Outcome::Publish(publish::apply(state, verb)?),
            Verb::Ack(verb) => Outcome::Ack(ack::apply(state, &verb)?),
            Verb::Nack(verb) => Outcome::Nack(nack::apply(state, &verb)?),
            Verb::Tick(verb) => Outcome::Tick(tick::apply(state, &verb)?),
            Verb::Redrive(verb) => Outcome::Redrive(dead_letter::redrive(state, &verb)?),
            Verb::Purge(verb) => Outcome::Purge(dead_letter::purge(state, &verb)?),
            Verb::Replay(verb) => Outcome::Replay(dead_letter::replay(state, &verb)?),
            Verb::CreateTopic(verb) => Outcome::CreateTopic(topic::create(state, &verb)?),
            Verb::DeleteTopic(verb) => Outcome::DeleteTopic(topic::delete(state, &verb)?),
            Verb::FollowTopics(verb) => Outcome::FollowTopics(topic::follow(state, &verb)?),
            Verb::UnfollowTopics(verb) => Outcome::UnfollowTopics(topic::unfollow(state, &verb)?),
            Verb::RegisterSandbox(verb) => Outcome::RegisterSandbox(registry::register(state, &verb)?),
            Verb::UnregisterSandbox(verb) => Outcome::UnregisterSandbox(registry::unregister(state, &verb)?),
            Verb::Heartbeat(verb) => Outcome::Heartbeat(registry::heartbeat(state, &verb)?),
            Verb::Trim(verb) => Outcome::Trim(trim::apply(state, &verb)?),
            Verb::Alive(verb) => Outcome::Alive(registry::alive(state, &verb)?),
            Verb::Answered(verb) => Outcome::Answered(request::answered(state, &verb)?),
            Verb::CreateKey(verb) => Outcome::CreateKey(api_key::create(state, verb)?),
            Verb::RevokeKey(verb) => Outcome::RevokeKey(api_key::revoke(state, &verb)?),
            Verb::CreateToken(verb) => Outcome::CreateToken(token::create(state, verb)?),
            Verb::RevokeToken(verb) => Outcome::RevokeToken(token::revoke(state, verb)?),
            Verb::KeysUsed(verb) => Outcome::KeysUsed(api_key::used(state, &verb)?),
            Verb::SetQuotas(verb) => Outcome::SetQuotas(workspace::set_quotas(state, &verb)?),
            Verb::ReportEvents(verb) => Outcome::ReportEvents(events::report(state, verb)?),
            Verb::Note(verb) => Outcome::Note(audit::noted(state, verb)?),
            // It was opened before; what is left of it here asks for nothing.
            Verb::Attributed(_) => Outcome::Attributed(Ok(())),
            Verb::Decide(verb) => Outcome::Decide(approval::decide(state, &verb)?),
            Verb::SetPolicy(verb) => Outcome::SetPolicy(policy::set(state, &verb)?),
            Verb::CreateWorkspace(verb) => Outcome::CreateWorkspace(workspace::create(state, &verb)?),
            Verb::UpdateWorkspace(verb) => Outcome::UpdateWorkspace(workspace::update(state, &verb)?),
            Verb::DeleteWorkspace(verb) => Outcome::DeleteWorkspace(delete_workspace::apply(state, &verb)?),
        })
    }

    /// All changes so far can be read from the engine.
    pub(crate) fn visible(&mut self) {
        self.state.visible();
    }
}

#[cfg(test)]
mod tests;
