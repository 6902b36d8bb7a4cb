//! Messages that wait for approval.

mod random;

use bytes::Bytes;
use prost::Message as _;
use serde_json::{Value, json};
use tandem_proto::messaging::v1::Message;

use super::{
    harness::*,
    policy::{set, set_if},
};
use crate::{
    batch::{Kind, NOTIFICATION, RESPONSE, Record},
    command::{CreateTopic, Decide, Decided, FollowTopics, Outcome, Verb, publish::Exception},
    machine::{
        approval::ApprovalState::{self, *},
        events::EventKind,
    },
    rejection::{Reason, Rejection},
};

/// What goes to b waits; everything else goes through.
fn hold(more: Value) -> Value {
    let mut rule = json!({"from": "*", "to": "b", "approval_required": true});
    rule.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({"policy": "deny_list", "rules": [rule]})
}

fn holding() -> TestShard {
    let mut shard = TestShard::with_sandboxes();
    set(&mut shard, &hold(json!({})));
    shard
}

fn direct<'a>(from: &'a str, to: &'a str) -> Record<'a> {
    Record { kind: Kind::Direct, priority: 5, message_type: 1, from, to, body: b"\x3a\x01x", ..Record::default() }
}

fn publish(shard: &mut TestShard, record: Record<'_>) -> Result<u64, Exception> {
    let published = shard.publish_records(&[record]);
    published.exceptions.into_iter().next().map_or(Ok(published.first_sequence), |(_, why)| Err(why))
}

fn held(number: u64) -> Result<u64, Exception> {
    Err(Exception::Held { approval: number })
}

fn decision(number: u64, by: &str, approve: bool) -> Decide {
    let comment = Bytes::from_static(b"so be it");
    Decide { workspace: WORKSPACE.into(), number, approve, comment, by: by.into(), sandbox: String::new() }
}

fn decide(shard: &mut TestShard, verb: Decide) -> Result<(ApprovalState, u64), Reason> {
    match shard.apply(&[Verb::Decide(verb)]).remove(0) {
        Outcome::Decide(result) => {
            result.map(|Decided { state, sequence }| (state, sequence)).map_err(|why: Rejection| why.reason)
        }
        other => panic!("{other:?}"),
    }
}

fn approve(shard: &mut TestShard, number: u64) -> Result<(ApprovalState, u64), Reason> {
    decide(shard, decision(number, "lead", true))
}

fn state(shard: &TestShard, number: u64) -> Option<ApprovalState> {
    shard.reader.approval(1, number).unwrap().map(|approval| approval.state)
}

/// Type, metadata and content of a message.
type Told = (u8, Vec<(String, String)>, Value);

/// What waits for a sandbox, oldest first.
fn told(shard: &mut TestShard, sandbox: &str) -> Vec<Told> {
    let inbox = shard.open(sandbox);
    let items = shard.take(&inbox, 100);
    shard.ack(&inbox, &items);
    let read = |item: &crate::delivery::lane::Item| {
        let record = item.message.record();
        let message = Message::decode(record.body).unwrap();
        let mut metadata: Vec<_> = message.metadata.into_iter().collect();
        metadata.sort();
        (record.message_type, metadata, serde_json::from_slice(&message.content).unwrap_or_default())
    };
    items.iter().map(read).collect()
}

fn pair(key: &str, value: &str) -> (String, String) {
    (key.to_owned(), value.to_owned())
}

