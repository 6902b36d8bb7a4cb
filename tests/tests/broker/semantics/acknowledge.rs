//! Line 1: acknowledge, refuse, extend; leases end with their stream; stale tokens are refused.

use std::time::Duration;

use tandem_client::{Code, SubscribeOptions, wire_duration};
use tandem_proto::messaging::v1::{AckMode, AckOutcome, Open};
use tandem_tests::{Refused, direct, now};

use super::scene::{after, attempts, because, deadline, fatal, open, quick, texts, until};
use crate::stage::{Stage, WORKSPACE};

fn refusal(outcome: &AckOutcome) -> Refused {
    assert_eq!((outcome.acknowledged, outcome.refusals.len()), (0, 1), "{outcome:?}");
    Refused::from(outcome.refusals[0].status.clone().unwrap())
}

#[tokio::test]
async fn line_1_single_and_range_acks_take_messages_out_for_good() {
    let stage = Stage::with(&["alice", "bob"]).await;
    stage.publish_all((1..=10).map(|number| direct("alice", "bob", number.to_string()))).await;
    let mut bob = stage.subscribe("bob").await;
    bob.take(10).await;
    assert_eq!(bob.ack(2, 2).await.acknowledged, 1);
    let outcome = bob.ack_ranges(&[(9, 10), (4, 6)]).await;
    assert_eq!((outcome.acknowledged, outcome.refusals.len()), (5, 0));

    // What was done before is refused, what is good in the same ack stands.
    let outcome = bob.ack_ranges(&[(2, 2), (7, 7), (11, 12)]).await;
    assert_eq!(outcome.acknowledged, 1);
    let refused: Vec<_> = outcome.refusals.iter().map(|refusal| refusal.range.unwrap().first).collect();
    assert_eq!(refused, [2, 11]);
    for refusal in outcome.refusals {
        Refused::from(refusal.status.unwrap()).expect(Code::NotFound, "UNKNOWN_DELIVERY", &[]);
    }
    assert_eq!(stage.pending("bob").await, 3);

    let stage = stage.crash_and_start().await;
    let mut bob = stage.subscribe("bob").await;
    assert_eq!(texts(&bob.take(3).await), ["1", "3", "8"]);
    bob.expect_silence().await;
}

#[tokio::test]
async fn line_1_nack_gives_back_at_once_or_after_a_delay_or_for_good() {
    let stage = Stage::with(&["alice", "bob"]).await;
    stage.publish_all((1..=4).map(|number| direct("alice", "bob", number.to_string()))).await;
    let mut bob = stage.subscribe("bob").await;
    bob.take(4).await;
    let started = now();
    // Long enough for a busy machine to look at them while they wait.
    let delay = Duration::from_secs(3);
    let delayed = bob.nack(1, 2, after(delay)).await;
    assert_eq!((delayed.deferred, delayed.dead_lettered, delayed.refusals.len()), (2, 0, 0));
    let dead = bob.nack(3, 3, fatal("cannot be read")).await;
    assert_eq!((dead.deferred, dead.dead_lettered), (0, 1));
    assert_eq!(bob.nack(4, 4, after(Duration::ZERO)).await.deferred, 1);

    let again = bob.take(1).await;
    assert_eq!(attempts(&again), [(4, 2)], "without a delay it comes at once, before those that wait");
    let sandbox = stage.client.registry(WORKSPACE).get("bob").await.unwrap();
    assert_eq!((sandbox.pending_messages, sandbox.deferred_messages, sandbox.dead_letters), (3, 2, 1));
    assert_eq!(attempts(&bob.take(2).await), [(1, 2), (2, 2)]);
    assert!(started.elapsed() >= delay, "{:?}", started.elapsed());

    let twice = bob.nack(1, 1, because("a second time")).await;
    Refused::from(twice.refusals[0].status.clone().unwrap()).expect(Code::NotFound, "UNKNOWN_DELIVERY", &[]);
    let too_far = after(Duration::from_secs(25 * 3_600));
    bob.send(Some(tandem_proto::messaging::v1::subscribe_request::Kind::Nack(too_far)));
    bob.end().await.expect(Code::InvalidArgument, "INVALID_FIELD", &["25 h"]).at("nack.delay");
}

