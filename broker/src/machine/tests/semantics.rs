//! What becomes of messages that are not simply taken and acknowledged: one rule, one test.

use bytes::Bytes;

use super::harness::*;
use crate::{
    batch::{Kind, Record},
    command::{Outcome, Redrive, Redriven, Verb, publish::Exception},
    machine::{dead_letter::DeadReason, events::EventKind},
    rejection::Reason,
};

fn direct<'a>(from: &'a str, to: &'a str) -> Record<'a> {
    Record { kind: Kind::Direct, priority: 5, message_type: 1, from, to, body: b"body", ..Record::default() }
}

#[test]
fn a_failed_message_comes_again_after_its_backoff_and_dies_after_its_attempts() {
    let mut shard = TestShard::with_sandboxes();
    let inbox = shard.open("b");
    shard.publish_records(&[direct("a", "b"), direct("a", "b")]);
    for attempt in 1..=5 {
        let taken = shard.take(&inbox, 1);
        assert_eq!((taken[0].attempt, sequences(&taken)), (attempt, vec![1]));
        let expected = if attempt < 5 { (1, 0) } else { (0, 1) };
        assert_eq!(shard.nack(&inbox, &taken, None), expected, "attempt {attempt}");
        assert_eq!(shard.pending("b"), if attempt < 5 { 2 } else { 1 }, "in exactly one place");
        shard.time_ms += 700 << (attempt - 1);
        shard.tick();
        // Others pass meanwhile, and go back untouched.
        let other = shard.take(&inbox, 9);
        assert_eq!(sequences(&other), [2]);
        inbox.lock().give_back(other[0].lease());
        shard.time_ms += 600 << (attempt - 1);
        shard.tick();
    }
    let letters = shard.dead_letters();
    assert_eq!((letters.len(), letters[0].reason, letters[0].history.len()), (1, DeadReason::AttemptsExhausted, 5));
    assert!(letters[0].history.is_sorted_by_key(|failed| (failed.attempt, failed.time_ms)));
    assert_eq!(shard.events().last(), Some(&EventKind::DeadLettered));
}

#[test]
fn promise_3_a_failed_message_survives_a_restart_with_its_count() {
    let mut shard = TestShard::with_sandboxes();
    shard.publish_records(&[direct("a", "b")]);
    let inbox = shard.open("b");
    let taken = shard.take(&inbox, 1);
    shard.nack(&inbox, &taken, Some(10));
    shard.restart();
    shard.time_ms += 10;
    shard.tick();
    let taken = shard.take(&shard.open("b"), 1);
    assert_eq!((taken[0].attempt, sequences(&taken)), (2, vec![1]));
}

#[test]
fn a_redrive_puts_a_dead_letter_back_once() {
    let mut shard = TestShard::with_sandboxes();
    let inbox = shard.open("b");
    shard.publish_records(&[direct("a", "b")]);
    for _ in 0..5 {
        let taken = shard.take(&inbox, 1);
        shard.nack(&inbox, &taken, Some(0));
    }
    assert_eq!(shard.dead_letters().len(), 1);
    let redrive = |to: &str| {
        Verb::Redrive(Redrive { workspace: WORKSPACE.into(), dead_letters: vec![(2, 1)], to_sandbox: to.into() })
    };
    assert_eq!(shard.apply(&[redrive("c")]), [Outcome::Redrive(Ok(Redriven { redriven: 1, skipped: 0 }))]);
    assert_eq!(shard.apply(&[redrive("c")]), [Outcome::Redrive(Ok(Redriven { redriven: 0, skipped: 0 }))]);
    let inbox = shard.open("c");
    let taken = shard.take(&inbox, 9);
    assert_eq!((taken.len(), taken[0].attempt, taken[0].message.record().body), (1, 1, b"body".as_slice()));
    shard.ack(&inbox, &taken);
    assert_eq!((shard.pending("b"), shard.pending("c"), shard.dead_letters().len()), (0, 0, 0));
}

#[test]
fn an_expired_message_is_never_delivered_and_leaves_by_itself() {
    let mut shard = TestShard::with_sandboxes();
    let short = Record { ttl_ms: 1_000, ..direct("a", "b") };
    let asked = Record { dead_letter_on_expiry: true, ..short };
    shard.publish_records(&[short, direct("a", "b"), asked, Record { kind: Kind::Broadcast, to: "", ..short }]);
    let inbox = shard.open("b");
    shard.time_ms += 1_200;
    assert_eq!(sequences(&shard.take(&inbox, 9)), [2], "before anybody has taken it out");
    shard.tick();
    assert_eq!(shard.dead_letters().iter().map(|letter| letter.reason).collect::<Vec<_>>(), [DeadReason::Expired]);
    assert_eq!(shard.reader.inbox(1, 2).unwrap().unwrap().held(), 1);
    let dropped = std::mem::take(&mut inbox.lock().dropped);
    let ack = inbox.lock().acknowledge(dropped);
    shard.apply(&[Verb::Ack(ack)]);
    assert_eq!(shard.pending("b"), 1, "the broadcast is acknowledged in its name");
}

