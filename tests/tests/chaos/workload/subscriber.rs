//! Takes what waits in an inbox, and does with it what subscribers do: acknowledge, give back, prolong, forget, vanish.

use std::time::Duration;

use tandem_client::{Delivery, Nack, SubscribeOptions, Subscription};
use tandem_tests::history::{Act, Outcome};

use super::{Desk, name_and_digest};

/// How long a lease lasts: short, so that some lapse.
const ACK_DEADLINE: Duration = Duration::from_secs(2);
/// An outcome that takes longer is given up, and its stream with it.
const PATIENCE: Duration = Duration::from_secs(5);
/// Without a delivery for so long the subscriber turns to another node.
const SILENCE: Duration = Duration::from_secs(3);

const NACK_PERCENT: u64 = 3;
const DEAD_LETTER_PERCENT: u64 = 1;
const EXTEND_PERCENT: u64 = 5;
/// Of batches: left until their leases have lapsed.
const LAPSE_PERCENT: u64 = 1;
/// Of batches: the stream is dropped with all that it holds.
const VANISH_PERCENT: u64 = 2;

/// One subscription, under a name that is used once.
pub(crate) struct Session<'a> {
    desk: &'a Desk,
    client: String,
    name: String,
    sandbox: String,
    pub(crate) subscription: Subscription,
}

pub(super) async fn work(mut desk: Desk, sandbox: &'static str, number: u32) {
    let mut turn = 0;
    while desk.goes_on() {
        turn += 1;
        let name = format!("{sandbox}-{number}-{turn}");
        if let Some(mut session) = Session::open(&desk, sandbox, name).await {
            let mut random = desk.random.clone();
            while desk.goes_on() && session.step(&mut random).await {}
            desk.random = random;
        }
        desk.ways.turn();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

impl<'a> Session<'a> {
    /// Opens an inbox through the node in use; None when that fails.
    pub(crate) async fn open(desk: &'a Desk, sandbox: &str, name: String) -> Option<Self> {
        let invoke = desk.recorder.time();
        let options = SubscribeOptions::default().credit(64, 1 << 20).ack_deadline(ACK_DEADLINE);
        let opening = desk.ways.now().subscribe(&*desk.workspace, sandbox, options);
        let subscription = tokio::time::timeout(PATIENCE, opening).await.ok()?.ok()?;
        let client = format!("subscriber of {sandbox}");
        let act = Act::Subscribe { subscription: name.clone(), sandbox: sandbox.to_owned() };
        desk.recorder.note(&desk.workspace, &client, invoke, act);
        Some(Self { desk, client, name, sandbox: sandbox.to_owned(), subscription })
    }

    /// Takes a batch and deals with it. False when the stream is to be left.
    async fn step(&mut self, random: &mut tandem_tests::Random) -> bool {
        let Some(batch) = self.take(SILENCE).await else { return false };
        if random.percent(VANISH_PERCENT) {
            return false;
        }
        if random.percent(LAPSE_PERCENT) {
            tokio::time::sleep(ACK_DEADLINE + Duration::from_millis(500)).await;
        }
        let (mut done, mut failed) = (Vec::new(), Vec::new());
        for delivery in &batch {
            if random.percent(EXTEND_PERCENT) {
                self.subscription.extend(delivery, None);
            }
            match random.between(1, 100) {
                chance if chance <= DEAD_LETTER_PERCENT => failed.push((delivery, true)),
                chance if chance <= DEAD_LETTER_PERCENT + NACK_PERCENT => failed.push((delivery, false)),
                _ => done.push(delivery),
            }
        }
        self.acknowledge(&done).await && self.give_back(&failed).await
    }

    /// The deliveries that are here, noted; None when the stream broke or nothing came for so long.
    pub(crate) async fn take(&mut self, patience: Duration) -> Option<Vec<Delivery>> {
        let batch = tokio::time::timeout(patience, self.subscription.next_batch()).await.ok()?.ok()??;
        for delivery in &batch {
            let (id, content) = name_and_digest(&delivery.message);
            let act = Act::Deliver {
                subscription: self.name.clone(),
                sandbox: self.sandbox.clone(),
                sequence: delivery.message.sequence,
                id,
                content,
                attempt: delivery.attempt,
            };
            self.desk.recorder.found(&self.desk.workspace, &self.client, act);
        }
        Some(batch)
    }

    /// Acknowledges these, and notes what the broker says to all of them together. False when the stream broke.
    pub(crate) async fn acknowledge(&mut self, deliveries: &[&Delivery]) -> bool {
        if deliveries.is_empty() {
            return true;
        }
        let invoke = self.desk.recorder.time();
        let before = self.subscription.ack_counts();
        for delivery in deliveries {
            self.subscription.ack(delivery);
        }
        let flushed = tokio::time::timeout(PATIENCE, self.subscription.flush_acks()).await;
        let answered = matches!(&flushed, Ok(Ok(()))) || matches!(&flushed, Ok(Err(error)) if is_refusal(error));
        let after = self.subscription.ack_counts();
        let outcome = outcome(deliveries.len() as u64, after.confirmed - before.confirmed);
        let act = Act::Ack {
            subscription: self.name.clone(),
            sandbox: self.sandbox.clone(),
            deliveries: deliveries.iter().map(|delivery| (delivery.message.sequence, delivery.attempt)).collect(),
            outcome,
        };
        self.desk.recorder.note(&self.desk.workspace, &self.client, invoke, act);
        answered
    }

    /// Gives these back, some of them for good. False when the stream broke.
    async fn give_back(&mut self, deliveries: &[(&Delivery, bool)]) -> bool {
        for (delivery, dead_letter) in deliveries {
            let invoke = self.desk.recorder.time();
            let before = self.subscription.nack_counts();
            let nack = if *dead_letter { Nack::dead_letter("chance") } else { Nack::because("chance") };
            self.subscription.nack(delivery, nack);
            let flushed = tokio::time::timeout(PATIENCE, self.subscription.flush_acks()).await;
            let answered = matches!(&flushed, Ok(Ok(()))) || matches!(&flushed, Ok(Err(error)) if is_refusal(error));
            let after = self.subscription.nack_counts();
            let done = after.deferred + after.dead_lettered - before.deferred - before.dead_lettered;
            let act = Act::Nack {
                subscription: self.name.clone(),
                sandbox: self.sandbox.clone(),
                sequence: delivery.message.sequence,
                dead_letter: *dead_letter,
                outcome: outcome(1, done),
            };
            self.desk.recorder.note(&self.desk.workspace, &self.client, invoke, act);
            if !answered {
                return false;
            }
        }
        true
    }
}

/// Of several together only what holds for all is known. A refusal says nothing for sure: a leader may have died with its
/// answer, and the next one, which gets the ack again, knows only that the lease is not one of its own.
fn outcome(asked: u64, confirmed: u64) -> Outcome {
    if confirmed == asked { Outcome::Ok } else { Outcome::Unknown }
}

/// Whether the broker answered that it does not take the verdict, as it does for a lease that has ended.
fn is_refusal(error: &tandem_client::Error) -> bool {
    error.reason() == "LEASE_LOST"
}
