//! The shards of a node at its start: first all of them are opened, repaired and, where it must be, made anew; then each starts.
//! A group that ran while another shard waits for its state would call elections in a node that answers nobody.

use std::sync::Arc;

use tandem_storage::Engine;

use crate::{
    apply::{Apply, OpenState},
    commit_thread::CommitHandle,
    damage::Note,
    error::{FatalError, FatalSink},
    group::{Group, Parts},
    log_store::LogStore,
    node::NodeOptions,
    state_home::{Sound, StateHome},
};

/// A shard that has not started yet.
pub(crate) struct Opened {
    pub(crate) shard: u32,
    pub(crate) log: LogStore,
    pub(crate) home: StateHome,
    /// What it can begin with.
    pub(crate) sound: Sound,
}

/// Opens the log and the state of every shard, and repairs what can be repaired here.
pub(crate) fn open_all(
    options: &NodeOptions,
    (log, commits, log_note): (&Arc<dyn Engine>, &CommitHandle, &Note),
    opener: &Arc<dyn OpenState>,
    fatal: &FatalSink,
) -> Result<Vec<Opened>, FatalError> {
    let open = |shard| {
        let log = LogStore::open(shard, Arc::clone(log), commits.clone(), options.log_cache_bytes)?
            .guarded(log_note.clone(), fatal.clone());
        let dir = options.data_dir.join(format!("shard-{shard}"));
        let home = StateHome::prepare(shard, dir, Arc::clone(opener), fatal.clone())?;
        let sound = home.repair(log.purged_index())?;
        Ok(Opened { shard, log, home, sound })
    };
    (0..options.shards).map(open).collect()
}

/// Starts a group for each shard. Where one does not start, those before it end in order: they hold the log.
pub(crate) async fn start_all<A: Apply>(
    options: &NodeOptions,
    opened: Vec<Opened>,
    mut parts: impl FnMut(Opened) -> Parts<A>,
    fatal: &FatalSink,
) -> Result<Vec<Arc<Group<A>>>, FatalError> {
    let mut groups: Vec<Arc<Group<A>>> = Vec::new();
    for opened in opened {
        match Group::start(opened.shard, options, parts(opened), fatal.clone()).await {
            Ok(group) => groups.push(group),
            Err(error) => {
                for group in groups {
                    if let Err(error) = group.shutdown().await {
                        tracing::warn!(shard = group.shard(), %error, "a shard did not end in order");
                    }
                }
                return Err(error);
            }
        }
    }
    Ok(groups)
}
