//! Appends messages to the log of a workspace and to the lanes of their recipients.

mod conversation;
mod dedupe;
mod expiry;
mod loops;
mod route;

use std::{collections::BTreeMap, sync::Arc};

use bytes::{BufMut, Bytes, BytesMut};

pub(super) use self::expiry::{Expiring, bury_or_tell, expire_leased, expire_runs};
use self::{
    conversation::Conversation,
    dedupe::{Position, Producers},
    expiry::Expiries,
};
use super::{
    Appended, Effect, SharedRun, approval,
    audit::{self, Entry},
    keys::{self, BROADCAST, MESSAGES, RECORDS, RUNS, Remembered},
    lineage::{self, Lineage},
    policy::{self, InForce},
    request,
    state::{KnownId, State, StateError},
    topic::Topic,
    workspace::Workspace,
};
use crate::{
    audit::Kind,
    batch::{self, Batch, Record},
    command::{Origin as Asked, Publish, Published, publish::Exception},
    encoding::Field as _,
    rejection::{Reason, Rejection},
};

/// Bytes of history between two marks, by which retention finds its place.
const MARK_BYTES: u64 = 1 << 20;

/// A publish under way: which messages of the batch go where.
pub(super) struct Routes {
    workspace: Workspace,
    /// The policy that each message is judged by; None where there is none, and for what the broker says itself.
    policy: Option<Arc<InForce>>,
    origin: Origin,
    direct: BTreeMap<(u32, u8), Vec<u16>>,
    broadcast: BTreeMap<u8, Vec<u16>>,
    topics: BTreeMap<String, TopicRoutes>,
    exceptions: Vec<(u32, Exception)>,
    hops: Vec<(u16, u8)>,
    conversations: BTreeMap<u128, Conversation>,
    /// By correlation id, and whether it has changed.
    lineages: BTreeMap<u128, (Lineage, bool)>,
    producers: Producers,
    expiries: Expiries,
    /// Hashes of the explicit ids, by index, and which of them may be known. Empty when there are none.
    ids: Vec<Option<u128>>,
    may_be_known: Vec<bool>,
    /// Explicit ids of this batch whose messages are held.
    held_ids: BTreeMap<u128, KnownId>,
}

/// Where messages come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// Clients.
    Clients,
    /// The broker itself.
    Broker,
    /// A client, some time ago; they were held, and are approved.
    Approved,
}

/// Messages of the batch to one topic.
struct TopicRoutes {
    topic: Topic,
    by_priority: BTreeMap<u8, Vec<u16>>,
}

pub(super) fn apply(state: &mut State, verb: Publish) -> Result<Result<Published, Rejection>, StateError> {
    apply_from(state, verb, Origin::Clients)
}

/// Publishes what the broker itself says. It answers nobody's answer, so no conversation is too long for it.
pub(super) fn apply_own(state: &mut State, verb: Publish) -> Result<Result<Published, Rejection>, StateError> {
    apply_from(state, verb, Origin::Broker)
}

/// Publishes a message that was held and is approved; its sequence, or why it goes nowhere.
pub(super) fn release(state: &mut State, workspace: &str, held: &Batch) -> Result<Result<u64, Rejection>, StateError> {
    let record = held.record(0);
    let expires_ms = record.expires_ms(held.time_ms);
    let from_ms = state.now_ms().max(record.not_before_ms);
    // The time that it was held is a part of its ttl.
    let ttl_ms = if record.ttl_ms == 0 { 0 } else { expires_ms.saturating_sub(from_ms).max(1) };
    let mut batch = BytesMut::with_capacity(record.body.len() + 256);
    batch::encode_header(state.now_ms(), 1, &mut batch);
    Record { ttl_ms, ..record }.encode(&mut batch);
    let verb = Publish { workspace: workspace.to_owned(), batch: batch.freeze() };
    let published = match apply_from(state, verb, Origin::Approved)? {
        Ok(published) => published,
        Err(rejection) => return Ok(Err(rejection)),
    };
    Ok(match published.exceptions.into_iter().next() {
        Some((_, Exception::Refused(rejection))) => Err(rejection),
        // It is not asked after ids, positions and approval.
        Some((_, Exception::Duplicate { sequence, .. })) => Ok(sequence),
        Some((_, Exception::Held { approval })) => Err(Rejection::unknown_approval(approval)),
        None => Ok(published.first_sequence),
    })
}

