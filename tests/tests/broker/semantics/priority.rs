//! Line 5: ten levels, strict unless a share is set aside, kept over everything.

use tandem_client::{Code, RedriveOptions, SubscribeOptions};
use tandem_proto::messaging::v1::Open;
use tandem_tests::{Random, Refused, at_priority, direct};

use super::scene::{of, open, quick, texts, until};
use crate::stage::{Stage, WORKSPACE};

#[tokio::test]
async fn line_5_ten_levels_are_strict() {
    let mut random = Random::from_environment();
    let stage = Stage::with(&["alice", "bob"]).await;
    let messages: Vec<_> = (0..300)
        .map(|_| {
            let priority = random.between(0, 9) as u32;
            at_priority(priority, direct("alice", "bob", priority.to_string()))
        })
        .collect();
    stage.publish_all(messages).await;
    let stage = stage.crash_and_start().await;
    let mut bob = stage.subscribe("bob").await;
    let taken = bob.take(300).await;
    let order: Vec<_> =
        taken.iter().map(|delivery| (9 - delivery.message.priority.unwrap(), delivery.message.sequence)).collect();
    assert!(order.is_sorted(), "higher first, within one the order of commit");
    assert!((0..10).all(|priority| order.iter().any(|(inverted, _)| *inverted == priority)));
    stage.publish(direct("alice", "bob", "5")).await;
    assert_eq!(bob.take(1).await[0].message.priority, None, "5 when nothing is said");
    let error = stage.try_publish(at_priority(10, direct("alice", "bob", "x"))).await.unwrap_err();
    Refused::from(error).expect(Code::InvalidArgument, "INVALID_FIELD", &["10"]).at("priority");
}

#[tokio::test]
async fn line_5_a_retry_keeps_its_priority() {
    let stage = Stage::with(&["alice"]).await;
    stage.register_with_policy("bob", quick(5)).await;
    stage
        .publish_all([at_priority(8, direct("alice", "bob", "high")), at_priority(2, direct("alice", "bob", "low"))])
        .await;
    let mut bob = stage.subscribe_with_credit("bob", 2).await;
    assert_eq!(texts(&bob.take(2).await), ["high", "low"]);
    assert_eq!(bob.nack(1, 2, Default::default()).await.deferred, 2);
    stage.publish_all([direct("alice", "bob", "usual"), at_priority(9, direct("alice", "bob", "urgent"))]).await;
    until("the retries are due", async || {
        stage.client.registry(WORKSPACE).get("bob").await.unwrap().deferred_messages == 0
    })
    .await;
    let stage = stage.crash_and_start().await;
    let mut bob = stage.subscribe("bob").await;
    assert_eq!(texts(&bob.take(4).await), ["urgent", "high", "usual", "low"]);
}

#[tokio::test]
async fn line_5_a_redrive_keeps_its_priority_and_its_place() {
    let stage = Stage::with(&["alice", "bob"]).await;
    stage
        .publish_all([
            at_priority(8, direct("alice", "bob", "high")),
            direct("alice", "bob", "early"),
            at_priority(1, direct("alice", "bob", "low")),
        ])
        .await;
    stage.kill_messages("bob", 3, "no").await;
    stage.publish_all([direct("alice", "bob", "late"), at_priority(9, direct("alice", "bob", "urgent"))]).await;
    stage.redrive(of("bob"), RedriveOptions::default()).await.unwrap();
    let mut bob = stage.subscribe("bob").await;
    assert_eq!(texts(&bob.take(5).await), ["urgent", "high", "early", "late", "low"]);
}

#[tokio::test]
async fn line_5_a_share_for_low_priorities_keeps_them_from_starving() {
    let stage = Stage::with(&["alice", "bob"]).await;
    let high = (0..400).map(|_| at_priority(9, direct("alice", "bob", "high")));
    let low = (0..100).map(|number| at_priority(if number % 2 == 0 { 0 } else { 3 }, direct("alice", "bob", "low")));
    stage.publish_all(high.chain(low)).await;
    let mut strict = stage.subscribe_with_credit("bob", 200).await;
    assert!(strict.take(200).await.iter().all(|delivery| delivery.message.priority == Some(9)));
    strict.finish();
    assert!(strict.answer().await.unwrap().is_none());

    let mut fair = stage.subscribe_as_with_credit(Open { low_priority_percent: 20, ..open("bob") }, 200).await;
    let taken = fair.take(200).await;
    let low: Vec<_> = taken.iter().filter(|delivery| delivery.message.priority != Some(9)).collect();
    assert_eq!(low.len(), 40, "20 of each 100");
    let sequences: Vec<_> = low.iter().map(|delivery| delivery.message.sequence).collect();
    assert_eq!(sequences, (401..=440).collect::<Vec<_>>(), "the oldest, whatever their level");
    for window in taken.chunks(50) {
        let share = window.iter().filter(|delivery| delivery.message.priority != Some(9)).count();
        assert!((9..=11).contains(&share), "they are spread: {share} of 50");
    }
    // Alone, they need no share.
    fair.credit(400, 0);
    fair.take(300).await;

    let options = SubscribeOptions::default().low_priority_percent(51);
    let refused = Refused::from(stage.client.subscribe(WORKSPACE, "bob", options).await.unwrap_err());
    refused.expect(Code::InvalidArgument, "INVALID_FIELD", &["51", "0 to 50"]).at("low_priority_percent");
}
