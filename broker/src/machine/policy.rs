//! The policy of a workspace as a part of its state: it is replicated like everything else, and a message is judged where it
//! is applied. So nothing is accepted behind the policy that forbids it, whoever led when it was published.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use bytes::Bytes;
use parking_lot::RwLock;

use super::{
    keys::{self, RECORDS},
    publish,
    state::{State, StateError},
};
use crate::{
    batch::Record,
    command::{PolicySet, SetPolicy},
    encoding::{DecodeError, Field as _, encoded},
    message::Said,
    policy::{ApprovalTerms, Decision, Facts, Policy, Recipient, Verdict, known::Known},
    query::{QueryError, StateReader},
    quotas::Rate,
    rejection::{Reason, Rejection},
};

encoded! {
    /// The policy that was set last.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(crate) struct PolicyRecord {
        pub(crate) revision: u64,
        pub(crate) time_ms: u64,
        pub(crate) by: String,
        /// As it was set; empty when it was removed.
        pub(crate) json: Bytes,
    }
}

/// Policies that are kept ready; a large one takes some MiB.
const MAX_READY: usize = 64;
/// Workspaces of which it is known that they have none.
const MAX_WITHOUT: usize = 65_536;

/// The policies of a shard that are ready to decide. Cheap to clone. Only the machine adds to it: a reader might add what was.
#[derive(Clone, Default)]
pub(crate) struct Policies(Arc<RwLock<Ready>>);

#[derive(Default)]
struct Ready {
    policies: HashMap<u32, Arc<InForce>>,
    without: HashSet<u32>,
}

impl Policies {
    /// The policy of a workspace, as far as this knows: whether there is one, and which.
    fn known(&self, workspace: u32) -> Option<Option<Arc<InForce>>> {
        let ready = self.0.read();
        if ready.without.contains(&workspace) {
            return Some(None);
        }
        ready.policies.get(&workspace).cloned().map(Some)
    }

    fn remember(&self, workspace: u32, policy: Option<Arc<InForce>>) {
        let mut ready = self.0.write();
        let Ready { policies, without } = &mut *ready;
        policies.remove(&workspace);
        without.remove(&workspace);
        let Some(policy) = policy else {
            if without.len() >= MAX_WITHOUT {
                without.clear();
            }
            without.insert(workspace);
            return;
        };
        if policies.len() >= MAX_READY
            && let Some(other) = policies.keys().next().copied()
        {
            policies.remove(&other);
        }
        policies.insert(workspace, policy);
    }

    pub(super) fn forget(&self, workspace: u32) {
        let mut ready = self.0.write();
        ready.policies.remove(&workspace);
        ready.without.remove(&workspace);
    }
}

impl StateReader {
    /// What would be decided now, for a choice whose outcome is judged again.
    pub(crate) fn policy_in_force(&self, workspace: u32) -> Result<Option<Arc<InForce>>, QueryError> {
        if let Some(known) = self.policies().known(workspace) {
            return Ok(known);
        }
        let record = self.policy(workspace)?;
        Ok(record.map(|record| InForce::read(&record)).transpose()?.flatten())
    }
}

/// A policy in force, ready to decide.
#[derive(Debug)]
pub(crate) struct InForce {
    revision: u64,
    policy: Policy,
    /// Decisions that were made, where these depend on nothing but names and type.
    known: Option<Known>,
}

impl InForce {
    /// None when there is no policy.
    fn read(record: &PolicyRecord) -> Result<Option<Arc<Self>>, StateError> {
        if record.json.is_empty() {
            return Ok(None);
        }
        // It was read before it was written, by the same rules: a level brings others.
        let json = std::str::from_utf8(&record.json).map_err(|_| DecodeError::Text("policy"))?;
        let policy = Policy::parse(json).map_err(|_| DecodeError::Unreadable("policy"))?;
        let known = policy.is_plain().then(Known::default);
        Ok(Some(Arc::new(Self { revision: record.revision, policy, known })))
    }

