//! A shard as requests see it: who applies, who batches, who delivers, who reads.

use std::sync::Arc;

use bytes::Bytes;
use tandem_raft::{Apply, ApplyError, Group};
use tandem_storage::{Engine, WriteBatch};

use crate::{
    batcher::BatcherHandle,
    delivery::Delivery,
    grpc::given::Given,
    leader_time::LeaderTime,
    machine::{Effect, Machine},
    query::StateReader,
};

/// Applies the commands of a shard and passes on what they cause.
pub(crate) struct Applier {
    #[cfg(test)]
    shard: u32,
    machine: Option<Machine>,
    reader: StateReader,
    delivery: Arc<Delivery>,
    effects: Vec<Effect>,
}

impl Applier {
    pub(crate) fn new(shard: u32, reader: StateReader, delivery: Arc<Delivery>) -> Self {
        #[cfg(not(test))]
        let _ = shard;
        Self {
            #[cfg(test)]
            shard,
            machine: None,
            reader,
            delivery,
            effects: Vec::new(),
        }
    }
}

impl Apply for Applier {
    fn open(&mut self, engine: Arc<dyn Engine>) -> Result<(), ApplyError> {
        self.effects.clear();
        let machine = Machine::open(Arc::clone(&engine)).map_err(|error| ApplyError(error.to_string()))?;
        self.reader.replace(engine, machine.recent_ids(), machine.policies());
        self.machine = Some(machine);
        Ok(())
    }

    fn apply(&mut self, _index: u64, command: &Bytes, writes: &mut WriteBatch) -> Result<Bytes, ApplyError> {
        #[cfg(test)]
        crate::simulation::observer::applied(self.shard, _index, command);
        let machine = self.machine.as_mut().ok_or_else(|| ApplyError("the state is not open".into()))?;
        machine.apply(command, writes, &mut self.effects).map_err(|error| ApplyError(error.to_string()))
    }

    fn visible(&mut self, _index: u64) {
        if let Some(machine) = &mut self.machine {
            machine.visible();
        }
        self.delivery.effects(self.effects.drain(..));
    }
}

/// One shard on this node.
pub(crate) struct Shard {
    pub(crate) group: Arc<Group<Applier>>,
    pub(crate) batcher: BatcherHandle,
    pub(crate) delivery: Arc<Delivery>,
    pub(crate) reader: StateReader,
    /// What commands and ticks are stamped with while this node leads. What the state says of a time is compared with this, and
    /// with no clock.
    pub(crate) time: Arc<LeaderTime>,
    /// Messages to capabilities that are on their way.
    pub(crate) given: Given,
}

/// All shards, and which workspace lives where.
#[derive(Clone)]
pub(crate) struct Shards(Arc<[Shard]>);

impl Shards {
    pub(crate) fn new(shards: Vec<Shard>) -> Self {
        assert!(!shards.is_empty(), "a node has at least one shard");
        Self(shards.into())
    }

    /// The shard of a workspace: by a hash that is part of the format, because data lies where it said.
    pub(crate) fn of(&self, workspace: &str) -> &Shard {
        &self.0[shard_of(workspace, self.0.len())]
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Shard> {
        self.0.iter()
    }
}

fn shard_of(workspace: &str, shards: usize) -> usize {
    (xxhash_rust::xxh3::xxh3_64(workspace.as_bytes()) % shards as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workspaces_stay_where_they_are() {
        let seen: Vec<_> = ["default", "a", "team/blue", "replay-1"].iter().map(|name| shard_of(name, 4)).collect();
        assert_eq!(seen, [2, 3, 2, 0], "a change here would lose every workspace");
    }
}