#[test]
fn promise_3_what_is_approved_is_delivered_once_and_its_sender_told() {
    let mut shard = holding();
    assert_eq!(publish(&mut shard, direct("a", "b")), held(1));
    assert_eq!(publish(&mut shard, direct("a", "c")), Ok(1), "what is held is not in the log");
    assert_eq!((shard.pending("b"), state(&shard, 1)), (0, Some(Waiting)));
    assert_eq!(approve(&mut shard, 1), Ok((Approved, 2)));
    assert_eq!(approve(&mut shard, 1), Ok((Approved, 2)), "a call that is repeated");
    assert_eq!(decide(&mut shard, decision(1, "other", false)), Err(Reason::ApprovalEnded));
    assert_eq!(shard.pending("b"), 1);
    let seen = told(&mut shard, "a");
    assert_eq!(seen.len(), 1, "{seen:?}");
    assert_eq!((seen[0].0, &seen[0].1[..]), (NOTIFICATION, &[pair("aintandem-approval", "1")][..]));
    assert_eq!(seen[0].2["sequence"], 2);
    assert_eq!(seen[0].2["text"], "decided by lead: so be it");
    assert_eq!(shard.events()[3..], [EventKind::ApprovalRequested, EventKind::ApprovalGranted]);
    assert!(shard.reader.approval_message(1, 1).unwrap().is_none(), "it is in the log");
    assert_eq!(approve(&mut shard, 2), Err(Reason::UnknownApproval));
}

#[test]
fn what_is_denied_is_not_delivered_and_ends_the_wait_for_its_response() {
    let mut shard = holding();
    let request =
        Record { requires_response: true, correlation: 7, digest: 3, reply_timeout_ms: 9_000, ..direct("a", "b") };
    assert_eq!(publish(&mut shard, request), held(1));
    assert_eq!(publish(&mut shard, request), held(1), "a call that is repeated waits on");
    assert_eq!(decide(&mut shard, decision(1, "lead", false)), Ok((Denied, 0)));
    assert_eq!(decide(&mut shard, decision(1, "lead", true)), Err(Reason::ApprovalEnded));
    let waiting = shard.reader.waiting_request((1, 1, 7)).unwrap().unwrap();
    let (sequence, response) = waiting.response.unwrap();
    let batch = crate::batch::Batch::decode(sequence, response).unwrap();
    let message = Message::decode(batch.record(0).body).unwrap();
    assert_eq!((batch.record(0).message_type, batch.record(0).from), (RESPONSE, "b"));
    assert_eq!(message.metadata["aintandem-error"], "APPROVAL_DENIED");
    assert_eq!((shard.pending("a"), shard.pending("b")), (0, 0));
    assert!(shard.reader.approval_message(1, 1).unwrap().is_some(), "it is kept for whoever asks");

    // One that requires no response: its sender hears of it all the same.
    assert_eq!(publish(&mut shard, direct("a", "b")), held(2));
    assert_eq!(decide(&mut shard, decision(2, "lead", false)), Ok((Denied, 0)));
    let seen = told(&mut shard, "a");
    let pairs = [pair("aintandem-approval", "2"), pair("aintandem-error", "APPROVAL_DENIED")];
    assert_eq!((seen[0].0, &seen[0].1[..]), (NOTIFICATION, &pairs[..]));
}

#[test]
fn a_request_that_was_held_gets_its_response_like_any_other() {
    let mut shard = holding();
    let request =
        Record { requires_response: true, correlation: 7, digest: 3, reply_timeout_ms: 9_000, ..direct("a", "b") };
    assert_eq!(publish(&mut shard, request), held(1));
    assert_eq!(approve(&mut shard, 1), Ok((Approved, 1)));
    assert_eq!(shard.reader.waiting_request((1, 1, 7)).unwrap().unwrap().sequence, 1);
    let response = Record { message_type: RESPONSE, correlation: 7, ..direct("b", "a") };
    assert_eq!(publish(&mut shard, response), Ok(3));
    assert_eq!(shard.reader.waiting_request((1, 1, 7)).unwrap().unwrap().response.unwrap().0, 3);
}

