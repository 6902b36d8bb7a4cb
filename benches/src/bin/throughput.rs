//! What an application gets from the Rust client: each message sent by itself over a publish stream, each delivery acknowledged
//! by itself. The other clients have the same program (`bench.throughput` in Python, `bench/figures.js` in TypeScript).
//!
//! Takes the URL of a broker (`http://127.0.0.1:8001`) and works there in a workspace of its own.

#![allow(clippy::print_stdout, reason = "a program that reports to its user")]

use std::{collections::VecDeque, env, error::Error, process};

use tandem_benches::Process;
use tandem_client::{
    Client, Inbox, Message, MessageBuilder, PublishStreamOptions, SubscribeOptions, to_sandbox, to_topic,
};
use tokio::task::JoinSet;

const BYTES: usize = 256;
const PUBLISHED: usize = 1_000_000;
const HANDLED: usize = 200_000;
/// A topic that nobody follows: what is published stays in the log.
const UNHEARD: &str = "unheard";
/// Acknowledgements that wait for their outcome, of one handler.
const ACKS: usize = 256;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let url = env::args().nth(1).unwrap_or_else(|| "http://127.0.0.1:8001".to_owned());
    let client = Client::connect(url)?;
    let workspace = format!("throughput-{}", process::id());
    client.workspaces().create(workspace.as_str()).await?;
    let measured = Box::pin(measure(&client, &workspace)).await;
    client.workspaces().delete(workspace).await?;
    measured
}

async fn measure(client: &Client, workspace: &str) -> Result<(), Box<dyn Error>> {
    client.registry(workspace).register_with_agents("sender", Vec::new()).await?;
    client.registry(workspace).register_with_agents("handler", Vec::new()).await?;
    client.topics(workspace).create(UNHEARD).await?;
    for window_messages in [PublishStreamOptions::default().window_messages, 8_192] {
        let options = PublishStreamOptions { window_messages, ..Default::default() };
        let before = Process::now();
        publish(client, workspace, None, PUBLISHED, options).await?;
        report(&format!("published, a window of {window_messages}"), PUBLISHED, before);
    }
    publish(client, workspace, Some("handler"), HANDLED, PublishStreamOptions::default()).await?;
    let before = Process::now();
    handle(client.inbox(workspace, "handler", SubscribeOptions::default()).await?).await?;
    report("handled and acknowledged", HANDLED, before);
    Ok(())
}

/// All by one task, over one stream, one after the other; every receipt is looked at.
async fn publish(
    client: &Client,
    workspace: &str,
    to: Option<&str>,
    count: usize,
    options: PublishStreamOptions,
) -> Result<(), Box<dyn Error>> {
    let window = options.window_messages as usize;
    let stream = client.publisher(workspace).stream(options);
    let mut receipts = VecDeque::with_capacity(window);
    for _ in 0..count {
        if receipts.len() == window
            && let Some(oldest) = receipts.pop_front()
        {
            oldest.await?;
        }
        receipts.push_back(stream.send(message(to)).await?);
    }
    for receipt in receipts {
        receipt.await?;
    }
    Ok(())
}

fn message(to: Option<&str>) -> Message {
    let destination = to.map_or_else(|| to_topic(UNHEARD), to_sandbox);
    MessageBuilder::notification("sender", destination, vec![b'x'; BYTES]).build()
}

async fn handle(mut inbox: Inbox) -> Result<(), Box<dyn Error>> {
    let mut acks = JoinSet::new();
    for _ in 0..HANDLED {
        let delivery = inbox.next().await?.ok_or("the inbox ended early")?;
        if acks.len() == ACKS
            && let Some(acked) = acks.join_next().await
        {
            acked??;
        }
        acks.spawn(async move { delivery.ack().await });
    }
    while let Some(acked) = acks.join_next().await {
        acked??;
    }
    Ok(inbox.close().await?)
}

fn report(what: &str, count: usize, before: Process) {
    let sample = before.elapsed();
    let (rate, cpu) = (count as f64 / sample.seconds, sample.cpu_seconds * 1e6 / count as f64);
    println!("{what:<32}{rate:>10.0}/s{cpu:>8.2} us of this process each");
}
