//! What a message costs as the retained log grows: 256-byte messages, fsync before every acknowledgement, one node.
//!
//! Publishes in rounds, all retained, and compares the rounds around 10 thousand messages with those around 5 million.
//! Broker and publisher share the process, so its processor time is that of both. Exit code 1 when the cost grew by more
//! than a tenth. Takes a path for the data; without one it makes a directory beside its own program.

#![allow(clippy::print_stdout, reason = "a program that reports to its user")]

use std::{error::Error, net::SocketAddr, path::PathBuf, process::ExitCode};

use tandem_benches::{Process, Sample};
use tandem_broker::{AuthConfig, Broker, Config};
use tandem_client::{Batch, BatchStream, Client, to_sandbox};
use tandem_proto::{
    messaging::v1::{Message, MessageType},
    registry::v1::Sandbox,
};

const WARM_UP: usize = 10_000;
const ROUND: usize = 100_000;
const ROUNDS: usize = 10;
const RETAINED: usize = 5_000_000;
const INBOXES: usize = 16;
const BATCH: usize = 256;
const IN_FLIGHT: usize = 4;
const ALLOWED_GROWTH: f64 = 1.10;

#[tokio::main]
async fn main() -> Result<ExitCode, Box<dyn Error>> {
    let data_dir = match std::env::args_os().nth(1) {
        Some(path) => PathBuf::from(path),
        None => std::env::current_exe()?.with_file_name(format!("growth-{}", std::process::id())),
    };
    let config = Config {
        data_dir: data_dir.clone(),
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        metrics_listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        auth: AuthConfig { open: true, ..AuthConfig::default() },
        ..Config::default()
    };
    let broker = Box::pin(Broker::start(config)).await?;
    let verdict = Box::pin(measure(broker.grpc_address())).await;
    Box::pin(broker.shutdown()).await?;
    std::fs::remove_dir_all(&data_dir)?;
    verdict
}

async fn measure(server: SocketAddr) -> Result<ExitCode, Box<dyn Error>> {
    let client = Client::connect(format!("http://{server}"))?;
    for inbox in 0..INBOXES {
        let sandbox = Sandbox { sandbox_id: format!("s{inbox}"), ..Sandbox::default() };
        client.registry("default").register(sandbox).await?;
    }
    let mut stream = client.publisher("default").batch_stream();
    let mut sent = 0;
    publish(&mut stream, &mut sent, WARM_UP).await?;
    let small = rounds(&mut stream, &mut sent).await?;
    while sent < RETAINED {
        let count = ROUND.min(RETAINED - sent);
        publish(&mut stream, &mut sent, count).await?;
        println!("{sent:>9} messages retained");
    }
    let large = rounds(&mut stream, &mut sent).await?;
    let wall = large.0 / small.0;
    let cpu = large.1 / small.1;
    println!("retained            wall us/message   cpu us/message");
    println!("from {WARM_UP:>9}      {:>15.3}  {:>15.3}", small.0, small.1);
    println!("from {RETAINED:>9}      {:>15.3}  {:>15.3}", large.0, large.1);
    println!("ratio               {wall:>15.3}  {cpu:>15.3}");
    Ok(if wall <= ALLOWED_GROWTH { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Medians over some rounds: wall and processor time for a message, in microseconds.
async fn rounds(stream: &mut BatchStream, sent: &mut usize) -> Result<(f64, f64), Box<dyn Error>> {
    let mut samples: Vec<Sample> = Vec::new();
    for _ in 0..ROUNDS {
        let before = Process::now();
        publish(stream, sent, ROUND).await?;
        samples.push(before.elapsed());
    }
    let per_message = |pick: fn(&Sample) -> f64| {
        let mut values: Vec<f64> = samples.iter().map(pick).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2] * 1e6 / ROUND as f64
    };
    Ok((per_message(|sample| sample.seconds), per_message(|sample| sample.cpu_seconds)))
}

async fn publish(stream: &mut BatchStream, sent: &mut usize, count: usize) -> Result<(), Box<dyn Error>> {
    let end = *sent + count;
    while *sent < end || stream.unanswered() > 0 {
        while *sent < end && stream.unanswered() < IN_FLIGHT {
            let mut batch = Batch::new();
            for _ in 0..BATCH.min(end - *sent) {
                batch.push(&message(*sent));
                *sent += 1;
            }
            stream.send(batch)?;
        }
        let receipt = stream.next().await?.ok_or("the stream ended early")?;
        if !receipt.exceptions.is_empty() {
            return Err(format!("{:?}", receipt.exceptions).into());
        }
    }
    Ok(())
}

fn message(number: usize) -> Message {
    Message {
        from_sandbox_id: "s0".into(),
        destination: Some(to_sandbox(format!("s{}", number % INBOXES))),
        r#type: MessageType::Notification.into(),
        content: vec![b'x'; 256].into(),
        ..Message::default()
    }
}
