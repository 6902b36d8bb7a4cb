//! Reads quotas.

use super::{QueryError, StateReader};
use crate::{
    encoding::Field as _,
    machine::keys::{self, RECORDS},
    quotas::Quotas,
};

impl StateReader {
    /// What a workspace may take; None: nobody has said.
    pub(crate) fn quotas(&self, workspace: u32) -> Result<Option<Quotas>, QueryError> {
        let record = self.engine().get(RECORDS, &keys::quotas(workspace))?;
        Ok(record.map(|record| Quotas::from_bytes(record, "quotas")).transpose()?)
    }
}
