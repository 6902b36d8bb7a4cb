//! Reads tokens, and how much was revoked.

use std::ops::ControlFlow;

use bytes::Bytes;
use tandem_storage::Direction;

use super::{QueryError, StateReader};
use crate::{
    encoding::Field as _,
    machine::{
        keys::{self, RECORDS},
        token::TokenRecord,
    },
};

/// Tokens that one call looks at, at the most.
const MAX_EXAMINED: usize = 10_000;

/// Tokens, each with its hash, and the one behind which others may be.
pub(crate) type TokenPage = (Vec<(u128, TokenRecord)>, Option<u128>);

impl StateReader {
    /// What is known of a token.
    pub(crate) fn token(&self, hash: u128) -> Result<Option<TokenRecord>, QueryError> {
        let record = self.engine().get(RECORDS, &keys::token(hash))?;
        Ok(record.map(|record| TokenRecord::from_bytes(record, "token")).transpose()?)
    }

    /// How many keys and tokens were revoked: another number means that something that was good is not any more.
    pub(crate) fn revocations(&self) -> Result<u64, QueryError> {
        let record = self.engine().get(RECORDS, &keys::revocations())?;
        Ok(record.map(|record| u64::from_bytes(record, "count of revocations")).transpose()?.unwrap_or(0))
    }

    /// Up to `limit` tokens behind one, by hash, of this workspace or, without one, all; and the one behind which others may be.
    pub(crate) fn tokens_behind(
        &self,
        hash: Option<u128>,
        workspace: Option<&str>,
        limit: usize,
    ) -> Result<TokenPage, QueryError> {
        let (from, to) = keys::tokens_behind(hash);
        let mut found: Vec<(u128, TokenRecord)> = Vec::new();
        let (mut failed, mut examined, mut last, mut more) = (None, 0, None, false);
        self.engine().scan(RECORDS, &from, &to, Direction::Forward, &mut |key, value| {
            if found.len() >= limit || examined >= MAX_EXAMINED {
                more = true;
                return ControlFlow::Break(());
            }
            let read = keys::token_of(key).and_then(|hash| {
                TokenRecord::from_bytes(Bytes::copy_from_slice(value), "token").map(|record| (hash, record))
            });
            match read {
                Ok((hash, record)) => {
                    (examined, last) = (examined + 1, Some(hash));
                    if workspace.is_none_or(|own| own == record.workspace) {
                        found.push((hash, record));
                    }
                    ControlFlow::Continue(())
                }
                Err(error) => {
                    failed = Some(error);
                    ControlFlow::Break(())
                }
            }
        })?;
        failed.map_or(Ok((found, last.filter(|_| more))), |error| Err(error.into()))
    }
}
