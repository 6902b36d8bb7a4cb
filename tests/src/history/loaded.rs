//! The events of one workspace in memory: names as numbers, one list for each kind.
//!
//! An hour of a run is some millions of events; as text they are gigabytes, like this some hundred megabytes.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, BufRead, BufReader},
    path::Path,
    rc::Rc,
};

use super::event::{Act, Event, Outcome};

/// Stands for a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Name(u32);

/// Gives every name a number.
#[derive(Debug, Default)]
pub(super) struct Names {
    numbers: HashMap<Rc<str>, Name>,
    names: Vec<Rc<str>>,
}

impl Names {
    fn of(&mut self, text: &str) -> Name {
        if let Some(name) = self.numbers.get(text) {
            return *name;
        }
        let (name, text) = (Name(self.names.len() as u32), Rc::<str>::from(text));
        self.names.push(Rc::clone(&text));
        self.numbers.insert(text, name);
        name
    }
}

/// A message that was published.
pub(super) struct Published {
    pub(super) line: u32,
    pub(super) invoke: u64,
    pub(super) done: u64,
    pub(super) id: Name,
    /// A place in [`Loaded::audiences`].
    pub(super) to: u32,
    /// None without a key.
    pub(super) key: Option<Name>,
    pub(super) content: u64,
    pub(super) expires: bool,
    pub(super) tries: u32,
    pub(super) outcome: Outcome,
    pub(super) sequence: u64,
}

/// A delivery that came.
pub(super) struct Delivered {
    pub(super) line: u32,
    pub(super) at: u64,
    pub(super) subscription: Name,
    pub(super) sandbox: Name,
    pub(super) sequence: u64,
    pub(super) id: Name,
    pub(super) content: u64,
    pub(super) attempt: u32,
}

/// An ack of one delivery.
pub(super) struct Acked {
    pub(super) line: u32,
    pub(super) invoke: u64,
    pub(super) done: u64,
    pub(super) subscription: Name,
    pub(super) sandbox: Name,
    pub(super) sequence: u64,
    pub(super) attempt: u32,
    pub(super) outcome: Outcome,
}

/// A nack of one delivery.
pub(super) struct Nacked {
    pub(super) sandbox: Name,
    pub(super) sequence: u64,
    pub(super) dead_letter: bool,
    pub(super) outcome: Outcome,
}

/// A message as it was read, from the log at the end or by a reader meanwhile.
pub(super) struct Logged {
    pub(super) line: u32,
    pub(super) sequence: u64,
    pub(super) id: Name,
    pub(super) content: u64,
}

/// Everything.
#[derive(Default)]
pub(super) struct Loaded {
    pub(super) events: u64,
    names: Names,
    pub(super) audiences: Vec<Vec<Name>>,
    pub(super) publishes: Vec<Published>,
    /// When each subscription was asked for.
    pub(super) subscriptions: HashMap<Name, u64>,
    pub(super) deliveries: Vec<Delivered>,
    pub(super) acks: Vec<Acked>,
    pub(super) nacks: Vec<Nacked>,
    /// By stream.
    pub(super) reads: HashMap<Name, Vec<Logged>>,
    /// By sequence, as the last reader got it: in the order of the file.
    pub(super) log: Vec<Logged>,
    /// Recipient and sequence, sorted, with the line.
    pub(super) dead_letters: Vec<(Name, u64, u32)>,
    pub(super) rests: Vec<(Name, u64, u32)>,
    /// Of what, which node, what it says, and the line.
    pub(super) states: Vec<(Name, u64, Name, u32)>,
    audience_numbers: HashMap<Vec<Name>, u32>,
}

impl Loaded {
    /// Reads a file.
    pub(super) fn read(file: &Path) -> io::Result<Self> {
        let mut loaded = Self::default();
        for (line, text) in (1..).zip(BufReader::new(File::open(file)?).lines()) {
            let event = serde_json::from_str(&text?).map_err(|error| {
                io::Error::new(io::ErrorKind::InvalidData, format!("{} line {line}: {error}", file.display()))
            })?;
            loaded.add(line, event);
        }
        loaded.dead_letters.sort_unstable();
        Ok(loaded)
    }

