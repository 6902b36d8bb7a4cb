//! A swarm that votes: a question goes to a topic that all members follow, and each tells its vote to who has asked.
//!
//! Run it against `make run`:  cargo run -p tandem-client --example swarm_vote [URL]

#![allow(clippy::print_stdout, reason = "what comes of it is for who runs it")]

use std::{collections::BTreeMap, env, error::Error, process};

use futures_util::future::try_join_all;
use serde_json::{Value, json};
use tandem_client::{
    Agent, Client, FollowFrom, Inbox, MessageBuilder, Publisher, SubscribeOptions, to_sandbox, to_topic,
};

const MEMBERS: [(&str, &str); 5] =
    [("careful", "wait"), ("eager", "release"), ("balanced", "release"), ("tired", "wait"), ("bold", "release")];

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let client = Client::connect(env::args().nth(1).unwrap_or_else(|| "http://127.0.0.1:8001".to_owned()))?;
    // A workspace of its own: nothing that others have left is in the way.
    let workspace = format!("swarm-{}", process::id());
    client.workspaces().create(workspace.as_str()).await?;
    let (publisher, topics) = (client.publisher(workspace.as_str()), client.topics(workspace.as_str()));
    topics.create("votes.release").await?;
    let of_chair = join(&client, &workspace, "chair", "chair").await?;
    let mut members = Vec::new();
    for (name, opinion) in MEMBERS {
        let inbox = join(&client, &workspace, name, "voter").await?;
        topics.follow(name, "votes.*", FollowFrom::Next).await?;
        members.push(member(publisher.clone(), name, opinion, inbox));
    }
    // Whoever fails ends all.
    let (_, votes) = tokio::try_join!(try_join_all(members), chair(publisher, of_chair))?;
    client.workspaces().delete(workspace).await?;

    let mut counted = BTreeMap::<_, u32>::new();
    for vote in votes.values() {
        *counted.entry(vote.as_str()).or_default() += 1;
    }
    let decision = counted.iter().max_by_key(|(_, count)| **count).map_or("nothing", |(vote, _)| *vote);
    let counted: Vec<_> = counted.iter().map(|(vote, count)| format!("{vote} {count}")).collect();
    println!("decided: {decision} ({})", counted.join(", "));
    Ok(())
}

/// Registers a sandbox with an agent in it, and opens its inbox.
async fn join(client: &Client, workspace: &str, name: &str, role: &str) -> Result<Inbox, Box<dyn Error>> {
    let agent = Agent { name: name.into(), role: role.into(), capabilities: Vec::new() };
    client.registry(workspace).register_with_agents(name, vec![agent]).await?;
    Ok(client.inbox(workspace, name, SubscribeOptions::default()).await?)
}

/// Asks, and returns who has voted for what.
async fn chair(publisher: Publisher, mut inbox: Inbox) -> Result<BTreeMap<String, String>, Box<dyn Error>> {
    let question = json!({"question": "Shall we release on Friday?"}).to_string();
    publisher.publish(MessageBuilder::notification("chair", to_topic("votes.release"), question).build()).await?;
    let mut votes = BTreeMap::new();
    while votes.len() < MEMBERS.len()
        && let Some(delivery) = inbox.next().await?
    {
        let content: Value = serde_json::from_slice(&delivery.message().content)?;
        let vote = content["vote"].as_str().ok_or("a vote is for something")?;
        votes.insert(delivery.message().from_sandbox_id.clone(), vote.to_owned());
        delivery.ack().await?;
    }
    inbox.close().await?;
    Ok(votes)
}

async fn member(publisher: Publisher, name: &str, opinion: &str, mut inbox: Inbox) -> Result<(), Box<dyn Error>> {
    if let Some(delivery) = inbox.next().await? {
        let question = delivery.message();
        let to = to_sandbox(question.from_sandbox_id.as_str());
        let vote = MessageBuilder::notification(name, to, json!({ "vote": opinion }).to_string());
        // The same id however often the question is delivered: one member, one vote.
        let vote = vote.message_id(format!("vote-{}-{name}", question.message_id));
        publisher.publish(vote.build()).await?;
        delivery.ack().await?;
    }
    inbox.close().await?;
    Ok(())
}
