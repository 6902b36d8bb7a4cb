//! Every key of a shard's state. Big-endian, fixed prefixes; tags and layouts are frozen, each with a golden test.
//!
//! | space | key | value |
//! |---|---|---|
//! | MESSAGES | workspace u32, first sequence u64 | the batch as committed |
//! | RUNS | workspace u32, source u32, 9 - priority u8, first sequence u64 | indexes (u16) of that batch in this lane |
//! | INBOXES | workspace u32, sandbox u32 | cursors and counters of one recipient |
//! | REMEMBERED | workspace u32, window u32, kind u8, hash u128 | a message id, a producer or a conversation |
//! | RECORDS | tag u8, … | see the tags below |
//! | READY | workspace u32, sandbox u32, 9 - priority u8, sequence u64 | a message on its own that may be delivered |
//! | DEFERRED | the same | a message on its own that waits for its time |
//! | DUE | time u64, workspace u32, kind u8, … | what happens then |
//! | DEAD | workspace u32, sandbox u32, sequence u64 | a dead letter |
//! | CURSORS | workspace u32, topic u32, sandbox u32 | cursors of one follower |
//! | EVENTS | workspace u32, event u64 | an event |
//! | AUDIT | workspace u32, or 0 for the shard, record u64 | a record of the audit, and its hash |
//!
//! The source of a direct lane is the number of the sandbox, from 1 up; that of a topic is its number with the highest bit
//! set; broadcast is the source `u32::MAX`.

mod administration;
mod approvals;
mod capabilities;
mod due;

use bytes::{BufMut, Bytes, BytesMut};
use tandem_storage::{Space, SpaceOptions};

pub(crate) use self::administration::{
    api_key, api_key_count, api_keys_behind, audit, audit_head, policy, quotas, revocations, token, token_count,
    token_of, tokens_behind, workspace_name,
};
pub(crate) use self::approvals::{
    approval, approval_ended, approval_message, approval_waiting, approvals, approvals_of, approvals_through,
    approvals_waiting_through,
};
pub(crate) use self::capabilities::{capable, capable_of, capable_sandbox, wanted, wanted_of, wanted_parts};
pub(crate) use self::due::{DueKind, due, due_between, due_parts};
use crate::command::{Lane, Source};

/// Space 0 is the position of the log.
pub(crate) const MESSAGES: Space = Space(1);
pub(crate) const RUNS: Space = Space(2);
pub(crate) const INBOXES: Space = Space(3);
pub(crate) const REMEMBERED: Space = Space(4);
pub(crate) const RECORDS: Space = Space(5);
pub(crate) const READY: Space = Space(6);
pub(crate) const DEFERRED: Space = Space(7);
pub(crate) const DUE: Space = Space(8);
pub(crate) const DEAD: Space = Space(9);
pub(crate) const CURSORS: Space = Space(10);
pub(crate) const EVENTS: Space = Space(11);
pub(crate) const AUDIT: Space = Space(12);

/// The spaces whose keys begin with the number of a workspace.
pub(crate) const BY_WORKSPACE: [Space; 10] =
    [MESSAGES, RUNS, INBOXES, REMEMBERED, READY, DEFERRED, DEAD, CURSORS, EVENTS, AUDIT];

/// In keys of what concerns no workspace; none has this number.
pub(crate) const NO_WORKSPACE: u32 = 0;

/// The source of the lanes that hold broadcasts.
pub(crate) const BROADCAST: u32 = u32::MAX;
/// Set in the number of every topic.
pub(crate) const TOPIC_BIT: u32 = 1 << 31;

