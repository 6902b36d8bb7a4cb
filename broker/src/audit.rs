//! The audit of a workspace: what was done, by whom, from where, as a chain of hashes, and how it is checked away from any broker.
//!
//! ```text
//! hash(n) = SHA-256(hash(n - 1) | n as u64, big-endian | record n as it is stored)
//! ```
//!
//! So whoever knows one hash knows all records up to it: one that is edited, left out or put elsewhere gives another hash. An
//! export is text, a JSON document a line: first a [`Start`], then a [`Line`] for each record.
//!
//! Read first: [`Record`], [`verify`].

pub mod anchor;

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use self::anchor::Anchors;
use crate::encoding::{DecodeError, Field, Reader, encoded};

/// The hash behind which a chain begins.
pub const GENESIS: Hash = Hash([0; 32]);

/// SHA-256.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Hash(pub [u8; 32]);

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $text:literal;)*) => {
        /// What was done. Numbers and names are frozen: chains and exports hold them.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum Kind {
            $($(#[$doc])* #[serde(rename = $text)] $name = $number,)*
        }

        impl Kind {
            /// All there are.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Its name in exports.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }

        impl Field for Kind {
            fn put(&self, out: &mut BytesMut) {
                out.put_u8(*self as u8);
            }

            fn get(reader: &mut Reader) -> Result<Self, DecodeError> {
                match reader.u8()? {
                    $($number => Ok(Self::$name),)*
                    value => Err(DecodeError::Unknown { what: "kind of audit record", value }),
                }
            }
        }
    };
}

kinds! {
    /// Batches were committed: their digest, folded one after the other, over a range of sequences.
    BatchesCommitted = 1, "batches_committed";
    /// A workspace was created.
    WorkspaceCreated = 2, "workspace_created";
    /// The settings of a workspace were changed.
    WorkspaceUpdated = 3, "workspace_updated";
    /// A workspace was deleted; the digest is the head of its chain.
    WorkspaceDeleted = 4, "workspace_deleted";
    /// A sandbox was registered.
    SandboxRegistered = 5, "sandbox_registered";
    /// A sandbox was unregistered.
    SandboxUnregistered = 6, "sandbox_unregistered";
    /// A topic was created.
    TopicCreated = 7, "topic_created";
    /// A topic was deleted.
    TopicDeleted = 8, "topic_deleted";
    /// A policy was set; the digest is that of its JSON.
    PolicySet = 9, "policy_set";
    /// A policy was removed.
    PolicyRemoved = 10, "policy_removed";
    /// An API key was made.
    KeyCreated = 11, "key_created";
    /// An API key was revoked.
    KeyRevoked = 12, "key_revoked";
    /// A policy holds a message for approval.
    MessageHeld = 13, "message_held";
    /// Somebody approved a message.
    MessageApproved = 14, "message_approved";
    /// Somebody denied a message.
    MessageDenied = 15, "message_denied";
    /// A message waits for approval no more.
    ApprovalEnded = 16, "approval_ended";
    /// A policy refused messages.
    MessagesRefused = 17, "messages_refused";
    /// A message became a dead letter.
    DeadLettered = 18, "dead_lettered";
    /// Dead letters were put back.
    DeadLettersRedriven = 19, "dead_letters_redriven";
    /// Dead letters were removed.
    DeadLettersPurged = 20, "dead_letters_purged";
    /// Messages of the history were put into an inbox.
    MessagesReplayed = 21, "messages_replayed";
    /// Somebody asked for what he may not have.
    CallRefused = 22, "call_refused";
    /// Somebody did not prove who he is.
    AuthenticationFailed = 23, "authentication_failed";
    /// The members of the cluster were changed, or who leads.
    ClusterChanged = 24, "cluster_changed";
    /// The quotas of a workspace were set.
    QuotasSet = 25, "quotas_set";
    /// A token was made.
    TokenCreated = 26, "token_created";
    /// A token was revoked.
    TokenRevoked = 27, "token_revoked";
    /// Messages were held, refused or became dead letters, more often than each is told alone: their digest, folded one after the
    /// other.
    ActsFolded = 28, "acts_folded";
    /// Somebody reported what happened to sandboxes; the digest is that of the report.
    EventsReported = 29, "events_reported";
}

encoded! {
    /// What was done.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Record {
        /// When it was committed, in milliseconds since 1970.
        pub time_ms: u64,
        /// What.
        pub kind: Kind,
        /// Who: the subject of a token or a key; for messages, their sender. Empty: the broker itself.
        pub by: String,
        /// From where, as far as the broker knows. May be empty.
        pub address: String,
        /// Of the request, as its client or the broker named it. May be empty.
        pub request_id: String,
        /// What it is about: a sandbox, a topic, a key, an RPC.
        pub about: String,
        /// The first and the last sequence it is about, or the number of an approval or a revision; else 0.
        pub first: u64,
        /// See `first`.
        pub last: u64,
        /// How many.
        pub count: u64,
        /// 32 bytes where the kind has one; else empty.
        pub digest: Bytes,
        /// UTF-8, in plain words.
        pub text: Bytes,
    }
}

