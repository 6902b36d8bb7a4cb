//! Spreads leaders over the nodes: each shard has one that should lead it, and whoever leads it instead hands over once that
//! one is there and has the log.

use std::{collections::HashMap, sync::Arc, time::Duration};

use crate::{apply::Apply, group::Group, group::preferred_leader, peers::Links};

/// How often is looked.
const INTERVAL: Duration = Duration::from_millis(500);
/// For how many looks in a row the one that should lead must be connected and near: a node that comes and goes must not take
/// the leadership each time.
const STEADY_LOOKS: u32 = 3;
/// Entries that it may lack: it gets them before it is elected, and nothing is committed meanwhile.
const MAX_LAG: u64 = 64;
/// Looks to wait after a handover, whatever came of it.
const LOOKS_AFTER: u32 = 10;

/// How things stand for one shard.
#[derive(Debug, Default)]
struct Watch {
    steady: u32,
    wait: u32,
}

/// Runs until its task is aborted.
pub(crate) async fn run<A: Apply>(groups: Vec<Arc<Group<A>>>, links: Arc<Links>) {
    let mut watches: HashMap<u32, Watch> = HashMap::new();
    loop {
        tokio::time::sleep(INTERVAL).await;
        for group in &groups {
            let watch = watches.entry(group.shard()).or_default();
            if let Some(to) = watch.look(wanted(group, &links)) {
                tracing::info!(shard = group.shard(), to, "handing over leadership, to spread leaders over the nodes");
                group.transfer_leader(to).await.ok();
            }
        }
    }
}

/// Who should lead instead of this node, and could.
fn wanted<A: Apply>(group: &Group<A>, links: &Links) -> Option<u64> {
    let preferred = preferred_leader(group.shard(), links.gate.roster.members().keys().copied())?;
    let leads = group.leadership().borrow().is_leader;
    if !leads || preferred == links.gate.own.node_id || links.connection(preferred).is_none() {
        return None;
    }
    let matched = group.matched().get(&preferred).copied()?;
    (matched + MAX_LAG >= group.status().last_log_index).then_some(preferred)
}

impl Watch {
    fn look(&mut self, wanted: Option<u64>) -> Option<u64> {
        self.wait = self.wait.saturating_sub(1);
        self.steady = if wanted.is_some() { self.steady + 1 } else { 0 };
        let to = wanted.filter(|_| self.steady >= STEADY_LOOKS && self.wait == 0)?;
        *self = Self { steady: 0, wait: LOOKS_AFTER };
        Some(to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_steady_wish_counts_and_not_twice_in_a_row() {
        let mut watch = Watch::default();
        let seen: Vec<_> =
            [Some(1), None, Some(1), Some(1), Some(1), Some(1), Some(1), Some(1)].map(|wish| watch.look(wish)).to_vec();
        assert_eq!(seen, [None, None, None, None, Some(1), None, None, None]);
        let later = (0..20).filter_map(|_| watch.look(Some(1))).count();
        assert_eq!(later, 2);
    }
}
