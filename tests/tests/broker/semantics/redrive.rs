//! Line 3, the way back: dead letters go into an inbox once more, once, or go for good.

use std::{collections::BTreeSet, time::Duration};

use futures_util::{StreamExt as _, TryStreamExt as _};
use tandem_client::{Code, DeadLetterQuery, InboxLimits, MessageBuilder, RedriveOptions, Sandbox, to_sandbox};
use tandem_tests::{Refused, at_priority, direct, now};

use super::scene::{attempts, because, of, quick, texts};
use crate::stage::{Stage, WORKSPACE};

fn to(sandbox: &str) -> RedriveOptions {
    RedriveOptions { to_sandbox_id: Some(sandbox.to_owned()), ..RedriveOptions::default() }
}

#[tokio::test]
async fn line_3_redrive_of_one_keeps_sequence_and_history_and_counts_anew() {
    let stage = Stage::with(&["alice"]).await;
    stage.register_with_policy("bob", quick(2)).await;
    let message = MessageBuilder::notification("alice", to_sandbox("bob"), "first").header("h", "v").build();
    stage.publish_all([message, direct("alice", "bob", "second")]).await;
    stage.kill_messages("bob", 2, "no").await;
    let one = DeadLetterQuery { sequence: Some(1), ..of("bob") };
    let answers = stage.redrive(one.clone(), RedriveOptions::default()).await.unwrap();
    let last = answers.last().unwrap();
    assert_eq!((last.redriven, last.skipped, last.done), (1, 0, true));
    assert_eq!(stage.redrive(one, RedriveOptions::default()).await.unwrap().last().unwrap().redriven, 0, "idempotent");

    let stage = stage.crash_and_start().await;
    assert_eq!((stage.pending("bob").await, stage.dead_of("bob").await.len()), (1, 1));
    let mut bob = stage.subscribe("bob").await;
    let taken = bob.take(1).await;
    assert_eq!(attempts(&taken), [(1, 1)]);
    assert_eq!(taken[0].message.metadata["h"], "v");
    assert_eq!(bob.nack(1, 1, because("again")).await.deferred, 1, "its attempts begin anew");
    assert_eq!(attempts(&bob.take(1).await), [(1, 2)]);
    assert_eq!(bob.nack(2, 2, because("for good")).await.dead_lettered, 1);
    let letter = stage.client.dead_letters(WORKSPACE).get("bob", 1).await.unwrap();
    let history: Vec<_> = letter.attempts.iter().map(|failed| failed.text.as_str()).collect();
    assert_eq!(history, ["no", "again", "for good"], "what was before the redrive is not forgotten");
}

#[tokio::test]
async fn line_3_redrive_by_filter_and_to_another_sandbox() {
    let stage = Stage::with(&["alice", "dora", "bob", "carol"]).await;
    stage
        .publish_all((1..=6).map(|number| {
            let from = if number % 2 == 0 { "alice" } else { "dora" };
            at_priority(number % 3, direct(from, "bob", number.to_string()))
        }))
        .await;
    stage.kill_messages("bob", 6, "no").await;
    let from_dora = DeadLetterQuery { from_sandbox_id: Some("dora".into()), ..DeadLetterQuery::default() };
    assert_eq!(stage.redrive(from_dora, to("carol")).await.unwrap().last().unwrap().redriven, 3);
    let mut carol = stage.subscribe("carol").await;
    assert_eq!(texts(&carol.take(3).await), ["5", "1", "3"], "priorities 2, 1 and 0 are kept");
    assert_eq!((stage.pending("carol").await, stage.pending("bob").await), (3, 0));
    assert_eq!(stage.dead_of("bob").await.len(), 3);
    assert_eq!(carol.ack(1, 3).await.acknowledged, 3);
    let error = stage.redrive(of("bob"), to("nobody")).await.unwrap_err();
    Refused::from(error).expect(Code::NotFound, "UNKNOWN_SANDBOX", &["\"nobody\""]);
    assert_eq!(stage.dead_of("bob").await.len(), 3);
}

#[tokio::test]
async fn line_3_redrive_twice_at_once_moves_each_once() {
    let stage = Stage::with(&["alice", "bob"]).await;
    stage.publish_all((0..600).map(|number| direct("alice", "bob", number.to_string()))).await;
    stage.kill_messages("bob", 600, "no").await;
    let (one, two) = tokio::join!(
        stage.redrive(of("bob"), RedriveOptions::default()),
        stage.redrive(of("bob"), RedriveOptions::default())
    );
    let redriven = |answers: Vec<tandem_client::RedriveProgress>| answers.last().unwrap().redriven;
    assert_eq!(redriven(one.unwrap()) + redriven(two.unwrap()), 600);
    let mut bob = stage.subscribe("bob").await;
    let taken: BTreeSet<u64> = bob.take(600).await.iter().map(|delivery| delivery.message.sequence).collect();
    assert_eq!(taken.len(), 600);
    bob.expect_silence().await;
    assert_eq!(bob.ack(1, 600).await.acknowledged, 600);
    assert_eq!((stage.pending("bob").await, stage.dead_of("bob").await.len()), (0, 0));
}