fn apply_from(state: &mut State, verb: Publish, origin: Origin) -> Result<Result<Published, Rejection>, StateError> {
    let Some(workspace) = state.workspace(&verb.workspace)?.cloned() else {
        return Ok(Err(Rejection::unknown_workspace(&verb.workspace)));
    };
    let first_sequence = workspace.last_sequence + 1;
    let mut batch = Batch::decode(first_sequence, verb.batch)?;
    if state.clock_is_behind() {
        // What is later in the log is not earlier in time.
        batch = Batch::decode(first_sequence, batch.with_time(state.now_ms()))?;
    }
    // Once for all of them: nothing changes it within a command's publish.
    let policy = if origin == Origin::Broker { None } else { policy::in_force(state, workspace.number)? };
    let mut routes = Routes::new(workspace, policy, origin);
    routes.look_up_ids(state, &batch);
    for index in 0..batch.len() {
        if let Some(exception) = routes.accept(state, &batch, index)? {
            let exception = approval::known_by_now(state, routes.workspace.number, exception)?;
            routes.exceptions.push((index as u32, exception));
        }
    }
    note_denied(state, routes.workspace.number, &batch, &routes.exceptions)?;
    routes.remember(state);
    let published =
        Published { first_sequence, time_ms: batch.time_ms, exceptions: std::mem::take(&mut routes.exceptions) };
    if published.exceptions.len() == batch.len() {
        return Ok(Ok(published));
    }
    if !routes.hops.is_empty() {
        batch = Batch::decode(first_sequence, batch.with_hops(&routes.hops))?;
    }
    if !published.exceptions.is_empty() {
        let refused = |index: usize| published.exceptions.binary_search_by_key(&(index as u32), |(at, _)| *at).is_ok();
        batch = Batch::decode(first_sequence, batch.without(refused))?;
    }
    routes.append(state, &verb.workspace, batch)?;
    Ok(Ok(published))
}

/// Senders whose refused messages are told apart in one command.
const MAX_SENDERS: usize = 16;

/// Notes what a policy has refused: once for each sender of a command, however many messages they are.
fn note_denied(
    state: &mut State,
    workspace: u32,
    batch: &Batch,
    exceptions: &[(u32, Exception)],
) -> Result<(), StateError> {
    let mut by_sender: BTreeMap<&str, (String, Bytes, u64)> = BTreeMap::new();
    for (index, exception) in exceptions {
        let Exception::Refused(why) = exception else { continue };
        if why.reason != Reason::PolicyDenied {
            continue;
        }
        let record = batch.record(*index as usize);
        let others = by_sender.len() >= MAX_SENDERS && !by_sender.contains_key(record.from);
        let entry = by_sender.entry(if others { "" } else { record.from });
        entry.or_insert_with(|| (record.to.to_owned(), why.text.clone().into(), 0)).2 += 1;
    }
    for (from, (to, text, count)) in by_sender {
        let origin = Asked { by: from.into(), ..Asked::default() };
        let entry = Entry::new(Kind::MessagesRefused, to).saying(text).counting(count);
        audit::note_act(state, workspace, origin, entry)?;
    }
    Ok(())
}

impl Routes {
    fn new(workspace: Workspace, policy: Option<Arc<InForce>>, origin: Origin) -> Self {
        Self {
            workspace,
            policy,
            origin,
            direct: BTreeMap::new(),
            broadcast: BTreeMap::new(),
            topics: BTreeMap::new(),
            exceptions: Vec::new(),
            hops: Vec::new(),
            conversations: BTreeMap::new(),
            lineages: BTreeMap::new(),
            producers: Producers::default(),
            expiries: Expiries::default(),
            ids: Vec::new(),
            may_be_known: Vec::new(),
            held_ids: BTreeMap::new(),
        }
    }

    /// Asks after all ids of the batch in one go: each lies somewhere else in memory.
    fn look_up_ids(&mut self, state: &State, batch: &Batch) {
        if batch.has_ids {
            let ids = (0..batch.len()).map(|index| batch.id(index));
            self.ids = ids.map(|id| Some(id).filter(|id| !id.is_empty()).map(keys::bytes_hash)).collect();
            self.may_be_known = state.may_know_ids(&self.workspace, &self.ids);
        }
    }

