//! What the test knows must be true, whatever the broker says.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::Arc,
};

use tandem_client::{HistoryQuery, Message, destination};
use tandem_tests::Random;

use super::load::{self, Outcome, Sent};
use crate::stage::Stage;

/// Retries of acknowledged messages after each restart; those that were not acknowledged are all tried again.
const RETRIED: u64 = 40;

/// See the module.
#[derive(Default)]
pub(super) struct Ledger {
    /// Messages of the newest round, as they were sent.
    newest: Vec<Sent>,
    /// The log as it was read and checked, by sequence.
    log: Vec<Message>,
    by_id: HashMap<String, u64>,
    confirmed: HashMap<String, Arc<HashSet<u64>>>,
    /// Acks without an answer: the message may be in the inbox or not.
    unknown: HashMap<String, HashSet<u64>>,
    acknowledged: usize,
    unacknowledged: usize,
    accepted_unseen: usize,
}

impl Ledger {
    pub(super) fn confirmed(&self, sandbox: &str) -> Arc<HashSet<u64>> {
        self.confirmed.get(sandbox).cloned().unwrap_or_default()
    }

    pub(super) fn add(&mut self, outcome: Outcome) {
        self.newest = outcome.sent;
        for acked in outcome.acked {
            Arc::make_mut(self.confirmed.entry(acked.sandbox.clone()).or_default()).extend(acked.confirmed);
            self.unknown.entry(acked.sandbox).or_default().extend(acked.unknown);
        }
    }

    /// Reads what is new in the log, and finds every acknowledged message of the newest round there.
    pub(super) async fn check_new_history(&mut self, stage: &Stage) {
        let after = self.log.last().map_or(0, |message| message.sequence);
        for message in history_after(stage, after).await {
            let before = self.log.last().map_or(0, |message| message.sequence);
            assert!(message.sequence > before, "sequence {} after {before}", message.sequence);
            let other = self.by_id.insert(message.message_id.clone(), message.sequence);
            assert_eq!(other, None, "{} stands at {} as well", message.message_id, message.sequence);
            self.log.push(message);
        }
        for sent in &self.newest {
            let found = self.by_id.get(&sent.message.message_id).copied();
            match sent.sequence {
                Some(sequence) => {
                    assert_eq!(found, Some(sequence), "{} was acknowledged so", sent.message.message_id);
                    self.acknowledged += 1;
                }
                None => {
                    self.unacknowledged += 1;
                    self.accepted_unseen += usize::from(found.is_some());
                }
            }
            if let Some(sequence) = found {
                self.check_stored(&sent.message, sequence);
            }
        }
    }

    fn check_stored(&self, sent: &Message, sequence: u64) {
        let at = self.log.binary_search_by_key(&sequence, |message| message.sequence).unwrap();
        let stored = Message { workspace_id: String::new(), sequence: 0, server_time: None, ..self.log[at].clone() };
        assert_eq!(&stored, sent, "what was stored at {sequence} is not what was sent");
    }

    /// Publishes again what may have been lost, and some of what was not.
    pub(super) async fn retry(&mut self, stage: &Stage, random: &mut Random) {
        let newest = std::mem::take(&mut self.newest);
        let lost = newest.iter().filter(|sent| sent.sequence.is_none()).map(|sent| sent.message.clone());
        let mut again: Vec<Message> = lost.collect();
        if !newest.is_empty() {
            let drawn =
                (0..RETRIED).map(|_| newest[random.between(0, newest.len() as u64 - 1) as usize].message.clone());
            again.extend(drawn);
        }
        let receipts = stage.publish_all(again.clone()).await;
        let mut new = HashMap::new();
        for (message, receipt) in again.iter().zip(receipts) {
            let first = self.by_id.get(&message.message_id).or_else(|| new.get(&message.message_id)).copied();
            match first {
                Some(sequence) => {
                    let told = (receipt.sequence, receipt.duplicate);
                    assert_eq!(told, (sequence, true), "a retry of {}", message.message_id);
                }
                None => {
                    assert!(!receipt.duplicate, "{} is not in the log", message.message_id);
                    new.insert(message.message_id.clone(), receipt.sequence);
                }
            }
        }
    }

