//! Line 6: commit order, and ordering keys that wait for their retries while others pass.

use std::time::Duration;

use tandem_client::{Message, MessageBuilder, to_sandbox, to_topic};
use tandem_tests::{Random, direct};

use super::scene::{after, attempts, fatal, quick, texts, until};
use crate::stage::{Stage, WORKSPACE, text};

const LONG: Duration = Duration::from_secs(3_600);

fn keyed(key: &str, text: &str) -> Message {
    MessageBuilder::notification("alice", to_sandbox("bob"), text.to_owned()).ordering_key(key).build()
}

#[tokio::test]
async fn line_6_a_key_in_retry_holds_its_later_messages_and_no_others() {
    let stage = Stage::with(&["alice", "bob"]).await;
    stage.publish_all([keyed("a", "a1"), keyed("b", "b1"), keyed("a", "a2"), direct("alice", "bob", "none")]).await;
    let mut bob = stage.subscribe("bob").await;
    assert_eq!(texts(&bob.take(3).await), ["a1", "b1", "none"]);
    assert_eq!(bob.nack(1, 1, after(Duration::from_secs(5))).await.deferred, 1);
    assert_eq!(bob.ack(2, 3).await.acknowledged, 2);
    stage.publish_all([keyed("a", "a3"), keyed("b", "b2"), keyed("c", "c1")]).await;
    assert_eq!(texts(&bob.take(2).await), ["b2", "c1"], "b and c do not wait for a");
    bob.expect_silence().await;
    assert_eq!(bob.ack(4, 5).await.acknowledged, 2);

    // A broker that comes back knows which key waits.
    let stage = stage.crash_and_start().await;
    let mut bob = stage.subscribe("bob").await;
    stage.publish(keyed("b", "b3")).await;
    assert_eq!(texts(&bob.take(1).await), ["b3"]);
    assert_eq!(bob.ack(1, 1).await.acknowledged, 1);
    let again = bob.take(1).await;
    assert_eq!((texts(&again)[0].as_str(), again[0].attempt), ("a1", 2));
    bob.expect_silence().await;
    assert_eq!(bob.ack(2, 2).await.acknowledged, 1);
    assert_eq!(texts(&bob.take(1).await), ["a2"]);
    assert_eq!(bob.ack(3, 3).await.acknowledged, 1);
    assert_eq!(texts(&bob.take(1).await), ["a3"]);
    assert_eq!(bob.ack(4, 4).await.acknowledged, 1);
    assert_eq!(stage.pending("bob").await, 0);
}

#[tokio::test]
async fn line_6_without_a_key_a_retry_lets_others_pass() {
    let stage = Stage::with(&["alice", "bob"]).await;
    stage.publish_all((1..=4).map(|number| direct("alice", "bob", number.to_string()))).await;
    let mut bob = stage.subscribe_with_credit("bob", 1).await;
    bob.take(1).await;
    assert_eq!(bob.nack(1, 1, after(Duration::from_millis(500))).await.deferred, 1);
    bob.credit(10, 0);
    assert_eq!(texts(&bob.take(3).await), ["2", "3", "4"], "commit order");
    assert_eq!(attempts(&bob.take(1).await), [(1, 2)]);
}

#[tokio::test]
async fn line_6_a_key_goes_on_when_its_message_left_without_an_ack() {
    let stage = Stage::with(&["alice", "bob"]).await;
    let brief = MessageBuilder::notification("alice", to_sandbox("bob"), "brief").ordering_key("a");
    stage
        .publish_all([
            keyed("a", "dies"),
            brief.clone().ttl(Duration::from_secs(1)).build(),
            keyed("a", "done"),
            keyed("a", "last"),
        ])
        .await;
    let mut bob = stage.subscribe("bob").await;
    assert_eq!(texts(&bob.take(1).await), ["dies"]);
    bob.expect_silence().await;
    // The second expires while it is held back.
    until("it has expired", async || stage.pending("bob").await == 3).await;
    assert_eq!(bob.nack(1, 1, fatal("no")).await.dead_lettered, 1);
    assert_eq!(texts(&bob.take(1).await), ["done"]);
    assert_eq!(bob.ack(2, 2).await.acknowledged, 1);
    assert_eq!(texts(&bob.take(1).await), ["last"]);

    // One that expires while it waits for its retry.
    let stage = Stage::with(&["alice", "bob"]).await;
    stage.publish_all([brief.ttl(Duration::from_secs(1)).build(), keyed("a", "next")]).await;
    let mut bob = stage.subscribe("bob").await;
    bob.take(1).await;
    assert_eq!(bob.nack(1, 1, after(LONG)).await.deferred, 1);
    bob.expect_silence().await;
    assert_eq!(texts(&bob.take(1).await), ["next"]);
}

