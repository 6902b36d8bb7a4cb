//! A policy as a part of the state.

use bytes::Bytes;
use prost::Message as _;
use serde_json::{Value, json};
use tandem_proto::messaging::v1::{CapabilityDestination, Destination, Message, destination::Kind as ToKind};

use super::harness::*;
use crate::{
    batch::{Kind, Record},
    command::{DeleteWorkspace, Outcome, SetPolicy, Verb},
    rejection::{Reason, Rejection},
};

pub(super) fn set_if(shard: &mut TestShard, json: &str, if_revision: Option<u64>) -> Result<u64, Rejection> {
    let json = Bytes::copy_from_slice(json.as_bytes());
    let verb = SetPolicy { workspace: WORKSPACE.into(), json, if_revision, by: "lead".into() };
    match shard.apply(&[Verb::SetPolicy(verb)]).remove(0) {
        Outcome::SetPolicy(result) => result.map(|set| set.revision),
        other => panic!("{other:?}"),
    }
}

pub(super) fn set(shard: &mut TestShard, policy: &Value) -> u64 {
    set_if(shard, &policy.to_string(), None).unwrap()
}

fn deny(from: &str, to: &str) -> Value {
    json!({"policy": "deny_list", "rules": [{"from": from, "to": to}]})
}

/// Why each of these is refused; nothing where it is accepted.
fn publish(shard: &mut TestShard, records: &[Record<'_>]) -> Vec<Option<Reason>> {
    let published = shard.publish_records(records);
    let refused = |index: usize| {
        let found = published.exceptions.iter().find(|(at, _)| *at as usize == index);
        found.map(|(_, why)| refusal(why))
    };
    (0..records.len()).map(refused).collect()
}

fn direct<'a>(from: &'a str, to: &'a str) -> Record<'a> {
    Record { kind: Kind::Direct, priority: 5, message_type: 1, from, to, body: b"body", ..Record::default() }
}

const DENIED: Option<Reason> = Some(Reason::PolicyDenied);

#[test]
fn promise_6_nothing_is_accepted_behind_the_deny_that_forbids_it() {
    let mut shard = TestShard::with_sandboxes();
    // In one command, as they may be in one batch of the log: what is before is judged by what was before.
    let messages = [Draft::direct("a", "b"), Draft::direct("a", "c"), Draft { to: None, ..Draft::direct("a", "") }];
    let publish = shard.publish_verb(&messages);
    let deny = Bytes::from(deny("a", "b").to_string());
    let deny = SetPolicy { workspace: WORKSPACE.into(), json: deny, if_revision: None, by: "lead".into() };
    let outcomes = shard.apply(&[publish.clone(), Verb::SetPolicy(deny), publish]);
    let refused = |outcome: &Outcome| match outcome {
        Outcome::Publish(Ok(published)) => {
            published.exceptions.iter().map(|(index, why)| (*index, refusal(why))).collect::<Vec<_>>()
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(&outcomes[0]), []);
    assert_eq!(refused(&outcomes[2]), [(0, Reason::PolicyDenied)]);
}

#[test]
fn promise_6_a_policy_outlives_a_restart_and_ends_with_its_workspace() {
    let mut shard = TestShard::with_sandboxes();
    assert_eq!(set(&mut shard, &deny("a", "b")), 1);
    shard.restart();
    assert_eq!(publish(&mut shard, &[direct("a", "b"), direct("b", "a")]), [DENIED, None]);
    assert_eq!(set_if(&mut shard, "", None), Ok(2), "a removal counts");
    assert_eq!(publish(&mut shard, &[direct("a", "b")]), [None]);
    assert_eq!(set(&mut shard, &deny("a", "*")), 3);
    let record = shard.reader.policy(1).unwrap().unwrap();
    assert_eq!((record.revision, record.by.as_str()), (3, "lead"));
    shard.apply(&[Verb::DeleteWorkspace(DeleteWorkspace { workspace: WORKSPACE.into() })]);
    shard.apply(&[create()]);
    shard.apply(&["a", "b"].map(register));
    assert_eq!(publish(&mut shard, &[direct("a", "b")]), [None]);
    assert!(shard.reader.policy(2).unwrap().is_none() && shard.reader.policy(1).unwrap().is_none());
}

#[test]
fn a_policy_is_changed_by_who_knows_it() {
    let mut shard = TestShard::with_sandboxes();
    let policy = deny("a", "b").to_string();
    let reason = |result: Result<u64, Rejection>| result.unwrap_err().reason;
    assert_eq!(set_if(&mut shard, &policy, Some(0)), Ok(1));
    assert_eq!(reason(set_if(&mut shard, &policy, Some(0))), Reason::PolicyChanged);
    assert_eq!(set_if(&mut shard, &policy, Some(1)), Ok(2));
    assert_eq!(reason(set_if(&mut shard, "{", None)), Reason::InvalidPolicy);
    let needless = json!({"policy": "allow_list", "rules": [{"from": "*", "to": "*", "approvals": 2}]});
    assert_eq!(reason(set_if(&mut shard, &needless.to_string(), None)), Reason::InvalidPolicy);
    assert_eq!(shard.reader.policy(1).unwrap().unwrap().revision, 2, "what was refused changed nothing");
}

#[test]
fn every_way_of_a_message_is_judged() {
    let mut shard = TestShard::with_sandboxes();
    shard.apply(&[register_with("b", &["deploy"]), register_with("c", &["deploy"])]);
    let to = |capability: &str| Message {
        destination: Some(Destination {
            kind: Some(ToKind::Capability(CapabilityDestination {
                capability: capability.into(),
                all: false,
                wait: false,
            })),
        }),
        from_agent: "ann".into(),
        metadata: [("risk".to_owned(), "high".to_owned())].into(),
        ..Message::default()
    };
    let deploy = to("deploy").encode_to_vec();
    let chosen = Record { body: &deploy, ..direct("a", "b") };
    let numbers = [2_u32.to_be_bytes(), 3_u32.to_be_bytes()].concat();
    let several = Record { kind: Kind::Several, to: "", recipients: &numbers, ..chosen };
    let wanted = Record { kind: Kind::Wanted, to: "deploy", ..chosen };
    let broadcast = Record { kind: Kind::Broadcast, to: "", ..direct("a", "") };

    set(&mut shard, &deny("a", "capability:deploy"));
    let all = [chosen, several, wanted, broadcast, direct("a", "b")];
    assert_eq!(publish(&mut shard, &all), [DENIED, DENIED, DENIED, None, None]);
    set(&mut shard, &deny("a", "b"));
    assert_eq!(publish(&mut shard, &all), [DENIED, None, None, None, DENIED], "c can do it as well");
    assert_eq!(shard.pending("b"), 3, "what went there before, and the broadcasts");
    assert_eq!(shard.pending("c"), 4, "what went to several and to somebody is here");
    set(&mut shard, &deny("a", "broadcast"));
    assert_eq!(publish(&mut shard, &all), [None, None, None, DENIED, None]);
    set(
        &mut shard,
        &json!({"policy": "deny_list", "rules": [{"from": "agent:ann", "to": "*", "metadata": {"risk": "high"}}]}),
    );
    assert_eq!(publish(&mut shard, &all), [DENIED, DENIED, DENIED, None, None], "as the message says");
}

#[test]
fn what_waits_for_a_capability_goes_to_nobody_who_may_not_have_it() {
    let mut shard = TestShard::with_sandboxes();
    set(&mut shard, &deny("a", "b"));
    assert_eq!(publish(&mut shard, &[Record { kind: Kind::Wanted, ..direct("a", "deploy") }]), [None]);
    shard.apply(&[register_with("b", &["deploy"])]);
    shard.tick();
    assert_eq!(shard.pending("b"), 0);
    shard.apply(&[register_with("c", &["deploy"])]);
    shard.tick();
    assert_eq!((shard.pending("b"), shard.pending("c")), (0, 1));
}

/// A message of conversation 7.
fn within<'a>(from: &'a str, to: &'a str) -> Record<'a> {
    Record { correlation: 7, ..direct(from, to) }
}

fn allow(pairs: &[(&str, &str)]) -> Value {
    let rules: Vec<_> = pairs.iter().map(|(from, to)| json!({"from": from, "to": to})).collect();
    json!({"policy": "allow_list", "rules": rules})
}

#[test]
fn promise_6_whoever_speaks_for_another_may_no_more_than_that_one() {
    let mut shard = TestShard::with_sandboxes();
    let pairs = [("a", "b"), ("b", "c"), ("c", "b"), ("b", "a")];
    set(&mut shard, &allow(&pairs));
    assert_eq!(publish(&mut shard, &[within("a", "b"), within("b", "c")]), [None, DENIED], "a may not speak to c");
    assert_eq!(publish(&mut shard, &[direct("b", "c"), Record { correlation: 8, ..direct("b", "c") }]), [None, None]);
    shard.restart();
    assert_eq!(publish(&mut shard, &[within("b", "c"), within("b", "a")]), [DENIED, None], "an answer goes back");
    let both = [&pairs[..], &[("a", "c")]].concat();
    set(&mut shard, &allow(&both));
    assert_eq!(publish(&mut shard, &[within("b", "c"), within("c", "b"), within("b", "a")]), [None, None, None]);
    // What b began c answers, whatever it was that led to it.
    set(&mut shard, &allow(&pairs));
    assert_eq!(publish(&mut shard, &[within("c", "b"), within("b", "c")]), [None, DENIED]);
    let mut alone = allow(&pairs);
    alone["delegation"] = json!("sender");
    set(&mut shard, &alone);
    assert_eq!(publish(&mut shard, &[within("b", "c")]), [None]);
}

#[test]
fn the_strictest_of_a_chain_counts() {
    let mut shard = TestShard::with_sandboxes();
    let rules = json!([
        {"from": "a", "to": "c", "approval_required": true}, {"from": "a", "to": "b"}, {"from": "b", "to": "*"},
    ]);
    set(&mut shard, &json!({"policy": "allow_list", "rules": rules}));
    assert_eq!(publish(&mut shard, &[within("a", "b"), direct("b", "c")]), [None, None]);
    let held = shard.publish_records(&[within("b", "c")]).exceptions;
    assert!(matches!(held[..], [(0, crate::command::publish::Exception::Held { approval: 1 })]), "{held:?}");
    // Who is gone may nothing any more, and neither may who speaks for him.
    shard.apply(&[unregister("a")]);
    assert_eq!(publish(&mut shard, &[within("b", "c"), direct("b", "c")]), [DENIED, None]);
}

#[test]
fn what_everybody_heard_binds_everybody() {
    let mut shard = TestShard::with_sandboxes();
    set(&mut shard, &allow(&[("a", "broadcast"), ("b", "*"), ("c", "*")]));
    let news = Record { kind: Kind::Broadcast, ..within("a", "") };
    assert_eq!(
        publish(&mut shard, &[news, within("b", "c"), within("b", "a"), direct("b", "c")]),
        [None, DENIED, None, None]
    );
}

proptest::proptest! {
    /// Against the plainest reading: everybody who led to a message may send it himself, unless it goes back to one of them.
    #[test]
    fn authority_never_widens(
        rules in proptest::collection::btree_set((0..4_usize, 0..4_usize), 0..12),
        steps in proptest::collection::vec((0..4_usize, 0..4_usize, 0..2_u128), 1..40),
    ) {
        let names = ["a", "b", "c", "d"];
        let mut shard = TestShard::with_sandboxes();
        shard.apply(&[register("d")]);
        let pairs: Vec<_> = rules.iter().map(|(from, to)| (names[*from], names[*to])).collect();
        set(&mut shard, &allow(&pairs));
        // By conversation and sandbox: on whose behalf it speaks.
        let mut behind = vec![vec![std::collections::BTreeSet::new(); 4]; 2];
        for (from, to, conversation) in steps {
            let record = Record { correlation: conversation + 1, ..direct(names[from], names[to]) };
            let known: std::collections::BTreeSet<usize> = behind[conversation as usize][from].clone();
            let back = known.contains(&to);
            let may = |sender: usize| rules.contains(&(sender, to));
            let expected = may(from) && (back || known.iter().all(|principal| may(*principal)));
            let seen = publish(&mut shard, &[record]);
            proptest::prop_assert_eq!(seen, [if expected { None } else { DENIED }], "{} to {} in {}", from, to, conversation);
            if expected && !back {
                let entry: &mut std::collections::BTreeSet<usize> = &mut behind[conversation as usize][to];
                entry.extend(known.into_iter().chain([from]));
                entry.remove(&to);
            }
        }
    }
}
