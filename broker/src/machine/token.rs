//! Tokens as a part of the state of shard 0: what is known of those that the broker has signed, and which were revoked. The tokens
//! themselves are kept nowhere.

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::{
    keys::{self, DueKind, RECORDS},
    state::{State, StateError},
};
use crate::{
    command::{CreateToken, RevokeToken},
    encoding::{Field as _, encoded},
    rejection::{Reason, Rejection},
};

/// How long a token is listed that cannot hold any more, in milliseconds: a day. A revoked one is known until then, because what it was
/// renewed to may hold for as long.
pub(crate) const KEPT_MS: u64 = 24 * 3_600_000;

encoded! {
    /// What is known of a token.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(crate) struct TokenRecord {
        pub(crate) token_id: String,
        /// Empty: a key of the settings has signed it.
        pub(crate) issuer: String,
        /// Empty for one that others have signed.
        pub(crate) subject: String,
        pub(crate) roles: u8,
        /// Empty: all.
        pub(crate) workspace: String,
        /// Empty: all.
        pub(crate) sandbox: String,
        /// How long each one holds; 0: others have signed it, and it is not renewed here.
        pub(crate) life_ms: u64,
        pub(crate) create_ms: u64,
        pub(crate) ends_ms: u64,
        /// 0: never.
        pub(crate) revoked_ms: u64,
        pub(crate) by: String,
    }
}

/// What names a token in the state: whoever signs tokens gives each `jti` once.
pub(crate) fn hash_of(issuer: &str, token_id: &str) -> u128 {
    // Whoever chooses an id of his own must not find one that is that of another. Neither holds a newline: both are checked where they
    // come in.
    let digest = Sha256::digest(format!("{issuer}\n{token_id}"));
    u128::from_be_bytes(std::array::from_fn(|at| digest[at]))
}

pub(super) fn create(state: &mut State, verb: CreateToken) -> Result<Result<(), Rejection>, StateError> {
    let hash = hash_of("", &verb.token_id);
    if state.get(RECORDS, &keys::token(hash))?.is_some() {
        return Ok(Err(Rejection::new(Reason::Overloaded, "the id of the token is taken; try again")));
    }
    let record = TokenRecord {
        token_id: verb.token_id,
        issuer: String::new(),
        subject: verb.subject,
        roles: verb.roles,
        workspace: verb.workspace,
        sandbox: verb.sandbox,
        life_ms: verb.life_ms,
        create_ms: state.now_ms(),
        ends_ms: verb.ends_ms,
        revoked_ms: 0,
        by: verb.by,
    };
    keep(state, hash, &record, verb.max_tokens)
}

pub(super) fn revoke(state: &mut State, verb: RevokeToken) -> Result<Result<(), Rejection>, StateError> {
    let hash = hash_of(&verb.issuer, &verb.token_id);
    let key = keys::token(hash);
    let now_ms = state.now_ms().max(1);
    let found: Option<TokenRecord> = state.read(RECORDS, &key, "token")?;
    let may = |record: &TokenRecord| verb.workspace.is_empty() || verb.workspace == record.workspace;
    match found {
        Some(record) if may(&record) => {
            // One of others may end later than was said first.
            let ends_ms = if record.life_ms == 0 { record.ends_ms.max(verb.ends_ms) } else { record.ends_ms };
            if ends_ms != record.ends_ms {
                forget_later(state, hash, ends_ms)?;
            }
            let first = record.revoked_ms == 0;
            let revoked_ms = if first { now_ms } else { record.revoked_ms };
            state.put(RECORDS, key, TokenRecord { revoked_ms, ends_ms, ..record }.to_bytes());
            if first {
                revoked(state)?;
            }
            Ok(Ok(()))
        }
        // Whoever is bound to a workspace cannot know whose a token is that is not known here.
        None if verb.ends_ms > 0 && verb.workspace.is_empty() => {
            let record = TokenRecord {
                token_id: verb.token_id,
                issuer: verb.issuer,
                subject: String::new(),
                roles: 0,
                workspace: String::new(),
                sandbox: String::new(),
                life_ms: 0,
                create_ms: now_ms,
                ends_ms: verb.ends_ms,
                revoked_ms: now_ms,
                by: verb.by,
            };
            let kept = keep(state, hash, &record, verb.max_tokens)?;
            if kept.is_ok() {
                revoked(state)?;
            }
            Ok(kept)
        }
        _ => Ok(Err(Rejection::unknown_token(&verb.token_id))),
    }
}

/// Writes a new record, if there is room for it.
fn keep(
    state: &mut State,
    hash: u128,
    record: &TokenRecord,
    max_tokens: u32,
) -> Result<Result<(), Rejection>, StateError> {
    let counter = keys::token_count(&record.workspace);
    let count: u32 = state.read(RECORDS, &counter, "count of tokens")?.unwrap_or(0);
    if count >= max_tokens {
        let whose = if record.workspace.is_empty() { "no workspace" } else { &record.workspace };
        let text = format!(
            "{count} tokens are bound to {whose}, as many as may be; those that ended go a day after they cannot be renewed any more"
        );
        return Ok(Err(Rejection::new(Reason::TooManyTokens, text)));
    }
    state.put(RECORDS, keys::token(hash), record.to_bytes());
    state.put(RECORDS, counter, (count + 1).to_bytes());
    forget_later(state, hash, record.ends_ms)?;
    Ok(Ok(()))
}

/// Something that was good is not any more: whoever holds streams open looks for what.
pub(super) fn revoked(state: &mut State) -> Result<(), StateError> {
    let count: u64 = state.read(RECORDS, &keys::revocations(), "count of revocations")?.unwrap_or(0);
    state.put(RECORDS, keys::revocations(), (count + 1).to_bytes());
    Ok(())
}

/// A token that does not hold any more is kept for a while.
fn forget_later(state: &mut State, hash: u128, ended_ms: u64) -> Result<(), StateError> {
    state.put_due(ended_ms.saturating_add(KEPT_MS), keys::NO_WORKSPACE, DueKind::Token { hash }, Bytes::new())
}

/// Forgets a token that has ended long ago, revoked or not.
pub(super) fn forget(state: &mut State, hash: u128) -> Result<(), StateError> {
    let key = keys::token(hash);
    let Some(record) = state.read::<TokenRecord>(RECORDS, &key, "token")? else { return Ok(()) };
    if record.ends_ms.saturating_add(KEPT_MS) > state.now_ms() {
        return Ok(());
    }
    state.delete(RECORDS, key);
    let counter = keys::token_count(&record.workspace);
    let count: u32 = state.read(RECORDS, &counter, "count of tokens")?.unwrap_or(0);
    match count.saturating_sub(1) {
        0 => state.delete(RECORDS, counter),
        left => state.put(RECORDS, counter, left.to_bytes()),
    }
    Ok(())
}
