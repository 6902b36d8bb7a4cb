//! Quotas: who takes more than he may is told what and for how long, and nobody else feels it.

use std::time::Duration;

use tandem_client::{
    Batch, BatchReceipt, Client, Code, Error, ExceptionKind, Message, MessageBuilder, Quotas, Rate, Sandbox, Settings,
    SubscribeOptions, to_capability, to_capability_all,
};
use tandem_tests::{BrokerProcess, Home, Refused, direct, now};

use crate::stage::WORKSPACE;

/// A broker, and a client that is told of every refusal.
struct Shop {
    _home: Home,
    broker: BrokerProcess,
    client: Client,
}

impl Shop {
    async fn with(sandboxes: &[&str], quotas: Quotas) -> Self {
        let home = Home::new();
        let broker = BrokerProcess::start(&home, &home.config()).await;
        let endpoint = format!("http://{}", broker.grpc_address());
        let settings = Settings { attempts: 1, ..Settings::for_endpoint(endpoint) };
        let client = Client::with_settings(settings).unwrap();
        for sandbox in sandboxes {
            client.registry(WORKSPACE).register_with_agents(*sandbox, Vec::new()).await.unwrap();
        }
        assert_eq!(client.workspaces().set_quotas(WORKSPACE, quotas).await.unwrap(), with_all(quotas));
        Self { _home: home, broker, client }
    }

    async fn batch(&self, messages: &[Message]) -> BatchReceipt {
        let mut stream = self.client.publisher(WORKSPACE).batch_stream();
        stream.send(messages.iter().collect::<Batch>()).unwrap();
        stream.finish();
        let receipt = stream.next().await.unwrap().unwrap();
        // To its end: many that are broken off look like an attack.
        while stream.next().await.unwrap().is_some() {}
        receipt
    }

    async fn publish(&self, from: &str, content: impl Into<String>) -> Result<u64, Error> {
        let receipt = self.client.publisher(WORKSPACE).publish(direct(from, "bob", content)).await;
        receipt.map(|receipt| receipt.sequence)
    }
}

/// As they are shown: rates are there also where they have no limit.
fn with_all(quotas: Quotas) -> Quotas {
    let all = |rate: Option<Rate>| Some(rate.unwrap_or_default());
    Quotas { workspace: all(quotas.workspace), sandbox: all(quotas.sandbox), caller: all(quotas.caller), ..quotas }
}

fn rate(messages_per_second: u64, bytes_per_second: u64) -> Option<Rate> {
    Some(Rate { messages_per_second, bytes_per_second })
}

fn refusals(receipt: &BatchReceipt) -> Vec<Error> {
    let refused = |kind: &ExceptionKind| match kind {
        ExceptionKind::Refused(error) => error.clone(),
        other => panic!("{other:?}"),
    };
    receipt.exceptions.iter().map(|exception| refused(&exception.kind)).collect()
}