impl Field for Hash {
    fn put(&self, out: &mut BytesMut) {
        out.put_slice(&self.0);
    }

    fn get(reader: &mut Reader) -> Result<Self, DecodeError> {
        let bytes = reader.take(32)?;
        bytes.first_chunk().map(|hash| Self(*hash)).ok_or(DecodeError::Short("hash"))
    }
}

impl Hash {
    /// Of some bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// Of this one and more, in that order.
    #[must_use]
    pub(crate) fn and(&self, more: &[&[u8]]) -> Self {
        let mut sum = Sha256::new_with_prefix(self.0);
        more.iter().for_each(|bytes| sum.update(bytes));
        Self(sum.finalize().into())
    }

    /// From 64 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        let digits: Vec<u8> = unhex(text)?;
        Some(Self(digits.try_into().ok()?))
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Bytes as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes from hexadecimal digits.
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| (byte as char).to_digit(16).filter(|_| !byte.is_ascii_uppercase()).map(|digit| digit as u8);
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let bytes = pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect();
    if rest.is_empty() { bytes } else { None }
}

/// The hash of a record behind the one before.
pub fn link(previous: &Hash, number: u64, record: &Record) -> Hash {
    previous.and(&[&number.to_be_bytes(), &record.to_bytes()])
}

/// The first line of an export.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Start {
    /// The version of the form: 1.
    pub audit: u32,
    /// Whose chain it is.
    pub chain: String,
    /// The number of the first record.
    pub first: u64,
    /// The hash of the record before it.
    pub previous: String,
}

/// A record in an export.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// Counts the records of the chain, from 1.
    pub number: u64,
    /// When, in milliseconds since 1970.
    pub time_ms: u64,
    /// What.
    pub kind: Kind,
    /// Who.
    pub by: String,
    /// From where.
    pub address: String,
    /// Of the request.
    pub request_id: String,
    /// What it is about.
    pub about: String,
    /// Of a range.
    pub first: u64,
    /// Of a range.
    pub last: u64,
    /// How many.
    pub count: u64,
    /// Hexadecimal.
    pub digest: String,
    /// In plain words.
    pub text: String,
    /// Hexadecimal.
    pub hash: String,
}

impl Line {
    /// A record with its number and hash.
    pub fn new(number: u64, record: &Record, hash: &Hash) -> Self {
        let text = String::from_utf8_lossy(&record.text).into_owned();
        let Record { time_ms, kind, by, address, request_id, about, first, last, count, digest, .. } = record.clone();
        let (digest, hash) = (hex(&digest), hash.to_string());
        Self { number, time_ms, kind, by, address, request_id, about, first, last, count, digest, text, hash }
    }

    fn record(&self) -> Option<Record> {
        let line = self.clone();
        // As long as a record can hold.
        let texts = [&line.by, &line.address, &line.request_id, &line.about];
        if texts.iter().any(|text| text.len() > usize::from(u8::MAX)) {
            return None;
        }
        Some(Record {
            time_ms: line.time_ms,
            kind: line.kind,
            by: line.by,
            address: line.address,
            request_id: line.request_id,
            about: line.about,
            first: line.first,
            last: line.last,
            count: line.count,
            digest: unhex(&line.digest)?.into(),
            text: line.text.into_bytes().into(),
        })
    }
}

