//! Promise 8: every queue has a limit, and whoever meets it is told, with a delay where a later try can help.

use tandem_client::{Client, Code, PublishStreamOptions, Settings};
use tandem_tests::{Refused, Subscriber, direct};

use crate::stage::{Stage, WORKSPACE};

#[tokio::test]
async fn promise_8_a_full_inbox_refuses_until_something_is_acknowledged() {
    let stage = Stage::set_up(&["alice", "bob", "carol"], |config| config.limits.max_inbox_messages = 10).await;
    stage.publish_all(vec![direct("alice", "bob", "x"); 10]).await;
    let error = stage.try_publish(direct("alice", "bob", "one too many")).await.unwrap_err();
    let refused = Refused::from(error);
    refused.expect(Code::ResourceExhausted, "INBOX_FULL", &["\"bob\" holds 10 messages", "try again later"]);
    assert!(refused.retry_delay.is_some());
    stage.publish(direct("alice", "carol", "others are not held back")).await;
    let mut bob = stage.subscribe("bob").await;
    bob.take(10).await;
    stage.try_publish(direct("alice", "bob", "leased is not acknowledged")).await.unwrap_err();
    assert_eq!(bob.ack(1, 1).await.acknowledged, 1);
    stage.publish(direct("alice", "bob", "fits")).await;
    stage.try_publish(direct("alice", "bob", "full again")).await.unwrap_err();
    assert_eq!(stage.broker.metric("tandem_refusals_total").await, 3.0);
}

#[tokio::test]
async fn promise_8_streams_are_counted_and_a_place_comes_free() {
    let stage = Stage::set_up(&["bob"], |config| config.limits.max_streams = 2).await;
    let one = stage.subscribe("bob").await;
    let _two = stage.subscribe("bob").await;
    assert_eq!(stage.broker.metric("tandem_streams").await, 2.0);
    let refused = Refused::from(stage.client.subscribe(WORKSPACE, "bob", Default::default()).await.unwrap_err());
    refused.expect(Code::ResourceExhausted, "TOO_MANY_STREAMS", &["serves 2 streams", "close one"]);
    assert!(refused.retry_delay.is_some());
    drop(one);
    let mut tries = 0;
    while stage.client.subscribe(WORKSPACE, "bob", Default::default()).await.is_err() {
        tries += 1;
        assert!(tries < 100, "the place of a stream that ended must come free");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn promise_8_sandboxes_and_workspaces_are_counted() {
    let stage = Stage::set_up(&["a", "b"], |config| {
        config.limits.max_sandboxes_per_workspace = 2;
        config.limits.max_workspaces_per_shard = 1;
        config.storage.shards = 1;
    })
    .await;
    let registry = stage.client.registry(WORKSPACE);
    let error = registry.register_with_agents("c", Vec::new()).await.unwrap_err();
    Refused::from(error).expect(Code::ResourceExhausted, "TOO_MANY_SANDBOXES", &["has 2 sandboxes", "unregister one"]);
    assert!(!registry.register_with_agents("a", Vec::new()).await.unwrap().1, "registering again is no new sandbox");
    registry.unregister("a").await.unwrap();
    assert!(registry.register_with_agents("c", Vec::new()).await.unwrap().1);
    let error = stage.client.workspaces().create("second").await.unwrap_err();
    assert_eq!(Refused::from(error).reason, "TOO_MANY_WORKSPACES");
}

/// The budget of bytes that wait to be committed: unary publishes are refused when it is used up, streams are held back.
#[tokio::test]
async fn promise_8_what_waits_for_the_log_is_bounded() {
    let stage = Stage::set_up(&["alice", "bob"], |config| {
        config.limits.max_message_bytes = 400_000;
        config.limits.max_batch_bytes = 400_000;
        config.limits.max_queued_bytes = 400_000;
    })
    .await;
    let publishes: Vec<_> = (0..64)
        .map(|_| {
            // One that tries again gets through in the end.
            let endpoint = format!("http://{}", stage.broker.grpc_address());
            let settings = Settings { attempts: 1, ..Settings::for_endpoint(endpoint) };
            let publisher = Client::with_settings(settings).unwrap().publisher(WORKSPACE);
            tokio::spawn(async move { publisher.publish(direct("alice", "bob", "x".repeat(300_000))).await })
        })
        .collect();
    let (mut accepted, mut refused) = (0, 0);
    for publish in publishes {
        match publish.await.unwrap() {
            Ok(_) => accepted += 1,
            Err(error) => {
                let seen = Refused::from(error);
                seen.expect(
                    Code::ResourceExhausted,
                    "OVERLOADED",
                    &["400000 bytes", "try again after the delay given"],
                );
                assert!(seen.retry_delay.is_some());
                refused += 1;
            }
        }
    }
    println!("{accepted} accepted, {refused} refused");
    assert!(accepted > 0 && refused > 0, "{accepted} accepted, {refused} refused");
    assert_eq!(stage.pending("bob").await, accepted);
    let options = PublishStreamOptions { batch_bytes: 400_000, ..PublishStreamOptions::default() };
    let stream = stage.client.publisher(WORKSPACE).stream(options);
    for _ in 0..20 {
        drop(stream.send(direct("alice", "bob", "x".repeat(300_000))).await.unwrap());
    }
    stream.flush().await.unwrap();
    assert_eq!(stage.pending("bob").await, accepted + 20, "a stream waits instead");
    assert_eq!(stage.broker.metric("tandem_shard_queued_bytes").await, 0.0);
}

/// A subscriber that is given much and acknowledges nothing is held back, too.
#[tokio::test]
async fn promise_8_leases_are_bounded() {
    let stage = Stage::set_up(&["alice", "bob"], |config| config.limits.max_unacknowledged = 100).await;
    stage.publish_all(vec![direct("alice", "bob", "x"); 300]).await;
    let mut bob: Subscriber = stage.subscribe("bob").await;
    bob.take(100).await;
    bob.expect_silence().await;
    assert_eq!(bob.ack(1, 40).await.acknowledged, 40);
    bob.take(40).await;
    bob.expect_silence().await;
}
