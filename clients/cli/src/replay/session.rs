//! One session: its workspace, its sandboxes with live subscriptions, its turns.

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
    time::Duration,
};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use indicatif::ProgressBar;
use tandem_client::{Client, SubscribeOptions, WorkspaceSettings};
use tokio::{
    sync::watch,
    task::{JoinError, JoinSet},
};

use super::{
    check,
    plan::SessionPlan,
    receiver::{Received, Receiver, SentNanos},
    report::SessionTally,
};
use crate::{clock, connections::Connections, exit::Failure, run::Context};

/// Sandboxes that are registered or subscribed at the same time.
const SETTING_UP: usize = 16;

pub(super) struct Session {
    pub(super) context: Context,
    pub(super) plan: Arc<SessionPlan>,
    /// How long a sandbox waits for its next message once all turns are published.
    pub(super) timeout: Duration,
    pub(super) keep: bool,
}

type Receivers = JoinSet<Result<Received, Failure>>;

impl Session {
    pub(super) async fn run(self, bar: ProgressBar) -> Result<SessionTally, Failure> {
        let connections = Connections::for_streams(&self.context, self.plan.sandboxes.len())?;
        let workspaces = connections.first().workspaces();
        workspaces
            .create_with(
                self.plan.workspace_id.as_str(),
                WorkspaceSettings { max_hops: 255, ..WorkspaceSettings::default() },
            )
            .await?;
        let outcome = Box::pin(self.play(&connections, &bar)).await;
        if !self.keep
            && let Err(error) = workspaces.delete(self.plan.workspace_id.as_str()).await
        {
            let text = format!("workspace {} could not be deleted: {error}", self.plan.workspace_id);
            bar.suspend(|| self.context.output.note(&text));
        }
        outcome.map_err(|failure| match failure {
            Failure::Failed { code, text, next } => {
                Failure::Failed { code, text: format!("session {}: {text}", self.plan.session), next }
            }
            other => other,
        })
    }

    async fn play(&self, connections: &Connections, bar: &ProgressBar) -> Result<SessionTally, Failure> {
        let plan = &self.plan;
        let registry = connections.first().registry(plan.workspace_id.as_str());
        let registering: Vec<_> =
            (0..plan.sandboxes.len()).map(|index| registry.register(plan.sandbox(index))).collect();
        stream::iter(registering).buffer_unordered(SETTING_UP).try_collect::<Vec<_>>().await?;
        let sent: SentNanos = Arc::new(plan.turns.iter().map(|_| OnceLock::new()).collect());
        let (all_published, is_all_published) = watch::channel(false);
        let mut receivers = self.subscribe(connections, &sent, &is_all_published).await?;
        let sequences = self.publish(connections.first(), &sent, &mut receivers, bar).await?;
        all_published.send_replace(true);
        let mut received = Vec::new();
        while let Some(joined) = receivers.join_next().await {
            received.push(outcome(joined)?);
        }
        let tally = self.tally(&sequences, &received);
        self.expect_empty_inboxes(connections.first(), &tally).await?;
        Ok(tally)
    }

    /// Every agent listens before the first turn.
    async fn subscribe(
        &self,
        connections: &Connections,
        sent: &SentNanos,
        all_published: &watch::Receiver<bool>,
    ) -> Result<Receivers, Failure> {
        let workspace_id = self.plan.workspace_id.as_str();
        let opening: Vec<_> = (self.plan.sandboxes.iter().enumerate())
            .map(|(index, (id, _))| {
                connections.of(index).subscribe(workspace_id, id.as_str(), SubscribeOptions::default())
            })
            .collect();
        let inboxes: Vec<_> = stream::iter(opening).buffered(SETTING_UP).try_collect().await?;
        let mut receivers = JoinSet::new();
        for (sandbox, inbox) in inboxes.into_iter().enumerate() {
            let receiver = Receiver {
                inbox,
                sandbox,
                expected: self.plan.expected(sandbox).len(),
                plan: Arc::clone(&self.plan),
                sent: Arc::clone(sent),
                all_published: all_published.clone(),
                timeout: self.timeout,
            };
            receivers.spawn(receiver.run());
        }
        Ok(receivers)
    }

    /// One turn after the other; returns their sequences.
    async fn publish(
        &self,
        client: &Client,
        sent: &SentNanos,
        receivers: &mut Receivers,
        bar: &ProgressBar,
    ) -> Result<HashMap<usize, u64>, Failure> {
        let publisher = client.publisher(self.plan.workspace_id.as_str());
        let mut sequences = HashMap::new();
        for (index, sent) in sent.iter().enumerate() {
            // Before sending, so that it is there when the message arrives.
            sent.get_or_init(clock::nanos);
            let receipt = tokio::select! {
                receipt = Box::pin(publisher.publish(self.plan.message(index))) => receipt?,
                Some(joined) = receivers.join_next() => {
                    // Before all is published a receiver can only end by failing.
                    let early = Failure::failed("STREAM_ENDED", "a subscription ended before the last turn");
                    return Err(outcome(joined).err().unwrap_or(early));
                }
            };
            sequences.insert(index, receipt.sequence);
            bar.inc(1);
        }
        Ok(sequences)
    }

    fn tally(&self, sequences: &HashMap<usize, u64>, received: &[Received]) -> SessionTally {
        let mut tally = SessionTally::new(sequences.len() as u64);
        for received in received {
            let faults = check::check(&self.plan.expected(received.sandbox), sequences, &received.got);
            tally.add(faults, received.got.len() as u64, received.confirmed, &received.latencies_nanos);
        }
        tally
    }

    /// What was delivered and acknowledged must have left the inboxes.
    async fn expect_empty_inboxes(&self, client: &Client, tally: &SessionTally) -> Result<(), Failure> {
        let registry = client.registry(self.plan.workspace_id.as_str());
        let mut sandboxes = Box::pin(registry.list());
        while let Some(sandbox) = sandboxes.try_next().await? {
            if sandbox.pending_messages > 0 && tally.faults.lost == 0 {
                let (pending, id) = (sandbox.pending_messages, sandbox.sandbox_id);
                let text = format!("{pending} messages wait in the inbox of {id}, although all were acknowledged");
                return Err(Failure::failed("STILL_PENDING", text));
            }
        }
        Ok(())
    }
}

fn outcome(joined: Result<Result<Received, Failure>, JoinError>) -> Result<Received, Failure> {
    joined.map_err(|error| Failure::failed("TASK_FAILED", format!("a receiver failed: {error}")))?
}
