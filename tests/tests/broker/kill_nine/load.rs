//! Publishers and subscribers that work until the broker is gone.

use std::{collections::HashSet, sync::Arc, time::Duration};

use tandem_client::{Client, Message, PublishStreamOptions};
use tandem_tests::{Random, broadcast, direct, named};
use tokio::task::JoinHandle;

use super::ledger::Ledger;
use crate::stage::{Stage, WORKSPACE};

const PUBLISHERS: usize = 3;
const RECIPIENTS: usize = 4;
const BROADCAST_PERCENT: u64 = 5;
/// What a subscriber leaves unacknowledged, so that inboxes have holes.
const LEFT_PERCENT: u64 = 15;

/// Everybody who is registered.
pub(super) fn sandboxes() -> Vec<String> {
    let publishers = (0..PUBLISHERS).map(|number| format!("publisher-{number}"));
    publishers.chain((0..RECIPIENTS).map(|number| format!("recipient-{number}"))).collect()
}

/// A message, and the sequence with which it was acknowledged, if it was.
pub(super) struct Sent {
    pub(super) message: Message,
    pub(super) sequence: Option<u64>,
}

/// What one subscriber acknowledged, by sequence.
pub(super) struct Acked {
    pub(super) sandbox: String,
    /// The broker said that the ack is durable.
    pub(super) confirmed: Vec<u64>,
    /// The broker was gone before it said so.
    pub(super) unknown: Vec<u64>,
}

/// A load under way.
pub(super) struct Load {
    publishers: Vec<JoinHandle<Vec<Sent>>>,
    subscribers: Vec<JoinHandle<Acked>>,
}

/// What came of a load.
pub(super) struct Outcome {
    pub(super) sent: Vec<Sent>,
    pub(super) acked: Vec<Acked>,
}

impl Load {
    pub(super) fn start(stage: &Stage, round: u32, random: &mut Random, ledger: &Ledger) -> Self {
        let publishers = (0..PUBLISHERS)
            .map(|number| tokio::spawn(publish(stage.broker.client(), round, number, random.fork())))
            .collect();
        let subscribers = (0..RECIPIENTS)
            .map(|number| {
                let sandbox = format!("recipient-{number}");
                let done = ledger.confirmed(&sandbox);
                tokio::spawn(subscribe(stage.broker.client(), sandbox, done, random.fork()))
            })
            .collect();
        Self { publishers, subscribers }
    }

    /// Waits until everybody has noticed that the broker is gone.
    pub(super) async fn end(self) -> Outcome {
        let mut outcome = Outcome { sent: Vec::new(), acked: Vec::new() };
        for publisher in self.publishers {
            outcome.sent.extend(publisher.await.unwrap());
        }
        for subscriber in self.subscribers {
            outcome.acked.push(subscriber.await.unwrap());
        }
        outcome
    }
}

async fn publish(client: Client, round: u32, number: usize, mut random: Random) -> Vec<Sent> {
    // What has no answer when the broker is killed is looked for in its log, and not sent again.
    let options =
        PublishStreamOptions { window_messages: 256, resume_attempts: Some(0), ..PublishStreamOptions::default() };
    let stream = client.publisher(WORKSPACE).stream(options);
    let from = format!("publisher-{number}");
    let mut pending = Vec::new();
    'load: loop {
        for _ in 0..random.between(1, 60) {
            let id = format!("round-{round}:{from}:{}", pending.len());
            let content = format!("{id} {}", "x".repeat(random.between(0, 600) as usize));
            let message = if random.percent(BROADCAST_PERCENT) {
                broadcast(&from, content)
            } else {
                direct(&from, &format!("recipient-{}", random.between(0, RECIPIENTS as u64 - 1)), content)
            };
            let message = named(id, message);
            match stream.send(message.clone()).await {
                Ok(receipt) => pending.push((message, Some(receipt))),
                Err(_) => {
                    pending.push((message, None));
                    break 'load;
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(random.between(1, 4))).await;
    }
    let mut sent = Vec::with_capacity(pending.len());
    for (message, receipt) in pending {
        let receipt = match receipt {
            Some(receipt) => receipt.await.ok(),
            None => None,
        };
        assert!(receipt.as_ref().is_none_or(|receipt| !receipt.duplicate), "{} was sent once", message.message_id);
        sent.push(Sent { message, sequence: receipt.map(|receipt| receipt.sequence) });
    }
    sent
}

async fn subscribe(client: Client, sandbox: String, done: Arc<HashSet<u64>>, mut random: Random) -> Acked {
    let mut acked = Acked { sandbox: sandbox.clone(), confirmed: Vec::new(), unknown: Vec::new() };
    // The broker may be gone before the stream is open.
    let Ok(mut subscription) = client.subscribe(WORKSPACE, &sandbox, Default::default()).await else { return acked };
    let mut newest = 0;
    while let Ok(Some(batch)) = subscription.next_batch().await {
        let mut chosen = Vec::new();
        for delivery in &batch {
            let sequence = delivery.message.sequence;
            assert!(sequence > newest, "{sandbox} got {sequence} after {newest}, both of one priority, on one stream");
            assert!(!done.contains(&sequence), "{sandbox} got {sequence} again after its ack was confirmed");
            newest = sequence;
            if !random.percent(LEFT_PERCENT) {
                subscription.ack(delivery);
                chosen.push(sequence);
            }
        }
        match subscription.flush_acks().await {
            Ok(()) => acked.confirmed.extend(chosen),
            Err(error) => {
                assert!(error.is_retryable(), "an ack of a held lease was refused: {error}");
                acked.unknown.extend(chosen);
                break;
            }
        }
    }
    acked
}
