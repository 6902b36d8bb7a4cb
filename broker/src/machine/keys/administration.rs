//! Keys of what is said about workspaces, and of who may do what.

use bytes::{BufMut, Bytes, BytesMut};

use super::{behind, named, tag};
use crate::encoding::{DecodeError, Reader};

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

/// A token.
pub(crate) fn token(hash: u128) -> Bytes {
    let mut key = BytesMut::with_capacity(17);
    key.put_u8(tag::TOKEN);
    key.put_u128(hash);
    key.freeze()
}

/// Which token a key is of.
pub(crate) fn token_of(key: &[u8]) -> Result<u128, DecodeError> {
    let mut reader = Reader::new(Bytes::copy_from_slice(key), "key of a token");
    reader.u8()?;
    crate::encoding::Field::get(&mut reader)
}

/// Tokens behind this one: from, to.
pub(crate) fn tokens_behind(hash: Option<u128>) -> (Bytes, Bytes) {
    let from = hash.map_or_else(|| Bytes::from_static(&[tag::TOKEN]), |hash| behind(&token(hash)));
    (from, Bytes::from_static(&[tag::TOKEN + 1]))
}

/// How many tokens are bound to a workspace; empty: to none.
pub(crate) fn token_count(workspace: &str) -> Bytes {
    named(&[tag::TOKENS], workspace)
}

/// How many keys and tokens were revoked.
pub(crate) fn revocations() -> Bytes {
    Bytes::from_static(&[tag::REVOCATIONS])
}

pub(crate) fn workspace_name(workspace: u32) -> Bytes {
    let [a, b, c, d] = workspace.to_be_bytes();
    named(&[tag::WORKSPACE_NAME, a, b, c, d], "")
}
