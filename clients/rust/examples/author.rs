//! An agent that asks: docs/guides/rust.md.

#![allow(clippy::print_stdout, reason = "what comes of it is for who runs it")]

use std::{env, time::Duration};

use tandem_client::{Client, Error, MessageBuilder, to_capability};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let client = Client::connect(env::args().nth(1).unwrap_or_else(|| "http://127.0.0.1:8001".to_owned()))?;
    client.registry("default").register_with_agents("author-team", Vec::new()).await?;
    for text in ["short", "a text that goes on and on"] {
        let question = MessageBuilder::request("author-team", to_capability("review"), text).content_type("text/plain");
        let answer = client.publisher("default").request(question.build(), Duration::from_secs(10)).await?;
        println!("{text}: {}", String::from_utf8_lossy(&answer.message.content));
    }
    Ok(())
}
