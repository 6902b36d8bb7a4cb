//! A coordinator that hands out tasks by capability, and workers that share them.
//!
//! Each task is a request to whoever can do it and has the least to do. A worker that fails is asked again by the broker; its
//! message is never lost.
//!
//! Run it against `make run`:  cargo run -p tandem-client --example coordinator_and_workers [URL]

#![allow(clippy::print_stdout, reason = "what comes of it is for who runs it")]

use std::{collections::BTreeMap, env, error::Error, process, time::Duration};

use futures_util::future::try_join_all;
use serde_json::{Value, json};
use tandem_client::{
    Agent, Client, Inbox, InboxDelivery, MessageBuilder, MessageType, Nack, Publisher, SubscribeOptions, to_capability,
    to_capability_all,
};

const WORKERS: u32 = 3;
const TASKS: u64 = 12;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let client = Client::connect(env::args().nth(1).unwrap_or_else(|| "http://127.0.0.1:8001".to_owned()))?;
    // A workspace of its own: nothing that others have left is in the way.
    let workspace = format!("coordinator-{}", process::id());
    client.workspaces().create(workspace.as_str()).await?;
    let (registry, publisher) = (client.registry(workspace.as_str()), client.publisher(workspace.as_str()));
    registry.register_with_agents("coordinator", Vec::new()).await?;
    let mut workers = Vec::new();
    for number in 1..=WORKERS {
        let name = format!("worker-{number}");
        let agent = Agent { name: name.clone(), role: "worker".into(), capabilities: vec!["squares".into()] };
        registry.register_with_agents(name.as_str(), vec![agent]).await?;
        let inbox = client.inbox(workspace.as_str(), name.as_str(), SubscribeOptions::default()).await?;
        workers.push(worker(publisher.clone(), name, inbox));
    }
    // Whoever fails ends all.
    let (_, results) = tokio::try_join!(try_join_all(workers), coordinate(publisher))?;
    client.workspaces().delete(workspace).await?;

    let squares: Vec<_> = results.iter().filter_map(|result| result["square"].as_u64()).collect();
    let mut by = BTreeMap::<_, u32>::new();
    for result in &results {
        *by.entry(result["by"].as_str().unwrap_or_default()).or_default() += 1;
    }
    let by: Vec<_> = by.iter().map(|(name, count)| format!("{name}: {count}")).collect();
    println!("{squares:?}");
    println!("{}", by.join(", "));
    Ok(())
}

async fn coordinate(publisher: Publisher) -> Result<Vec<Value>, Box<dyn Error>> {
    let results = try_join_all((1..=TASKS).map(|number| ask(&publisher, number))).await?;
    let that_is_all = MessageBuilder::notification("coordinator", to_capability_all("squares"), r#""that is all""#);
    publisher.publish(that_is_all.build()).await?;
    Ok(results)
}

async fn ask(publisher: &Publisher, number: u64) -> Result<Value, Box<dyn Error>> {
    let task = json!({ "number": number }).to_string();
    let task = MessageBuilder::request("coordinator", to_capability("squares"), task);
    let answer = publisher.request(task.build(), Duration::from_secs(30)).await?;
    Ok(serde_json::from_slice(&answer.message.content)?)
}

async fn worker(publisher: Publisher, name: String, mut inbox: Inbox) -> Result<(), Box<dyn Error>> {
    while let Some(delivery) = inbox.next().await? {
        if delivery.message().r#type() == MessageType::Notification {
            delivery.ack().await?;
            break;
        }
        square(&publisher, &name, &delivery).await?;
    }
    inbox.close().await?;
    Ok(())
}

async fn square(publisher: &Publisher, name: &str, delivery: &InboxDelivery) -> Result<(), Box<dyn Error>> {
    let task: Value = serde_json::from_slice(&delivery.message().content)?;
    let number = task["number"].as_u64().ok_or("a task has a number")?;
    if number.is_multiple_of(5) && delivery.attempt() == 1 {
        // As it happens in real life.
        delivery.nack(Nack::because("the disk was busy").after(Duration::from_millis(50))).await?;
        return Ok(());
    }
    let answer = json!({"number": number, "square": number * number, "by": name}).to_string();
    publisher.publish(MessageBuilder::response_to(delivery.message(), name, answer).build()).await?;
    // Only now: what is not acknowledged comes again.
    delivery.ack().await?;
    Ok(())
}
