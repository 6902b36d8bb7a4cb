//! Line 7: topics, patterns, late joiners, and broadcast.

use std::time::{Duration, UNIX_EPOCH};

use futures_util::TryStreamExt as _;
use tandem_client::{Code, FollowFrom, Message, MessageBuilder, Topics, to_topic};
use tandem_tests::{Refused, broadcast, direct, unix_nanos};

use super::scene::{attempts, because, fatal, texts, until};
use crate::stage::{Stage, WORKSPACE};

fn say(topic: &str, text: &str) -> Message {
    MessageBuilder::notification("alice", to_topic(topic), text.to_owned()).build()
}

impl Stage {
    fn topics(&self) -> Topics {
        self.client.topics(WORKSPACE)
    }

    async fn follow(&self, sandbox: &str, pattern: &str) {
        self.topics().follow(sandbox, pattern, FollowFrom::Next).await.unwrap();
    }

    async fn create_topics(&self, names: &[&str]) {
        for name in names {
            assert!(self.topics().create(*name).await.unwrap().1);
        }
    }

    /// All that waits for a sandbox; it is acknowledged.
    async fn drain(&self, sandbox: &str) -> Vec<String> {
        let waiting = self.pending(sandbox).await;
        let mut inbox = self.subscribe(sandbox).await;
        let taken = inbox.take(waiting as usize).await;
        inbox.expect_silence().await;
        if waiting > 0 {
            assert_eq!(inbox.ack(1, waiting).await.acknowledged, waiting);
        }
        assert_eq!(self.pending(sandbox).await, 0);
        texts(&taken)
    }
}

#[tokio::test]
async fn line_7_topics_are_created_listed_and_deleted() {
    let stage = Stage::with(&["alice", "bob"]).await;
    let topics = stage.topics();
    let error = stage.try_publish(say("build.done", "x")).await.unwrap_err();
    Refused::from(error).expect(Code::NotFound, "UNKNOWN_TOPIC", &["build.done"]);
    stage.create_topics(&["build.done", "alarm", "build.failed"]).await;
    assert!(!topics.create("alarm").await.unwrap().1, "creating it again changes nothing");
    stage.follow("bob", "build.done").await;
    let receipt = stage.publish(say("build.done", "1")).await;
    stage.publish(say("build.failed", "nobody follows")).await;

    let stage = stage.crash_and_start().await;
    let topics = stage.topics();
    let list: Vec<_> = topics.list().try_collect().await.unwrap();
    assert_eq!(
        list.iter().map(|topic| topic.name.as_str()).collect::<Vec<_>>(),
        ["alarm", "build.done", "build.failed"]
    );
    let topic = topics.get("build.done").await.unwrap();
    assert_eq!((topic.message_count, topic.last_sequence), (1, receipt.sequence));
    assert_eq!(stage.pending("bob").await, 1);
    topics.delete("build.done").await.unwrap();
    assert_eq!(stage.pending("bob").await, 0, "what waits there is given up");
    let mut bob = stage.subscribe("bob").await;
    bob.expect_silence().await;
    assert_eq!(stage.history(Default::default()).await.len(), 2, "the history keeps it");
    for gone in [topics.get("build.done").await.err(), topics.delete("build.done").await.err()] {
        Refused::from(gone.unwrap()).expect(Code::NotFound, "UNKNOWN_TOPIC", &["build.done"]);
    }
    for wrong in ["", "a..b", "a.*", "a.>", ".a", "a b", &"x".repeat(129)] {
        let refused = Refused::from(topics.create(wrong).await.unwrap_err());
        refused.expect(Code::InvalidArgument, "INVALID_FIELD", &[]).at("name");
    }
    for wrong in ["", "a.>.b", "a*", ">>"] {
        let refused = Refused::from(topics.follow("bob", wrong, FollowFrom::Next).await.unwrap_err());
        refused.expect(Code::InvalidArgument, "INVALID_FIELD", &[]).at("pattern");
    }
}