#[tokio::test]
async fn line_1_the_ack_deadline_is_30_s_by_default_and_each_subscription_has_its_own() {
    let stage = Stage::with(&["alice", "bob"]).await;
    let mut patient = stage.subscribe_with_credit("bob", 1).await;
    assert_eq!(patient.ack_deadline_s(), 30);
    let idle = stage.subscribe_as_with_credit(deadline("bob", 86_400), 0).await;
    assert_eq!(idle.ack_deadline_s(), 86_400);
    stage.publish(direct("alice", "bob", "1")).await;
    patient.take(1).await;
    let mut hasty = stage.subscribe_as(deadline("bob", 1)).await;
    assert_eq!(hasty.ack_deadline_s(), 1);
    let started = now();
    stage.publish(direct("alice", "bob", "2")).await;
    assert_eq!(attempts(&hasty.take(1).await), [(2, 1)]);
    let lost = hasty.leases_lost().await;
    assert!(started.elapsed() >= Duration::from_secs(1), "{:?}", started.elapsed());
    Refused::from(lost.status.unwrap()).expect(
        Code::FailedPrecondition,
        "LEASE_LOST",
        &["the ack deadline passed", "Use extend"],
    );
    assert_eq!(patient.ack(1, 1).await.acknowledged, 1, "the other deadline has not passed");

    for wrong in [Duration::from_millis(999), Duration::from_secs(86_401)] {
        let options = SubscribeOptions::default().ack_deadline(wrong);
        let refused = Refused::from(stage.client.subscribe(WORKSPACE, "bob", options).await.unwrap_err());
        refused.expect(Code::InvalidArgument, "INVALID_FIELD", &["1 s to 24 h"]).at("ack_deadline");
    }
}

#[tokio::test]
async fn line_1_a_lease_can_be_extended_by_hours_and_the_others_lapse() {
    let stage = Stage::with(&["alice", "bob"]).await;
    stage.publish_all((1..=4).map(|number| direct("alice", "bob", number.to_string()))).await;
    let mut bob = stage.subscribe_as(deadline("bob", 1)).await;
    bob.take(4).await;
    assert_eq!(bob.extend(2, 3, Some(Duration::from_secs(8 * 3_600))).await.extended, 2);
    let mut lost: Vec<_> = bob.leases_lost().await.ranges.iter().map(|range| (range.first, range.last)).collect();
    if lost.len() == 1 {
        lost.extend(bob.leases_lost().await.ranges.iter().map(|range| (range.first, range.last)));
    }
    assert_eq!(lost, [(1, 1), (4, 4)]);
    assert_eq!(bob.ack(2, 3).await.acknowledged, 2);
    assert_eq!(stage.pending("bob").await, 2);

    let extend = bob.extend(9, 9, None).await;
    let refused = Refused::from(extend.refusals[0].status.clone().unwrap());
    refused.expect(Code::NotFound, "UNKNOWN_DELIVERY", &["from 9 to 9"]);
    bob.send(Some(tandem_proto::messaging::v1::subscribe_request::Kind::Extend(tandem_proto::messaging::v1::Extend {
        ack_deadline: Some(wire_duration(Duration::from_secs(86_401))),
        ..Default::default()
    })));
    loop {
        match bob.answer().await {
            Ok(Some(tandem_proto::messaging::v1::subscribe_response::Kind::DeliveryBatch(_))) => {}
            other => {
                other.unwrap_err().expect(Code::InvalidArgument, "INVALID_FIELD", &[]).at("extend.ack_deadline");
                break;
            }
        }
    }
}

/// One range over everything, again and again, keeps what is not done well beyond the deadline.
#[tokio::test]
async fn line_1_a_heartbeat_keeps_leases_beyond_the_deadline() {
    let stage = Stage::with(&["alice", "bob"]).await;
    stage.publish_all((1..=3).map(|number| direct("alice", "bob", number.to_string()))).await;
    let mut bob = stage.subscribe_as(deadline("bob", 3)).await;
    bob.take(3).await;
    assert_eq!(bob.ack(2, 2).await.acknowledged, 1);
    let started = now();
    let mut heartbeat = tokio::time::interval(Duration::from_millis(500));
    while started.elapsed() < Duration::from_millis(6_500) {
        heartbeat.tick().await;
        assert_eq!(bob.extend(1, 3, None).await.extended, 2, "what is done is passed over");
    }
    assert!(!bob.has_lost_leases());
    assert_eq!(bob.ack_ranges(&[(1, 1), (3, 3)]).await.acknowledged, 2);
    assert_eq!(stage.pending("bob").await, 0);
}

#[tokio::test]
async fn line_1_the_lease_ends_with_its_stream() {
    let stage = Stage::with(&["alice", "bob"]).await;
    stage.publish_all((1..=2).map(|number| direct("alice", "bob", number.to_string()))).await;
    let mut mortal = stage.subscribe_mortal(open("bob"), 2).await;
    mortal.stream.take(2).await;
    let token = mortal.stream.id().to_owned();
    let mut heir = stage.subscribe("bob").await;
    mortal.vanish();
    let started = now();
    let taken = heir.take(2).await;
    assert_eq!(attempts(&taken), [(1, 2), (2, 2)], "a stream that broke is a failed attempt");
    assert!(started.elapsed() < Duration::from_secs(5), "at once, not after the ack deadline");

    let outcome = heir.ack_as(&token, 1, 2).await;
    refusal(&outcome).expect(Code::FailedPrecondition, "LEASE_LOST", &[&token, "has ended", "come again"]);
    assert_eq!(stage.pending("bob").await, 2);

    // A stream that is closed in order gives back without a failed attempt.
    heir.finish();
    assert!(heir.answer().await.unwrap().is_none());
    let mut third = stage.subscribe("bob").await;
    assert_eq!(attempts(&third.take(2).await), [(1, 2), (2, 2)]);
    assert_eq!(third.ack(1, 2).await.acknowledged, 2);
}