    /// A message before this policy: what it says of itself is read once, however many may get it.
    pub(crate) fn judging<'a>(
        self: Arc<Self>,
        from: &'a str,
        message_type: u8,
        body: &'a [u8],
        time_ms: u64,
    ) -> Judging<'a> {
        let said = if self.policy.looks_inside() { Said::in_body(body) } else { Said::default() };
        Judging { in_force: self, from, chain: Vec::new(), message_type, said, time_ms }
    }

    /// Whether any rule limits how much is sent by it.
    pub(crate) fn limits_rates(&self) -> bool {
        self.policy.limits_rates()
    }

    /// Whether those count on whose behalf somebody speaks.
    pub(super) fn follows_chains(&self) -> bool {
        self.policy.follows_chains()
    }
}

/// What becomes of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Judged {
    /// It goes on.
    Allowed,
    /// It waits for approval.
    Held(Held),
    /// It is refused.
    Denied(Rejection),
}

impl Judged {
    /// Held as well, by the stricter terms of both: more approvals, and less time for them.
    pub(super) fn and_held(self, other: Held) -> Self {
        let Self::Held(own) = self else { return Self::Held(other) };
        let terms = ApprovalTerms {
            approvals: own.terms.approvals.max(other.terms.approvals),
            timeout_ms: own.terms.timeout_ms.min(other.terms.timeout_ms),
        };
        let stricter = if other.terms.approvals > own.terms.approvals { other } else { own };
        Self::Held(Held { terms, ..stricter })
    }
}

/// Why a message waits, and for what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) revision: u64,
    /// From 1.
    pub(crate) rule: u32,
    pub(crate) terms: ApprovalTerms,
}

/// A message before the policy of its workspace.
pub(crate) struct Judging<'a> {
    in_force: Arc<InForce>,
    from: &'a str,
    /// Those on whose behalf he sends it; empty for who is gone.
    chain: Vec<String>,
    message_type: u8,
    said: Said<'a>,
    time_ms: u64,
}

impl Judging<'_> {
    /// The same on behalf of others.
    pub(super) fn for_all(self, chain: Vec<String>) -> Self {
        Self { chain, ..self }
    }

    /// What becomes of it if it goes there: what everybody lets it on whose behalf it is sent. What goes back to one of them is
    /// judged by its sender alone.
    pub(crate) fn on(&self, to: Recipient<'_>) -> Judged {
        let own = self.by(self.from, self.said.from_agent, to);
        let goes_back = |name: &String| matches!(to, Recipient::Sandbox(to) if to == name);
        if matches!(own, Judged::Denied(_)) || self.chain.iter().any(goes_back) {
            return own;
        }
        let mut least = own;
        for principal in &self.chain {
            let judged = if principal.is_empty() {
                let text = "it is sent on behalf of somebody who is gone, or of too many to know them";
                Judged::Denied(Rejection::new(Reason::PolicyDenied, text))
            } else {
                self.by(principal, "", to)
            };
            match judged {
                Judged::Denied(rejection) => {
                    let text = format!("{}, for {principal:?}, on whose behalf it is sent", rejection.text);
                    return Judged::Denied(Rejection { text, ..rejection });
                }
                Judged::Held(held) => least = least.and_held(held),
                Judged::Allowed => {}
            }
        }
        least
    }

    /// The revision and the number of the rule that limits how much its sender sends there, and to how many messages and bytes a
    /// second; None: none does.
    pub(crate) fn rate_on(&self, to: Recipient<'_>) -> Option<(u64, u32, Rate)> {
        let decision = self.decide(self.from, self.said.from_agent, to);
        let (messages, bytes) = self.in_force.policy.rate(&decision)?;
        Some((self.in_force.revision, decision.rule? as u32, Rate { messages, bytes }))
    }

    fn decide(&self, from: &str, from_agent: &str, to: Recipient<'_>) -> Decision {
        let (policy, said) = (&self.in_force.policy, &self.said);
        let decide = || {
            policy.decide(&Facts {
                from,
                from_agent,
                to,
                capability: said.capability,
                to_agent: said.to_agent,
                message_type: self.message_type,
                bytes: said.content_bytes,
                metadata: &said.metadata,
                time_ms: self.time_ms,
            })
        };
        match &self.in_force.known {
            Some(known) => known.or_decide(from, to, self.message_type, decide),
            None => decide(),
        }
    }

    /// What becomes of it if this one sends it.
    fn by(&self, from: &str, from_agent: &str, to: Recipient<'_>) -> Judged {
        let policy = &self.in_force.policy;
        let decision = self.decide(from, from_agent, to);
        let revision = self.in_force.revision;
        match decision.verdict {
            Verdict::Allow => Judged::Allowed,
            Verdict::Hold => Judged::Held(Held {
                revision,
                rule: decision.rule.map_or(0, |rule| rule as u32 + 1),
                terms: policy.terms(&decision),
            }),
            Verdict::Deny => {
                let text = format!("revision {revision} of the policy forbids it: {}", policy.reason(&decision));
                Judged::Denied(Rejection::new(Reason::PolicyDenied, text))
            }
        }
    }
}