#[test]
fn what_is_worked_on_does_not_expire() {
    let mut shard = TestShard::with_sandboxes();
    shard.publish_records(&[Record { ttl_ms: 1_000, ..direct("a", "b") }]);
    let inbox = shard.open("b");
    let taken = shard.take(&inbox, 1);
    shard.time_ms += 5_000;
    shard.tick();
    assert_eq!(shard.pending("b"), 1);
    shard.ack(&inbox, &taken);
    shard.time_ms += 20_000;
    shard.tick();
    assert_eq!(shard.pending("b"), 0);
    assert!(!shard.events().contains(&EventKind::Expired));
}

#[test]
fn a_delayed_message_comes_in_its_time_and_its_ttl_counts_from_there() {
    let mut shard = TestShard::with_sandboxes();
    let not_before_ms = shard.time_ms + 5_000;
    shard.publish_records(&[Record { not_before_ms, ttl_ms: 1_000, ..direct("a", "b") }, direct("a", "b")]);
    let inbox = shard.open("b");
    let now = shard.take(&inbox, 9);
    assert_eq!(sequences(&now), [2]);
    shard.ack(&inbox, &now);
    shard.time_ms = not_before_ms;
    shard.tick();
    let taken = shard.take(&inbox, 9);
    assert_eq!((sequences(&taken), taken[0].attempt), (vec![1], 1));
    inbox.lock().give_back(taken[0].lease());
    shard.time_ms += 1_000;
    assert!(shard.take(&inbox, 9).is_empty());
    shard.tick();
    assert_eq!(shard.pending("b"), 0);
}

#[test]
fn promise_4_while_a_message_is_retried_its_key_waits_and_others_do_not() {
    let mut shard = TestShard::with_sandboxes();
    let keyed = |ordering| Record { ordering, ..direct("a", "b") };
    shard.publish_records(&[keyed(7), keyed(7), keyed(8), keyed(0), keyed(7)]);
    let inbox = shard.open("b");
    let taken = shard.take(&inbox, 9);
    assert_eq!(sequences(&taken), [1, 3, 4], "one of each key at a time");
    shard.nack(&inbox, &taken[..1], Some(1_000));
    shard.ack(&inbox, &taken[1..]);
    assert!(shard.take(&inbox, 9).is_empty());
    // A new leader finds it so as well.
    shard.restart();
    let inbox = shard.open("b");
    assert!(shard.take(&inbox, 9).is_empty());
    shard.time_ms += 1_000;
    shard.tick();
    for expected in [1, 2, 5] {
        let taken = shard.take(&inbox, 9);
        assert_eq!(sequences(&taken), [expected]);
        shard.ack(&inbox, &taken);
    }
    assert_eq!(shard.pending("b"), 0);
}

#[test]
fn promise_2_a_producer_publishes_each_position_once() {
    let mut shard = TestShard::with_sandboxes();
    let at = |position| Record { producer: (9, position), ..direct("a", "b") };
    assert_eq!(shard.publish_records(&[at(1), at(2)]).first_sequence, 1);
    shard.restart();
    let again = shard.publish_records(&[at(1), at(2), at(3), at(5)]);
    let seen: Vec<_> = again.exceptions.iter().map(|(index, why)| (*index, why.clone())).collect();
    assert!(matches!(seen[0], (0, Exception::Duplicate { sequence: 1, .. })), "{seen:?}");
    assert!(matches!(seen[1], (1, Exception::Duplicate { sequence: 2, .. })), "{seen:?}");
    assert_eq!((seen.len(), refusal(&seen[2].1)), (3, Reason::ProducerGap));
}

#[test]
fn a_conversation_in_circles_ends_among_the_dead_letters() {
    let mut shard = TestShard::with_sandboxes();
    let say = |from, to| Record { correlation: 3, ..direct(from, to) };
    for _ in 0..8 {
        shard.publish_records(&[say("a", "b")]);
        shard.publish_records(&[say("b", "a")]);
    }
    shard.publish_records(&[say("a", "b")]);
    assert!(shard.dead_letters().is_empty());
    shard.publish_records(&[say("b", "a")]);
    let letters = shard.dead_letters();
    assert_eq!((letters.len(), letters[0].reason, letters[0].chain.len()), (1, DeadReason::Loop, 18));
    assert_eq!(shard.events().last(), Some(&EventKind::Looped));
    assert_eq!(shard.take(&shard.open("b"), 99).last().map(|item| item.message.record().hops), Some(16));
}

