//! Topics, dead letters, and the settings of workspaces and sandboxes.

use std::time::{Duration, UNIX_EPOCH};

use futures_util::TryStreamExt as _;
use tandem_client::{
    DeadLetterQuery, DeadLetterReason, FollowFrom, InboxLimits, MessageType, RedriveOptions, RetryPolicy, Sandbox,
    WorkspaceSettings, wire_duration,
};
use tandem_proto::messaging::v1::{DeadLetterFilter, follow_topics_request::Start};

use crate::fake::Fake;

#[tokio::test]
async fn topics_are_created_followed_and_listed() {
    let fake = Fake::start().await;
    let topics = fake.client().topics("w");
    let (topic, created) = topics.create("build.done").await.expect("no error");
    assert_eq!((topic.name.as_str(), created), ("build.done", true));
    assert_eq!(topics.get("build.done").await.expect("no error").message_count, 3);
    let names: Vec<_> = topics.list().map_ok(|topic| topic.name).try_collect().await.expect("no error");
    assert_eq!(names, ["a", "b"]);
    assert_eq!(topics.delete("gone").await.expect_err("there is none").reason(), "UNKNOWN_TOPIC");

    let at = UNIX_EPOCH + Duration::from_secs(9);
    for from in [FollowFrom::Next, FollowFrom::Sequence(7), FollowFrom::Time(at)] {
        let (follow, created) = topics.follow("bob", "build.*", from).await.expect("no error");
        assert_eq!((follow.pattern.as_str(), follow.from_sequence, created), ("build.*", 7, true));
    }
    let starts: Vec<_> = fake.seen.administration.follows.lock().unwrap().iter().map(|call| call.start).collect();
    let time = prost_types::Timestamp { seconds: 9, nanos: 0 };
    assert_eq!(starts, [None, Some(Start::FromSequence(7)), Some(Start::FromTime(time))]);
    topics.unfollow("bob", "build.*").await.expect("no error");
    let unfollows = fake.seen.administration.unfollows.lock().unwrap().clone();
    assert_eq!((unfollows[0].sandbox_id.as_str(), unfollows[0].pattern.as_str()), ("bob", "build.*"));
    assert_eq!(topics.follows("bob").await.expect("no error")[0].pattern, "build.>");
}

#[tokio::test]
async fn dead_letters_are_listed_by_filter() {
    let fake = Fake::start().await;
    let letters = fake.client().dead_letters("w");
    let query = DeadLetterQuery {
        sandbox_id: Some("bob".into()),
        reason: Some(DeadLetterReason::Loop),
        from_sandbox_id: Some("alice".into()),
        correlation_id: Some("talk".into()),
        message_type: Some(MessageType::Request),
        start_time: Some(UNIX_EPOCH + Duration::from_secs(1)),
        end_time: Some(UNIX_EPOCH + Duration::from_secs(2)),
        sequence: Some(12),
    };
    let list: Vec<_> = letters.list(query).try_collect().await.expect("no error");
    assert_eq!((list.len(), list[2].chain.as_slice()), (3, [1, 2].as_slice()));
    let expected = DeadLetterFilter {
        sandbox_id: "bob".into(),
        reason: DeadLetterReason::Loop.into(),
        from_sandbox_id: "alice".into(),
        correlation_id: "talk".into(),
        r#type: MessageType::Request.into(),
        start_time: Some(prost_types::Timestamp { seconds: 1, nanos: 0 }),
        end_time: Some(prost_types::Timestamp { seconds: 2, nanos: 0 }),
        sequence: 12,
    };
    let calls = fake.seen.administration.letters.lock().unwrap().clone();
    assert_eq!(calls.iter().map(|call| call.page_token.as_str()).collect::<Vec<_>>(), ["", "more"]);
    assert!(calls.iter().all(|call| call.filter.as_ref() == Some(&expected)), "{calls:?}");
    let letter = letters.get("bob", 12).await.expect("no error");
    assert_eq!((letter.sandbox_id.as_str(), letter.message.map(|m| m.sequence)), ("bob", Some(12)));
}

#[tokio::test]
async fn redrive_and_purge_tell_their_progress() {
    let fake = Fake::start().await;
    let letters = fake.client().dead_letters("w");
    let options = RedriveOptions { to_sandbox_id: Some("carol".into()), max_per_second: 50 };
    let redrive = letters.redrive(DeadLetterQuery::default(), options);
    assert!(fake.seen.administration.redrives.lock().unwrap().is_empty(), "it begins when it is read");
    let progress: Vec<_> = redrive.map_ok(|p| (p.redriven, p.skipped, p.done)).try_collect().await.expect("no error");
    assert_eq!(progress, [(10, 1, false), (15, 1, true)]);
    let call = fake.seen.administration.redrives.lock().unwrap()[0].clone();
    assert_eq!((call.to_sandbox_id.as_str(), call.max_per_second), ("carol", 50));

    let query = DeadLetterQuery { sandbox_id: Some("bob".into()), ..DeadLetterQuery::default() };
    let progress: Vec<_> = letters.purge(query).map_ok(|p| (p.purged, p.done)).try_collect().await.expect("no error");
    assert_eq!(progress, [(4, false), (9, true)]);
    let filter = fake.seen.administration.purges.lock().unwrap()[0].filter.clone();
    assert_eq!(filter.map(|filter| filter.sandbox_id).as_deref(), Some("bob"));
}

#[tokio::test]
async fn a_redrive_that_breaks_off_is_not_taken_for_done() {
    let fake = Fake::start().await;
    let options = RedriveOptions { to_sandbox_id: Some("nowhere".into()), ..RedriveOptions::default() };
    let redrive = fake.client().dead_letters("w").redrive(DeadLetterQuery::default(), options);
    let error = redrive.try_collect::<Vec<_>>().await.expect_err("it never said done");
    assert_eq!(error.reason(), "STREAM_ENDED");
}

#[tokio::test]
async fn workspaces_have_settings() {
    let fake = Fake::start().await;
    let workspaces = fake.client().workspaces();
    let settings = WorkspaceSettings {
        default_ttl: Some(wire_duration(Duration::from_secs(60))),
        retention_bytes: 1 << 30,
        max_hops: 4,
        ..WorkspaceSettings::default()
    };
    let created = workspaces.create_with("w", settings).await.expect("no error");
    assert_eq!((created.workspace_id.as_str(), created.settings.as_ref()), ("w", Some(&settings)));
    assert_eq!(workspaces.create("plain").await.expect("no error").settings, None);
    let updated = workspaces.update("w", WorkspaceSettings::default()).await.expect("no error");
    assert_eq!((updated.settings, updated.first_sequence), (Some(WorkspaceSettings::default()), 9));
}

#[tokio::test]
async fn sandboxes_have_policies_and_counters() {
    let fake = Fake::start().await;
    let policy = RetryPolicy {
        max_attempts: 20,
        initial_backoff: Some(wire_duration(Duration::from_millis(10))),
        ..RetryPolicy::default()
    };
    let limits = InboxLimits { max_messages: 10, max_bytes: 1 << 20 };
    let sandbox = Sandbox {
        sandbox_id: "bob".into(),
        retry_policy: Some(policy),
        inbox_limits: Some(limits),
        ..Sandbox::default()
    };
    let (bob, created) = fake.client().registry("w").register(sandbox.clone()).await.expect("no error");
    assert_eq!((bob, created), (Sandbox { dead_letters: 2, ..sandbox }, true));
}