    /// The log from its beginning is what it was when it was checked part by part.
    pub(super) async fn check_all_history(&mut self, stage: &Stage) {
        self.check_new_history(stage).await;
        let all = history_after(stage, 0).await;
        assert_eq!(all.len(), self.log.len());
        for (now, before) in all.iter().zip(&self.log) {
            assert_eq!(now, before);
        }
    }

    /// Every inbox holds what was accepted for it and not acknowledged, once, in order.
    pub(super) async fn check_inboxes(&self, stage: &Stage) {
        for sandbox in load::sandboxes() {
            let waiting = stage.pending(&sandbox).await as usize;
            println!("{sandbox} has {waiting} messages waiting");
            let mut subscriber = stage.subscribe(&sandbox).await;
            let mut seen = Vec::with_capacity(waiting);
            while seen.len() < waiting {
                let count = (waiting - seen.len()).min(10_000);
                let deliveries = subscriber.take(count).await;
                subscriber.ack(deliveries[0].delivery_id, deliveries[count - 1].delivery_id).await;
                let bytes =
                    deliveries.iter().map(|delivery| prost::Message::encoded_len(&delivery.message) as u64).sum();
                subscriber.credit(count as u32, bytes);
                seen.extend(deliveries.iter().map(|delivery| delivery.message.sequence));
            }
            subscriber.expect_silence().await;
            assert!(seen.is_sorted_by(|one, next| one < next), "{sandbox} got messages twice or out of order");
            assert_eq!(stage.pending(&sandbox).await, 0);
            self.compare(&sandbox, &seen);
        }
    }

    fn compare(&self, sandbox: &str, seen: &[u64]) {
        let confirmed = self.confirmed(sandbox);
        let nothing = HashSet::new();
        let unknown = self.unknown.get(sandbox).unwrap_or(&nothing);
        let mut seen = seen.iter().peekable();
        for message in self.log.iter().filter(|message| is_for(message, sandbox)) {
            let sequence = message.sequence;
            let delivered = seen.next_if(|next| **next == sequence).is_some();
            if confirmed.contains(&sequence) {
                assert!(!delivered, "{sandbox} got {sequence} again after its ack was confirmed");
            } else if !unknown.contains(&sequence) {
                assert!(delivered, "{sandbox} never got {sequence}, and did not acknowledge it");
            }
        }
        assert_eq!(seen.next(), None, "{sandbox} got what is not for it");
    }

    /// A load that hardly did anything proves nothing.
    pub(super) fn expect_enough(&self, rounds: u32) {
        let confirmed: usize = self.confirmed.values().map(|acks| acks.len()).sum();
        assert!(self.acknowledged > 200 * rounds as usize, "{self}");
        assert!(confirmed > 50 * rounds as usize, "{self}");
        assert!(self.unacknowledged > rounds as usize, "the broker was killed while nothing was under way: {self}");
    }
}

impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let confirmed: usize = self.confirmed.values().map(|acks| acks.len()).sum();
        let unknown: usize = self.unknown.values().map(HashSet::len).sum();
        write!(
            f,
            "{} publishes acknowledged and found, {} not acknowledged, of which {} had been accepted; {confirmed} acks \
             confirmed, {unknown} without an answer",
            self.acknowledged, self.unacknowledged, self.accepted_unseen
        )
    }
}

async fn history_after(stage: &Stage, sequence: u64) -> Vec<Message> {
    let from_sequence = sequence + 1;
    stage.history(HistoryQuery { from_sequence, page_size: 1_000, ..HistoryQuery::default() }).await
}

fn is_for(message: &Message, sandbox: &str) -> bool {
    match message.destination.as_ref().and_then(|destination| destination.kind.as_ref()) {
        Some(destination::Kind::SandboxId(to)) => to == sandbox,
        _ => message.from_sandbox_id != sandbox,
    }
}
