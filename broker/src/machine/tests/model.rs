//! Random histories: machine and delivery against a model, and one log against itself.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;

use super::harness::*;
use crate::{
    command::{Ack, Acked, Outcome, Registered, Unregistered, Verb},
    delivery::lane::Item,
};

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
        inbox.lock().give_back(item.lease());
    }
    if !done.is_empty() {
        let count = done.len() as u64;
        let ack: Ack = inbox.lock().acknowledge(leases(&done));
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
