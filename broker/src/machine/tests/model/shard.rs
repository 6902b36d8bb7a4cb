//! The shard under test: machine and delivery over an engine that can lose what was not synced, and the log of commands.

use std::{ops::ControlFlow, sync::Arc};

use bytes::Bytes;
use tandem_proto::messaging::v1 as wire;
use tandem_storage::{Direction, Durability, Engine, FaultEngine, MemoryEngine, Space, Tear, WriteBatch};

use super::state::*;
use crate::{
    command::{self, CommandBuilder, Header, Outcome, Verb},
    delivery::Delivery,
    encoding::Field as _,
    machine::{
        Effect, Machine,
        keys::{self, DEFERRED, READY},
        notice::ERROR_KEY,
        parked::Parked,
    },
    metrics::EventMetrics,
    query::StateReader,
};

/// Where the position in the log is kept, as raft does.
const POSITION: Space = Space(0);

pub(super) type Dump = Vec<(u8, Bytes, Bytes)>;

pub(super) struct Shard {
    pub(super) engine: Arc<FaultEngine>,
    pub(super) machine: Machine,
    pub(super) reader: StateReader,
    pub(super) delivery: Arc<Delivery>,
    log: Vec<Bytes>,
    outcomes: Vec<Outcome>,
}

impl Shard {
    pub(super) fn new() -> Self {
        let engine = Arc::new(FaultEngine::new(keys::SPACES.into()));
        let reader = StateReader::default();
        let machine = Machine::open(engine.clone()).unwrap();
        reader.replace(engine.clone(), machine.recent_ids(), machine.policies());
        let delivery = Arc::new(Delivery::new(reader.clone(), EventMetrics::default()));
        Self { engine, machine, reader, delivery, log: Vec::new(), outcomes: Vec::new() }
    }

    /// Applies verbs as one command, and tells delivery.
    pub(super) fn apply(&mut self, time_ms: u64, verbs: &[Verb]) -> Vec<Outcome> {
        let command = command(time_ms, verbs);
        self.log.push(command);
        let (outcomes, effects) = self.write(self.log.len() - 1, self.log.len());
        self.delivery.effects(effects.into_iter());
        self.outcomes.extend(outcomes.iter().cloned());
        outcomes
    }

    /// Applies a part of the log as one batch of writes, with the position in it.
    fn write(&mut self, from: usize, to: usize) -> (Vec<Outcome>, Vec<Effect>) {
        let (mut writes, mut effects, mut outcomes) = (WriteBatch::new(), Vec::new(), Vec::new());
        for command in &self.log[from..to] {
            let applied = self.machine.apply(command, &mut writes, &mut effects).unwrap();
            outcomes.extend(command::decode_outcomes(applied).unwrap());
        }
        writes.put(POSITION, Bytes::new(), Bytes::copy_from_slice(&to.to_be_bytes()));
        self.engine.write(writes, Durability::Deferred).unwrap();
        self.machine.visible();
        (outcomes, effects)
    }

    pub(super) fn sync(&self) {
        self.engine.flush().unwrap();
    }

    /// The machine loses power: of what was not synced some is left, and perhaps torn. It starts again from there: opens the
    /// state and applies the rest of the log, several commands in one batch of writes.
    pub(super) fn crash(&mut self, keep: usize, chunk: usize) -> Result<(), String> {
        let before = self.dump();
        let handle = self.engine.handle();
        let unsynced = handle.journal_bytes() - handle.synced_bytes();
        let tear = if keep == 0 { Tear::All } else { Tear::Keep(unsynced * keep / 100) };
        self.engine = Arc::new(FaultEngine::recover(handle.crash(tear)).unwrap());
        self.machine = Machine::open(self.engine.clone()).unwrap();
        self.reader.replace(self.engine.clone(), self.machine.recent_ids(), self.machine.policies());
        self.delivery = Arc::new(Delivery::new(self.reader.clone(), EventMetrics::default()));
        let position = self.engine.get(POSITION, &[]).unwrap();
        let mut from = position.map_or(0, |bytes| usize::from_be_bytes(bytes.as_ref().try_into().unwrap()));
        while from < self.log.len() {
            let to = (from + chunk.max(1)).min(self.log.len());
            self.write(from, to);
            from = to;
        }
        if self.dump() == before { Ok(()) } else { Err("the state is another one after the crash".into()) }
    }

