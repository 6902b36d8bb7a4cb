//! Who was turned away: counted here, and told to the audit now and then, so that a flood of them costs the log a record a second.

use std::{collections::BTreeMap, mem};

use parking_lot::Mutex;

use super::Seen;
use crate::{
    audit::Kind,
    command::{Noted, Origin},
    rejection::{Reason, Rejection},
};

/// Different refusals between two reports; the others are counted together.
const MAX_KEPT: usize = 256;

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

/// Refusals since the last report.
#[derive(Default)]
pub(crate) struct Refusals(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    by_what: BTreeMap<What, Count>,
    acts: Vec<Noted>,
    others: u64,
}

/// Whether a refusal is one that the audit wants to know of; and as what.
pub(crate) fn kind(reason: Reason) -> Option<Kind> {
    match reason {
        Reason::TokenMissing
        | Reason::TokenInvalid
        | Reason::TokenExpired
        | Reason::TokenNotYetValid
        | Reason::KeyRevoked => Some(Kind::AuthenticationFailed),
        Reason::RoleMissing | Reason::OtherWorkspace | Reason::OtherSandbox | Reason::OwnMessage => {
            Some(Kind::CallRefused)
        }
        _ => None,
    }
}

impl Refusals {
    /// Somebody was turned away. `path` is that of the RPC.
    pub(crate) fn add(&self, (by, workspace): (&str, &str), seen: &Seen, path: &str, why: &Rejection) {
        let Some(kind) = kind(why.reason) else { return };
        let host = seen.address.rsplit_once(':').map_or(seen.address.as_str(), |(host, _)| host);
        let about = path.rsplit('/').next().unwrap_or_default();
        let what = What {
            workspace: workspace.to_owned(),
            by: by.to_owned(),
            host: host.to_owned(),
            reason: why.reason.code(),
            about: about.chars().take(64).collect(),
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
    pub(crate) fn tell(&self, act: Noted) {
        let mut kept = self.0.lock();
        if kept.acts.len() < MAX_KEPT { kept.acts.push(act) } else { kept.others += 1 }
    }

    /// All that came since this was asked last, by workspace.
    pub(crate) fn take(&self) -> BTreeMap<String, Vec<Noted>> {
        let Kept { by_what, acts, others } = mem::take(&mut *self.0.lock());
        let mut taken: BTreeMap<String, Vec<Noted>> = BTreeMap::new();
        if !acts.is_empty() {
            taken.insert(String::new(), acts);
        }
        for (What { workspace, by, reason, about, .. }, Count { kind, count, address, request_id, text }) in by_what {
            let origin = Origin { by, address, request_id };
            let text = format!("{reason}: {text}").into();
            taken.entry(workspace).or_default().push(Noted { kind, origin, about, count, text });
        }
        if others > 0 {
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
    pub(crate) fn put_back(&self, workspace: &str, notes: Vec<Noted>) {
        let mut kept = self.0.lock();
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

    fn seen(address: &str) -> Seen {
        Seen { address: address.into(), request_id: "r".into() }
    }

    #[test]
    fn what_is_alike_is_counted_and_what_is_too_much_as_well() {
        let refusals = Refusals::default();
        let wrong = Rejection::new(Reason::TokenInvalid, "no token: at all");
        for port in 1..=1_000 {
            refusals.add(("", ""), &seen(&format!("10.0.0.1:{port}")), "/a.B/C", &wrong);
        }
        refusals.add(("zoe", "w"), &seen("[::1]:7"), "/a.B/D", &Rejection::new(Reason::RoleMissing, "no role"));
        refusals.add(("zoe", "w"), &seen("[::1]:7"), "/a.B/D", &Rejection::new(Reason::InboxFull, "no attack"));
        let taken = refusals.take();
        assert_eq!(taken.keys().collect::<Vec<_>>(), ["", "w"]);
        let first = &taken[""][0];
        assert_eq!((first.count, first.origin.address.as_str(), first.about.as_str()), (1_000, "10.0.0.1:1", "C"));
        assert_eq!(first.text, "TOKEN_INVALID: no token: at all");
        assert_eq!((taken["w"][0].kind, taken["w"].len()), (Kind::CallRefused, 1));
        assert!(refusals.take().is_empty());
        // What could not be told counts with what came since.
        refusals.add(("", ""), &seen("10.0.0.1:9"), "/a.B/C", &wrong);
        refusals.put_back("", taken[""].clone());
        assert_eq!(refusals.take()[""][0].count, 1_001);
        for host in 0..1_000 {
            refusals.add(("", ""), &seen(&format!("h{host}:1")), "/a.B/C", &wrong);
        }
        let taken = refusals.take();
        assert_eq!((taken[""].len(), taken[""].iter().map(|note| note.count).sum::<u64>()), (MAX_KEPT + 1, 1_000));
    }
}
