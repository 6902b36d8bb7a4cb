//! The checker checks: histories in which exactly one promise is broken, each as a certain mistake in a broker would break it.

use super::*;

const MILLISECOND: u64 = 1_000_000;

/// A history by hand. Every event takes a millisecond and begins when the one before has ended.
#[derive(Default)]
struct Story {
    events: Vec<Event>,
    time: u64,
}

impl Story {
    fn tell(&mut self, act: Act) -> &mut Self {
        let invoke = self.time;
        self.time += MILLISECOND;
        self.events.push(Event { client: "somebody".into(), invoke, done: self.time, act });
        // What ends at the moment at which the next begins does not precede it.
        self.time += MILLISECOND;
        self
    }

    fn publish(&mut self, id: &str, outcome: Outcome, sequence: u64) -> &mut Self {
        self.publish_with(id, "", 1, outcome, sequence)
    }

    fn publish_with(&mut self, id: &str, key: &str, tries: u32, outcome: Outcome, sequence: u64) -> &mut Self {
        let (to, content) = (vec!["bob".to_owned()], digest(id.as_bytes()));
        let (id, key) = (id.to_owned(), key.to_owned());
        self.tell(Act::Publish { id, to, key, content, expires: false, tries, outcome, sequence })
    }

    fn subscribe(&mut self, subscription: &str) -> &mut Self {
        self.tell(Act::Subscribe { subscription: subscription.into(), sandbox: "bob".into() })
    }

    fn deliver(&mut self, subscription: &str, id: &str, sequence: u64, attempt: u32) -> &mut Self {
        let content = digest(id.as_bytes());
        let (subscription, sandbox, id) = (subscription.into(), "bob".into(), id.into());
        self.tell(Act::Deliver { subscription, sandbox, sequence, id, content, attempt })
    }

    fn ack(&mut self, subscription: &str, sequence: u64, attempt: u32, outcome: Outcome) -> &mut Self {
        let (subscription, sandbox) = (subscription.into(), "bob".into());
        self.tell(Act::Ack { subscription, sandbox, deliveries: vec![(sequence, attempt)], outcome })
    }

    /// Published, delivered and acknowledged.
    fn whole(&mut self, id: &str, sequence: u64) -> &mut Self {
        self.publish(id, Outcome::Ok, sequence).deliver("s1", id, sequence, 1).ack("s1", sequence, 1, Outcome::Ok)
    }

    fn read(&mut self, messages: &[(u64, &str)]) -> &mut Self {
        let messages =
            messages.iter().map(|(at, id)| (*at, (*id).to_owned(), digest(id.as_bytes()))).collect::<Vec<_>>();
        self.tell(Act::Read { stream: "reader".into(), messages })
    }

    /// What is there at the end: the log, dead letters, and how many wait.
    fn end(&mut self, log: &[(u64, &str)], dead: &[u64], pending: u64) -> &mut Self {
        for (sequence, id) in log {
            let (sequence, id, content) = (*sequence, (*id).to_owned(), digest(id.as_bytes()));
            self.tell(Act::Log { sequence, id, content });
        }
        for sequence in dead {
            self.tell(Act::DeadLetter { sandbox: "bob".into(), sequence: *sequence });
        }
        self.tell(Act::Rest { sandbox: "bob".into(), pending })
    }

    fn judged(&self) -> Judgement {
        let directory = tempfile::tempdir().expect("a directory for temporary files");
        let (recorder, writer) = Recorder::begin(directory.path()).expect("the directory can be written");
        for event in &self.events {
            recorder.write("w", event.clone());
        }
        drop(recorder);
        writer.join().expect("the writer does not panic").expect("the history is written");
        judge(directory.path()).expect("what was written can be read")
    }

    #[track_caller]
    fn breaks(&self, invariant: &str, says: &str) {
        let judgement = self.judged();
        assert_eq!(judgement.broken(), [invariant], "{judgement}");
        let finding = &judgement.findings[0];
        assert!(finding.text.contains(says), "{says:?} is not said: {judgement}");
        assert!(!finding.events.is_empty(), "the events are not shown: {judgement}");
    }

