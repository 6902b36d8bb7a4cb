//! Digests of the state of a shard.

use openraft::impls::ProgressResponder;

use super::{Group, Pending};
use crate::{apply::Apply, digest::DigestAnswer, encoding::take_u64, error::ProposeError, type_config::Command};

impl<A: Apply> Group<A> {
    /// Has every member compute a digest of its state at the same entry, and returns the index of that entry; the one that is
    /// being computed counts for whoever asks meanwhile. The only place that proposes this command: a node of a version that
    /// does not know it could not apply it.
    pub(crate) async fn propose_digest(&self) -> Result<u64, ProposeError> {
        self.leader_barrier().await?;
        if let Some(index) = self.digests.computing() {
            return Ok(index);
        }
        let (responder, outcome) = ProgressResponder::complete_only();
        let submitted = self.raft.client_write_ff(Command::Digest(bytes::Bytes::new()), Some(responder)).await;
        submitted.map_err(|error| ProposeError::Stopped(error.to_string()))?;
        let mut outcome = Pending(outcome).outcome().await?;
        take_u64(&mut outcome).map_err(|_| ProposeError::Unsettled)
    }

    /// The digest of this node's state at an entry.
    pub(crate) fn digest_at(&self, index: u64) -> DigestAnswer {
        // First how far it is: the digest is begun before the entry counts as applied.
        let applied = self.status().applied_index;
        self.digests.at(index, applied)
    }
}
