//! Reads an inbox over streams that come and go: acknowledges, refuses, forgets, breaks off.

use std::{collections::BTreeMap, sync::Arc, task::Poll, time::Duration};

use prost::Message as _;
use tandem_proto::messaging::v1 as wire;
use tokio::sync::oneshot;

use super::{
    clients::{Clients, PAUSE},
    draw::Draw,
    history::{Acked, Delivered, Moment, Reign},
    net::NodeId,
};
use crate::{
    batcher::BatcherHandle,
    command::{Ack, Nack, Outcome, nack::AttemptError},
    config::Limits,
    delivery::subscription::{Failure, Stop, Subscription, SubscriptionOptions},
    shard::{Shard, Shards},
};

/// How long a delivery may take, in milliseconds.
const ACK_DEADLINE_MS: u64 = 1_000;
/// Between two looks of a stream at its deadlines, in milliseconds.
const LOOK_MS: u64 = 50;

/// Who reads one inbox.
pub(super) struct Subscriber {
    pub(super) clients: Arc<Clients>,
    pub(super) workspace: &'static str,
    pub(super) sandbox: &'static str,
    pub(super) draw: Draw,
    /// How many of a hundred deliveries it refuses; half as many of the rest it leaves lying for a while.
    pub(super) fails_percent: u64,
}

/// One stream, on the node that serves it.
struct Stream {
    clients: Arc<Clients>,
    workspace: &'static str,
    sandbox: &'static str,
    draw: Draw,
    fails_percent: u64,
    number: u64,
    reign: Reign,
    subscription: Subscription,
    batcher: BatcherHandle,
    /// When each delivery is dealt with, in looks; its sequence, and when it was delivered.
    todo: BTreeMap<(u64, u64), (u64, Moment)>,
    looks: u64,
}

