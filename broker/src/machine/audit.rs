//! The audit as a part of the state: a chain for each workspace, and one for each shard, which outlives its workspaces.
//!
//! Batches of messages are not noted one by one: their digests are folded, and the fold becomes a record before anything else
//! does, after some batches, and after some time. So the chain says of every batch that it was there, in which order, and between
//! which acts; and it does not grow with every message.

use bytes::Bytes;

use super::{
    keys::{self, AUDIT, DueKind, NO_WORKSPACE},
    state::{State, StateError},
};
use crate::{
    audit::{GENESIS, Hash, Kind, Record, link},
    batch::Batch,
    command::{Attributed, Note, Noted, Origin, Outcome, Verb, create_workspace::Settings},
    encoding::{Field as _, encoded},
    quotas::{Quotas, Rate},
    rejection::Rejection,
};

/// Records of a chain that are kept, the newest.
pub(crate) const MAX_RECORDS: u64 = if cfg!(test) { 16 } else { 1_000_000 };
/// Batches that one record stands for, at the most, and how long the first of them may wait for it, in milliseconds.
const MAX_FOLDED: u64 = if cfg!(test) { 4 } else { 1_024 };
const FOLD_MS: u64 = 60_000;
/// Acts of messages that are told one by one within a minute: of how many sandboxes, and how many of each. What is beyond shares a
/// record. So no sandbox pushes what others did out of the chain, and none hides behind the noise of another one.
const MAX_SENDERS: usize = if cfg!(test) { 3 } else { 32 };
const MAX_ALONE: u32 = if cfg!(test) { 2 } else { 4 };

encoded! {
    /// Where a chain ends.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(crate) struct AuditHead {
        /// The newest record; 0 before the first.
        pub(crate) number: u64,
        pub(crate) hash: Hash,
        /// Of record 1, which tells this chain from all others, also of the same name.
        pub(crate) origin: Hash,
        /// Batches that no record stands for yet: how many, their messages, sequences and digest.
        pub(crate) folded: u64,
        pub(crate) messages: u64,
        pub(crate) first_sequence: u64,
        pub(crate) last_sequence: u64,
        pub(crate) digest: Hash,
        /// Acts of messages: the minute, how many of it have a record of their own by whose they are, and those that have none.
        pub(crate) minute: u64,
        pub(crate) alone: Vec<(u128, u32)>,
        pub(crate) acts: FoldedActs,
    }
}

encoded! {
    /// Acts that no record stands for yet.
    #[derive(Debug, Clone, Default, PartialEq, Eq)]
    pub(crate) struct FoldedActs {
        pub(crate) held: u64,
        pub(crate) refused: u64,
        pub(crate) ended: u64,
        pub(crate) dead: u64,
        pub(crate) digest: Hash,
    }
}

impl Default for AuditHead {
    fn default() -> Self {
        Self {
            number: 0,
            hash: GENESIS,
            origin: GENESIS,
            folded: 0,
            messages: 0,
            first_sequence: 0,
            last_sequence: 0,
            digest: GENESIS,
            minute: 0,
            alone: Vec::new(),
            acts: FoldedActs::default(),
        }
    }
}

encoded! {
    /// A record as it is stored. The key tells workspace and number.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(crate) struct Stored {
        pub(crate) hash: Hash,
        pub(crate) record: Record,
    }
}

/// What is to be noted, beside who asked for it.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    kind: Kind,
    about: String,
    range: (u64, u64),
    count: u64,
    digest: Bytes,
    text: Bytes,
}

impl Entry {
    pub(super) fn new(kind: Kind, about: impl Into<String>) -> Self {
        let (digest, text) = (Bytes::new(), Bytes::new());
        Self { kind, about: about.into(), range: (0, 0), count: 1, digest, text }
    }

    /// Of a message, an approval or a revision.
    pub(super) fn numbered(self, number: u64) -> Self {
        Self { range: (number, number), ..self }
    }

    pub(super) fn counting(self, count: u64) -> Self {
        Self { count, ..self }
    }

    pub(super) fn saying(self, text: impl Into<Bytes>) -> Self {
        let text = text.into();
        // An export is text; what is none would have another hash there.
        let text = std::str::from_utf8(&text)
            .map_or_else(|_| String::from_utf8_lossy(&text).into_owned().into(), |_| text.clone());
        Self { text, ..self }
    }

    fn proving(self, digest: &Hash) -> Self {
        Self { digest: Bytes::copy_from_slice(&digest.0), ..self }
    }
}

/// Notes something in the chain of a workspace, with who asked for the verb under way.
pub(super) fn note(state: &mut State, workspace: u32, entry: Entry) -> Result<(), StateError> {
    let origin = state.origin.clone();
    note_from(state, workspace, origin, entry)
}

