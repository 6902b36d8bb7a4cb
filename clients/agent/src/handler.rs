//! A program for each message: its exit code says what has become of it, its output is the response to a request.

use std::{path::Path, process::Stdio, sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use tandem_client::{Delivery, Error, Message, MessageBuilder, MessageType, Nack, SubscribeOptions, Subscription};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    process::{Child, Command},
    sync::{mpsc, watch},
    task::JoinSet,
};

use crate::{
    assignment::{Assignment, Handler},
    command::{exit_code, prepared},
    link::Link,
};

/// Bytes of a response, and of what is kept of the errors of a handler.
const MAX_RESPONSE_BYTES: u64 = 900 << 10;
const MAX_ERROR_BYTES: u64 = 4 << 10;
/// Bytes of a reason that goes back with a message.
const MAX_REASON_BYTES: usize = 1_000;
/// Between two tries to subscribe.
const WAIT: Duration = Duration::from_millis(500);
/// The exit code with which a handler says that no other try will help: the message becomes a dead letter. As `sysexits.h` has it.
const EXIT_REJECTED: u8 = 65;

/// What became of a message.
enum Outcome {
    Done,
    /// Another try may help.
    Again(String),
    Never(String),
}

struct Handled {
    delivery_id: u64,
    outcome: Outcome,
}

/// What each message is handled with.
struct Desk {
    link: Link,
    sandbox_id: String,
    workspace_id: String,
    timeout: Duration,
}

/// Handles messages until told to stop, and then ends what is under way.
pub(crate) async fn run(
    handler: &Handler,
    link: &Link,
    assignment: &Assignment,
    run_dir: &Path,
    mut stopping: watch::Receiver<bool>,
) -> u8 {
    let command = || prepared(&handler.command, assignment, run_dir);
    if command().is_none() {
        eprintln!("tandem-agent: the handler is empty");
        return 127;
    }
    let desk = Arc::new(Desk {
        link: link.clone(),
        sandbox_id: assignment.sandbox_id.clone(),
        workspace_id: assignment.workspace_id.clone(),
        timeout: Duration::from_secs(handler.timeout_seconds.max(1)),
    });
    let most = handler.concurrency.clamp(1, 256);
    tokio::select! {
        () = link.registered() => {}
        _ = stopping.wait_for(|stopping| *stopping) => {}
    }
    while !*stopping.borrow() {
        let options = SubscribeOptions::default().credit(most, 8 << 20);
        let (workspace, sandbox) = (assignment.workspace_id.as_str(), assignment.sandbox_id.as_str());
        let opened = tokio::select! {
            opened = link.client.subscribe(workspace, sandbox, options) => opened,
            _ = stopping.wait_for(|stopping| *stopping) => break,
        };
        let ended = match opened {
            Ok(inbox) => serve(inbox, &desk, command, &mut stopping).await,
            Err(error) => Err(error),
        };
        if let Err(error) = ended {
            eprintln!("tandem-agent: no messages come: {error}");
            tokio::time::sleep(WAIT).await;
        }
    }
    0
}