#[test]
fn nobody_who_decides_in_time_is_a_denial() {
    let mut shard = holding();
    set(&mut shard, &hold(json!({"approval_timeout_s": 60})));
    assert_eq!(publish(&mut shard, direct("a", "b")), held(1));
    assert_eq!(publish(&mut shard, Record { ttl_ms: 5_000, ..direct("a", "b") }), held(2));
    shard.time_ms += 5_001;
    shard.tick();
    assert_eq!((state(&shard, 1), state(&shard, 2)), (Some(Waiting), Some(Expired)), "it does not outlive its ttl");
    shard.time_ms += 60_000;
    // Before any tick: the time of the command counts.
    assert_eq!(approve(&mut shard, 1), Err(Reason::ApprovalEnded));
    shard.tick();
    assert_eq!((state(&shard, 1), shard.pending("b")), (Some(Expired), 0));
    let codes: Vec<_> = told(&mut shard, "a").into_iter().map(|(_, metadata, _)| metadata[1].1.clone()).collect();
    assert_eq!(codes, ["APPROVAL_EXPIRED", "APPROVAL_EXPIRED"]);
}

#[test]
fn the_time_that_it_was_held_is_a_part_of_the_ttl() {
    let mut shard = holding();
    assert_eq!(publish(&mut shard, Record { ttl_ms: 60_000, ..direct("a", "b") }), held(1));
    shard.time_ms += 50_000;
    assert_eq!(approve(&mut shard, 1), Ok((Approved, 1)));
    shard.time_ms += 5_000;
    shard.tick();
    assert_eq!(shard.pending("b"), 1);
    shard.time_ms += 6_000;
    shard.tick();
    assert_eq!(shard.pending("b"), 0);
}

#[test]
fn several_have_to_approve_and_one_may_deny() {
    let mut shard = holding();
    set(&mut shard, &hold(json!({"approvals": 2})));
    assert_eq!(publish(&mut shard, direct("a", "b")), held(1));
    assert_eq!(approve(&mut shard, 1), Ok((Waiting, 0)));
    assert_eq!(approve(&mut shard, 1), Ok((Waiting, 0)), "nobody counts twice");
    assert_eq!(shard.reader.approval(1, 1).unwrap().unwrap().votes.len(), 1);
    let own = Decide { sandbox: "a".into(), ..decision(1, "agent", true) };
    assert_eq!(decide(&mut shard, own), Err(Reason::OwnMessage));
    assert_eq!(decide(&mut shard, decision(1, "second", true)), Ok((Approved, 1)));
    assert_eq!(publish(&mut shard, direct("a", "b")), held(2));
    assert_eq!(approve(&mut shard, 2), Ok((Waiting, 0)));
    assert_eq!(decide(&mut shard, decision(2, "lead", false)), Ok((Denied, 0)), "who approved may think again");
}

#[test]
fn promise_6_the_policy_of_the_moment_judges_what_is_let_go() {
    let mut shard = holding();
    for number in 1..=3 {
        assert_eq!(publish(&mut shard, direct("a", "b")), held(number));
    }
    set(&mut shard, &json!({"policy": "deny_list", "rules": [{"from": "a", "to": "b"}]}));
    assert_eq!(approve(&mut shard, 1), Ok((Refused, 0)));
    assert_eq!(told(&mut shard, "a")[0].1[1].1, "APPROVAL_REFUSED");
    assert_eq!(set_if(&mut shard, "", None), Ok(3));
    assert_eq!(approve(&mut shard, 2).map(|(state, _)| state), Ok(Approved));
    shard.apply(&[unregister("b")]);
    told(&mut shard, "a");
    assert_eq!(approve(&mut shard, 3), Ok((Refused, 0)), "its recipient is gone");
    assert_eq!(told(&mut shard, "a")[0].1[1].1, "APPROVAL_REFUSED", "its sender hears of it all the same");
}

