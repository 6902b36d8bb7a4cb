//! Runs one history on the shard and on the model, and stops at the first thing in which they differ.

use std::{collections::BTreeMap, fmt::Debug};

use super::{
    form::Op,
    publish::{Answer, NotNew},
    shard::Shard,
    state::*,
    step::{Act, Step},
    streams::{Settling, Stream},
};
use crate::command::{Outcome, Tick, Ticked, Verb, publish::Exception};

pub(super) struct Run {
    pub(super) shard: Shard,
    pub(super) model: Model,
    pub(super) streams: Vec<Stream>,
    pub(super) time: u64,
    /// Events that were compared, by number of the workspace: of the machine, of the model.
    pub(super) events_seen: BTreeMap<u32, (u64, usize)>,
}

/// A fault that a test plants behind the back of the model after each step.
pub(super) type Sabotage = fn(&mut Shard);

/// They must be the same.
pub(super) fn agree<T: PartialEq + Debug>(what: &str, machine: T, model: T) -> Result<(), String> {
    if machine == model { Ok(()) } else { Err(format!("{what}: the machine has {machine:?}, the model {model:?}")) }
}

/// Runs a history. The error says at which step they differ, and in what.
pub(super) fn run(steps: &[Step], sabotage: Option<Sabotage>) -> Result<Run, String> {
    let mut run = Run {
        shard: Shard::new(),
        model: Model::default(),
        streams: Vec::new(),
        time: 100_000,
        events_seen: BTreeMap::new(),
    };
    let begin = [
        Act::CreateWorkspace { other: false },
        Act::Register { other: false, sandbox: 0, settings: 0, capable: false },
        Act::Register { other: false, sandbox: 1, settings: 1, capable: true },
        Act::Register { other: false, sandbox: 2, settings: 2, capable: true },
        Act::CreateTopic { topic: 0 },
        Act::Follow { sandbox: 1, pattern: 1, back: None },
    ];
    begin.iter().try_for_each(|act| run.act(act))?;
    for (at, step) in steps.iter().enumerate() {
        run.time += step.pause_ms;
        let done = run.act(&step.act).and_then(|()| {
            if let Some(sabotage) = sabotage {
                sabotage(&mut run.shard);
            }
            run.compare()
        });
        done.map_err(|error| format!("after step {at}, {:?}: {error}", step.act))?;
    }
    run.compare_history()?;
    run.shard.check_one_by_one()?;
    Ok(run)
}

impl Run {
    fn act(&mut self, act: &Act) -> Result<(), String> {
        match act {
            Act::Open { sandbox } => self.open(super::form::SANDBOXES[*sandbox]),
            Act::Take { stream, count } => self.take(*stream, *count),
            Act::Close { stream } => self.close(*stream),
            Act::Break { stream } => {
                self.together(std::slice::from_ref(act))?;
                self.close(*stream)
            }
            Act::Crash { keep, chunk } => self.crash(*keep, *chunk),
            Act::Sync => {
                self.shard.sync();
                Ok(())
            }
            Act::Together(acts) => self.together(acts),
            Act::Tick { max_entries } => self.tick(*max_entries),
            one => self.together(std::slice::from_ref(one)),
        }
    }

    /// Several verbs as one command: all are formed before any is applied, as those are that wait in the batcher.
    fn together(&mut self, acts: &[Act]) -> Result<(), String> {
        // A failed delivery from a topic that is given up in the same moment comes back once more; the model does not follow it.
        let gives_up = acts.iter().any(|act| matches!(act, Act::DeleteTopic { .. } | Act::Unfollow { .. }));
        let alone = acts.len() == 1;
        let (mut verbs, mut ops, mut settling) = (Vec::new(), Vec::new(), Vec::new());
        for act in acts {
            let formed = match act {
                Act::Ack { .. } | Act::Nack { .. } | Act::Lapse { .. } if !gives_up => {
                    self.form_stream(act, &mut settling)?
                }
                Act::Break { .. } if alone => self.form_stream(act, &mut settling)?,
                Act::Tick { .. } => Some(self.form_tick(u32::MAX)),
                act => self.form(act),
            };
            if let Some((verb, op)) = formed {
                verbs.push(verb);
                ops.push(op);
            }
        }
        let again = matches!(acts, [Act::Ack { again: true, .. }]);
        self.apply(&verbs, ops)?;
        if again && !verbs.is_empty() {
            let outcome = self.shard.apply(self.time, &verbs).remove(0);
            agree("a repeated ack", answer(&outcome), Answer::Count(0))?;
        }
        self.settle(settling)
    }

