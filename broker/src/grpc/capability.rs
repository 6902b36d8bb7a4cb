//! Chooses who gets a message that is addressed by capability.

use super::{Edge, publish::PublishContext};
use crate::{
    machine::{keys, policy::Judged},
    message::{Capability, MessageView},
    policy::Recipient,
    query::{QueryError, registry::Candidate},
    rejection::Rejection,
};

/// Recipients of a message to all that have a capability; also, how many sandboxes are looked at together to find one.
const MAX_CANDIDATES: usize = 1_000;

/// Who was chosen.
pub(super) enum Choice {
    /// One sandbox, by name.
    One(String),
    /// Sandboxes by number, each four bytes.
    Several(Vec<u8>),
    /// Nobody is there, and the message is to wait.
    Nobody,
}

/// Who has one capability, as the messages of one request see it: read once, however many they are.
#[derive(Default)]
pub(super) struct Capable {
    /// Everybody, up to two more than a message may have recipients: its sender is none.
    all: Option<Vec<Candidate>>,
    /// Those online among the ones that were looked at, with what this request has given them.
    online: Vec<Candidate>,
    /// The last that was looked at.
    through: Option<u32>,
    /// All were looked at.
    complete: bool,
}

impl Capable {
    /// All that there are, where a message to all has asked.
    pub(super) fn everybody(&self) -> &[Candidate] {
        self.all.as_deref().unwrap_or_default()
    }

    /// The one with the fewest waiting messages, or, with an ordering key, always the same, of those who may have it.
    fn one(&mut self, from: &str, ordering_key: &str, may: impl Fn(&str) -> bool) -> Option<(u32, String)> {
        let others = self.online.iter_mut().filter(|candidate| candidate.name != from && may(&candidate.name));
        let chosen = if ordering_key.is_empty() {
            others.min_by_key(|candidate| (candidate.held, candidate.number))
        } else {
            let ordering = keys::ordering_hash(ordering_key);
            others.max_by_key(|candidate| keys::weight(ordering, candidate.number))
        }?;
        // The next message of the request must not go to the same one only because no state shows this one yet.
        chosen.held = chosen.held.saturating_add(1);
        Some((chosen.number, chosen.name.clone()))
    }
}

