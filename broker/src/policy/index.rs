//! Which rules fit a message, by sender, recipient and type.

use std::collections::HashMap;

use foldhash::fast::FixedState;

use super::{
    Facts, Recipient,
    form::{Entry, Form, Kind},
};

const WORDS: usize = 16;
pub(super) const MAX_RULES: usize = WORDS * 64 - 24;
/// Numbers of types, 0 included.
const TYPES: usize = 5;

/// A set of rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RuleSet([u64; WORDS]);

impl RuleSet {
    const NONE: Self = Self([0; WORDS]);

    fn insert(&mut self, number: usize) {
        self.0[number / 64] |= 1 << (number % 64);
    }

    fn add(&mut self, other: &Self) {
        for (word, more) in self.0.iter_mut().zip(&other.0) {
            *word |= more;
        }
    }

    fn cut(&mut self, other: &Self) {
        for (word, kept) in self.0.iter_mut().zip(&other.0) {
            *word &= kept;
        }
    }

    /// The rules in their order.
    pub(super) fn iter(self) -> impl Iterator<Item = usize> {
        self.0.into_iter().enumerate().flat_map(|(place, word)| {
            let next = |rest: &u64| (rest & (rest - 1) != 0).then(|| rest & (rest - 1));
            let rests = std::iter::successors((word != 0).then_some(word), next);
            rests.map(move |rest| place * 64 + rest.trailing_zeros() as usize)
        })
    }
}

/// See the module.
#[derive(Debug, Clone)]
pub(super) struct Index {
    from: Side,
    to: Side,
    types: [RuleSet; TYPES],
}

/// What rules say of one side of a message.
#[derive(Debug, Clone)]
struct Side {
    everything: RuleSet,
    /// Whoever writes a policy slows down only his own messages by names that collide.
    names: HashMap<Box<[u8]>, RuleSet, FixedState>,
    /// Sorted by how they begin. Each set holds those of shorter ones that begin it.
    prefixes: Vec<Prefix>,
}

#[derive(Debug, Clone)]
struct Prefix {
    begin: Box<[u8]>,
    rules: RuleSet,
    /// The longest other one that begins this one.
    shorter: Option<usize>,
}

/// A name with its kind before it, so that kinds do not meet.
fn key(kind: Kind, name: &str, out: &mut Vec<u8>) {
    out.clear();
    out.push(kind as u8);
    out.extend_from_slice(name.as_bytes());
}

impl Index {
    pub(super) fn of(form: &Form) -> Self {
        let mut types = [RuleSet::NONE; TYPES];
        for (number, rule) in form.rules.iter().enumerate() {
            match &rule.message_types {
                None => types.iter_mut().for_each(|rules| rules.insert(number)),
                Some(names) => names.iter().for_each(|name| types[usize::from(name.number())].insert(number)),
            }
        }
        let from = form.rules.iter().map(|rule| rule.from.as_slice());
        let to = form.rules.iter().map(|rule| rule.to.as_slice());
        Self { from: Side::of(from, false), to: Side::of(to, true), types }
    }

    /// The rules that fit but for their conditions.
    pub(super) fn fitting(&self, facts: &Facts<'_>) -> RuleSet {
        let mut buffer = Vec::with_capacity(64);
        let from = [(Kind::Sandbox, facts.from), (Kind::Agent, facts.from_agent)];
        let to = match facts.to {
            Recipient::Sandbox(name) => (Kind::Sandbox, name),
            Recipient::Capability(name) => (Kind::Capability, name),
            Recipient::Topic(name) => (Kind::Topic, name),
            Recipient::Broadcast => (Kind::Broadcast, ""),
        };
        let mut fitting = self.from.fitting(&from, &mut buffer);
        let to = [to, (Kind::Capability, facts.capability), (Kind::Agent, facts.to_agent)];
        fitting.cut(&self.to.fitting(&to, &mut buffer));
        fitting.cut(self.types.get(usize::from(facts.message_type)).unwrap_or(&self.types[0]));
        fitting
    }
}

impl Side {
    fn of<'a>(lists: impl Iterator<Item = &'a [String]>, is_recipient: bool) -> Self {
        let mut side = Self { everything: RuleSet::NONE, names: HashMap::default(), prefixes: Vec::new() };
        let mut prefixes: HashMap<Box<[u8]>, RuleSet, FixedState> = HashMap::default();
        let mut buffer = Vec::new();
        for (number, entries) in lists.enumerate() {
            for entry in entries {
                let (kind, name, into) = match Entry::parse(entry, is_recipient) {
                    Ok(Entry::Everything) => {
                        side.everything.insert(number);
                        continue;
                    }
                    Ok(Entry::Name(kind, name)) => (kind, name, &mut side.names),
                    Ok(Entry::Prefix(kind, begin)) => (kind, begin, &mut prefixes),
                    // Checked when the form was read.
                    Err(_) => continue,
                };
                key(kind, name, &mut buffer);
                into.entry(buffer.as_slice().into()).or_insert(RuleSet::NONE).insert(number);
            }
        }
        let mut sorted: Vec<_> = prefixes.into_iter().collect();
        sorted.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        for (begin, mut rules) in sorted {
            let shorter = side.longest(side.prefixes.len().checked_sub(1), &begin);
            if let Some(shorter) = shorter {
                rules.add(&side.prefixes[shorter].rules);
            }
            side.prefixes.push(Prefix { begin, rules, shorter });
        }
        side
    }

    /// The longest prefix that begins a name, from one that stands behind it or is it.
    fn longest(&self, mut from: Option<usize>, name: &[u8]) -> Option<usize> {
        while let Some(place) = from {
            let prefix = &self.prefixes[place];
            if name.starts_with(&prefix.begin) {
                return from;
            }
            from = prefix.shorter;
        }
        None
    }

    fn fitting(&self, names: &[(Kind, &str)], buffer: &mut Vec<u8>) -> RuleSet {
        let mut fitting = self.everything;
        for (kind, name) in names {
            // An agent or a capability that is not named is none.
            if name.is_empty() && matches!(kind, Kind::Agent | Kind::Capability) {
                continue;
            }
            key(*kind, name, buffer);
            if let Some(rules) = self.names.get(buffer.as_slice()) {
                fitting.add(rules);
            }
            let behind = self.prefixes.partition_point(|prefix| *prefix.begin <= **buffer);
            if let Some(place) = self.longest(behind.checked_sub(1), buffer) {
                fitting.add(&self.prefixes[place].rules);
            }
        }
        fitting
    }
}
