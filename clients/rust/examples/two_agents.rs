//! Two agents that talk: one asks, the other answers, and both tell what they hear.
//!
//! Run it against `make run`:  cargo run -p tandem-client --example two_agents [URL]

#![allow(clippy::print_stdout, reason = "what comes of it is for who runs it")]

use std::{borrow::Cow, env, process, time::Duration};

use tandem_client::{Agent, Client, Error, Inbox, Message, MessageBuilder, SubscribeOptions, to_sandbox};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let client = Client::connect(env::args().nth(1).unwrap_or_else(|| "http://127.0.0.1:8001".to_owned()))?;
    // A workspace of its own: nothing that others have left is in the way.
    let workspace = format!("two-agents-{}", process::id());
    client.workspaces().create(workspace.as_str()).await?;
    let of_alice = join(&client, &workspace, "alice", "author").await?;
    let of_bob = join(&client, &workspace, "bob", "reviewer").await?;
    tokio::try_join!(alice(&client, &workspace, of_alice), bob(&client, &workspace, of_bob))?;
    client.workspaces().delete(workspace).await
}

/// Registers a sandbox with an agent in it, and opens its inbox.
async fn join(client: &Client, workspace: &str, name: &str, role: &str) -> Result<Inbox, Error> {
    let agent = Agent { name: name.into(), role: role.into(), capabilities: Vec::new() };
    client.registry(workspace).register_with_agents(name, vec![agent]).await?;
    client.inbox(workspace, name, SubscribeOptions::default()).await
}

async fn alice(client: &Client, workspace: &str, mut inbox: Inbox) -> Result<(), Error> {
    let question = MessageBuilder::request("alice", to_sandbox("bob"), "fix the build").content_type("text/plain");
    let answer = client.publisher(workspace).request(question.build(), Duration::from_secs(10)).await?.message;
    println!("{} answers: {}", answer.from_sandbox_id, text(&answer));
    if let Some(delivery) = inbox.next().await? {
        println!("{} tells: {}", delivery.message().from_sandbox_id, text(delivery.message()));
        delivery.ack().await?;
    }
    inbox.close().await
}

async fn bob(client: &Client, workspace: &str, mut inbox: Inbox) -> Result<(), Error> {
    let publisher = client.publisher(workspace);
    if let Some(delivery) = inbox.next().await? {
        let question = delivery.message();
        println!("{} asks: {}", question.from_sandbox_id, text(question));
        let answer = MessageBuilder::response_to(question, "bob", "looks good").content_type("text/plain");
        publisher.publish(answer.build()).await?;
        // Only now: what is not acknowledged comes again.
        delivery.ack().await?;
    }
    let goodbye = MessageBuilder::notification("bob", to_sandbox("alice"), "I am going home");
    publisher.publish(goodbye.content_type("text/plain").build()).await?;
    inbox.close().await
}

fn text(message: &Message) -> Cow<'_, str> {
    String::from_utf8_lossy(&message.content)
}
