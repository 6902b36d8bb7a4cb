//! Keeps the history of each workspace as long as its settings say. Leader only.
//!
//! In two steps, so that nobody can begin to follow in between where something is about to go: first the history is cut for
//! readers, later what lies before it is removed as far as no inbox waits for it. See `machine::trim`.

mod survey;

use std::{sync::Arc, time::Duration};

use tandem_raft::Leadership;
use tokio::sync::watch;

use self::survey::Survey;
use crate::{
    batcher::BatcherHandle,
    clock,
    command::{
        Outcome, Trim, Verb,
        trim::{Overflow, SpentBatch},
    },
    leader_time::LeaderTime,
    machine::workspace::Workspace,
    query::{QueryError, StateReader, retention::Cut},
};

/// Between two rounds, at least.
const PAUSE: Duration = Duration::from_millis(1_000);
/// A round that took long is followed by a pause of this many times as long.
const PAUSE_FACTOR: u32 = 20;
/// Workspaces that are read at a time.
const PAGE: usize = 256;
/// Batches of one command.
const MAX_BATCHES: usize = 256;
/// Bytes of batches that are looked at together.
const MAX_BYTES: usize = 8 << 20;
/// Messages that one command takes from inboxes, at the most.
const MAX_OVERFLOW: usize = 65_536;

/// What retention works with.
pub(crate) struct Retention {
    pub(crate) reader: StateReader,
    pub(crate) batcher: BatcherHandle,
    /// Messages and bytes that an inbox may hold.
    pub(crate) inbox_limits: (u64, u64),
    /// What batches are stamped with. A clock may be behind it for long.
    pub(crate) time: Arc<LeaderTime>,
    pub(crate) leadership: watch::Receiver<Leadership>,
}

impl Retention {
    /// Runs until its task is aborted or the shard stops.
    pub(crate) async fn run(mut self) {
        loop {
            if self.leadership.wait_for(|leadership| leadership.is_leader).await.is_err() {
                return;
            }
            let started = clock::now();
            if let Err(error) = self.round().await {
                // What the state cannot give the reader has reported; the node ends.
                tracing::debug!(%error, "a round of retention ended early; it is repeated");
            }
            tokio::time::sleep(PAUSE.max(clock::now().saturating_duration_since(started) * PAUSE_FACTOR)).await;
        }
    }

    async fn round(&self) -> Result<(), QueryError> {
        let mut after = String::new();
        loop {
            let page = self.reader.workspaces_after(&after, PAGE)?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            after.clone_from(last);
            for (name, workspace) in page {
                self.remove(&name, &workspace).await?;
                self.cut(&name, &workspace).await?;
            }
        }
    }

    /// Ends the history for readers where it is too old or too long.
    async fn cut(&self, name: &str, workspace: &Workspace) -> Result<(), QueryError> {
        let workspace = workspace.clone();
        let number = workspace.number;
        let now_ms = self.time.now_ms();
        let cut = self.read(move |reader| reader.retention_cut(&workspace, now_ms)).await?;
        if let Some(Cut { first_sequence, trimmed_bytes }) = cut {
            let trim = Trim { first_sequence, trimmed_bytes, ..nothing(name, number) };
            self.propose(trim).await;
        }
        Ok(())
    }

    /// Removes what lies before the history and nobody waits for.
    async fn remove(&self, name: &str, workspace: &Workspace) -> Result<(), QueryError> {
        let workspace = workspace.clone();
        let number = workspace.number;
        let limits = self.inbox_limits;
        let (spent, overflows) = self.read(move |reader| look_at(reader, &workspace, limits)).await?;
        for batches in spent.chunks(MAX_BATCHES) {
            self.propose(Trim { batches: batches.to_vec(), ..nothing(name, number) }).await;
        }
        if !overflows.is_empty() {
            self.propose(Trim { overflows, ..nothing(name, number) }).await;
        }
        Ok(())
    }

    /// Reads on a thread of its own: a round may read a lot.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&StateReader) -> Result<T, QueryError> + Send + 'static,
    ) -> Result<T, QueryError> {
        let reader = self.reader.clone();
        match tandem_raft::blocking::run(move || read(&reader)).await {
            Ok(result) => result,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    async fn propose(&self, trim: Trim) {
        let keep: usize = trim.batches.iter().map(|batch| 32 + 2 * batch.keep.len() + 5 * batch.runs.len()).sum();
        let lost: usize = trim.overflows.iter().map(|overflow| 16 + 8 * overflow.sequences.len()).sum();
        match self.batcher.call(Verb::Trim(trim), 64 + keep + lost).await {
            Ok(Outcome::Trim(Ok(trimmed))) => tracing::debug!(?trimmed, "history was trimmed"),
            Ok(other) => tracing::debug!(?other, "a trim came to something else"),
            Err(error) => tracing::debug!(%error, "a trim was not committed; it is repeated"),
        }
    }
}

fn nothing(workspace: &str, number: u32) -> Trim {
    Trim {
        workspace: workspace.to_owned(),
        number,
        first_sequence: 0,
        trimmed_bytes: 0,
        batches: Vec::new(),
        overflows: Vec::new(),
    }
}

/// Looks at all batches before the history.
pub(crate) fn look_at(
    reader: &StateReader,
    workspace: &Workspace,
    limits: (u64, u64),
) -> Result<(Vec<SpentBatch>, Vec<Overflow>), QueryError> {
    let (mut next, mut spent) = (0, Vec::new());
    let mut survey = None;
    loop {
        let batches = reader.batches_between(workspace.number, next, workspace.first_sequence, MAX_BYTES)?;
        let Some(last) = batches.last() else { break };
        next = last.first_sequence + 1;
        let survey = match &mut survey {
            Some(survey) => survey,
            none => none.insert(Survey::new(reader, workspace)?),
        };
        spent.extend(survey.spent(&batches)?);
    }
    let overflows = survey.map(|survey| survey.overflows(limits, MAX_OVERFLOW)).unwrap_or_default();
    Ok((spent, overflows))
}
