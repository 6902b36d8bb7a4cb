//! What a subscription may still say when its inbox has ended.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Wake, Waker},
};

use bytes::Bytes;
use futures_util::FutureExt as _;

use super::harness::*;
use crate::{
    batch::{Kind, Record},
    clock,
    command::{Outcome, Verb, nack::AttemptError},
    config::Limits,
    delivery::{
        inbox::Ended,
        subscription::{Failure, Subscription, SubscriptionOptions},
    },
    leader_time::LeaderTime,
    rejection::Reason,
};

fn subscribe(shard: &TestShard, sandbox: &str) -> Subscription {
    subscribe_at(shard, sandbox, 0)
}

/// `newest_ms`: the time of the shard; that of the clock when this is later.
fn subscribe_at(shard: &TestShard, sandbox: &str, newest_ms: u64) -> Subscription {
    let options = SubscriptionOptions { ack_deadline_ms: 30_000, lenient: false, low_priority_percent: 0 };
    let parts = (Arc::clone(&shard.delivery), Arc::new(LeaderTime::new(newest_ms)));
    let opened = Subscription::open(parts, WORKSPACE, sandbox, Limits::default(), options, 1);
    let mut subscription = opened.map_err(|error| error.to_string()).unwrap();
    subscription.add_credit(100, 1 << 20).unwrap();
    subscription
}

fn receive(subscription: &mut Subscription) -> u64 {
    match subscription.next(Waker::noop()).unwrap() {
        Some(_) => subscription.last_batch_len(),
        None => 0,
    }
}

fn broadcasts(shard: &mut TestShard, count: usize) {
    let broadcast =
        Record { kind: Kind::Broadcast, priority: 5, message_type: 1, from: "a", body: b"body", ..Record::default() };
    shard.publish_records(&vec![broadcast; count]);
}

#[test]
fn promise_5_an_ended_inbox_takes_no_acks_of_its_leases() {
    let mut shard = TestShard::with_sandboxes();
    broadcasts(&mut shard, 4);
    for why in [Ended::FollowsChanged, Ended::AckFailed, Ended::LeaderChanged] {
        let mut old = subscribe(&shard, "b");
        assert_eq!(receive(&mut old), 4);
        shard.open("b").lock().end(why.clone());
        let mut new = subscribe(&shard, "b");
        assert_eq!(receive(&mut new), 4, "{why:?}: the messages come again");

        let (ack, refused) = old.acknowledge(&[(1, 2), (4, 4)]);
        assert!(ack.is_none(), "{why:?}: somebody else holds the lease");
        let reasons: Vec<_> = refused.iter().map(|(first, last, text)| (*first, *last, text.reason)).collect();
        assert_eq!(reasons, [(1, 2, Reason::LeaseLost), (4, 4, Reason::LeaseLost)]);
        let how = Failure { error: AttemptError::Nacked, text: Bytes::new(), delay_ms: None, dead_letter: false };
        let (nacks, refused) = old.refuse(&[(3, 3)], how);
        assert_eq!((nacks.len(), refused.len(), refused[0].2.reason), (0, 1, Reason::LeaseLost));
        assert!(old.dropped().is_none());
    }
    let mut last = subscribe(&shard, "b");
    assert_eq!(receive(&mut last), 4);
    let (ack, refused) = last.acknowledge(&[(1, 4)]);
    assert!(refused.is_empty());
    let outcome = shard.apply(&[Verb::Ack(ack.unwrap())]).remove(0);
    assert!(matches!(outcome, Outcome::Ack(Ok(acked)) if acked.count == 4), "{outcome:?}");
    assert_eq!(shard.pending("b"), 0);
}

#[test]
fn a_node_that_stops_still_takes_acks() {
    let mut shard = TestShard::with_sandboxes();
    broadcasts(&mut shard, 2);
    let mut subscription = subscribe(&shard, "b");
    assert_eq!(receive(&mut subscription), 2);
    shard.delivery.shut_down();
    let (ack, refused) = subscription.acknowledge(&[(1, 2)]);
    assert!(refused.is_empty());
    shard.apply(&[Verb::Ack(ack.unwrap())]);
    assert_eq!(shard.pending("b"), 0);
}

