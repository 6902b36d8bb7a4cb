//! What messages say, encrypted before it is proposed and decrypted when it is handed out: the log, the states, the snapshots and
//! whatever is copied of them hold it sealed.
//!
//! ```text
//! sealed body    = field 99, the envelope | all other fields of the message as they were
//! envelope       = version u8 | name of the key text | salt 16 bytes | number u64 | AES-256-GCM(content)
//! key            = HKDF-SHA256(salt, key of the file, "aintandem content 1" | workspace)
//! nonce          = 0 u32 | number u64
//! authenticated  = workspace | 0 | all other fields of the message
//! ```
//!
//! A process draws a salt for each workspace that it seals for and counts from there: no key meets a nonce twice, however many
//! messages there are. What is sealed belongs to its message and its workspace, and opens in no other.
//!
//! Clients cannot send field 99, so a body that begins with it is one that a broker has sealed.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Instant, SystemTime},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::{BufMut as _, BytesMut};
use parking_lot::Mutex;
use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hkdf,
};

use crate::{
    clock,
    config::{ConfigError, EncryptionConfig},
    encoding::put_text,
    message::{self, CONTENT, SEALED},
    pem::wrong,
    random,
    rejection::{Reason, Rejection},
};

const VERSION: u8 = 1;
const SALT_BYTES: usize = 16;
const TAG_BYTES: usize = 16;
const PURPOSE: &[u8] = b"aintandem content 1";
/// Bytes of the name of a key, at most.
const MAX_NAME_BYTES: usize = 64;
/// Keys that were derived and are remembered: one for each workspace, process and key of the file.
const MAX_DERIVED: usize = 16_384;
/// The file is looked at again after so long.
const LOOK_AGAIN: std::time::Duration = std::time::Duration::from_secs(1);
/// Bytes of an envelope beside its content and the name of its key.
const ENVELOPE: usize = 1 + 1 + SALT_BYTES + 8 + TAG_BYTES;

/// Seals and opens.
pub(crate) struct Sealer {
    settings: EncryptionConfig,
    all: bool,
    workspaces: HashSet<String>,
    current: Mutex<Current>,
}

struct Current {
    looked: Instant,
    stamp: Option<SystemTime>,
    keys: Keys,
    /// By workspace: what this process seals with.
    sealing: HashMap<Arc<str>, Session>,
    derived: HashMap<(String, Arc<str>, [u8; SALT_BYTES]), Arc<LessSafeKey>>,
}

/// As they are in the file.
#[derive(Default)]
struct Keys {
    first: String,
    by_name: HashMap<String, [u8; 32]>,
}

/// A salt, and how often it was used.
struct Session {
    name: String,
    salt: [u8; SALT_BYTES],
    number: u64,
    key: Arc<LessSafeKey>,
}

/// An envelope, taken apart.
struct Envelope<'a> {
    name: &'a str,
    salt: [u8; SALT_BYTES],
    number: [u8; 8],
    content: &'a [u8],
}

impl<'a> Envelope<'a> {
    fn read(bytes: &'a [u8]) -> Option<Self> {
        let rest = bytes.strip_prefix(&[VERSION])?;
        let (length, rest) = rest.split_first()?;
        let (name, rest) = rest.split_at_checked(usize::from(*length))?;
        let (salt, rest) = rest.split_first_chunk()?;
        let (number, content) = rest.split_first_chunk()?;
        let name = std::str::from_utf8(name).ok()?;
        (content.len() >= TAG_BYTES).then_some(Self { name, salt: *salt, number: *number, content })
    }
}

/// How long the content is that an envelope holds.
pub(crate) fn content_bytes(envelope: &[u8]) -> usize {
    Envelope::read(envelope).map_or(0, |envelope| envelope.content.len() - TAG_BYTES)
}

impl Sealer {
    /// With the keys of the file, which must be readable now. Without a file it seals nothing, and opens nothing.
    pub(crate) fn new(settings: &EncryptionConfig) -> Result<Self, ConfigError> {
        if settings.key_file.as_os_str().is_empty() {
            return Ok(Self::none());
        }
        // Before the file is read: what changes meanwhile is read again.
        let stamp = stamp(settings);
        let (keys, sealing, derived) = (load(settings)?, HashMap::new(), HashMap::new());
        let current = Current { looked: clock::now(), stamp, keys, sealing, derived };
        Ok(Self {
            all: settings.workspaces.iter().any(|workspace| workspace == "*"),
            workspaces: settings.workspaces.iter().cloned().collect(),
            settings: settings.clone(),
            current: Mutex::new(current),
        })
    }