    /// Applies verbs as one command to the machine and one by one to the model.
    pub(super) fn apply(&mut self, verbs: &[Verb], ops: Vec<Op>) -> Result<(), String> {
        if verbs.is_empty() {
            return Ok(());
        }
        let outcomes = self.shard.apply(self.time, verbs);
        self.model.now = self.time;
        for ((verb, outcome), op) in verbs.iter().zip(&outcomes).zip(ops) {
            let expected = op(&mut self.model, &self.shard)?;
            self.model.publish_notices(&self.shard);
            agree(&format!("the answer to {verb:?}"), answer(outcome), expected)?;
        }
        Ok(())
    }

    /// Acks and nacks have an outcome; streams whose inbox has ended end.
    pub(super) fn settle(&mut self, settling: Vec<Settling>) -> Result<(), String> {
        settling.iter().for_each(|(inbox, ended)| self.shard.delivery.ack_settled(inbox, ended, true));
        while let Some(at) = self.streams.iter().position(|stream| stream.inbox.lock().ended.is_some()) {
            self.close(at)?;
        }
        Ok(())
    }

    fn form_tick(&self, max_entries: u32) -> (Verb, Op) {
        let leased = self.shard.delivery.leased_beyond_ttl(self.time);
        let verb = Verb::Tick(Tick { max_entries, leased, heartbeat_timeout_ms: HEARTBEAT_MS });
        let op: Op = Box::new(|model, chosen| {
            model.tick(chosen);
            Ok(Answer::Done)
        });
        (verb, op)
    }

    /// What the leader names in a tick.
    fn compare_leased(&self) -> Result<(), String> {
        let leased = self.shard.delivery.leased_beyond_ttl(self.time);
        let mut named: Vec<_> = leased.iter().map(|one| (one.workspace, one.sandbox, one.sequence)).collect();
        named.sort_unstable();
        let mut expected = Vec::new();
        for workspace in self.model.workspaces.values() {
            for sandbox in workspace.sandboxes.values() {
                let worked_on = sandbox.inbox.iter().filter(|waiting| waiting.leased);
                let expired = worked_on.filter(|waiting| waiting.expires > 0 && waiting.expires <= self.time);
                expected.extend(expired.map(|waiting| (workspace.number, sandbox.number, waiting.message.sequence)));
            }
        }
        expected.sort_unstable();
        agree("what is worked on beyond its ttl", named, expected)
    }

    /// Lets everything happen that is due, a few entries at a time unless the order of answers would depend on it.
    fn tick(&mut self, max_entries: u32) -> Result<(), String> {
        let mut all = self.model.workspaces.values().flat_map(|workspace| workspace.sandboxes.values());
        let answers = all.any(|sandbox| sandbox.inbox.iter().any(|waiting| waiting.message.requires_response));
        self.compare_leased()?;
        let (verb, op) = self.form_tick(if answers { u32::MAX } else { max_entries });
        loop {
            let outcomes = self.shard.apply(self.time, std::slice::from_ref(&verb));
            match outcomes.as_slice() {
                [Outcome::Tick(Ok(Ticked { more: true, entries }))] if *entries > 0 => {}
                [Outcome::Tick(Ok(Ticked { more: false, .. }))] => break,
                other => return Err(format!("a tick came to {other:?}")),
            }
        }
        self.model.now = self.time;
        op(&mut self.model, &self.shard)?;
        let next = self.shard.reader.next_due_ms().map_err(|error| error.to_string())?;
        if next.is_some_and(|next| next < self.time) {
            return Err(format!("at {} something is still due since {next:?}", self.time));
        }
        self.settle(Vec::new())
    }

    fn crash(&mut self, keep: usize, chunk: usize) -> Result<(), String> {
        self.streams.clear();
        for workspace in self.model.workspaces.values_mut() {
            workspace.sandboxes.values_mut().for_each(Sandbox::forget_leases);
        }
        self.shard.crash(keep, chunk)
    }
}

