//! Who still waits for what in batches before the history: read once for a round, from the side of the recipients.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::ControlFlow,
};

use bytes::Bytes;
use tandem_storage::Direction;

use crate::{
    batch::{Batch, Kind, Record},
    command::{
        Lane, Source,
        trim::{Overflow, SpentBatch},
    },
    machine::{
        StateError,
        follow::TopicCursors,
        inbox::Inbox,
        keys::{self, BROADCAST, INBOXES, RECORDS},
        topic::{self, Topic},
        wanted::NOBODY,
        workspace::Workspace,
    },
    query::{QueryError, StateReader},
    rejection::Reason,
};

/// A message that several share and somebody still waits for.
#[derive(Debug, Clone, Copy)]
struct Shared {
    sequence: u64,
    priority: u8,
    bytes: u64,
}

/// A topic, and how far those who follow it are.
struct Followed {
    topic: Topic,
    followers: Vec<(u32, TopicCursors)>,
    /// Up to here all of them are done, by priority.
    floors: [u64; 10],
}

/// See the module.
pub(crate) struct Survey<'a> {
    reader: &'a StateReader,
    workspace: u32,
    inboxes: BTreeMap<u32, Inbox>,
    /// Up to here everybody is done with broadcasts, by priority.
    broadcast_floors: [u64; 10],
    topics: HashMap<String, Followed>,
    sandboxes: HashMap<String, Option<u32>>,
    /// What is still needed of what is shared, by source, rising.
    shared: BTreeMap<u32, Vec<Shared>>,
}

impl<'a> Survey<'a> {
    pub(crate) fn new(reader: &'a StateReader, workspace: &Workspace) -> Result<Self, QueryError> {
        let inboxes = inboxes(reader, workspace.number)?;
        let mut broadcast_floors = [u64::MAX; 10];
        // By their floors, not by their counters: what goes is gone, and a message must stay also where a count is wrong.
        for inbox in inboxes.iter().filter(|(number, _)| **number != NOBODY).map(|(_, inbox)| inbox) {
            for (priority, lowest) in broadcast_floors.iter_mut().enumerate() {
                let lane = Lane { source: Source::Broadcast, priority: priority as u8 };
                *lowest = inbox.cursor(lane).map_or(*lowest, |cursor| cursor.floor.min(*lowest));
            }
        }
        let topics = followed(reader, workspace.number, &inboxes)?;
        Ok(Self {
            reader,
            workspace: workspace.number,
            inboxes,
            broadcast_floors,
            topics,
            sandboxes: HashMap::new(),
            shared: BTreeMap::new(),
        })
    }

    /// What may go of some batches; those of which nothing may are left out.
    pub(crate) fn spent(&mut self, batches: &[Batch]) -> Result<Vec<SpentBatch>, QueryError> {
        let mut spent = Vec::new();
        for batch in batches {
            spent.push((batch, self.look(batch)?));
        }
        // After the lanes: a message that left its lane and waits on its own meanwhile is found here.
        let held = self.held(batches)?;
        let mut gone: HashMap<u32, bool> = HashMap::new();
        let mut kept = Vec::new();
        for (batch, mut spent) in spent {
            for (sandbox, sequence) in held.get(&batch.first_sequence).into_iter().flatten() {
                // Read again: what waited for a capability may have gone to somebody new.
                if !gone.contains_key(sandbox) {
                    gone.insert(*sandbox, self.reader.inbox(self.workspace, *sandbox)?.is_none());
                }
                if gone[sandbox] {
                    spent.stale.push((*sandbox, *sequence));
                } else {
                    spent.keep.push((sequence - batch.first_sequence) as u16);
                }
            }
            spent.keep.sort_unstable();
            spent.keep.dedup();
            let messages = (0..batch.len()).filter(|index| batch.record(*index).kind != Kind::Void).count();
            if spent.keep.is_empty() || spent.keep.len() < messages {
                if !spent.keep.is_empty() {
                    spent.runs.clear();
                }
                kept.push(spent);
            }
        }
        Ok(kept)
    }