#[test]
fn who_approves_what_has_no_room_may_try_again() {
    let mut shard = holding();
    assert_eq!(publish(&mut shard, direct("a", "b")), held(1));
    assert_eq!(set_if(&mut shard, "", None), Ok(2));
    shard.max_inbox = 1;
    publish(&mut shard, direct("c", "b")).unwrap();
    assert_eq!(approve(&mut shard, 1), Err(Reason::InboxFull));
    assert!(shard.reader.approval(1, 1).unwrap().unwrap().votes.is_empty(), "nothing has happened");
    let inbox = shard.open("b");
    let items = shard.take(&inbox, 1);
    shard.ack(&inbox, &items);
    assert_eq!(approve(&mut shard, 1).map(|(state, _)| state), Ok(Approved));
}

#[test]
fn promise_2_a_message_that_is_sent_again_is_held_once() {
    let mut shard = holding();
    let named = Record { id: "m", digest: 5, ..direct("a", "b") };
    let seen = shard.publish_records(&[named, named]).exceptions;
    assert_eq!(seen, [(0, Exception::Held { approval: 1 }), (1, Exception::Held { approval: 1 })]);
    let numbered = |position| Record { producer: (9, position), ..direct("a", "b") };
    assert_eq!(publish(&mut shard, numbered(1)), held(2));
    shard.restart();
    assert_eq!([publish(&mut shard, named), publish(&mut shard, numbered(1))], [held(1), held(2)]);
    assert_eq!(publish(&mut shard, numbered(2)), held(3));
    let other = Record { digest: 6, ..named };
    assert_eq!(publish(&mut shard, other).map_err(|why| refusal(&why)), Err(Reason::MessageIdReused));
    let released = approve(&mut shard, 1).unwrap().1;
    let time_ms = shard.time_ms;
    assert_eq!(decide(&mut shard, decision(2, "lead", false)), Ok((Denied, 0)));
    for _ in 0..2 {
        assert_eq!(publish(&mut shard, named), Err(Exception::Duplicate { sequence: released, time_ms }));
        let denied = publish(&mut shard, numbered(1));
        assert_eq!(denied.map_err(|why| refusal(&why)), Err(Reason::ApprovalDenied));
        shard.restart();
    }
    // Beyond what the memory of ids holds at once.
    for number in 0..40 {
        let id = format!("n{number}");
        publish(&mut shard, Record { id: &id, digest: 5, ..direct("a", "c") }).unwrap();
    }
    assert_eq!(publish(&mut shard, named), Err(Exception::Duplicate { sequence: released, time_ms }));
}

#[test]
fn a_request_that_was_denied_is_not_waited_for_again() {
    let mut shard = holding();
    let request = Record { id: "m", digest: 3, correlation: 7, reply_timeout_ms: 60_000, ..direct("a", "b") };
    let request = Record { requires_response: true, ..request };
    assert_eq!(publish(&mut shard, request), held(1));
    assert_eq!(decide(&mut shard, decision(1, "lead", false)), Ok((Denied, 0)));
    let denied = |shard: &mut TestShard| publish(shard, request).map_err(|why| refusal(&why));
    assert_eq!(denied(&mut shard), Err(Reason::ApprovalDenied));
    shard.time_ms += 61_000;
    shard.tick();
    assert_eq!(denied(&mut shard), Err(Reason::ApprovalDenied));
    assert!(shard.reader.waiting_request((1, 1, 7)).unwrap().is_none(), "nobody waits any more");
    // Without an id: a call that is repeated finds the answer that is there.
    let unnamed = Record { id: "", correlation: 8, ..request };
    assert_eq!(publish(&mut shard, unnamed), held(2));
    assert_eq!(decide(&mut shard, decision(2, "lead", false)), Ok((Denied, 0)));
    assert!(matches!(publish(&mut shard, unnamed), Err(Exception::Duplicate { sequence: 0, .. })));
}

