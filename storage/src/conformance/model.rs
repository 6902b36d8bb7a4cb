//! The reference for property tests: a sorted map per space, and the steps that are done to it and to an engine.

use std::collections::BTreeMap;

use super::{SPACE_COUNT, Subject, must, scan};
use crate::{Direction, Durability, Operation, Space, WriteBatch};

type Contents = [BTreeMap<Vec<u8>, Vec<u8>>; SPACE_COUNT];

/// One thing to do to an engine.
#[derive(Debug, Clone)]
pub enum Step {
    /// Write a batch.
    Write(Vec<Operation>, Durability),
    /// Compare what a key holds.
    Get(Space, Vec<u8>),
    /// Compare what a range holds.
    Scan(Space, Vec<u8>, Vec<u8>, Direction),
    /// A durability point.
    Flush,
    /// Close and open.
    Reopen,
    /// Crash and recover.
    Crash,
}

/// Does the steps to a fresh subject and to the model, and panics where they differ. After a crash the engine may hold any
/// prefix of the batches that reaches the last durability point; the model goes on with the one that it finds.
pub fn check(subject: &mut dyn Subject, steps: &[Step]) {
    let mut model = Model::default();
    for step in steps {
        match step {
            Step::Write(operations, durability) => {
                let mut batch = WriteBatch::new();
                for operation in operations {
                    batch.push(operation.clone());
                }
                must(subject.engine().write(batch, *durability));
                model.write(operations);
                if *durability == Durability::Synced {
                    model.became_durable();
                }
            }
            Step::Get(space, key) => {
                let found = must(subject.engine().get(*space, key)).map(|value| value.to_vec());
                assert_eq!(found.as_ref(), model.space(*space).get(key), "get {space:?} {key:?}");
            }
            Step::Scan(space, from, to, direction) => {
                let found = scan(subject.engine(), *space, from, to, *direction);
                assert_eq!(found, model.scan(*space, from, to, *direction), "scan {space:?} {from:?}..{to:?}");
            }
            Step::Flush => {
                must(subject.engine().flush());
                model.became_durable();
            }
            Step::Reopen => {
                must(subject.engine().flush());
                model.became_durable();
                subject.reopen();
            }
            Step::Crash => {
                if subject.crash() {
                    model.adopt(contents(subject));
                    must(subject.engine().flush());
                }
            }
        }
    }
    model.adopt_newest(contents(subject));
}

/// The contents after every batch since the last durability point, the oldest first.
struct Model(Vec<Contents>);

impl Default for Model {
    fn default() -> Self {
        Self(vec![Contents::default()])
    }
}

impl Model {
    fn newest(&self) -> &Contents {
        &self.0[self.0.len() - 1]
    }

    fn space(&self, space: Space) -> &BTreeMap<Vec<u8>, Vec<u8>> {
        &self.newest()[usize::from(space.0)]
    }

    fn write(&mut self, operations: &[Operation]) {
        let mut next = self.newest().clone();
        for operation in operations {
            let space = &mut next[usize::from(operation.space().0)];
            match operation {
                Operation::Put(_, key, value) => {
                    space.insert(key.to_vec(), value.to_vec());
                }
                Operation::Delete(_, key) => {
                    space.remove(&key[..]);
                }
                Operation::DeleteRange(_, from, to) => space.retain(|key, _| !(from <= key && key[..] < to[..])),
            }
        }
        self.0.push(next);
    }

    fn scan(&self, space: Space, from: &[u8], to: &[u8], direction: Direction) -> super::Pairs {
        let within = |key: &[u8]| from <= key && (to.is_empty() || key < to);
        let pairs = self.space(space).iter().filter(|(key, _)| within(key));
        let mut pairs: super::Pairs = pairs.map(|(key, value)| (key.clone(), value.clone())).collect();
        if direction == Direction::Backward {
            pairs.reverse();
        }
        pairs
    }

    fn became_durable(&mut self) {
        self.0.drain(..self.0.len() - 1);
    }

    fn adopt(&mut self, found: Contents) {
        assert!(self.0.contains(&found), "after a crash: {found:?}\nis none of {:?}", self.0);
        self.0 = vec![found];
    }

    fn adopt_newest(&mut self, found: Contents) {
        self.became_durable();
        self.adopt(found);
    }
}

fn contents(subject: &dyn Subject) -> Contents {
    let mut contents = Contents::default();
    for (position, space) in (0..).zip(&mut contents) {
        space.extend(scan(subject.engine(), Space(position), b"", b"", Direction::Forward));
    }
    contents
}
