//! Keys of who has which capability, and of what waits for one.

use bytes::{BufMut, Bytes, BytesMut};

use super::{behind, sequence_of, tag};
use crate::encoding::put_text;

pub(crate) fn capable(workspace: u32, capability: &str, sandbox: u32) -> Bytes {
    let mut key = of_capability(tag::CAPABLE, workspace, capability);
    key.put_u32(sandbox);
    key.freeze()
}

/// All sandboxes with a capability: from, to.
pub(crate) fn capable_of(workspace: u32, capability: &str) -> (Bytes, Bytes) {
    (capable(workspace, capability, 0), behind(&capable(workspace, capability, u32::MAX)))
}

/// The last four bytes of a key of a capability.
pub(crate) fn capable_sandbox(key: &[u8]) -> u32 {
    key.last_chunk::<4>().map_or(0, |bytes| u32::from_be_bytes(*bytes))
}

pub(crate) fn wanted(workspace: u32, capability: &str, priority: u8, sequence: u64) -> Bytes {
    let mut key = of_capability(tag::WANTED, workspace, capability);
    key.put_u8(9 - priority);
    key.put_u64(sequence);
    key.freeze()
}

/// All messages that wait for a capability: from, to.
pub(crate) fn wanted_of(workspace: u32, capability: &str) -> (Bytes, Bytes) {
    (wanted(workspace, capability, 9, 0), behind(&wanted(workspace, capability, 0, u64::MAX)))
}

/// Priority and sequence at the end of such a key.
pub(crate) fn wanted_parts(key: &[u8]) -> (u8, u64) {
    let inverted = key.len().checked_sub(9).and_then(|at| key.get(at)).copied().unwrap_or(9);
    (9_u8.saturating_sub(inverted), sequence_of(key))
}

fn of_capability(tag: u8, workspace: u32, capability: &str) -> BytesMut {
    let mut key = BytesMut::with_capacity(14 + capability.len());
    key.put_u8(tag);
    key.put_u32(workspace);
    put_text(&mut key, capability);
    key
}