#[test]
fn words_about_approvals_are_no_steps_of_a_conversation() {
    let mut shard = holding();
    for number in 1..=30 {
        assert_eq!(publish(&mut shard, Record { correlation: 7, ..direct("a", "b") }), held(number));
        assert_eq!(approve(&mut shard, number).map(|(state, _)| state), Ok(Approved));
    }
    assert_eq!((shard.pending("b"), shard.dead_letters().len()), (30, 0));
}

#[test]
fn the_strictest_terms_of_all_that_hold_it_count() {
    let mut shard = TestShard::with_sandboxes();
    let hold = |from: &str, to: &str, approvals: u32, seconds: u64| json!({"from": from, "to": to, "approval_required": true, "approvals": approvals, "approval_timeout_s": seconds});
    let rules =
        json!([hold("b", "c", 1, 60), hold("a", "c", 3, 600), {"from": "a", "to": "b"}, {"from": "b", "to": "a"}]);
    set(&mut shard, &json!({"policy": "allow_list", "rules": rules}));
    let within = |from, to| Record { correlation: 9, ..direct(from, to) };
    assert!(publish(&mut shard, within("a", "b")).is_ok());
    assert_eq!(publish(&mut shard, within("b", "c")), held(1), "on behalf of a");
    let approval = shard.reader.approval(1, 1).unwrap().unwrap();
    assert_eq!((approval.needed, approval.deadline_ms - approval.create_ms, approval.rule), (3, 60_000, 2));
    for own in ["a", "b"] {
        let verb = Decide { sandbox: own.into(), ..decision(1, own, true) };
        assert_eq!(decide(&mut shard, verb), Err(Reason::OwnMessage), "{own} has a part in it");
    }
    let rules = json!([hold("*", "b", 1, 60), hold("*", "c", 2, 30)]);
    set(&mut shard, &json!({"policy": "allow_list", "rules": rules}));
    let numbers = [2_u32.to_be_bytes(), 3_u32.to_be_bytes()].concat();
    let several = Record { kind: Kind::Several, recipients: &numbers, ..direct("a", "") };
    assert_eq!(publish(&mut shard, several), held(2));
    let approval = shard.reader.approval(1, 2).unwrap().unwrap();
    assert_eq!((approval.needed, approval.deadline_ms - approval.create_ms), (2, 30_000));
}

#[test]
fn what_waits_is_bounded_and_so_is_what_ended() {
    let mut shard = holding();
    shard.max_inbox = 12;
    for number in 1..=3 {
        assert_eq!(publish(&mut shard, direct("a", "b")), held(number));
    }
    // Of all that may wait one sender has a quarter, and then the workspace is full.
    for max_inbox in [12, 3] {
        shard.max_inbox = max_inbox;
        let full = publish(&mut shard, direct("a", "b")).map_err(|why| refusal(&why));
        assert_eq!(full, Err(Reason::TooManyHeld));
    }
    shard.max_inbox = 100;
    for number in 1..=9 {
        assert_eq!(decide(&mut shard, decision(number, "lead", false)), Ok((Denied, 0)));
        assert_eq!(publish(&mut shard, direct("a", "b")), held(number + 3));
    }
    let kept: Vec<_> = (1..=12).filter(|number| state(&shard, *number).is_some()).collect();
    assert_eq!(kept, [6, 7, 8, 9, 10, 11, 12], "four that ended, and those that wait");
    assert!(shard.reader.approval_message(1, 5).unwrap().is_none());
    let page = |wanted, through| {
        let page = shard.reader.approvals(1, wanted, through, 2).unwrap();
        (page.found.iter().map(|(number, _)| *number).collect::<Vec<_>>(), page.next)
    };
    assert_eq!(page(None, u64::MAX), (vec![12, 11], Some(10)));
    assert_eq!(page(Some(Waiting), u64::MAX), (vec![12, 11], Some(10)));
    assert_eq!(page(Some(Waiting), 10), (vec![10], None));
    assert_eq!(page(Some(Denied), 10), (vec![9, 8], Some(7)));
    assert_eq!(page(Some(Approved), u64::MAX), (vec![], None));
}