    /// What a name was.
    pub(super) fn text(&self, name: Name) -> &str {
        &self.names.names[name.0 as usize]
    }

    /// The log by sequence. A log that is out of order or holds a sequence twice is found by `reads_are_gap_free`.
    pub(super) fn at(&self, sequence: u64) -> Option<&Logged> {
        let found = self.log.binary_search_by_key(&sequence, |logged| logged.sequence);
        found.ok().map(|at| &self.log[at])
    }

    /// Publishes by the name of their message.
    pub(super) fn by_id(&self) -> HashMap<Name, &Published> {
        self.publishes.iter().map(|published| (published.id, published)).collect()
    }

    fn add(&mut self, line: u32, event: Event) {
        self.events += 1;
        let Event { invoke, done, act, .. } = event;
        match act {
            Act::Publish { id, to, key, content, expires, tries, outcome, sequence } => {
                let id = self.names.of(&id);
                let to = self.audience(&to);
                let key = (!key.is_empty()).then(|| self.names.of(&key));
                let published =
                    Published { line, invoke, done, id, to, key, content, expires, tries, outcome, sequence };
                self.publishes.push(published);
            }
            Act::Subscribe { subscription, .. } => {
                let subscription = self.names.of(&subscription);
                self.subscriptions.insert(subscription, invoke);
            }
            Act::Deliver { subscription, sandbox, sequence, id, content, attempt } => {
                let (subscription, sandbox) = (self.names.of(&subscription), self.names.of(&sandbox));
                let id = self.names.of(&id);
                let delivered = Delivered { line, at: done, subscription, sandbox, sequence, id, content, attempt };
                self.deliveries.push(delivered);
            }
            Act::Ack { subscription, sandbox, deliveries, outcome } => {
                let (subscription, sandbox) = (self.names.of(&subscription), self.names.of(&sandbox));
                self.acks.extend(deliveries.into_iter().map(|(sequence, attempt)| Acked {
                    line,
                    invoke,
                    done,
                    subscription,
                    sandbox,
                    sequence,
                    attempt,
                    outcome,
                }));
            }
            Act::Nack { sandbox, sequence, dead_letter, outcome, .. } => {
                let sandbox = self.names.of(&sandbox);
                self.nacks.push(Nacked { sandbox, sequence, dead_letter, outcome });
            }
            other => self.add_found(line, other),
        }
    }

    /// What readers of the log found, and what is there at the end.
    fn add_found(&mut self, line: u32, act: Act) {
        match act {
            Act::Read { stream, messages } => {
                let stream = self.names.of(&stream);
                let messages: Vec<_> =
                    messages.iter().map(|(sequence, id, content)| self.logged(line, *sequence, id, *content)).collect();
                self.reads.entry(stream).or_default().extend(messages);
            }
            Act::Log { sequence, id, content } => {
                let logged = self.logged(line, sequence, &id, content);
                self.log.push(logged);
            }
            Act::DeadLetter { sandbox, sequence } => {
                let sandbox = self.names.of(&sandbox);
                self.dead_letters.push((sandbox, sequence, line));
            }
            Act::Rest { sandbox, pending } => {
                let sandbox = self.names.of(&sandbox);
                self.rests.push((sandbox, pending, line));
            }
            Act::State { node, what, value } => {
                let (what, value) = (self.names.of(&what), self.names.of(&value));
                self.states.push((what, node, value, line));
            }
            Act::Publish { .. } | Act::Subscribe { .. } | Act::Deliver { .. } | Act::Ack { .. } | Act::Nack { .. } => {}
        }
    }

    fn logged(&mut self, line: u32, sequence: u64, id: &str, content: u64) -> Logged {
        Logged { line, sequence, id: self.names.of(id), content }
    }

    fn audience(&mut self, to: &[String]) -> u32 {
        let to: Vec<Name> = to.iter().map(|sandbox| self.names.of(sandbox)).collect();
        if let Some(number) = self.audience_numbers.get(&to) {
            return *number;
        }
        let number = self.audiences.len() as u32;
        self.audiences.push(to.clone());
        self.audience_numbers.insert(to, number);
        number
    }
}