/// What an export that is sound holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Whose chain it is.
    pub chain: String,
    /// The number of the first record; 1: the chain is there from its beginning.
    pub first: u64,
    /// The number of the last record; one less than `first` where there is none.
    pub last: u64,
    /// The hash of the last record.
    pub head: Hash,
    /// The number of the record whose hash was asked for; what follows it is not covered by that hash.
    pub known: Option<u64>,
    /// How many anchors are of records in here, and the number of the last such record.
    pub anchored: (usize, Option<u64>),
}

/// Why an export cannot be believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {text}")]
pub struct Fault {
    /// The line, from 1.
    pub line: u64,
    /// What is wrong there.
    pub text: String,
}

/// Checks an export line by line: every record follows the one before, where `head` is given, it is the hash of one of them, and every
/// anchor is the hash of its record.
///
/// # Errors
/// The first line that is not what it must be.
pub fn verify<L: AsRef<str>>(
    lines: impl IntoIterator<Item = L>,
    head: Option<Hash>,
    anchors: &Anchors,
) -> Result<Verified, Fault> {
    let mut lines = lines.into_iter();
    let fault = |line: u64, text: String| Fault { line, text };
    let first = lines.next().ok_or_else(|| fault(1, "it is missing: the export is empty".into()))?;
    let start: Start = serde_json::from_str(first.as_ref())
        .map_err(|error| fault(1, format!("it is no start of an export: {error}")))?;
    if start.audit != 1 {
        return Err(fault(1, format!("its form has version {}, and this reads version 1", start.audit)));
    }
    let previous = Hash::parse(&start.previous).ok_or_else(|| fault(1, "previous is no hash".into()))?;
    if start.first == 0 || (start.first == 1 && previous != GENESIS) {
        return Err(fault(1, "a chain begins with record 1 behind a hash of zeros".into()));
    }
    let last = start.first - 1;
    let (known, anchored) = (None, (0, None));
    let mut verified = Verified { chain: start.chain, first: start.first, last, head: previous, known, anchored };
    if head == Some(previous) {
        verified.known = Some(last);
    }
    for (line, text) in (2..).zip(lines) {
        let read: Line = serde_json::from_str(text.as_ref())
            .map_err(|error| fault(line, format!("it is no record of an export: {error}")))?;
        let number = verified.last + 1;
        if read.number != number {
            return Err(fault(line, format!("it is record {}, and record {number} must be here", read.number)));
        }
        let record =
            read.record().ok_or_else(|| fault(line, format!("record {number} has a value that none can have")))?;
        let hash = link(&verified.head, number, &record);
        if Hash::parse(&read.hash) != Some(hash) {
            return Err(fault(line, format!("record {number} does not have the hash that it says: it was changed")));
        }
        if let Some(anchor) = anchors.hashes.get(&number) {
            if *anchor != hash {
                return Err(fault(line, format!("record {number} has another hash than its anchor: {anchor}")));
            }
            verified.anchored = (verified.anchored.0 + 1, Some(number));
        }
        if number == 1 && anchors.origin.is_some_and(|origin| origin != hash) {
            let text = "record 1 is not that of the chain that the anchors are of: it was made anew".to_owned();
            return Err(fault(line, text));
        }
        (verified.last, verified.head) = (number, hash);
        if head == Some(hash) {
            verified.known = Some(number);
        }
    }
    let end = verified.last + 3 - verified.first;
    if let Some((number, _)) = anchors.hashes.last_key_value().filter(|(number, _)| **number > verified.last) {
        return Err(fault(
            end,
            format!("record {number} has an anchor and is not here: records are missing at the end"),
        ));
    }
    match head {
        Some(head) if verified.known.is_none() => {
            let text = format!("no record has the hash {head}: records are missing at the end, or it is another chain");
            Err(fault(end, text))
        }
        _ => Ok(verified),
    }
}

#[cfg(test)]
#[path = "audit_tests.rs"]
mod tests;