/// Notes what became of messages: alone, or folded with others where there are many.
pub(super) fn note_act(state: &mut State, workspace: u32, origin: Origin, entry: Entry) -> Result<(), StateError> {
    let now_ms = state.now_ms();
    let head = state.audit_mut(workspace)?;
    if head.minute != now_ms / FOLD_MS {
        (head.minute, head.alone) = (now_ms / FOLD_MS, Vec::new());
    }
    let whose = keys::text_hash(if origin.by.is_empty() { &entry.about } else { &origin.by });
    let alone = match head.alone.iter_mut().find(|(known, _)| *known == whose) {
        Some((_, count)) => {
            *count += 1;
            *count <= MAX_ALONE
        }
        None => {
            let room = head.alone.len() < MAX_SENDERS;
            if room {
                head.alone.push((whose, 1));
            }
            room
        }
    };
    if alone {
        return note_from(state, workspace, origin, entry);
    }
    let begins = head.acts == FoldedActs::default();
    match entry.kind {
        Kind::MessageHeld => head.acts.held += entry.count,
        Kind::MessagesRefused => head.acts.refused += entry.count,
        Kind::ApprovalEnded => head.acts.ended += entry.count,
        _ => head.acts.dead += entry.count,
    }
    let kind = [entry.kind as u8];
    let (by, about) = (origin.by.as_bytes(), entry.about.as_bytes());
    let numbers = [entry.range.0.to_be_bytes(), entry.range.1.to_be_bytes(), entry.count.to_be_bytes()].concat();
    // Each part by its own hash: none can give a byte to the next one.
    let parts = [by, about, &entry.text].map(|part| Hash::of(part).0);
    let [by, about, text] = &parts;
    head.acts.digest = head.acts.digest.and(&[&kind, &now_ms.to_be_bytes(), &numbers, by, about, text]);
    if begins {
        state.put_due(now_ms + FOLD_MS, workspace, DueKind::Audit, Bytes::new())?;
    }
    Ok(())
}

/// Lets a record stand for the acts that have none.
fn seal_acts(state: &mut State, workspace: u32) -> Result<(), StateError> {
    let acts = std::mem::take(&mut state.audit_mut(workspace)?.acts);
    let FoldedActs { held, refused, ended, dead, .. } = acts;
    let count = held + refused + ended + dead;
    if count == 0 {
        return Ok(());
    }
    let text =
        format!("{held} held, {refused} refused, {ended} approvals ended by themselves, {dead} became dead letters");
    let entry = Entry::new(Kind::ActsFolded, "").counting(count).proving(&acts.digest).saying(text);
    note_from(state, workspace, Origin::default(), entry)
}

/// The same for what somebody else has done.
pub(super) fn note_from(state: &mut State, workspace: u32, origin: Origin, entry: Entry) -> Result<(), StateError> {
    seal(state, workspace)?;
    append(state, workspace, origin, entry)
}

fn append(state: &mut State, workspace: u32, origin: Origin, entry: Entry) -> Result<(), StateError> {
    let time_ms = state.now_ms();
    let head = state.audit_mut(workspace)?;
    let Origin { by, address, request_id } = origin;
    let Entry { kind, about, range: (first, last), count, digest, text } = entry;
    let record = Record { time_ms, kind, by, address, request_id, about, first, last, count, digest, text };
    head.number += 1;
    head.hash = link(&head.hash, head.number, &record);
    if head.number == 1 {
        head.origin = head.hash;
    }
    let (number, hash) = (head.number, head.hash);
    state.put(AUDIT, keys::audit(workspace, number), Stored { hash, record }.to_bytes());
    if let Some(oldest) = number.checked_sub(MAX_RECORDS).filter(|oldest| *oldest > 0) {
        state.delete(AUDIT, keys::audit(workspace, oldest));
    }
    Ok(())
}

/// Lets a record stand for the batches that have none.
fn seal(state: &mut State, workspace: u32) -> Result<(), StateError> {
    let head = state.audit_mut(workspace)?;
    if head.folded == 0 {
        return Ok(());
    }
    let mut entry = Entry::new(Kind::BatchesCommitted, "").counting(head.messages).proving(&head.digest);
    entry.range = (head.first_sequence, head.last_sequence);
    let entry = entry.saying(format!("{} batches", head.folded));
    let AuditHead { number, hash, origin, minute, alone, acts, .. } = head.clone();
    *head = AuditHead { number, hash, origin, minute, alone, acts, ..AuditHead::default() };
    append(state, workspace, Origin::default(), entry)
}

