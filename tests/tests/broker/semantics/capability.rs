//! Line 8: messages to whoever can do something.

use std::{collections::BTreeMap, time::Duration};

use tandem_client::{Agent, Code, Message, MessageBuilder, to_capability, to_capability_all};
use tandem_proto::messaging::v1::{PublishStreamRequest, publish_service_client::PublishServiceClient};
use tandem_tests::{Refused, direct, now};

use super::scene::{texts, until};
use crate::stage::{Stage, WORKSPACE};

fn review(text: &str) -> MessageBuilder {
    MessageBuilder::command("alice", to_capability("review"), text.to_owned())
}

fn to_all(capability: &str) -> Message {
    MessageBuilder::command("alice", to_capability_all(capability), "to all").build()
}

impl Stage {
    async fn register_able(&self, sandbox: &str, capabilities: &[&str]) {
        let agent = Agent {
            name: "worker".into(),
            role: "any".into(),
            capabilities: capabilities.iter().map(|one| (*one).to_owned()).collect(),
        };
        self.client.registry(WORKSPACE).register_with_agents(sandbox, vec![agent]).await.unwrap();
    }

    async fn loads(&self, sandboxes: &[&str]) -> Vec<u64> {
        let mut loads = Vec::new();
        for sandbox in sandboxes {
            loads.push(self.pending(sandbox).await);
        }
        loads
    }
}

#[tokio::test]
async fn line_8_the_least_loaded_is_chosen() {
    let stage = Stage::with(&["alice", "idle"]).await;
    for sandbox in ["r1", "r2", "r3"] {
        stage.register_able(sandbox, &["build", "review"]).await;
    }
    stage.publish_all((0..5).map(|_| direct("alice", "r1", "busy"))).await;
    stage.publish_all((0..2).map(|_| direct("alice", "r2", "busy"))).await;
    for number in 0..5 {
        stage.publish(review(&number.to_string()).build()).await;
    }
    assert_eq!(stage.loads(&["r1", "r2", "r3", "idle"]).await, [5, 4, 3, 0]);
    let stage = stage.crash_and_start().await;
    for _ in 0..6 {
        stage.publish(review("more").build()).await;
    }
    assert_eq!(stage.loads(&["r1", "r2", "r3", "idle"]).await, [6, 6, 6, 0], "a restart forgets nobody");
    let mut r3 = stage.subscribe("r3").await;
    let taken = r3.take(6).await;
    assert_eq!(texts(&taken).iter().filter(|text| *text == "more").count(), 3);
    let destination = taken[0].message.destination.clone().unwrap();
    assert_eq!(destination, to_capability("review"), "it says what it was addressed to");
}

#[tokio::test]
async fn line_8_an_ordering_key_sticks_to_its_sandbox_while_that_is_online() {
    let stage = Stage::set_up(&["alice"], |config| config.limits.heartbeat_timeout_ms = 1_000).await;
    let names = ["r1", "r2", "r3", "r4"];
    for sandbox in names {
        stage.register_able(sandbox, &["review"]).await;
    }
    // Whoever subscribes is online.
    let mut streams = BTreeMap::new();
    for sandbox in names {
        streams.insert(sandbox, stage.subscribe(sandbox).await);
    }
    let keys: Vec<String> = (0..12).map(|number| format!("change-{number}")).collect();
    for _ in 0..3 {
        for key in &keys {
            stage.publish(review(key).ordering_key(key.as_str()).build()).await;
        }
    }
    // One of each key at a time: the key shows with its first message, and nothing comes behind that.
    let mut before: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    let started = now();
    while before.len() < keys.len() {
        assert!(started.elapsed() < Duration::from_secs(20), "not all keys came: {before:?}");
        for (sandbox, stream) in &mut streams {
            for delivery in stream.take_up_to(keys.len()).await {
                before.entry(delivery.message.ordering_key).or_default().push(sandbox);
            }
        }
    }
    for stream in streams.values_mut() {
        stream.expect_silence().await;
        stream.finish();
        while stream.answer().await.unwrap().is_some() {}
    }
    drop(streams);
    assert!(before.values().all(|sandboxes| sandboxes.len() == 1), "each key has one place: {before:?}");
    assert!(names.iter().filter(|name| before.values().any(|at| at[0] == **name)).count() > 1, "{before:?}");

    // One goes offline: its keys move, and no others.
    let gone = before["change-0"][0];
    let total = stage.loads(&names).await;
    let registry = stage.client.registry(WORKSPACE);
    let mut alive = Vec::new();
    for sandbox in names.iter().filter(|name| **name != gone) {
        alive.push(stage.subscribe_with_credit(sandbox, 0).await);
    }
    until("it is offline", async || registry.get(gone).await.unwrap().liveness() == tandem_client::Liveness::Offline)
        .await;
    for key in &keys {
        stage.publish(review("later").ordering_key(key.as_str()).build()).await;
    }
    let loads = stage.loads(&names).await;
    for (index, sandbox) in names.iter().enumerate() {
        let own = before.values().filter(|at| at[0] == *sandbox).count() as u64;
        let grown = loads[index] - total[index];
        if *sandbox == gone {
            assert_eq!(grown, 0, "{sandbox} is offline");
        } else {
            assert!(grown >= own, "{sandbox} keeps its {own} keys and got {grown} messages");
        }
    }
}

