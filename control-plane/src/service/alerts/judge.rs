//! Whether what happened makes a rule fire. Reads no clock and no database: the same happenings give the same alerts.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::service::alert::{AlertEvent, Condition, RuleDocument};

/// Parts of a window that are told apart: so much is remembered of a rule, however many happen.
const PARTS: i64 = 60;

/// A rule that is enabled.
#[derive(Debug, Clone)]
pub(super) struct Rule {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) document: RuleDocument,
}

/// Something that happened.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) event: AlertEvent,
    pub(super) sandbox: String,
    pub(super) text: String,
    /// How many messages it is about; at least 1.
    pub(super) weight: u64,
    /// In milliseconds since 1970.
    pub(super) at_ms: i64,
    /// Of the broker: its number; None: the control plane has seen it.
    pub(super) number: Option<u64>,
}

/// How far a rule has looked, and what it remembers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RuleState {
    /// What it remembers is about this.
    condition: Condition,
    /// As the rule had it when this was begun: an older one belongs to what the rule was before.
    from_event: u64,
    /// The next event of the broker.
    pub(super) next_event: u64,
    /// When, in milliseconds since 1970, and how many.
    hits: Vec<(i64, u64)>,
    quiet_until_ms: i64,
    /// What is counted in while it is quiet.
    alert_id: String,
}

/// What is remembered of all rules of a workspace, by their ids.
pub(super) type Progress = BTreeMap<String, RuleState>;

/// What a rule makes of something.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is not what it waits for, or not enough.
    Nothing,
    /// An alert that has this id is about one more.
    Grows(String),
    /// It fires, for so many.
    Fires(u64),
}

/// What is remembered of the rules that there are by now; those that are new begin where they say.
pub(super) fn current(mut before: Progress, rules: &[Rule]) -> Progress {
    let state = |rule: &Rule| {
        let RuleDocument { condition, from_event, .. } = &rule.document;
        let known = before.remove(&rule.id);
        let known = known.filter(|known| known.condition == *condition && known.from_event == *from_event);
        let state = known.unwrap_or_else(|| RuleState {
            condition: condition.clone(),
            from_event: *from_event,
            next_event: *from_event,
            hits: Vec::new(),
            quiet_until_ms: 0,
            alert_id: String::new(),
        });
        (rule.id.clone(), state)
    };
    rules.iter().map(state).collect()
}

impl RuleState {
    /// What a rule makes of something.
    pub(super) fn judge(&mut self, rule: &RuleDocument, seen: &Seen) -> Verdict {
        let Condition { event, sandbox_id, count, window_seconds } = &rule.condition;
        let is_known = match seen.number {
            Some(number) => number < self.next_event,
            None => seen.at_ms < rule.since_ms,
        };
        if is_known || seen.event != *event || sandbox_id.as_ref().is_some_and(|sandbox| *sandbox != seen.sandbox) {
            return Verdict::Nothing;
        }
        if seen.at_ms < self.quiet_until_ms {
            return Verdict::Grows(self.alert_id.clone());
        }
        let window_ms = ms(*window_seconds);
        self.hits.retain(|(at_ms, _)| *at_ms > seen.at_ms.saturating_sub(window_ms));
        match self.hits.last_mut() {
            Some((at_ms, weight)) if seen.at_ms - *at_ms < (window_ms / PARTS).max(1) => {
                *weight = weight.saturating_add(seen.weight);
            }
            _ => self.hits.push((seen.at_ms, seen.weight)),
        }
        let held = self.hits.iter().fold(0_u64, |sum, (_, weight)| sum.saturating_add(*weight));
        if held < *count { Verdict::Nothing } else { Verdict::Fires(held) }
    }

    /// Whether it remembers the same as another one, wherever that has looked.
    pub(super) fn is_as(&self, other: &Self) -> bool {
        let moved = Self { next_event: other.next_event, ..self.clone() };
        moved == *other
    }

    /// It has fired: what comes in its quiet time belongs to this alert.
    pub(super) fn fired(&mut self, rule: &RuleDocument, alert_id: &str, at_ms: i64) {
        self.hits.clear();
        self.quiet_until_ms = at_ms.saturating_add(ms(rule.quiet_seconds));
        alert_id.clone_into(&mut self.alert_id);
    }
}

