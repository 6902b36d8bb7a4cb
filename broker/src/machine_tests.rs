//! The machine against tables, against a small slow model, and against itself.

use std::{collections::BTreeMap, sync::Arc};

use bytes::BytesMut;
use proptest::prelude::*;
use tandem_storage::{Direction, Durability, MemoryEngine, Space};

use super::*;
use crate::{
    batch::{Kind, Record},
    command::{
        Ack, Acked, CommandBuilder, CreateWorkspace, DeleteWorkspace, Header, Heartbeat, Published, RegisterSandbox,
        Registered, UnregisterSandbox, Unregistered, publish::Exception,
    },
    delivery::{Delivery, SharedInbox, lane::Item},
    query::StateReader,
    rejection::Reason,
};

const WORKSPACE: &str = "w";

/// A shard without replication: engine, machine, delivery.
struct TestShard {
    engine: Arc<MemoryEngine>,
    machine: Machine,
    reader: StateReader,
    delivery: Arc<Delivery>,
    time_ms: u64,
    max_inbox: u64,
}

/// A message as tests speak of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Draft<'a> {
    from: &'a str,
    /// Nobody: a broadcast.
    to: Option<&'a str>,
    priority: u8,
    id: &'a str,
    body: &'a str,
}

impl<'a> Draft<'a> {
    fn direct(from: &'a str, to: &'a str) -> Self {
        Self { from, to: Some(to), priority: 5, id: "", body: "body" }
    }

    fn encode(&self, out: &mut BytesMut) {
        let kind = if self.to.is_some() { Kind::Direct } else { Kind::Broadcast };
        let to = self.to.unwrap_or("");
        let digest = self.body.len() as u64;
        let body = self.body.as_bytes();
        Record { kind, priority: self.priority, from: self.from, to, id: self.id, digest, body }.encode(out);
    }
}

impl TestShard {
    fn new() -> Self {
        let engine = Arc::new(MemoryEngine::new(6));
        let reader = StateReader::default();
        reader.replace(engine.clone());
        let delivery = Arc::new(Delivery::new(reader.clone()));
        Self { machine: Machine::new(engine.clone()), engine, reader, delivery, time_ms: 1_000, max_inbox: 1_000 }
    }

    /// With a workspace and sandboxes `a`, `b`, `c`.
    fn with_sandboxes() -> Self {
        let mut shard = Self::new();
        shard.apply(&[create()]);
        shard.apply(&["a", "b", "c"].map(register));
        shard
    }

    fn command(&mut self, verbs: &[Verb]) -> Bytes {
        self.time_ms += 1;
        let header = Header { time_ms: self.time_ms, max_inbox_messages: self.max_inbox };
        let mut builder = CommandBuilder::new(header, 256);
        verbs.iter().for_each(|verb| builder.push(verb));
        builder.finish()
    }

    fn apply(&mut self, verbs: &[Verb]) -> Vec<Outcome> {
        let command = self.command(verbs);
        self.apply_chunk(&[command]).remove(0)
    }

    /// Applies several commands as one batch of writes.
    fn apply_chunk(&mut self, commands: &[Bytes]) -> Vec<Vec<Outcome>> {
        let (mut writes, mut effects) = (WriteBatch::new(), Vec::new());
        let outcomes = commands
            .iter()
            .map(|command| command::decode_outcomes(self.machine.apply(command, &mut writes, &mut effects).unwrap()))
            .collect::<Result<_, _>>();
        self.engine.write(writes, Durability::Deferred).unwrap();
        self.machine.visible();
        self.delivery.effects(effects.into_iter());
        outcomes.unwrap()
    }

