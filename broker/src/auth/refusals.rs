//! Who was turned away: counted here, and told to the audit now and then. A flood of them, by whoever has no token at all, must
//! neither cost the log much nor push older records out of the audit: what is told is bounded over time.

use std::{collections::BTreeMap, mem};

use parking_lot::Mutex;

use super::{Seen, roles};
use crate::{
    audit::Kind,
    command::{Noted, Origin},
    connections::CONNECTION,
    rejection::{Reason, Rejection},
};

/// Different refusals between two reports; the others are counted together.
const MAX_KEPT: usize = 256;
/// Refusals that may be told at once after a quiet time, and how many reports it takes for one more.
const BURST: u32 = 64;
const REPORTS_FOR_ONE: u32 = 10;
/// After how many reports those are told that were only counted.
const REPORTS_FOR_OTHERS: u32 = 60;

/// What refusals have in common that are told as one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct What {
    /// The workspace that whoever asked is bound to; empty: none that is known.
    workspace: String,
    by: String,
    /// Without the port: a client may come from thousands.
    host: String,
    reason: &'static str,
    about: String,
}

#[derive(Debug, Clone)]
struct Count {
    kind: Kind,
    count: u64,
    /// Of the first.
    address: String,
    request_id: String,
    text: String,
}

/// Refusals since the last report: of those who are known and of those who are not, so that nobody hides behind a flood of others.
#[derive(Default)]
pub(crate) struct Refusals {
    known: Ledger,
    unknown: Ledger,
}

#[derive(Default)]
struct Ledger(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    by_what: BTreeMap<What, Count>,
    acts: Vec<Noted>,
    others: u64,
    /// Reports so far, refusals that were told of late, and the report with which the others were told last.
    reports: u32,
    told: u32,
    others_told: u32,
}

/// Whether a refusal is one that the audit wants to know of; and as what. Of values that cannot be only ids come so far.
pub(crate) fn kind(reason: Reason) -> Option<Kind> {
    match reason {
        Reason::TokenMissing
        | Reason::TokenInvalid
        | Reason::TokenExpired
        | Reason::TokenNotYetValid
        | Reason::TokenRevoked
        | Reason::KeyRevoked => Some(Kind::AuthenticationFailed),
        Reason::RoleMissing
        | Reason::OtherWorkspace
        | Reason::OtherSandbox
        | Reason::OwnMessage
        | Reason::ApprovalEnded
        | Reason::UnknownMethod
        | Reason::RequestCompressed
        | Reason::InvalidField
        | Reason::TooManyConnections
        | Reason::ConnectionAbused
        | Reason::HeadersTooLarge
        | Reason::RequestTooSlow => Some(Kind::CallRefused),
        _ => None,
    }
}

impl Refusals {
    fn ledger(&self, by: &str) -> &Ledger {
        if by.is_empty() { &self.unknown } else { &self.known }
    }

    /// Somebody was turned away. `path` is that of the RPC.
    pub(crate) fn add(&self, (by, workspace): (&str, &str), seen: &Seen, path: &str, why: &Rejection) {
        self.ledger(by).add((by, workspace), seen, path, why);
    }

    /// An act that no command of its own tells.
    pub(crate) fn tell(&self, act: Noted) {
        self.known.tell(act);
    }

    /// All that came since this was asked last, by workspace.
    pub(crate) fn take(&self) -> BTreeMap<String, Vec<Noted>> {
        let mut taken = self.known.take();
        for (workspace, notes) in self.unknown.take() {
            taken.entry(workspace).or_default().extend(notes);
        }
        taken
    }

    /// They could not be told, and are to be told again.
    pub(crate) fn put_back(&self, workspace: &str, notes: Vec<Noted>) {
        let (known, unknown) = notes.into_iter().partition(|note| !note.origin.by.is_empty());
        self.known.put_back(workspace, known);
        self.unknown.put_back(workspace, unknown);
    }
}

impl Ledger {
    /// Somebody was turned away. `path` is that of the RPC.
    fn add(&self, (by, workspace): (&str, &str), seen: &Seen, path: &str, why: &Rejection) {
        let of_id = why.reason != Reason::InvalidField || why.field.ends_with("_id");
        let Some(kind) = kind(why.reason).filter(|_| of_id) else { return };
        let host = seen.address.rsplit_once(':').map_or(seen.address.as_str(), |(host, _)| host);
        // What does not exist may be called anything.
        let about = match roles::find(path) {
            Some(rule) => rule.path.rsplit('/').next().unwrap_or_default(),
            None if path == CONNECTION => CONNECTION,
            None => "",
        };
        let what = What {
            workspace: workspace.to_owned(),
            by: by.to_owned(),
            host: host.to_owned(),
            reason: why.reason.code(),
            about: about.to_owned(),
        };
        let mut kept = self.0.lock();
        if let Some(known) = kept.by_what.get_mut(&what) {
            known.count += 1;
        } else if kept.by_what.len() < MAX_KEPT {
            let Seen { address, request_id } = seen.clone();
            kept.by_what.insert(what, Count { kind, count: 1, address, request_id, text: why.text.clone() });
        } else {
            kept.others += 1;
        }
    }

    /// An act that no command of its own tells.
    fn tell(&self, act: Noted) {
        let mut kept = self.0.lock();
        if kept.acts.len() < MAX_KEPT { kept.acts.push(act) } else { kept.others += 1 }
    }

