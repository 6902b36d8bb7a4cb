//! One rule, one test.

use super::harness::*;
use crate::{
    command::{
        Acked, CreateWorkspace, DeleteWorkspace, Heartbeat, Outcome, Registered, Unregistered, Verb, publish::Exception,
    },
    machine::keys,
    rejection::Reason,
};
use tandem_storage::Space;

#[test]
fn sequences_follow_positions_and_refused_messages_leave_their_places_empty() {
    let mut shard = TestShard::with_sandboxes();
    let published = shard.publish(&[
        Draft::direct("a", "b"),
        Draft::direct("a", "nobody"),
        Draft::direct("stranger", "b"),
        Draft::direct("a", "c"),
    ]);
    assert_eq!(published.first_sequence, 1);
    let reasons: Vec<_> = published.exceptions.iter().map(|(index, why)| (*index, refusal(why))).collect();
    assert_eq!(reasons, [(1, Reason::UnknownSandbox), (2, Reason::UnknownSandbox)]);
    assert_eq!(sequences(&take(&shard.open("b"), 10)), [1]);
    assert_eq!(sequences(&take(&shard.open("c"), 10)), [4]);
    assert_eq!(shard.publish(&[Draft::direct("a", "b")]).first_sequence, 5);
}

#[test]
fn a_batch_of_which_nothing_is_good_leaves_no_trace() {
    let mut shard = TestShard::with_sandboxes();
    let before = shard.dump();
    shard.publish(&[Draft::direct("a", "nobody")]);
    let changed: Vec<_> = shard.dump().into_iter().filter(|pair| !before.contains(pair)).collect();
    assert!(changed.iter().all(|(_, key, _)| *key == keys::shard()), "{changed:?}");
}

#[test]
fn higher_priority_comes_first_and_commit_order_within() {
    let mut shard = TestShard::with_sandboxes();
    for priority in [0, 5, 9, 5, 0, 9] {
        shard.publish(&[Draft { priority, ..Draft::direct("a", "b") }]);
    }
    shard.publish(&[Draft { to: None, priority: 5, ..Draft::direct("a", "") }]);
    assert_eq!(sequences(&take(&shard.open("b"), 10)), [3, 6, 2, 4, 7, 1, 5]);
}

#[test]
fn promise_4_a_load_shows_no_more_of_the_log_than_has_been_pushed() {
    let mut shard = TestShard::with_sandboxes();
    let inbox = shard.open("b");
    // The direct lane of this priority is complete now, those of broadcasts may still have to be loaded.
    assert!(take(&inbox, 10).is_empty());
    let verb = shard.publish_verb(&[Draft::direct("a", "b"), Draft { to: None, ..Draft::direct("a", "") }]);
    let command = shard.command(&[verb]);
    let other = shard.open("c");
    let (_, effects) = shard.apply_unpushed(&[command]);
    assert!(take(&inbox, 10).is_empty(), "the broadcast must not overtake the message before it");
    assert!(take(&other, 10).is_empty());
    shard.delivery.effects(effects.into_iter());
    assert_eq!(sequences(&take(&inbox, 10)), [1, 2]);
    assert_eq!(sequences(&take(&other, 10)), [2]);
}

#[test]
fn who_only_speaks_has_nothing_to_read() {
    let mut shard = TestShard::with_sandboxes();
    for _ in 0..3 {
        shard.publish(&[Draft { to: None, ..Draft::direct("a", "") }, Draft { to: None, ..Draft::direct("a", "") }]);
    }
    let state = shard.reader.inbox(1, 1).unwrap().unwrap();
    let lane = crate::command::Lane { source: crate::command::Source::Broadcast, priority: 5 };
    assert_eq!((state.cursor(lane).unwrap().floor, shard.pending("a")), (6, 0));
    shard.publish(&[Draft { to: None, ..Draft::direct("b", "") }]);
    assert_eq!(sequences(&take(&shard.open("a"), 10)), [7]);
}

