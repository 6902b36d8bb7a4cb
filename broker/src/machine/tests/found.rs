//! What random histories have found, each as short as it gets.

use super::harness::*;
use crate::{
    batch::{Kind, Record},
    command::{CreateTopic, FollowTopics, Outcome, Redrive, Replay, Replayed, Unregistered, Verb},
    machine::keys,
};

fn direct<'a>(from: &'a str, to: &'a str) -> Record<'a> {
    Record { kind: Kind::Direct, priority: 5, message_type: 1, from, to, body: b"body", ..Record::default() }
}

fn topic() -> [Verb; 2] {
    let workspace = || WORKSPACE.to_owned();
    [
        Verb::CreateTopic(CreateTopic { workspace: workspace(), topic: "t".into(), max_topics: 9 }),
        Verb::FollowTopics(FollowTopics {
            workspace: workspace(),
            sandbox: "b".into(),
            pattern: "t".into(),
            from_sequence: None,
            max_follows: 9,
        }),
    ]
}

#[test]
fn a_late_response_whose_ttl_is_over_expires() {
    let mut shard = TestShard::with_sandboxes();
    shard.publish_records(&[Record { correlation: 3, reply_timeout_ms: 5_000, ..direct("a", "b") }]);
    shard.publish_records(&[Record { correlation: 3, message_type: 2, ttl_ms: 1_000, ..direct("b", "a") }]);
    shard.time_ms += 6_000;
    shard.tick();
    shard.tick();
    assert_eq!(shard.pending("a"), 0, "it must not wait for ever");
}

#[test]
fn a_response_that_is_waited_for_needs_no_room_in_the_inbox() {
    let mut shard = TestShard::with_sandboxes();
    shard.max_inbox = 1;
    shard.publish_records(&[direct("b", "a"), Record { correlation: 3, reply_timeout_ms: 5_000, ..direct("a", "b") }]);
    let answer = shard.publish_records(&[Record { correlation: 3, message_type: 2, ..direct("b", "a") }]);
    assert!(answer.exceptions.is_empty(), "{:?}", answer.exceptions);
}

#[test]
fn a_response_that_is_waited_for_tells_its_hops() {
    let mut shard = TestShard::with_sandboxes();
    shard.publish_records(&[Record { correlation: 3, reply_timeout_ms: 5_000, ..direct("a", "b") }]);
    shard.publish_records(&[Record { correlation: 3, message_type: 2, ..direct("b", "a") }]);
    shard.time_ms += 6_000;
    shard.tick();
    assert_eq!(shard.take(&shard.open("a"), 9)[0].message.record().hops, 1);
}

#[test]
fn a_retry_that_expires_dies_with_its_attempts() {
    let mut shard = TestShard::with_sandboxes();
    shard.publish_records(&[Record { ttl_ms: 1_000, dead_letter_on_expiry: true, ..direct("a", "b") }]);
    let inbox = shard.open("b");
    let taken = shard.take(&inbox, 1);
    shard.nack(&inbox, &taken, Some(5_000));
    shard.time_ms += 1_500;
    shard.tick();
    assert_eq!(shard.dead_letters()[0].history.len(), 1);
}

#[test]
fn two_copies_of_a_message_fail_as_one() {
    let mut shard = TestShard::with_sandboxes();
    shard.publish_records(&[Record { kind: Kind::Broadcast, to: "", ..direct("a", "") }]);
    let inbox = shard.open("b");
    for _ in 0..5 {
        let taken = shard.take(&inbox, 1);
        shard.nack(&inbox, &taken, Some(0));
    }
    let redrive = Redrive { workspace: WORKSPACE.into(), dead_letters: vec![(2, 1)], to_sandbox: "c".into() };
    shard.apply(&[Verb::Redrive(redrive)]);
    let inbox = shard.open("c");
    let taken = shard.take(&inbox, 9);
    assert_eq!(sequences(&taken), [1, 1], "the broadcast and what was redriven");
    shard.nack(&inbox, &taken[..1], Some(0));
    let counters = shard.reader.inbox(1, 3).unwrap().unwrap().counters;
    assert_eq!((counters.parked, counters.bytes), (1, 4));
}