#[tokio::test]
async fn promise_5_a_token_from_before_a_crash_is_refused_with_its_reason() {
    let stage = Stage::with(&["alice", "bob"]).await;
    stage.publish(direct("alice", "bob", "x")).await;
    let mut bob = stage.subscribe("bob").await;
    bob.take(1).await;
    let token = bob.id().to_owned();
    let stage = stage.crash_and_start().await;
    let mut bob = stage.subscribe("bob").await;
    assert_eq!(attempts(&bob.take(1).await), [(1, 1)], "a crash of the broker is no failure of the subscriber");
    let outcome = bob.ack_as(&token, 1, 1).await;
    refusal(&outcome).expect(Code::FailedPrecondition, "LEASE_LOST", &[&token, "its leases with it"]);
    assert_eq!(stage.pending("bob").await, 1, "the stale token did nothing");
    let own = bob.id().to_owned();
    assert_eq!(bob.ack_as(&own, 1, 1).await.acknowledged, 1);
    assert_eq!(stage.pending("bob").await, 0);
}

#[tokio::test]
async fn line_1_strict_refuses_a_late_ack_with_its_reason() {
    let stage = Stage::with(&["alice"]).await;
    stage.register_with_policy("bob", super::scene::policy(5, Duration::from_secs(60))).await;
    stage.publish_all((1..=3).map(|number| direct("alice", "bob", number.to_string()))).await;
    let mut bob = stage.subscribe_as(Open { ack_mode: AckMode::Strict.into(), ..deadline("bob", 1) }).await;
    bob.take(3).await;
    let lost = bob.leases_lost().await;
    assert_eq!((lost.ranges[0].first, lost.ranges[0].last), (1, 3));
    let outcome = bob.ack(1, 2).await;
    refusal(&outcome).expect(Code::FailedPrecondition, "LEASE_LOST", &["the ack deadline", "1 to 2", "come again"]);
    let outcome = bob.nack(3, 3, because("late as well")).await;
    assert_eq!((outcome.deferred, outcome.dead_lettered), (0, 0));
    Refused::from(outcome.refusals[0].status.clone().unwrap()).expect(Code::FailedPrecondition, "LEASE_LOST", &[]);
    assert_eq!(stage.pending("bob").await, 3);
}

#[tokio::test]
async fn line_1_lenient_takes_a_late_ack_while_nobody_else_holds_the_message() {
    let stage = Stage::with(&["alice"]).await;
    stage.register_with_policy("bob", super::scene::policy(5, Duration::from_millis(10))).await;
    stage.publish_all((1..=2).map(|number| direct("alice", "bob", number.to_string()))).await;
    let lenient = Open { ack_mode: AckMode::Lenient.into(), ..deadline("bob", 1) };
    let mut late = stage.subscribe_as_with_credit(lenient, 2).await;
    late.take(2).await;
    late.leases_lost().await;
    until("both may be delivered again", async || {
        stage.client.registry(WORKSPACE).get("bob").await.unwrap().deferred_messages == 0
    })
    .await;
    let mut other = stage.subscribe_with_credit("bob", 1).await;
    assert_eq!(attempts(&other.take(1).await), [(1, 2)]);

    let outcome = late.ack_ranges(&[(1, 2)]).await;
    assert_eq!(outcome.acknowledged, 1, "nobody else holds the second");
    assert_eq!(outcome.refusals.len(), 1, "what is not acknowledged is refused: {outcome:?}");
    let refused = Refused::from(outcome.refusals[0].status.clone().unwrap());
    refused.expect(Code::FailedPrecondition, "LEASE_LOST", &["another"]);
    assert_eq!(outcome.refusals[0].range.map(|range| (range.first, range.last)), Some((1, 1)));
    assert_eq!(stage.pending("bob").await, 1);
    other.credit(1, 0);
    other.expect_silence().await;
    assert_eq!(other.ack(1, 1).await.acknowledged, 1);
    assert_eq!(stage.pending("bob").await, 0);
}

/// A message that is not acknowledged in time counts as failed, and comes again.
#[tokio::test]
async fn line_1_a_lapsed_lease_is_a_failed_attempt() {
    let stage = Stage::with(&["alice"]).await;
    stage.register_with_policy("bob", quick(5)).await;
    stage.publish(direct("alice", "bob", "x")).await;
    let mut bob = stage.subscribe_as(deadline("bob", 1)).await;
    assert_eq!(attempts(&bob.take(2).await), [(1, 1), (1, 2)]);
    assert_eq!(bob.ack(2, 2).await.acknowledged, 1);
}
