//! How much a workspace may take: what its quotas are, and how fast it, its sandboxes and its callers are, for now.
//!
//! Quotas are replicated state. Rates are counted where messages come in, by the node that leads the shard: tokens that are
//! not written down, so a new leader begins with full buckets.

use std::{
    collections::HashMap,
    hash::Hash,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use crate::{
    encoding::encoded,
    rejection::{Reason, Rejection},
};

/// Seconds for which somebody waits at the most who has brought far too much at once.
const MAX_DEBT_S: f64 = 60.0;
/// Buckets that are kept of a workspace, and workspaces with any; when there are more, those that nobody has touched of late are
/// forgotten, which changes nothing.
const MAX_BUCKETS: usize = 16_384;
const MAX_WORKSPACES: usize = 4_096;
/// What nobody has touched for so long is full again.
const QUIET: Duration = Duration::from_secs(60);

encoded! {
    /// What a workspace may take. 0: as much as the settings of the server let everybody.
    #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
    pub(crate) struct Quotas {
        /// Of the whole workspace.
        pub(crate) workspace: Rate,
        /// Of each sandbox that sends.
        pub(crate) sandbox: Rate,
        /// Of each subject of a token or a key.
        pub(crate) caller: Rate,
        /// Bytes of history; what is more is refused, not trimmed.
        pub(crate) max_stored_bytes: u64,
        pub(crate) max_message_bytes: u64,
        pub(crate) max_sandboxes: u32,
        /// On each node.
        pub(crate) max_streams: u32,
        /// On each node, of those who are bound to the workspace.
        pub(crate) max_connections: u32,
    }
}

encoded! {
    /// So much in a second; 0: no limit. Who was quiet may bring a second's worth at once.
    #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
    pub(crate) struct Rate {
        pub(crate) messages: u64,
        pub(crate) bytes: u64,
    }
}

/// Whose rate is counted: a workspace, and in it a sandbox or a caller, by the hash of its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Owner {
    Workspace(u128),
    Sandbox(u128, u128),
    Caller(u128, u128),
    /// A rule of a policy, and a sandbox that sends by it.
    Rule {
        shard: u32,
        workspace: u32,
        revision: u64,
        rule: u32,
        from: u128,
    },
}

impl Owner {
    fn name(self) -> &'static str {
        match self {
            Self::Workspace(_) => "workspace",
            Self::Sandbox(..) => "sandbox",
            Self::Caller(..) => "caller",
            Self::Rule { .. } => "rule",
        }
    }
}

/// How much of a second's worth is there.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    messages: f64,
    bytes: f64,
    at: Instant,
}

/// See the module. By workspace: senders that somebody makes up in one forgive nothing in another.
#[derive(Default)]
pub(crate) struct Buckets(Mutex<HashMap<u128, HashMap<Owner, Bucket>>>);

/// Keeps a map within its bounds. Better forgiven than kept without a bound.
fn bound<K: Eq + Hash, V>(map: &mut HashMap<K, V>, most: usize, is_recent: impl Fn(&V) -> bool) {
    if map.len() > most {
        map.retain(|_, value| is_recent(value));
        if map.len() > most {
            map.clear();
        }
    }
}

impl Bucket {
    fn full(rate: Rate, at: Instant) -> Self {
        let worth = |rate: u64| if rate == 0 { f64::INFINITY } else { rate as f64 };
        Self { messages: worth(rate.messages), bytes: worth(rate.bytes), at }
    }

    /// With what has come since.
    fn filled(self, rate: Rate, now: Instant) -> Self {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        // What has no limit has no debts either, also when it gets one.
        let fill = |tokens: f64, rate: u64| match rate as f64 {
            0.0 => f64::INFINITY,
            rate => (tokens.max(-MAX_DEBT_S * rate) + passed * rate).min(rate),
        };
        Self { messages: fill(self.messages, rate.messages), bytes: fill(self.bytes, rate.bytes), at: now }
    }

