//! A human says yes or no: a policy holds what an agent wants to do with money until somebody has decided.
//!
//! The buyer does not wait meanwhile: what became of each order is told to its inbox. Here the human is a function.
//!
//! Run it against `make run`:  cargo run -p tandem-client --example human_approval [URL]

#![allow(clippy::print_stdout, reason = "what comes of it is for who runs it")]

use std::{env, error::Error, process};

use serde_json::{Value, json};
use tandem_client::{
    Client, Decision, EventQuery, EventType, Inbox, Message, MessageBuilder, MessageType, Publisher, SubscribeOptions,
    Undeliverable, to_sandbox,
};

const ORDERS: [u64; 2] = [20, 5000];

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let client = Client::connect(env::args().nth(1).unwrap_or_else(|| "http://127.0.0.1:8001".to_owned()))?;
    // A workspace of its own, with a policy of its own.
    let workspace = format!("approval-{}", process::id());
    client.workspaces().create(workspace.as_str()).await?;
    let rule = json!({"from": "buyer", "to": "bank", "message_types": ["command"], "approval_required": true});
    let policy = json!({"policy": "deny_list", "rules": [rule]}).to_string();
    client.policies(workspace.as_str()).set(policy, None).await?;
    let of_buyer = join(&client, &workspace, "buyer").await?;
    let of_bank = join(&client, &workspace, "bank").await?;
    // Whoever fails ends all.
    let buying = buyer(client.publisher(workspace.as_str()), of_buyer);
    let (heard, paid, ()) = tokio::try_join!(buying, bank(of_bank), human(&client, &workspace))?;
    client.workspaces().delete(workspace).await?;
    println!("paid: {paid:?}; the buyer heard: {}", heard.join(", "));
    Ok(())
}

/// Registers a sandbox, and opens its inbox.
async fn join(client: &Client, workspace: &str, name: &str) -> Result<Inbox, Box<dyn Error>> {
    client.registry(workspace).register_with_agents(name, Vec::new()).await?;
    Ok(client.inbox(workspace, name, SubscribeOptions::default()).await?)
}

/// Orders, and returns how that has ended.
async fn buyer(publisher: Publisher, mut inbox: Inbox) -> Result<Vec<String>, Box<dyn Error>> {
    for amount in ORDERS {
        let order = MessageBuilder::command("buyer", to_sandbox("bank"), json!({ "amount": amount }).to_string());
        let approval_id = publisher.publish(order.build()).await?.approval_id.ok_or("the policy holds it")?;
        println!("{amount} waits for approval {approval_id}");
    }
    let mut heard = Vec::new();
    while heard.len() < ORDERS.len()
        && let Some(delivery) = inbox.next().await?
    {
        // The broker tells of each end; one that is no error is an approval.
        let refused = Undeliverable::from_message(delivery.message());
        heard.push(refused.map_or_else(|| "APPROVED".to_owned(), |refused| refused.code));
        delivery.ack().await?;
    }
    let that_is_all = MessageBuilder::notification("buyer", to_sandbox("bank"), r#""that is all""#);
    publisher.publish(that_is_all.build()).await?;
    inbox.close().await?;
    heard.sort();
    Ok(heard)
}

/// Pays, and returns what. It hears only of what was let through.
async fn bank(mut inbox: Inbox) -> Result<Vec<u64>, Box<dyn Error>> {
    let mut paid = Vec::new();
    while let Some(delivery) = inbox.next().await? {
        let is_order = delivery.message().r#type() == MessageType::Command;
        if is_order {
            paid.push(amount(delivery.message())?);
        }
        delivery.ack().await?;
        if !is_order {
            break;
        }
    }
    inbox.close().await?;
    Ok(paid)
}

/// Approves what is below 100, and denies the rest.
async fn human(client: &Client, workspace: &str) -> Result<(), Box<dyn Error>> {
    // From the first event on, so that none is missed.
    let query = EventQuery { from_event: 1, types: vec![EventType::ApprovalRequested], ..EventQuery::default() };
    let (mut events, approvals) = (client.events(workspace, query).await?, client.approvals(workspace));
    for _ in ORDERS {
        let asked = events.next().await?.ok_or("a stream that follows has no end")?.approval_id;
        let (_, order) = approvals.get(asked).await?;
        let amount = amount(&order.ok_or("somebody else has approved it")?)?;
        let (decision, comment) =
            if amount < 100 { (Decision::Approve, "fine with me") } else { (Decision::Deny, "too much") };
        approvals.decide(asked, decision, comment).await?;
    }
    Ok(())
}

fn amount(order: &Message) -> Result<u64, Box<dyn Error>> {
    let content: Value = serde_json::from_slice(&order.content)?;
    Ok(content["amount"].as_u64().ok_or("an order has an amount")?)
}