/// A batch is in the log of a workspace.
pub(super) fn committed(state: &mut State, workspace: u32, batch: &Batch) -> Result<(), StateError> {
    let digest = Hash::of(batch.bytes());
    let head = state.audit_mut(workspace)?;
    let begins = head.folded == 0;
    if begins {
        head.first_sequence = batch.first_sequence;
    }
    head.folded += 1;
    head.messages += batch.len() as u64;
    head.last_sequence = batch.first_sequence + batch.len() as u64 - 1;
    head.digest = head.digest.and(&[&batch.first_sequence.to_be_bytes(), &digest.0]);
    let full = head.folded >= MAX_FOLDED;
    if full {
        seal(state, workspace)?;
    } else if begins {
        state.put_due(state.now_ms() + FOLD_MS, workspace, DueKind::Audit, Bytes::new())?;
    }
    Ok(())
}

/// The time is over in which other batches could share a record.
pub(super) fn due(state: &mut State, workspace: u32) -> Result<(), StateError> {
    // The workspace may be gone.
    if state.workspace_name(workspace)?.is_none() {
        return Ok(());
    }
    seal(state, workspace)?;
    seal_acts(state, workspace)
}

/// What the edge has to say.
pub(super) fn noted(state: &mut State, verb: Note) -> Result<Result<(), Rejection>, StateError> {
    let workspace = if verb.workspace.is_empty() {
        NO_WORKSPACE
    } else {
        match state.workspace(&verb.workspace)? {
            Some(workspace) => workspace.number,
            // Whoever asks for what does not exist is noted where all others are.
            None => NO_WORKSPACE,
        }
    };
    for Noted { kind, origin, about, count, text } in verb.entries {
        note_from(state, workspace, origin, Entry::new(kind, about).counting(count).saying(text))?;
    }
    Ok(Ok(()))
}

/// Where an act is noted.
enum Place {
    Workspace(String),
    Shard,
}

/// An act, described before it is done.
pub(super) struct Act {
    place: Place,
    entry: Entry,
}

/// What a verb is to the audit; nothing where it is no act of its own, or notes itself.
pub(super) fn describe(state: &mut State, verb: &Verb) -> Result<Option<Act>, StateError> {
    let within = |workspace: &String, entry: Entry| Some(Act { place: Place::Workspace(workspace.clone()), entry });
    let at_shard = |entry: Entry| Some(Act { place: Place::Shard, entry });
    Ok(match verb {
        Verb::CreateWorkspace(verb) => at_shard(Entry::new(Kind::WorkspaceCreated, &*verb.workspace)),
        Verb::DeleteWorkspace(verb) => {
            let Some(workspace) = state.workspace(&verb.workspace)?.map(|workspace| workspace.number) else {
                return Ok(None);
            };
            // What is left of its chain is this.
            seal(state, workspace)?;
            seal_acts(state, workspace)?;
            let head = state.audit_mut(workspace)?.clone();
            at_shard(Entry::new(Kind::WorkspaceDeleted, &*verb.workspace).numbered(head.number).proving(&head.hash))
        }
        Verb::UpdateWorkspace(verb) => {
            let entry = Entry::new(Kind::WorkspaceUpdated, &*verb.workspace);
            within(&verb.workspace, entry.saying(settings(&verb.settings)))
        }
        Verb::SetQuotas(verb) => within(&verb.workspace, Entry::new(Kind::QuotasSet, "").saying(quotas(&verb.quotas))),
        Verb::RegisterSandbox(verb) => {
            let text = format!("capabilities: {}", verb.capabilities.join(", "));
            within(&verb.workspace, Entry::new(Kind::SandboxRegistered, &*verb.sandbox).saying(text))
        }
        Verb::UnregisterSandbox(verb) => within(&verb.workspace, Entry::new(Kind::SandboxUnregistered, &*verb.sandbox)),
        Verb::CreateTopic(verb) => within(&verb.workspace, Entry::new(Kind::TopicCreated, &*verb.topic)),
        Verb::DeleteTopic(verb) => within(&verb.workspace, Entry::new(Kind::TopicDeleted, &*verb.topic)),
        Verb::SetPolicy(verb) if verb.json.is_empty() => within(&verb.workspace, Entry::new(Kind::PolicyRemoved, "")),
        Verb::SetPolicy(verb) => {
            within(&verb.workspace, Entry::new(Kind::PolicySet, "").proving(&Hash::of(&verb.json)))
        }
        Verb::CreateKey(verb) => {
            let text = format!(
                "for {}, roles {}, workspace {}, sandbox {}",
                verb.subject, verb.roles, verb.workspace, verb.sandbox
            );
            at_shard(Entry::new(Kind::KeyCreated, format!("{:016x}", verb.id)).saying(text))
        }
        Verb::RevokeKey(verb) => at_shard(Entry::new(Kind::KeyRevoked, format!("{:016x}", verb.id))),
        Verb::CreateToken(verb) => {
            let text = format!(
                "for {}, roles {}, workspace {}, sandbox {}, until {}",
                verb.subject, verb.roles, verb.workspace, verb.sandbox, verb.ends_ms
            );
            at_shard(Entry::new(Kind::TokenCreated, &*verb.token_id).saying(text))
        }
        Verb::RevokeToken(verb) => {
            let text = if verb.issuer.is_empty() { String::new() } else { format!("of issuer {}", verb.issuer) };
            at_shard(Entry::new(Kind::TokenRevoked, &*verb.token_id).saying(text))
        }
        Verb::Redrive(verb) => within(&verb.workspace, Entry::new(Kind::DeadLettersRedriven, &*verb.to_sandbox)),
        Verb::Purge(verb) => within(&verb.workspace, Entry::new(Kind::DeadLettersPurged, "")),
        Verb::Replay(verb) => within(&verb.workspace, Entry::new(Kind::MessagesReplayed, &*verb.sandbox)),
        Verb::ReportEvents(verb) => {
            let about = verb.events.first().map(|event| event.sandbox.as_str()).unwrap_or_default();
            let entry = Entry::new(Kind::EventsReported, about).counting(verb.events.len() as u64);
            within(&verb.workspace, entry.proving(&Hash::of(&verb.to_bytes())))
        }
        _ => None,
    })
}