impl Subscriber {
    /// Runs for as long as the simulation.
    pub(super) async fn run(mut self) {
        let mut number = 0;
        loop {
            number += 1;
            if let Some(node) = self.clients.some_node(&mut self.draw) {
                let door = self.clients.doors.lock().get(&node).cloned();
                if let Some(door) = door {
                    let (clients, draw) = (Arc::clone(&self.clients), self.draw.split());
                    let (workspace, sandbox, fails_percent) = (self.workspace, self.sandbox, self.fails_percent);
                    // As long as it lasts. A node that is stopped in the middle is waited for, as TCP would.
                    let stream = async move {
                        let shards: Shards = door.shards;
                        let shard = shards.of(workspace);
                        if let Some(stream) =
                            open(node, shard, clients, (workspace, sandbox), draw, fails_percent, number)
                        {
                            stream.run().await;
                        }
                    };
                    door.handle.spawn(stream).await.ok();
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

fn open(
    node: NodeId,
    shard: &Shard,
    clients: Arc<Clients>,
    (workspace, sandbox): (&'static str, &'static str),
    draw: Draw,
    fails_percent: u64,
    number: u64,
) -> Option<Stream> {
    let leadership = *shard.group.leadership().borrow();
    if !leadership.is_leader {
        return None;
    }
    let reign = (node, leadership.term);
    let options = SubscriptionOptions { ack_deadline_ms: ACK_DEADLINE_MS, lenient: false, low_priority_percent: 10 };
    let parts = (Arc::clone(&shard.delivery), Arc::clone(&shard.time));
    let opened = Subscription::open(parts, workspace, sandbox, Limits::default(), options, 1);
    let mut subscription = opened.ok()?;
    subscription.add_credit(60_000, 60 << 20).ok()?;
    let batcher = shard.batcher.clone();
    let (todo, looks) = (BTreeMap::new(), 0);
    Some(Stream { clients, workspace, sandbox, draw, fails_percent, number, reign, subscription, batcher, todo, looks })
}

impl Stream {
    async fn run(mut self) {
        // Until it breaks off, or for ever.
        let looks = if self.draw.percent(50) { self.draw.between(10, 100) } else { u64::MAX };
        loop {
            let draining = self.clients.wishes().drain;
            if self.looks >= looks && !draining {
                for nack in self.subscription.break_off() {
                    drop(self.submit_nack(nack));
                }
                return;
            }
            self.looks += 1;
            let wait = tokio::time::timeout(
                Duration::from_millis(LOOK_MS),
                std::future::poll_fn(|context| match self.subscription.next(context.waker()) {
                    Ok(Some(bytes)) => Poll::Ready(Ok(bytes)),
                    Ok(None) => Poll::Pending,
                    Err(stop) => Poll::Ready(Err(stop)),
                }),
            );
            match wait.await {
                Ok(Ok(bytes)) => self.delivered(&bytes, draining),
                Ok(Err(Stop::Ended(_) | Stop::State(_) | Stop::Unreadable(_))) => return,
                Err(_) => {}
            }
            if let Some(ack) = self.subscription.dropped() {
                drop(self.submit_ack(ack));
            }
            let (nacks, _) = self.subscription.lapse();
            for nack in nacks {
                drop(self.submit_nack(nack));
            }
            self.deal();
        }
    }

    fn delivered(&mut self, batch: &[u8], draining: bool) {
        let batch = wire::DeliveryBatch::decode(batch).expect("what is delivered can be read");
        let mut history = self.clients.history.lock();
        for delivery in batch.deliveries {
            let Some(message) = delivery.message else { continue };
            let at = history.now();
            history.delivered.push(Delivered {
                workspace: self.workspace,
                sandbox: self.sandbox,
                label: String::from_utf8_lossy(&message.content).into_owned(),
                sequence: message.sequence,
                stream: self.number,
                reign: self.reign,
                at,
            });
            let wait = if draining { 0 } else { self.draw.below(8) };
            self.todo.insert((self.looks + wait, delivery.delivery_id), (message.sequence, at));
        }
    }

    /// Deals with the deliveries whose time has come.
    fn deal(&mut self) {
        let later = self.todo.split_off(&(self.looks + 1, 0));
        let due = std::mem::replace(&mut self.todo, later);
        for ((_, delivery), (sequence, delivered)) in due {
            let draining = self.clients.wishes().drain;
            if !draining && self.draw.percent(self.fails_percent) {
                let how = Failure {
                    error: AttemptError::Nacked,
                    text: bytes::Bytes::from_static(b"not today"),
                    delay_ms: self.draw.percent(50).then_some(100),
                    dead_letter: self.draw.percent(10),
                };
                let (nacks, _) = self.subscription.refuse(&[(delivery, delivery)], how);
                for nack in nacks {
                    drop(self.submit_nack(nack));
                }
            } else if !draining && self.draw.percent(self.fails_percent / 2) {
                // Too late, as a rule.
                let wait = self.draw.between(10, 60);
                self.todo.insert((self.looks + wait, delivery), (sequence, delivered));
            } else {
                let (ack, _) = self.subscription.acknowledge(&[(delivery, delivery)]);
                if let Some(ack) = ack {
                    self.acknowledge(ack, sequence, delivered);
                }
            }
        }
    }

    fn acknowledge(&mut self, ack: Ack, sequence: u64, delivered: Moment) {
        let number = {
            let mut history = self.clients.history.lock();
            let (workspace, sandbox, stream, reign) = (self.workspace, self.sandbox, self.number, self.reign);
            let asked = history.now();
            let confirmed = None;
            history.acked.push(Acked { workspace, sandbox, sequence, stream, reign, delivered, asked, confirmed });
            history.acked.len() - 1
        };
        let (settled, clients) = (self.submit_ack(ack), Arc::clone(&self.clients));
        tokio::spawn(async move {
            if let Ok(true) = settled.await {
                let mut history = clients.history.lock();
                let now = history.now();
                history.acked[number].confirmed = Some(now);
            }
        });
    }

    fn submit_ack(&self, ack: Ack) -> oneshot::Receiver<bool> {
        let (settle, (sender, receiver)) = (self.subscription.settler(&mut ack.alone()), oneshot::channel());
        let answer = move |result: crate::batcher::VerbResult| {
            let durable = matches!(&result, Ok(Outcome::Ack(Ok(acked))) if acked.count > 0);
            settle(matches!(&result, Ok(Outcome::Ack(Ok(_)))));
            sender.send(durable).ok();
        };
        self.batcher.acknowledge(ack, Box::new(answer));
        receiver
    }

    fn submit_nack(&self, nack: Nack) -> oneshot::Receiver<bool> {
        let (settle, (sender, receiver)) = (self.subscription.settler(&mut nack.alone()), oneshot::channel());
        let answer = move |result: crate::batcher::VerbResult| {
            let durable = matches!(&result, Ok(Outcome::Nack(Ok(_))));
            settle(durable);
            sender.send(durable).ok();
        };
        self.batcher.refuse(nack, Box::new(answer));
        receiver
    }
}