    /// Without keys: it seals nothing.
    pub(crate) fn none() -> Self {
        let (sealing, derived) = (HashMap::new(), HashMap::new());
        let current = Current { looked: clock::now(), stamp: None, keys: Keys::default(), sealing, derived };
        Self {
            all: false,
            workspaces: HashSet::new(),
            settings: EncryptionConfig::default(),
            current: Mutex::new(current),
        }
    }

    /// Whether messages of a workspace are encrypted.
    pub(crate) fn seals(&self, workspace: &str) -> bool {
        self.all || self.workspaces.contains(workspace)
    }

    /// The body of a message as it is stored. One that was checked: a client cannot have sealed it.
    pub(crate) fn seal<'a>(&self, workspace: &str, body: &'a [u8]) -> Result<Cow<'a, [u8]>, Rejection> {
        let (content, rest) = message::without(body, CONTENT)?;
        let failed = || Rejection::new(Reason::ContentUnreadable, "the content could not be encrypted");
        let (name, salt, number, key) = {
            let mut current = self.current.lock();
            self.look(&mut current, false);
            current.session(workspace).ok_or_else(failed)?
        };
        let mut sealed = content.to_vec();
        let aad = [workspace.as_bytes(), &[0], &rest].concat();
        key.seal_in_place_append_tag(nonce(number), Aad::from(aad), &mut sealed).map_err(|_| failed())?;
        let mut envelope = BytesMut::with_capacity(ENVELOPE + name.len() + content.len());
        envelope.put_u8(VERSION);
        put_text(&mut envelope, &name);
        envelope.put_slice(&salt);
        envelope.put_u64(number);
        envelope.put_slice(&sealed);
        let mut out = BytesMut::with_capacity(envelope.len() + rest.len() + 8);
        message::put_field(&mut out, SEALED, &envelope);
        out.put_slice(&rest);
        Ok(Cow::Owned(out.into()))
    }

    /// The body of a message as it was sent.
    pub(crate) fn open<'a>(&self, workspace: &str, body: &'a [u8]) -> Result<Cow<'a, [u8]>, Rejection> {
        if !message::is_sealed(body) {
            return Ok(Cow::Borrowed(body));
        }
        let unreadable = |text: String| Rejection::new(Reason::ContentUnreadable, text);
        let damaged = || unreadable("the content of the message is not what was encrypted".to_owned());
        let (sealed, rest) = message::without(body, SEALED)?;
        let envelope = Envelope::read(sealed).ok_or_else(damaged)?;
        let key = {
            let mut current = self.current.lock();
            let missing = !current.keys.by_name.contains_key(envelope.name);
            self.look(&mut current, missing);
            current.key(envelope.name, workspace, &envelope.salt).ok_or_else(|| {
                let name = envelope.name;
                unreadable(format!(
                    "the content of the message was encrypted with key {name:?}, which is not in encryption.key_file"
                ))
            })?
        };
        let mut content = envelope.content.to_vec();
        let aad = [workspace.as_bytes(), &[0], &rest].concat();
        let opened = key.open_in_place(nonce(u64::from_be_bytes(envelope.number)), Aad::from(aad), &mut content);
        let content = opened.map_err(|_| damaged())?;
        let mut out = BytesMut::with_capacity(content.len() + rest.len() + 8);
        message::put_field(&mut out, CONTENT, content);
        out.put_slice(&rest);
        Ok(Cow::Owned(out.into()))
    }

    /// Reads the file again when it has changed. What is in it by now counts for what is sealed from now on.
    fn look(&self, current: &mut Current, now: bool) {
        let at = clock::now();
        let due = at.saturating_duration_since(current.looked) >= LOOK_AGAIN;
        if self.settings.key_file.as_os_str().is_empty() || !(due || now) {
            return;
        }
        current.looked = at;
        let stamp = stamp(&self.settings);
        if stamp == current.stamp {
            return;
        }
        match load(&self.settings) {
            Ok(keys) => {
                tracing::info!(
                    first = keys.first,
                    keys = keys.by_name.len(),
                    "the keys of encryption.key_file are others by now"
                );
                (current.keys, current.stamp) = (keys, stamp);
                current.sealing.clear();
                current.derived.clear();
            }
            // It may be half written: it is tried again.
            Err(error) => tracing::warn!(%error, "encryption.key_file has changed and cannot be used"),
        }
    }
}