    /// One batch from the side of the lanes.
    fn look(&mut self, batch: &Batch) -> Result<SpentBatch, QueryError> {
        let mut keep = Vec::new();
        let mut runs = BTreeSet::new();
        for index in 0..batch.len() {
            let record = batch.record(index);
            let sequence = batch.sequence(index);
            let (sources, needed) = self.needed(&record, sequence)?;
            runs.extend(sources.into_iter().map(|source| (source, record.priority)));
            if needed {
                keep.push(index as u16);
            }
        }
        Ok(SpentBatch {
            first_sequence: batch.first_sequence,
            keep,
            runs: runs.into_iter().collect(),
            stale: Vec::new(),
        })
    }

    /// Where a message lies, and whether somebody waits for it there.
    fn needed(&mut self, record: &Record<'_>, sequence: u64) -> Result<(Vec<u32>, bool), QueryError> {
        let priority = record.priority;
        let share = Shared { sequence, priority, bytes: record.body.len() as u64 };
        let (source, floor) = match record.kind {
            // What waits for a capability waits on its own.
            Kind::Void | Kind::Wanted => return Ok((Vec::new(), false)),
            Kind::Direct => {
                let Some(recipient) = self.sandbox(record.to)? else { return Ok((Vec::new(), false)) };
                return Ok((vec![recipient], self.waits(recipient, priority, sequence)));
            }
            Kind::Several => {
                let recipients: Vec<u32> = record.recipients().collect();
                let needed = recipients.iter().any(|recipient| self.waits(*recipient, priority, sequence));
                return Ok((recipients, needed));
            }
            Kind::Broadcast => (BROADCAST, self.broadcast_floors[usize::from(priority)]),
            Kind::Topic => match self.topics.get(record.to) {
                Some(followed) => (followed.topic.number, followed.floors[usize::from(priority)]),
                None => return Ok((Vec::new(), false)),
            },
        };
        let needed = sequence > floor;
        if needed {
            self.shared.entry(source).or_default().push(share);
        }
        Ok((vec![source], needed))
    }

    fn waits(&self, recipient: u32, priority: u8, sequence: u64) -> bool {
        let cursor = self.inboxes.get(&recipient).and_then(|inbox| inbox.cursor(direct(priority)));
        cursor.is_some_and(|cursor| !cursor.contains(sequence))
    }

    fn sandbox(&mut self, name: &str) -> Result<Option<u32>, QueryError> {
        if let Some(known) = self.sandboxes.get(name) {
            return Ok(*known);
        }
        let number = match self.reader.sandbox(self.workspace, name) {
            Ok(sandbox) => Some(sandbox.number),
            Err(QueryError::Rejected(rejection)) if rejection.reason == Reason::UnknownSandbox => None,
            Err(error) => return Err(error),
        };
        self.sandboxes.insert(name.to_owned(), number);
        Ok(number)
    }

    /// Messages on their own that lie in these batches, by first sequence of the batch.
    fn held(&self, batches: &[Batch]) -> Result<HashMap<u64, Vec<(u32, u64)>>, QueryError> {
        let mut held: HashMap<u64, Vec<(u32, u64)>> = HashMap::new();
        let (Some(first), Some(last)) = (batches.first(), batches.last()) else { return Ok(held) };
        let (from, to) = keys::held_in(self.workspace, first.first_sequence, last.first_sequence + 1);
        self.reader.engine().scan(RECORDS, &from, &to, Direction::Forward, &mut |key, _| {
            let (first, sandbox, sequence) = keys::held_parts(key);
            held.entry(first).or_default().push((sandbox, sequence));
            ControlFlow::Continue(())
        })?;
        Ok(held)
    }

    /// Who is further behind than an inbox may hold, when all batches were looked at. Up to `limit` messages at a time.
    pub(crate) fn overflows(&self, limits: (u64, u64), limit: usize) -> Vec<Overflow> {
        let mut overflows = Vec::new();
        let mut left = limit;
        for (sandbox, inbox) in self.inboxes.iter().filter(|(number, _)| **number != NOBODY) {
            let limits = inbox.limits_of(limits);
            let mut waiting = self.waiting(*sandbox, inbox, limits);
            let mut by_lane: BTreeMap<Lane, Vec<u64>> = BTreeMap::new();
            let kept = kept(&waiting, limits);
            waiting.truncate(waiting.len() - kept);
            waiting.truncate(left);
            left -= waiting.len();
            for (lane, shared) in waiting {
                by_lane.entry(lane).or_default().push(shared.sequence);
            }
            overflows.extend(by_lane.into_iter().map(|(lane, sequences)| Overflow {
                sandbox: *sandbox,
                lane,
                sequences,
            }));
            if left == 0 {
                break;
            }
        }
        overflows
    }

