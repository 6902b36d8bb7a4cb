//! Spreads leaders over the nodes: each shard has one that should lead it, and whoever leads it instead hands over once that
//! one is there and has the log. A node that is drained leads nothing, and what an operator transferred stays where it is.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use crate::{apply::Apply, group::Group, group::preferred_leader, peers::Links, roll::Roll};

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
    let mut watches: BTreeMap<u32, Watch> = BTreeMap::new();
    let mut rolls = links.gate.roster.rolls().subscribe();
    loop {
        tokio::select! {
            biased;
            () = tokio::time::sleep(INTERVAL) => {}
            // An operator has said something, and waits for it.
            changed = rolls.changed() => match changed {
                Ok(()) => watches.values_mut().for_each(Watch::hurry),
                Err(_) => return,
            }
        }
        rolls.mark_unchanged();
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
    if !group.leadership().borrow().is_leader {
        return None;
    }
    let own = links.gate.own.node_id;
    let roll = links.gate.roster.roll();
    // Who leaves hands over as a step of that (`conform`).
    if roll.is_leaving(own) {
        return None;
    }
    let near = |id: u64| {
        let matched = group.matched().get(&id).copied();
        links.connection(id).is_some()
            && matched.is_some_and(|matched| matched + MAX_LAG >= group.status().last_log_index)
    };
    let voters: Vec<u64> = group.standing().voters.last().into_iter().flatten().copied().collect();
    let wanted = candidates(group.shard(), own, &voters, &roll);
    wanted.into_iter().take_while(|id| *id != own).find(|id| near(*id))
}

/// Who should lead a shard, the best first.
fn candidates(shard: u32, own: u64, voters: &[u64], roll: &Roll) -> Vec<u64> {
    let stays = |id: u64| roll.members.contains_key(&id) && roll.may_lead(id);
    let willing: Vec<u64> = voters.iter().copied().filter(|id| stays(*id)).collect();
    let pinned = roll.pinned.get(&shard).copied().filter(|id| willing.contains(id));
    let best = pinned.or_else(|| preferred_leader(shard, willing.iter().copied()));
    let mut candidates: Vec<u64> = best.into_iter().collect();
    let drained = roll.members.get(&own).is_some_and(|member| member.drained);
    if drained {
        candidates.extend(willing.into_iter().filter(|id| Some(*id) != best));
    }
    candidates
}

impl Watch {
    fn look(&mut self, wanted: Option<u64>) -> Option<u64> {
        self.wait = self.wait.saturating_sub(1);
        self.steady = if wanted.is_some() { self.steady + 1 } else { 0 };
        let to = wanted.filter(|_| self.steady >= STEADY_LOOKS && self.wait == 0)?;
        *self = Self { steady: 0, wait: LOOKS_AFTER };
        Some(to)
    }

    fn hurry(&mut self) {
        *self = Self { steady: STEADY_LOOKS, wait: 0 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::roll::RollMember;

    #[test]
    fn only_a_steady_wish_counts_and_not_twice_in_a_row() {
        let mut watch = Watch::default();
        let seen: Vec<_> =
            [Some(1), None, Some(1), Some(1), Some(1), Some(1), Some(1), Some(1)].map(|wish| watch.look(wish)).to_vec();
        assert_eq!(seen, [None, None, None, None, Some(1), None, None, None]);
        let later = (0..20).filter_map(|_| watch.look(Some(1))).count();
        assert_eq!(later, 2);
        watch.hurry();
        assert_eq!(watch.look(Some(1)), Some(1), "an operator does not wait");
    }

    #[test]
    fn leaders_are_spread_pinned_and_drained() {
        let member = |drained| RollMember { drained, ..RollMember::default() };
        let mut roll = Roll { members: [1, 2, 3].map(|id| (id, member(false))).into(), ..Roll::default() };
        let voters = [1, 2, 3];
        assert_eq!([0, 1, 2, 3].map(|shard| candidates(shard, 9, &voters, &roll)[0]), [1, 2, 3, 1]);
        roll.pinned.insert(0, 3);
        assert_eq!(candidates(0, 1, &voters, &roll), [3]);
        roll.members.insert(3, member(true));
        assert_eq!(candidates(0, 1, &voters, &roll), [1], "who is drained does not lead what was transferred to it");
        assert_eq!(candidates(3, 3, &voters, &roll), [2, 1], "it goes to anybody rather than to stay");
        assert_eq!(candidates(0, 1, &[], &roll), [0_u64; 0]);
    }
}