impl Current {
    /// What to seal the next message of a workspace with.
    fn session(&mut self, workspace: &str) -> Option<(String, [u8; SALT_BYTES], u64, Arc<LessSafeKey>)> {
        if !self.sealing.contains_key(workspace) {
            let name = self.keys.first.clone();
            let salt = *random::secret().first_chunk()?;
            let key = self.key(&name, workspace, &salt)?;
            if self.sealing.len() >= MAX_DERIVED {
                self.sealing.clear();
            }
            self.sealing.insert(workspace.into(), Session { name, salt, number: 0, key });
        }
        let session = self.sealing.get_mut(workspace)?;
        session.number = session.number.checked_add(1)?;
        Some((session.name.clone(), session.salt, session.number, Arc::clone(&session.key)))
    }

    fn key(&mut self, name: &str, workspace: &str, salt: &[u8; SALT_BYTES]) -> Option<Arc<LessSafeKey>> {
        let place = (name.to_owned(), Arc::from(workspace), *salt);
        if let Some(key) = self.derived.get(&place) {
            return Some(Arc::clone(key));
        }
        let key = Arc::new(derive(self.keys.by_name.get(name)?, workspace, salt)?);
        if self.derived.len() >= MAX_DERIVED {
            self.derived.clear();
        }
        self.derived.insert(place, Arc::clone(&key));
        Some(key)
    }
}

fn derive(key: &[u8; 32], workspace: &str, salt: &[u8]) -> Option<LessSafeKey> {
    let extracted = hkdf::Salt::new(hkdf::HKDF_SHA256, salt).extract(key);
    let info = [PURPOSE, workspace.as_bytes()];
    let expanded = extracted.expand(&info, &AES_256_GCM).ok()?;
    Some(LessSafeKey::new(UnboundKey::from(expanded)))
}

fn nonce(number: u64) -> Nonce {
    let mut nonce = [0; NONCE_LEN];
    nonce[NONCE_LEN - 8..].copy_from_slice(&number.to_be_bytes());
    Nonce::assume_unique_for_key(nonce)
}

fn stamp(settings: &EncryptionConfig) -> Option<SystemTime> {
    std::fs::metadata(&settings.key_file).and_then(|found| found.modified()).ok()
}

fn load(settings: &EncryptionConfig) -> Result<Keys, ConfigError> {
    // What is wrong is told by its line: what stands there is a secret.
    let expected =
        "a file with a key a line: a name of up to 64 bytes, a space, and 32 bytes as base64; each name once";
    let fail = |error: &dyn std::fmt::Display| wrong("encryption.key_file", &settings.key_file, error, expected);
    let text = std::fs::read_to_string(&settings.key_file).map_err(|error| fail(&error))?;
    let mut keys = Keys::default();
    for (at, line) in text.lines().enumerate().map(|(at, line)| (at + 1, line.trim())) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let parsed = line.split_once(char::is_whitespace).and_then(|(name, key)| {
            let key: [u8; 32] = STANDARD.decode(key.trim()).ok()?.try_into().ok()?;
            (name.len() <= MAX_NAME_BYTES).then(|| (name.to_owned(), key))
        });
        let (name, key) = parsed.ok_or_else(|| fail(&format!("line {at} is no key")))?;
        if keys.first.is_empty() {
            keys.first.clone_from(&name);
        }
        if keys.by_name.insert(name, key).is_some() {
            return Err(fail(&format!("line {at} has the name of another one")));
        }
    }
    if keys.first.is_empty() { Err(fail(&"it has no key")) } else { Ok(keys) }
}

#[cfg(test)]
#[path = "sealing_tests.rs"]
mod tests;