#[tokio::test]
async fn line_3_redrive_keeps_to_its_rate_and_tells_how_far_it_is() {
    let stage = Stage::with(&["alice", "bob"]).await;
    stage.publish_all((0..30).map(|number| direct("alice", "bob", number.to_string()))).await;
    stage.kill_messages("bob", 30, "no").await;
    let mut bob = stage.subscribe("bob").await;
    let started = now();
    let slowly = RedriveOptions { max_per_second: 20, ..RedriveOptions::default() };
    let letters = stage.client.dead_letters(WORKSPACE);
    let mut answers = letters.redrive(of("bob"), slowly).boxed();
    let mut told = Vec::new();
    while let Some(answer) = answers.try_next().await.unwrap() {
        told.push(answer.redriven);
    }
    let took = started.elapsed();
    // The first two go at once.
    assert!(took >= Duration::from_millis(28 * 50 - 50), "30 at 20 a second took {took:?}");
    assert!(took < Duration::from_secs(5), "30 at 20 a second took {took:?}");
    assert!(told.len() as f64 >= took.as_secs_f64(), "at least once a second: {told:?} in {took:?}");
    assert!(told.is_sorted() && told.len() > 3, "{told:?}");
    assert_eq!(told.last(), Some(&30));
    bob.take(30).await;
}

#[tokio::test]
async fn line_3_redrive_to_a_full_inbox_leaves_the_rest_where_it_is() {
    let stage = Stage::with(&["alice", "bob"]).await;
    let inbox_limits = Some(InboxLimits { max_messages: 2, ..InboxLimits::default() });
    let carol = Sandbox { sandbox_id: "carol".into(), inbox_limits, ..Sandbox::default() };
    stage.client.registry(WORKSPACE).register(carol).await.unwrap();
    stage.publish_all((0..5).map(|number| direct("alice", "bob", number.to_string()))).await;
    stage.kill_messages("bob", 5, "no").await;
    let last = *stage.redrive(of("bob"), to("carol")).await.unwrap().last().unwrap();
    assert_eq!((last.redriven, last.skipped, last.done), (2, 3, true));
    assert_eq!((stage.pending("carol").await, stage.dead_of("bob").await.len()), (2, 3));
    // What goes back into its own inbox, whose sandbox is gone by then, stays as well.
    stage.client.registry(WORKSPACE).unregister("bob").await.unwrap();
    let last = *stage.redrive(of("bob"), RedriveOptions::default()).await.unwrap().last().unwrap();
    assert_eq!((last.redriven, last.skipped), (0, 3));
    assert_eq!(stage.dead_of("bob").await.len(), 3, "dead letters outlive their sandbox");
}

#[tokio::test]
async fn line_3_purge_removes_what_fits_for_good() {
    let stage = Stage::with(&["alice", "bob", "carol"]).await;
    stage.publish_all((0..5).map(|number| direct("alice", "bob", number.to_string()))).await;
    stage.publish(direct("alice", "carol", "x")).await;
    stage.kill_messages("bob", 5, "no").await;
    stage.kill_messages("carol", 1, "no").await;
    assert_eq!(stage.purge(DeadLetterQuery { sequence: Some(3), ..of("bob") }).await, 1);
    assert_eq!(stage.purge(DeadLetterQuery { sequence: Some(3), ..of("bob") }).await, 0);
    assert_eq!(stage.purge(of("bob")).await, 4);
    let stage = stage.crash_and_start().await;
    let left: Vec<_> =
        stage.dead(DeadLetterQuery::default()).await.into_iter().map(|letter| letter.sandbox_id).collect();
    assert_eq!(left, ["carol"]);
    let bob = stage.client.registry(WORKSPACE).get("bob").await.unwrap();
    assert_eq!((bob.dead_letters, bob.pending_messages), (0, 0));
    assert_eq!(stage.redrive(of("bob"), RedriveOptions::default()).await.unwrap().last().unwrap().redriven, 0);
    assert_eq!(stage.history(Default::default()).await.len(), 6, "the history keeps them");
}

/// A stream that waits gets what is redriven, without anybody opening it again.
#[tokio::test]
async fn line_3_a_redrive_reaches_who_is_subscribed() {
    let stage = Stage::with(&["alice", "bob"]).await;
    stage.publish(direct("alice", "bob", "x")).await;
    stage.kill_messages("bob", 1, "no").await;
    let mut bob = stage.subscribe("bob").await;
    bob.expect_silence().await;
    stage.redrive(of("bob"), RedriveOptions::default()).await.unwrap();
    assert_eq!(attempts(&bob.take(1).await), [(1, 1)]);
    assert_eq!(bob.ack(1, 1).await.acknowledged, 1);
}
