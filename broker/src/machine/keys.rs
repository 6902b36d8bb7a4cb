//! Every key of a shard's state. Big-endian, fixed prefixes; tags and layouts are frozen, each with a golden test.
//!
//! | space | key | value |
//! |---|---|---|
//! | MESSAGES | workspace u32, first sequence u64 | the batch as committed |
//! | RUNS | workspace u32, source u32, 9 - priority u8, first sequence u64 | indexes (u16) of that batch in this lane |
//! | INBOXES | workspace u32, sandbox u32 | cursors and counters of one recipient |
//! | IDS | workspace u32, hash of an explicit message id u128 | sequence u64, digest u64, time u64 |
//! | RECORDS | tag u8, … | see the tags below |
//!
//! The source of a direct lane is the number of the sandbox; broadcast is the source `u32::MAX`.

use bytes::{BufMut, Bytes, BytesMut};
use tandem_storage::{Space, SpaceOptions};

/// Space 0 is the position of the log.
pub(crate) const MESSAGES: Space = Space(1);
pub(crate) const RUNS: Space = Space(2);
pub(crate) const INBOXES: Space = Space(3);
pub(crate) const IDS: Space = Space(4);
pub(crate) const RECORDS: Space = Space(5);

/// The source of the lanes that hold broadcasts.
pub(crate) const BROADCAST: u32 = u32::MAX;

/// Tags of RECORDS.
mod tag {
    /// -> newest time u64, next workspace number u32, count of workspaces u32
    pub(super) const SHARD: u8 = 1;
    /// name -> the workspace
    pub(super) const WORKSPACE: u8 = 2;
    /// workspace u32, name -> the sandbox
    pub(super) const SANDBOX: u8 = 3;
    /// workspace u32, sandbox u32 -> time of its last heartbeat u64
    pub(super) const HEARTBEAT: u8 = 4;
}

/// The spaces of a state engine, in the order of their numbers.
pub(crate) fn spaces() -> Vec<SpaceOptions> {
    vec![
        SpaceOptions::named("position").with_point_reads(),
        SpaceOptions::named("messages").with_append_only(),
        SpaceOptions::named("runs"),
        SpaceOptions::named("inboxes").with_point_reads(),
        SpaceOptions::named("ids").with_point_reads(),
        SpaceOptions::named("records").with_point_reads(),
    ]
}

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

pub(crate) fn id(workspace: u32, hash: u128) -> Bytes {
    let mut key = BytesMut::with_capacity(20);
    key.put_u32(workspace);
    key.put_u128(hash);
    key.freeze()
}

/// The hash under which an explicit message id is kept. Part of the format.
pub(crate) fn id_hash(id: &str) -> u128 {
    xxhash_rust::xxh3::xxh3_128(id.as_bytes())
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

/// All heartbeats of a workspace: from, to.
pub(crate) fn heartbeats(workspace: u32) -> (Bytes, Bytes) {
    tagged_range(tag::HEARTBEAT, workspace)
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
mod tests {
    use super::*;

    #[test]
    fn keys_have_these_bytes() {
        assert_eq!(message(1, 258).as_ref(), [0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!(run(1, 2, 9, 3).as_ref(), [0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 3]);
        assert_eq!(run(1, BROADCAST, 0, 3)[4..9], [255, 255, 255, 255, 9]);
        assert_eq!(inbox(1, 2).as_ref(), [0, 0, 0, 1, 0, 0, 0, 2]);
        assert_eq!(id(1, 2)[..4], [0, 0, 0, 1]);
        assert_eq!(id(1, 2).len(), 20);
        assert_eq!(id_hash("m1"), 0x9a6b019f95a49a9af4edaab5e5c1529d, "the hash is part of the format");
        assert_eq!(shard().as_ref(), [1]);
        assert_eq!(workspace("ab").as_ref(), [2, b'a', b'b']);
        assert_eq!(sandbox(1, "ab").as_ref(), [3, 0, 0, 0, 1, b'a', b'b']);
        assert_eq!(heartbeat(1, 2).as_ref(), [4, 0, 0, 0, 1, 0, 0, 0, 2]);
    }

    #[test]
    fn ranges_hold_their_workspace_and_no_other() {
        let (from, to) = sandboxes(1);
        assert!(sandbox(1, "a") >= from && sandbox(1, "\u{10ffff}") < to && sandbox(2, "a") >= to);
        let (from, to) = of_workspace(1);
        assert!(run(1, BROADCAST, 0, u64::MAX) < to && run(1, 0, 9, 0) >= from && run(2, 0, 9, 0) >= to);
        let (from, to) = runs_of(1, 7);
        assert!(run(1, 7, 9, 1) >= from && run(1, 7, 0, 9) < to && run(1, 8, 9, 0) >= to);
    }

    #[test]
    fn higher_priorities_sort_first() {
        assert!(run(1, 2, 9, 500) < run(1, 2, 8, 1));
    }
}