/// One subscription, until it breaks or this is to stop.
async fn serve(
    mut inbox: Subscription,
    desk: &Arc<Desk>,
    command: impl Fn() -> Option<Command>,
    stopping: &mut watch::Receiver<bool>,
) -> Result<(), Error> {
    let (told, mut handled) = mpsc::channel::<Handled>(256);
    let mut running = JoinSet::new();
    let acker = inbox.acker();
    // A handler may take longer than a delivery is lent for.
    let mut extending = tokio::time::interval(inbox.ack_deadline() / 3);
    let mut is_stopping = false;
    while !is_stopping || !running.is_empty() {
        tokio::select! {
            delivery = inbox.next(), if !is_stopping => {
                let Some(delivery) = delivery? else { return Ok(()) };
                let (desk, told, command) = (Arc::clone(desk), told.clone(), command());
                running.spawn(async move {
                    let delivery_id = delivery.delivery_id;
                    let outcome = match command {
                        Some(command) => desk.handle(command, delivery).await,
                        None => Outcome::Again("there is no handler".to_owned()),
                    };
                    // Nobody hears it when the subscription is gone, and the broker lends the message again.
                    drop(told.send(Handled { delivery_id, outcome }).await);
                });
            }
            Some(Handled { delivery_id, outcome }) = handled.recv() => match outcome {
                Outcome::Done => acker.ack(delivery_id),
                Outcome::Again(reason) => acker.nack(delivery_id, Nack::because(reason)),
                Outcome::Never(reason) => acker.nack(delivery_id, Nack::dead_letter(reason)),
            },
            Some(_) = running.join_next(), if !running.is_empty() => {}
            _ = extending.tick() => acker.extend_all(None),
            _ = stopping.wait_for(|stopping| *stopping), if !is_stopping => is_stopping = true,
        }
    }
    while let Ok(Handled { delivery_id, outcome }) = handled.try_recv() {
        match outcome {
            Outcome::Done => acker.ack(delivery_id),
            Outcome::Again(reason) => acker.nack(delivery_id, Nack::because(reason)),
            Outcome::Never(reason) => acker.nack(delivery_id, Nack::dead_letter(reason)),
        }
    }
    inbox.close().await
}

impl Desk {
    async fn handle(&self, mut command: Command, delivery: Delivery) -> Outcome {
        let shown = shown(&delivery).to_string();
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let ended = match child {
            Ok(child) => tokio::time::timeout(self.timeout, ended(child, shown)).await,
            Err(error) => return Outcome::Again(format!("the handler cannot be run: {error}")),
        };
        let (code, output, errors) = match ended {
            Ok(Ok(ended)) => ended,
            Ok(Err(error)) => return Outcome::Again(format!("the handler broke off: {error}")),
            Err(_) => return Outcome::Again(format!("the handler took more than {} s", self.timeout.as_secs())),
        };
        let sequence = delivery.message.sequence;
        if code != 0 {
            let text = String::from_utf8_lossy(&errors);
            eprint!("{text}");
            let last = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
            let mut reason = format!("exit code {code}: {last}");
            let end = (0..=MAX_REASON_BYTES.min(reason.len())).rev().find(|end| reason.is_char_boundary(*end));
            reason.truncate(end.unwrap_or(0));
            eprintln!("tandem-agent: message {sequence} is not handled: {reason}");
            return if code == EXIT_REJECTED { Outcome::Never(reason) } else { Outcome::Again(reason) };
        }
        // Whoever asks waits, also where nothing was said about it.
        let is_asked = delivery.message.r#type() == MessageType::Request || delivery.message.requires_response;
        if !is_asked {
            eprint!("{}", String::from_utf8_lossy(&output));
            return Outcome::Done;
        }
        self.respond(&delivery.message, output).await
    }

    async fn respond(&self, request: &Message, output: Vec<u8>) -> Outcome {
        if output.is_empty() {
            return Outcome::Again("the handler printed no response".to_owned());
        }
        // Another attempt at the same request is the same response: the requester gets one.
        let id = format!("re-{}-{}", request.sequence, self.sandbox_id);
        let mut response =
            MessageBuilder::response_to(request, self.sandbox_id.as_str(), output.clone()).message_id(id);
        if serde_json::from_slice::<Value>(&output).is_err() {
            let is_text = std::str::from_utf8(&output).is_ok();
            response = response.content_type(if is_text { "text/plain" } else { "application/octet-stream" });
        }
        let publisher = self.link.client.publisher(self.workspace_id.as_str());
        match publisher.publish(response.build()).await {
            Ok(_) => Outcome::Done,
            Err(error) if error.reason() == "MESSAGE_ID_REUSED" => Outcome::Done,
            Err(error) => Outcome::Again(format!("the response is not sent: {error}")),
        }
    }
}

