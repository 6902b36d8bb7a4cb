//! Compares everything that can be seen of the shard with the model.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{
    drive::{Run, agree},
    shard::Shard,
    state::*,
    streams::told,
};
use crate::{
    batch::{Batch, Kind},
    command::nack::AttemptError,
    delivery::{Delivery, inbox::Taking},
    machine::{dead_letter::DeadReason, events::EventKind},
    metrics::EventMetrics,
    query::{dead_letters::DeadFilter, events::EventFilter},
};

/// More than there ever is.
const ALL: usize = 10_000;

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// An attempt that failed, in either words.
type Attempt = (u32, u64, AttemptError, String);
/// Place, recipient, reason, time, attempts, chain, body.
type Letter = ((u32, u64), String, DeadReason, u64, Vec<Attempt>, Vec<u64>, Bytes);

impl Run {
    pub(super) fn compare(&mut self) -> Result<(), String> {
        let reader = &self.shard.reader;
        let found = reader.workspaces_after("", ALL).map_err(text)?;
        let told: Vec<_> = found
            .iter()
            .map(|(name, there)| {
                let limit = there.settings.hop_limit();
                (name.clone(), there.number, there.last_sequence, there.sandboxes, there.topics, limit)
            })
            .collect();
        let expected = self.model.workspaces.iter().map(|(name, there)| {
            let (sandboxes, topics) = (there.sandboxes.len() as u32, there.topics.len() as u32);
            (name.clone(), there.number, there.last, sandboxes, topics, there.settings.hop_limit())
        });
        agree("workspaces", told, expected.collect())?;
        for (name, there) in &self.model.workspaces {
            compare_sandboxes(&self.shard, name, there, self.time)?;
            compare_topics(&self.shard, name, there)?;
            compare_dead(&self.shard, there)?;
            compare_memory(&self.shard, name, there)?;
        }
        self.compare_events()
    }

    fn compare_events(&mut self) -> Result<(), String> {
        for (name, there) in &self.model.workspaces {
            let record = self.shard.reader.workspace(name).map_err(text)?;
            let (machine_seen, model_seen) = self.events_seen.get(&there.number).copied().unwrap_or((0, 0));
            let filter = EventFilter::default();
            let page = self.shard.reader.events((name, &record), machine_seen + 1, &filter, ALL).map_err(text)?;
            let told = page.events.iter().map(|(_, event)| Event {
                kind: event.kind,
                about: event.sequence,
                count: event.count,
                time: event.time_ms,
                sandbox: short(&event.sandbox),
            });
            let expected = there.events[model_seen..].iter().copied();
            agree("events", by_cause(told), by_cause(expected))?;
            self.events_seen.insert(there.number, (record.last_event, there.events.len()));
        }
        Ok(())
    }

    /// The log itself: what was accepted stands in it as it came, and the places of the others are empty.
    pub(super) fn compare_history(&self) -> Result<(), String> {
        for there in self.model.workspaces.values() {
            for sequence in 1..=there.last {
                let batch = self.shard.reader.batch_holding(there.number, sequence).map_err(text)?;
                let batch = batch.ok_or_else(|| format!("sequence {sequence} is in no batch"))?;
                let record = batch.record((sequence - batch.first_sequence) as usize);
                let told = (record.kind != Kind::Void).then(|| {
                    (record.from.to_owned(), record.priority, record.hops, batch.time_ms, record.body.to_vec())
                });
                let expected = there.log.get(&sequence).map(|message| {
                    (message.from.clone(), message.priority, message.hops, message.time, message.body.to_vec())
                });
                agree(&format!("message {sequence}"), told, expected)?;
            }
        }
        Ok(())
    }
}

/// Events of one moment in no order; messages that expire are counted together, because several may have one event.
fn by_cause(events: impl Iterator<Item = Event>) -> BTreeMap<(u64, u8, [u8; 8], u64), u64> {
    let mut found = BTreeMap::new();
    for event in events {
        let about = if event.kind == EventKind::Expired { 0 } else { event.about };
        let itself = u64::from(event.kind != EventKind::Expired);
        *found.entry((event.time, event.kind as u8, event.sandbox, about)).or_default() += itself + event.count;
    }
    found
}

