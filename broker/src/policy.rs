//! Who may say what to whom: the rules of a workspace, in their order, and what they come to for a message.
//!
//! The first rule that fits decides. In an `allow_list` it lets the message through, and what no rule fits is denied; in a
//! `deny_list` it is the other way round. A rule with `approval_required` holds what it fits, in both.
//!
//! Deciding reads nothing but the message and the time it is given, so it is the same on every node. A thousand rules cost what
//! ten do: what each rule says of sender, recipient and type is kept as a set of rules for each value (`index`), and a message
//! meets them by cutting three such sets.
//!
//! Read first: [`Policy::parse`], [`Policy::decide`].

mod form;
mod index;
pub(crate) mod known;

use std::fmt;

use self::{
    form::{Delegation, Form, Mode},
    index::Index,
};

/// How long a message waits for approval unless its rule says otherwise, in milliseconds.
const APPROVAL_TIMEOUT_MS: u64 = 3_600_000;

/// Rules of one policy at the most.
pub const MAX_RULES: usize = index::MAX_RULES;

/// What is decided about a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It goes through.
    Allow,
    /// It is refused.
    Deny,
    /// It waits for approval.
    Hold,
}

/// What it takes to let a message go that is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ApprovalTerms {
    /// How many must approve, each of them somebody else.
    pub approvals: u32,
    /// How long it waits for them, in milliseconds.
    pub timeout_ms: u64,
}

/// A verdict, and the rule that it comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// What is decided.
    pub verdict: Verdict,
    /// The rule, from 0; None: no rule fits.
    pub rule: Option<usize>,
}

/// Where a message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recipient<'a> {
    /// To one sandbox.
    Sandbox(&'a str),
    /// To whoever has a capability.
    Capability(&'a str),
    /// To a topic.
    Topic(&'a str),
    /// To everyone.
    Broadcast,
}

/// What counts of a message.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The sandbox that sends it.
    pub from: &'a str,
    /// The agent there; may be empty.
    pub from_agent: &'a str,
    /// Where it goes.
    pub to: Recipient<'a>,
    /// The capability that it was sent to, where a sandbox is chosen by that; else empty. A rule fits that names either.
    pub capability: &'a str,
    /// The agent that it is meant for; may be empty.
    pub to_agent: &'a str,
    /// The number of its type, 1 to 4: request, response, notification, command.
    pub message_type: u8,
    /// Bytes of its content.
    pub bytes: u64,
    /// Its metadata; each key once.
    pub metadata: &'a [(&'a str, &'a str)],
    /// When it is decided, in milliseconds since 1970.
    pub time_ms: u64,
}

/// The rules of a workspace, ready to decide.
#[derive(Debug, Clone)]
pub struct Policy {
    form: Form,
    index: Index,
    looks_inside: bool,
    limits_rates: bool,
}

/// What is wrong with a policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {text}")]
pub struct PolicyError {
    /// Where, such as `rules[3].to`.
    pub place: String,
    /// What is wrong there.
    pub text: String,
}

impl Policy {
    /// Reads a policy in its JSON form.
    ///
    /// # Errors
    /// Where it is no such form, has too many rules, or a rule says what cannot be.
    pub fn parse(json: &str) -> Result<Self, PolicyError> {
        let form = Form::parse(json)?;
        let index = Index::of(&form);
        let looks_inside = form.looks_inside();
        let limits_rates = form.rules.iter().any(|rule| rule.rate_limit.is_some());
        Ok(Self { form, index, looks_inside, limits_rates })
    }

    /// What becomes of a message.
    pub fn decide(&self, facts: &Facts<'_>) -> Decision {
        let fitting = self.index.fitting(facts);
        let rule = fitting.iter().find(|number| self.form.rules[*number].conditions_hold(facts));
        let Some(number) = rule else {
            let verdict = if self.form.policy == Mode::AllowList { Verdict::Deny } else { Verdict::Allow };
            return Decision { verdict, rule: None };
        };
        let verdict = match self.form.policy {
            _ if self.form.rules[number].approval_required => Verdict::Hold,
            Mode::AllowList => Verdict::Allow,
            Mode::DenyList => Verdict::Deny,
        };
        Decision { verdict, rule: Some(number) }
    }

    /// How many rules it has.
    pub fn rules(&self) -> usize {
        self.form.rules.len()
    }

    /// Whether agents, capability, size and metadata of a message make a difference.
    pub(crate) fn looks_inside(&self) -> bool {
        self.looks_inside
    }

    /// Whether a decision depends on sender, recipient and type of a message, and on nothing else.
    pub(crate) fn is_plain(&self) -> bool {
        !self.looks_inside && self.form.rules.iter().all(|rule| rule.hours.is_none())
    }

    /// Whether any rule limits how much is sent by it.
    pub(crate) fn limits_rates(&self) -> bool {
        self.limits_rates
    }

    /// How many messages and bytes a second each sandbox may send by the rule that decides; None: any number.
    pub fn rate(&self, decision: &Decision) -> Option<(u64, u64)> {
        let rate = self.form.rules[decision.rule?].rate_limit?;
        Some((rate.messages_per_second, rate.bytes_per_second))
    }

    /// Whether whoever speaks in a conversation is judged for those on whose behalf he does.
    pub fn follows_chains(&self) -> bool {
        self.form.delegation == Delegation::Chain
    }

    /// What it takes to let go what a decision holds.
    pub fn terms(&self, decision: &Decision) -> ApprovalTerms {
        let rule = decision.rule.map(|number| &self.form.rules[number]);
        ApprovalTerms {
            approvals: rule.and_then(|rule| rule.approvals).unwrap_or(1),
            timeout_ms: rule
                .and_then(|rule| rule.approval_timeout_s)
                .map_or(APPROVAL_TIMEOUT_MS, |seconds| seconds * 1_000),
        }
    }

    /// Why a decision is what it is, for somebody who need not see the rules.
    pub(crate) fn reason(&self, decision: &Decision) -> String {
        let list = self.form.policy;
        match decision.rule {
            Some(number) => format!("rule {} of the {list} fits", number + 1),
            None => format!("none of the {} rules of the {list} fits", self.form.rules.len()),
        }
    }

    /// Why a decision is what it is, in words.
    pub fn explain(&self, decision: &Decision) -> String {
        let list = self.form.policy;
        match decision.rule {
            Some(number) => format!("rule {} of the {list} fits: {}", number + 1, self.form.rules[number]),
            None => format!("none of the {} rules of the {list} fits", self.form.rules.len()),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::Hold => "hold",
        })
    }
}

#[cfg(test)]
#[path = "policy/tests.rs"]
mod tests;
