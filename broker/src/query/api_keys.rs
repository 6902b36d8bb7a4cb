//! Reads API keys.

use std::ops::ControlFlow;

use bytes::Bytes;
use tandem_storage::Direction;

use super::{QueryError, StateReader};
use crate::{
    encoding::Field as _,
    machine::{
        api_key::ApiKey,
        keys::{self, RECORDS},
    },
};

impl StateReader {
    /// What is known of a key.
    pub(crate) fn api_key(&self, id: u64) -> Result<Option<ApiKey>, QueryError> {
        let record = self.engine().get(RECORDS, &keys::api_key(id))?;
        Ok(record.map(|record| ApiKey::from_bytes(record, "key")).transpose()?)
    }

    /// Up to `limit` keys behind one, by id, of this workspace or, without one, all.
    pub(crate) fn api_keys_behind(
        &self,
        id: Option<u64>,
        workspace: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(u64, ApiKey)>, QueryError> {
        let (from, to) = keys::api_keys_behind(id);
        let mut found: Vec<(u64, ApiKey)> = Vec::new();
        let mut failed = None;
        self.engine().scan(RECORDS, &from, &to, Direction::Forward, &mut |key, value| {
            if found.len() >= limit {
                return ControlFlow::Break(());
            }
            match ApiKey::from_bytes(Bytes::copy_from_slice(value), "key") {
                Ok(read) if workspace.is_none_or(|own| own == read.workspace) => {
                    found.push((keys::sequence_of(key), read));
                    ControlFlow::Continue(())
                }
                Ok(_) => ControlFlow::Continue(()),
                Err(error) => {
                    failed = Some(error);
                    ControlFlow::Break(())
                }
            }
        })?;
        failed.map_or(Ok(found), |error| Err(error.into()))
    }
}