#[tokio::test]
async fn line_7_patterns_follow_topics_that_are_there_and_that_come_later() {
    let stage = Stage::with(&["alice", "one", "any", "exact", "both", "all"]).await;
    stage.create_topics(&["build", "build.done"]).await;
    for (sandbox, pattern) in [
        ("one", "build.*"),
        ("any", "build.>"),
        ("exact", "build.done"),
        ("both", "build.*"),
        ("both", "*.done"),
        ("all", ">"),
    ] {
        stage.follow(sandbox, pattern).await;
    }
    stage.create_topics(&["build.x.y", "test.done"]).await;
    for topic in ["build", "build.done", "build.x.y", "test.done"] {
        stage.publish(say(topic, topic)).await;
    }
    let stage = stage.crash_and_start().await;
    assert_eq!(stage.drain("one").await, ["build.done"]);
    assert_eq!(stage.drain("any").await, ["build.done", "build.x.y"]);
    assert_eq!(stage.drain("exact").await, ["build.done"]);
    assert_eq!(stage.drain("both").await, ["build.done", "test.done"], "once, although two patterns fit");
    assert_eq!(stage.drain("all").await, ["build", "build.done", "build.x.y", "test.done"]);
    assert!(stage.drain("alice").await.is_empty());
    let follows: Vec<_> =
        stage.topics().follows("both").await.unwrap().into_iter().map(|follow| follow.pattern).collect();
    assert_eq!(follows, ["*.done", "build.*"]);
}

/// Each follower has its own place, acknowledges for itself, retries by itself; the sender gets nothing of its own.
#[tokio::test]
async fn line_7_followers_do_not_disturb_one_another() {
    let stage = Stage::with(&["alice", "bob", "carol"]).await;
    stage.create_topics(&["t"]).await;
    for sandbox in ["alice", "bob", "carol"] {
        stage.follow(sandbox, "t").await;
    }
    stage.publish_all((1..=4).map(|number| say("t", &number.to_string()))).await;
    let mut bob = stage.subscribe("bob").await;
    bob.take(4).await;
    assert_eq!(bob.ack_ranges(&[(1, 1), (3, 3)]).await.acknowledged, 2);
    assert_eq!(bob.nack(2, 2, fatal("no")).await.dead_lettered, 1);
    assert_eq!(bob.nack(4, 4, because("again")).await.deferred, 1);
    let stage = stage.crash_and_start().await;
    assert_eq!((stage.pending("bob").await, stage.pending("carol").await), (1, 4));
    let mut bob = stage.subscribe("bob").await;
    let again = bob.take(1).await;
    assert_eq!((texts(&again)[0].as_str(), again[0].attempt), ("4", 2));
    assert_eq!(bob.ack(1, 1).await.acknowledged, 1);
    assert_eq!(stage.drain("carol").await, ["1", "2", "3", "4"]);
    let mut alice = stage.subscribe("alice").await;
    alice.expect_silence().await;
    assert_eq!(stage.dead_of("bob").await.len(), 1);
}

#[tokio::test]
async fn line_7_a_late_joiner_begins_now_at_a_sequence_or_at_a_time() {
    let stage = Stage::with(&["alice", "now", "sequence", "time", "start", "future"]).await;
    stage.create_topics(&["t", "u"]).await;
    stage.publish_all([say("t", "1"), say("u", "2"), say("t", "3")]).await;
    let third = stage.publish(say("t", "4")).await.server_time;
    until("the next millisecond", async || {
        UNIX_EPOCH + Duration::from_nanos(unix_nanos()) > third + Duration::from_millis(2)
    })
    .await;
    let fourth = stage.publish(say("t", "5")).await.server_time;
    assert!(fourth > third);
    let topics = stage.topics();
    let future = fourth + Duration::from_secs(3_600);
    for (sandbox, from, expected) in [
        ("now", FollowFrom::Next, 6),
        ("sequence", FollowFrom::Sequence(3), 3),
        ("time", FollowFrom::Time(fourth), 5),
        ("start", FollowFrom::Sequence(1), 1),
        ("future", FollowFrom::Time(future), 6),
    ] {
        let (follow, created) = topics.follow(sandbox, "t", from).await.unwrap();
        assert_eq!((follow.from_sequence, created), (expected, true), "{sandbox}");
    }
    let (again, created) = topics.follow("sequence", "t", FollowFrom::Sequence(1)).await.unwrap();
    assert_eq!((again.from_sequence, created), (3, false), "following again changes nothing");
    assert_eq!(stage.pending("sequence").await, 3);
    stage.publish(say("t", "6")).await;
    let stage = stage.crash_and_start().await;
    assert_eq!(stage.drain("now").await, ["6"]);
    assert_eq!(stage.drain("sequence").await, ["3", "4", "5", "6"]);
    assert_eq!(stage.drain("time").await, ["5", "6"]);
    assert_eq!(stage.drain("start").await, ["1", "3", "4", "5", "6"]);
    assert_eq!(stage.drain("future").await, ["6"]);
}