#[test]
fn a_response_that_is_waited_for_does_not_go_through_the_inbox_unless_it_comes_late() {
    let mut shard = TestShard::with_sandboxes();
    let ask = Record { correlation: 3, reply_timeout_ms: 1_000, digest: 1, ..direct("a", "b") };
    let answer = Record { correlation: 3, message_type: 2, ..direct("b", "a") };
    shard.publish_records(&[ask]);
    let again = shard.publish_records(&[ask]);
    assert!(matches!(again.exceptions[0].1, Exception::Duplicate { sequence: 1, .. }), "a call that is repeated");
    shard.publish_records(&[answer]);
    assert_eq!(shard.pending("a"), 0);
    let waiting = shard.reader.waiting_request((1, 1, 3)).unwrap().unwrap();
    assert_eq!(waiting.response.map(|(sequence, _)| sequence), Some(2));
    shard.publish_records(&[answer]);
    assert_eq!(shard.pending("a"), 1, "a second one is an ordinary message");
    shard.time_ms += 1_000;
    shard.tick();
    assert_eq!(shard.pending("a"), 2, "nobody took the first one in time");
    assert_eq!(shard.reader.waiting_request((1, 1, 3)).unwrap(), None);
}

#[test]
fn the_sender_of_a_message_that_requires_a_response_is_told_of_its_death() {
    let mut shard = TestShard::with_sandboxes();
    let body = prost::Message::encode_to_vec(&tandem_proto::messaging::v1::Message {
        correlation_id: "c".into(),
        ..Default::default()
    });
    shard.publish_records(&[Record { requires_response: true, ttl_ms: 1_000, body: &body, ..direct("a", "b") }]);
    shard.time_ms += 1_200;
    shard.tick();
    let told = shard.take(&shard.open("a"), 9);
    let message: tandem_proto::messaging::v1::Message = prost::Message::decode(told[0].message.record().body).unwrap();
    assert_eq!((message.correlation_id.as_str(), message.metadata["aintandem-error"].as_str()), ("c", "EXPIRED"));
    assert_eq!(told[0].message.record().from, "b");
}

#[test]
fn an_id_is_remembered_for_a_window_at_least_and_then_forgotten() {
    let mut shard = TestShard::with_sandboxes();
    let named = Record { id: "m1", digest: 1, ..direct("a", "b") };
    shard.publish_records(&[named]);
    // The window of the harness is 1,000,000 ms.
    shard.time_ms += 999_000;
    assert!(matches!(shard.publish_records(&[named]).exceptions[0].1, Exception::Duplicate { sequence: 1, .. }));
    shard.time_ms += 2_000_000;
    assert!(shard.publish_records(&[named]).exceptions.is_empty(), "a new message by now");
}

#[test]
fn ids_that_are_forgotten_leave_the_disk_and_newer_ones_do_not() {
    let mut shard = TestShard::with_sandboxes();
    let ids: Vec<String> = (0..40).map(|number| format!("m{number}")).collect();
    let named = |id| Record { id, digest: 1, ..direct("a", "b") };
    let remembered = |shard: &TestShard| -> Vec<u32> {
        let dump = shard.dump();
        let keys =
            dump.iter().filter(|(space, ..)| *space == crate::machine::keys::REMEMBERED.0).map(|(_, key, _)| key);
        keys.map(|key| u32::from_be_bytes(key[4..8].try_into().unwrap())).collect()
    };
    for id in &ids {
        shard.publish_records(&[named(id)]);
    }
    assert!(remembered(&shard).len() > 20, "all but the last lots are on the disk");
    for _ in 0..2 {
        // Two windows later, twice: what was in memory is written late, and goes with the window after.
        shard.time_ms += 2_000_000;
        for id in &ids {
            assert!(shard.publish_records(&[named(id)]).exceptions.is_empty(), "a new message by now");
        }
        shard.restart();
        for id in &ids {
            let again = shard.publish_records(&[named(id)]).exceptions;
            assert!(matches!(again[0].1, Exception::Duplicate { .. }), "{id}: {again:?}");
        }
    }
    shard.time_ms += 1_000_000;
    shard.publish_records(&[named("last")]);
    let windows = remembered(&shard);
    let newest = windows.iter().max().copied().unwrap_or_default();
    assert!(windows.iter().all(|window| window + 1 >= newest), "{windows:?}");
}