/// Tags of RECORDS.
mod tag {
    /// -> newest time u64, next workspace number u32, count of workspaces u32, what is due before is done u64
    pub(super) const SHARD: u8 = 1;
    /// name -> the workspace
    pub(super) const WORKSPACE: u8 = 2;
    /// workspace u32, name -> the sandbox
    pub(super) const SANDBOX: u8 = 3;
    /// workspace u32, sandbox u32 -> time of its last heartbeat u64, online u8
    pub(super) const HEARTBEAT: u8 = 4;
    /// workspace u32, sandbox u32 -> its name
    pub(super) const SANDBOX_NAME: u8 = 5;
    /// workspace u32, name -> the topic
    pub(super) const TOPIC: u8 = 6;
    /// workspace u32, sandbox u32, pattern -> from sequence u64
    pub(super) const FOLLOW: u8 = 7;
    /// workspace u32, length u8, capability, sandbox u32 -> nothing
    pub(super) const CAPABLE: u8 = 8;
    /// workspace u32, first sequence of a batch u64, sandbox u32, sequence u64 -> nothing: a message on its own is in there
    pub(super) const HELD: u8 = 9;
    /// workspace u32, sandbox u32, hash of an ordering key u64, sequence u64 -> nothing: a retry that others wait for
    pub(super) const KEYED: u8 = 10;
    /// workspace u32, sandbox u32, hash of a correlation id u128 -> who waits for the response
    pub(super) const REQUEST: u8 = 11;
    /// workspace u32, first sequence u64 -> bytes of the history before it u64
    pub(super) const MARK: u8 = 12;
    /// workspace u32 -> its name
    pub(super) const WORKSPACE_NAME: u8 = 13;
    /// workspace u32, length u8, capability, 9 - priority u8, sequence u64 -> number of the sender u32
    pub(super) const WANTED: u8 = 14;
    /// workspace u32 -> its policy
    pub(super) const POLICY: u8 = 15;
    /// id u64 -> the API key; on shard 0
    pub(super) const API_KEY: u8 = 16;
    /// name of a workspace or nothing -> how many API keys are bound to it u32
    pub(super) const API_KEYS: u8 = 17;
    /// workspace u32, approval u64 -> what is known of a message that waits for approval, or did
    pub(super) const APPROVAL: u8 = 18;
    /// workspace u32, approval u64 -> the message, as a batch of one
    pub(super) const APPROVAL_MESSAGE: u8 = 19;
    /// workspace u32, approval u64 -> nothing: it waits
    pub(super) const APPROVAL_WAITING: u8 = 20;
    /// workspace u32, place u64 -> number u64 of an approval that ended
    pub(super) const APPROVAL_ENDED: u8 = 21;
    /// workspace u32 -> how many there are
    pub(super) const APPROVALS: u8 = 22;
    /// workspace u32, or 0 for the shard -> where its audit ends
    pub(super) const AUDIT_HEAD: u8 = 23;
    /// workspace u32 -> its quotas
    pub(super) const QUOTAS: u8 = 24;
    /// hash u128 -> what is known of a token; on shard 0
    pub(super) const TOKEN: u8 = 25;
    /// name of a workspace or nothing -> how many tokens are bound to it u32
    pub(super) const TOKENS: u8 = 26;
    /// -> how many keys and tokens were revoked u64
    pub(super) const REVOCATIONS: u8 = 27;
    /// workspace u32, sender -> how many of its messages wait for approval u64, and their bytes u64
    pub(super) const APPROVALS_OF: u8 = 28;
}

/// Kinds of REMEMBERED.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Remembered {
    /// An explicit message id.
    Id = 0,
    /// A producer.
    Producer = 1,
    /// The messages under one correlation id.
    Conversation = 2,
    /// On whose behalf somebody speaks under one.
    Lineage = 3,
}

/// The spaces of a state engine, in the order of their numbers.
pub(crate) fn spaces() -> Vec<SpaceOptions> {
    vec![
        SpaceOptions::named("position").with_point_reads(),
        SpaceOptions::named("messages").with_append_only(),
        SpaceOptions::named("runs"),
        SpaceOptions::named("inboxes").with_point_reads(),
        SpaceOptions::named("remembered").with_random_point_reads(),
        SpaceOptions::named("records").with_point_reads(),
        SpaceOptions::named("ready"),
        SpaceOptions::named("deferred").with_point_reads(),
        SpaceOptions::named("due"),
        SpaceOptions::named("dead"),
        SpaceOptions::named("cursors").with_point_reads(),
        SpaceOptions::named("events"),
        SpaceOptions::named("audit"),
    ]
}

/// How many spaces there are.
#[cfg(test)]
pub(crate) const SPACES: u8 = 13;

pub(crate) fn message(workspace: u32, first_sequence: u64) -> Bytes {
    let mut key = BytesMut::with_capacity(12);
    key.put_u32(workspace);
    key.put_u64(first_sequence);
    key.freeze()
}