#[tokio::test]
async fn line_7_unfollow_gives_up_what_no_other_pattern_covers() {
    let stage = Stage::with(&["alice", "bob"]).await;
    stage.create_topics(&["build.done", "build.failed"]).await;
    stage.follow("bob", "build.*").await;
    stage.follow("bob", "build.done").await;
    stage.publish_all([say("build.done", "1"), say("build.failed", "2"), direct("alice", "bob", "3")]).await;
    let mut bob = stage.subscribe("bob").await;
    bob.take(3).await;
    stage.topics().unfollow("bob", "build.*").await.unwrap();
    let end = bob.end().await;
    end.expect(Code::Unavailable, "FOLLOWS_CHANGED", &["subscribe again"]);
    assert!(end.retry_delay.is_some());
    assert_eq!(stage.pending("bob").await, 2);
    stage.publish_all([say("build.done", "4"), say("build.failed", "5")]).await;
    let stage = stage.crash_and_start().await;
    let mut bob = stage.subscribe("bob").await;
    let taken = bob.take(3).await;
    assert_eq!(texts(&taken), ["1", "3", "4"]);
    assert!(attempts(&taken).iter().all(|(_, attempt)| *attempt == 1), "a change of follows is no failure");
    bob.finish();
    assert!(bob.answer().await.unwrap().is_none(), "given back in order: a failed attempt would wait on its own");
    stage.topics().unfollow("bob", "build.done").await.unwrap();
    let error = stage.topics().unfollow("bob", "build.done").await.unwrap_err();
    Refused::from(error).expect(Code::NotFound, "UNKNOWN_FOLLOW", &["\"bob\"", "build.done"]);
    // Followed anew, it begins anew.
    stage.follow("bob", "build.>").await;
    stage.publish(say("build.failed", "6")).await;
    assert_eq!(stage.drain("bob").await, ["3", "6"]);
}

#[tokio::test]
async fn line_7_a_message_is_written_once_whatever_the_number_of_followers() {
    let stage = Stage::with(&["alice"]).await;
    stage.create_topics(&["lonely", "popular"]).await;
    for number in 0..50 {
        let follower = format!("f{number}");
        stage.register(&follower).await;
        stage.follow(&follower, "popular").await;
    }
    let workspaces = stage.client.workspaces();
    let grown = async |topic: &str| {
        let before = workspaces.get(WORKSPACE).await.unwrap();
        stage.publish(say(topic, &"x".repeat(10_000))).await;
        let after = workspaces.get(WORKSPACE).await.unwrap();
        (after.stored_bytes - before.stored_bytes, after.last_sequence - before.last_sequence)
    };
    let lonely = grown("lonely").await;
    let popular = grown("popular").await;
    assert_eq!(lonely.1, 1);
    assert!(lonely.0 >= 10_000 && popular.0.abs_diff(lonely.0) < 100, "{lonely:?} {popular:?}");
    assert_eq!(stage.history(Default::default()).await.len(), 2);
    for number in [0, 49] {
        assert_eq!(stage.pending(&format!("f{number}")).await, 1);
    }
}

#[tokio::test]
async fn line_7_broadcast_is_for_everyone_but_the_sender() {
    let stage = Stage::with(&["alice", "bob", "carol"]).await;
    stage.publish_all([broadcast("alice", "from alice"), broadcast("bob", "from bob")]).await;
    stage.register("dora").await;
    stage.publish(broadcast("dora", "from dora")).await;
    let stage = stage.crash_and_start().await;
    assert_eq!(stage.drain("alice").await, ["from bob", "from dora"]);
    assert_eq!(stage.drain("bob").await, ["from alice", "from dora"]);
    assert_eq!(stage.drain("carol").await, ["from alice", "from bob", "from dora"]);
    assert!(stage.drain("dora").await.is_empty(), "who came later missed what was before, and gets nothing of its own");
    assert_eq!(stage.history(Default::default()).await.len(), 3, "written once");
}