#[test]
fn a_ttl_ends_in_the_time_of_the_shard_which_may_be_ahead_of_the_clock() {
    const HOUR_MS: u64 = 3_600_000;
    let mut shard = TestShard::with_sandboxes();
    // The clock of an earlier leader was ahead.
    shard.time_ms = clock::unix_ms() + HOUR_MS;
    let direct = |ttl_ms| Record {
        kind: Kind::Direct,
        priority: 5,
        message_type: 1,
        from: "a",
        to: "b",
        ttl_ms,
        body: b"body",
        ..Record::default()
    };
    shard.publish_records(&[direct(1_000), direct(0)]);
    assert_eq!(receive(&mut subscribe_at(&shard, "b", shard.time_ms)), 2);
    let later = shard.time_ms + 2_000;
    assert_eq!(receive(&mut subscribe_at(&shard, "b", later)), 1, "what has expired is not delivered");
}

fn keyed(shard: &mut TestShard, keys: &[u64]) {
    let direct = |ordering: &u64| Record {
        kind: Kind::Direct,
        priority: 5,
        message_type: 1,
        from: "a",
        to: "b",
        ordering: *ordering,
        body: b"body",
        ..Record::default()
    };
    let records: Vec<_> = keys.iter().map(direct).collect();
    shard.publish_records(&records);
}

/// Notices that it was woken.
#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn nothing_is_lent_while_the_lease_of_the_leader_does_not_hold() {
    let mut shard = TestShard::with_sandboxes();
    let holds = Arc::new(AtomicBool::new(true));
    let seen = Arc::clone(&holds);
    shard.delivery.lend_only_while(Box::new(move |term| term == 7 && seen.load(Ordering::Relaxed)));
    shard.delivery.begin(7);
    broadcasts(&mut shard, 2);
    let mut subscription = subscribe(&shard, "b");
    holds.store(false, Ordering::Relaxed);
    let woken = Arc::new(Woken::default());
    assert!(subscription.next(&Waker::from(Arc::clone(&woken))).unwrap().is_none());
    assert!(shard.delivery.held_back().now_or_never().is_some(), "whoever watches the lease is told");
    shard.delivery.go_on();
    assert!(woken.0.load(Ordering::Relaxed));
    assert_eq!(receive(&mut subscription), 0, "it does not hold yet");
    holds.store(true, Ordering::Relaxed);
    assert_eq!(receive(&mut subscription), 2);
    shard.delivery.begin(8);
    broadcasts(&mut shard, 1);
    assert_eq!(receive(&mut subscription), 0, "a lease of another term");
}

/// A tick may get into the log between the end of a lease and the nack that says so.
#[test]
fn promise_4_a_key_does_not_wait_for_a_message_that_expired_before_its_failure_was_told() {
    let mut shard = TestShard::with_sandboxes();
    let direct = |ttl_ms| Record {
        kind: Kind::Direct,
        priority: 5,
        message_type: 1,
        from: "a",
        to: "b",
        ordering: 7,
        ttl_ms,
        body: b"body",
        ..Record::default()
    };
    let inbox = shard.open("b");
    shard.publish_records(&[direct(1_000), direct(0), direct(0)]);
    let first = shard.take(&inbox, 9);
    assert_eq!(sequences(&first), [1], "the others of its key wait");
    let nack = failing(&inbox, &first, Some(0), false);
    shard.time_ms += 2_000;
    shard.tick();
    assert_eq!(sequences(&shard.take(&inbox, 9)), [0; 0], "the failure is not told yet");
    shard.apply(&[Verb::Nack(nack)]);
    assert_eq!(sequences(&shard.take(&inbox, 9)), [2], "the next one of the key, and only that");
}

#[test]
fn an_inbox_that_holds_back_all_it_may_goes_on_with_what_the_others_wait_for() {
    let mut shard = TestShard::with_sandboxes();
    let inbox = shard.open("b");
    inbox.lock().hold_back_at_most(2);
    keyed(&mut shard, &[7, 7, 7, 7, 7, 0]);
    let taken = shard.take(&inbox, 9);
    assert_eq!(sequences(&taken), [1], "two are held back, and nobody looks further");
    shard.nack(&inbox, &taken, Some(0));
    shard.tick();
    let again = shard.take(&inbox, 9);
    assert_eq!((sequences(&again), again[0].attempt), (vec![1], 2), "the one all others wait for comes again");
    inbox.lock().give_back(again[0].lease());
    assert_eq!(sequences(&shard.take(&inbox, 9)), [1], "also when it was only given back");
    shard.ack(&inbox, &again);
    let mut seen = Vec::new();
    loop {
        let taken = shard.take(&inbox, 9);
        if taken.is_empty() {
            break;
        }
        seen.extend(sequences(&taken));
        shard.ack(&inbox, &taken);
    }
    let ordered: Vec<_> = seen.iter().filter(|sequence| **sequence != 6).copied().collect();
    assert_eq!((ordered, seen.len()), (vec![2, 3, 4, 5], 5));
}

