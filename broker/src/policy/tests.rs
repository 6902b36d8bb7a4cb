use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const EXAMPLE: &str = r#"{"policy":"allow_list","rules":[{"from":"frontend-team","to":["backend-team"],"message_types":["request"]},{"from":"*","to":["security-team"],"message_types":["notification"],"approval_required":true}]}"#;

fn facts<'a>(from: &'a str, to: Recipient<'a>, message_type: u8) -> Facts<'a> {
    Facts { from, from_agent: "", to, capability: "", to_agent: "", message_type, bytes: 10, metadata: &[], time_ms: 0 }
}

#[test]
fn the_example_means_what_it_says() {
    let policy = Policy::parse(EXAMPLE).unwrap();
    let decide = |from, to, kind| policy.decide(&facts(from, Recipient::Sandbox(to), kind));
    let decision = |verdict, rule| Decision { verdict, rule };
    assert_eq!(decide("frontend-team", "backend-team", 1), decision(Verdict::Allow, Some(0)));
    assert_eq!(decide("frontend-team", "backend-team", 3), decision(Verdict::Deny, None));
    assert_eq!(decide("backend-team", "frontend-team", 1), decision(Verdict::Deny, None));
    assert_eq!(decide("anybody", "security-team", 3), decision(Verdict::Hold, Some(1)));
    let why = policy.explain(&decide("anybody", "security-team", 3));
    let rule = r#"{"from":["*"],"to":["security-team"],"message_types":["notification"],"approval_required":true}"#;
    assert_eq!(why, format!("rule 2 of the allow list fits: {rule}"), "what was written, and nothing else");
    assert_eq!(policy.explain(&decide("a", "b", 1)), "none of the 2 rules of the allow list fits");
}

#[test]
fn entries_name_kinds_and_beginnings() {
    let policy = json!({"policy": "deny_list", "rules": [
        {"from": ["team-*", "agent:root*"], "to": ["topic:secret.*", "capability:deploy", "broadcast", "agent:boss", "sandbox:x"]},
    ]});
    let policy = Policy::parse(&policy.to_string()).unwrap();
    let denied = |facts: Facts<'_>| policy.decide(&facts).verdict == Verdict::Deny;
    assert!(denied(facts("team-a", Recipient::Topic("secret.plans"), 1)));
    assert!(!denied(facts("team-a", Recipient::Topic("secret"), 1)));
    assert!(!denied(facts("team", Recipient::Topic("secret.plans"), 1)));
    assert!(denied(facts("team-", Recipient::Capability("deploy"), 2)));
    assert!(!denied(facts("team-", Recipient::Sandbox("deploy"), 2)), "a sandbox of that name is another matter");
    assert!(denied(facts("team-a", Recipient::Broadcast, 3)));
    assert!(denied(facts("team-a", Recipient::Sandbox("x"), 3)));
    assert!(denied(Facts { to_agent: "boss", ..facts("team-a", Recipient::Sandbox("y"), 4) }));
    assert!(denied(Facts { from_agent: "root-2", ..facts("b", Recipient::Broadcast, 4) }));
    assert!(!denied(facts("root-2", Recipient::Broadcast, 4)));
}

#[test]
fn conditions_let_the_next_rule_decide() {
    let policy = json!({"policy": "allow_list", "rules": [
        {"from": "*", "to": "*", "approval_required": true, "min_bytes": 100},
        {"from": "*", "to": "*", "approval_required": true, "metadata": {"risk": "high"}},
        {"from": "*", "to": "*", "hours": {"from": "22:00", "to": "06:30"}, "max_bytes": 50},
        {"from": "*", "to": "*", "hours": {"from": "08:00", "to": "24:00"}},
    ]});
    let policy = Policy::parse(&policy.to_string()).unwrap();
    let minute = 60_000;
    let at = |minutes: u64, bytes: u64, metadata: &[(&str, &str)]| {
        let facts = facts("a", Recipient::Broadcast, 1);
        let time_ms = 19_000 * 24 * 60 * minute + minutes * minute;
        let facts = Facts { time_ms, bytes, metadata, ..facts };
        policy.decide(&facts).rule
    };
    assert_eq!(at(0, 100, &[]), Some(0));
    assert_eq!(at(0, 99, &[("risk", "high")]), Some(1));
    assert_eq!(at(0, 99, &[("risk", "low")]), None, "too large for the night");
    assert_eq!(at(0, 50, &[]), Some(2));
    assert_eq!((at(6 * 60 + 29, 1, &[]), at(6 * 60 + 30, 1, &[])), (Some(2), None));
    assert_eq!((at(7 * 60 + 59, 1, &[]), at(8 * 60, 1, &[])), (None, Some(3)));
    assert_eq!((at(22 * 60, 1, &[]), at(22 * 60, 60, &[])), (Some(2), Some(3)));
}