    fn publish_verb(&self, drafts: &[Draft<'_>]) -> Verb {
        let mut batch = BytesMut::new();
        crate::batch::encode_header(self.time_ms + 1, drafts.len() as u32, &mut batch);
        drafts.iter().for_each(|draft| draft.encode(&mut batch));
        Verb::Publish(command::Publish { workspace: WORKSPACE.into(), batch: batch.freeze() })
    }

    fn publish(&mut self, drafts: &[Draft<'_>]) -> Published {
        let verb = self.publish_verb(drafts);
        match self.apply(&[verb]).remove(0) {
            Outcome::Publish(Ok(published)) => published,
            other => panic!("{other:?}"),
        }
    }

    fn restart(&mut self) {
        self.machine = Machine::new(self.engine.clone());
        self.delivery = Arc::new(Delivery::new(self.reader.clone()));
    }

    fn open(&self, sandbox: &str) -> SharedInbox {
        self.delivery.open(WORKSPACE, sandbox).map_err(|error| error.to_string()).unwrap()
    }

    fn pending(&self, sandbox: &str) -> u64 {
        let workspace = self.reader.workspace(WORKSPACE).map_err(|error| error.to_string()).unwrap();
        self.reader.named_sandbox(&workspace, sandbox).map_err(|error| error.to_string()).unwrap().pending
    }

    fn dump(&self) -> Vec<(u8, Bytes, Bytes)> {
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

fn create() -> Verb {
    Verb::CreateWorkspace(CreateWorkspace { workspace: WORKSPACE.into(), max_workspaces: 2 })
}

fn register(sandbox: &str) -> Verb {
    Verb::RegisterSandbox(RegisterSandbox {
        workspace: WORKSPACE.into(),
        sandbox: sandbox.into(),
        description: Bytes::from_static(b"d"),
        max_sandboxes: 4,
    })
}

fn unregister(sandbox: &str) -> Verb {
    Verb::UnregisterSandbox(UnregisterSandbox { workspace: WORKSPACE.into(), sandbox: sandbox.into() })
}

fn take(inbox: &SharedInbox, limit: usize) -> Vec<Item> {
    let mut taken = Vec::new();
    inbox.lock().take(limit, |_| true, &mut taken).unwrap();
    taken
}

fn sequences(items: &[Item]) -> Vec<u64> {
    items.iter().map(|item| item.message.sequence()).collect()
}

fn refusal(exception: &Exception) -> Reason {
    match exception {
        Exception::Refused(rejection) => rejection.reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn sequences_follow_positions_and_refused_messages_leave_their_places_empty() {
    let mut shard = TestShard::with_sandboxes();
    let published = shard.publish(&[
        Draft::direct("a", "b"),
        Draft::direct("a", "nobody"),
        Draft::direct("stranger", "b"),
        Draft::direct("a", "c"),
    ]);
    assert_eq!(published.first_sequence, 1);
    let reasons: Vec<_> = published.exceptions.iter().map(|(index, why)| (*index, refusal(why))).collect();
    assert_eq!(reasons, [(1, Reason::UnknownSandbox), (2, Reason::UnknownSandbox)]);
    assert_eq!(sequences(&take(&shard.open("b"), 10)), [1]);
    assert_eq!(sequences(&take(&shard.open("c"), 10)), [4]);
    assert_eq!(shard.publish(&[Draft::direct("a", "b")]).first_sequence, 5);
}

#[test]
fn a_batch_of_which_nothing_is_good_leaves_no_trace() {
    let mut shard = TestShard::with_sandboxes();
    let before = shard.dump();
    shard.publish(&[Draft::direct("a", "nobody")]);
    let changed: Vec<_> = shard.dump().into_iter().filter(|pair| !before.contains(pair)).collect();
    assert!(changed.iter().all(|(_, key, _)| *key == keys::shard()), "{changed:?}");
}

#[test]
fn higher_priority_comes_first_and_commit_order_within() {
    let mut shard = TestShard::with_sandboxes();
    for priority in [0, 5, 9, 5, 0, 9] {
        shard.publish(&[Draft { priority, ..Draft::direct("a", "b") }]);
    }
    shard.publish(&[Draft { to: None, priority: 5, ..Draft::direct("a", "") }]);
    assert_eq!(sequences(&take(&shard.open("b"), 10)), [3, 6, 2, 4, 7, 1, 5]);
}

#[test]
fn a_broadcast_reaches_everybody_who_is_there_but_the_sender() {
    let mut shard = TestShard::with_sandboxes();
    shard.publish(&[Draft { to: None, ..Draft::direct("a", "") }]);
    shard.apply(&[register("late")]);
    shard.publish(&[Draft { to: None, ..Draft::direct("b", "") }]);
    let got = |sandbox: &str| sequences(&take(&shard.open(sandbox), 10));
    assert_eq!((got("a"), got("b"), got("c"), got("late")), (vec![2], vec![1], vec![1, 2], vec![2]));
    assert_eq!(["a", "b", "c", "late"].map(|sandbox| shard.pending(sandbox)), [1, 1, 2, 1]);
    let runs = shard.dump().into_iter().filter(|(space, ..)| Space(*space) == keys::RUNS).count();
    assert_eq!(runs, 2, "written once, whatever the number of followers");
}

#[test]
fn the_same_message_id_is_published_once() {
    let mut shard = TestShard::with_sandboxes();
    let first = Draft { id: "m1", ..Draft::direct("a", "b") };
    assert!(shard.publish(&[first]).exceptions.is_empty());
    let again = shard.publish(&[first, Draft { id: "m2", ..first }, Draft { id: "m2", ..first }]);
    let time_ms = shard.time_ms;
    assert_eq!(again.exceptions[0], (0, Exception::Duplicate { sequence: 1, time_ms: time_ms - 1 }));
    assert_eq!(again.exceptions[1], (2, Exception::Duplicate { sequence: 3, time_ms }));
    shard.restart();
    let other = shard.publish(&[Draft { body: "another", ..first }]);
    assert_eq!(refusal(&other.exceptions[0].1), Reason::MessageIdReused);
    assert_eq!(sequences(&take(&shard.open("b"), 10)), [1, 3]);
}

#[test]
fn a_full_inbox_refuses_and_others_go_through() {
    let mut shard = TestShard::with_sandboxes();
    shard.max_inbox = 2;
    let published = shard.publish(&[
        Draft::direct("a", "b"),
        Draft::direct("a", "b"),
        Draft::direct("a", "b"),
        Draft::direct("a", "c"),
    ]);
    assert_eq!(published.exceptions.len(), 1);
    assert_eq!(refusal(&published.exceptions[0].1), Reason::InboxFull);
    let inbox = shard.open("b");
    let taken = take(&inbox, 1);
    let ack = inbox.lock().acknowledge(taken);
    shard.apply(&[Verb::Ack(ack)]);
    assert!(shard.publish(&[Draft::direct("a", "b")]).exceptions.is_empty(), "an ack makes room");
}

#[test]
fn acks_take_messages_out_and_runs_away() {
    let mut shard = TestShard::with_sandboxes();
    shard.publish(&[Draft::direct("a", "b"), Draft::direct("a", "c"), Draft::direct("a", "b")]);
    shard.publish(&[Draft::direct("a", "b")]);
    let inbox = shard.open("b");
    let mut taken = take(&inbox, 10);
    let last = taken.pop().unwrap();
    let ack = inbox.lock().acknowledge(vec![last]);
    assert_eq!(shard.apply(&[Verb::Ack(ack.clone())]), [Outcome::Ack(Ok(Acked { count: 1 }))]);
    assert_eq!(
        shard.apply(&[Verb::Ack(ack)]),
        [Outcome::Ack(Ok(Acked { count: 0 }))],
        "a repeated ack changes nothing"
    );
    assert_eq!(shard.pending("b"), 2);
    let ack = inbox.lock().acknowledge(taken);
    shard.apply(&[Verb::Ack(ack)]);
    assert_eq!(shard.pending("b"), 0);
    let (from, to) = keys::runs_of(1, 2);
    let left =
        shard.dump().into_iter().filter(|(space, key, _)| Space(*space) == keys::RUNS && *key >= from && *key < to);
    assert_eq!(left.count(), 0);
}

#[test]
fn a_sandbox_that_comes_again_is_another_one() {
    let mut shard = TestShard::with_sandboxes();
    shard.publish(&[Draft::direct("a", "b"), Draft::direct("a", "b")]);
    let inbox = shard.open("b");
    let taken = take(&inbox, 1);
    let ack = inbox.lock().acknowledge(taken);
    let outcomes = shard.apply(&[unregister("b"), Verb::Ack(ack), register("b")]);
    assert_eq!(outcomes[0], Outcome::UnregisterSandbox(Ok(Unregistered { abandoned: 2 })));
    assert!(matches!(&outcomes[1], Outcome::Ack(Err(rejection)) if rejection.reason == Reason::LeaseLost));
    assert_eq!(outcomes[2], Outcome::RegisterSandbox(Ok(Registered { created: true })));
    assert!(inbox.lock().ended.is_some(), "streams of the old one end");
    shard.publish(&[Draft::direct("a", "b")]);
    assert_eq!(sequences(&take(&shard.open("b"), 10)), [3], "what the old one left is not for the new one");
}

#[test]
fn limits_and_unknown_names_are_refused() {
    let mut shard = TestShard::new();
    let reason = |outcomes: Vec<Outcome>| match outcomes.into_iter().next() {
        Some(
            Outcome::RegisterSandbox(Err(rejection))
            | Outcome::Heartbeat(Err(rejection))
            | Outcome::UnregisterSandbox(Err(rejection))
            | Outcome::CreateWorkspace(Err(rejection))
            | Outcome::DeleteWorkspace(Err(rejection))
            | Outcome::Publish(Err(rejection)),
        ) => rejection.reason,
        other => panic!("{other:?}"),
    };
    let heartbeat = || Verb::Heartbeat(Heartbeat { workspace: WORKSPACE.into(), sandbox: "x".into() });
    let delete = || Verb::DeleteWorkspace(DeleteWorkspace { workspace: WORKSPACE.into() });
    for verb in [register("a"), unregister("a"), heartbeat(), delete(), shard.publish_verb(&[Draft::direct("a", "b")])]
    {
        assert_eq!(reason(shard.apply(&[verb])), Reason::UnknownWorkspace);
    }
    shard.apply(&[create()]);
    assert_eq!(reason(shard.apply(&[create()])), Reason::WorkspaceExists);
    assert_eq!(reason(shard.apply(&[heartbeat()])), Reason::UnknownSandbox);
    assert_eq!(reason(shard.apply(&[unregister("x")])), Reason::UnknownSandbox);
    shard.apply(&["a", "b", "c", "d"].map(register));
    assert_eq!(reason(shard.apply(&[register("e")])), Reason::TooManySandboxes);
    let other = |name: &str| Verb::CreateWorkspace(CreateWorkspace { workspace: name.into(), max_workspaces: 2 });
    shard.apply(&[other("w2")]);
    assert_eq!(reason(shard.apply(&[other("w3")])), Reason::TooManyWorkspaces);
}

#[test]
fn a_deleted_workspace_leaves_only_the_shard_record() {
    let mut shard = TestShard::with_sandboxes();
    shard.publish(&[Draft { id: "m1", ..Draft::direct("a", "b") }, Draft { to: None, ..Draft::direct("a", "") }]);
    shard.apply(&[Verb::DeleteWorkspace(DeleteWorkspace { workspace: WORKSPACE.into() })]);
    assert_eq!(shard.dump().iter().map(|(_, key, _)| key.clone()).collect::<Vec<_>>(), [keys::shard()]);
    let outcomes = shard.apply(&[create(), register("a"), register("b")]);
    assert_eq!(outcomes[1], Outcome::RegisterSandbox(Ok(Registered { created: true })));
    assert_eq!(shard.publish(&[Draft { id: "m1", ..Draft::direct("a", "b") }]).first_sequence, 1);
}

#[test]
fn time_never_runs_backwards() {
    let mut shard = TestShard::with_sandboxes();
    shard.time_ms = 500;
    shard.apply(&[Verb::Heartbeat(Heartbeat { workspace: WORKSPACE.into(), sandbox: "a".into() })]);
    assert!(shard.reader.time_ms().unwrap() >= 1_001);
}

/// One step of a random history.
#[derive(Debug, Clone)]
enum Step {
    Register(usize),
    Unregister(usize),
    Publish(Vec<(usize, Option<usize>, u8, Option<u8>)>),
    /// Takes some messages and acknowledges those that the mask picks.
    Work {
        sandbox: usize,
        count: usize,
        mask: u16,
    },
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let sandbox = 0usize..4;
    let message = (sandbox.clone(), prop::option::of(sandbox.clone()), 0u8..10, prop::option::weighted(0.3, 0u8..12));
    prop_oneof![
        3 => sandbox.clone().prop_map(Step::Register),
        1 => sandbox.clone().prop_map(Step::Unregister),
        8 => prop::collection::vec(message, 1..6).prop_map(Step::Publish),
        8 => (sandbox, 1usize..8, any::<u16>()).prop_map(|(sandbox, count, mask)| Step::Work { sandbox, count, mask }),
        1 => Just(Step::Restart),
    ]
}

/// What a workspace is, told as simply as possible: every sandbox has a list of what waits.
#[derive(Default)]
struct Model {
    waiting: BTreeMap<usize, Vec<(u8, u64)>>,
    ids: BTreeMap<u8, u64>,
    last: u64,
}

const NAMES: [&str; 4] = ["a", "b", "c", "d"];
const IDS: [&str; 12] = ["i0", "i1", "i2", "i3", "i4", "i5", "i6", "i7", "i8", "i9", "i10", "i11"];

impl Model {
    /// Sequences of the accepted ones, duplicates and refusals as none.
    fn publish(&mut self, messages: &[(usize, Option<usize>, u8, Option<u8>)]) -> Vec<Option<u64>> {
        let first = self.last + 1;
        let mut accepted = Vec::new();
        for (position, (from, to, priority, id)) in messages.iter().enumerate() {
            let sequence = first + position as u64;
            let known = id.is_some_and(|id| self.ids.contains_key(&id));
            let there = self.waiting.contains_key(from) && to.is_none_or(|to| self.waiting.contains_key(&to));
            if known || !there {
                accepted.push(None);
                continue;
            }
            if let Some(id) = id {
                self.ids.insert(*id, sequence);
            }
            for (sandbox, waiting) in &mut self.waiting {
                if to.map_or(sandbox != from, |to| *sandbox == to) {
                    waiting.push((9 - priority, sequence));
                    waiting.sort_unstable();
                }
            }
            accepted.push(Some(sequence));
        }
        if accepted.iter().any(Option::is_some) {
            self.last += messages.len() as u64;
        }
        accepted
    }
}

/// Runs a history on machine, delivery and model and compares what can be seen.
fn run(steps: &[Step]) -> Result<TestShard, TestCaseError> {
    let mut shard = TestShard::new();
    shard.apply(&[create()]);
    let mut model = Model::default();
    for step in steps {
        match step {
            Step::Register(sandbox) => {
                let created = !model.waiting.contains_key(sandbox);
                let outcome = shard.apply(&[register(NAMES[*sandbox])]).remove(0);
                prop_assert_eq!(outcome, Outcome::RegisterSandbox(Ok(Registered { created })));
                model.waiting.entry(*sandbox).or_default();
            }
            Step::Unregister(sandbox) => {
                let outcome = shard.apply(&[unregister(NAMES[*sandbox])]).remove(0);
                match model.waiting.remove(sandbox) {
                    Some(waiting) => {
                        let abandoned = waiting.len() as u64;
                        prop_assert_eq!(outcome, Outcome::UnregisterSandbox(Ok(Unregistered { abandoned })));
                    }
                    None => prop_assert!(matches!(outcome, Outcome::UnregisterSandbox(Err(_)))),
                }
            }
            Step::Publish(messages) => {
                let drafts: Vec<_> = messages
                    .iter()
                    .map(|(from, to, priority, id)| Draft {
                        from: NAMES[*from],
                        to: to.map(|to| NAMES[to]),
                        priority: *priority,
                        id: id.map_or("", |id| IDS[usize::from(id)]),
                        body: "same",
                    })
                    .collect();
                let published = shard.publish(&drafts);
                let seen: Vec<_> = (0..drafts.len())
                    .map(|index| {
                        let excepted = published.exceptions.iter().any(|(at, _)| *at as usize == index);
                        (!excepted).then_some(published.first_sequence + index as u64)
                    })
                    .collect();
                prop_assert_eq!(seen, model.publish(messages));
            }
            Step::Work { sandbox, count, mask } => {
                if let Some(waiting) = model.waiting.get_mut(sandbox) {
                    work(&mut shard, waiting, NAMES[*sandbox], *count, *mask)?;
                }
            }
            Step::Restart => shard.restart(),
        }
        for (sandbox, waiting) in &model.waiting {
            prop_assert_eq!(shard.pending(NAMES[*sandbox]), waiting.len() as u64, "pending of {}", NAMES[*sandbox]);
        }
    }
    shard.restart();
    for (sandbox, waiting) in &model.waiting {
        let left: Vec<_> = waiting.iter().map(|(_, sequence)| *sequence).collect();
        prop_assert_eq!(sequences(&take(&shard.open(NAMES[*sandbox]), 10_000)), left);
    }
    Ok(shard)
}

fn work(
    shard: &mut TestShard,
    waiting: &mut Vec<(u8, u64)>,
    sandbox: &str,
    count: usize,
    mask: u16,
) -> Result<(), TestCaseError> {
    let inbox = shard.open(sandbox);
    let taken = take(&inbox, count);
    let expected: Vec<_> = waiting.iter().take(count).map(|(_, sequence)| *sequence).collect();
    prop_assert_eq!(sequences(&taken), expected);
    let (done, kept): (Vec<_>, Vec<_>) = taken.into_iter().enumerate().partition(|(at, _)| mask >> at & 1 == 1);
    let done: Vec<Item> = done.into_iter().map(|(_, item)| item).collect();
    waiting.retain(|(_, sequence)| !sequences(&done).contains(sequence));
    for (_, item) in kept {
        let mut queue = inbox.lock();
        queue.lane_mut(item.lane).unwrap().give_back(item);
    }
    if !done.is_empty() {
        let count = done.len() as u64;
        let ack: Ack = inbox.lock().acknowledge(done);
        prop_assert_eq!(shard.apply(&[Verb::Ack(ack)]), [Outcome::Ack(Ok(Acked { count }))]);
        shard.delivery.ack_settled(&inbox, true);
    }
    // The stream stays open in half of the cases, so that pushes and loads both happen.
    if mask & 0x8000 == 0 {
        shard.delivery.close(&inbox);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn machine_and_delivery_agree_with_the_model(steps in prop::collection::vec(step(), 1..60)) {
        run(&steps)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Promise: the same log gives byte-identical state, however it is cut into batches of writes and restarts.
    #[test]
    fn the_same_log_gives_the_same_bytes(
        messages in prop::collection::vec((0usize..4, prop::option::of(0usize..4), 0u8..10, prop::option::of(0u8..12)), 1..40),
        cuts in prop::collection::vec(1usize..5, 40),
    ) {
        let mut one = TestShard::new();
        let mut verbs = vec![create(), register("a"), register("b"), register("c"), register("d"), unregister("c")];
        for (from, to, priority, id) in &messages {
            let id = id.map_or("", |id| IDS[usize::from(id)]);
            let draft =
                Draft { from: NAMES[*from], to: to.map(|to| NAMES[to]), priority: *priority, id, body: "same" };
            verbs.push(one.publish_verb(&[draft]));
            verbs.push(register(NAMES[*from]));
        }
        let commands: Vec<Bytes> = verbs.iter().map(|verb| one.command(std::slice::from_ref(verb))).collect();
        let outcomes: Vec<_> = commands.iter().flat_map(|command| one.apply_chunk(std::slice::from_ref(command))).collect();
        let mut other = TestShard::new();
        let mut rest = commands.as_slice();
        let mut again = Vec::new();
        for cut in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (chunk, tail) = rest.split_at((*cut).min(rest.len()));
            again.extend(other.apply_chunk(chunk));
            rest = tail;
            if *cut == 3 {
                other.restart();
            }
        }
        prop_assert_eq!(outcomes, again);
        prop_assert_eq!(one.dump(), other.dump());
    }
}
