//! Where the history of a workspace should begin, by age and by bytes.

use std::ops::ControlFlow;

use bytes::Bytes;
use tandem_storage::Direction;

use super::{QueryError, StateReader};
use crate::{
    batch::Batch,
    encoding::Field as _,
    machine::{
        keys::{self, MESSAGES, RECORDS},
        workspace::Workspace,
    },
};

/// A history is cut when this part of its age is too old, so that each cut is worth its while.
const SLACK: u64 = 64;

/// Where a history is to begin, and the bytes of all batches before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cut {
    pub(crate) first_sequence: u64,
    pub(crate) trimmed_bytes: u64,
}

impl StateReader {
    /// Where the history of a workspace is to be cut now; none while it is as it should be.
    pub(crate) fn retention_cut(&self, workspace: &Workspace, now_ms: u64) -> Result<Option<Cut>, QueryError> {
        let first_sequence = self.cut_by_age(workspace, now_ms)?.max(self.cut_by_bytes(workspace)?);
        if first_sequence <= workspace.first_sequence {
            return Ok(None);
        }
        let trimmed_bytes = self.bytes_before(workspace, first_sequence)?;
        Ok(Some(Cut { first_sequence, trimmed_bytes }))
    }

    fn cut_by_age(&self, workspace: &Workspace, now_ms: u64) -> Result<u64, QueryError> {
        let age_ms = workspace.settings.retention_age();
        let Some(oldest) = self.batch_from(workspace.number, workspace.first_sequence)? else { return Ok(0) };
        let keep_ms = now_ms.saturating_sub(age_ms);
        if oldest.saturating_add(age_ms / SLACK) > keep_ms {
            return Ok(0);
        }
        self.first_sequence_since(workspace, keep_ms)
    }

    fn cut_by_bytes(&self, workspace: &Workspace) -> Result<u64, QueryError> {
        let most = workspace.settings.retention_bytes;
        let stored = workspace.committed_bytes - workspace.trimmed_bytes;
        if most == 0 || stored <= most {
            return Ok(0);
        }
        let wanted = workspace.committed_bytes - most;
        let (from, to) =
            (keys::mark(workspace.number, workspace.first_sequence), keys::mark(workspace.number, u64::MAX));
        let mut cut = 0;
        let mut failure = None;
        self.engine().scan(RECORDS, &from, &to, Direction::Forward, &mut |key, value| {
            match u64::from_bytes(Bytes::copy_from_slice(value), "mark") {
                // Without enough before it, the best so far.
                Ok(before) if before < wanted => cut = keys::sequence_of(key),
                Ok(_) => {
                    cut = keys::sequence_of(key);
                    return ControlFlow::Break(());
                }
                Err(error) => failure = Some(error),
            }
            ControlFlow::Continue(())
        })?;
        failure.map_or(Ok(cut), |error| Err(error.into()))
    }

    /// Bytes of all batches before one that begins with this sequence.
    fn bytes_before(&self, workspace: &Workspace, first_sequence: u64) -> Result<u64, QueryError> {
        let (mut start, mut bytes) = (workspace.first_sequence, workspace.trimmed_bytes);
        let (from, to) = (keys::mark(workspace.number, start), keys::mark(workspace.number, first_sequence + 1));
        let mut mark = None;
        self.engine().scan(RECORDS, &from, &to, Direction::Backward, &mut |key, value| {
            mark = Some((keys::sequence_of(key), Bytes::copy_from_slice(value)));
            ControlFlow::Break(())
        })?;
        if let Some((sequence, value)) = mark {
            (start, bytes) = (sequence, u64::from_bytes(value, "mark")?);
        }
        let (from, to) = (keys::message(workspace.number, start), keys::message(workspace.number, first_sequence));
        self.engine().scan(MESSAGES, &from, &to, Direction::Forward, &mut |_, value| {
            bytes += value.len() as u64;
            ControlFlow::Continue(())
        })?;
        Ok(bytes)
    }

    /// Batches that begin from one sequence up to before another, about so many bytes of them; at least one if there is one.
    pub(crate) fn batches_between(
        &self,
        workspace: u32,
        from: u64,
        before: u64,
        max_bytes: usize,
    ) -> Result<Vec<Batch>, QueryError> {
        let (from, to) = (keys::message(workspace, from), keys::message(workspace, before));
        let (mut found, mut bytes) = (Vec::new(), 0);
        self.engine().scan(MESSAGES, &from, &to, Direction::Forward, &mut |key, value| {
            bytes += value.len();
            found.push((keys::sequence_of(key), Bytes::copy_from_slice(value)));
            if bytes < max_bytes { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        found.into_iter().map(|(first, batch)| Ok(Batch::decode(first, batch)?)).collect()
    }

    /// When the first batch at or behind a sequence was committed, in milliseconds since 1970.
    fn batch_from(&self, workspace: u32, sequence: u64) -> Result<Option<u64>, QueryError> {
        let (from, to) = (keys::message(workspace, sequence), keys::message(workspace, u64::MAX));
        let mut header = None;
        self.engine().scan(MESSAGES, &from, &to, Direction::Forward, &mut |_, value| {
            header = Some(Batch::read_header(value));
            ControlFlow::Break(())
        })?;
        Ok(header.transpose()?.map(|(time_ms, _)| time_ms))
    }
}
