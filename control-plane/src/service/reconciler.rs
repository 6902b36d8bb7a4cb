//! Makes true what was begun and not ended, by this control plane or another one: one of those on a database does it at a time.

use std::{sync::Arc, time::Duration};

use tandem_client::Client;
use tokio::sync::watch;

use super::{
    sandboxes::{Memory, Sandboxes},
    workspaces::{self, Workspaces},
};
use crate::{clock, error::Failure, metrics::Metrics, random, store::Store};

/// Between two looks.
const PAUSE: Duration = Duration::from_secs(1);
/// After something has changed: what comes in a moment is looked at together.
const BREATH: Duration = Duration::from_millis(50);
/// How long whoever reconciles has the turn, in milliseconds.
const TURN_MS: i64 = 5_000;
/// What ended so long ago is nobody's lease any more, in milliseconds.
const FORGET_MS: i64 = 600_000;
/// Resources of one look.
const MOST: u32 = 100;
/// Looks until the broker is asked again what it has.
const LOOKS_UNTIL_LISTED: u64 = 30;
/// As the database calls the turn.
const TURN: &str = "reconciler";

/// See above.
pub(crate) struct Reconciler {
    store: Store,
    workspaces: Workspaces,
    sandboxes: Sandboxes,
    /// The broker, as this control plane.
    broker: Client,
    metrics: Arc<Metrics>,
    /// What others know this one by.
    holder: String,
}

impl Reconciler {
    pub(crate) fn new(
        store: Store,
        (workspaces, sandboxes): (Workspaces, Sandboxes),
        broker: Client,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { store, workspaces, sandboxes, broker, metrics, holder: random::id("cp") }
    }

    /// Until told to stop.
    pub(crate) async fn run(self, mut stopping: watch::Receiver<bool>) {
        let mut looks: u64 = 0;
        let mut memory = Memory::default();
        let listener = self.sandboxes.clone();
        let listening = tokio::spawn(async move {
            loop {
                listener.listen().await;
                tokio::time::sleep(PAUSE).await;
            }
        });
        let living = self.sandboxes.clone();
        let living = tokio::spawn(async move {
            loop {
                if let Err(why) = living.live().await {
                    tracing::debug!(code = why.code(), %why, "others may take this control plane for gone");
                }
                tokio::time::sleep(PAUSE).await;
            }
        });
        loop {
            match self.look(looks, &mut memory).await {
                Ok(()) => {}
                // It is told once a second at most, and the next look tries again.
                Err(why) => tracing::warn!(code = why.code(), %why, "what is overdue has to wait"),
            }
            looks += 1;
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                () = self.sandboxes.changed() => tokio::time::sleep(BREATH).await,
                () = async { drop(stopping.wait_for(|stopping| *stopping).await) } => break,
            }
        }
        listening.abort();
        living.abort();
        if let Err(error) = self.store.give_back((TURN, &self.holder)).await {
            tracing::warn!(%error, "the turn is not given back; others wait for its end");
        }
    }

    async fn look(&self, looks: u64, memory: &mut Memory) -> Result<(), Failure> {
        let now_ms = clock::unix_ms();
        if !self.store.lease((TURN, &self.holder), (now_ms, now_ms + TURN_MS)).await? {
            // Whoever has the turn knows more.
            *memory = Memory::default();
            self.sandboxes.lose_turn();
            return Ok(());
        }
        if let Err(why) = self.sandboxes.look(memory, looks).await {
            tracing::warn!(code = why.code(), %why, "the sandboxes cannot be looked at");
        }
        let due = self.store.due(now_ms, MOST).await?;
        self.metrics.overdue.set(i64::try_from(due.len()).unwrap_or(i64::MAX));
        let mut failed = None;
        for row in due {
            // The turn is kept for as long as it takes, or it is somebody else's.
            let now_ms = clock::unix_ms();
            if !self.store.lease((TURN, &self.holder), (now_ms, now_ms + TURN_MS)).await? {
                return Ok(());
            }
            if row.kind == workspaces::KIND
                && let Err(why) = self.workspaces.go_on(&self.broker, row).await
            {
                failed = Some(why);
            }
        }
        if looks.is_multiple_of(LOOKS_UNTIL_LISTED) {
            self.store.forget_old_answers(now_ms).await?;
            self.store.forget_leases(now_ms - FORGET_MS).await?;
            self.workspaces.take_in(&self.broker).await?;
        }
        failed.map_or(Ok(()), Err)
    }
}
