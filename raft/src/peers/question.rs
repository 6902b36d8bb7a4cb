//! Questions that have one answer, beside those that openraft asks.

use std::time::Duration;

use bytes::Bytes;

use super::{
    connection::{CallError, Connection},
    frame::kind,
};

/// How long a leader may take to make sure that it leads, and to apply what it has acknowledged.
const READ_TIMEOUT: Duration = Duration::from_secs(2);

/// Up to where a state must be applied to hold everything that was acknowledged: an index as u64.
pub(crate) async fn read_index(leader: &Connection, shard: u32) -> Result<Bytes, CallError> {
    leader.call(kind::READ_INDEX, shard, READ_TIMEOUT, |_| ()).await
}