    /// What is used up, and when there will be some again. Something that is larger than a second's worth goes through a full
    /// bucket, and what comes after it waits the longer.
    fn lacks(&self, rate: Rate) -> Option<(&'static str, u64, Duration)> {
        let lack = |what, tokens: f64, rate: u64| {
            let missing = 1.0_f64.min(rate as f64) - tokens;
            (rate > 0 && missing > 1e-9).then(|| (what, rate, Duration::from_secs_f64(missing / rate as f64)))
        };
        let (messages, bytes) = (lack("messages", self.messages, rate.messages), lack("bytes", self.bytes, rate.bytes));
        match (messages, bytes) {
            (Some(one), Some(other)) => Some(if one.2 >= other.2 { one } else { other }),
            (one, other) => one.or(other),
        }
    }
}

impl Buckets {
    /// Takes one message of so many bytes out of the buckets of all its owners, who belong to one workspace, by the hash of its
    /// name; or says which of them is empty, and then takes from none.
    pub(crate) fn take(
        &self,
        workspace: u128,
        owners: &[(Owner, Rate)],
        bytes: u64,
        now: Instant,
    ) -> Result<(), Rejection> {
        let is_recent = |bucket: &Bucket| now.saturating_duration_since(bucket.at) < QUIET;
        let mut workspaces = self.0.lock();
        bound(&mut workspaces, MAX_WORKSPACES, |buckets| buckets.values().any(is_recent));
        let buckets = workspaces.entry(workspace).or_default();
        bound(buckets, MAX_BUCKETS, is_recent);
        let limited = owners.iter().filter(|(_, rate)| *rate != Rate::default());
        for (owner, rate) in limited.clone() {
            let bucket =
                buckets.get(owner).map_or_else(|| Bucket::full(*rate, now), |bucket| bucket.filled(*rate, now));
            if let Some((what, limit, wait)) = bucket.lacks(*rate) {
                return Err(exceeded(*owner, what, limit, wait));
            }
            buckets.insert(*owner, bucket);
        }
        for (owner, _) in limited {
            if let Some(bucket) = buckets.get_mut(owner) {
                bucket.messages -= 1.0;
                bucket.bytes -= bytes as f64;
            }
        }
        Ok(())
    }
}