#[test]
fn a_message_waits_for_a_capability_until_somebody_has_it() {
    let mut shard = TestShard::with_sandboxes();
    let wanted = |priority| Record { kind: Kind::Wanted, priority, to: "review", ..direct("a", "") };
    shard.publish_records(&[wanted(5), wanted(9), Record { ttl_ms: 1_000, ..wanted(5) }]);
    let body = prost::Message::encode_to_vec(&tandem_proto::messaging::v1::Message {
        correlation_id: "c".into(),
        ..Default::default()
    });
    let short = Record { ttl_ms: 1_000, dead_letter_on_expiry: true, ..wanted(5) };
    let asked = Record { requires_response: true, body: &body, ..short };
    shard.publish_records(&[asked]);
    // The sender can do it too, and gets nothing of its own.
    shard.apply(&[register_with("a", &["review"])]);
    assert_eq!(shard.pending("a"), 0);
    shard.time_ms += 1_200;
    shard.tick();
    let letters = shard.dead_letters();
    assert_eq!((letters.len(), letters[0].sandbox.as_str(), letters[0].reason), (1, "", DeadReason::Expired));
    assert_eq!(shard.pending("a"), 1, "the sender is told");

    shard.restart();
    shard.apply(&[register_with("b", &["other", "review"])]);
    shard.tick();
    let inbox = shard.open("b");
    let taken = shard.take(&inbox, 9);
    assert_eq!(sequences(&taken), [2, 1], "what has expired is gone, and priority counts");
    shard.ack(&inbox, &taken);
    assert_eq!(shard.pending("b"), 0);

    // Somebody is there now: it does not wait, and with a key it goes to the same one.
    shard.apply(&[register_with("c", &["review"])]);
    let keyed = Record { ordering: 7, ..wanted(5) };
    shard.publish_records(&[keyed, keyed, keyed]);
    let got = (shard.pending("b"), shard.pending("c"));
    assert!(got == (3, 0) || got == (0, 3), "{got:?}");
    let redrive = Redrive { workspace: WORKSPACE.into(), dead_letters: vec![(0, 4)], to_sandbox: String::new() };
    assert_eq!(shard.apply(&[Verb::Redrive(redrive)]), [Outcome::Redrive(Ok(Redriven { redriven: 1, skipped: 0 }))]);
    assert_eq!(shard.pending("b") + shard.pending("c"), 4, "a dead letter of nobody goes to somebody");
}

#[test]
fn ones_own_messages_do_not_hold_back_what_others_want_done() {
    let mut shard = TestShard::with_sandboxes();
    let wanted = |from| Record { kind: Kind::Wanted, to: "review", ..direct(from, "") };
    // More of its own than one tick looks at, in front of the others.
    shard.publish_records(&[wanted("a"); 10]);
    shard.publish_records(&[wanted("b"); 10]);
    shard.apply(&[register_with("a", &["review", "test"])]);
    (0..10).for_each(|_| shard.tick());
    assert_eq!(shard.pending("a"), 10);
    let taken = shard.take(&shard.open("a"), 20);
    assert_eq!(sequences(&taken), (11..=20).collect::<Vec<_>>());
    let before = shard.dump();
    shard.tick();
    let due =
        |dump: &[(u8, Bytes, Bytes)]| dump.iter().filter(|(space, ..)| *space == crate::machine::keys::DUE.0).count();
    assert_eq!(due(&shard.dump()), due(&before), "what is left waits for somebody else, not for the next tick");
}

#[test]
fn what_waits_for_a_capability_is_given_as_far_as_there_is_room() {
    let mut shard = TestShard::with_sandboxes();
    let wanted = Record { kind: Kind::Wanted, to: "review", ..direct("a", "") };
    shard.publish_records(&[wanted; 5]);
    shard.max_inbox = 2;
    assert_eq!(refusal(&shard.publish_records(&[wanted]).exceptions[0].1), Reason::InboxFull);
    shard.apply(&[register_with("b", &["review"])]);
    shard.tick();
    assert_eq!(shard.pending("b"), 2);
    let inbox = shard.open("b");
    let taken = shard.take(&inbox, 9);
    shard.ack(&inbox, &taken);
    shard.time_ms += 1_000;
    shard.tick();
    assert_eq!(shard.pending("b"), 2);
    let taken = shard.take(&inbox, 9);
    assert_eq!(sequences(&taken), [3, 4]);
}
