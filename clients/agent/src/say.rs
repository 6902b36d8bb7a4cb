//! `tandem-agent send` and `request`: for shells and handlers in a sandbox, which know from their environment who they are.

use std::{io::Read as _, process::ExitCode, time::Duration};

use clap::{Args, Subcommand};
use tandem_client::{
    Client, Destination, Error, MessageBuilder, Settings, Token, broadcast, to_capability, to_sandbox, to_topic,
};

/// What can be said.
#[derive(Debug, Subcommand)]
pub(crate) enum Say {
    /// Tell something, and print the sequence that it got
    Send(What),
    /// Ask something, and print the answer
    Request {
        #[command(flatten)]
        what: What,
        /// How long to wait for the answer, in seconds
        #[arg(long, default_value_t = 60)]
        timeout: u64,
    },
}

/// A message.
#[derive(Debug, Args)]
pub(crate) struct What {
    /// A sandbox, `capability:NAME`, `topic:NAME`, or `all`
    to: String,
    /// The content; `-` reads it from standard input
    content: String,
    /// The agent that says it
    #[arg(long, default_value = "")]
    from_agent: String,
    /// What makes a message that is sent again the same one
    #[arg(long)]
    message_id: Option<String>,
}

impl What {
    fn destination(&self) -> Destination {
        match self.to.split_once(':') {
            Some(("capability", name)) => to_capability(name),
            Some(("topic", name)) => to_topic(name),
            _ if self.to == "all" => broadcast(),
            _ => to_sandbox(self.to.as_str()),
        }
    }

    fn content(&self) -> std::io::Result<Vec<u8>> {
        if self.content != "-" {
            return Ok(self.content.clone().into_bytes());
        }
        let mut content = Vec::new();
        std::io::stdin().read_to_end(&mut content)?;
        Ok(content)
    }
}

/// Says it. Exit codes: 0 said, 1 refused, 2 not in a sandbox.
pub(crate) async fn run(say: Say) -> ExitCode {
    let known = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let (Some(broker), Some(workspace), Some(sandbox)) =
        (known("TANDEM_BROKER"), known("TANDEM_WORKSPACE"), known("TANDEM_SANDBOX"))
    else {
        eprintln!(
            "tandem-agent: TANDEM_BROKER, TANDEM_WORKSPACE and TANDEM_SANDBOX say where this is; run it in a sandbox"
        );
        return ExitCode::from(2);
    };
    let settings = Settings {
        endpoints: broker.split(',').map(str::to_owned).collect(),
        token: known("TANDEM_TOKEN_FILE").map(Token::from_file),
        follow_leader: false,
        ..Settings::default()
    };
    match said(settings, &workspace, &sandbox, say).await {
        Ok(answer) => {
            use std::io::Write as _;
            let mut out = std::io::stdout().lock();
            match out.write_all(&answer).and_then(|()| out.write_all(b"\n")) {
                Ok(()) => ExitCode::SUCCESS,
                Err(_) => ExitCode::FAILURE,
            }
        }
        Err(text) => {
            eprintln!("tandem-agent: {text}");
            ExitCode::FAILURE
        }
    }
}

async fn said(settings: Settings, workspace: &str, sandbox: &str, say: Say) -> Result<Vec<u8>, String> {
    let told = |error: Error| format!("{}: {error}", error.reason());
    let publisher = Client::with_settings(settings).map_err(told)?.publisher(workspace);
    let what = match &say {
        Say::Send(what) | Say::Request { what, .. } => what,
    };
    let content = what.content().map_err(|error| format!("the content cannot be read: {error}"))?;
    let message = match &say {
        Say::Send(_) => MessageBuilder::notification(sandbox, what.destination(), content),
        Say::Request { .. } => MessageBuilder::request(sandbox, what.destination(), content),
    };
    let message = message.from_agent(what.from_agent.as_str());
    let message = match &what.message_id {
        Some(id) => message.message_id(id.as_str()),
        None => message,
    };
    match say {
        Say::Send(_) => {
            let receipt = publisher.publish(message.build()).await.map_err(told)?;
            Ok(receipt.sequence.to_string().into_bytes())
        }
        Say::Request { timeout, .. } => {
            let answer = publisher.request(message.build(), Duration::from_secs(timeout.max(1))).await.map_err(told)?;
            Ok(answer.message.content.to_vec())
        }
    }
}