    #[track_caller]
    fn holds(&self) {
        let judgement = self.judged();
        assert!(judgement.holds(), "{judgement}");
    }
}

fn story() -> Story {
    let mut story = Story::default();
    story.subscribe("s1");
    story
}

#[test]
fn a_run_as_it_should_be_holds() {
    let mut good = story();
    good.whole("a", 1)
        .publish("refused", Outcome::Refused, 0)
        .publish("lost", Outcome::Unknown, 0)
        .publish("unseen", Outcome::Unknown, 0)
        .publish_with("again", "", 3, Outcome::Ok, 5)
        .deliver("s1", "again", 5, 1)
        // The answer to this ack never came, and it had not counted.
        .ack("s1", 5, 1, Outcome::Unknown)
        .deliver("s1", "again", 5, 2)
        // The lease had lapsed.
        .ack("s1", 5, 1, Outcome::Refused)
        .ack("s1", 5, 2, Outcome::Ok)
        .publish("dead", Outcome::Ok, 6)
        .publish("waits", Outcome::Ok, 7)
        .read(&[(1, "a"), (3, "unseen")])
        .read(&[(5, "again")])
        .end(&[(1, "a"), (3, "unseen"), (5, "again"), (6, "dead"), (7, "waits")], &[6], 2);
    for node in 1..=3 {
        good.tell(Act::State { node, what: "the log".into(), value: "5 messages".into() });
    }
    good.holds();
}

#[test]
fn an_acknowledgement_before_the_fsync_or_before_the_majority_is_found() {
    // The leader said yes, died, and its successor had never heard of it.
    let mut lost = story();
    lost.whole("a", 1).publish("b", Outcome::Ok, 2).end(&[(1, "a")], &[], 0);
    lost.breaks("publishes_exist_once", "b was acknowledged with sequence 2, and the log does not hold it");
}

#[test]
fn another_message_in_the_place_of_a_lost_one_is_found() {
    let mut lost = story();
    lost.publish("b", Outcome::Ok, 2).whole("c", 3).publish("d", Outcome::Unknown, 0).end(
        &[(2, "d"), (3, "c")],
        &[],
        1,
    );
    lost.breaks("publishes_exist_once", "b was acknowledged with sequence 2, and the log does not hold it");
}

#[test]
fn a_retry_that_is_not_recognised_is_found() {
    let mut doubled = story();
    doubled
        .publish_with("a", "", 2, Outcome::Ok, 1)
        .deliver("s1", "a", 1, 1)
        .ack("s1", 1, 1, Outcome::Ok)
        .deliver("s1", "a", 2, 1)
        .ack("s1", 2, 1, Outcome::Ok)
        .end(&[(1, "a"), (2, "a")], &[], 0);
    doubled.breaks("publishes_exist_once", "a stands in the log 2 times, at [1, 2]");
}

#[test]
fn a_refused_message_in_the_log_is_found() {
    let mut refused = story();
    refused.publish("a", Outcome::Refused, 0).end(&[(1, "a")], &[], 1);
    refused.breaks("publishes_exist_once", "refused for good, and the log holds it");
}

#[test]
fn a_message_that_nobody_published_is_found() {
    let mut invented = story();
    invented.end(&[(1, "a")], &[], 0);
    invented.breaks("publishes_exist_once", "nobody published it");
}

#[test]
fn sequences_against_real_time_are_found() {
    // Two leaders at once: the old one gave 2 to what came after an acknowledgement by the new one.
    let mut reordered = story();
    reordered.whole("a", 3).whole("b", 2).end(&[(2, "b"), (3, "a")], &[], 0);
    reordered.breaks("sequences_follow_real_time", "a was acknowledged with sequence 3 before the publish of b began");
}

#[test]
fn publishes_at_the_same_time_may_have_any_order() {
    let mut together = story();
    together.whole("a", 3).whole("b", 2);
    let publishes: Vec<_> =
        (0..together.events.len()).filter(|at| matches!(together.events[*at].act, Act::Publish { .. })).collect();
    together.events[publishes[1]].invoke = together.events[publishes[0]].done;
    together.end(&[(2, "b"), (3, "a")], &[], 0).holds();
}