#[tokio::test]
async fn line_8_to_all_reaches_everyone_who_can_online_or_not() {
    let stage = Stage::set_up(&["idle"], |config| config.limits.heartbeat_timeout_ms = 1_000).await;
    stage.register_able("alice", &["review"]).await;
    for sandbox in ["r1", "r2"] {
        stage.register_able(sandbox, &["review"]).await;
    }
    let registry = stage.client.registry(WORKSPACE);
    until("they are offline", async || {
        registry.get("r2").await.unwrap().liveness() == tandem_client::Liveness::Offline
    })
    .await;
    stage.publish(to_all("review")).await;
    let stage = stage.crash_and_start().await;
    assert_eq!(stage.loads(&["alice", "r1", "r2", "idle"]).await, [0, 1, 1, 0], "all but the sender");
    for sandbox in ["r1", "r2"] {
        let mut inbox = stage.subscribe(sandbox).await;
        assert_eq!(texts(&inbox.take(1).await), ["to all"]);
        assert_eq!(inbox.ack(1, 1).await.acknowledged, 1);
    }
    assert_eq!(stage.loads(&["r1", "r2"]).await, [0, 0]);
    assert_eq!(stage.history(Default::default()).await.len(), 1, "it is one message");
}

#[tokio::test]
async fn line_8_nobody_there_is_an_error() {
    // Long enough for a busy machine to publish what must find bob online.
    let silent = Duration::from_secs(3);
    let timeout_ms = silent.as_millis() as u64;
    let stage = Stage::set_up(&["idle"], |config| config.limits.heartbeat_timeout_ms = timeout_ms).await;
    stage.register_able("alice", &["review"]).await;
    let refuse = async |stage: &Stage, message: Message| {
        let refused = Refused::from(stage.try_publish(message).await.unwrap_err());
        refused.expect(Code::FailedPrecondition, "NO_CAPABLE_SANDBOX", &["\"review\""]);
    };
    // The sender itself is never chosen.
    refuse(&stage, review("x").build()).await;
    refuse(&stage, to_all("review")).await;
    stage.register_able("bob", &["review"]).await;
    let registry = stage.client.registry(WORKSPACE);
    stage.publish(review("now").build()).await;
    until("bob is offline", async || registry.get("bob").await.unwrap().liveness() == tandem_client::Liveness::Offline)
        .await;
    refuse(&stage, review("offline").build()).await;
    registry.heartbeat("bob").await.unwrap();
    stage.publish(review("back").build()).await;
    // An open subscription is as good as a heartbeat, for as long as it is open.
    let mut bob = stage.subscribe("bob").await;
    assert_eq!(texts(&bob.take(2).await), ["now", "back"]);
    let started = now();
    until("longer than the timeout", async || started.elapsed() > silent + Duration::from_millis(200)).await;
    stage.publish(review("subscribed").build()).await;
    assert_eq!(texts(&bob.take(1).await), ["subscribed"]);
    // Without the capability it is not chosen any more.
    stage.register_able("bob", &["build"]).await;
    refuse(&stage, review("unlearned").build()).await;
    registry.unregister("bob").await.unwrap();
    refuse(&stage, to_all("review")).await;
}

/// No state shows the messages of a request while they are shared out: they must not all go to the same one.
#[tokio::test]
async fn line_8_a_batch_is_shared_out() {
    let stage = Stage::with(&["alice"]).await;
    let names: Vec<String> = (0..10).map(|number| format!("worker-{number}")).collect();
    for name in &names {
        stage.register_able(name, &["review"]).await;
    }
    let messages = (0..100).map(|number| review(&number.to_string()).build()).collect();
    let request = PublishStreamRequest { workspace_id: WORKSPACE.into(), messages, ..Default::default() };
    let mut service = PublishServiceClient::new(stage.broker.channel());
    let mut answers = service.publish_stream(tokio_stream::iter([request])).await.unwrap().into_inner();
    assert_eq!(answers.message().await.unwrap().unwrap().accepted, 100);
    let loads = stage.loads(&names.iter().map(String::as_str).collect::<Vec<_>>()).await;
    assert_eq!(loads, [10; 10]);
}

#[tokio::test]
async fn messages_of_one_moment_are_shared_out() {
    let stage = Stage::with(&["alice"]).await;
    for sandbox in ["r1", "r2", "r3"] {
        stage.register_able(sandbox, &["review"]).await;
    }
    // Each of a request of its own, all at once: none of them sees what became of another.
    let mut publishing = tokio::task::JoinSet::new();
    for number in 0..24 {
        let publisher = stage.client.publisher(WORKSPACE);
        publishing.spawn(async move { publisher.publish(review(&number.to_string()).build()).await });
    }
    while let Some(published) = publishing.join_next().await {
        published.unwrap().unwrap();
    }
    let loads = stage.loads(&["r1", "r2", "r3"]).await;
    assert!(loads.iter().sum::<u64>() == 24 && loads.iter().all(|load| (6..=10).contains(load)), "{loads:?}");
}