/// The last eight bytes of a key of MESSAGES or RUNS.
pub(crate) fn sequence_of(key: &[u8]) -> u64 {
    key.last_chunk::<8>().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

pub(crate) fn run(workspace: u32, source: u32, priority: u8, first_sequence: u64) -> Bytes {
    let mut key = BytesMut::with_capacity(17);
    key.put_u32(workspace);
    key.put_u32(source);
    key.put_u8(9 - priority);
    key.put_u64(first_sequence);
    key.freeze()
}

/// All runs of a source: from, to.
pub(crate) fn runs_of(workspace: u32, source: u32) -> (Bytes, Bytes) {
    (run(workspace, source, 9, 0), run(workspace, source, 0, u64::MAX))
}

pub(crate) fn inbox(workspace: u32, sandbox: u32) -> Bytes {
    let mut key = BytesMut::with_capacity(8);
    key.put_u32(workspace);
    key.put_u32(sandbox);
    key.freeze()
}

pub(crate) fn remembered(workspace: u32, window: u32, kind: Remembered, hash: u128) -> Bytes {
    let mut key = BytesMut::with_capacity(REMEMBERED_BYTES);
    put_remembered(workspace, window, kind, hash, &mut key);
    key.freeze()
}

/// Length of a key of REMEMBERED.
pub(crate) const REMEMBERED_BYTES: usize = 25;

/// The same behind what a buffer holds.
pub(crate) fn put_remembered(workspace: u32, window: u32, kind: Remembered, hash: u128, key: &mut BytesMut) {
    key.put_u32(workspace);
    key.put_u32(window);
    key.put_u8(kind as u8);
    key.put_u128(hash);
}

/// Workspace, kind and hash of a key of REMEMBERED.
pub(crate) fn remembered_parts(key: &[u8]) -> Option<(u32, Remembered, u128)> {
    let ([a, b, c, d, _, _, _, _, kind], hash) = (*key.first_chunk()?, key.last_chunk::<16>()?);
    let kind = match kind {
        0 => Remembered::Id,
        1 => Remembered::Producer,
        2 => Remembered::Conversation,
        3 => Remembered::Lineage,
        _ => return None,
    };
    Some((u32::from_be_bytes([a, b, c, d]), kind, u128::from_be_bytes(*hash)))
}

/// All that is remembered since before a window: from, to.
pub(crate) fn remembered_before(workspace: u32, window: u32) -> (Bytes, Bytes) {
    (remembered(workspace, 0, Remembered::Id, 0), remembered(workspace, window, Remembered::Id, 0))
}

/// A message on its own, in READY or DEFERRED.
pub(crate) fn parked(workspace: u32, sandbox: u32, priority: u8, sequence: u64) -> Bytes {
    run(workspace, sandbox, priority, sequence)
}

/// All of a sandbox in READY or DEFERRED: from, to.
pub(crate) fn parked_of(workspace: u32, sandbox: u32) -> (Bytes, Bytes) {
    (parked(workspace, sandbox, 9, 0), behind(&parked(workspace, sandbox, 0, u64::MAX)))
}

pub(crate) fn dead(workspace: u32, sandbox: u32, sequence: u64) -> Bytes {
    let mut key = BytesMut::with_capacity(16);
    key.put_u32(workspace);
    key.put_u32(sandbox);
    key.put_u64(sequence);
    key.freeze()
}

/// Sandbox and sequence of a key of DEAD.
pub(crate) fn dead_parts(key: &[u8]) -> (u32, u64) {
    let sandbox = key.get(4..8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_be_bytes);
    (sandbox, sequence_of(key))
}

pub(crate) fn cursors(workspace: u32, topic: u32, sandbox: u32) -> Bytes {
    let mut key = BytesMut::with_capacity(12);
    key.put_u32(workspace);
    key.put_u32(topic);
    key.put_u32(sandbox);
    key.freeze()
}

/// The cursors of all followers of a topic: from, to.
pub(crate) fn cursors_of(workspace: u32, topic: u32) -> (Bytes, Bytes) {
    (cursors(workspace, topic, 0), behind(&cursors(workspace, topic, u32::MAX)))
}

pub(crate) fn event(workspace: u32, event: u64) -> Bytes {
    message(workspace, event)
}

/// The source of the runs of a recipient's lane.
pub(crate) fn source_of(lane: Lane, sandbox: u32) -> u32 {
    if lane.source == Source::Direct { sandbox } else { lane.source.number() }
}

/// The hash under which keys and ids of unbounded variety are kept. Part of the format.
pub(crate) fn text_hash(text: &str) -> u128 {
    bytes_hash(text.as_bytes())
}

/// The same of a text that is not looked at.
pub(crate) fn bytes_hash(text: &[u8]) -> u128 {
    xxhash_rust::xxh3::xxh3_128(text)
}

/// The same for ordering keys; never 0.
pub(crate) fn ordering_hash(key: &str) -> u64 {
    xxhash_rust::xxh3::xxh3_64(key.as_bytes()).max(1)
}

/// Highest random weight: who of several gets the messages of an ordering key. It stays with a sandbox unless that one goes.
pub(crate) fn weight(ordering: u64, sandbox: u32) -> u64 {
    ordering_hash(&format!("{ordering}/{sandbox}"))
}

/// The first key behind this one.
pub(crate) fn behind(key: &[u8]) -> Bytes {
    let mut next = BytesMut::with_capacity(key.len() + 1);
    next.put_slice(key);
    next.put_u8(0);
    next.freeze()
}

pub(crate) fn shard() -> Bytes {
    Bytes::from_static(&[tag::SHARD])
}

pub(crate) fn workspace(name: &str) -> Bytes {
    named(&[tag::WORKSPACE], name)
}

/// All workspaces: from, to.
pub(crate) fn workspaces() -> (Bytes, Bytes) {
    (Bytes::from_static(&[tag::WORKSPACE]), Bytes::from_static(&[tag::WORKSPACE + 1]))
}

pub(crate) fn sandbox(workspace: u32, name: &str) -> Bytes {
    let [a, b, c, d] = workspace.to_be_bytes();
    named(&[tag::SANDBOX, a, b, c, d], name)
}

/// The name at the end of a sandbox's key.
pub(crate) fn sandbox_name(key: &[u8]) -> String {
    String::from_utf8_lossy(key.get(5..).unwrap_or_default()).into_owned()
}

/// All sandboxes of a workspace: from, to.
pub(crate) fn sandboxes(workspace: u32) -> (Bytes, Bytes) {
    tagged_range(tag::SANDBOX, workspace)
}

pub(crate) fn heartbeat(workspace: u32, sandbox: u32) -> Bytes {
    let mut key = BytesMut::with_capacity(9);
    key.put_u8(tag::HEARTBEAT);
    key.put_u32(workspace);
    key.put_u32(sandbox);
    key.freeze()
}

/// The name of a sandbox by its number.
pub(crate) fn sandbox_by_number(workspace: u32, sandbox: u32) -> Bytes {
    of_sandbox(tag::SANDBOX_NAME, workspace, sandbox, 0).freeze()
}

pub(crate) fn topic(workspace: u32, name: &str) -> Bytes {
    let [a, b, c, d] = workspace.to_be_bytes();
    named(&[tag::TOPIC, a, b, c, d], name)
}

/// All topics of a workspace: from, to.
pub(crate) fn topics(workspace: u32) -> (Bytes, Bytes) {
    tagged_range(tag::TOPIC, workspace)
}

pub(crate) fn follow(workspace: u32, sandbox: u32, pattern: &str) -> Bytes {
    let mut key = of_sandbox(tag::FOLLOW, workspace, sandbox, pattern.len());
    key.put_slice(pattern.as_bytes());
    key.freeze()
}

/// All follows of a sandbox: from, to.
pub(crate) fn follows(workspace: u32, sandbox: u32) -> (Bytes, Bytes) {
    tagged_of_sandbox(tag::FOLLOW, workspace, sandbox)
}

/// The pattern at the end of a follow's key.
pub(crate) fn follow_pattern(key: &[u8]) -> String {
    String::from_utf8_lossy(key.get(9..).unwrap_or_default()).into_owned()
}

pub(crate) fn keyed(workspace: u32, sandbox: u32, ordering: u64, sequence: u64) -> Bytes {
    let mut key = of_sandbox(tag::KEYED, workspace, sandbox, 16);
    key.put_u64(ordering);
    key.put_u64(sequence);
    key.freeze()
}

/// All retries of a sandbox that others wait for: from, to.
pub(crate) fn keyed_of(workspace: u32, sandbox: u32) -> (Bytes, Bytes) {
    tagged_of_sandbox(tag::KEYED, workspace, sandbox)
}

/// Hash of the ordering key and sequence of a retry's key.
pub(crate) fn keyed_parts(key: &[u8]) -> (u64, u64) {
    let ordering = key.get(9..17).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_be_bytes);
    (ordering, sequence_of(key))
}

