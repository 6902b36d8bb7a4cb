//! A shard without replication, and what tests say to it.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tandem_storage::{Direction, Durability, Engine, MemoryEngine, Space, WriteBatch};

use crate::{
    batch::{Kind, Record},
    command::{
        self, CommandBuilder, CreateWorkspace, Header, Nack, Outcome, Published, Redrive, RegisterSandbox, Tick,
        Ticked, UnregisterSandbox, Verb, nack::AttemptError, publish::Exception,
    },
    delivery::{
        Delivery, SharedInbox,
        inbox::Taking,
        lane::{Item, Lease},
    },
    encoding::Field as _,
    machine::{
        Effect, Machine,
        dead_letter::DeadLetter,
        events::{Event, EventKind},
        keys,
    },
    metrics::EventMetrics,
    query::StateReader,
    rejection::Reason,
};

pub(crate) const WORKSPACE: &str = "w";

/// A shard without replication: engine, machine, delivery.
pub(crate) struct TestShard {
    pub(crate) engine: Arc<MemoryEngine>,
    pub(crate) machine: Machine,
    pub(crate) reader: StateReader,
    pub(crate) delivery: Arc<Delivery>,
    pub(crate) time_ms: u64,
    pub(crate) max_inbox: u64,
}

/// A message as tests speak of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Draft<'a> {
    pub(crate) from: &'a str,
    /// Nobody: a broadcast.
    pub(crate) to: Option<&'a str>,
    pub(crate) priority: u8,
    pub(crate) id: &'a str,
    pub(crate) body: &'a str,
}

impl<'a> Draft<'a> {
    pub(crate) fn direct(from: &'a str, to: &'a str) -> Self {
        Self { from, to: Some(to), priority: 5, id: "", body: "body" }
    }

    pub(crate) fn encode(&self, out: &mut BytesMut) {
        let kind = if self.to.is_some() { Kind::Direct } else { Kind::Broadcast };
        let to = self.to.unwrap_or("");
        let digest = self.body.len() as u64;
        let body = self.body.as_bytes();
        Record { kind, priority: self.priority, from: self.from, to, id: self.id, digest, body, ..Record::default() }
            .encode(out);
    }
}

impl TestShard {
    pub(crate) fn new() -> Self {
        let engine = Arc::new(MemoryEngine::new(keys::SPACES.into()));
        let reader = StateReader::default();
        let machine = Machine::open(engine.clone()).unwrap();
        reader.replace(engine.clone(), machine.recent_ids(), machine.policies());
        let delivery = Arc::new(Delivery::new(reader.clone(), EventMetrics::default()));
        Self { machine, engine, reader, delivery, time_ms: 1_000, max_inbox: 1_000 }
    }

    /// With a workspace and sandboxes `a`, `b`, `c`.
    pub(crate) fn with_sandboxes() -> Self {
        let mut shard = Self::new();
        shard.apply(&[create()]);
        shard.apply(&["a", "b", "c"].map(register));
        shard
    }

    pub(crate) fn command(&mut self, verbs: &[Verb]) -> Bytes {
        self.time_ms += 1;
        let header = Header {
            time_ms: self.time_ms,
            max_inbox_messages: self.max_inbox,
            max_inbox_bytes: 1 << 30,
            max_dead_letters: 1_000,
            dedupe_window_ms: 1_000_000,
        };
        let mut builder = CommandBuilder::new(header, 256);
        verbs.iter().for_each(|verb| builder.push(verb));
        builder.finish()
    }

    pub(crate) fn apply(&mut self, verbs: &[Verb]) -> Vec<Outcome> {
        let command = self.command(verbs);
        self.apply_chunk(&[command]).remove(0)
    }

    /// Applies several commands as one batch of writes.
    pub(crate) fn apply_chunk(&mut self, commands: &[Bytes]) -> Vec<Vec<Outcome>> {
        let (outcomes, effects) = self.apply_unpushed(commands);
        self.delivery.effects(effects.into_iter());
        outcomes
    }

    /// The same up to the moment before the effects are passed on: the state can be read, nothing is pushed.
    pub(crate) fn apply_unpushed(&mut self, commands: &[Bytes]) -> (Vec<Vec<Outcome>>, Vec<Effect>) {
        let (mut writes, mut effects) = (WriteBatch::new(), Vec::new());
        let outcomes = commands
            .iter()
            .map(|command| command::decode_outcomes(self.machine.apply(command, &mut writes, &mut effects).unwrap()))
            .collect::<Result<_, _>>();
        self.engine.write(writes, Durability::Deferred).unwrap();
        self.machine.visible();
        (outcomes.unwrap(), effects)
    }

