//! Publishers that note what was acknowledged, and the check that it is there.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tandem_client::{Client, Error, Message, PublishStream, PublishStreamOptions};
use tandem_tests::{direct, named, now};
use tokio::task::JoinHandle;

use crate::trio::{PATIENCE, Trio, WORKSPACE, insist};

/// What each publisher publishes at least.
pub(crate) const LEAST: usize = 50;

/// Publishes one message after the other through the given nodes until told to stop; each until it is acknowledged.
/// Returns sequences by message id, and the longest time without an acknowledgement.
pub(crate) fn publish(
    clients: Vec<Client>,
    name: impl Into<String>,
    stop: Arc<AtomicBool>,
) -> JoinHandle<(BTreeMap<String, u64>, Duration)> {
    let name = name.into();
    tokio::spawn(async move {
        let mut acknowledged = BTreeMap::new();
        let (mut last, mut longest) = (now(), Duration::ZERO);
        let (mut turn, started) = (0, now());
        // A slow machine is given the time for as many as the check wants.
        while !stop.load(Ordering::Relaxed) || (acknowledged.len() <= LEAST && started.elapsed() < PATIENCE) {
            let id = format!("{name}-{:06}", acknowledged.len());
            let message = named(id.clone(), direct("alice", "bob", id.clone()));
            let begun = now();
            let receipt = loop {
                // A node that is gone is left for the next.
                match clients[turn % clients.len()].publisher(WORKSPACE).publish(message.clone()).await {
                    Ok(receipt) => break receipt,
                    Err(error) => {
                        assert!(error.is_retryable() || matches!(error, Error::Unreachable { .. }), "{error}");
                        assert!(begun.elapsed() < PATIENCE, "{id} is not taken: {error}");
                        turn += 1;
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                }
            };
            longest = longest.max(last.elapsed());
            last = now();
            acknowledged.insert(id, receipt.sequence);
        }
        (acknowledged, longest)
    })
}

/// Publishes this many messages of a kilobyte each. Returns their sequences by message id.
pub(crate) async fn fill(trio: &Trio, count: usize) -> BTreeMap<String, u64> {
    let publisher = trio.client(trio.running()[0]).publisher(WORKSPACE);
    let padding = "x".repeat(1_000);
    let mut acknowledged = BTreeMap::new();
    let ids: Vec<String> = (0..count).map(|number| format!("fill-{number:06}")).collect();
    for chunk in ids.chunks(500) {
        let publishing = chunk.iter().map(async |id| {
            let message = named(id.clone(), direct("alice", "bob", format!("{id} {padding}")));
            insist(async || publisher.publish(message.clone()).await).await.sequence
        });
        let sequences = futures_util::future::join_all(publishing.collect::<Vec<_>>()).await;
        acknowledged.extend(chunk.iter().cloned().zip(sequences));
    }
    acknowledged
}

/// Fills the state of the workspace with messages of `size` bytes, which no engine makes smaller, until `enough` says so of the
/// number of messages. They go to these sandboxes by turns: an inbox holds 1 GiB. So much at once may cost a leader its lease
/// on a slow disk: then it goes on with whoever leads next.
pub(crate) async fn fill_up(client: &Client, to: &[&str], size: usize, mut enough: impl AsyncFnMut(u64) -> bool) {
    const PORTION_BYTES: usize = 12 << 20;
    let mut seed = 1_u64;
    let mut content = || -> Vec<u8> {
        let words = std::iter::repeat_with(|| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            seed.to_be_bytes()
        });
        words.flatten().take(size).collect()
    };
    let portion = async |stream: &PublishStream, content: &mut dyn FnMut() -> Vec<u8>| {
        let mut receipts = Vec::new();
        for recipient in to.iter().cycle().take(PORTION_BYTES / size) {
            receipts.push(stream.send(Message { content: content().into(), ..direct("alice", recipient, "") }).await?);
        }
        futures_util::future::try_join_all(receipts).await
    };
    let (mut count, mut advanced) = (0, now());
    loop {
        let stream = client.publisher(WORKSPACE).stream(PublishStreamOptions::default());
        let error = loop {
            if let Err(error) = portion(&stream, &mut content).await {
                break error;
            }
            (count, advanced) = (count + (PORTION_BYTES / size) as u64, now());
            if enough(count).await {
                return;
            }
        };
        assert!(error.is_retryable(), "{error}");
        assert!(
            advanced.elapsed() < PATIENCE,
            "not one portion was taken within {PATIENCE:?}, after {count} messages: {error}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Every node tells what was acknowledged: once, with the sequence that was given.
pub(crate) async fn check(trio: &Trio, acknowledged: &BTreeMap<String, u64>) {
    for node in trio.running() {
        let mut found = BTreeMap::new();
        for message in trio.history(node).await {
            let other = found.insert(message.message_id.clone(), message.sequence);
            assert_eq!(other, None, "{} is there twice", message.message_id);
        }
        for (id, sequence) in acknowledged {
            assert_eq!(
                found.get(id),
                Some(sequence),
                "{id} was acknowledged with {sequence}; node {node} tells otherwise"
            );
        }
    }
}
