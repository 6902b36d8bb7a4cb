//! Heads of chains that are written down elsewhere, and signed: what tells that records are missing at the end of an export.
//!
//! A file of anchors is text, a JSON document a line, the newest last. Signed is, with Ed25519, this text in UTF-8:
//!
//! ```text
//! aintandem audit anchor 1 \n cluster \n chain \n number \n hash \n time_ms \n node
//! ```

use std::{collections::BTreeMap, path::Path};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ring::signature::{ED25519, Ed25519KeyPair, UnparsedPublicKey};
use rustls::pki_types::{PrivateKeyDer, SubjectPublicKeyInfoDer, pem::PemObject as _};
use serde::{Deserialize, Serialize};

use super::Hash;

/// What stands before the 32 bytes of a public key of Ed25519 (RFC 8410).
const PUBLIC_KEY_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

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
        let Self { cluster, chain, number, hash, time_ms, node, .. } = self;
        format!("aintandem audit anchor 1\n{cluster}\n{chain}\n{number}\n{hash}\n{time_ms}\n{node}")
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
pub struct Anchors(pub(super) BTreeMap<u64, Hash>);

impl Anchors {
    /// Those of a file that are of this chain; where `key` is given, each must be signed with it. A chain that begins anew, because its
    /// workspace was deleted and created again, leaves the older ones behind.
    ///
    /// # Errors
    /// The first line that is not what it must be.
    pub fn read<L: AsRef<str>>(
        lines: impl IntoIterator<Item = L>,
        chain: &str,
        key: Option<&AnchorPublicKey>,
    ) -> Result<Self, super::Fault> {
        let mut anchors = BTreeMap::new();
        for (line, text) in (1..).zip(lines) {
            let fault = |text: String| super::Fault { line, text };
            let anchor: Anchor =
                serde_json::from_str(text.as_ref()).map_err(|error| fault(format!("it is no anchor: {error}")))?;
            if anchor.anchor != 1 {
                return Err(fault(format!("its form has version {}, and this reads version 1", anchor.anchor)));
            }
            if key.is_some_and(|key| !anchor.is_signed_by(key)) {
                return Err(fault("it is not signed with this key".to_owned()));
            }
            if anchor.chain != chain {
                continue;
            }
            let hash = Hash::parse(&anchor.hash).ok_or_else(|| fault("hash is no hash".to_owned()))?;
            if anchors.last_key_value().is_some_and(|(newest, _)| anchor.number < *newest) {
                anchors.clear();
            }
            anchors.insert(anchor.number, hash);
        }
        Ok(Self(anchors))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
