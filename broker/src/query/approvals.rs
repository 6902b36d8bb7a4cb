//! Reads approvals: the newest first.

use std::ops::ControlFlow;

use bytes::Bytes;
use tandem_storage::Direction;

use super::{QueryError, StateReader};
use crate::{
    batch::Batch,
    encoding::Field as _,
    machine::{
        approval::{Approval, ApprovalState},
        keys::{self, RECORDS},
    },
};

/// Approvals that one call looks at, at the most.
const MAX_EXAMINED: usize = 10_000;
/// Bytes of approvals in one page, unless a single one is larger: comments may be long.
const MAX_PAGE_BYTES: usize = 2 << 20;

/// A part of the approvals.
#[derive(Debug, Default)]
pub(crate) struct ApprovalPage {
    pub(crate) found: Vec<(u64, Approval)>,
    /// The number from which the next page goes down; none at the end.
    pub(crate) next: Option<u64>,
}

impl StateReader {
    /// One approval, by its number.
    pub(crate) fn approval(&self, workspace: u32, number: u64) -> Result<Option<Approval>, QueryError> {
        let record = self.engine().get(RECORDS, &keys::approval(workspace, number))?;
        Ok(record.map(|record| Approval::from_bytes(record, "approval")).transpose()?)
    }

    /// The message of an approval, as a batch of one; none once it is in the log.
    pub(crate) fn approval_message(&self, workspace: u32, number: u64) -> Result<Option<Batch>, QueryError> {
        let record = self.engine().get(RECORDS, &keys::approval_message(workspace, number))?;
        Ok(record.map(|record| Batch::decode(0, record)).transpose()?)
    }

    /// Up to `limit` approvals in a state, or in any, from a number down. A page may hold fewer and have a successor.
    pub(crate) fn approvals(
        &self,
        workspace: u32,
        state: Option<ApprovalState>,
        through: u64,
        limit: usize,
    ) -> Result<ApprovalPage, QueryError> {
        // Those that wait have an index of their own: they are asked for most, among many that ended.
        let waiting = state == Some(ApprovalState::Waiting);
        let (from, to) = if waiting {
            keys::approvals_waiting_through(workspace, through)
        } else {
            keys::approvals_through(workspace, through)
        };
        let mut seen: Vec<(u64, Bytes)> = Vec::new();
        let mut bytes = 0;
        let mut full = None;
        self.engine().scan(RECORDS, &from, &to, Direction::Backward, &mut |key, value| {
            let number = keys::sequence_of(key);
            if seen.len() >= MAX_EXAMINED.min(if waiting { limit } else { MAX_EXAMINED }) || bytes >= MAX_PAGE_BYTES {
                full = Some(number);
                return ControlFlow::Break(());
            }
            bytes += value.len();
            seen.push((number, Bytes::copy_from_slice(value)));
            ControlFlow::Continue(())
        })?;
        let mut page = ApprovalPage { found: Vec::new(), next: full };
        for (number, record) in seen {
            let approval = if waiting {
                self.approval(workspace, number)?
            } else {
                Some(Approval::from_bytes(record, "approval")?)
            };
            let Some(approval) = approval.filter(|approval| state.is_none_or(|state| state == approval.state)) else {
                continue;
            };
            if page.found.len() >= limit {
                page.next = Some(number);
                break;
            }
            page.found.push((number, approval));
        }
        Ok(page)
    }
}
