//! Who decides on the roll: the leader of shard 0. Any node takes a change and passes it on.

use std::{sync::Arc, time::Duration};

use futures_util::future::BoxFuture;

use crate::{
    apply::Apply,
    change::{Change, ChangeError, Sight},
    error::ProposeError,
    group::{Group, Standing},
    peers::{Links, question},
    roll::Roll,
    verify::{self, ShardDigests},
};

/// How long a change waits for somebody who can decide it. An election takes less than one second.
const DECIDER_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two tries.
const RETRY: Duration = Duration::from_millis(50);
/// How often a change is made again because another one came before.
const MAX_RACES: u32 = 8;

/// What the rest of the node asks of the shards about the cluster, whatever they apply.
pub(crate) trait Decide: Send + Sync + 'static {
    /// Makes a change, wherever it is decided. Returns the roll with it.
    fn change<'a>(&'a self, change: &'a Change) -> BoxFuture<'a, Result<Roll, ChangeError>>;

    /// The newest roll that a majority has; None where that cannot be known now.
    fn newest_roll(&self) -> BoxFuture<'_, Option<Roll>>;

    /// Where each shard stands, from its leader where that one answers.
    fn standings(&self) -> BoxFuture<'_, Vec<Standing>>;

    /// What the states of all members come to, shard by shard, at the same entry.
    fn verify(&self, timeout: Duration) -> BoxFuture<'_, Vec<ShardDigests>>;
}

/// See the module.
pub(crate) struct Council<A: Apply> {
    groups: Vec<Arc<Group<A>>>,
    links: Arc<Links>,
}

impl<A: Apply> Council<A> {
    pub(crate) fn new(groups: Vec<Arc<Group<A>>>, links: Arc<Links>) -> Self {
        Self { groups, links }
    }

    pub(crate) fn roll(&self) -> Roll {
        self.links.gate.roster.roll()
    }

    pub(crate) fn group(&self) -> &Group<A> {
        &self.groups[0]
    }

    /// What this node sees of the others.
    pub(crate) fn sight(&self) -> Sight {
        let gate = &self.links.gate;
        let mut disks = gate.roster.disks();
        disks.insert(gate.own.node_id, gate.own.disk_id.clone());
        Sight { shards: self.groups.len() as u32, connected: self.links.connected(), disks }
    }

    /// Makes a change, or says that another node decides.
    pub(crate) async fn decide(&self, change: &Change) -> Result<Roll, ChangeError> {
        for _ in 0..MAX_RACES {
            // The roll that this node has applied is the newest, then.
            self.group().leader_barrier().await?;
            let roll = self.links.gate.roster.roll();
            let Some(next) = roll.changed(change, &self.sight())? else { return Ok(roll) };
            if self.group().propose_roll(&next).await? {
                tracing::info!(revision = next.revision, ?change, "the members of the cluster are to change");
                return Ok(next);
            }
        }
        Err(ProposeError::Unsettled.into())
    }

    async fn ask(&self, change: &Change) -> Result<Roll, ChangeError> {
        let leadership = *self.group().leadership().borrow();
        match leadership.leader {
            Some(_) if leadership.is_leader => self.decide(change).await,
            None => Err(ProposeError::NotLeader(None).into()),
            Some(leader) => {
                let connection = self.links.connection(leader);
                let connection = connection.ok_or(ProposeError::NotLeader(Some(leader)))?;
                question::change(&connection, change).await
            }
        }
    }
}

impl<A: Apply> Decide for Council<A> {
    fn change<'a>(&'a self, change: &'a Change) -> BoxFuture<'a, Result<Roll, ChangeError>> {
        Box::pin(async move {
            let begun = crate::clock::now();
            loop {
                // Again does no harm: what was made already is not made twice.
                match self.ask(change).await {
                    Err(ChangeError::Unavailable(error)) if begun.elapsed() < DECIDER_TIMEOUT => {
                        tracing::debug!(%error, "nobody decides on the change yet");
                        tokio::time::sleep(RETRY).await;
                    }
                    decided => return decided,
                }
            }
        })
    }

    fn newest_roll(&self) -> BoxFuture<'_, Option<Roll>> {
        Box::pin(async move {
            let barrier = self.group().read_barrier().await;
            barrier.is_ok().then(|| self.links.gate.roster.roll())
        })
    }

    fn standings(&self) -> BoxFuture<'_, Vec<Standing>> {
        let asking = self.groups.iter().map(async |group| {
            let seen = group.standing();
            let leader = seen.leader.filter(|leader| *leader != self.links.gate.own.node_id);
            match leader.and_then(|leader| self.links.connection(leader)) {
                Some(connection) => question::standing(&connection, group.shard()).await.unwrap_or(seen),
                None => seen,
            }
        });
        Box::pin(futures_util::future::join_all(asking.collect::<Vec<_>>()))
    }

    fn verify(&self, timeout: Duration) -> BoxFuture<'_, Vec<ShardDigests>> {
        Box::pin(verify::run(&self.groups, &self.links, timeout))
    }
}
