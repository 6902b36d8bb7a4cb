//! A new node asks a cluster to be taken in. It knows addresses and the secret; who the others are and what their cluster is
//! called it learns from the first member that knows it. It creates no shard before that.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::{
    Dial, Introduction, Secret,
    connection::Connection,
    frame::FrameReader,
    handshake, question,
    refusal::{Refusal, RefusalCode},
};
use crate::error::FatalError;

/// Between two rounds over all members.
const RETRY: Duration = Duration::from_millis(500);

/// What a new node brings.
pub struct Application {
    /// What it says of itself, without the id of the cluster.
    pub own: Introduction,
    /// What its peers must know.
    pub secret: Secret,
    /// Members that it may ask, with their peer addresses.
    pub members: BTreeMap<u64, String>,
    /// How they are reached.
    pub dial: Arc<dyn Dial>,
}

/// What it is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admission {
    /// The cluster that it belongs to from now on.
    pub cluster_id: String,
    /// All members with their peer addresses, this node too.
    pub members: BTreeMap<u64, String>,
}

impl Application {
    /// Asks until a member knows this node. `waiting` hears why nobody takes it in yet, whenever that is another reason than
    /// before.
    ///
    /// # Errors
    /// [`FatalError::Refused`] when every member that can be asked refuses it for a reason that stays.
    pub async fn wait(&self, mut waiting: impl FnMut(&Refusal)) -> Result<Admission, FatalError> {
        let mut said: Option<Refusal> = None;
        loop {
            let mut refusals = Vec::new();
            for (node, address) in self.members.iter().filter(|(node, _)| **node != self.own.node_id) {
                let asking = tokio::time::timeout(handshake::TIMEOUT, self.ask(*node, address));
                match asking.await.unwrap_or_else(|_| Err(Refusal::broken(&"no answer in time"))) {
                    Ok(admission) => return Ok(admission),
                    Err(refusal) => refusals.push(refusal),
                }
            }
            // Whoever says "not yet" knows this node's cluster; a reason that stays counts only where nobody says that.
            let not_yet = refusals.iter().find(|refusal| refusal.code == RefusalCode::NotAMember);
            let stays = refusals.iter().find(|refusal| refusal.code.is_definite());
            match (not_yet, stays, refusals.first()) {
                (None, Some(refusal), _) => {
                    return Err(FatalError::Refused { code: refusal.code.code(), detail: refusal.text.clone() });
                }
                (Some(refusal), ..) | (None, None, Some(refusal)) if said.as_ref() != Some(refusal) => {
                    waiting(refusal);
                    said = Some(refusal.clone());
                }
                _ => {}
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn ask(&self, node: u64, address: &str) -> Result<Admission, Refusal> {
        let wire = self.dial.dial(node, address).await.map_err(|error| Refusal::undialed(&error))?;
        let (read, mut write) = tokio::io::split(wire);
        let mut from = FrameReader::new(read, 0);
        let there = handshake::greet(&self.own, &self.secret, node, None, &mut from, &mut write).await?;
        let cluster_id = there.cluster_id.clone();
        let connection = Connection::start(there, from, write);
        let told = question::roll(&connection).await;
        connection.close();
        let roll = told.map_err(|error| Refusal::broken(&error))?;
        let members = roll.members.into_iter().map(|(id, member)| (id, member.address)).collect();
        Ok(Admission { cluster_id, members })
    }
}
