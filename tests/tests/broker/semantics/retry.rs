//! Line 2: failed deliveries are repeated after a backoff, so often, and the count survives everything.

use std::{collections::BTreeSet, time::Duration};

use tandem_client::{AttemptError, Code, DeadLetterReason, RetryPolicy, Sandbox, wire_duration};
use tandem_proto::messaging::v1::Nack;
use tandem_tests::{Refused, direct, now};

use super::scene::{after, attempts, because, open, policy, quick, until};
use crate::stage::{Stage, WORKSPACE};

/// How much later than its time a retry may come on a busy machine.
const SLACK: Duration = Duration::from_secs(5);

#[tokio::test]
async fn line_2_the_default_is_five_attempts_and_the_second_after_a_second() {
    let stage = Stage::with(&["alice", "bob"]).await;
    let registered = stage.client.registry(WORKSPACE).get("bob").await.unwrap();
    assert_eq!(registered.retry_policy, None, "what is unset stays so, and means the default");
    stage.publish(direct("alice", "bob", "x")).await;
    let mut bob = stage.subscribe("bob").await;
    bob.take(1).await;
    let started = now();
    assert_eq!(bob.nack(1, 1, Nack::default()).await.deferred, 1);
    assert_eq!(attempts(&bob.take(1).await), [(1, 2)]);
    let waited = started.elapsed();
    assert!(waited >= Duration::from_millis(799) && waited < Duration::from_millis(1_200) + SLACK, "{waited:?}");
    for attempt in 3..=5 {
        assert_eq!(bob.nack(attempt - 1, attempt - 1, after(Duration::ZERO)).await.deferred, 1);
        assert_eq!(attempts(&bob.take(1).await), [(1, attempt as u32)]);
    }
    assert_eq!(bob.nack(5, 5, after(Duration::ZERO)).await.dead_lettered, 1, "five attempts in all");
}

#[tokio::test]
async fn line_2_a_policy_is_settable_per_sandbox_and_read_back() {
    let stage = Stage::with(&["alice"]).await;
    let wanted = RetryPolicy {
        max_attempts: 7,
        initial_backoff: Some(wire_duration(Duration::from_millis(250))),
        max_backoff: Some(wire_duration(Duration::from_secs(90))),
    };
    stage.register_with_policy("bob", wanted).await;
    stage.register_with_policy("carol", quick(2)).await;
    let stage = stage.crash_and_start().await;
    let registry = stage.client.registry(WORKSPACE);
    assert_eq!(registry.get("bob").await.unwrap().retry_policy, Some(wanted));

    for (sandbox, most) in [("carol", 2), ("dave", 3)] {
        if sandbox == "dave" {
            stage.register_with_policy(sandbox, quick(most)).await;
        }
        stage.publish(direct("alice", sandbox, "x")).await;
        let mut inbox = stage.subscribe(sandbox).await;
        for attempt in 1..=u64::from(most) {
            assert_eq!(inbox.take(1).await[0].attempt, attempt as u32);
            let outcome = inbox.nack(attempt, attempt, because("no")).await;
            assert_eq!(outcome.dead_lettered, u64::from(attempt == u64::from(most)), "{sandbox}");
        }
        inbox.expect_silence().await;
    }

    let sandbox = |retry_policy| Sandbox { sandbox_id: "eve".into(), retry_policy, ..Sandbox::default() };
    let too_many = Some(RetryPolicy { max_attempts: 1_001, ..RetryPolicy::default() });
    Refused::from(registry.register(sandbox(too_many)).await.unwrap_err())
        .expect(Code::InvalidArgument, "INVALID_FIELD", &["1001"])
        .at("sandbox.retry_policy.max_attempts");
    let too_soon = Some(policy(5, Duration::from_millis(9)));
    Refused::from(registry.register(sandbox(too_soon)).await.unwrap_err())
        .expect(Code::InvalidArgument, "INVALID_FIELD", &["10 ms"])
        .at("sandbox.retry_policy.initial_backoff");
}

#[tokio::test]
async fn line_2_backoffs_double_up_to_the_limit_and_stay_within_their_jitter() {
    let stage = Stage::with(&["alice"]).await;
    let growing = RetryPolicy {
        max_attempts: 6,
        initial_backoff: Some(wire_duration(Duration::from_millis(100))),
        max_backoff: Some(wire_duration(Duration::from_millis(400))),
    };
    stage.register_with_policy("bob", growing).await;
    stage.publish(direct("alice", "bob", "x")).await;
    let mut bob = stage.subscribe("bob").await;
    bob.take(1).await;
    for (failed, backoff_ms) in (1..=5).zip([100, 200, 400, 400, 400]) {
        let started = now();
        assert_eq!(bob.nack(failed, failed, because("again")).await.deferred, 1);
        assert_eq!(bob.take(1).await[0].attempt, failed as u32 + 1);
        let waited = started.elapsed();
        let (least, most) = (Duration::from_millis(backoff_ms * 4 / 5 - 1), Duration::from_millis(backoff_ms * 6 / 5));
        assert!(waited >= least && waited < most + SLACK, "{waited:?} before attempt {}", failed + 1);
    }
}

