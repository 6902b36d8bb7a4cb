//! The form of a policy that people write.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Deserializer, Serialize};

use super::{Facts, MAX_RULES, PolicyError};

/// Bytes of a policy at the most.
const MAX_BYTES: usize = 1 << 20;
/// Entries of one list in a rule.
const MAX_ENTRIES: usize = 64;
/// Approvals that one message may need.
const MAX_APPROVALS: u32 = 16;
/// The longest time that a message waits for approval, in seconds: 30 days.
const MAX_APPROVAL_TIMEOUT_S: u64 = 30 * 24 * 3_600;
/// Bytes of one entry.
const MAX_ENTRY_BYTES: usize = 160;
const MINUTES_A_DAY: u32 = 24 * 60;

/// A policy as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Form {
    pub(super) policy: Mode,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) delegation: Delegation,
    #[serde(default)]
    pub(super) rules: Vec<Rule>,
}

/// Who is judged for a message of a conversation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Delegation {
    /// Whoever sends it, and all on whose behalf he does.
    #[default]
    Chain,
    /// Whoever sends it.
    Sender,
}

/// What becomes of what no rule fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Mode {
    AllowList,
    DenyList,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rule {
    #[serde(deserialize_with = "one_or_several")]
    pub(super) from: Vec<String>,
    #[serde(deserialize_with = "one_or_several")]
    pub(super) to: Vec<String>,
    /// None: every type.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) message_types: Option<Vec<TypeName>>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) approval_required: bool,
    /// How many must approve; None: one.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) approvals: Option<u32>,
    /// How long a message waits for them, in seconds; None: an hour.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) approval_timeout_s: Option<u64>,
    /// All of these must be in the metadata.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) metadata: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) min_bytes: u64,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) max_bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) hours: Option<Hours>,
    /// How much each sandbox may send by this rule; None: any number.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) rate_limit: Option<RateLimit>,
}

/// So much in a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RateLimit {
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) messages_per_second: u64,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) bytes_per_second: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum TypeName {
    Request,
    Response,
    Notification,
    Command,
}

/// A time of the day, in UTC: from the first minute to before the last; over midnight where that is earlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Hours {
    #[serde(deserialize_with = "minute")]
    from: u32,
    #[serde(deserialize_with = "minute")]
    to: u32,
}

impl TypeName {
    pub(super) fn number(self) -> u8 {
        match self {
            Self::Request => 1,
            Self::Response => 2,
            Self::Notification => 3,
            Self::Command => 4,
        }
    }
}

impl Form {
    pub(super) fn parse(json: &str) -> Result<Self, PolicyError> {
        let wrong = |place: &str, text: String| PolicyError { place: place.to_owned(), text };
        if json.len() > MAX_BYTES {
            return Err(wrong("policy", format!("it has {} bytes; at most {MAX_BYTES} are read", json.len())));
        }
        let form: Self = serde_json::from_str(json).map_err(|error| wrong("policy", error.to_string()))?;
        if form.rules.len() > MAX_RULES {
            return Err(wrong("rules", format!("there are {}; at most {MAX_RULES} are allowed", form.rules.len())));
        }
        for (number, rule) in form.rules.iter().enumerate() {
            rule.check().map_err(|(field, text)| wrong(&format!("rules[{number}].{field}"), text))?;
            if form.policy == Mode::DenyList && !rule.approval_required && rule.rate_limit.is_some() {
                let text = "the rule refuses what it fits, and nothing is left to limit".to_owned();
                return Err(wrong(&format!("rules[{number}].rate_limit"), text));
            }
        }
        Ok(form)
    }
}

impl Form {
    /// Whether any rule needs the agents, the capability, the size or the metadata of a message.
    pub(super) fn looks_inside(&self) -> bool {
        self.rules.iter().any(Rule::looks_inside)
    }
}

impl Rule {
    fn check(&self) -> Result<(), (&'static str, String)> {
        for (field, entries) in [("from", &self.from), ("to", &self.to)] {
            if entries.is_empty() {
                return Err((field, "it is empty, and the rule would fit nothing; write \"*\" for everything".into()));
            }
            if entries.len() > MAX_ENTRIES {
                return Err((field, format!("it has {} entries; at most {MAX_ENTRIES} are allowed", entries.len())));
            }
            for entry in entries {
                Entry::parse(entry, field == "to").map_err(|text| (field, text))?;
            }
        }
        if self.message_types.as_ref().is_some_and(Vec::is_empty) {
            return Err((
                "message_types",
                "it is empty, and the rule would fit nothing; leave it out for all types".into(),
            ));
        }
        if self.metadata.len() > MAX_ENTRIES {
            return Err(("metadata", format!("at most {MAX_ENTRIES} pairs are allowed")));
        }
        if self.max_bytes.is_some_and(|most| most < self.min_bytes) {
            return Err(("max_bytes", "it is below min_bytes, and the rule would fit nothing".into()));
        }
        if self.rate_limit.is_some_and(|rate| rate.messages_per_second == 0 && rate.bytes_per_second == 0) {
            return Err(("rate_limit", "it limits nothing; give messages_per_second or bytes_per_second".into()));
        }
        self.check_approval()
    }

