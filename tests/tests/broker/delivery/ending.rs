//! How streams end when the broker ends them.

use std::time::Duration;

use tandem_client::{Code, PublishStreamOptions};
use tandem_tests::{BrokerProcess, Refused, direct};

use crate::stage::{Stage, WORKSPACE, text};

/// A stop with everything drained takes far less, and one that waits for somebody takes all the grace that there is: 5 s.
const SWIFT: Duration = Duration::from_secs(4);

/// The broker does not come back: nobody looks for it.
fn once() -> PublishStreamOptions {
    PublishStreamOptions { resume_attempts: Some(0), ..PublishStreamOptions::default() }
}

#[tokio::test]
async fn unregistering_ends_the_streams_of_a_sandbox_and_no_others() {
    let stage = Stage::with(&["alice", "bob"]).await;
    stage.publish_all(vec![direct("alice", "bob", "given up"); 7]).await;
    let mut alice = stage.subscribe("alice").await;
    let mut one = stage.subscribe_with_credit("bob", 3).await;
    one.take(3).await;
    // Its credit counts only now: two streams share what waits as their requests arrive.
    let mut two = stage.subscribe("bob").await;
    two.take(4).await;
    assert_eq!(stage.client.registry(WORKSPACE).unregister("bob").await.unwrap(), 7, "leased ones included");
    for stream in [&mut one, &mut two] {
        let says = ["the sandbox was unregistered", "register it again and subscribe anew"];
        stream.end().await.expect(Code::NotFound, "UNKNOWN_SANDBOX", &says);
    }
    stage.register("bob").await;
    assert_eq!(stage.pending("bob").await, 0, "a new inbox is empty");
    let mut bob = stage.subscribe("bob").await;
    stage.publish_all([direct("alice", "bob", "new"), direct("bob", "alice", "new")]).await;
    assert_eq!(text(&bob.take(1).await[0].message), "new");
    alice.take(1).await;
    assert_eq!(stage.history(Default::default()).await.len(), 9, "the messages stay in the history");
}

#[tokio::test]
async fn deleting_a_workspace_ends_its_streams() {
    let stage = Stage::with(&["bob"]).await;
    let mut bob = stage.subscribe("bob").await;
    stage.client.workspaces().delete(WORKSPACE).await.unwrap();
    let refused = bob.end().await;
    assert_eq!(refused.code, Code::NotFound, "{refused:?}");
    let error = stage.client.workspaces().get(WORKSPACE).await.unwrap_err();
    Refused::from(error).expect(Code::NotFound, "UNKNOWN_WORKSPACE", &[]);
    // A workspace of the same name begins anew.
    stage.client.workspaces().create(WORKSPACE).await.unwrap();
    stage.register("bob").await;
    assert_eq!(stage.publish(direct("bob", "bob", "x")).await.sequence, 1);
}

#[tokio::test]
async fn a_graceful_stop_ends_streams_with_the_reason_and_the_next_start_is_quick() {
    let stage = Stage::with(&["alice", "bob"]).await;
    let receipts = stage.publish_all((0..2_000).map(|number| direct("alice", "bob", number.to_string()))).await;
    let mut busy = stage.subscribe_with_credit("bob", 10).await;
    busy.take(10).await;
    let mut idle = stage.subscribe("alice").await;
    assert_eq!(busy.ack(1, 4).await.acknowledged, 4);

    let Stage { home, config, broker, .. } = stage;
    let (stopped, ends) = tokio::join!(broker.stop(), async { [busy.end().await, idle.end().await] });
    for end in ends {
        end.expect(Code::Unavailable, "SHUTTING_DOWN", &["shutting down; connect again"]);
        assert!(end.retry_delay.is_some());
    }
    let (exit, took) = stopped;
    assert_eq!(exit.code, Some(0), "{exit:#?}");
    assert!(took < SWIFT, "the stop took {took:?}");
    assert!(exit.stderr.contains("\"message\":\"stopped\""), "{exit:#?}");

    let broker = BrokerProcess::start(&home, &config).await;
    println!("ready after {:?}", broker.ready_after());
    assert!(broker.ready_after() < SWIFT);
    let stage = Stage { client: broker.client(), home, config, broker };
    assert_eq!(stage.pending("bob").await, receipts.len() as u64 - 4);
}

/// A publisher that sits on an open stream must not hold up the stop: what it has sent is answered, then the stream ends.
#[tokio::test]
async fn a_graceful_stop_does_not_wait_for_idle_publishers() {
    let stage = Stage::with(&["alice", "bob"]).await;
    let stream = stage.client.publisher(WORKSPACE).stream(once());
    stream.send(direct("alice", "bob", "before")).await.unwrap().await.unwrap();
    let Stage { home, config, broker, client } = stage;
    let (exit, took) = broker.stop().await;
    assert_eq!(exit.code, Some(0), "{exit:#?}");
    assert!(took < SWIFT, "the stop took {took:?}:\n{}", exit.stderr);
    let late = match stream.send(direct("alice", "bob", "after")).await {
        Ok(receipt) => receipt.await.map(drop),
        Err(error) => Err(error),
    };
    let refused = Refused::from(late.unwrap_err());
    assert_eq!(refused.code, Code::Unavailable, "{refused:?}");
    drop((home, config, client));
}

/// What was acknowledged before the stop is there after it, whatever was under way.
#[tokio::test]
async fn promise_1_acknowledged_means_durable_over_a_graceful_stop_under_load() {
    let stage = Stage::with(&["alice", "bob"]).await;
    let publisher = stage.client.publisher(WORKSPACE);
    let Stage { home, config, broker, .. } = stage;
    let load = async {
        let stream = publisher.stream(once());
        let mut pending = Vec::new();
        while let Ok(receipt) = stream.send(direct("alice", "bob", "x".repeat(200))).await {
            pending.push(receipt);
        }
        let mut acknowledged = Vec::new();
        for receipt in pending {
            acknowledged.extend(receipt.await.map(|receipt| receipt.sequence));
        }
        acknowledged
    };
    let stop = async {
        tokio::time::sleep(Duration::from_millis(400)).await;
        broker.stop().await
    };
    let (acknowledged, (exit, took)) = tokio::join!(load, stop);
    assert_eq!(exit.code, Some(0), "{exit:#?}");
    println!("{} acknowledged; the stop took {took:?}", acknowledged.len());
    assert!(took < SWIFT, "the stop took {took:?}");

    let broker = BrokerProcess::start(&home, &config).await;
    let stage = Stage { client: broker.client(), home, config, broker };
    let stored: Vec<u64> = stage.history(Default::default()).await.iter().map(|message| message.sequence).collect();
    assert!(!acknowledged.is_empty() && acknowledged.iter().all(|sequence| stored.binary_search(sequence).is_ok()));
    assert_eq!(stage.pending("bob").await, stored.len() as u64);
}