/// Settings in words. Part of the format: every node, of every version, must say the same.
fn settings(settings: &Settings) -> String {
    let Settings { default_ttl_ms, retention_age_ms, retention_bytes, max_hops } = settings;
    format!(
        "default_ttl_ms {default_ttl_ms}, retention_age_ms {retention_age_ms}, retention_bytes {retention_bytes}, max_hops {max_hops}"
    )
}

/// Quotas in words; as above.
fn quotas(quotas: &Quotas) -> String {
    let rate = |rate: &Rate| format!("{} messages and {} bytes a second", rate.messages, rate.bytes);
    let Quotas {
        workspace,
        sandbox,
        caller,
        max_stored_bytes,
        max_message_bytes,
        max_sandboxes,
        max_streams,
        max_connections,
    } = quotas;
    format!(
        "workspace {}, sandbox {}, caller {}, max_stored_bytes {max_stored_bytes}, max_message_bytes {max_message_bytes}, \
         max_sandboxes {max_sandboxes}, max_streams {max_streams}, max_connections {max_connections}",
        rate(workspace),
        rate(sandbox),
        rate(caller)
    )
}

/// Notes an act that was done.
pub(super) fn done(state: &mut State, act: Act, outcome: &Outcome) -> Result<(), StateError> {
    let Act { place, entry } = act;
    let entry = match outcome {
        Outcome::SetPolicy(Ok(set)) => entry.numbered(set.revision),
        Outcome::Redrive(Ok(redriven)) if redriven.redriven > 0 => entry.counting(redriven.redriven),
        Outcome::Purge(Ok(purged)) if purged.purged > 0 => entry.counting(purged.purged),
        Outcome::Replay(Ok(replayed)) if replayed.replayed > 0 => entry.counting(replayed.replayed),
        // What changed nothing is no act.
        Outcome::RegisterSandbox(Ok(registered)) if !registered.created => return Ok(()),
        Outcome::CreateTopic(Ok(topic)) if !topic.created => return Ok(()),
        Outcome::RegisterSandbox(Ok(_))
        | Outcome::CreateTopic(Ok(_))
        | Outcome::UnregisterSandbox(Ok(_))
        | Outcome::DeleteTopic(Ok(()))
        | Outcome::CreateWorkspace(Ok(()))
        | Outcome::UpdateWorkspace(Ok(()))
        | Outcome::SetQuotas(Ok(()))
        | Outcome::DeleteWorkspace(Ok(()))
        | Outcome::CreateToken(Ok(()))
        | Outcome::RevokeToken(Ok(()))
        | Outcome::ReportEvents(Ok(()))
        | Outcome::CreateKey(Ok(()))
        | Outcome::RevokeKey(Ok(())) => entry,
        _ => return Ok(()),
    };
    let workspace = match place {
        Place::Shard => NO_WORKSPACE,
        Place::Workspace(name) => match state.workspace(&name)? {
            Some(workspace) => workspace.number,
            None => return Ok(()),
        },
    };
    note(state, workspace, entry)
}

/// The verb that somebody asked for; from now on it is he who acts.
pub(super) fn begin(state: &mut State, verb: Verb) -> Verb {
    match verb {
        Verb::Attributed(Attributed { origin, verb }) => {
            state.origin = origin;
            *verb
        }
        verb => {
            state.origin = Origin::default();
            verb
        }
    }
}