fn ms(seconds: u64) -> i64 {
    i64::try_from(seconds.saturating_mul(1_000)).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::alert::Severity;

    fn rule(count: u64, window_seconds: u64, quiet_seconds: u64) -> Rule {
        let condition = Condition { event: AlertEvent::SandboxOffline, sandbox_id: None, count, window_seconds };
        let severity = Severity::Warning;
        let document = RuleDocument {
            enabled: true,
            condition,
            severity,
            quiet_seconds,
            webhook: None,
            from_event: 10,
            since_ms: 5,
        };
        Rule { id: "r".to_owned(), name: "r".to_owned(), document }
    }

    fn seen(at_ms: i64) -> Seen {
        let (sandbox, text) = ("a".to_owned(), String::new());
        Seen { event: AlertEvent::SandboxOffline, sandbox, text, weight: 1, at_ms, number: Some(10) }
    }

    fn state(rule: &Rule) -> RuleState {
        current(Progress::new(), std::slice::from_ref(rule)).remove("r").unwrap()
    }

    #[test]
    fn enough_within_the_window_fires_once_until_it_was_quiet() {
        let rule = rule(3, 60, 300);
        let mut state = state(&rule);
        let mut judge = |at_ms| {
            let verdict = state.judge(&rule.document, &seen(at_ms));
            if let Verdict::Fires(_) = verdict {
                state.fired(&rule.document, &format!("alert-{at_ms}"), at_ms);
            }
            verdict
        };
        assert_eq!((judge(0), judge(59_000)), (Verdict::Nothing, Verdict::Nothing));
        // The first one is out of the window by now.
        assert_eq!(judge(61_000), Verdict::Nothing);
        assert_eq!(judge(62_000), Verdict::Fires(3));
        assert_eq!(judge(100_000), Verdict::Grows("alert-62000".to_owned()));
        assert_eq!(judge(361_999), Verdict::Grows("alert-62000".to_owned()));
        // It was quiet for long enough, and what was in that time does not count again.
        assert_eq!(
            (judge(362_000), judge(362_100), judge(370_000)),
            (Verdict::Nothing, Verdict::Nothing, Verdict::Fires(3))
        );
    }

    #[test]
    fn only_what_fits_counts_and_nothing_twice() {
        let mut of_b = rule(1, 60, 0);
        of_b.document.condition.sandbox_id = Some("b".to_owned());
        let mut state = state(&of_b);
        assert_eq!(state.judge(&of_b.document, &seen(1)), Verdict::Nothing);
        let b = Seen { sandbox: "b".to_owned(), ..seen(1) };
        assert_eq!(state.judge(&of_b.document, &Seen { event: AlertEvent::Failed, ..b.clone() }), Verdict::Nothing);
        assert_eq!(state.judge(&of_b.document, &Seen { number: Some(9), ..b.clone() }), Verdict::Nothing, "before it");
        assert_eq!(state.judge(&of_b.document, &Seen { weight: 7, ..b.clone() }), Verdict::Fires(7));
        state.fired(&of_b.document, "x", 1);
        state.next_event = 11;
        assert_eq!(state.judge(&of_b.document, &b), Verdict::Nothing, "it was looked at");
        let own = |at_ms| Seen { number: None, at_ms, ..b.clone() };
        assert_eq!(state.judge(&of_b.document, &own(4)), Verdict::Nothing, "before it");
        assert_eq!(state.judge(&of_b.document, &own(5)), Verdict::Fires(1));
    }

    #[test]
    fn however_many_happen_little_is_remembered() {
        let rule = rule(10_000, 3_600, 0);
        let mut state = state(&rule);
        for second in 0..9_999 {
            state.judge(&rule.document, &seen(second * 300));
        }
        assert!(state.hits.len() <= 61, "{}", state.hits.len());
        assert_eq!(state.judge(&rule.document, &seen(9_999 * 300)), Verdict::Fires(10_000));
    }

    #[test]
    fn what_a_rule_was_before_is_forgotten() {
        let before = rule(2, 60, 0);
        let mut known = current(Progress::new(), std::slice::from_ref(&before));
        known.get_mut("r").unwrap().judge(&before.document, &seen(1));
        known.get_mut("r").unwrap().next_event = 50;
        assert_eq!(current(known.clone(), std::slice::from_ref(&before)), known);
        let mut after = before.clone();
        after.document.condition.count = 3;
        after.document.from_event = 60;
        let state = &current(known.clone(), &[after])["r"];
        assert_eq!((state.next_event, state.hits.len()), (60, 0));
        assert!(current(known, &[]).is_empty());
    }
}