    fn check_approval(&self) -> Result<(), (&'static str, String)> {
        let needless = |field| Err((field, "it says nothing without \"approval_required\": true".into()));
        match (self.approvals, self.approval_timeout_s) {
            (Some(_), _) if !self.approval_required => needless("approvals"),
            (_, Some(_)) if !self.approval_required => needless("approval_timeout_s"),
            (Some(count), _) if !(1..=MAX_APPROVALS).contains(&count) => {
                Err(("approvals", format!("it is {count}; it must be 1 to {MAX_APPROVALS}")))
            }
            (_, Some(seconds)) if !(1..=MAX_APPROVAL_TIMEOUT_S).contains(&seconds) => Err((
                "approval_timeout_s",
                format!("it is {seconds}; it must be 1 to {MAX_APPROVAL_TIMEOUT_S} (30 days)"),
            )),
            _ => Ok(()),
        }
    }

    /// Whether more of a message counts than its sender, recipient and type.
    fn looks_inside(&self) -> bool {
        let inside = |entry: &String, is_recipient| {
            let kind = match Entry::parse(entry, is_recipient) {
                Ok(Entry::Name(kind, _) | Entry::Prefix(kind, _)) => kind,
                Ok(Entry::Everything) | Err(_) => return false,
            };
            matches!(kind, Kind::Agent | Kind::Capability)
        };
        self.from.iter().any(|entry| inside(entry, false))
            || self.to.iter().any(|entry| inside(entry, true))
            || self.min_bytes > 0
            || self.max_bytes.is_some()
            || !self.metadata.is_empty()
    }

    /// Whether a message that fits sender, recipient and type fits the rest as well.
    pub(super) fn conditions_hold(&self, facts: &Facts<'_>) -> bool {
        let has = |(key, value): (&String, &String)| facts.metadata.iter().any(|(k, v)| k == key && v == value);
        facts.bytes >= self.min_bytes
            && self.max_bytes.is_none_or(|most| facts.bytes <= most)
            && self.hours.is_none_or(|hours| hours.hold(facts.time_ms))
            && self.metadata.iter().all(has)
    }
}

impl Hours {
    fn hold(self, time_ms: u64) -> bool {
        let minute = (time_ms / 60_000 % u64::from(MINUTES_A_DAY)) as u32;
        if self.from <= self.to {
            (self.from..self.to).contains(&minute)
        } else {
            minute >= self.from || minute < self.to
        }
    }
}

/// What an entry of `from` or `to` stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Entry<'a> {
    Everything,
    /// A kind, and the whole name.
    Name(Kind, &'a str),
    /// A kind, and how the name begins.
    Prefix(Kind, &'a str),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Kind {
    Sandbox = b's' as isize,
    Agent = b'a' as isize,
    Capability = b'c' as isize,
    Topic = b't' as isize,
    Broadcast = b'b' as isize,
}

impl<'a> Entry<'a> {
    pub(super) fn parse(text: &'a str, is_recipient: bool) -> Result<Self, String> {
        let kinds = [
            ("agent:", Kind::Agent),
            ("capability:", Kind::Capability),
            ("topic:", Kind::Topic),
            ("sandbox:", Kind::Sandbox),
        ];
        if text == "*" {
            return Ok(Self::Everything);
        }
        if text == "broadcast" && is_recipient {
            return Ok(Self::Name(Kind::Broadcast, ""));
        }
        let (kind, name) = kinds
            .iter()
            .find_map(|(prefix, kind)| Some((*kind, text.strip_prefix(prefix)?)))
            .unwrap_or((Kind::Sandbox, text));
        if !is_recipient && !matches!(kind, Kind::Sandbox | Kind::Agent) {
            return Err(format!("{text:?} is nobody who sends; write a sandbox, or agent:NAME"));
        }
        if name.is_empty() || text.len() > MAX_ENTRY_BYTES {
            return Err(format!("{text:?} names nobody, in up to {MAX_ENTRY_BYTES} bytes"));
        }
        match name.strip_suffix('*') {
            None if name.contains('*') => Err(format!("{text:?} has a * that is not at its end")),
            None => Ok(Self::Name(kind, name)),
            Some(begin) if begin.contains('*') => Err(format!("{text:?} has more than one *")),
            Some(begin) => Ok(Self::Prefix(kind, begin)),
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AllowList => "allow list",
            Self::DenyList => "deny list",
        })
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::to_string(self).unwrap_or_default())
    }
}

/// What was not written is not shown.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

fn one_or_several<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Names {
        One(String),
        Several(Vec<String>),
    }
    Ok(match Names::deserialize(deserializer)? {
        Names::One(name) => vec![name],
        Names::Several(names) => names,
    })
}

/// `08:30`.
fn minute<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let text = String::deserialize(deserializer)?;
    let parsed = text.split_once(':').and_then(|(hour, minute)| {
        let digits = |part: &str| (part.len() == 2).then(|| part.parse::<u32>().ok()).flatten();
        let (hour, minute) = (digits(hour)?, digits(minute)?);
        (hour < 24 && minute < 60 || (hour, minute) == (24, 0)).then_some(hour * 60 + minute)
    });
    parsed.ok_or_else(|| serde::de::Error::custom(format!("{text:?} is no time of the day; write it like 08:30")))
}