    /// Decides on one message: where it goes, or why it goes nowhere.
    fn accept(&mut self, state: &mut State, batch: &Batch, index: usize) -> Result<Option<Exception>, StateError> {
        let record = batch.record(index);
        let id = self.ids.get(index).copied().flatten();
        if self.origin != Origin::Approved
            && let Some(known) = self.known(state, &record, id, index)?
        {
            return Ok(Some(known));
        }
        let exception = self.route(state, batch, index, &record)?.err();
        let sequence = match &exception {
            None => batch.sequence(index),
            Some(Exception::Held { approval }) => approval::in_place_of_sequence(*approval),
            Some(_) => return Ok(exception),
        };
        if let Some(id) = id {
            let known = KnownId { sequence, digest: record.digest, time_ms: batch.time_ms };
            if exception.is_none() {
                state.remember_id(&self.workspace, id, known);
            } else {
                // The log has no such message, from which it would be found again.
                state.remember(&self.workspace, Remembered::Id, id, &known);
                self.held_ids.insert(id, known);
            }
        }
        self.producers.accept(&record, sequence, batch.time_ms);
        Ok(exception)
    }

    /// What became of a message that came before, or why its position is not its own.
    fn known(
        &mut self,
        state: &mut State,
        record: &Record<'_>,
        id: Option<u128>,
        index: usize,
    ) -> Result<Option<Exception>, StateError> {
        let not_accepted = match self.producers.decide(state, &self.workspace, record)? {
            Position::Next => None,
            Position::Known(known) => return Ok(Some(known)),
            Position::NotAccepted { next } => Some(dedupe::not_accepted(record.producer.1, next)),
        };
        let known = match id {
            Some(id) => match self.held_ids.get(&id) {
                Some(held) => Some(*held),
                None => state.known_id(&self.workspace, id, !self.may_be_known[index])?,
            },
            None => None,
        };
        match known.map(|known| dedupe::repeated(record, known)) {
            Some(Exception::Duplicate { sequence, time_ms }) => {
                let workspace = self.workspace.number;
                let known = approval::known_by_now(state, workspace, Exception::Duplicate { sequence, time_ms })?;
                let wait_as = match &known {
                    Exception::Duplicate { sequence, .. } => *sequence,
                    Exception::Held { .. } => sequence,
                    // Nobody waits for the response to what was not approved.
                    Exception::Refused(_) => return Ok(Some(known)),
                };
                let refused = request::wait_on(state, workspace, record, wait_as)?;
                Ok(Some(refused.map_or(known, Exception::Refused)))
            }
            Some(known) => Ok(Some(known)),
            None => Ok(not_accepted),
        }
    }

    fn remember(&mut self, state: &mut State) {
        std::mem::take(&mut self.producers).remember(state, &self.workspace);
        for (hash, conversation) in std::mem::take(&mut self.conversations) {
            state.remember(&self.workspace, Remembered::Conversation, hash, &conversation);
        }
        for (hash, (lineage, changed)) in std::mem::take(&mut self.lineages) {
            if changed {
                state.remember(&self.workspace, Remembered::Lineage, hash, &lineage);
            }
        }
    }

