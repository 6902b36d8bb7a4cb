//! The audit as a part of the state.

use bytes::Bytes;
use serde_json::json;
use tandem_storage::{Durability, Engine as _, WriteBatch};

use super::{harness::*, policy::set};
use crate::{
    audit::{GENESIS, Hash, Kind, Line, Start, anchor::Anchors, verify},
    batch::{Kind as Way, Record},
    command::{
        Attributed, CreateKey, CreateTopic, Decide, DeleteTopic, DeleteWorkspace, Note, Noted, Origin, ReportEvents,
        ReportedEvent, RevokeKey, Verb,
    },
    encoding::Field as _,
    machine::{
        audit::{MAX_RECORDS, Stored},
        events::EventKind,
        keys::{self, AUDIT, NO_WORKSPACE},
    },
    query::audit::AuditFilter,
};

/// An export of a chain, as the command makes it.
fn export(shard: &TestShard, workspace: u32) -> Vec<String> {
    let mut lines = Vec::new();
    let mut from = 0;
    loop {
        let page = shard.reader.audit_records(workspace, from, &AuditFilter::default(), 5).unwrap();
        if lines.is_empty() {
            let previous = page.previous.to_string();
            let start = Start { audit: 1, chain: WORKSPACE.into(), first: page.first, previous };
            lines.push(serde_json::to_string(&start).unwrap());
        }
        let records = page.records.iter();
        lines.extend(
            records.map(|(number, hash, record)| serde_json::to_string(&Line::new(*number, record, hash)).unwrap()),
        );
        match page.next {
            Some(next) => from = next,
            None => return lines,
        }
    }
}

fn head(shard: &TestShard, workspace: u32) -> Hash {
    shard.reader.audit_head(workspace).unwrap().hash
}

/// Kinds in a chain, oldest first.
fn kinds(shard: &TestShard, workspace: u32) -> Vec<Kind> {
    let page = shard.reader.audit_records(workspace, 0, &AuditFilter::default(), 1_000).unwrap();
    page.records.into_iter().map(|(_, _, record)| record.kind).collect()
}

fn asks(verb: Verb) -> Verb {
    let origin = Origin { by: "zoe".into(), address: "10.1.2.3:4".into(), request_id: "r-1".into() };
    Verb::Attributed(Attributed { origin, verb: Box::new(verb) })
}

fn topic(name: &str) -> Verb {
    Verb::CreateTopic(CreateTopic { workspace: WORKSPACE.into(), topic: name.into(), max_topics: 99 })
}

#[test]
fn promise_10_every_act_is_in_the_chain_with_who_did_it() {
    let mut shard = TestShard::new();
    shard.apply(&[asks(create())]);
    shard.apply(&[asks(register("a")), asks(register("b")), asks(register("b"))]);
    shard.apply(&[asks(topic("t")), asks(topic("t"))]);
    shard.apply(&[asks(Verb::DeleteTopic(DeleteTopic { workspace: WORKSPACE.into(), topic: "t".into() }))]);
    shard.publish(&[Draft::direct("a", "b"), Draft::direct("b", "a")]);
    set(&mut shard, &json!({"policy": "deny_list", "rules": [{"from": "a", "to": "b"}]}));
    shard.publish(&[Draft::direct("a", "b"), Draft::direct("b", "a"), Draft::direct("a", "b")]);
    let event = ReportedEvent { kind: EventKind::Failed, sandbox: "c".into(), text: "gone".into() };
    let report = ReportEvents { workspace: WORKSPACE.into(), events: vec![event.clone(), event] };
    shard.apply(&[asks(Verb::ReportEvents(report.clone()))]);
    shard.apply(&[asks(unregister("b"))]);
    assert_eq!(
        kinds(&shard, 1),
        [
            Kind::SandboxRegistered,
            Kind::SandboxRegistered,
            Kind::TopicCreated,
            Kind::TopicDeleted,
            Kind::BatchesCommitted,
            Kind::PolicySet,
            Kind::MessagesRefused,
            Kind::BatchesCommitted,
            Kind::EventsReported,
            Kind::SandboxUnregistered,
        ],
        "what changed nothing is no act"
    );
    assert_eq!(kinds(&shard, NO_WORKSPACE), [Kind::WorkspaceCreated]);
    let page = |filter| shard.reader.audit_records(1, 0, &filter, 100).unwrap().records;
    let zoe = page(AuditFilter { by: "zoe".into(), ..AuditFilter::default() });
    assert_eq!(zoe.len(), 6);
    let (_, _, record) = &zoe[4];
    assert_eq!((record.about.as_str(), record.count), ("c", 2));
    assert_eq!(record.digest, Hash::of(&report.to_bytes()).0[..]);
    let (number, _, record) = &zoe[0];
    assert_eq!((*number, record.about.as_str(), record.address.as_str()), (1, "a", "10.1.2.3:4"));
    assert_eq!(record.request_id, "r-1");
    let refused = page(AuditFilter { kinds: vec![Kind::MessagesRefused], ..AuditFilter::default() });
    let (_, _, record) = &refused[0];
    assert_eq!((record.by.as_str(), record.about.as_str(), record.count), ("a", "b", 2), "once for all of a batch");
    let batches = page(AuditFilter { kinds: vec![Kind::BatchesCommitted], ..AuditFilter::default() });
    assert_eq!((batches[0].2.first, batches[0].2.last, batches[0].2.count), (1, 2, 2));
    verify(export(&shard, 1), Some(head(&shard, 1)), &Anchors::default()).unwrap();
    let (first, last) = (zoe[0].2.time_ms, zoe[5].2.time_ms);
    let within = AuditFilter { start_ms: Some(first + 1), end_ms: Some(last), ..AuditFilter::default() };
    assert_eq!(page(within).len(), 7);
}

