//! API keys as a part of the state of shard 0: what is known of each, and never its secret.

use bytes::Bytes;

use super::{
    keys::{self, DueKind, RECORDS},
    state::{State, StateError},
    token,
};
use crate::{
    command::{CreateKey, KeysUsed, RevokeKey},
    encoding::{Field as _, encoded},
    rejection::{Reason, Rejection},
};

/// How long a key is listed that does not hold any more, in milliseconds: 30 days.
pub(crate) const KEPT_MS: u64 = 30 * 24 * 3_600_000;

encoded! {
    /// What is known of a key.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(crate) struct ApiKey {
        /// SHA-256 of the secret.
        pub(crate) hash: Bytes,
        pub(crate) subject: String,
        pub(crate) roles: u8,
        /// Empty: all.
        pub(crate) workspace: String,
        /// Empty: all.
        pub(crate) sandbox: String,
        pub(crate) create_ms: u64,
        /// 0: never.
        pub(crate) expires_ms: u64,
        /// 0: never.
        pub(crate) used_ms: u64,
        /// 0: never.
        pub(crate) revoked_ms: u64,
        pub(crate) by: String,
    }
}

pub(super) fn create(state: &mut State, verb: CreateKey) -> Result<Result<(), Rejection>, StateError> {
    let key = keys::api_key(verb.id);
    let counter = keys::api_key_count(&verb.workspace);
    let count: u32 = state.read(RECORDS, &counter, "count of keys")?.unwrap_or(0);
    if count >= verb.max_keys {
        let whose = if verb.workspace.is_empty() { "no workspace" } else { &verb.workspace };
        let text = format!("{count} keys are bound to {whose}, as many as may be; those that ended go after 30 days");
        return Ok(Err(Rejection::new(Reason::TooManyKeys, text)));
    }
    if state.get(RECORDS, &key)?.is_some() {
        return Ok(Err(Rejection::new(Reason::Overloaded, "the id of the key is taken; try again")));
    }
    let record = ApiKey {
        hash: verb.hash,
        subject: verb.subject,
        roles: verb.roles,
        workspace: verb.workspace,
        sandbox: verb.sandbox,
        create_ms: state.now_ms(),
        expires_ms: verb.expires_ms,
        used_ms: 0,
        revoked_ms: 0,
        by: verb.by,
    };
    state.put(RECORDS, key, record.to_bytes());
    state.put(RECORDS, counter, (count + 1).to_bytes());
    if verb.expires_ms > 0 {
        forget_later(state, verb.id, verb.expires_ms)?;
    }
    Ok(Ok(()))
}

pub(super) fn revoke(state: &mut State, verb: &RevokeKey) -> Result<Result<(), Rejection>, StateError> {
    let key = keys::api_key(verb.id);
    let found: Option<ApiKey> = state.read(RECORDS, &key, "key")?;
    let Some(mut record) = found.filter(|key| verb.workspace.is_empty() || verb.workspace == key.workspace) else {
        return Ok(Err(Rejection::unknown_key(verb.id)));
    };
    if record.revoked_ms == 0 {
        record.revoked_ms = state.now_ms().max(1);
        state.put(RECORDS, key, record.to_bytes());
        token::revoked(state)?;
        forget_later(state, verb.id, record.revoked_ms)?;
    }
    Ok(Ok(()))
}

pub(super) fn used(state: &mut State, verb: &KeysUsed) -> Result<Result<(), Rejection>, StateError> {
    for id in &verb.ids {
        let key = keys::api_key(*id);
        let found: Option<ApiKey> = state.read(RECORDS, &key, "key")?;
        if let Some(record) = found {
            state.put(RECORDS, key, ApiKey { used_ms: state.now_ms(), ..record }.to_bytes());
        }
    }
    Ok(Ok(()))
}

/// A key that does not hold any more is kept for a while.
fn forget_later(state: &mut State, id: u64, ended_ms: u64) -> Result<(), StateError> {
    state.put_due(ended_ms.saturating_add(KEPT_MS), keys::NO_WORKSPACE, DueKind::Key { id }, Bytes::new())
}

/// Forgets a key that has ended long ago.
pub(super) fn forget(state: &mut State, id: u64) -> Result<(), StateError> {
    let key = keys::api_key(id);
    let Some(record) = state.read::<ApiKey>(RECORDS, &key, "key")? else { return Ok(()) };
    let now_ms = state.now_ms();
    let ended = |at_ms: u64| at_ms > 0 && at_ms.saturating_add(KEPT_MS) <= now_ms;
    if ended(record.expires_ms) || ended(record.revoked_ms) {
        state.delete(RECORDS, key);
        let counter = keys::api_key_count(&record.workspace);
        let count: u32 = state.read(RECORDS, &counter, "count of keys")?.unwrap_or(0);
        match count.saturating_sub(1) {
            0 => state.delete(RECORDS, counter),
            left => state.put(RECORDS, counter, left.to_bytes()),
        }
    }
    Ok(())
}