    /// Writes the batch, its runs, and the workspace.
    fn append(self, state: &mut State, name: &str, batch: Batch) -> Result<(), StateError> {
        let Self { workspace: Workspace { number, .. }, direct, broadcast, topics, expiries, .. } = self;
        let first = batch.first_sequence;
        state.put(MESSAGES, keys::message(number, first), batch.bytes().clone());
        expiries.write(state, number, first)?;
        let direct = direct
            .into_iter()
            .map(|((recipient, priority), indexes)| {
                write_run(state, number, recipient, priority, first, &indexes);
                (recipient, priority, indexes.into())
            })
            .collect();
        let mut shared = Vec::new();
        let newest = |indexes: &[u16]| indexes.last().map_or(0, |index| batch.sequence(usize::from(*index)));
        // Read again: an event may have changed it meanwhile.
        let Some(mut workspace) = state.workspace(name)?.cloned() else { return Ok(()) };
        for (priority, indexes) in broadcast {
            write_run(state, number, BROADCAST, priority, first, &indexes);
            workspace.broadcasts += indexes.len() as u64;
            workspace.newest_broadcast.0[usize::from(priority)] = newest(&indexes);
            shared.push(SharedRun { source: BROADCAST, topic: "".into(), priority, indexes: indexes.into() });
        }
        for (name, TopicRoutes { mut topic, by_priority }) in topics {
            for (priority, indexes) in by_priority {
                // Read again when somebody follows from the past, which may share a batch of writes with this.
                state.put(RUNS, keys::run(number, topic.number, priority, first), encode_run(&indexes));
                topic.messages += indexes.len() as u64;
                topic.newest.0[usize::from(priority)] = newest(&indexes);
                let topic_name = name.as_str().into();
                shared.push(SharedRun { source: topic.number, topic: topic_name, priority, indexes: indexes.into() });
            }
            state.put(RECORDS, keys::topic(number, &name), topic.to_bytes());
        }
        workspace.last_sequence += batch.len() as u64;
        let before = workspace.committed_bytes;
        workspace.committed_bytes += batch.bytes().len() as u64;
        if before == 0 || before / MARK_BYTES != workspace.committed_bytes / MARK_BYTES {
            state.put(RECORDS, keys::mark(number, first), before.to_bytes());
        }
        let window = workspace.window(state.now_ms());
        if window > workspace.newest_window {
            // Whole windows go at once; nothing is looked for.
            state.forget_before(number, window.saturating_sub(1));
            workspace.newest_window = window;
        }
        state.file_ids(&mut workspace, &batch)?;
        state.put_workspace(name, workspace);
        audit::committed(state, number, &batch)?;
        let batch = Arc::new(batch);
        state.effect(Effect::Appended(Appended { workspace: number, batch, direct, shared }));
        Ok(())
    }
}

/// A message reached a sandbox that was not known when it was published: its conversation is told.
pub(super) fn received(state: &mut State, workspace: u32, sandbox: u32, record: &Record<'_>) -> Result<(), StateError> {
    if record.correlation == 0 {
        return Ok(());
    }
    let Some(name) = state.workspace_name(workspace)? else { return Ok(()) };
    let Some(workspace) = state.workspace(&name)?.cloned() else { return Ok(()) };
    let known: Option<Conversation> = state.remembered(&workspace, Remembered::Conversation, record.correlation)?;
    let mut conversation = known.unwrap_or_default();
    conversation.receive(sandbox, record.hops);
    state.remember(&workspace, Remembered::Conversation, record.correlation, &conversation);
    if policy::in_force(state, workspace.number)?.is_some_and(|policy| policy.follows_chains()) {
        // Who is gone may nothing any more, also through others.
        let sender = state.sandbox_number(workspace.number, record.from)?.unwrap_or(lineage::UNKNOWN);
        let known: Option<Lineage> = state.remembered(&workspace, Remembered::Lineage, record.correlation)?;
        let mut lineage = known.unwrap_or_default();
        if lineage.receive(sandbox, sender) {
            state.remember(&workspace, Remembered::Lineage, record.correlation, &lineage);
        }
    }
    Ok(())
}

/// The names of those on whose behalf a message is sent that is in the log.
pub(super) fn chain(state: &mut State, workspace: u32, record: &Record<'_>) -> Result<Vec<String>, StateError> {
    if record.correlation == 0 {
        return Ok(Vec::new());
    }
    let Some(name) = state.workspace_name(workspace)? else { return Ok(Vec::new()) };
    let Some(workspace) = state.workspace(&name)?.cloned() else { return Ok(Vec::new()) };
    let known: Option<Lineage> = state.remembered(&workspace, Remembered::Lineage, record.correlation)?;
    let sender = state.sandbox_number(workspace.number, record.from)?;
    let behind = known.zip(sender).map(|(lineage, sender)| lineage.behind(sender)).unwrap_or_default();
    lineage::names(state, workspace.number, &behind)
}

fn write_run(state: &mut State, workspace: u32, source: u32, priority: u8, first: u64, indexes: &[u16]) {
    state.unread().put(RUNS, keys::run(workspace, source, priority, first), encode_run(indexes));
}

fn encode_run(indexes: &[u16]) -> Bytes {
    let mut out = BytesMut::with_capacity(indexes.len() * 2);
    indexes.iter().for_each(|index| out.put_u16(*index));
    out.freeze()
}

/// Reads the indexes of a run.
pub(crate) fn decode_run(bytes: &[u8]) -> Arc<[u16]> {
    bytes.as_chunks::<2>().0.iter().map(|pair| u16::from_be_bytes(*pair)).collect()
}