/// A process from its input to its end. Dropped, it is killed.
async fn ended(mut child: Child, input: String) -> std::io::Result<(u8, Vec<u8>, Vec<u8>)> {
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let writing = async {
        if let Some(mut stdin) = stdin {
            // A handler need not read it.
            drop(stdin.write_all(input.as_bytes()).await);
        }
    };
    let (status, (), output, errors) =
        tokio::join!(child.wait(), writing, read(stdout, MAX_RESPONSE_BYTES), read(stderr, MAX_ERROR_BYTES));
    let output = output?;
    if output.len() as u64 > MAX_RESPONSE_BYTES {
        return Err(std::io::Error::other(format!("its response has more than {MAX_RESPONSE_BYTES} bytes")));
    }
    Ok((exit_code(Some(status?)), output, errors?))
}

/// All that comes, of which `most` bytes and one are kept: a process that nobody reads from would stand still.
async fn read(from: Option<impl AsyncRead + Unpin>, most: u64) -> std::io::Result<Vec<u8>> {
    let mut kept = Vec::new();
    if let Some(mut from) = from {
        (&mut from).take(most + 1).read_to_end(&mut kept).await?;
        tokio::io::copy(&mut from, &mut tokio::io::sink()).await?;
    }
    Ok(kept)
}

/// A message as handlers read it.
fn shown(delivery: &Delivery) -> Value {
    let message = &delivery.message;
    let kind = MessageType::try_from(message.r#type).unwrap_or_default();
    let kind = kind.as_str_name().trim_start_matches("MESSAGE_TYPE_").to_lowercase();
    let mut shown = json!({
        "message_id": message.message_id,
        "sequence": message.sequence,
        "type": kind,
        "from_sandbox_id": message.from_sandbox_id,
        "from_agent": message.from_agent,
        "to_agent": message.to_agent,
        "correlation_id": message.correlation_id,
        "requires_response": message.requires_response,
        "content_type": message.content_type,
        "metadata": message.metadata,
        "attempt": delivery.attempt,
    });
    let text = std::str::from_utf8(&message.content).ok();
    let (name, content) = match (serde_json::from_slice(&message.content), text) {
        (Ok(value), _) => ("content", value),
        (Err(_), Some(text)) => ("content", Value::from(text)),
        (Err(_), None) => ("content_base64", Value::from(STANDARD.encode(&message.content))),
    };
    shown[name] = content;
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivery(content: &'static [u8]) -> Delivery {
        let message = MessageBuilder::request("a", tandem_client::to_sandbox("b"), content).build();
        Delivery { delivery_id: 1, attempt: 2, message }
    }

    #[test]
    fn content_is_shown_as_what_it_is() {
        assert_eq!(shown(&delivery(b"{\"a\":1}"))["content"]["a"], 1);
        assert_eq!(shown(&delivery(b"plain {"))["content"], "plain {");
        assert_eq!(shown(&delivery(b"\xff\x00"))["content_base64"], "/wA=");
        assert_eq!(
            (&shown(&delivery(b"1"))["type"], &shown(&delivery(b"1"))["attempt"]),
            (&"request".into(), &2.into())
        );
    }

    #[tokio::test]
    async fn a_handler_that_prints_too_much_or_reads_nothing_is_no_trouble() {
        let run = async |script: &str, input: String| {
            let mut command = Command::new("/bin/sh");
            command.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
            ended(command.spawn().unwrap(), input).await
        };
        let long = "x".repeat(1 << 20);
        assert_eq!(
            run("cat >/dev/null; echo yes; echo no >&2; exit 3", long.clone()).await.unwrap(),
            (3, b"yes\n".to_vec(), b"no\n".to_vec())
        );
        assert_eq!(run("exit 0", long).await.unwrap().0, 0);
        assert!(run("head -c 2000000 /dev/zero", String::new()).await.is_err());
        let (code, _, errors) = run("head -c 2000000 /dev/zero >&2", String::new()).await.unwrap();
        assert!(code == 0 && errors.len() as u64 == MAX_ERROR_BYTES + 1);
    }
}