#[test]
fn a_broadcast_reaches_everybody_who_is_there_but_the_sender() {
    let mut shard = TestShard::with_sandboxes();
    shard.publish(&[Draft { to: None, ..Draft::direct("a", "") }]);
    shard.apply(&[register("late")]);
    shard.publish(&[Draft { to: None, ..Draft::direct("b", "") }]);
    let got = |sandbox: &str| sequences(&take(&shard.open(sandbox), 10));
    assert_eq!((got("a"), got("b"), got("c"), got("late")), (vec![2], vec![1], vec![1, 2], vec![2]));
    assert_eq!(["a", "b", "c", "late"].map(|sandbox| shard.pending(sandbox)), [1, 1, 2, 1]);
    let runs = shard.dump().into_iter().filter(|(space, ..)| Space(*space) == keys::RUNS).count();
    assert_eq!(runs, 2, "written once, whatever the number of followers");
}

#[test]
fn the_same_message_id_is_published_once() {
    let mut shard = TestShard::with_sandboxes();
    let first = Draft { id: "m1", ..Draft::direct("a", "b") };
    assert!(shard.publish(&[first]).exceptions.is_empty());
    let again = shard.publish(&[first, Draft { id: "m2", ..first }, Draft { id: "m2", ..first }]);
    let time_ms = shard.time_ms;
    assert_eq!(again.exceptions[0], (0, Exception::Duplicate { sequence: 1, time_ms: time_ms - 1 }));
    assert_eq!(again.exceptions[1], (2, Exception::Duplicate { sequence: 3, time_ms }));
    shard.restart();
    let other = shard.publish(&[Draft { body: "another", ..first }]);
    assert_eq!(refusal(&other.exceptions[0].1), Reason::MessageIdReused);
    assert_eq!(sequences(&take(&shard.open("b"), 10)), [1, 3]);
}

#[test]
fn a_full_inbox_refuses_and_others_go_through() {
    let mut shard = TestShard::with_sandboxes();
    shard.max_inbox = 2;
    let published = shard.publish(&[
        Draft::direct("a", "b"),
        Draft::direct("a", "b"),
        Draft::direct("a", "b"),
        Draft::direct("a", "c"),
    ]);
    assert_eq!(published.exceptions.len(), 1);
    assert_eq!(refusal(&published.exceptions[0].1), Reason::InboxFull);
    let inbox = shard.open("b");
    let taken = take(&inbox, 1);
    let ack = inbox.lock().acknowledge(leases(&taken));
    shard.apply(&[Verb::Ack(ack)]);
    assert!(shard.publish(&[Draft::direct("a", "b")]).exceptions.is_empty(), "an ack makes room");
}

#[test]
fn acks_take_messages_out_and_runs_away() {
    let mut shard = TestShard::with_sandboxes();
    shard.publish(&[Draft::direct("a", "b"), Draft::direct("a", "c"), Draft::direct("a", "b")]);
    shard.publish(&[Draft::direct("a", "b")]);
    let inbox = shard.open("b");
    let mut taken = take(&inbox, 10);
    let last = taken.pop().unwrap();
    let ack = inbox.lock().acknowledge(leases(&[last]));
    assert_eq!(shard.apply(&[Verb::Ack(ack.clone())]), [Outcome::Ack(Ok(Acked { count: 1 }))]);
    assert_eq!(
        shard.apply(&[Verb::Ack(ack)]),
        [Outcome::Ack(Ok(Acked { count: 0 }))],
        "a repeated ack changes nothing"
    );
    assert_eq!(shard.pending("b"), 2);
    let ack = inbox.lock().acknowledge(leases(&taken));
    shard.apply(&[Verb::Ack(ack)]);
    assert_eq!(shard.pending("b"), 0);
    let (from, to) = keys::runs_of(1, 2);
    let left =
        shard.dump().into_iter().filter(|(space, key, _)| Space(*space) == keys::RUNS && *key >= from && *key < to);
    assert_eq!(left.count(), 0);
}

