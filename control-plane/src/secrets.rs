//! Secrets at rest: sealed with AES-256-GCM under a key from a file, and tied to the place where they belong.
//!
//! A sealed text is `v1.KEY.TEXT`: the id of the key that sealed it, and base64 of a random nonce of 12 bytes, the ciphertext and its
//! tag of 16 bytes. Where it belongs (kind, workspace, resource and field) is authenticated with it: moved elsewhere it does not open.
//! A key seals 2^32 secrets before nonces may repeat; what people configure stays far below.

mod key_file;

use std::{collections::BTreeMap, fmt, path::Path, sync::Arc};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use serde::{Deserialize, Deserializer, de::Error as _};
use sha2::{Digest as _, Sha256};

pub(crate) use self::key_file::KeyFileError;
use crate::{
    error::{Failure, Reason},
    random,
};

/// Says how a sealed text is made.
const FORMAT: &str = "v1";

/// A text that is shown to nobody. What is printed of it is nothing.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(String);

impl Secret {
    pub(crate) fn new(text: String) -> Self {
        Self(text)
    }

    /// The text itself, for whom it was given.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // The errors of serde say what was there instead.
        match serde_json::Value::deserialize(deserializer)? {
            serde_json::Value::String(text) => Ok(Self(text)),
            _ => Err(D::Error::custom("a secret is a text, and this is none")),
        }
    }
}

/// Where a secret belongs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    /// Of the resource, as the database calls it.
    pub(crate) kind: &'a str,
    pub(crate) workspace: &'a str,
    /// Of the resource.
    pub(crate) id: &'a str,
    /// Such as `api_key`, or `env.TOKEN`.
    pub(crate) field: &'a str,
}

impl Place<'_> {
    /// Each part behind its length: no two places say the same.
    fn bytes(&self, key: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        for part in [FORMAT, key, self.kind, self.workspace, self.id, self.field] {
            bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
            bytes.extend_from_slice(part.as_bytes());
        }
        bytes
    }
}

/// Seals secrets and opens them. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Secrets(Option<Arc<Keys>>);

struct Keys {
    /// Of the key that seals.
    first: String,
    /// All that open, by their ids.
    all: BTreeMap<String, LessSafeKey>,
    /// See [`Secrets::pepper`].
    pepper: [u8; 32],
}

impl Secrets {
    /// With the keys of a file; empty: without, so that secrets are refused. `create`: a file that is not there is made.
    ///
    /// # Errors
    /// Where the file cannot be read, made or understood.
    pub(crate) fn of_file(file: &Path, create: bool) -> Result<Self, KeyFileError> {
        if file.as_os_str().is_empty() {
            return Ok(Self(None));
        }
        Self::with(key_file::read(file, create)?).ok_or(KeyFileError::Unusable)
    }

    /// With these keys, of which the first seals.
    fn with(keys: Vec<(String, [u8; 32])>) -> Option<Self> {
        let (first, bytes) = keys.first()?;
        let first = first.clone();
        let pepper = Sha256::digest([b"fingerprints of requests\0", &bytes[..]].concat()).into();
        let key = |bytes: [u8; 32]| Some(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &bytes).ok()?));
        let all = keys.into_iter().map(|(id, bytes)| Some((id, key(bytes)?))).collect::<Option<_>>()?;
        Some(Self(Some(Arc::new(Keys { first, all, pepper }))))
    }

    /// What goes into the digest of something that may hold a secret, so that nobody who has the database finds a short one by trying.
    /// Another one with another key. Empty without a key: then no secret is taken.
    pub(crate) fn pepper(&self) -> &[u8] {
        self.0.as_ref().map_or(&[], |keys| &keys.pepper)
    }

    fn keys(&self) -> Result<&Keys, Failure> {
        self.0.as_deref().ok_or_else(|| {
            let text = "this control plane has no key to keep secrets under; set secrets.key_file and start it again";
            Failure::new(Reason::SecretsNotConfigured, text)
        })
    }

    /// Seals a secret for a place.
    ///
    /// # Errors
    /// `SECRETS_NOT_CONFIGURED`.
    pub(crate) fn seal(&self, place: Place<'_>, secret: &Secret) -> Result<String, Failure> {
        let keys = self.keys()?;
        let nonce: [u8; NONCE_LEN] =
            random::bytes().ok_or_else(|| Failure::internal("the system gives no random bytes"))?;
        let key = keys.all.get(&keys.first).ok_or_else(|| Failure::internal("the key that seals is gone"))?;
        let mut text = secret.expose().as_bytes().to_vec();
        key.seal_in_place_append_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(place.bytes(&keys.first)),
            &mut text,
        )
        .map_err(|_| Failure::internal("a secret cannot be sealed"))?;
        let sealed = URL_SAFE_NO_PAD.encode([&nonce[..], &text].concat());
        Ok(format!("{FORMAT}.{}.{sealed}", keys.first))
    }

    /// Opens what was sealed for a place.
    ///
    /// # Errors
    /// `SECRETS_NOT_CONFIGURED`; `SECRET_UNREADABLE` where its key is gone, or it was sealed for another place.
    pub(crate) fn open(&self, place: Place<'_>, sealed: &str) -> Result<Secret, Failure> {
        let keys = self.keys()?;
        let unreadable = |why: String| {
            let Place { kind, id, field, .. } = place;
            let text = format!("the secret {field:?} of {kind} {id:?} cannot be read: {why}; give it again");
            Failure::new(Reason::SecretUnreadable, text)
        };
        let mut parts = sealed.splitn(3, '.');
        let (Some(FORMAT), Some(id), Some(text)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(unreadable("this version does not know how it was sealed".to_owned()));
        };
        let key = keys.all.get(id).ok_or_else(|| {
            unreadable(format!("it was sealed with key {id:?}, which is not in secrets.key_file any more"))
        })?;
        let damaged = || unreadable(format!("key {id:?} does not open it here, so key or database are others"));
        let mut bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| damaged())?;
        if bytes.len() < NONCE_LEN {
            return Err(damaged());
        }
        let mut text = bytes.split_off(NONCE_LEN);
        let nonce = Nonce::try_assume_unique_for_key(&bytes).map_err(|_| damaged())?;
        let opened = key.open_in_place(nonce, Aad::from(place.bytes(id)), &mut text).map_err(|_| damaged())?;
        String::from_utf8(opened.to_vec()).map(Secret).map_err(|_| damaged())
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids: Vec<_> = self.0.iter().flat_map(|keys| keys.all.keys()).collect();
        f.debug_struct("Secrets").field("keys", &ids).finish()
    }
}

