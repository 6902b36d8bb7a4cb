//! Reads policies.

use super::{QueryError, StateReader};
use crate::{
    encoding::Field as _,
    machine::{
        keys::{self, RECORDS},
        policy::PolicyRecord,
    },
};

impl StateReader {
    /// The policy that a workspace was given last, a removal too.
    pub(crate) fn policy(&self, workspace: u32) -> Result<Option<PolicyRecord>, QueryError> {
        let record = self.engine().get(RECORDS, &keys::policy(workspace))?;
        Ok(record.map(|record| PolicyRecord::from_bytes(record, "policy")).transpose()?)
    }
}