#[tokio::test]
async fn a_rate_lets_through_what_it_says_and_tells_how_long_to_wait() {
    let shop = Shop::with(&["alice", "bob"], Quotas { workspace: rate(50, 0), ..Quotas::default() }).await;
    let messages: Vec<_> = (0..300).map(|number| direct("alice", "bob", format!("{number}"))).collect();
    let receipt = shop.batch(&messages).await;
    assert!((50..=100).contains(&receipt.accepted), "{}", receipt.accepted);
    let refused = refusals(&receipt);
    assert!(refused.iter().all(|error| error.reason() == "RATE_LIMITED" && error.is_retryable()), "{refused:?}");
    assert!(refused[0].to_string().contains("workspace is 50 messages a second"), "{}", refused[0]);
    let error = refused[refused.len() - 1].clone();
    Refused::from(error.clone()).expect(Code::ResourceExhausted, "RATE_LIMITED", &["try again in"]);
    let delay = error.retry_delay().unwrap();
    assert!(delay <= Duration::from_millis(21), "{delay:?}");
    tokio::time::sleep(delay).await;
    shop.publish("alice", "in time").await.unwrap();

    // Over a while it is what it says.
    let started = now();
    let mut accepted = 0;
    while started.elapsed() < Duration::from_secs(3) {
        accepted += shop.batch(&messages[..20]).await.accepted;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let expected = 50.0 * started.elapsed().as_secs_f64();
    // What a busy machine does not ask for in time is gone.
    let within = expected / 2.0..expected + 60.0;
    assert!(within.contains(&f64::from(accepted)), "{accepted} instead of {expected}");

    // Also of single ones: at a rate that no disk is too slow for.
    let one = Quotas { workspace: rate(1, 0), ..Quotas::default() };
    shop.client.workspaces().set_quotas(WORKSPACE, one).await.unwrap();
    let started = now();
    let refused = loop {
        match shop.publish("alice", "too early").await {
            Err(error) => break error,
            Ok(_) => assert!(started.elapsed() < Duration::from_secs(30), "everything is let through"),
        }
    };
    assert_eq!(refused.reason(), "RATE_LIMITED");
}

#[tokio::test]
async fn a_loud_sandbox_leaves_the_others_their_part() {
    let quotas = Quotas { sandbox: rate(10, 0), workspace: rate(0, 20_000), ..Quotas::default() };
    let shop = Shop::with(&["alice", "bob", "carol"], quotas).await;
    let messages: Vec<_> = (0..50).map(|number| direct("alice", "bob", format!("{number}"))).collect();
    let receipt = shop.batch(&messages).await;
    assert!((10..=20).contains(&receipt.accepted), "{}", receipt.accepted);
    assert!(refusals(&receipt)[0].to_string().contains("sandbox is 10 messages"));
    shop.publish("carol", "mine").await.unwrap();
    // Bytes of all of them together.
    shop.publish("carol", "x".repeat(200_000)).await.unwrap();
    let error = shop.publish("carol", "x").await.unwrap_err();
    assert!(error.to_string().contains("workspace is 20000 bytes a second"), "{error}");
    assert!(error.retry_delay().unwrap() > Duration::from_secs(3), "what was too much is paid for");
}

#[tokio::test]
async fn what_is_counted_is_refused_when_it_is_used_up() {
    let quotas = Quotas {
        max_message_bytes: 2_000,
        max_sandboxes: 2,
        max_streams: 2,
        max_stored_bytes: 10_000,
        ..Quotas::default()
    };
    let shop = Shop::with(&["alice", "bob"], quotas).await;
    let third = shop.client.registry(WORKSPACE).register_with_agents("carol", Vec::new()).await.unwrap_err();
    assert_eq!(third.reason(), "TOO_MANY_SANDBOXES");
    let registry = shop.client.registry(WORKSPACE);
    let again = registry.register(Sandbox { sandbox_id: "bob".into(), ..Sandbox::default() }).await;
    again.expect("one that is there may be registered again");
    let large = shop.publish("alice", "x".repeat(2_000)).await.unwrap_err();
    Refused::from(large).expect(Code::ResourceExhausted, "QUOTA_EXCEEDED", &["quota of the workspace is 2000"]);

    let open = async || shop.client.subscribe(WORKSPACE, "bob", SubscribeOptions::default()).await;
    let (one, _two) = (open().await.unwrap(), open().await.unwrap());
    assert_eq!(open().await.unwrap_err().reason(), "QUOTA_EXCEEDED");
    drop(one);
    let started = now();
    while let Err(error) = open().await {
        assert!(error.reason() == "QUOTA_EXCEEDED" && started.elapsed() < Duration::from_secs(10), "{error}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    let mut sent = 0;
    let full = loop {
        match shop.publish("alice", "x".repeat(1_000)).await {
            Ok(_) => sent += 1,
            Err(error) => break error,
        }
    };
    assert!((8..=11).contains(&sent), "{sent}");
    Refused::from(full).expect(Code::ResourceExhausted, "QUOTA_EXCEEDED", &["its quota is 10000", "retention"]);
    shop.client.workspaces().set_quotas(WORKSPACE, Quotas::default()).await.unwrap();
    shop.publish("alice", "x".repeat(3_000)).await.unwrap();
}

#[tokio::test]
async fn quotas_outlive_a_restart() {
    let home = Home::new();
    let quotas = with_all(Quotas { caller: rate(7, 8), max_streams: 9, ..Quotas::default() });
    let broker = BrokerProcess::start(&home, &home.config()).await;
    broker.client().workspaces().set_quotas(WORKSPACE, quotas).await.unwrap();
    broker.kill_nine();
    let broker = BrokerProcess::start(&home, &home.config()).await;
    assert_eq!(broker.client().workspaces().quotas(WORKSPACE).await.unwrap(), quotas);
    let unknown = broker.client().workspaces().set_quotas("nowhere", quotas).await.unwrap_err();
    assert_eq!(unknown.reason(), "UNKNOWN_WORKSPACE");
}

/// How long publishes of one message take, one every few milliseconds: the 99th of 100.
async fn p99(client: &Client) -> Duration {
    let publisher = client.publisher("quiet");
    let mut took = Vec::new();
    for number in 0..2_000 {
        let started = now();
        publisher.publish(direct("alice", "bob", format!("{number}"))).await.unwrap();
        took.push(started.elapsed());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    took.sort_unstable();
    took[took.len() * 99 / 100]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a figure: for a machine that does nothing else"]
async fn a_noisy_workspace_leaves_the_latency_of_others() {
    let shop = Shop::with(&["alice", "bob"], Quotas { workspace: rate(2_000, 0), ..Quotas::default() }).await;
    let client = &shop.client;
    client.workspaces().create("quiet").await.unwrap();
    for sandbox in ["alice", "bob"] {
        client.registry("quiet").register_with_agents(sandbox, Vec::new()).await.unwrap();
    }
    let quiet = shop.broker.client();
    let alone = p99(&quiet).await;
    // Ten times what it may, in steps, until the figure is there.
    let noise = client.clone();
    let noisy = tokio::spawn(async move {
        let messages: Vec<_> = (0..200).map(|number| direct("alice", "bob", format!("{number}"))).collect();
        let mut stream = noise.publisher(WORKSPACE).batch_stream();
        let (mut sent, mut accepted) = (0_u64, 0_u64);
        loop {
            stream.send(messages.iter().collect::<Batch>()).unwrap();
            let receipt = stream.next().await.unwrap().unwrap();
            sent += u64::from(receipt.messages);
            accepted += u64::from(receipt.accepted);
            tokio::time::sleep(Duration::from_millis(10)).await;
            if sent > 60_000 {
                return (sent, accepted);
            }
        }
    });
    let beside = p99(&quiet).await;
    noisy.abort();
    println!("p99 alone {alone:?}, beside a workspace that sends ten times its quota {beside:?}");
    assert!(beside < alone * 2, "{alone:?}, {beside:?}");
}

#[tokio::test]
async fn a_rule_of_the_policy_limits_each_sandbox_by_itself() {
    let shop = Shop::with(&["a", "b", "c"], Quotas::default()).await;
    let publisher = shop.client.publisher(WORKSPACE);
    let capabilities = vec!["x".to_owned()];
    let agent = tandem_client::Agent { name: "coder".into(), role: "any".into(), capabilities };
    shop.client.registry(WORKSPACE).register_with_agents("b", vec![agent]).await.unwrap();
    let policy = r#"{"policy":"allow_list","rules":[
        {"from":"*","to":"b","rate_limit":{"messages_per_second":2}},{"from":"*","to":"*"}]}"#;
    shop.client.policies(WORKSPACE).set(policy, None).await.unwrap();
    // What a slow disk leaves time for is let through as well.
    let started = now();
    let (mut accepted, mut refused) = (0, Vec::new());
    while accepted + refused.len() < 6 || refused.is_empty() {
        match publisher.publish(direct("a", "b", "x")).await {
            Ok(_) => accepted += 1,
            Err(error) => refused.push(error),
        }
        let most = 2.0 + 2.0 * started.elapsed().as_secs_f64();
        assert!(accepted as f64 <= most, "{accepted} are let through, {refused:?}");
    }
    assert!(accepted >= 2, "so many may be sent at once: {refused:?}");
    let (reason, delay) = (refused[0].reason(), refused[0].retry_delay().unwrap());
    assert!(reason == "RATE_LIMITED" && delay <= Duration::from_millis(500), "{reason} {delay:?}");
    assert!(refused[0].to_string().contains("rule"), "{}", refused[0]);
    // Not by way of a capability either, to one of those who have it or to all: not before there may be one more.
    for to in [to_capability("x"), to_capability_all("x")] {
        let message = MessageBuilder::notification("a", to, "{}").build();
        loop {
            let asked = now();
            let Err(full) = publisher.publish(direct("a", "b", "x")).await else { continue };
            match publisher.publish(message.clone()).await {
                Err(error) => break assert_eq!(error.reason(), "RATE_LIMITED"),
                Ok(_) => assert!(asked.elapsed() >= full.retry_delay().unwrap(), "let through by way of a capability"),
            }
        }
    }
    // Another sandbox by the same rule, and the same one by another.
    publisher.publish(direct("c", "b", "x")).await.unwrap();
    publisher.publish(direct("a", "c", "x")).await.unwrap();
    tokio::time::sleep(Duration::from_millis(600)).await;
    publisher.publish(direct("a", "b", "x")).await.unwrap();
}