#[test]
fn every_way_of_a_message_can_be_held() {
    let mut shard = TestShard::with_sandboxes();
    let topic = || "news".to_owned();
    shard.apply(&[
        register_with("b", &["deploy"]),
        Verb::CreateTopic(CreateTopic { workspace: WORKSPACE.into(), topic: topic(), max_topics: 9 }),
        Verb::FollowTopics(FollowTopics {
            workspace: WORKSPACE.into(),
            sandbox: "b".into(),
            pattern: topic(),
            from_sequence: None,
            max_follows: 9,
        }),
    ]);
    let everything = json!({"policy": "allow_list", "rules": [{"from": "*", "to": "*", "approval_required": true}]});
    set(&mut shard, &everything);
    let numbers = [2_u32.to_be_bytes(), 3_u32.to_be_bytes()].concat();
    let ways = [
        (direct("a", "b"), 1),
        (Record { kind: Kind::Topic, ..direct("a", "news") }, 1),
        (Record { kind: Kind::Broadcast, ..direct("a", "") }, 1),
        (Record { kind: Kind::Several, recipients: &numbers, ..direct("a", "") }, 1),
        (Record { kind: Kind::Wanted, ..direct("a", "deploy") }, 1),
        (Record { not_before_ms: 2_000, ..direct("a", "b") }, 1),
    ];
    for (number, (record, reaches)) in (1..).zip(ways) {
        assert_eq!(publish(&mut shard, record), held(number), "{record:?}");
        let before = shard.pending("b");
        assert_eq!(approve(&mut shard, number).map(|(state, _)| state), Ok(Approved), "{record:?}");
        assert_eq!(shard.pending("b") - before, reaches, "{record:?}");
    }
    // Who goes nowhere is told at once.
    let nowhere = [direct("a", "z"), Record { kind: Kind::Topic, ..direct("a", "olds") }];
    let reasons = nowhere.map(|record| publish(&mut shard, record).map_err(|why| refusal(&why)));
    assert_eq!(reasons, [Err(Reason::UnknownSandbox), Err(Reason::UnknownTopic)]);
}

#[test]
fn what_is_approved_for_a_capability_goes_to_who_needs_that_approval() {
    let mut shard = TestShard::with_sandboxes();
    let rules = json!([{"from": "*", "to": ["b", "capability:deploy"], "approval_required": true}]);
    set(&mut shard, &json!({"policy": "deny_list", "rules": rules}));
    assert_eq!(publish(&mut shard, Record { kind: Kind::Wanted, ..direct("a", "deploy") }), held(1));
    assert_eq!(approve(&mut shard, 1).map(|(state, _)| state), Ok(Approved));
    shard.apply(&[register_with("b", &["deploy", "test"])]);
    shard.tick();
    assert_eq!(shard.pending("b"), 1);
    // It needs none for what anybody may be asked, and is not asked without.
    assert!(publish(&mut shard, Record { kind: Kind::Wanted, ..direct("a", "test") }).is_ok());
    shard.tick();
    assert_eq!(shard.pending("b"), 1);
}

#[test]
fn promise_9_commands_come_to_the_same_however_they_are_cut() {
    let run = |together: bool| {
        let mut shard = holding();
        let batch = shard.publish_verb(&[Draft::direct("a", "b"), Draft::direct("c", "b")]);
        let verbs = [
            vec![batch],
            vec![Verb::Decide(decision(1, "lead", true))],
            vec![Verb::Decide(decision(2, "lead", false))],
        ];
        let commands: Vec<_> = verbs.iter().map(|verbs| shard.command(verbs)).collect();
        if together {
            shard.apply_chunk(&commands);
        } else {
            commands.iter().for_each(|command| drop(shard.apply_chunk(std::slice::from_ref(command))));
        }
        shard.dump()
    };
    assert_eq!(run(true), run(false));
}