#[tokio::test]
async fn line_2_jitter_spreads_what_failed_together() {
    let stage = Stage::with(&["alice"]).await;
    stage.register_with_policy("bob", policy(5, Duration::from_millis(500))).await;
    stage.publish_all((0..50).map(|number| direct("alice", "bob", number.to_string()))).await;
    let mut bob = stage.subscribe("bob").await;
    bob.take(50).await;
    let started = now();
    assert_eq!(bob.nack(1, 50, because("all at once")).await.deferred, 50);
    let mut came = Vec::new();
    for _ in 0..50 {
        let sequence = bob.take(1).await[0].message.sequence;
        came.push((sequence, started.elapsed()));
    }
    let (first, last) = (came[0].1, came[49].1);
    assert!(first >= Duration::from_millis(399), "20 % earlier at the most: {first:?}");
    assert!(last < Duration::from_millis(600) + SLACK, "20 % later at the most: {last:?}");
    assert!(last - first > Duration::from_millis(60), "they come one after the other: {first:?} to {last:?}");
    let order: Vec<u64> = came.iter().map(|(sequence, _)| *sequence).collect();
    assert!(!order.is_sorted(), "each has a time of its own");
    assert_eq!(order.into_iter().collect::<BTreeSet<_>>().len(), 50);
}

#[tokio::test]
async fn line_2_the_attempt_is_committed_before_the_second_delivery() {
    let mut stage = Stage::with(&["alice"]).await;
    stage.register_with_policy("bob", quick(3)).await;
    stage.publish(direct("alice", "bob", "x")).await;
    let mut bob = stage.subscribe("bob").await;
    bob.take(1).await;
    bob.nack(1, 1, because("first")).await;
    for round in 0..3 {
        assert_eq!(attempts(&bob.take(1).await), [(1, 2)], "round {round}: held in the crash, it is no first attempt");
        stage = stage.crash_and_start().await;
        bob = stage.subscribe("bob").await;
    }
    bob.take(1).await;
    assert_eq!(bob.nack(1, 1, because("second")).await.deferred, 1);
    assert_eq!(attempts(&bob.take(1).await), [(1, 3)]);
    let stage = stage.crash_and_start().await;
    let mut bob = stage.subscribe("bob").await;
    assert_eq!(attempts(&bob.take(1).await), [(1, 3)]);
    assert_eq!(bob.nack(1, 1, because("third")).await.dead_lettered, 1);
    let letter = &stage.dead_of("bob").await[0];
    let seen: Vec<_> = letter.attempts.iter().map(|failed| (failed.attempt, failed.text.as_str())).collect();
    assert_eq!(seen, [(1, "first"), (2, "second"), (3, "third")]);
}

/// A message that kills whoever reads it does not go on for ever.
#[tokio::test]
async fn promise_3_a_message_that_kills_its_reader_ends_as_a_dead_letter() {
    let mut stage = Stage::with(&["alice"]).await;
    stage.register_with_policy("bob", quick(4)).await;
    stage.publish(direct("alice", "bob", "poison")).await;
    for attempt in [1, 2, 3, 4] {
        let mut victim = stage.subscribe_mortal(open("bob"), 1).await;
        assert_eq!(attempts(&victim.stream.take(1).await), [(1, attempt)]);
        if attempt == 3 {
            // The broker dies with its reader: the attempt was not told to have failed, and comes again.
            stage = stage.crash_and_start().await;
            victim.vanish();
            victim = stage.subscribe_mortal(open("bob"), 1).await;
            assert_eq!(attempts(&victim.stream.take(1).await), [(1, attempt)]);
        }
        victim.vanish();
    }
    until("it is dead", async || !stage.dead_of("bob").await.is_empty()).await;
    let letter = &stage.dead_of("bob").await[0];
    assert_eq!(letter.reason(), DeadLetterReason::AttemptsExhausted);
    assert_eq!(letter.reason_text, "all 4 attempts failed, the last one: the stream broke");
    assert!(letter.attempts.iter().all(|failed| failed.error() == AttemptError::StreamBroken), "{letter:?}");
    stage.publish(direct("alice", "bob", "good")).await;
    let mut bob = stage.subscribe("bob").await;
    assert_eq!(attempts(&bob.take(1).await), [(2, 1)]);
}