pub(crate) fn request(workspace: u32, sandbox: u32, correlation: u128) -> Bytes {
    let mut key = of_sandbox(tag::REQUEST, workspace, sandbox, 16);
    key.put_u128(correlation);
    key.freeze()
}

/// All requests of a sandbox that wait: from, to.
pub(crate) fn requests_of(workspace: u32, sandbox: u32) -> (Bytes, Bytes) {
    tagged_of_sandbox(tag::REQUEST, workspace, sandbox)
}

pub(crate) fn held(workspace: u32, first_sequence: u64, sandbox: u32, sequence: u64) -> Bytes {
    let mut key = BytesMut::with_capacity(25);
    key.put_u8(tag::HELD);
    key.put_u32(workspace);
    key.put_u64(first_sequence);
    key.put_u32(sandbox);
    key.put_u64(sequence);
    key.freeze()
}

/// What messages on their own hold of the batches that begin from one sequence up to before another: from, to.
pub(crate) fn held_in(workspace: u32, from: u64, to: u64) -> (Bytes, Bytes) {
    (held(workspace, from, 0, 0), held(workspace, to, 0, 0))
}

/// First sequence of the batch, recipient, and sequence of the message of such a key.
pub(crate) fn held_parts(key: &[u8]) -> (u64, u32, u64) {
    let first = key.get(5..13).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_be_bytes);
    let sandbox = key.get(13..17).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_be_bytes);
    (first, sandbox, sequence_of(key))
}