#[test]
fn what_cannot_be_is_refused_with_its_place() {
    let rule = |name: &str, value: Value| {
        let mut rule = json!({"from": "a", "to": "b"});
        rule[name] = value;
        json!({"policy": "allow_list", "rules": [{"from": "*", "to": "*"}, rule]}).to_string()
    };
    for (policy, place, text) in [
        (rule("from", json!([])), "rules[1].from", "empty"),
        (rule("to", json!("a*b")), "rules[1].to", "not at its end"),
        (rule("to", json!("a**")), "rules[1].to", "more than one"),
        (rule("to", json!("agent:")), "rules[1].to", "names nobody"),
        (rule("from", json!("topic:x")), "rules[1].from", "sends"),
        (rule("from", json!("x".repeat(200))), "rules[1].from", "160 bytes"),
        (rule("to", json!(vec!["x"; 65])), "rules[1].to", "65 entries"),
        (rule("message_types", json!([])), "rules[1].message_types", "empty"),
        (rule("max_bytes", json!(-1)), "policy", "expected u64"),
        (rule("hours", json!({"from": "8:00", "to": "9:00"})), "policy", "08:30"),
        (rule("hours", json!({"from": "25:00", "to": "09:00"})), "policy", "08:30"),
        (rule("unknown", json!(1)), "policy", "unknown field"),
        (json!({"policy": "maybe"}).to_string(), "policy", "maybe"),
        ("{".to_owned(), "policy", "EOF"),
        (" ".repeat((1 << 20) + 1), "policy", "at most"),
        (
            json!({"policy": "deny_list", "rules": vec![json!({"from": "*", "to": "*"}); 1_001]}).to_string(),
            "rules",
            "1001",
        ),
    ] {
        let error = Policy::parse(&policy).unwrap_err();
        assert!(error.place == place || policy.len() > 1 << 20 || place == "policy", "{error}");
        assert!(error.text.contains(text), "{error}");
    }
    let most = json!({"policy": "deny_list", "rules": vec![json!({"from": "*", "to": "*"}); 1_000]});
    assert_eq!(Policy::parse(&most.to_string()).unwrap().rules(), 1_000);
}

/// Rule after rule, as it is written.
fn naive(policy: &Value, facts: &Facts<'_>) -> Decision {
    let names = |value: &Value| match value {
        Value::String(one) => vec![one.clone()],
        several => several.as_array().unwrap().iter().map(|one| one.as_str().unwrap().to_owned()).collect(),
    };
    let one = |pattern: &str, name: &str| match pattern.strip_suffix('*') {
        Some(begin) => name.starts_with(begin),
        None => name == pattern,
    };
    let is = |entry: &str, (kind, name): (&str, &str), agent: &str| {
        let (prefix, pattern) = entry.split_once(':').unwrap_or(("sandbox", entry));
        entry == "*"
            || (entry == "broadcast" && kind == "broadcast")
            || (prefix == "agent" && !agent.is_empty() && one(pattern, agent))
            || (prefix == kind && kind != "broadcast" && entry != "broadcast" && one(pattern, name))
    };
    let to = match facts.to {
        Recipient::Sandbox(name) => ("sandbox", name),
        Recipient::Capability(name) => ("capability", name),
        Recipient::Topic(name) => ("topic", name),
        Recipient::Broadcast => ("broadcast", ""),
    };
    let types = ["", "request", "response", "notification", "command"];
    let allow_list = policy["policy"] == "allow_list";
    for (number, rule) in policy["rules"].as_array().unwrap().iter().enumerate() {
        let from = names(&rule["from"]).iter().any(|entry| is(entry, ("sandbox", facts.from), facts.from_agent));
        let to = names(&rule["to"]).iter().any(|entry| is(entry, to, facts.to_agent));
        let kind = rule["message_types"].as_array().is_none_or(|types_of_rule| {
            types_of_rule.iter().any(|name| name == types[usize::from(facts.message_type)])
        });
        let size = facts.bytes >= rule["min_bytes"].as_u64().unwrap_or(0);
        if from && to && kind && size {
            let hold = rule["approval_required"] == true;
            let verdict = if hold {
                Verdict::Hold
            } else if allow_list {
                Verdict::Allow
            } else {
                Verdict::Deny
            };
            return Decision { verdict, rule: Some(number) };
        }
    }
    Decision { verdict: if allow_list { Verdict::Deny } else { Verdict::Allow }, rule: None }
}