#[test]
fn the_digest_of_batches_is_that_of_the_log() {
    let mut shard = TestShard::with_sandboxes();
    shard.publish(&[Draft::direct("a", "b")]);
    shard.publish(&[Draft::direct("b", "a"), Draft::direct("x", "nobody")]);
    shard.apply(&[topic("t")]);
    let mut digest = GENESIS;
    for first in [1, 2] {
        let bytes = shard.engine.get(keys::MESSAGES, &keys::message(1, first)).unwrap().unwrap();
        digest = digest.and(&[&u64::to_be_bytes(first), &Hash::of(&bytes).0]);
    }
    let filter = AuditFilter { kinds: vec![Kind::BatchesCommitted], ..AuditFilter::default() };
    let records = shard.reader.audit_records(1, 0, &filter, 9).unwrap().records;
    assert_eq!((records.len(), records[0].2.digest.as_ref()), (1, &digest.0[..]));
}

#[test]
fn batches_get_a_record_after_some_and_after_a_while() {
    let mut shard = TestShard::with_sandboxes();
    let records =
        |shard: &TestShard| kinds(shard, 1).into_iter().filter(|kind| *kind == Kind::BatchesCommitted).count();
    for _ in 0..9 {
        shard.publish(&[Draft::direct("a", "b")]);
    }
    assert_eq!((records(&shard), shard.reader.audit_head(1).unwrap().folded), (2, 1));
    shard.time_ms += 59_000;
    shard.tick();
    assert_eq!(records(&shard), 2);
    shard.time_ms += 2_000;
    shard.tick();
    assert_eq!((records(&shard), shard.reader.audit_head(1).unwrap().folded), (3, 0));
    shard.time_ms += 120_000;
    shard.tick();
    assert_eq!(records(&shard), 3, "nothing happened");
}

#[test]
fn a_chain_goes_on_after_a_restart_and_is_bounded() {
    let mut shard = TestShard::with_sandboxes();
    for number in 0..40 {
        shard.apply(&[topic(&format!("t{number}"))]);
        if number % 7 == 0 {
            shard.restart();
        }
    }
    let lines = export(&shard, 1);
    let seen = verify(&lines, Some(head(&shard, 1)), &Anchors::default()).unwrap();
    assert_eq!(seen.last, 43);
    assert_eq!(lines.len() as u64, MAX_RECORDS, "the oldest that is kept has nothing before it to be linked to");
    let start: Start = serde_json::from_str(&lines[0]).unwrap();
    assert_eq!((start.first, seen.first), (29, 29));
}