#[tokio::test]
async fn line_6_a_key_goes_on_when_its_stream_has_gone() {
    let stage = Stage::with(&["alice"]).await;
    stage.register_with_policy("bob", quick(50)).await;
    stage.publish_all((1..=6).map(|number| keyed("a", &number.to_string()))).await;
    let mut other = stage.subscribe_with_credit("bob", 0).await;
    for number in 1..=3 {
        let mut mortal = stage.subscribe_mortal(super::scene::open("bob"), 1).await;
        assert_eq!(texts(&mortal.stream.take(1).await), [number.to_string()]);
        mortal.vanish();
        other.credit(1, 0);
        let again = other.take(1).await;
        assert_eq!((texts(&again)[0].as_str(), again[0].attempt), (number.to_string().as_str(), 2));
        assert_eq!(other.ack(again[0].delivery_id, again[0].delivery_id).await.acknowledged, 1);
    }
    // And in order: untouched, the next stream begins where this one was.
    let mut orderly = stage.subscribe_with_credit("bob", 5).await;
    assert_eq!(attempts(&orderly.take(1).await), [(4, 1)]);
    orderly.expect_silence().await;
    orderly.finish();
    assert!(orderly.answer().await.unwrap().is_none());
    other.credit(10, 0);
    for sequence in 4..=6 {
        let taken = other.take(1).await;
        assert_eq!(attempts(&taken), [(sequence, 1)]);
        assert_eq!(other.ack(taken[0].delivery_id, taken[0].delivery_id).await.acknowledged, 1);
    }
}

/// Two streams, failures at random, a crash: of each key every message comes after the one before was done.
#[tokio::test]
async fn promise_4_keys_keep_their_order_over_two_streams_failures_and_a_crash() {
    const MESSAGES: u64 = 96;
    const KEYS: u64 = 8;
    let mut random = Random::from_environment();
    let mut stage = Stage::with(&["alice"]).await;
    stage.register_with_policy("bob", quick(1_000)).await;
    stage.publish_all((0..MESSAGES).map(|number| keyed(&format!("k{}", number % KEYS), &number.to_string()))).await;
    let mut done = vec![0_u64; KEYS as usize];
    for life in 0..2 {
        let mut streams = [stage.subscribe("bob").await, stage.subscribe("bob").await];
        let enough = MESSAGES / 2 * (life + 1);
        while done.iter().sum::<u64>() < enough {
            let at = random.between(0, 1) as usize;
            for delivery in streams[at].take_up_to(1).await {
                let number: u64 = text(&delivery.message).parse().unwrap();
                let key = (number % KEYS) as usize;
                assert_eq!(number / KEYS, done[key], "of key {key} {} are done, and this came", done[key]);
                let id = delivery.delivery_id;
                if random.percent(25) {
                    assert_eq!(streams[at].nack(id, id, Default::default()).await.deferred, 1);
                } else {
                    assert_eq!(streams[at].ack(id, id).await.acknowledged, 1);
                    done[key] += 1;
                }
            }
        }
        if life == 0 {
            stage = stage.crash_and_start().await;
        }
    }
    assert_eq!(stage.pending("bob").await, 0);
}

/// What comes from a topic has keys as well, for each follower by itself.
#[tokio::test]
async fn line_6_keys_hold_for_topics_and_each_follower_by_itself() {
    let stage = Stage::with(&["alice", "bob", "carol"]).await;
    let topics = stage.client.topics(WORKSPACE);
    topics.create("t").await.unwrap();
    for follower in ["bob", "carol"] {
        topics.follow(follower, "t", Default::default()).await.unwrap();
    }
    let say = |key: &str, text: &'static str| {
        MessageBuilder::notification("alice", to_topic("t"), text).ordering_key(key).build()
    };
    stage.publish_all([say("a", "a1"), say("a", "a2"), say("b", "b1")]).await;
    let (mut bob, mut carol) = (stage.subscribe("bob").await, stage.subscribe("carol").await);
    assert_eq!(texts(&bob.take(2).await), ["a1", "b1"]);
    assert_eq!(bob.nack(1, 1, after(Duration::from_secs(3))).await.deferred, 1);
    assert_eq!(texts(&carol.take(2).await), ["a1", "b1"]);
    assert_eq!(carol.ack(1, 1).await.acknowledged, 1);
    assert_eq!(texts(&carol.take(1).await), ["a2"], "bob's retry is not carol's");
    bob.expect_silence().await;
    assert_eq!(attempts(&bob.take(1).await), [(1, 2)]);
    assert_eq!(bob.ack(3, 3).await.acknowledged, 1);
    assert_eq!(texts(&bob.take(1).await), ["a2"]);
}