/// An outcome in the words of the model.
pub(super) fn answer(outcome: &Outcome) -> Answer {
    match outcome {
        Outcome::Publish(Ok(published)) => {
            let exceptions = published.exceptions.iter().map(|(index, why)| {
                let why = match why {
                    Exception::Duplicate { sequence, time_ms } => NotNew::Duplicate(*sequence, *time_ms),
                    Exception::Refused(rejection) => NotNew::Refused(rejection.reason),
                    Exception::Held { approval } => panic!("no policy is set, and approval {approval} waits"),
                };
                (*index, why)
            });
            Answer::Published { first: published.first_sequence, exceptions: exceptions.collect() }
        }
        Outcome::Ack(Ok(acked)) => Answer::Count(acked.count),
        Outcome::Nack(Ok(nacked)) => Answer::Counts(nacked.deferred, nacked.dead_lettered),
        Outcome::Redrive(Ok(redriven)) => Answer::Counts(redriven.redriven, redriven.skipped),
        Outcome::Purge(Ok(purged)) => Answer::Count(purged.purged),
        Outcome::Replay(Ok(replayed)) => Answer::Count(replayed.replayed),
        Outcome::UnregisterSandbox(Ok(unregistered)) => Answer::Count(unregistered.abandoned),
        Outcome::RegisterSandbox(Ok(registered)) => Answer::Created(registered.created),
        Outcome::CreateTopic(Ok(created)) => Answer::Created(created.created),
        Outcome::FollowTopics(Ok(followed)) => Answer::Followed(followed.created, followed.from_sequence),
        Outcome::Tick(Ok(_))
        | Outcome::Heartbeat(Ok(()))
        | Outcome::CreateWorkspace(Ok(()))
        | Outcome::UpdateWorkspace(Ok(()))
        | Outcome::DeleteWorkspace(Ok(()))
        | Outcome::DeleteTopic(Ok(()))
        | Outcome::UnfollowTopics(Ok(()))
        | Outcome::Alive(Ok(()))
        | Outcome::Trim(Ok(_))
        | Outcome::SetPolicy(Ok(_))
        | Outcome::Decide(Ok(_))
        | Outcome::Attributed(Ok(()))
        | Outcome::Note(Ok(()))
        | Outcome::ReportEvents(Ok(()))
        | Outcome::SetQuotas(Ok(()))
        | Outcome::CreateKey(Ok(()))
        | Outcome::RevokeKey(Ok(()))
        | Outcome::CreateToken(Ok(()))
        | Outcome::RevokeToken(Ok(()))
        | Outcome::KeysUsed(Ok(()))
        | Outcome::Answered(Ok(())) => Answer::Done,
        Outcome::Publish(Err(why))
        | Outcome::Ack(Err(why))
        | Outcome::Nack(Err(why))
        | Outcome::Redrive(Err(why))
        | Outcome::Purge(Err(why))
        | Outcome::Trim(Err(why))
        | Outcome::SetPolicy(Err(why))
        | Outcome::Decide(Err(why))
        | Outcome::Attributed(Err(why))
        | Outcome::Note(Err(why))
        | Outcome::ReportEvents(Err(why))
        | Outcome::SetQuotas(Err(why))
        | Outcome::CreateKey(Err(why))
        | Outcome::RevokeKey(Err(why))
        | Outcome::CreateToken(Err(why))
        | Outcome::RevokeToken(Err(why))
        | Outcome::KeysUsed(Err(why))
        | Outcome::Replay(Err(why))
        | Outcome::UnregisterSandbox(Err(why))
        | Outcome::RegisterSandbox(Err(why))
        | Outcome::CreateTopic(Err(why))
        | Outcome::FollowTopics(Err(why))
        | Outcome::Tick(Err(why))
        | Outcome::Heartbeat(Err(why))
        | Outcome::CreateWorkspace(Err(why))
        | Outcome::UpdateWorkspace(Err(why))
        | Outcome::DeleteWorkspace(Err(why))
        | Outcome::DeleteTopic(Err(why))
        | Outcome::UnfollowTopics(Err(why))
        | Outcome::Alive(Err(why))
        | Outcome::Answered(Err(why)) => Answer::Refused(why.reason),
    }
}