#[cfg(test)]
impl Secrets {
    /// With one key, for tests.
    pub(crate) fn for_tests() -> Self {
        Self::with(vec![("k1".to_owned(), [7; 32])]).expect("a key of 32 bytes")
    }

    /// As where no file is set.
    pub(crate) fn none() -> Self {
        Self(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Place<'static> = Place { kind: "llm_provider", workspace: "w", id: "p1", field: "api_key" };

    fn secret() -> Secret {
        Secret::new("sk-very-secret".to_owned())
    }

    #[test]
    fn what_is_sealed_opens_in_its_place_alone() {
        let secrets = Secrets::for_tests();
        let sealed = secrets.seal(HERE, &secret()).unwrap();
        assert!(sealed.starts_with("v1.k1.") && !sealed.contains("very"), "{sealed}");
        assert_ne!(sealed, secrets.seal(HERE, &secret()).unwrap(), "a nonce of its own");
        assert_eq!(secrets.open(HERE, &sealed).unwrap(), secret());
        for elsewhere in [
            Place { kind: "mcp_server", ..HERE },
            Place { workspace: "v", ..HERE },
            Place { id: "p2", ..HERE },
            Place { field: "api_kez", ..HERE },
            // The same letters in a row.
            Place { workspace: "wp", id: "1", ..HERE },
        ] {
            let why = secrets.open(elsewhere, &sealed).unwrap_err();
            assert_eq!(why.code(), "SECRET_UNREADABLE");
            assert!(!why.to_string().contains("very"), "{why}");
        }
        let mut changed = sealed.clone().into_bytes();
        let middle = sealed.len() / 2;
        changed[middle] = if changed[middle] == b'A' { b'B' } else { b'A' };
        for wrong in [String::from_utf8(changed).unwrap(), "v1.k1.".to_owned(), "v2.k1.AA".to_owned(), String::new()] {
            assert_eq!(secrets.open(HERE, &wrong).unwrap_err().code(), "SECRET_UNREADABLE", "{wrong}");
        }
    }

    #[test]
    fn old_keys_open_and_the_first_one_seals() {
        let old = Secrets::for_tests().seal(HERE, &secret()).unwrap();
        let (k1, k2) = (("k1".to_owned(), [7; 32]), ("k2".to_owned(), [8; 32]));
        let both = Secrets::with(vec![k2.clone(), k1]).unwrap();
        assert_eq!(both.open(HERE, &old).unwrap(), secret());
        assert!(both.seal(HERE, &secret()).unwrap().starts_with("v1.k2."));
        assert_ne!(both.pepper(), Secrets::for_tests().pepper());
        let new = Secrets::with(vec![k2]).unwrap();
        let why = new.open(HERE, &old).unwrap_err().to_string();
        assert!(why.contains("\"k1\"") && why.contains("secrets.key_file"), "{why}");
        // Another key of the same name does not open it either.
        let other = Secrets::with(vec![("k1".to_owned(), [9; 32])]).unwrap();
        assert_eq!(other.open(HERE, &old).unwrap_err().code(), "SECRET_UNREADABLE");
    }

    #[test]
    fn without_a_key_there_are_no_secrets() {
        let none = Secrets::of_file(Path::new(""), true).unwrap();
        assert_eq!(none.seal(HERE, &secret()).unwrap_err().code(), "SECRETS_NOT_CONFIGURED");
        assert_eq!(none.open(HERE, "v1.k1.AA").unwrap_err().code(), "SECRETS_NOT_CONFIGURED");
    }

    #[test]
    fn secrets_are_not_printed() {
        let shown = format!("{:?} {:?}", secret(), Secrets::for_tests());
        assert!(!shown.contains("very") && shown.contains("k1"), "{shown}");
        let why = serde_json::from_str::<Secret>("123456789").unwrap_err().to_string();
        assert!(!why.contains("123"), "{why}");
    }
}