#[test]
fn a_gap_in_a_read_is_found() {
    let mut gap = story();
    gap.whole("a", 1).whole("b", 2).whole("c", 3).read(&[(1, "a"), (3, "c")]);
    gap.end(&[(1, "a"), (2, "b"), (3, "c")], &[], 0);
    gap.breaks("reads_are_gap_free", "the reader reader never got b at 2");
}

#[test]
fn a_read_that_goes_back_is_found() {
    let mut back = story();
    back.whole("a", 1).whole("b", 2).read(&[(1, "a"), (2, "b")]).read(&[(2, "b")]);
    back.end(&[(1, "a"), (2, "b")], &[], 0);
    back.breaks("reads_are_gap_free", "got b at 2 after b at 2");
}

#[test]
fn a_read_of_what_was_not_committed_is_found() {
    let mut dirty = story();
    dirty.whole("a", 1).publish("x", Outcome::Unknown, 0).read(&[(1, "a"), (2, "x")]).whole("b", 2);
    dirty.end(&[(1, "a"), (2, "b")], &[], 0);
    dirty.breaks("reads_are_gap_free", "got x at 2, and at the end the log holds b there");
}

#[test]
fn a_hole_in_the_log_that_nothing_explains_is_found() {
    let mut hole = story();
    hole.whole("a", 1).whole("b", 3).end(&[(1, "a"), (3, "b")], &[], 0);
    hole.breaks("reads_are_gap_free", "the log has 1 holes, but only 0 tries to publish left none behind");
}

#[test]
fn a_delivery_of_what_was_never_accepted_is_found() {
    let mut phantom = story();
    phantom.whole("a", 1).publish("x", Outcome::Unknown, 0).deliver("s1", "x", 2, 1);
    phantom.end(&[(1, "a")], &[], 0);
    phantom.breaks("deliveries_were_accepted", "bob got x at 2, where the log holds nothing");
}

#[test]
fn a_delivery_with_another_content_is_found() {
    let mut changed = story();
    changed.publish("a", Outcome::Ok, 1).deliver("s1", "a", 1, 1).ack("s1", 1, 1, Outcome::Ok);
    for event in &mut changed.events {
        if let Act::Deliver { content, .. } = &mut event.act {
            *content ^= 1;
        }
    }
    changed.end(&[(1, "a")], &[], 0).breaks("deliveries_were_accepted", "or another content");
}

#[test]
fn a_delivery_to_somebody_else_is_found() {
    let mut strayed = story();
    strayed.whole("a", 1);
    let (subscription, sandbox, id) = ("s2".into(), "carol".into(), "a".into());
    strayed.tell(Act::Deliver { subscription, sandbox, sequence: 1, id, content: digest(b"a"), attempt: 1 });
    strayed.end(&[(1, "a")], &[], 0).breaks("deliveries_were_accepted", "carol got a, which is not for it");
}

#[test]
fn a_message_that_vanishes_from_its_inbox_is_found() {
    // An ack of its neighbour took it along.
    let mut vanished = story();
    vanished.whole("a", 1).publish("b", Outcome::Ok, 2).end(&[(1, "a"), (2, "b")], &[], 0);
    vanished.breaks("one_end_for_each_recipient", "1 messages for bob, the first of them at 2, were neither");
}

#[test]
fn a_message_that_is_acknowledged_and_dead_is_found() {
    let mut both = story();
    both.whole("a", 1).end(&[(1, "a")], &[1], 0);
    both.breaks("one_end_for_each_recipient", "a at 1 was acknowledged by bob, and is its dead letter");
}

#[test]
fn a_message_that_waits_after_its_end_is_found() {
    let mut twice = story();
    twice.whole("a", 1).end(&[(1, "a")], &[], 1);
    twice.breaks("one_end_for_each_recipient", "1 messages wait for bob, but all except 0 have an end");
}