/// Short names of few letters, so that they meet.
fn name() -> impl Strategy<Value = String> {
    "[ab]{1,3}"
}

fn entry(to: bool) -> impl Strategy<Value = String> {
    let kinds: Vec<&str> =
        if to { vec!["", "sandbox:", "agent:", "topic:", "capability:"] } else { vec!["", "sandbox:", "agent:"] };
    let named = (prop::sample::select(kinds), name(), any::<bool>())
        .prop_map(|(kind, name, begins)| format!("{kind}{name}{}", if begins { "*" } else { "" }));
    prop_oneof![8 => named, 1 => Just("*".to_owned()), 1 => Just(if to { "broadcast" } else { "*" }.to_owned())]
}

fn rule() -> impl Strategy<Value = Value> {
    let types = prop::sample::subsequence(vec!["request", "response", "notification", "command"], 1..=4);
    let lists = (prop::collection::vec(entry(false), 1..4), prop::collection::vec(entry(true), 1..4));
    (lists, prop::option::of(types), any::<bool>(), 0..3_u64).prop_map(|((from, to), types, hold, bytes)| {
        let mut rule = json!({"from": from, "to": to, "approval_required": hold, "min_bytes": bytes});
        if let Some(types) = types {
            rule["message_types"] = json!(types);
        }
        rule
    })
}

#[test]
fn a_policy_knows_what_it_looks_at() {
    let looks = |rule: Value| {
        let rules = json!([{"from": "a*", "to": ["b", "topic:t.*", "broadcast"], "message_types": ["request"]}, rule]);
        Policy::parse(&json!({"policy": "deny_list", "rules": rules}).to_string()).unwrap().looks_inside()
    };
    assert!(!looks(json!({"from": "*", "to": "*", "hours": {"from": "08:00", "to": "09:00"}})));
    for more in [json!({"min_bytes": 1}), json!({"max_bytes": 1}), json!({"metadata": {"k": "v"}})] {
        let mut rule = json!({"from": "*", "to": "*"});
        rule.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        assert!(looks(rule), "{more}");
    }
    for (from, to) in [("agent:x", "*"), ("agent:x*", "*"), ("*", "agent:x"), ("*", "capability:x*")] {
        assert!(looks(json!({"from": from, "to": to})), "{from} {to}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn promise_6_a_policy_decides_as_its_rules_read(
        rules in prop::collection::vec(rule(), 0..80),
        allow_list in any::<bool>(),
        messages in prop::collection::vec((name(), "[ab]{0,3}", 0..4_u8, name(), "[ab]{0,3}", 1..5_u8, 0..3_u64), 1..30),
    ) {
        let written = json!({"policy": if allow_list { "allow_list" } else { "deny_list" }, "rules": rules});
        let policy = Policy::parse(&written.to_string()).unwrap();
        for (from, from_agent, kind, to, to_agent, message_type, bytes) in &messages {
            let recipient = match kind {
                0 => Recipient::Sandbox(to),
                1 => Recipient::Capability(to),
                2 => Recipient::Topic(to),
                _ => Recipient::Broadcast,
            };
            let facts = Facts {
                from, from_agent, to: recipient, capability: "", to_agent, message_type: *message_type, bytes: *bytes, metadata: &[], time_ms: 0,
            };
            prop_assert_eq!(policy.decide(&facts), naive(&written, &facts), "{} {:?}", written, facts);
        }
    }
}

#[test]
fn a_rule_may_limit_how_much_is_sent_by_it() {
    let policy = |mode: &str, rule: Value| {
        Policy::parse(&json!({"policy": mode, "rules": [rule, {"from": "*", "to": "*"}]}).to_string())
    };
    let limited = |limit: Value| json!({"from": "a", "to": "b", "rate_limit": limit});
    let five = policy("allow_list", limited(json!({"messages_per_second": 5}))).unwrap();
    let rate = |from| five.rate(&five.decide(&facts(from, Recipient::Sandbox("b"), 1)));
    assert_eq!((rate("a"), rate("c"), five.limits_rates()), (Some((5, 0)), None, true));
    for (mode, limit) in [
        ("allow_list", json!({})),
        ("allow_list", json!({"messages_per_second": 0})),
        ("allow_list", json!({"messages_per_minute": 5})),
        ("deny_list", json!({"messages_per_second": 5})),
    ] {
        assert!(policy(mode, limited(limit.clone())).is_err(), "{mode} {limit}");
    }
    let held = json!({"from": "a", "to": "b", "approval_required": true, "rate_limit": {"bytes_per_second": 9}});
    assert!(policy("deny_list", held).unwrap().limits_rates());
}
