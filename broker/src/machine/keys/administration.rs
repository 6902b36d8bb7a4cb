//! Keys of what is said about workspaces, and of who may do what.

use bytes::{BufMut, Bytes, BytesMut};

use super::{behind, named, tag};

/// A record of the audit.
pub(crate) fn audit(workspace: u32, number: u64) -> Bytes {
    super::message(workspace, number)
}

/// Where the audit of a workspace ends.
pub(crate) fn audit_head(workspace: u32) -> Bytes {
    let [a, b, c, d] = workspace.to_be_bytes();
    named(&[tag::AUDIT_HEAD, a, b, c, d], "")
}

/// The quotas of a workspace.
pub(crate) fn quotas(workspace: u32) -> Bytes {
    let [a, b, c, d] = workspace.to_be_bytes();
    named(&[tag::QUOTAS, a, b, c, d], "")
}

/// The policy of a workspace.
pub(crate) fn policy(workspace: u32) -> Bytes {
    let [a, b, c, d] = workspace.to_be_bytes();
    named(&[tag::POLICY, a, b, c, d], "")
}

/// An API key.
pub(crate) fn api_key(id: u64) -> Bytes {
    let mut key = BytesMut::with_capacity(9);
    key.put_u8(tag::API_KEY);
    key.put_u64(id);
    key.freeze()
}

/// API keys behind this one: from, to.
pub(crate) fn api_keys_behind(id: Option<u64>) -> (Bytes, Bytes) {
    let from = id.map_or_else(|| Bytes::from_static(&[tag::API_KEY]), |id| behind(&api_key(id)));
    (from, Bytes::from_static(&[tag::API_KEY + 1]))
}

/// How many API keys are bound to a workspace; empty: to none.
pub(crate) fn api_key_count(workspace: &str) -> Bytes {
    named(&[tag::API_KEYS], workspace)
}

pub(crate) fn workspace_name(workspace: u32) -> Bytes {
    let [a, b, c, d] = workspace.to_be_bytes();
    named(&[tag::WORKSPACE_NAME, a, b, c, d], "")
}
