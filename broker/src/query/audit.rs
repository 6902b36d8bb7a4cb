//! Reads the audit: records by their number, and where a chain ends.

use std::ops::ControlFlow;

use bytes::Bytes;
use tandem_storage::Direction;

use super::{QueryError, StateReader};
use crate::{
    audit::{GENESIS, Hash, Kind, Record},
    encoding::{DecodeError, Field as _},
    machine::{
        audit::{AuditHead, MAX_RECORDS, Stored},
        keys::{self, AUDIT, RECORDS},
    },
};

/// Records that one call looks at, at the most.
const MAX_EXAMINED: u64 = 20_000;
/// Bytes of records in one page at the most, give or take one.
const MAX_PAGE_BYTES: usize = 2 << 20;

/// Which records. All that is set must hold.
#[derive(Debug, Clone, Default)]
pub(crate) struct AuditFilter {
    /// Empty: all.
    pub(crate) kinds: Vec<Kind>,
    /// Empty: everybody.
    pub(crate) by: String,
    /// Empty: everything.
    pub(crate) about: String,
    pub(crate) start_ms: Option<u64>,
    pub(crate) end_ms: Option<u64>,
}

/// A part of a chain.
#[derive(Debug)]
pub(crate) struct AuditPage {
    /// Each with its number and hash.
    pub(crate) records: Vec<(u64, Hash, Record)>,
    /// The number of the first record that was looked at.
    pub(crate) first: u64,
    /// The hash of the one before it.
    pub(crate) previous: Hash,
    /// The first record that was not looked at; none at the end.
    pub(crate) next: Option<u64>,
}

impl AuditFilter {
    fn matches(&self, record: &Record) -> bool {
        (self.kinds.is_empty() || self.kinds.contains(&record.kind))
            && (self.by.is_empty() || self.by == record.by)
            && (self.about.is_empty() || self.about == record.about)
            && self.start_ms.is_none_or(|start_ms| record.time_ms >= start_ms)
            && self.end_ms.is_none_or(|end_ms| record.time_ms < end_ms)
    }
}

/// The oldest record that is kept of a chain.
pub(crate) fn oldest(head: &AuditHead) -> u64 {
    head.number.saturating_sub(MAX_RECORDS) + 1
}

impl StateReader {
    /// Where the chain of a workspace, or of the shard, ends.
    pub(crate) fn audit_head(&self, workspace: u32) -> Result<AuditHead, QueryError> {
        let record = self.engine().get(RECORDS, &keys::audit_head(workspace))?;
        Ok(record.map(|record| AuditHead::from_bytes(record, "audit head")).transpose()?.unwrap_or_default())
    }

    /// Up to `limit` records of a chain from a number on, or from the oldest that is kept.
    pub(crate) fn audit_records(
        &self,
        workspace: u32,
        from: u64,
        filter: &AuditFilter,
        limit: usize,
    ) -> Result<AuditPage, QueryError> {
        let head = self.audit_head(workspace)?;
        let from = from.max(oldest(&head));
        let mut page = AuditPage { records: Vec::new(), first: from, previous: GENESIS, next: None };
        if from > head.number {
            (page.first, page.previous) = (head.number + 1, head.hash);
            return Ok(page);
        }
        let mut bytes = 0;
        let mut failure = None;
        // Whether the record before the next one was seen.
        let mut linked = false;
        // One before it, for its hash; where that is gone, the first one is not to be linked and the next one is.
        let begin = keys::audit(workspace, from.saturating_sub(1));
        let end = keys::audit(workspace, head.number.saturating_add(1));
        self.engine().scan(AUDIT, &begin, &end, Direction::Forward, &mut |key, value| {
            let number = keys::sequence_of(key);
            let full = page.records.len() >= limit
                || bytes >= MAX_PAGE_BYTES
                || number.saturating_sub(page.first) >= MAX_EXAMINED;
            if number >= page.first && full {
                page.next = Some(number);
                return ControlFlow::Break(());
            }
            match read(value) {
                Ok(Stored { hash, .. }) if number < page.first => {
                    page.previous = hash;
                    linked = true;
                    return ControlFlow::Continue(());
                }
                Ok(Stored { hash, .. }) if !linked && page.first > 1 => {
                    // The oldest that is kept, or is still there: what can be shown begins behind it.
                    (page.first, page.previous) = (number + 1, hash);
                }
                Ok(Stored { hash, record }) if filter.matches(&record) => {
                    bytes += value.len();
                    page.records.push((number, hash, record));
                }
                Ok(_) => {}
                Err(error) => {
                    failure = Some(error);
                    return ControlFlow::Break(());
                }
            }
            linked = true;
            ControlFlow::Continue(())
        })?;
        failure.map_or(Ok(page), |error| Err(error.into()))
    }
}

fn read(value: &[u8]) -> Result<Stored, DecodeError> {
    Stored::from_bytes(Bytes::copy_from_slice(value), "audit record")
}