pub(crate) fn mark(workspace: u32, first_sequence: u64) -> Bytes {
    let mut key = BytesMut::with_capacity(13);
    key.put_u8(tag::MARK);
    key.put_u32(workspace);
    key.put_u64(first_sequence);
    key.freeze()
}

/// What RECORDS holds of a workspace beside its own record: ranges.
pub(crate) fn records_of(workspace: u32) -> Vec<(Bytes, Bytes)> {
    let tags = [
        tag::SANDBOX,
        tag::HEARTBEAT,
        tag::SANDBOX_NAME,
        tag::TOPIC,
        tag::FOLLOW,
        tag::CAPABLE,
        tag::HELD,
        tag::KEYED,
        tag::REQUEST,
        tag::MARK,
        tag::WORKSPACE_NAME,
        tag::WANTED,
        tag::POLICY,
        tag::APPROVAL,
        tag::APPROVAL_MESSAGE,
        tag::APPROVAL_WAITING,
        tag::APPROVAL_ENDED,
        tag::APPROVALS,
        tag::APPROVALS_OF,
        tag::AUDIT_HEAD,
        tag::QUOTAS,
    ];
    tags.into_iter().map(|tag| tagged_range(tag, workspace)).collect()
}

fn of_sandbox(tag: u8, workspace: u32, sandbox: u32, more: usize) -> BytesMut {
    let mut key = BytesMut::with_capacity(9 + more);
    key.put_u8(tag);
    key.put_u32(workspace);
    key.put_u32(sandbox);
    key
}

fn tagged_of_sandbox(tag: u8, workspace: u32, sandbox: u32) -> (Bytes, Bytes) {
    let from = of_sandbox(tag, workspace, sandbox, 0).freeze();
    // Sandboxes are numbered far below the highest number.
    (from, of_sandbox(tag, workspace, sandbox + 1, 0).freeze())
}

/// All that a space holds of a workspace, where its number comes first: from, to.
pub(crate) fn of_workspace(workspace: u32) -> (Bytes, Bytes) {
    let to = (u64::from(workspace) + 1).to_be_bytes();
    (Bytes::copy_from_slice(&workspace.to_be_bytes()), Bytes::copy_from_slice(&to[4..]))
}

fn tagged_range(tag: u8, workspace: u32) -> (Bytes, Bytes) {
    let key = |number: u32| {
        let mut key = BytesMut::with_capacity(5);
        key.put_u8(tag);
        key.put_u32(number);
        key.freeze()
    };
    (key(workspace), key(workspace + 1))
}

fn named(prefix: &[u8], name: &str) -> Bytes {
    let mut key = BytesMut::with_capacity(prefix.len() + name.len());
    key.put_slice(prefix);
    key.put_slice(name.as_bytes());
    key.freeze()
}

#[cfg(test)]
#[path = "keys_tests.rs"]
mod tests;
