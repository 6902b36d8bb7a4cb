//! Questions that have one answer, beside those that openraft asks.

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::{
    connection::{CallError, Connection},
    frame::kind,
};
use crate::{
    change::{Change, ChangeCode, ChangeError},
    digest::DigestAnswer,
    encoding::{DecodeError, take_u8, take_u32, take_u64},
    error::ProposeError,
    group::Standing,
    roll::{Roll, put_text, take_text},
};

/// How long a leader may take to make sure that it leads, and to apply what it has acknowledged.
const READ_TIMEOUT: Duration = Duration::from_secs(2);
/// How long it may take to commit a change.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(5);
/// What a node knows by heart comes at once.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// Up to where a state must be applied to hold everything that was acknowledged: an index as u64.
pub(crate) async fn read_index(leader: &Connection, shard: u32) -> Result<Bytes, CallError> {
    leader.call(kind::READ_INDEX, shard, READ_TIMEOUT, |_| ()).await
}

/// Where a shard stands, as another node sees it.
pub(crate) async fn standing(there: &Connection, shard: u32) -> Result<Standing, CallError> {
    let body = there.call(kind::STANDING, shard, ANSWER_TIMEOUT, |_| ()).await?;
    Standing::take(body).map_err(|_| CallError::Garbled)
}

/// Who the members are, as another node knows.
pub(crate) async fn roll(there: &Connection) -> Result<Roll, CallError> {
    let body = there.call(kind::ROLL, 0, ANSWER_TIMEOUT, |_| ()).await?;
    Roll::decode(&body).map_err(|_| CallError::Garbled)
}

/// Has the leader propose a digest of all states. Returns the index of the entry.
pub(crate) async fn begin_digest(leader: &Connection, shard: u32) -> Result<u64, ProposeError> {
    let answer = leader.call(kind::DIGEST_BEGIN, shard, CHANGE_TIMEOUT, |_| ()).await;
    let mut body = answer.map_err(|_| ProposeError::Unsettled)?;
    take_u64(&mut body).map_err(|_| ProposeError::Unsettled)
}

/// The digest of another node's state at an entry.
pub(crate) async fn digest(there: &Connection, shard: u32, index: u64) -> Result<DigestAnswer, CallError> {
    let body = there.call(kind::DIGEST, shard, ANSWER_TIMEOUT, |out| out.put_u64(index)).await?;
    DigestAnswer::take(body).map_err(|_| CallError::Garbled)
}

/// Has another node decide on a change.
pub(crate) async fn change(there: &Connection, change: &Change) -> Result<Roll, ChangeError> {
    let answer = there.call(kind::CHANGE, 0, CHANGE_TIMEOUT, |out| put_change(out, change)).await;
    let body = answer.map_err(|_| ProposeError::Unsettled)?;
    take_changed(body).unwrap_or_else(|_| Err(ProposeError::Unsettled.into()))
}

fn put_change(out: &mut BytesMut, change: &Change) {
    match change {
        Change::Add { node, address } => {
            out.put_u8(1);
            out.put_u64(*node);
            put_text(out, address);
        }
        Change::Remove { node, force } => {
            out.put_u8(2);
            out.put_u64(*node);
            out.put_u8(u8::from(*force));
        }
        Change::Replace { old, new, address, force } => {
            out.put_u8(3);
            out.put_u64(*old);
            out.put_u64(*new);
            put_text(out, address);
            out.put_u8(u8::from(*force));
        }
        Change::Drain { node } => {
            out.put_u8(4);
            out.put_u64(*node);
        }
        Change::Undrain { node } => {
            out.put_u8(5);
            out.put_u64(*node);
        }
        Change::Transfer { shard, to } => {
            out.put_u8(6);
            out.put_u32(*shard);
            out.put_u64(*to);
        }
        Change::Rebalance => out.put_u8(7),
    }
}

pub(super) fn take_change(mut body: Bytes) -> Result<Change, DecodeError> {
    let body = &mut body;
    Ok(match take_u8(body)? {
        1 => Change::Add { node: take_u64(body)?, address: take_text(body)? },
        2 => Change::Remove { node: take_u64(body)?, force: take_u8(body)? == 1 },
        3 => {
            let (old, new, address) = (take_u64(body)?, take_u64(body)?, take_text(body)?);
            Change::Replace { old, new, address, force: take_u8(body)? == 1 }
        }
        4 => Change::Drain { node: take_u64(body)? },
        5 => Change::Undrain { node: take_u64(body)? },
        6 => Change::Transfer { shard: take_u32(body)?, to: take_u64(body)? },
        7 => Change::Rebalance,
        other => return Err(DecodeError::Kind(other)),
    })
}

const CODES: [ChangeCode; 9] = [
    ChangeCode::UnknownNode,
    ChangeCode::UnknownShard,
    ChangeCode::NodeExists,
    ChangeCode::NodeIdReused,
    ChangeCode::InProgress,
    ChangeCode::QuorumAtRisk,
    ChangeCode::LastNode,
    ChangeCode::TooManyNodes,
    ChangeCode::NodeNotReady,
];

pub(super) fn put_changed(out: &mut BytesMut, changed: &Result<Roll, ChangeError>) {
    match changed {
        Ok(roll) => {
            out.put_u8(0);
            out.put_slice(&roll.encode());
        }
        Err(ChangeError::Refused { code, text }) => {
            out.put_u8(1);
            out.put_u8(CODES.iter().position(|known| known == code).unwrap_or(CODES.len()) as u8);
            put_text(out, text);
        }
        Err(ChangeError::Unavailable(ProposeError::NotLeader(leader))) => {
            out.put_u8(2);
            out.put_u64(leader.unwrap_or(0));
        }
        Err(ChangeError::Unavailable(_)) => out.put_u8(3),
    }
}

fn take_changed(mut body: Bytes) -> Result<Result<Roll, ChangeError>, DecodeError> {
    Ok(match take_u8(&mut body)? {
        0 => Ok(Roll::decode(&body)?),
        1 => {
            let number = take_u8(&mut body)?;
            let code = *CODES.get(number as usize).ok_or(DecodeError::Kind(number))?;
            Err(ChangeError::Refused { code, text: take_text(&mut body)? })
        }
        2 => Err(ProposeError::NotLeader(Some(body.try_get_u64().unwrap_or(0)).filter(|node| *node > 0)).into()),
        _ => Err(ProposeError::Unsettled.into()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_and_their_answers_come_back() {
        let address = || "d:4".to_owned();
        let changes = [
            Change::Add { node: 4, address: address() },
            Change::Remove { node: 3, force: true },
            Change::Replace { old: 3, new: 4, address: address(), force: false },
            Change::Drain { node: 1 },
            Change::Undrain { node: 1 },
            Change::Transfer { shard: 2, to: 3 },
            Change::Rebalance,
        ];
        for change in changes {
            let mut out = BytesMut::new();
            put_change(&mut out, &change);
            assert_eq!(take_change(out.freeze()).unwrap(), change);
        }
        for code in CODES {
            let mut out = BytesMut::new();
            put_changed(&mut out, &Err(ChangeError::Refused { code, text: "why".into() }));
            let back = take_changed(out.freeze()).unwrap();
            assert!(matches!(back, Err(ChangeError::Refused { code: seen, text }) if seen == code && text == "why"));
        }
        let mut out = BytesMut::new();
        put_changed(&mut out, &Ok(Roll::default()));
        assert_eq!(take_changed(out.freeze()).unwrap().unwrap(), Roll::default());
    }
}
