//! Tells webhooks of alerts, each at least once, or until it was tried as often as it may be.
//!
//! An attempt is claimed in the database before it begins, so no two make the same, and one whose process has ended is made again. A
//! delivery goes when it was heard: one that was heard in the moment in which a process ended is heard twice, under the same id.

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, task::JoinSet};

use super::{
    ALERT, RULE, place,
    webhook::{Sender, Unheard, WRITES},
};
use crate::{
    clock,
    config::AlertsConfig,
    error::Failure,
    metrics::Metrics,
    secrets::Secrets,
    service::{
        alert::{AlertDocument, DeliveryState, RuleDocument},
        scoped::{document, encode},
    },
    store::{Delivery, Resource, Store, StoreError},
};

/// Between two looks at what is due.
const PAUSE: Duration = Duration::from_millis(500);
/// Attempts at once.
const AT_ONCE: usize = 16;
/// Longer than an attempt may take, in milliseconds: after that somebody else makes it.
const CLAIM_MS: i64 = 30_000;
/// The longest time between two attempts, in milliseconds.
const MAX_BACKOFF_MS: u64 = 3_600_000;

/// See above. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Deliverer {
    store: Store,
    secrets: Secrets,
    sender: Sender,
    settings: AlertsConfig,
    metrics: Arc<Metrics>,
}

/// What has become of a delivery.
enum Fate {
    Delivered,
    Waiting { why: String, due_ms: i64 },
    Failed { why: String },
}

impl Deliverer {
    pub(crate) fn new(
        (store, secrets): (Store, Secrets),
        sender: Sender,
        settings: AlertsConfig,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { store, secrets, sender, settings, metrics }
    }

    /// Until told to stop. What is under way then is made again by whoever comes next.
    pub(crate) async fn run(self, mut stopping: watch::Receiver<bool>) {
        let mut attempts = JoinSet::new();
        loop {
            while attempts.try_join_next().is_some() {}
            let free = AT_ONCE.saturating_sub(attempts.len());
            match self.take(free).await {
                Ok(taken) => {
                    for delivery in taken {
                        let this = self.clone();
                        attempts.spawn(async move { this.attempt(delivery).await });
                    }
                }
                Err(error) => tracing::warn!(%error, "webhooks have to wait"),
            }
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                _ = stopping.wait_for(|stopping| *stopping) => return,
            }
        }
    }

    async fn take(&self, most: usize) -> Result<Vec<Delivery>, StoreError> {
        if most == 0 {
            return Ok(Vec::new());
        }
        let now_ms = clock::unix_ms();
        let timeout_ms = i64::try_from(self.settings.webhook_timeout_ms).unwrap_or(i64::MAX);
        let next_ms = now_ms.saturating_add(timeout_ms).saturating_add(CLAIM_MS);
        self.store.take_deliveries((now_ms, next_ms), u32::try_from(most).unwrap_or(u32::MAX)).await
    }

    async fn attempt(&self, delivery: Delivery) {
        if let Err(why) = self.try_once(&delivery).await {
            // It stays claimed, and is due again.
            tracing::warn!(delivery = delivery.id, code = why.code(), %why, "a webhook has to wait");
        }
    }

    async fn try_once(&self, delivery: &Delivery) -> Result<(), Failure> {
        let rule = self.store.get(RULE.name, &delivery.rule_id).await?;
        let heard = match rule.as_ref().map(document::<RuleDocument>).transpose()?.and_then(|rule| rule.webhook) {
            Some(webhook) => match rule.map(|row| webhook.secret.open(&self.secrets, place(&row))).transpose() {
                Ok(Some(secret)) => self.sender.send((&webhook.url, &secret), (&delivery.id, &delivery.body)).await,
                Ok(None) => Ok(()),
                Err(why) => Err(Unheard { why: why.to_string(), is_final: false }),
            },
            None => Err(Unheard { why: "its rule has no webhook any more".to_owned(), is_final: true }),
        };
        let fate = match heard {
            Ok(()) => Fate::Delivered,
            Err(Unheard { why, is_final }) => {
                self.metrics.webhooks_failed.inc();
                if is_final || delivery.attempts >= i64::from(self.settings.webhook_attempts) {
                    Fate::Failed { why }
                } else {
                    Fate::Waiting { why, due_ms: clock::unix_ms().saturating_add(self.backoff_ms(delivery.attempts)) }
                }
            }
        };
        self.settle(delivery, fate).await
    }

    /// How long after an attempt the next one is made: four times as long after each.
    fn backoff_ms(&self, attempts: i64) -> i64 {
        let doublings = u32::try_from(attempts.saturating_sub(1).saturating_mul(2)).unwrap_or(u32::MAX).min(40);
        let delay = self.settings.webhook_backoff_ms.saturating_mul(1 << doublings).min(MAX_BACKOFF_MS);
        i64::try_from(delay).unwrap_or(i64::MAX)
    }

    /// Writes what has become of a delivery where people look for it, and then ends it or puts it off.
    async fn settle(&self, delivery: &Delivery, fate: Fate) -> Result<(), Failure> {
        for _ in 0..WRITES {
            let Some(row) = self.store.get(ALERT.name, &delivery.alert_id).await? else { break };
            let mut said: AlertDocument = document(&row)?;
            said.attempts = delivery.attempts;
            (said.delivery, said.delivery_error) = match &fate {
                Fate::Delivered => (DeliveryState::Delivered, String::new()),
                Fate::Waiting { why, .. } => (DeliveryState::Waiting, super::cut(why)),
                Fate::Failed { why } => (DeliveryState::Failed, super::cut(why)),
            };
            let changed = Resource { document: encode(&said)?, update_ms: clock::unix_ms(), ..row };
            match self.store.update(&changed).await {
                Err(StoreError::Changed) => {}
                done => {
                    done?;
                    break;
                }
            }
        }
        match fate {
            Fate::Waiting { due_ms, .. } => self.store.put_off(delivery, due_ms).await?,
            Fate::Delivered => self.store.forget_delivery(&delivery.id).await?,
            Fate::Failed { why } => {
                tracing::warn!(alert = delivery.alert_id, attempts = delivery.attempts, why, "a webhook was not told");
                self.store.forget_delivery(&delivery.id).await?;
            }
        }
        Ok(())
    }
}