#[test]
fn a_long_key_is_passed_in_parts() {
    let mut shard = TestShard::with_sandboxes();
    shard.max_inbox = 3_000;
    keyed(&mut shard, &[7; 2_500]);
    keyed(&mut shard, &[0]);
    let mut subscription = subscribe(&shard, "b");
    let (mut seen, mut calls) = (0, 0);
    while seen < 2 {
        seen += receive(&mut subscription);
        calls += 1;
        assert!(calls < 10, "{seen} of 2 came");
    }
    assert!(calls > 2, "2,499 messages were held back under one lock");
}

#[test]
fn promise_5_what_the_state_showed_before_it_was_told_is_handed_out_once() {
    let mut shard = TestShard::with_sandboxes();
    broadcasts(&mut shard, 1);
    let first = shard.open("b");
    let taken = shard.take(&first, 9);
    let nack = failing(&first, &taken, Some(0), false);
    first.lock().end(Ended::FollowsChanged);
    let nack = shard.command(&[Verb::Nack(nack)]);
    let (_, told_late) = shard.apply_unpushed(&[nack]);
    shard.delivery.ack_settled(&first, &[], true);

    let second = shard.open("b");
    let again = shard.take(&second, 9);
    assert_eq!((sequences(&again), again[0].attempt), (vec![1], 2), "the state shows it");
    shard.delivery.effects(told_late.iter().cloned());
    assert!(shard.take(&second, 9).is_empty(), "the same attempt is at work");
    let ack = second.lock().acknowledge(leases(&again));
    let ended = second.lock().ending(ack.alone());
    shard.delivery.effects(told_late.into_iter());
    assert!(shard.take(&second, 9).is_empty(), "its ack is on the way");
    shard.apply(&[Verb::Ack(ack)]);
    shard.delivery.ack_settled(&second, &ended, true);
    assert!(shard.take(&second, 9).is_empty() && shard.pending("b") == 0);
}

#[test]
fn a_redrive_that_is_told_before_the_nack_is_settled_is_not_forgotten() {
    let mut shard = TestShard::with_sandboxes();
    broadcasts(&mut shard, 1);
    let inbox = shard.open("b");
    let taken = shard.take(&inbox, 9);
    shard.nack(&inbox, &taken, Some(0));
    let again = shard.take(&inbox, 9);
    assert_eq!((sequences(&again), again[0].attempt), (vec![1], 2));
    let nack = failing(&inbox, &again, None, true);
    let ended = inbox.lock().ending(nack.alone());
    shard.apply(&[Verb::Nack(nack)]);
    shard.apply(&[redrive(&inbox, 1)]);
    assert!(shard.take(&inbox, 9).is_empty(), "it may still be the attempt that ended, as far as the inbox knows");
    shard.delivery.ack_settled(&inbox, &ended, true);
    let redriven = shard.take(&inbox, 9);
    assert_eq!((sequences(&redriven), redriven[0].attempt), (vec![1], 1));
}

#[test]
fn an_older_one_of_a_key_that_is_put_back_comes_before_the_next_that_nobody_has_seen() {
    let mut shard = TestShard::with_sandboxes();
    let inbox = shard.open("b");
    keyed(&mut shard, &[7, 7]);
    let first = shard.take(&inbox, 9);
    assert_eq!(sequences(&first), [1], "the second one is held back");
    let nack = failing(&inbox, &first, None, true);
    shard.apply(&[Verb::Nack(nack)]);
    shard.delivery.ack_settled(&inbox, &[], true);
    shard.apply(&[redrive(&inbox, 1)]);
    assert_eq!(sequences(&shard.take(&inbox, 9)), [1], "it is the older one, and nobody has seen the other");
}