#[test]
fn promise_10_a_record_that_is_edited_dropped_or_moved_in_the_state_is_found() {
    let mut shard = TestShard::with_sandboxes();
    for number in 0..8 {
        shard.apply(&[topic(&format!("t{number}"))]);
    }
    let head = head(&shard, 1);
    verify(export(&shard, 1), Some(head), &Anchors::default()).unwrap();
    let stored = |number| shard.engine.get(AUDIT, &keys::audit(1, number)).unwrap().unwrap();
    let tampered = |change: &dyn Fn(&mut WriteBatch)| {
        let before: Vec<_> = (1..=11).map(|number| (keys::audit(1, number), stored(number))).collect();
        let mut writes = WriteBatch::new();
        change(&mut writes);
        shard.engine.write(writes, Durability::Deferred).unwrap();
        let seen = verify(export(&shard, 1), Some(head), &Anchors::default());
        let mut writes = WriteBatch::new();
        before.into_iter().for_each(|(key, value)| writes.put(AUDIT, key, value));
        shard.engine.write(writes, Durability::Deferred).unwrap();
        seen
    };
    for number in 1..=11 {
        let mut record = Stored::from_bytes(stored(number), "record").unwrap();
        record.record.by = "somebody else".into();
        let edited = tampered(&|writes| writes.put(AUDIT, keys::audit(1, number), record.to_bytes()));
        assert!(edited.is_err(), "record {number} was edited");
        let dropped = tampered(&|writes| writes.delete(AUDIT, keys::audit(1, number)));
        assert!(dropped.is_err(), "record {number} was dropped");
        let other = if number == 11 { 1 } else { number + 1 };
        let (one, two) = (stored(number), stored(other));
        let moved = tampered(&|writes| {
            writes.put(AUDIT, keys::audit(1, number), two.clone());
            writes.put(AUDIT, keys::audit(1, other), one.clone());
        });
        assert!(moved.is_err(), "record {number} was moved");
    }
    assert!(tampered(&|_| ()).is_ok());
}

#[test]
fn a_workspace_that_is_gone_leaves_the_head_of_its_chain() {
    let mut shard = TestShard::with_sandboxes();
    shard.publish(&[Draft::direct("a", "b")]);
    shard.apply(&[asks(topic("t"))]);
    let last = shard.reader.audit_head(1).unwrap();
    shard.apply(&[asks(Verb::DeleteWorkspace(DeleteWorkspace { workspace: WORKSPACE.into() }))]);
    assert!(kinds(&shard, 1).is_empty());
    let records = shard.reader.audit_records(NO_WORKSPACE, 0, &AuditFilter::default(), 9).unwrap().records;
    let (_, _, gone) = records.last().unwrap();
    assert_eq!((gone.kind, gone.by.as_str(), gone.about.as_str()), (Kind::WorkspaceDeleted, "zoe", WORKSPACE));
    assert_eq!((gone.digest.as_ref(), gone.first), (&last.hash.0[..], last.number));
    // One of the same name begins anew.
    shard.apply(&[create()]);
    shard.apply(&[register("a")]);
    assert_eq!(kinds(&shard, 2), [Kind::SandboxRegistered]);
    shard.time_ms += 100_000;
    shard.tick();
    assert!(kinds(&shard, 1).is_empty(), "what was due of the old one says nothing any more");
}

#[test]
fn keys_approvals_and_notes_of_the_edge_are_there() {
    let mut shard = TestShard::with_sandboxes();
    let key = CreateKey {
        id: 7,
        hash: Bytes::from_static(b"planted secret hash"),
        subject: "ci".into(),
        roles: 1,
        workspace: String::new(),
        sandbox: String::new(),
        expires_ms: 0,
        by: "zoe".into(),
        max_keys: 9,
    };
    shard.apply(&[asks(Verb::CreateKey(key))]);
    shard.apply(&[asks(Verb::RevokeKey(RevokeKey { id: 7, workspace: String::new() }))]);
    let noted = Noted {
        kind: Kind::AuthenticationFailed,
        origin: Origin { address: "10.0.0.9:1".into(), ..Origin::default() },
        about: "Publish".into(),
        count: 41,
        text: Bytes::from_static(b"TOKEN_INVALID: no"),
    };
    for workspace in ["", "no such workspace", WORKSPACE] {
        shard.apply(&[Verb::Note(Note { workspace: workspace.into(), entries: vec![noted.clone()] })]);
    }
    let failed = Kind::AuthenticationFailed;
    let at_shard = [Kind::WorkspaceCreated, Kind::KeyCreated, Kind::KeyRevoked, failed, failed];
    assert_eq!(kinds(&shard, NO_WORKSPACE), at_shard);
    assert_eq!(kinds(&shard, 1)[3..], [failed]);
    let whole = export(&shard, NO_WORKSPACE).join("\n");
    assert!(!whole.contains("planted"), "{whole}");

    let hold = json!({"policy": "deny_list", "rules": [{"from": "a", "to": "b", "approval_required": true}]});
    set(&mut shard, &hold);
    let message =
        Record { kind: Way::Direct, priority: 5, from: "a", to: "b", body: b"\x3a\x01x", ..Record::default() };
    shard.publish_records(&[message, message]);
    let decide = |number, approve| {
        let comment = Bytes::from_static(b"why not");
        let (by, sandbox) = ("lead".into(), String::new());
        asks(Verb::Decide(Decide { workspace: WORKSPACE.into(), number, approve, comment, by, sandbox }))
    };
    shard.apply(&[decide(1, true)]);
    shard.apply(&[decide(1, true)]);
    shard.apply(&[decide(2, false)]);
    assert_eq!(
        kinds(&shard, 1)[4..],
        [
            Kind::PolicySet,
            Kind::MessageHeld,
            Kind::MessageHeld,
            Kind::BatchesCommitted,
            Kind::MessageApproved,
            Kind::ApprovalEnded,
            Kind::BatchesCommitted,
            Kind::MessageDenied,
            Kind::ApprovalEnded,
        ]
    );
    verify(export(&shard, 1), Some(head(&shard, 1)), &Anchors::default()).unwrap();
}

