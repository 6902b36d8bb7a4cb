//! Keys of what happens at a time.

use bytes::{BufMut, Bytes, BytesMut};

use crate::{
    command::Lane,
    encoding::{DecodeError, Field, Reader},
};

/// What happens at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DueKind {
    /// A message on its own may be delivered, or has expired.
    Parked { sandbox: u32, priority: u8, sequence: u64 },
    /// Messages of a batch expire; the value names their runs.
    Runs { first_sequence: u64 },
    /// A message of a lane that was leased when it expired.
    Leased { sandbox: u32, lane: Lane, sequence: u64 },
    /// A sandbox is offline unless it was heard meanwhile.
    Liveness { sandbox: u32 },
    /// A request has waited long enough.
    Request { sandbox: u32, correlation: u128 },
    /// A sandbox may have room for what waits for its capabilities.
    Assign { sandbox: u32 },
    /// An API key that ended long ago may be forgotten.
    Key { id: u64 },
    /// Nobody decided on a message in time.
    Approval { number: u64 },
    /// Batches that wait for a record of the audit have waited long enough.
    Audit,
    /// A token that ended long ago may be forgotten.
    Token { hash: u128 },
}

pub(crate) fn due(time_ms: u64, workspace: u32, kind: DueKind) -> Bytes {
    let mut key = BytesMut::with_capacity(32);
    key.put_u64(time_ms);
    key.put_u32(workspace);
    match kind {
        DueKind::Parked { sandbox, priority, sequence } => {
            key.put_u8(1);
            key.put_u32(sandbox);
            key.put_u8(priority);
            key.put_u64(sequence);
        }
        DueKind::Runs { first_sequence } => {
            key.put_u8(2);
            key.put_u64(first_sequence);
        }
        DueKind::Leased { sandbox, lane, sequence } => {
            key.put_u8(3);
            key.put_u32(sandbox);
            lane.put(&mut key);
            key.put_u64(sequence);
        }
        DueKind::Liveness { sandbox } => {
            key.put_u8(4);
            key.put_u32(sandbox);
        }
        DueKind::Request { sandbox, correlation } => {
            key.put_u8(5);
            key.put_u32(sandbox);
            key.put_u128(correlation);
        }
        DueKind::Assign { sandbox } => {
            key.put_u8(6);
            key.put_u32(sandbox);
        }
        DueKind::Key { id } => {
            key.put_u8(7);
            key.put_u64(id);
        }
        DueKind::Audit => key.put_u8(9),
        DueKind::Token { hash } => {
            key.put_u8(10);
            key.put_u128(hash);
        }
        DueKind::Approval { number } => {
            key.put_u8(8);
            key.put_u64(number);
        }
    }
    key.freeze()
}

/// All that is due from one time to another, both included: from, to.
pub(crate) fn due_between(from_ms: u64, to_ms: u64) -> (Bytes, Bytes) {
    let at = |time_ms: u64| Bytes::copy_from_slice(&time_ms.to_be_bytes());
    (at(from_ms), at(to_ms.saturating_add(1)))
}

/// Time, workspace and kind of a key of DUE.
pub(crate) fn due_parts(key: &Bytes) -> Result<(u64, u32, DueKind), DecodeError> {
    let mut reader = Reader::new(key.clone(), "due key");
    let (time_ms, workspace) = (reader.u64()?, reader.u32()?);
    let kind = match reader.u8()? {
        1 => DueKind::Parked { sandbox: reader.u32()?, priority: reader.u8()?, sequence: reader.u64()? },
        2 => DueKind::Runs { first_sequence: reader.u64()? },
        3 => DueKind::Leased { sandbox: reader.u32()?, lane: Lane::get(&mut reader)?, sequence: reader.u64()? },
        4 => DueKind::Liveness { sandbox: reader.u32()? },
        5 => DueKind::Request { sandbox: reader.u32()?, correlation: u128::get(&mut reader)? },
        6 => DueKind::Assign { sandbox: reader.u32()? },
        7 => DueKind::Key { id: reader.u64()? },
        9 => DueKind::Audit,
        10 => DueKind::Token { hash: u128::get(&mut reader)? },
        8 => DueKind::Approval { number: reader.u64()? },
        value => return Err(DecodeError::Unknown { what: "due kind", value }),
    };
    reader.end()?;
    Ok((time_ms, workspace, kind))
}