    /// All that came since this was asked last, by workspace.
    fn take(&self) -> BTreeMap<String, Vec<Noted>> {
        let mut kept = self.0.lock();
        kept.reports = kept.reports.wrapping_add(1);
        if kept.reports.is_multiple_of(REPORTS_FOR_ONE) {
            kept.told = kept.told.saturating_sub(1);
        }
        let (by_what, acts) = (mem::take(&mut kept.by_what), mem::take(&mut kept.acts));
        let mut taken: BTreeMap<String, Vec<Noted>> = BTreeMap::new();
        if !acts.is_empty() {
            taken.insert(String::new(), acts);
        }
        for (What { workspace, by, reason, about, .. }, Count { kind, count, address, request_id, text }) in by_what {
            if kept.told >= BURST {
                kept.others += count;
                continue;
            }
            kept.told += 1;
            let origin = Origin { by, address, request_id };
            let text = format!("{reason}: {text}").into();
            taken.entry(workspace).or_default().push(Noted { kind, origin, about, count, text });
        }
        if kept.others > 0 && kept.reports.wrapping_sub(kept.others_told) >= REPORTS_FOR_OTHERS {
            kept.others_told = kept.reports;
            let others = mem::take(&mut kept.others);
            let text = "as many others, which were too many to tell apart".into();
            let (kind, origin) = (Kind::AuthenticationFailed, Origin::default());
            taken.entry(String::new()).or_default().push(Noted {
                kind,
                origin,
                about: String::new(),
                count: others,
                text,
            });
        }
        taken
    }

    /// They could not be told, and are to be told again.
    fn put_back(&self, workspace: &str, notes: Vec<Noted>) {
        let mut kept = self.0.lock();
        kept.told = kept.told.saturating_sub(notes.len() as u32);
        for note in notes {
            if note.kind == Kind::ClusterChanged {
                kept.acts.push(note);
                continue;
            }
            let Noted { kind, origin: Origin { by, address, request_id }, about, count, text } = note;
            let text = String::from_utf8_lossy(&text).into_owned();
            let (code, text) = text.split_once(": ").unwrap_or(("", &text));
            let reason = Reason::ALL.iter().map(|reason| reason.code()).find(|known| *known == code);
            let (Some(reason), true) = (reason, kept.by_what.len() < MAX_KEPT) else {
                kept.others += count;
                continue;
            };
            let host = address.rsplit_once(':').map_or(address.as_str(), |(host, _)| host).to_owned();
            let what = What { workspace: workspace.to_owned(), by, host, reason, about };
            let text = text.to_owned();
            kept.by_what.entry(what).and_modify(|known| known.count += count).or_insert(Count {
                kind,
                count,
                address,
                request_id,
                text,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRITE: &str = "/aintandem.messaging.v1.PublishService/Publish";
    const READ: &str = "/aintandem.policy.v1.PolicyService/GetPolicy";

    fn seen(address: &str) -> Seen {
        Seen { address: address.into(), request_id: "r".into() }
    }

    #[test]
    fn what_is_alike_is_counted_and_what_is_too_much_as_well() {
        let refusals = Refusals::default();
        let wrong = Rejection::new(Reason::TokenInvalid, "no token: at all");
        for port in 1..=1_000 {
            refusals.add(("", ""), &seen(&format!("10.0.0.1:{port}")), WRITE, &wrong);
        }
        refusals.add(("zoe", "w"), &seen("[::1]:7"), READ, &Rejection::new(Reason::RoleMissing, "no role"));
        refusals.add(("zoe", "w"), &seen("[::1]:7"), READ, &Rejection::new(Reason::InboxFull, "no attack"));
        let taken = refusals.take();
        assert_eq!(taken.keys().collect::<Vec<_>>(), ["", "w"]);
        let first = &taken[""][0];
        assert_eq!(
            (first.count, first.origin.address.as_str(), first.about.as_str()),
            (1_000, "10.0.0.1:1", "Publish")
        );
        assert_eq!(first.text, "TOKEN_INVALID: no token: at all");
        assert_eq!((taken["w"][0].kind, taken["w"].len()), (Kind::CallRefused, 1));
        assert!(refusals.take().is_empty());
        // What could not be told counts with what came since.
        refusals.add(("", ""), &seen("10.0.0.1:9"), WRITE, &wrong);
        refusals.put_back("", taken[""].clone());
        assert_eq!(refusals.take()[""][0].count, 1_001);
        for host in 0..1_000 {
            refusals.add(("", ""), &seen(&format!("h{host}:1")), WRITE, &wrong);
        }
        let mut told: Vec<Noted> = refusals.take().remove("").unwrap();
        assert!(told.len() < BURST as usize, "{}", told.len());
        for second in 0..600 {
            for host in 0..1_000 {
                refusals.add(("", ""), &seen(&format!("h{second}-{host}:1")), WRITE, &wrong);
            }
            told.extend(refusals.take().remove("").unwrap_or_default());
        }
        (0..60).for_each(|_| told.extend(refusals.take().remove("").unwrap_or_default()));
        assert!(told.len() < 64 + 66 + 12, "a flood of ten minutes is {} records", told.len());
        assert_eq!(told.iter().map(|note| note.count).sum::<u64>(), 601_000, "and all are counted");
    }
}
