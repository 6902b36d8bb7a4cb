//! API keys: what their secrets look like, and who shows one; and what of keys and tokens was revoked.
//!
//! ```text
//! tandem_<id, 16 hex digits>_<43 letters of base64url: 32 random bytes>
//! ```
//!
//! The state of shard 0 holds a hash of each secret, and every node has that state: a key is looked up where it is shown. A fast
//! hash is enough, because nobody can guess 256 random bits.

use std::{
    collections::BTreeSet,
    mem,
    sync::Arc,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use super::{Caller, Identity, Roles};
use crate::{
    clock,
    machine::{api_key::ApiKey, token::TokenRecord},
    query::{QueryError, StateReader},
    random,
    rejection::{Reason, Rejection},
};

/// How every secret begins, so that it is found where it should not be.
pub(crate) const PREFIX: &str = "tandem_";
/// How often it is looked whether anything was revoked. Once for all streams of a node: those that are open look only when
/// something was.
const LOOK: Duration = Duration::from_millis(100);

/// What somebody has shown, as far as it can be taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shown {
    /// An API key, by its id.
    Key(u64),
    /// A token, by the hash of its id.
    Token(u128),
}

/// A new key: its id, its secret, and what is kept of that.
pub(crate) struct NewKey {
    pub(crate) id: u64,
    pub(crate) secret: String,
    pub(crate) hash: Bytes,
}

impl NewKey {
    pub(crate) fn draw() -> Self {
        let (id, random) = (random::id(), random::secret());
        let secret = format!("{PREFIX}{}_{}", shown(id), URL_SAFE_NO_PAD.encode(random));
        Self { id, secret, hash: hash(&random) }
    }
}

/// An id as people see it.
pub(crate) fn shown(id: u64) -> String {
    format!("{id:016x}")
}

/// What people write for an id.
pub(crate) fn id_of(text: &str) -> Option<u64> {
    let digits = text.len() == 16 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    digits.then(|| u64::from_str_radix(text, 16).ok()).flatten()
}

fn hash(secret: &[u8]) -> Bytes {
    Bytes::copy_from_slice(&Sha256::digest(secret))
}

/// Tells good keys from others.
pub(crate) struct KeyRing {
    reader: StateReader,
    /// Since it was told last.
    used: Mutex<BTreeSet<u64>>,
    /// How much was revoked.
    revocations: watch::Sender<u64>,
}

impl KeyRing {
    /// With the state of shard 0.
    pub(crate) fn new(reader: StateReader) -> Self {
        Self { reader, used: Mutex::default(), revocations: watch::channel(0).0 }
    }

    /// Who shows this secret.
    pub(crate) fn verify(self: &Arc<Self>, secret: &str) -> Result<Caller, Rejection> {
        let unknown = || Rejection::new(Reason::TokenInvalid, "the key is none of this broker's");
        let parts = secret.strip_prefix(PREFIX).and_then(|rest| rest.split_once('_'));
        let (id, secret) = parts.and_then(|(id, secret)| Some((id_of(id)?, secret))).ok_or_else(unknown)?;
        let secret = URL_SAFE_NO_PAD.decode(secret).map_err(|_| unknown())?;
        let key = self.find(id)?.ok_or_else(unknown)?;
        if !same(&key.hash, &hash(&secret)) {
            return Err(unknown());
        }
        holds(&key)?;
        self.used.lock().insert(id);
        Ok(Caller::revocable(identity(&key), Arc::clone(self), Shown::Key(id)))
    }

    fn find(&self, id: u64) -> Result<Option<ApiKey>, Rejection> {
        self.reader.api_key(id).map_err(|error| unread(&error))
    }

    /// What is known of a token.
    pub(crate) fn token(&self, hash: u128) -> Result<Option<TokenRecord>, Rejection> {
        self.reader.token(hash).map_err(|error| unread(&error))
    }