#[test]
fn an_unregistered_follower_gives_up_what_waits_in_topics() {
    let mut shard = TestShard::with_sandboxes();
    shard.apply(&topic());
    shard.publish_records(&[Record { kind: Kind::Topic, ..direct("a", "t") }, direct("a", "b")]);
    let outcome = shard.apply(&[unregister("b")]);
    assert_eq!(outcome, [Outcome::UnregisterSandbox(Ok(Unregistered { abandoned: 2 }))]);
}

#[test]
fn promise_9_a_follower_from_the_past_counts_the_same_in_one_batch_of_writes() {
    let commands = |shard: &mut TestShard| {
        let [create, follow] = topic();
        let Verb::FollowTopics(follow) = follow else { panic!("a follow") };
        let mut batch = bytes::BytesMut::new();
        crate::batch::encode_header(shard.time_ms, 2, &mut batch);
        let message = Record { kind: Kind::Topic, ..direct("a", "t") };
        (0..2).for_each(|_| message.encode(&mut batch));
        let publish = crate::command::Publish { workspace: WORKSPACE.into(), batch: batch.freeze() };
        let late = Verb::FollowTopics(FollowTopics { from_sequence: Some(2), ..follow });
        [create, Verb::Publish(publish), late].map(|verb| shard.command(&[verb]))
    };
    let (mut one, mut other) = (TestShard::with_sandboxes(), TestShard::with_sandboxes());
    let log = commands(&mut one);
    commands(&mut other);
    log.iter().for_each(|command| drop(one.apply_chunk(std::slice::from_ref(command))));
    other.apply_chunk(&log);
    assert!(one.dump() == other.dump(), "the same log gives the same bytes");
    assert_eq!(other.pending("b"), 1);
}

#[test]
fn a_replay_passes_over_what_waits_also_when_the_inbox_is_full() {
    let mut shard = TestShard::with_sandboxes();
    shard.publish_records(&[direct("a", "c")]);
    let message = shard.reader.batch_holding(1, 1).unwrap().unwrap().alone(0);
    let replay = || {
        let messages = vec![(1, message.clone())];
        Verb::Replay(Replay { workspace: WORKSPACE.into(), sandbox: "b".into(), messages })
    };
    shard.max_inbox = 1;
    assert_eq!(shard.apply(&[replay()]), [Outcome::Replay(Ok(Replayed { replayed: 1 }))]);
    assert_eq!(shard.apply(&[replay()]), [Outcome::Replay(Ok(Replayed { replayed: 0 }))]);
}

#[test]
fn what_waits_in_a_lane_is_known_to_a_replay() {
    let mut shard = TestShard::with_sandboxes();
    shard.publish_records(&[direct("a", "b"), Record { not_before_ms: u64::MAX / 2, ..direct("a", "b") }]);
    let workspace = shard.reader.workspace(WORKSPACE).map_err(|error| error.to_string()).unwrap();
    let batch = std::sync::Arc::new(shard.reader.batch(1, 1).unwrap().unwrap());
    let held = |sandbox: &str| {
        let lanes = shard.reader.lanes(&workspace, sandbox).map_err(|error| error.to_string()).unwrap();
        [0, 1].map(|index| lanes.hold(&crate::batch::MessageRef { batch: batch.clone(), index }).unwrap())
    };
    assert_eq!((held("b"), held("c")), ([true, false], [false, false]));
    let run = keys::run(1, 2, 5, 1);
    assert!(shard.dump().iter().any(|(_, key, _)| *key == run));
}

#[test]
fn an_own_message_of_a_topic_that_is_passed_by_does_not_free_its_key() {
    let mut shard = TestShard::with_sandboxes();
    shard.apply(&topic());
    let keyed = |to| Record { ordering: 7, ..direct("b", to) };
    shard.publish_records(&[Record { kind: Kind::Topic, ..keyed("t") }]);
    let message = shard.reader.batch_holding(1, 1).unwrap().unwrap().alone(0);
    let messages = vec![(1, message)];
    shard.apply(&[Verb::Replay(Replay { workspace: WORKSPACE.into(), sandbox: "b".into(), messages })]);
    shard.publish_records(&[keyed("b")]);
    let inbox = shard.open("b");
    assert_eq!(sequences(&shard.take(&inbox, 9)), [1], "one of a key at a time");
    let dropped = std::mem::take(&mut inbox.lock().dropped);
    shard.ack_leases(&inbox, dropped);
    assert!(shard.take(&inbox, 9).is_empty(), "also once the own one is acknowledged in the name of the reader");
}