#[test]
fn a_sandbox_that_comes_again_is_another_one() {
    let mut shard = TestShard::with_sandboxes();
    shard.publish(&[Draft::direct("a", "b"), Draft::direct("a", "b")]);
    let inbox = shard.open("b");
    let taken = take(&inbox, 1);
    let ack = inbox.lock().acknowledge(leases(&taken));
    let outcomes = shard.apply(&[unregister("b"), Verb::Ack(ack), register("b")]);
    assert_eq!(outcomes[0], Outcome::UnregisterSandbox(Ok(Unregistered { abandoned: 2 })));
    assert!(matches!(&outcomes[1], Outcome::Ack(Err(rejection)) if rejection.reason == Reason::LeaseLost));
    assert_eq!(outcomes[2], Outcome::RegisterSandbox(Ok(Registered { created: true })));
    assert!(inbox.lock().ended.is_some(), "streams of the old one end");
    shard.publish(&[Draft::direct("a", "b")]);
    assert_eq!(sequences(&take(&shard.open("b"), 10)), [3], "what the old one left is not for the new one");
}

#[test]
fn limits_and_unknown_names_are_refused() {
    let mut shard = TestShard::new();
    let reason = |outcomes: Vec<Outcome>| match outcomes.into_iter().next() {
        Some(
            Outcome::RegisterSandbox(Err(rejection))
            | Outcome::Heartbeat(Err(rejection))
            | Outcome::UnregisterSandbox(Err(rejection))
            | Outcome::CreateWorkspace(Err(rejection))
            | Outcome::DeleteWorkspace(Err(rejection))
            | Outcome::Publish(Err(rejection)),
        ) => rejection.reason,
        other => panic!("{other:?}"),
    };
    let heartbeat = || Verb::Heartbeat(Heartbeat { workspace: WORKSPACE.into(), sandbox: "x".into() });
    let delete = || Verb::DeleteWorkspace(DeleteWorkspace { workspace: WORKSPACE.into() });
    for verb in [register("a"), unregister("a"), heartbeat(), delete(), shard.publish_verb(&[Draft::direct("a", "b")])]
    {
        assert_eq!(reason(shard.apply(&[verb])), Reason::UnknownWorkspace);
    }
    shard.apply(&[create()]);
    assert_eq!(reason(shard.apply(&[create()])), Reason::WorkspaceExists);
    assert_eq!(reason(shard.apply(&[heartbeat()])), Reason::UnknownSandbox);
    assert_eq!(reason(shard.apply(&[unregister("x")])), Reason::UnknownSandbox);
    shard.apply(&["a", "b", "c", "d"].map(register));
    assert_eq!(reason(shard.apply(&[register("e")])), Reason::TooManySandboxes);
    let other = |name: &str| {
        Verb::CreateWorkspace(CreateWorkspace {
            workspace: name.into(),
            max_workspaces: 2,
            settings: Default::default(),
        })
    };
    shard.apply(&[other("w2")]);
    assert_eq!(reason(shard.apply(&[other("w3")])), Reason::TooManyWorkspaces);
}

#[test]
fn a_deleted_workspace_leaves_only_what_is_of_the_shard() {
    let mut shard = TestShard::with_sandboxes();
    shard.publish(&[Draft { id: "m1", ..Draft::direct("a", "b") }, Draft { to: None, ..Draft::direct("a", "") }]);
    shard.apply(&[Verb::DeleteWorkspace(DeleteWorkspace { workspace: WORKSPACE.into() })]);
    // What is due is passed over when its time comes.
    shard.time_ms += 2_000_000;
    shard.tick();
    let of_the_shard = [keys::shard(), keys::audit_head(0), keys::audit(0, 1), keys::audit(0, 2)];
    assert_eq!(shard.dump().iter().map(|(_, key, _)| key.clone()).collect::<Vec<_>>(), of_the_shard);
    let outcomes = shard.apply(&[create(), register("a"), register("b")]);
    assert_eq!(outcomes[1], Outcome::RegisterSandbox(Ok(Registered { created: true })));
    assert_eq!(shard.publish(&[Draft { id: "m1", ..Draft::direct("a", "b") }]).first_sequence, 1);
}

#[test]
fn time_never_runs_backwards() {
    let mut shard = TestShard::with_sandboxes();
    shard.time_ms = 500;
    shard.apply(&[Verb::Heartbeat(Heartbeat { workspace: WORKSPACE.into(), sandbox: "a".into() })]);
    assert!(shard.reader.time_ms().unwrap() >= 1_001);
}