    /// Whether what was good when it was shown still is.
    pub(crate) fn still_holds(&self, shown: Shown) -> Result<(), Rejection> {
        match shown {
            Shown::Key(id) => {
                let gone = || Rejection::new(Reason::KeyRevoked, "the key is gone");
                self.find(id)?.ok_or_else(gone).and_then(|key| holds(&key))
            }
            // Of most tokens nothing is known, and what they say is all.
            Shown::Token(hash) => self.token(hash)?.map_or(Ok(()), |token| token_holds(&token)),
        }
    }

    /// Resolves when something that was shown does not hold any more, with the reason.
    pub(crate) async fn ended(&self, shown: Shown, expires: Option<Instant>) -> Rejection {
        let mut revocations = self.revocations.subscribe();
        let expired = async {
            match expires {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(expired);
        loop {
            revocations.borrow_and_update();
            if let Err(rejection) = self.still_holds(shown) {
                return rejection;
            }
            tokio::select! {
                biased;
                // It lives as long as this does.
                changed = revocations.changed() => drop(changed),
                () = &mut expired => {
                    let text = "what was shown when this stream was opened has expired; open it again with a new token";
                    return Rejection::new(Reason::TokenExpired, text);
                }
            }
        }
    }

    /// Tells all that wait in `ended` when something was revoked, for as long as the node runs.
    pub(crate) async fn watch_revocations(self: Arc<Self>) {
        loop {
            tokio::time::sleep(LOOK).await;
            match self.reader.revocations() {
                Ok(count) => {
                    self.revocations.send_if_modified(|known| mem::replace(known, count) != count);
                }
                // The next look may find it; whoever waits meanwhile looks himself.
                Err(error) => {
                    tracing::warn!(%error, "revocations cannot be read");
                    self.revocations.send_modify(|_| {});
                }
            }
        }
    }

    /// Keys that were used since this was asked last.
    pub(crate) fn take_used(&self) -> Vec<u64> {
        mem::take(&mut *self.used.lock()).into_iter().collect()
    }

    /// They are to be told again.
    pub(crate) fn not_told(&self, ids: Vec<u64>) {
        self.used.lock().extend(ids);
    }
}

fn unread(error: &QueryError) -> Rejection {
    tracing::error!(%error, "keys and tokens cannot be read");
    Rejection::new(Reason::TokenInvalid, "what was shown cannot be looked up right now")
}

fn token_holds(token: &TokenRecord) -> Result<(), Rejection> {
    if token.revoked_ms > 0 {
        return Err(Rejection::new(Reason::TokenRevoked, "the token was revoked; get another one"));
    }
    Ok(())
}

fn holds(key: &ApiKey) -> Result<(), Rejection> {
    if key.revoked_ms > 0 {
        return Err(Rejection::new(Reason::KeyRevoked, "the key was revoked; get another one"));
    }
    if key.expires_ms > 0 && key.expires_ms <= clock::unix_ms() {
        return Err(Rejection::new(Reason::TokenExpired, "the key has expired; get another one"));
    }
    Ok(())
}

fn identity(key: &ApiKey) -> Identity {
    let bound = |name: &String| Some(name.clone()).filter(|name| !name.is_empty());
    Identity {
        subject: key.subject.clone(),
        roles: Roles::from_bits(key.roles),
        workspace: bound(&key.workspace),
        sandbox: bound(&key.sandbox),
        ends_s: Some(key.expires_ms.div_ceil(1_000)).filter(|ends_s| *ends_s > 0),
    }
}

/// Compares in a time that does not depend on where they differ.
fn same(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && one.iter().zip(other).fold(0, |sum, (a, b)| sum | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_secrets_have_one_form() {
        let key = NewKey::draw();
        let rest = key.secret.strip_prefix(PREFIX).unwrap();
        let (id, secret) = rest.split_once('_').unwrap();
        assert_eq!(id_of(id), Some(key.id));
        assert_eq!((secret.len(), hash(&URL_SAFE_NO_PAD.decode(secret).unwrap())), (43, key.hash));
        for wrong in ["", "1", "000000000000000G", "00000000000000AA", "+000000000000001", "00000000000000000"] {
            assert_eq!(id_of(wrong), None, "{wrong:?}");
        }
        assert!(same(b"ab", b"ab") && !same(b"ab", b"aa") && !same(b"ab", b"abc"));
    }
}
