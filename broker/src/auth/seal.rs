//! Who a client is, from the node that it came to, to the node that serves it: signed with a key that only the nodes of a
//! cluster can make.
//!
//! ```text
//! aintandem-caller: base64url(what is known, as JSON) . base64url(HMAC-SHA256)
//! ```
//!
//! The token itself goes no further than the first node, and may expire while a subscription is followed from leader to leader
//! no later than it would have there.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use tonic::codegen::http::HeaderValue;

use super::{
    Caller, Identity, Roles, Seen,
    api_keys::{KeyRing, Shown},
};
use crate::{
    clock,
    rejection::{Reason, Rejection},
};

/// Where a node says who is behind a request.
pub(crate) const CALLER: &str = "aintandem-caller";
/// A request is on its way for a moment; clocks of nodes may be this far apart.
const HOLDS_S: u64 = 60;
const KEY: &str = "key";
const TOKEN: &str = "token";
/// What the key is for: the same secret serves replication.
const PURPOSE: &[u8] = b"aintandem callers 1";

/// Signs for the nodes of a cluster. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Seal(Hmac<Sha256>);

#[derive(Serialize, Deserialize)]
struct Said {
    subject: String,
    roles: Vec<String>,
    workspace: Option<String>,
    sandbox: Option<String>,
    ends_s: Option<u64>,
    /// What was shown, where it may be taken back: `key` or `token`, and its number in hexadecimal digits.
    #[serde(default)]
    shown: Option<(String, String)>,
    #[serde(default)]
    address: String,
    #[serde(default)]
    request_id: String,
    /// This itself, in seconds since 1970.
    until_s: u64,
}

impl Seal {
    /// With a key made from the secret of the cluster.
    pub(crate) fn new(secret: &[u8]) -> Self {
        let key = hmac(secret).chain_update(PURPOSE).finalize().into_bytes();
        Self(hmac(&key))
    }

    /// What another node is told.
    pub(crate) fn put(&self, caller: &Caller) -> Option<HeaderValue> {
        // Its body may have come slowly.
        caller.in_time().ok()?;
        let Identity { subject, roles, workspace, sandbox, ends_s } = caller.identity().clone();
        let roles = roles.iter().map(|role| role.name().to_owned()).collect();
        let until_s = clock::unix_ms() / 1_000 + HOLDS_S;
        let Seen { address, request_id } = caller.seen().clone();
        let shown = caller.shown().map(|shown| match shown {
            Shown::Key(id) => (KEY.to_owned(), format!("{id:x}")),
            Shown::Token(hash) => (TOKEN.to_owned(), format!("{hash:x}")),
        });
        let said = Said { subject, roles, workspace, sandbox, ends_s, shown, address, request_id, until_s };
        let body = serde_json::to_vec(&said).ok()?;
        let proof = self.0.clone().chain_update(&body).finalize().into_bytes();
        let text = format!("{}.{}", URL_SAFE_NO_PAD.encode(&body), URL_SAFE_NO_PAD.encode(proof));
        let mut value = HeaderValue::from_str(&text).ok()?;
        value.set_sensitive(true);
        Some(value)
    }

    /// Whom another node has vouched for.
    /// What was revoked, this node's ring knows.
    pub(crate) fn open(&self, value: &HeaderValue, ring: &Arc<KeyRing>) -> Result<Caller, Rejection> {
        let wrong =
            || Rejection::new(Reason::TokenInvalid, "no node of this cluster vouches for who makes this request");
        let (body, proof) = value.to_str().ok().and_then(|text| text.split_once('.')).ok_or_else(wrong)?;
        let body = URL_SAFE_NO_PAD.decode(body).map_err(|_| wrong())?;
        let proof = URL_SAFE_NO_PAD.decode(proof).map_err(|_| wrong())?;
        // In constant time.
        self.0.clone().chain_update(&body).verify_slice(&proof).map_err(|_| wrong())?;
        let said: Said = serde_json::from_slice(&body).map_err(|_| wrong())?;
        if said.until_s < clock::unix_ms() / 1_000 {
            return Err(wrong());
        }
        let roles: Roles = said.roles.iter().filter_map(|role| role.parse().ok()).collect();
        let Said { subject, workspace, sandbox, ends_s, shown, address, request_id, .. } = said;
        let identity = Identity { subject, roles, workspace, sandbox, ends_s };
        let shown = shown.map(|(kind, number)| match kind.as_str() {
            KEY => u64::from_str_radix(&number, 16).map(Shown::Key),
            _ => u128::from_str_radix(&number, 16).map(Shown::Token),
        });
        let caller = match shown.transpose().map_err(|_| wrong())? {
            Some(shown) => Caller::revocable(identity, Arc::clone(ring), shown),
            None => Caller::new(identity),
        };
        let caller = caller.seen_as(Arc::new(Seen { address, request_id }));
        caller.in_time()?;
        Ok(caller)
    }
}

fn hmac(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes keys of any length")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{auth::Role, query::StateReader};

    #[test]
    fn nodes_of_a_cluster_believe_each_other_and_nobody_else() {
        let seal = Seal::new(b"a secret of this cluster");
        let ring = Arc::new(KeyRing::new(StateReader::default()));
        let caller = Caller::new(Identity {
            subject: "Zoë".into(),
            roles: [Role::Sandbox, Role::Auditor].into_iter().collect(),
            workspace: Some("w".into()),
            sandbox: Some("a".into()),
            ends_s: Some(u64::MAX),
        });
        let caller = caller.seen_as(Arc::new(Seen { address: "10.0.0.7:1".into(), request_id: "r1".into() }));
        let value = seal.put(&caller).unwrap();
        let opened = seal.open(&value, &ring).unwrap();
        assert_eq!((opened.identity(), opened.seen()), (caller.identity(), caller.seen()));
        assert!(!format!("{value:?}").contains('.'), "it is not printed");
        assert!(Seal::new(b"the secret of another cluster").open(&value, &ring).is_err());
        let text = value.to_str().unwrap();
        for place in 0..text.len() {
            let mut bytes = text.as_bytes().to_vec();
            bytes[place] = if bytes[place] == b'A' { b'B' } else { b'A' };
            let forged = HeaderValue::from_bytes(&bytes).unwrap();
            // The last letter of base64 has bits that mean nothing; those must be zero.
            assert!(seal.open(&forged, &ring).is_err(), "byte {place}");
        }
        let late = Identity { ends_s: Some(7), ..caller.identity().clone() };
        assert!(seal.put(&Caller::new(late)).is_none(), "nobody vouches for who has nothing to show any more");
        for garbage in ["", ".", "a.b", "e30.e30"] {
            assert!(seal.open(&HeaderValue::from_static(garbage), &ring).is_err());
        }
    }
}
