//! Heads of chains that are written down elsewhere, and signed: what tells that records are missing at the end of an export.
//!
//! A file of anchors is text, a JSON document a line, the newest last. Signed is, with Ed25519, this text in UTF-8:
//!
//! ```text
//! aintandem audit anchor 1 \n cluster \n chain \n origin \n number \n hash \n time_ms \n node
//! ```

use std::{collections::BTreeMap, path::Path};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ring::signature::{ED25519, Ed25519KeyPair, UnparsedPublicKey};
use rustls::pki_types::{PrivateKeyDer, SubjectPublicKeyInfoDer, pem::PemObject as _};
use serde::{Deserialize, Serialize};

use super::Hash;

/// What stands before the 32 bytes of a public key of Ed25519 (RFC 8410).
const PUBLIC_KEY_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// How chains of shards are called.
const SHARD: &str = "shard ";

/// The head of a chain at a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Anchor {
    /// The version of the form: 1.
    pub anchor: u32,
    /// The id of the cluster.
    pub cluster: String,
    /// Whose chain it is, as in exports.
    pub chain: String,
    /// The hash of its first record, hexadecimal: it tells this chain from others, also from one of the same name.
    pub origin: String,
    /// The number of its last record.
    pub number: u64,
    /// The hash of that, hexadecimal.
    pub hash: String,
    /// When it was written down, in milliseconds since 1970, by the clock of the node.
    pub time_ms: u64,
    /// The node that has.
    pub node: u64,
    /// Base64; empty where the node has no key.
    pub signature: String,
}

impl Anchor {
    fn text(&self) -> String {
        let Self { cluster, chain, origin, number, hash, time_ms, node, .. } = self;
        format!("aintandem audit anchor 1\n{cluster}\n{chain}\n{origin}\n{number}\n{hash}\n{time_ms}\n{node}")
    }

    /// The same, signed.
    #[must_use]
    pub fn signed(self, key: &AnchorKey) -> Self {
        let signature = STANDARD.encode(key.0.sign(self.text().as_bytes()).as_ref());
        Self { signature, ..self }
    }

    fn is_signed_by(&self, key: &AnchorPublicKey) -> bool {
        let key = UnparsedPublicKey::new(&ED25519, &key.0);
        STANDARD.decode(&self.signature).is_ok_and(|signature| key.verify(self.text().as_bytes(), &signature).is_ok())
    }
}

/// Signs anchors.
pub struct AnchorKey(Ed25519KeyPair);

impl AnchorKey {
    /// A private key as PEM (PKCS#8), as `openssl genpkey -algorithm ed25519` makes it.
    ///
    /// # Errors
    /// What is wrong with the file, in words that do not show it.
    pub fn read(file: &Path) -> Result<Self, String> {
        let read = PrivateKeyDer::from_pem_file(file).map_err(|error| error.to_string())?;
        let PrivateKeyDer::Pkcs8(key) = read else { return Err("it is no PKCS#8".to_owned()) };
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(key.secret_pkcs8_der());
        pair.map(Self).map_err(|error| format!("it is no key of Ed25519: {error}"))
    }
}

/// Checks anchors.
pub struct AnchorPublicKey([u8; 32]);

impl AnchorPublicKey {
    /// A public key as PEM, as `openssl pkey -pubout` makes it.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn read(file: &Path) -> Result<Self, String> {
        let read = SubjectPublicKeyInfoDer::from_pem_file(file).map_err(|error| error.to_string())?;
        let key = read.as_ref().strip_prefix(&PUBLIC_KEY_PREFIX);
        let key = key.and_then(|key| key.try_into().ok()).ok_or("it is no public key of Ed25519")?;
        Ok(Self(key))
    }
}

/// The anchors of one chain: hashes by numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Anchors {
    pub(super) hashes: BTreeMap<u64, Hash>,
    /// Of record 1; none where there are no anchors.
    pub(super) origin: Option<Hash>,
    /// Anchors of chains of the same name that were there before: their workspace was deleted and created again.
    pub of_earlier: usize,
    /// Lines that are no anchors: written in part, for example.
    pub unreadable: usize,
}

impl Anchors {
    /// Those of files that are of this chain, in any order, of any node; where `key` is given, each must be signed with it. A chain
    /// whose workspace was deleted and created again has another first record: of several the one of the newest anchor counts.
    ///
    /// # Errors
    /// The first line that is not signed, or tells of a record what another line does not: somebody has made the chain anew.
    pub fn read<L: AsRef<str>>(
        lines: impl IntoIterator<Item = L>,
        chain: &str,
        key: Option<&AnchorPublicKey>,
    ) -> Result<Self, super::Fault> {
        let mut chains: BTreeMap<[u8; 32], (u64, BTreeMap<u64, Hash>)> = BTreeMap::new();
        let mut unreadable = 0;
        for (line, text) in (1..).zip(lines) {
            let fault = |text: String| super::Fault { line, text };
            let read = serde_json::from_str::<Anchor>(text.as_ref()).ok().filter(|anchor| anchor.anchor == 1);
            let parsed = read.and_then(|read| Some((Hash::parse(&read.origin)?, Hash::parse(&read.hash)?, read)));
            let Some((origin, hash, anchor)) = parsed else {
                unreadable += 1;
                continue;
            };
            if key.is_some_and(|key| !anchor.is_signed_by(key)) {
                return Err(fault("it is not signed with this key".to_owned()));
            }
            if anchor.chain != chain {
                continue;
            }
            let (newest_ms, hashes) = chains.entry(origin.0).or_default();
            *newest_ms = (*newest_ms).max(anchor.time_ms);
            if hashes.insert(anchor.number, hash).is_some_and(|known| known != hash) {
                let text = format!("record {} has another hash here than in an earlier line", anchor.number);
                return Err(fault(text));
            }
        }
        if chain.starts_with(SHARD) && chains.len() > 1 {
            let text = "the chain of a shard never begins anew, and here are anchors of several".to_owned();
            return Err(super::Fault { line: 0, text });
        }
        let newest = chains.iter().max_by_key(|(_, (newest_ms, _))| *newest_ms).map(|(origin, _)| *origin);
        let (_, hashes) = newest.and_then(|origin| chains.remove(&origin)).unwrap_or_default();
        let of_earlier = chains.values().map(|(_, hashes)| hashes.len()).sum();
        Ok(Self { hashes, origin: newest.map(Hash), of_earlier, unreadable })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.hashes.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }
}