pub(super) fn set(state: &mut State, verb: &SetPolicy) -> Result<Result<PolicySet, Rejection>, StateError> {
    let Some(workspace) = state.workspace(&verb.workspace)?.map(|workspace| workspace.number) else {
        return Ok(Err(Rejection::unknown_workspace(&verb.workspace)));
    };
    let before: Option<PolicyRecord> = state.read(RECORDS, &keys::policy(workspace), "policy")?;
    let revision = before.map_or(0, |record| record.revision);
    if let Some(expected) = verb.if_revision.filter(|expected| *expected != revision) {
        let text = format!("the policy has revision {revision}, and not {expected}; read it again and decide anew");
        return Ok(Err(Rejection { reason: Reason::PolicyChanged, text, field: "if_revision".into(), retry_ms: 0 }));
    }
    if let Err(rejection) = check(&verb.json) {
        return Ok(Err(rejection));
    }
    let (json, by) = (verb.json.clone(), verb.by.clone());
    let record = PolicyRecord { revision: revision + 1, time_ms: state.now_ms(), by, json };
    state.put(RECORDS, keys::policy(workspace), record.to_bytes());
    state.policies().remember(workspace, InForce::read(&record)?);
    Ok(Ok(PolicySet { revision: record.revision, time_ms: record.time_ms }))
}

/// Whether a policy can be set; empty: none.
pub(crate) fn check(json: &[u8]) -> Result<(), Rejection> {
    if json.is_empty() {
        return Ok(());
    }
    let refused = |text: String| Rejection { reason: Reason::InvalidPolicy, text, field: "json".into(), retry_ms: 0 };
    let text = std::str::from_utf8(json).map_err(|_| refused("the policy is not UTF-8".into()))?;
    Policy::parse(text).map(drop).map_err(|error| refused(format!("the policy is none: {error}")))
}

/// A message before the policy of its workspace; None where there is no policy.
pub(super) fn judging<'a>(
    state: &mut State,
    workspace: u32,
    record: &Record<'a>,
) -> Result<Option<Judging<'a>>, StateError> {
    let time_ms = state.now_ms();
    let Some(in_force) = in_force(state, workspace)? else { return Ok(None) };
    let chain = if in_force.follows_chains() { publish::chain(state, workspace, record)? } else { Vec::new() };
    let judging = in_force.judging(record.from, record.message_type, record.body, time_ms);
    Ok(Some(judging.for_all(chain)))
}

/// What becomes of a message if it goes to a sandbox that was chosen by what it can do.
pub(super) fn judge_for(
    state: &State,
    workspace: u32,
    judging: Option<&Judging<'_>>,
    recipient: u32,
) -> Result<Judged, StateError> {
    let Some(judging) = judging else { return Ok(Judged::Allowed) };
    let name = state.sandbox_name(workspace, recipient)?;
    Ok(judging.on(Recipient::Sandbox(&name)))
}

/// The policy that a workspace has at this place of the log.
pub(super) fn in_force(state: &mut State, workspace: u32) -> Result<Option<Arc<InForce>>, StateError> {
    if let Some(known) = state.policies().known(workspace) {
        return Ok(known);
    }
    let record: Option<PolicyRecord> = state.read(RECORDS, &keys::policy(workspace), "policy")?;
    let read = record.map(|record| InForce::read(&record)).transpose()?.flatten();
    state.policies().remember(workspace, read.clone());
    Ok(read)
}