impl Edge {
    /// One that is online, with the fewest waiting messages, or, with an ordering key, always the same one while it stays
    /// online; or all there are, if they are at most [`MAX_CANDIDATES`].
    pub(super) fn choose(
        &self,
        context: &mut PublishContext<'_>,
        wanted: Capability<'_>,
        (view, body): (&MessageView<'_>, &[u8]),
    ) -> Result<Choice, QueryError> {
        let (shard, workspace) = (context.shard, context.workspace_number());
        let capable = context.capable.entry(wanted.name.to_owned()).or_default();
        if wanted.all {
            let all = match &mut capable.all {
                Some(all) => all,
                None => capable.all.insert(shard.reader.capable(workspace, wanted.name, None, MAX_CANDIDATES + 2)?),
            };
            return everybody(all, wanted, view.from_sandbox_id);
        }
        let (from, key) = (view.from_sandbox_id, view.ordering_key);
        let in_force = shard.reader.policy_in_force(workspace)?;
        let judging = in_force.map(|policy| policy.judging(from, view.message_type as u8, body, context.now_ms));
        let judge = |to: &str| judging.as_ref().map_or(Judged::Allowed, |judging| judging.on(Recipient::Sandbox(to)));
        let may = |to: &str| judge(to) == Judged::Allowed;
        let may_with_approval = |to: &str| matches!(judge(to), Judged::Held(_));
        let gift = &mut context.gift;
        let mut give = |(number, name): (u32, String)| {
            gift.add((workspace, number));
            Choice::One(name)
        };
        loop {
            if let Some(chosen) = capable.one(from, key, may) {
                return Ok(give(chosen));
            }
            if capable.complete {
                if let Some(chosen) = capable.one(from, key, may_with_approval) {
                    return Ok(give(chosen));
                }
                if wanted.wait {
                    return Ok(Choice::Nobody);
                }
                // Where somebody is there who may not have it, the machine says why.
                let forbidden = capable.one(from, key, |_| true);
                return forbidden.map(|(_, name)| Choice::One(name)).ok_or_else(|| nobody(wanted));
            }
            let page = shard.reader.capable(workspace, wanted.name, capable.through, MAX_CANDIDATES)?;
            capable.complete = page.len() < MAX_CANDIDATES;
            capable.through = page.last().map(|candidate| candidate.number);
            let is_online = |one: &Candidate| self.is_online(shard, workspace, one.number, one.heard_ms);
            let online = page.into_iter().filter(is_online).map(|one| {
                // What others give it no state shows yet.
                let coming = shard.given.to((workspace, one.number));
                Candidate { held: one.held.saturating_add(coming), ..one }
            });
            capable.online.extend(online);
        }
    }
}

fn everybody(all: &[Candidate], wanted: Capability<'_>, from: &str) -> Result<Choice, QueryError> {
    let others = all.iter().filter(|candidate| candidate.name != from);
    let numbers: Vec<u8> = others.flat_map(|candidate| candidate.number.to_be_bytes()).collect();
    match numbers.len() / size_of::<u32>() {
        0 => Err(nobody(wanted)),
        1..=MAX_CANDIDATES => Ok(Choice::Several(numbers)),
        _ => {
            let text = format!(
                "more than {MAX_CANDIDATES} sandboxes have the capability {:?}, too many for one message; publish to a topic \
                 that they follow",
                wanted.name
            );
            Err(Rejection::field("destination.capability.all", text).into())
        }
    }
}

fn nobody(wanted: Capability<'_>) -> QueryError {
    Rejection::no_capable_sandbox(wanted.name).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn idle(count: u32) -> Vec<Candidate> {
        (0..count).map(|number| Candidate { number, name: number.to_string(), heard_ms: 0, held: 0 }).collect()
    }

    #[test]
    fn messages_of_one_request_are_shared_out() {
        let mut capable = Capable { online: idle(10), ..Capable::default() };
        let mut counts = [0; 10];
        for _ in 0..100 {
            counts[capable.one("alice", "", |_| true).unwrap().0 as usize] += 1;
        }
        assert_eq!(counts, [10; 10]);
        let sticky: std::collections::BTreeSet<_> = (0..20).map(|_| capable.one("alice", "key", |_| true)).collect();
        let seven = capable.one("alice", "", |name| name == "7").unwrap();
        assert_eq!(seven, (7, "7".to_owned()), "nobody else may have it");
        assert_eq!(sticky.len(), 1, "an ordering key has one place whatever waits there");
        let mut alone = Capable { online: idle(1), ..Capable::default() };
        assert_eq!(alone.one("0", "", |_| true), None, "nobody gets its own message");
    }

    #[test]
    fn all_of_too_many_is_refused_rather_than_cut() {
        let wanted = Capability { name: "review", all: true, wait: false };
        let most = MAX_CANDIDATES as u32;
        let count = |all, from| match everybody(&idle(all), wanted, from) {
            Ok(Choice::Several(numbers)) => Ok(numbers.len() / 4),
            Ok(_) => panic!("all were asked for"),
            Err(QueryError::Rejected(rejection)) => Err(rejection.text),
            Err(error) => panic!("{error}"),
        };
        assert_eq!(count(most, "alice"), Ok(MAX_CANDIDATES));
        assert_eq!(count(most + 1, "7"), Ok(MAX_CANDIDATES), "the sender is none of them");
        for (all, from) in [(most + 1, "alice"), (most + 2, "7")] {
            assert!(count(all, from).unwrap_err().contains("more than 1000 sandboxes"));
        }
    }
}