fn compare_sandboxes(shard: &Shard, name: &str, there: &Workspace, now: u64) -> Result<(), String> {
    let record = shard.reader.workspace(name).map_err(text)?;
    let (found, _) = shard.reader.sandboxes_after(&record, "", ALL).map_err(text)?;
    let mut expected: Vec<&Sandbox> = there.sandboxes.values().collect();
    expected.sort_by(|one, other| one.name.cmp(&other.name));
    let names = |sandbox: &Sandbox| (sandbox.name.clone(), sandbox.number, sandbox.capabilities.clone(), sandbox.heard);
    let told = found.iter().map(|found| {
        (found.name.clone(), found.sandbox.number, found.sandbox.capabilities.clone(), found.last_heartbeat_ms)
    });
    agree("sandboxes", told.collect(), expected.iter().map(|sandbox| names(sandbox)).collect::<Vec<_>>())?;
    for (found, sandbox) in found.iter().zip(expected) {
        let who = format!("{name}/{}", sandbox.name);
        let counters = found.counters;
        let alone = || sandbox.inbox.iter().filter(|waiting| waiting.source == Source::Alone);
        let count = |waiting: &mut dyn Iterator<Item = &Waiting>| waiting.count() as u64;
        agree(&format!("pending of {who}"), found.pending, sandbox.inbox.len() as u64)?;
        agree(&format!("bytes of {who}"), counters.bytes, sandbox.bytes())?;
        agree(&format!("parked of {who}"), counters.parked, count(&mut alone()))?;
        let deferred = count(&mut alone().filter(|waiting| waiting.deferred));
        agree(&format!("deferred of {who}"), counters.deferred, deferred)?;
        let keyed = count(&mut alone().filter(|waiting| waiting.retry));
        agree(&format!("keyed of {who}"), counters.keyed, keyed)?;
        agree(&format!("dead letters of {who}"), counters.dead_letters, there.dead_of(sandbox.number))?;
        agree(&format!("follows of {who}"), counters.follows as usize, sandbox.follows.len())?;
        agree(&format!("requests of {who}"), counters.requests as usize, sandbox.requests.len())?;
        agree(&format!("fullness of {who}"), counters.full, sandbox.full)?;
        compare_inbox(shard, (name, &who), there.number, sandbox, now)?;
        compare_requests(shard, there.number, sandbox)?;
        let follows = shard.reader.follows(there.number, sandbox.number).map_err(text)?;
        agree(&format!("follows of {who}"), follows, sandbox.follows.clone().into_iter().collect())?;
    }
    Ok(())
}

/// What a new leader would hand out, in its order; and what waits on its own, with times and histories.
fn compare_inbox(
    shard: &Shard,
    (name, who): (&str, &str),
    workspace: u32,
    sandbox: &Sandbox,
    now: u64,
) -> Result<(), String> {
    let leader = Delivery::new(shard.reader.clone(), EventMetrics::default());
    let inbox = leader.open(name, &sandbox.name).map_err(text)?;
    let mut items = Vec::new();
    let taking = Taking { limit: ALL, low_priority_percent: 0, now_ms: now };
    inbox.lock().take(taking, |_| true, &mut items).map_err(text)?;
    let mut expected = Sandbox { inbox: sandbox.inbox.clone(), name: sandbox.name.clone(), ..Sandbox::default() };
    expected.forget_leases();
    let expected: Vec<_> = expected.take(ALL, now).iter().map(Waiting::told).collect();
    agree(&format!("the inbox of {who}"), items.iter().map(|(item, _)| told(item)).collect::<Vec<_>>(), expected)?;
    let alone = shard.parked(workspace, sandbox.number);
    let told = alone.into_iter().map(|(sequence, deferred, parked)| {
        let history: Vec<Attempt> = parked.history.iter().map(failed).collect();
        (sequence, deferred, parked.attempt, if deferred { parked.due_ms } else { 0 }, parked.expires_ms, history)
    });
    let mut expected: Vec<_> = sandbox
        .inbox
        .iter()
        .filter(|waiting| waiting.source == Source::Alone)
        .map(|waiting| {
            let due = if waiting.deferred { waiting.due } else { 0 };
            let history: Vec<Attempt> = waiting.history.iter().map(Failed::told).collect();
            (waiting.message.sequence, waiting.deferred, waiting.attempt, due, waiting.expires, history)
        })
        .collect();
    expected.sort_by_key(|waiting| waiting.0);
    agree(&format!("what waits on its own in {who}"), told.collect::<Vec<_>>(), expected)
}