#[test]
fn dead_letters_and_what_becomes_of_them_are_there() {
    let mut shard = TestShard::with_sandboxes();
    let inbox = shard.open("b");
    for _ in 0..2 {
        shard.publish(&[Draft::direct("a", "b")]);
        let items = shard.take(&inbox, 1);
        let nack = failing(&inbox, &items, None, true);
        shard.apply(&[Verb::Nack(nack)]);
    }
    let last = |shard: &TestShard| {
        let page = shard.reader.audit_records(1, 0, &AuditFilter::default(), 99).unwrap();
        page.records
            .last()
            .map(|(_, _, record)| (record.kind, record.about.clone(), record.first, record.count))
            .unwrap()
    };
    assert_eq!(last(&shard), (Kind::DeadLettered, "b".into(), 2, 1));
    shard.apply(&[asks(redrive(&inbox, 1))]);
    assert_eq!(last(&shard), (Kind::DeadLettersRedriven, String::new(), 0, 1));
    let purge = Verb::Purge(crate::command::Purge { workspace: WORKSPACE.into(), dead_letters: vec![(2, 2), (2, 9)] });
    shard.apply(&[asks(purge.clone())]);
    assert_eq!(last(&shard), (Kind::DeadLettersPurged, String::new(), 0, 1));
    shard.apply(&[asks(purge)]);
    assert_eq!(shard.reader.audit_head(1).unwrap().number, 9, "there was nothing left to purge");
}

#[test]
fn noise_of_one_is_folded_and_hides_nobody() {
    let mut shard = TestShard::with_sandboxes();
    set(&mut shard, &json!({"policy": "allow_list", "rules": []}));
    for _ in 0..10 {
        shard.publish(&[Draft::direct("a", "b"), Draft::direct("a", "b")]);
    }
    shard.publish(&[Draft::direct("b", "a")]);
    let acts = |shard: &TestShard, kind| {
        let filter = AuditFilter { kinds: vec![kind], ..AuditFilter::default() };
        let records = shard.reader.audit_records(1, 0, &filter, 99).unwrap().records;
        records.into_iter().map(|(_, _, record)| (record.by, record.count, record.digest)).collect::<Vec<_>>()
    };
    let told: Vec<_> = acts(&shard, Kind::MessagesRefused).into_iter().map(|(by, count, _)| (by, count)).collect();
    assert_eq!(told, [("a".to_owned(), 2), ("a".to_owned(), 2), ("b".to_owned(), 1)]);
    assert!(acts(&shard, Kind::ActsFolded).is_empty());
    shard.time_ms += 60_000;
    shard.tick();
    let folded = acts(&shard, Kind::ActsFolded);
    assert_eq!((folded.len(), folded[0].1), (1, 16), "eight commands with two messages each");
    assert_ne!(folded[0].2.as_ref(), GENESIS.0);
    // Another minute, another word.
    shard.publish(&[Draft::direct("a", "b")]);
    assert_eq!(acts(&shard, Kind::MessagesRefused).len(), 4);
    shard.time_ms += 120_000;
    shard.tick();
    assert_eq!(acts(&shard, Kind::ActsFolded).len(), 1, "what is alone is not folded as well");
    verify(export(&shard, 1), Some(head(&shard, 1)), &Anchors::default()).unwrap();
}
