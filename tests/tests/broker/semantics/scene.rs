//! What these tests share: sandboxes that retry soon, subscribers that vanish, and waiting for what is to become true.

use std::time::Duration;

use futures_util::TryStreamExt as _;
use tandem_client::{
    DeadLetter, DeadLetterQuery, Delivery, Error, Nack as ClientNack, PurgeProgress, RedriveOptions, RedriveProgress,
    RetryPolicy, Sandbox, wire_duration,
};
use tandem_proto::messaging::v1::{Nack, Open};
use tandem_tests::{Subscriber, now};
use tokio::runtime::Runtime;

use crate::stage::{PLENTY, Stage, WORKSPACE, text};

/// How long something may take to become true.
const PATIENCE: Duration = Duration::from_secs(20);

/// A policy with so many attempts, and a backoff that stays the same.
pub(super) fn policy(max_attempts: u32, backoff: Duration) -> RetryPolicy {
    let backoff = Some(wire_duration(backoff));
    RetryPolicy { max_attempts, initial_backoff: backoff, max_backoff: backoff }
}

/// So many attempts, one soon after the other.
pub(super) fn quick(max_attempts: u32) -> RetryPolicy {
    policy(max_attempts, Duration::from_millis(10))
}

/// Options of a stream with this ack deadline.
pub(super) fn deadline(sandbox: &str, seconds: u64) -> Open {
    Open { ack_deadline: Some(wire_duration(Duration::from_secs(seconds))), ..open(sandbox) }
}

/// Options of a stream, all at their defaults.
pub(super) fn open(sandbox: &str) -> Open {
    Open { workspace_id: WORKSPACE.to_owned(), sandbox_id: sandbox.to_owned(), ..Open::default() }
}

/// A nack with a reason, after the backoff of the sandbox.
pub(super) fn because(reason: &str) -> Nack {
    Nack { reason: reason.to_owned(), ..Nack::default() }
}

/// A nack after which the message comes again when this has passed.
pub(super) fn after(delay: Duration) -> Nack {
    Nack { delay: Some(wire_duration(delay)), ..Nack::default() }
}

/// A nack after which the message is dead.
pub(super) fn fatal(reason: &str) -> Nack {
    Nack { dead_letter: true, ..because(reason) }
}

/// Sequence and attempt of each.
pub(super) fn attempts(deliveries: &[Delivery]) -> Vec<(u64, u32)> {
    deliveries.iter().map(|delivery| (delivery.message.sequence, delivery.attempt)).collect()
}

/// What each says.
pub(super) fn texts(deliveries: &[Delivery]) -> Vec<String> {
    deliveries.iter().map(|delivery| text(&delivery.message).to_owned()).collect()
}

/// Waits until this is true.
pub(super) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let started = now();
    while !holds().await {
        assert!(started.elapsed() < PATIENCE, "it did not come to this: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A subscriber with a connection of its own, which can break like that of a program that is killed.
pub(super) struct Mortal {
    pub(super) stream: Subscriber,
    connection: Runtime,
}

impl Mortal {
    /// Its connection ends in the middle of everything.
    pub(super) fn vanish(self) {
        self.connection.shutdown_background();
        drop(self.stream);
    }
}

impl Stage {
    pub(super) async fn register_with_policy(&self, sandbox: &str, retry_policy: RetryPolicy) {
        let sandbox =
            Sandbox { sandbox_id: sandbox.to_owned(), retry_policy: Some(retry_policy), ..Sandbox::default() };
        self.client.registry(WORKSPACE).register(sandbox).await.unwrap();
    }

    /// A stream with options of its own and plenty of credit.
    pub(super) async fn subscribe_as(&self, open: Open) -> Subscriber {
        self.subscribe_as_with_credit(open, PLENTY.0).await
    }

    /// The same with credit for so many messages.
    pub(super) async fn subscribe_as_with_credit(&self, open: Open, messages: u32) -> Subscriber {
        let subscriber = Subscriber::open_as(self.broker.channel(), open).await;
        subscriber.credit(messages, PLENTY.1);
        subscriber
    }

    /// One that can be made to vanish, with credit for so many messages.
    pub(super) async fn subscribe_mortal(&self, open: Open, messages: u32) -> Mortal {
        let connection = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let channel = {
            let _inside = connection.enter();
            self.broker.channel()
        };
        let stream = Subscriber::open_as(channel, open).await;
        stream.credit(messages, PLENTY.1);
        Mortal { stream, connection }
    }

    /// Takes so many messages and lets them die.
    pub(super) async fn kill_messages(&self, sandbox: &str, count: usize, reason: &str) {
        let mut inbox = self.client.subscribe(WORKSPACE, sandbox, Default::default()).await.unwrap();
        for _ in 0..count {
            let delivery = inbox.next().await.unwrap().unwrap();
            inbox.nack(&delivery, ClientNack::dead_letter(reason));
        }
        inbox.flush_acks().await.unwrap();
        assert_eq!(inbox.nack_counts().dead_lettered, count as u64);
        inbox.close().await.unwrap();
    }

    pub(super) async fn dead(&self, query: DeadLetterQuery) -> Vec<DeadLetter> {
        self.client.dead_letters(WORKSPACE).list(query).try_collect().await.unwrap()
    }

    /// The dead letters of one sandbox.
    pub(super) async fn dead_of(&self, sandbox: &str) -> Vec<DeadLetter> {
        self.dead(DeadLetterQuery { sandbox_id: Some(sandbox.to_owned()), ..DeadLetterQuery::default() }).await
    }

    /// Redrives to the end; returns each answer.
    pub(super) async fn redrive(
        &self,
        query: DeadLetterQuery,
        options: RedriveOptions,
    ) -> Result<Vec<RedriveProgress>, Error> {
        self.client.dead_letters(WORKSPACE).redrive(query, options).try_collect().await
    }

    pub(super) async fn purge(&self, query: DeadLetterQuery) -> u64 {
        let answers: Vec<PurgeProgress> = self.client.dead_letters(WORKSPACE).purge(query).try_collect().await.unwrap();
        answers.last().unwrap().purged
    }
}

/// The dead letters of one sandbox.
pub(super) fn of(sandbox: &str) -> DeadLetterQuery {
    DeadLetterQuery { sandbox_id: Some(sandbox.to_owned()), ..DeadLetterQuery::default() }
}