#[test]
fn an_ack_on_a_stale_lease_is_found() {
    // The lease of s1 had lapsed, s2 held the message as its second attempt, and the ack of s1 was confirmed all the same.
    let mut stale = story();
    stale.publish("a", Outcome::Ok, 1).deliver("s1", "a", 1, 1).subscribe("s2").deliver("s2", "a", 1, 2);
    stale.ack("s1", 1, 1, Outcome::Ok).ack("s2", 1, 2, Outcome::Refused).end(&[(1, "a")], &[], 0);
    stale.breaks("acknowledged_stays_away", "as a later attempt than the one whose ack was confirmed");
}

#[test]
fn an_ack_that_was_confirmed_twice_is_found() {
    let mut twice = story();
    twice.publish("a", Outcome::Ok, 1).subscribe("s2").deliver("s1", "a", 1, 1).deliver("s2", "a", 1, 1);
    twice.ack("s1", 1, 1, Outcome::Ok).ack("s2", 1, 1, Outcome::Ok).end(&[(1, "a")], &[], 0);
    twice.breaks("acknowledged_stays_away", "two acks of the message at 1 by bob were confirmed");
}

#[test]
fn an_ack_that_is_lost_with_the_leader_is_found() {
    // Confirmed before a majority had it; the new leader delivers the message again.
    let mut lost = story();
    lost.whole("a", 1).subscribe("s2").deliver("s2", "a", 1, 1).end(&[(1, "a")], &[], 0);
    lost.breaks("acknowledged_stays_away", "on a subscription that was opened after its ack was confirmed");
    let mut same = story();
    same.whole("a", 1).deliver("s1", "a", 1, 1).end(&[(1, "a")], &[], 0);
    same.breaks("acknowledged_stays_away", "on the subscription on which its ack had been confirmed");
}

#[test]
fn a_delivery_that_was_long_on_its_way_breaks_nothing() {
    let mut late = story();
    late.subscribe("s2").publish("a", Outcome::Ok, 1).deliver("s1", "a", 1, 2).ack("s1", 1, 2, Outcome::Ok);
    late.deliver("s2", "a", 1, 1).end(&[(1, "a")], &[], 0).holds();
}

#[test]
fn a_key_that_is_overtaken_is_found() {
    let keyed = || {
        let mut keyed = story();
        keyed.publish_with("a", "k", 1, Outcome::Ok, 1).publish_with("b", "k", 1, Outcome::Ok, 2);
        keyed
    };
    let mut overtaken = keyed();
    overtaken.deliver("s1", "b", 2, 1).ack("s1", 2, 1, Outcome::Ok).deliver("s1", "a", 1, 1);
    overtaken.ack("s1", 1, 1, Outcome::Ok).end(&[(1, "a"), (2, "b")], &[], 0);
    overtaken.breaks("keys_keep_their_order", "bob got b at 2 while the message at 1 with the same key had not ended");
    let mut together = keyed();
    together.deliver("s1", "a", 1, 1).deliver("s1", "b", 2, 1).ack("s1", 1, 1, Outcome::Ok);
    together.ack("s1", 2, 1, Outcome::Ok).end(&[(1, "a"), (2, "b")], &[], 0);
    together.breaks("keys_keep_their_order", "bob got b at 2 while the message at 1 with the same key had not ended");
    let mut good = keyed();
    good.deliver("s1", "a", 1, 1).ack("s1", 1, 1, Outcome::Unknown).deliver("s1", "b", 2, 1);
    good.ack("s1", 2, 1, Outcome::Ok).end(&[(1, "a"), (2, "b")], &[], 0).holds();
}

#[test]
fn nodes_that_differ_are_found() {
    let mut differ = story();
    differ.whole("a", 1).end(&[(1, "a")], &[], 0);
    for (node, value) in [(1, "1 messages"), (2, "1 messages"), (3, "0 messages")] {
        differ.tell(Act::State { node, what: "the log".into(), value: value.into() });
    }
    differ.breaks("nodes_agree", "of the log node 1 says \"1 messages\" and node 3 says \"0 messages\"");
}

#[test]
fn a_line_that_is_no_event_is_named() {
    let directory = tempfile::tempdir().expect("a directory for temporary files");
    fs::write(directory.path().join("w.jsonl"), "{}\n").expect("it can be written");
    let error = judge(directory.path()).expect_err("it is no event").to_string();
    assert!(error.contains("w.jsonl line 1: missing field"), "{error}");
}
