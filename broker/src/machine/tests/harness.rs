//! A shard without replication, and what tests say to it.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tandem_storage::{Direction, Durability, Engine, MemoryEngine, Space, WriteBatch};

use crate::{
    batch::{Kind, Record},
    command::{
        self, CommandBuilder, CreateWorkspace, Header, Outcome, Published, RegisterSandbox, UnregisterSandbox, Verb,
        publish::Exception,
    },
    delivery::{
        Delivery, SharedInbox,
        lane::{Item, Lease},
    },
    machine::{Effect, Machine},
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
        Record { kind, priority: self.priority, from: self.from, to, id: self.id, digest, body }.encode(out);
    }
}

impl TestShard {
    pub(crate) fn new() -> Self {
        let engine = Arc::new(MemoryEngine::new(6));
        let reader = StateReader::default();
        reader.replace(engine.clone());
        let delivery = Arc::new(Delivery::new(reader.clone()));
        Self { machine: Machine::new(engine.clone()), engine, reader, delivery, time_ms: 1_000, max_inbox: 1_000 }
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
        let header = Header { time_ms: self.time_ms, max_inbox_messages: self.max_inbox };
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

    pub(crate) fn publish(&mut self, drafts: &[Draft<'_>]) -> Published {
        let verb = self.publish_verb(drafts);
        match self.apply(&[verb]).remove(0) {
            Outcome::Publish(Ok(published)) => published,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn restart(&mut self) {
        self.machine = Machine::new(self.engine.clone());
        self.delivery = Arc::new(Delivery::new(self.reader.clone()));
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
        for space in 0..6 {
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
    Verb::CreateWorkspace(CreateWorkspace { workspace: WORKSPACE.into(), max_workspaces: 2 })
}

pub(crate) fn register(sandbox: &str) -> Verb {
    Verb::RegisterSandbox(RegisterSandbox {
        workspace: WORKSPACE.into(),
        sandbox: sandbox.into(),
        description: Bytes::from_static(b"d"),
        max_sandboxes: 4,
    })
}

pub(crate) fn unregister(sandbox: &str) -> Verb {
    Verb::UnregisterSandbox(UnregisterSandbox { workspace: WORKSPACE.into(), sandbox: sandbox.into() })
}

pub(crate) fn take(inbox: &SharedInbox, limit: usize) -> Vec<Item> {
    let mut taken = Vec::new();
    inbox.lock().take(limit, |_| true, &mut taken).unwrap();
    taken
}

pub(crate) fn sequences(items: &[Item]) -> Vec<u64> {
    items.iter().map(|item| item.message.sequence()).collect()
}

pub(crate) fn leases(items: &[Item]) -> Vec<Lease> {
    items.iter().map(Item::lease).collect()
}

pub(crate) fn refusal(exception: &Exception) -> Reason {
    match exception {
        Exception::Refused(rejection) => rejection.reason,
        other => panic!("{other:?}"),
    }
}