    /// What a recipient waits for of what it shares, by rising sequence; nothing when it cannot be too much.
    fn waiting(&self, sandbox: u32, inbox: &Inbox, (max_messages, max_bytes): (u64, u64)) -> Vec<(Lane, Shared)> {
        let followed = self.topics.values().filter_map(|followed| {
            let (_, cursors) = followed.followers.iter().find(|(follower, _)| *follower == sandbox)?;
            Some((followed.topic.number, Some(cursors)))
        });
        let lists: Vec<_> = std::iter::once((BROADCAST, None))
            .chain(followed)
            .filter_map(|(source, cursors)| self.shared.get(&source).map(|list| (source, cursors, list)))
            .collect();
        let messages: u64 = lists.iter().map(|(.., list)| list.len() as u64).sum();
        let bytes: u64 = lists.iter().flat_map(|(.., list)| list.iter()).map(|shared| shared.bytes).sum();
        if messages <= max_messages && bytes <= max_bytes {
            return Vec::new();
        }
        let mut waiting = Vec::new();
        for (source, cursors, list) in lists {
            for shared in list {
                let source = if source == BROADCAST { Source::Broadcast } else { Source::Topic(source) };
                let lane = Lane { source, priority: shared.priority };
                let done = match cursors {
                    Some(cursors) => cursors.cursor(shared.priority).contains(shared.sequence),
                    None => inbox.cursor(lane).is_none_or(|cursor| cursor.contains(shared.sequence)),
                };
                if !done {
                    waiting.push((lane, *shared));
                }
            }
        }
        waiting.sort_unstable_by_key(|(_, shared)| shared.sequence);
        waiting
    }
}

/// How many of the newest fit.
fn kept(waiting: &[(Lane, Shared)], (max_messages, max_bytes): (u64, u64)) -> usize {
    let mut bytes = 0_u64;
    waiting
        .iter()
        .rev()
        .take_while(|(_, shared)| {
            bytes = bytes.saturating_add(shared.bytes);
            bytes <= max_bytes
        })
        .count()
        .min(max_messages as usize)
}

fn direct(priority: u8) -> Lane {
    Lane { source: Source::Direct, priority }
}

fn inboxes(reader: &StateReader, workspace: u32) -> Result<BTreeMap<u32, Inbox>, QueryError> {
    let (from, to) = keys::of_workspace(workspace);
    let mut found = Vec::new();
    reader.engine().scan(INBOXES, &from, &to, Direction::Forward, &mut |key, value| {
        found.push((keys::capable_sandbox(key), Bytes::copy_from_slice(value)));
        ControlFlow::Continue(())
    })?;
    let decode = |(sandbox, record)| Ok((sandbox, Inbox::decode(record)?));
    found.into_iter().map(decode).collect::<Result<_, StateError>>().map_err(QueryError::from)
}

fn followed(
    reader: &StateReader,
    workspace: u32,
    inboxes: &BTreeMap<u32, Inbox>,
) -> Result<HashMap<String, Followed>, QueryError> {
    let mut patterns = Vec::new();
    for (sandbox, _) in inboxes.iter().filter(|(_, inbox)| inbox.counters.follows > 0) {
        patterns.push((*sandbox, reader.follow_patterns(workspace, *sandbox)?));
    }
    let mut topics = HashMap::new();
    for (name, topic) in reader.all_topics(workspace)? {
        let mut followed = Followed { topic, followers: Vec::new(), floors: [u64::MAX; 10] };
        for (sandbox, patterns) in &patterns {
            if !patterns.iter().any(|pattern| topic::matches(pattern, &name)) {
                continue;
            }
            let cursors = reader.topic_cursors(workspace, followed.topic.number, *sandbox)?;
            let newest = &followed.topic.newest.0;
            if (0..10_u8).all(|priority| newest[usize::from(priority)] <= cursors.cursor(priority).floor) {
                continue;
            }
            for (priority, lowest) in followed.floors.iter_mut().enumerate() {
                *lowest = cursors.cursor(priority as u8).floor.min(*lowest);
            }
            followed.followers.push((*sandbox, cursors));
        }
        topics.insert(name, followed);
    }
    Ok(topics)
}