fn exceeded(owner: Owner, what: &str, limit: u64, wait: Duration) -> Rejection {
    let wait_ms = wait.as_millis().max(1) as u64;
    let whose = match owner {
        Owner::Rule { revision, rule, .. } => {
            format!("rate_limit of rule {} of revision {revision} of the policy, for each sandbox,", rule + 1)
        }
        owner => format!("quota of this {}", owner.name()),
    };
    let text = format!("the {whose} is {limit} {what} a second, and they are used up: try again in {wait_ms} ms");
    Rejection { retry_ms: wait_ms.min(u64::from(u32::MAX)) as u32, ..Rejection::new(Reason::RateLimited, text) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    const SLOW: Rate = Rate { messages: 10, bytes: 0 };

    fn taken(buckets: &Buckets, owners: &[(Owner, Rate)], bytes: u64, now: Instant, tries: usize) -> usize {
        (0..tries).filter(|_| buckets.take(1, owners, bytes, now).is_ok()).count()
    }

    #[test]
    fn a_second_is_worth_what_the_rate_says() {
        let (buckets, start) = (Buckets::default(), clock::now());
        let owners = [(Owner::Workspace(1), SLOW)];
        assert_eq!(taken(&buckets, &owners, 1, start, 30), 10, "who was quiet has a second's worth");
        let refused = buckets.take(1, &owners, 1, start).unwrap_err();
        assert_eq!((refused.reason, refused.retry_ms), (Reason::RateLimited, 100));
        assert!(refused.text.contains("workspace is 10 messages a second"), "{}", refused.text);
        let mut through = 0;
        for step in 1..=1_000_u64 {
            through += taken(&buckets, &owners, 1, start + Duration::from_millis(step * 10), 3);
        }
        assert!((99..=101).contains(&through), "{through} in ten seconds");
        let later = start + Duration::from_secs(1_000);
        assert_eq!(taken(&buckets, &owners, 1, later, 30), 10, "more than a second's worth does not gather");
        assert!(buckets.take(1, &[(Owner::Workspace(2), SLOW)], 1, later).is_ok(), "each has its own");
    }

    #[test]
    fn what_is_larger_than_a_second_goes_through_and_is_paid_for() {
        let (buckets, start) = (Buckets::default(), clock::now());
        let owners = [(Owner::Workspace(1), Rate { messages: 0, bytes: 1_000 })];
        buckets.take(1, &owners, 5_000, start).unwrap();
        let refused = buckets.take(1, &owners, 1, start).unwrap_err();
        assert!((4_000..4_100).contains(&refused.retry_ms), "{refused:?}");
        assert!(buckets.take(1, &owners, 1, start + Duration::from_millis(3_900)).is_err());
        assert!(buckets.take(1, &owners, 1, start + Duration::from_millis(4_100)).is_ok());
    }

    #[test]
    fn whoever_is_refused_by_one_takes_from_none() {
        let (buckets, start) = (Buckets::default(), clock::now());
        let (workspace, sandbox) = (Owner::Workspace(1), Owner::Sandbox(1, 7));
        let both = [(workspace, SLOW), (sandbox, Rate { messages: 2, bytes: 0 })];
        assert_eq!(taken(&buckets, &both, 1, start, 5), 2);
        assert!(buckets.take(1, &both, 1, start).unwrap_err().text.contains("sandbox is 2 messages"));
        let other = [(workspace, SLOW), (Owner::Sandbox(1, 8), Rate::default())];
        assert_eq!(taken(&buckets, &other, 1, start, 30), 8);
    }

    #[test]
    fn what_had_no_limit_has_no_debts() {
        let (buckets, start) = (Buckets::default(), clock::now());
        let owner = Owner::Workspace(1);
        let rate = |messages, bytes| Rate { messages, bytes };
        for _ in 0..1_000 {
            buckets.take(1, &[(owner, rate(10_000, 0))], 1_000_000, start).unwrap();
        }
        buckets.take(1, &[(owner, rate(10_000, 1_000))], 10, start).unwrap();
        buckets.take(1, &[(owner, rate(0, 1_000))], 1_000_000_000, start).unwrap();
        let refused = buckets.take(1, &[(owner, rate(0, 1_000))], 1, start + Duration::from_millis(1)).unwrap_err();
        assert!(refused.retry_ms <= 60_001, "nobody waits for ever: {refused:?}");
        buckets.take(1, &[(owner, rate(5, 0))], 1, start).unwrap();
    }

    #[test]
    fn a_quota_that_changes_holds_at_once() {
        let (buckets, start) = (Buckets::default(), clock::now());
        assert_eq!(taken(&buckets, &[(Owner::Caller(1, 1), Rate { messages: 1_000, bytes: 0 })], 1, start, 5), 5);
        let later = start + Duration::from_millis(1);
        assert_eq!(taken(&buckets, &[(Owner::Caller(1, 1), SLOW)], 1, later, 30), 10);
    }

    #[test]
    fn buckets_are_bounded() {
        let (buckets, start) = (Buckets::default(), clock::now());
        for owner in 0..=MAX_BUCKETS as u128 {
            buckets.take(1, &[(Owner::Caller(1, owner), SLOW)], 1, start).unwrap();
        }
        buckets.take(1, &[(Owner::Caller(2, 1), SLOW)], 1, start + Duration::from_secs(61)).unwrap();
        assert_eq!(buckets.0.lock()[&1].len(), 1);
        for workspace in 2..=MAX_WORKSPACES as u128 + 1 {
            buckets.take(workspace, &[(Owner::Workspace(workspace), SLOW)], 1, start).unwrap();
        }
        buckets.take(1, &[(Owner::Workspace(1), SLOW)], 1, start + Duration::from_secs(90)).unwrap();
        assert!(buckets.0.lock().len() <= 2);
    }

    #[test]
    fn names_that_somebody_makes_up_forgive_nothing_elsewhere() {
        let (buckets, start) = (Buckets::default(), clock::now());
        let victim = [(Owner::Workspace(9), SLOW)];
        assert_eq!(taken(&buckets, &victim, 1, start, 30), 10);
        for sender in 0..3 * MAX_BUCKETS as u128 {
            buckets.take(2, &[(Owner::Sandbox(2, sender), SLOW)], 1, start).unwrap();
        }
        assert!(buckets.take(1, &victim, 1, start).is_err());
    }
}