    pub(crate) fn publish_verb(&self, drafts: &[Draft<'_>]) -> Verb {
        let mut batch = BytesMut::new();
        crate::batch::encode_header(self.time_ms + 1, drafts.len() as u32, &mut batch);
        drafts.iter().for_each(|draft| draft.encode(&mut batch));
        Verb::Publish(command::Publish { workspace: WORKSPACE.into(), batch: batch.freeze() })
    }

    /// Publishes records as they are, with the time of the shard.
    pub(crate) fn publish_records(&mut self, records: &[Record<'_>]) -> Published {
        let mut batch = BytesMut::new();
        crate::batch::encode_header(self.time_ms + 1, records.len() as u32, &mut batch);
        records.iter().for_each(|record| record.encode(&mut batch));
        let verb = Verb::Publish(command::Publish { workspace: WORKSPACE.into(), batch: batch.freeze() });
        match self.apply(&[verb]).remove(0) {
            Outcome::Publish(Ok(published)) => published,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn publish(&mut self, drafts: &[Draft<'_>]) -> Published {
        let verb = self.publish_verb(drafts);
        match self.apply(&[verb]).remove(0) {
            Outcome::Publish(Ok(published)) => published,
            other => panic!("{other:?}"),
        }
    }

    /// Lets everything happen that is due.
    pub(crate) fn tick(&mut self) {
        let tick = Tick {
            max_entries: 3,
            leased: self.delivery.leased_beyond_ttl(self.time_ms),
            heartbeat_timeout_ms: 1_000_000,
        };
        while let Outcome::Tick(Ok(Ticked { more: true, .. })) = self.apply(&[Verb::Tick(tick.clone())]).remove(0) {}
    }

    /// Takes messages as a subscriber does, at the time of the shard.
    pub(crate) fn take(&self, inbox: &SharedInbox, limit: usize) -> Vec<Item> {
        let mut taken = Vec::new();
        let taking = Taking { limit, low_priority_percent: 0, now_ms: self.time_ms };
        inbox.lock().take(taking, |_| true, &mut taken).unwrap();
        taken.into_iter().map(|(item, _)| item).collect()
    }

    /// Acknowledges messages.
    pub(crate) fn ack(&mut self, inbox: &SharedInbox, items: &[Item]) {
        self.ack_leases(inbox, leases(items));
    }

    pub(crate) fn ack_leases(&mut self, inbox: &SharedInbox, leases: Vec<Lease>) {
        let ack = inbox.lock().acknowledge(leases);
        let ended = inbox.lock().ending(ack.alone());
        self.apply(&[Verb::Ack(ack)]);
        self.delivery.ack_settled(inbox, &ended, true);
    }

    /// Fails with messages, and says what came of it: deferred, dead-lettered.
    pub(crate) fn nack(&mut self, inbox: &SharedInbox, items: &[Item], delay_ms: Option<u64>) -> (u64, u64) {
        let nack = failing(inbox, items, delay_ms, false);
        let ended = inbox.lock().ending(nack.alone());
        let outcome = self.apply(&[Verb::Nack(nack)]).remove(0);
        self.delivery.ack_settled(inbox, &ended, true);
        match outcome {
            Outcome::Nack(Ok(nacked)) => (nacked.deferred, nacked.dead_lettered),
            other => panic!("{other:?}"),
        }
    }

    /// The dead letters there are.
    pub(crate) fn dead_letters(&self) -> Vec<DeadLetter> {
        let mut found = Vec::new();
        let collect = &mut |_: &[u8], value: &[u8]| {
            found.push(DeadLetter::from_bytes(Bytes::copy_from_slice(value), "dead letter").unwrap());
            std::ops::ControlFlow::Continue(())
        };
        self.engine.scan(keys::DEAD, &[], &[], Direction::Forward, collect).unwrap();
        found
    }

    /// What happened, oldest first.
    pub(crate) fn events(&self) -> Vec<EventKind> {
        let mut found = Vec::new();
        let collect = &mut |_: &[u8], value: &[u8]| {
            found.push(Event::from_bytes(Bytes::copy_from_slice(value), "event").unwrap().kind);
            std::ops::ControlFlow::Continue(())
        };
        self.engine.scan(keys::EVENTS, &[], &[], Direction::Forward, collect).unwrap();
        found
    }

    pub(crate) fn restart(&mut self) {
        self.machine = Machine::open(self.engine.clone()).unwrap();
        self.reader.replace(self.engine.clone(), self.machine.recent_ids(), self.machine.policies());
        self.delivery = Arc::new(Delivery::new(self.reader.clone(), EventMetrics::default()));
    }

    pub(crate) fn open(&self, sandbox: &str) -> SharedInbox {
        self.delivery.open(WORKSPACE, sandbox).map_err(|error| error.to_string()).unwrap()
    }

    pub(crate) fn pending(&self, sandbox: &str) -> u64 {
        let workspace = self.reader.workspace(WORKSPACE).map_err(|error| error.to_string()).unwrap();
        self.reader.named_sandbox(&workspace, sandbox).map_err(|error| error.to_string()).unwrap().pending
    }

    pub(crate) fn dump(&self) -> Vec<(u8, Bytes, Bytes)> {
        let mut all = Vec::new();
        for space in 0..keys::SPACES {
            self.engine
                .scan(Space(space), &[], &[], Direction::Forward, &mut |key, value| {
                    all.push((space, Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
                    std::ops::ControlFlow::Continue(())
                })
                .unwrap();
        }
        all
    }
}

pub(crate) fn create() -> Verb {
    Verb::CreateWorkspace(CreateWorkspace {
        workspace: WORKSPACE.into(),
        max_workspaces: 2,
        settings: Default::default(),
    })
}

pub(crate) fn register(sandbox: &str) -> Verb {
    Verb::RegisterSandbox(RegisterSandbox {
        workspace: WORKSPACE.into(),
        sandbox: sandbox.into(),
        description: Bytes::from_static(b"d"),
        max_sandboxes: 4,
        settings: Default::default(),
        capabilities: Vec::new(),
        heartbeat_timeout_ms: 1_000_000,
    })
}

/// A sandbox that can do something.
pub(crate) fn register_with(sandbox: &str, capabilities: &[&str]) -> Verb {
    match register(sandbox) {
        Verb::RegisterSandbox(verb) => Verb::RegisterSandbox(RegisterSandbox {
            capabilities: capabilities.iter().map(|capability| (*capability).to_owned()).collect(),
            ..verb
        }),
        other => other,
    }
}

pub(crate) fn unregister(sandbox: &str) -> Verb {
    Verb::UnregisterSandbox(UnregisterSandbox { workspace: WORKSPACE.into(), sandbox: sandbox.into() })
}

pub(crate) fn take(inbox: &SharedInbox, limit: usize) -> Vec<Item> {
    let mut taken = Vec::new();
    let taking = Taking { limit, low_priority_percent: 0, now_ms: 1 };
    inbox.lock().take(taking, |_| true, &mut taken).unwrap();
    taken.into_iter().map(|(item, _)| item).collect()
}

pub(crate) fn sequences(items: &[Item]) -> Vec<u64> {
    items.iter().map(|item| item.message.sequence()).collect()
}

pub(crate) fn leases(items: &[Item]) -> Vec<Lease> {
    items.iter().map(Item::lease).collect()
}

/// What a subscriber says that fails with messages; nothing is applied yet.
pub(crate) fn failing(inbox: &SharedInbox, items: &[Item], delay_ms: Option<u64>, dead_letter: bool) -> Nack {
    let mut queue = inbox.lock();
    let (messages, finished) = queue.fail(leases(items));
    Nack {
        workspace: queue.loader.workspace,
        sandbox: queue.loader.sandbox,
        messages,
        finished,
        error: AttemptError::Nacked,
        text: Bytes::from_static(b"no"),
        delay_ms,
        dead_letter,
    }
}

/// Puts the dead letter with this sequence back into the inbox that it left.
pub(crate) fn redrive(inbox: &SharedInbox, sequence: u64) -> Verb {
    let dead_letters = vec![(inbox.lock().loader.sandbox, sequence)];
    Verb::Redrive(Redrive { workspace: WORKSPACE.into(), dead_letters, to_sandbox: String::new() })
}

pub(crate) fn refusal(exception: &Exception) -> Reason {
    match exception {
        Exception::Refused(rejection) => rejection.reason,
        other => panic!("{other:?}"),
    }
}