    /// Everything but the position.
    pub(super) fn dump(&self) -> Dump {
        dump(&*self.engine)
    }

    /// Applies the same verbs to an empty shard, each as a command of its own, and compares outcomes and bytes.
    pub(super) fn check_one_by_one(&self) -> Result<(), String> {
        let engine = Arc::new(MemoryEngine::new(keys::SPACES.into()));
        let mut machine = Machine::open(engine.clone()).unwrap();
        let mut outcomes = Vec::new();
        for entry in &self.log {
            let (header, verbs) = command::decode(entry).unwrap();
            for verb in verbs {
                let (mut writes, mut effects) = (WriteBatch::new(), Vec::new());
                let applied = machine.apply(&command(header.time_ms, &[verb]), &mut writes, &mut effects).unwrap();
                outcomes.extend(command::decode_outcomes(applied).unwrap());
                engine.write(writes, Durability::Deferred).unwrap();
                machine.visible();
            }
        }
        if outcomes != self.outcomes {
            return Err("verbs one by one have other outcomes than together".into());
        }
        if dump(&*engine) != self.dump() {
            return Err("verbs one by one leave other bytes than together".into());
        }
        Ok(())
    }

    /// Messages on their own of one sandbox, each with whether it waits for its time.
    pub(super) fn parked(&self, workspace: u32, sandbox: u32) -> Vec<(u64, bool, Parked)> {
        let (from, to) = keys::parked_of(workspace, sandbox);
        let mut found = Vec::new();
        for (space, deferred) in [(READY, false), (DEFERRED, true)] {
            let read = &mut |key: &[u8], value: &[u8]| {
                let parked = Parked::from_bytes(Bytes::copy_from_slice(value), "parked").unwrap();
                found.push((keys::sequence_of(key), deferred, parked));
                ControlFlow::Continue(())
            };
            self.engine.scan(space, &from, &to, Direction::Forward, read).unwrap();
        }
        found.sort_by_key(|(sequence, ..)| *sequence);
        found
    }
}

impl super::inbox::Chosen for Shard {
    fn due(&self, workspace: u32, sandbox: u32, priority: u8, sequence: u64) -> Option<u64> {
        let key = keys::parked(workspace, sandbox, priority, sequence);
        let found = [READY, DEFERRED].iter().find_map(|space| self.engine.get(*space, &key).unwrap())?;
        Some(Parked::from_bytes(found, "parked").unwrap().due_ms)
    }

    fn notice(&self, workspace: u32, sequence: u64, about: u64) -> Option<Bytes> {
        let batch = self.reader.batch(workspace, sequence).unwrap()?;
        let body = Bytes::copy_from_slice(batch.record(0).body);
        let message: wire::Message = prost::Message::decode(body.clone()).ok()?;
        let content = String::from_utf8_lossy(&message.content);
        let is_it = content.ends_with(&format!("\"sequence\":{about}}}"));
        (is_it && message.metadata.contains_key(ERROR_KEY)).then_some(body)
    }
}

fn command(time_ms: u64, verbs: &[Verb]) -> Bytes {
    let header = Header {
        time_ms,
        max_inbox_messages: MAX_INBOX,
        max_inbox_bytes: MAX_INBOX_BYTES,
        max_dead_letters: MAX_DEAD,
        dedupe_window_ms: WINDOW_MS,
    };
    let mut builder = CommandBuilder::new(header, 256);
    verbs.iter().for_each(|verb| builder.push(verb));
    builder.finish()
}

fn dump(engine: &dyn Engine) -> Dump {
    let mut all = Vec::new();
    for space in 1..keys::SPACES {
        let read = &mut |key: &[u8], value: &[u8]| {
            all.push((space, Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
            ControlFlow::Continue(())
        };
        engine.scan(Space(space), &[], &[], Direction::Forward, read).unwrap();
    }
    all
}