fn failed(failed: &crate::machine::parked::FailedAttempt) -> Attempt {
    (failed.attempt, failed.time_ms, failed.error, String::from_utf8_lossy(&failed.text).into_owned())
}

impl Failed {
    fn told(&self) -> Attempt {
        (self.attempt, self.time, self.error, self.text.clone())
    }
}

fn compare_requests(shard: &Shard, workspace: u32, sandbox: &Sandbox) -> Result<(), String> {
    for correlation in 1..=3 {
        let found = shard.reader.waiting_request((workspace, sandbox.number, correlation)).map_err(text)?;
        let told = found.map(|found| {
            (found.sequence, found.deadline_ms, found.answered, found.response.map(|(sequence, _)| sequence))
        });
        let expected = sandbox.requests.get(&correlation).map(|request| {
            let response = request.response.as_ref().map(|response| response.sequence);
            (request.sequence, request.deadline, request.answered, response)
        });
        agree(&format!("request {correlation} of {}", sandbox.name), told, expected)?;
    }
    Ok(())
}

fn compare_topics(shard: &Shard, name: &str, there: &Workspace) -> Result<(), String> {
    let found = shard.reader.all_topics(there.number).map_err(text)?;
    let told = found.into_iter().map(|(name, topic)| {
        let last = topic.newest.0.iter().copied().max().unwrap_or(0);
        (name, topic.messages, last, topic.create_time_ms)
    });
    let expected = there.topics.iter().map(|(name, topic)| (name.clone(), topic.messages, topic.last, topic.created));
    agree(&format!("topics of {name}"), told.collect::<Vec<_>>(), expected.collect())
}

fn compare_dead(shard: &Shard, there: &Workspace) -> Result<(), String> {
    let page = shard.reader.dead_letters(there.number, (0, 0), &DeadFilter::default(), ALL).map_err(text)?;
    let told = page.found.iter().map(|found| {
        let letter = &found.letter;
        let history = letter.history.iter().map(failed).collect();
        let body = Batch::decode(1, letter.message.clone()).map(|batch| Bytes::copy_from_slice(batch.record(0).body));
        let body = body.unwrap_or_default();
        let (sandbox, time, chain) = (letter.sandbox.clone(), letter.time_ms, letter.chain.clone());
        (found.position, sandbox, letter.reason, time, history, chain, body)
    });
    let expected = there.dead.iter().map(|(place, letter)| {
        let history = letter.history.iter().map(Failed::told).collect();
        let (sandbox, chain, body) = (letter.sandbox.clone(), letter.chain.clone(), letter.message.body.clone());
        (*place, sandbox, letter.reason, letter.time, history, chain, body)
    });
    agree("dead letters", told.collect::<Vec<Letter>>(), expected.collect())
}

/// Which message ids are known. What is known of producers and conversations shows in the answers to publishes.
fn compare_memory(shard: &Shard, name: &str, there: &Workspace) -> Result<(), String> {
    let record = shard.reader.workspace(name).map_err(text)?;
    let now = shard.reader.time_ms().map_err(text)?;
    for id in ["m0", "m1", "m2", "m3"] {
        let found = shard.reader.known_id(&record, id).map_err(text)?;
        let told = found.map(|found| KnownId { sequence: found.sequence, digest: found.digest, time: found.time_ms });
        let known = there.ids.get(id).filter(|known| now / WINDOW_MS - known.window <= 1);
        agree(&format!("message id {id}"), told, known.map(|known| known.value))?;
    }
    Ok(())
}
