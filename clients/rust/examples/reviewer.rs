//! An agent that answers: docs/guides/rust.md.

#![allow(clippy::print_stderr, reason = "what comes of it is for who runs it")]

use std::env;

use tandem_client::{Agent, Client, Error, MessageBuilder, SubscribeOptions};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let client = Client::connect(env::args().nth(1).unwrap_or_else(|| "http://127.0.0.1:8001".to_owned()))?;
    let reviewer = Agent { name: "reviewer".into(), role: "reviewer".into(), capabilities: vec!["review".into()] };
    client.registry("default").register_with_agents("review-team", vec![reviewer]).await?;
    let mut inbox = client.inbox("default", "review-team", SubscribeOptions::default()).await?;
    while let Some(delivery) = inbox.next().await? {
        let verdict = if delivery.message().content.len() > 20 { "too long" } else { "fine" };
        let answer = MessageBuilder::response_to(delivery.message(), "review-team", verdict).content_type("text/plain");
        client.publisher("default").publish(answer.build()).await?;
        // After a break the message comes again, and is answered again.
        if let Err(error) = delivery.ack().await {
            eprintln!("{error}");
        }
    }
    Ok(())
}
