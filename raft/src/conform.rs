//! Brings the members of each shard to what the roll says, one step after the other. Whoever leads a shard takes its steps;
//! whoever leads shard 0 notes when all are done. There is no memory of a change but the roll and the memberships
//! themselves, so a leader that dies in the middle leaves nothing behind that the next one does not see.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use crate::{
    apply::Apply,
    council::Council,
    error::ProposeError,
    group::{Group, Standing},
    peers::Links,
    roll::{MemberState, Roll},
};

/// Between two looks.
const INTERVAL: Duration = Duration::from_millis(200);
/// Looks that a handover gets before it is asked for again.
const LOOKS_AFTER_HANDOVER: u32 = 5;

/// What has to be done next to one shard.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// End the joint change that is under way.
    EndJoint,
    /// Take in a learner.
    AddLearner(u64, String),
    /// Hand over, because the leader is about to go. The best that can follow comes first.
    HandOver(u64),
    /// One joint change of the voters.
    ChangeVoters { add: BTreeSet<u64>, remove: BTreeSet<u64> },
    /// Part with a learner.
    RemoveLearner(u64),
}

/// Runs until its task is aborted.
pub(crate) async fn run<A: Apply>(groups: Vec<Arc<Group<A>>>, links: Arc<Links>) {
    let council = Council::new(groups.clone(), Arc::clone(&links));
    let mut rounds = Rounds::default();
    // Shards whose leader was asked to hand over, and for how many looks that is given time.
    let mut resting: BTreeMap<u32, u32> = BTreeMap::new();
    let mut rolls = links.gate.roster.rolls().subscribe();
    loop {
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            changed = rolls.changed() => if changed.is_err() { return },
        }
        // Where nobody has ever changed anything there is nothing to do.
        if rolls.borrow_and_update().revision == 0 {
            continue;
        }
        for group in &groups {
            if !group.leadership().borrow().is_leader {
                rounds.0.remove(&group.shard());
                continue;
            }
            if let Some(looks) = resting.get_mut(&group.shard()).filter(|looks| **looks > 0) {
                *looks -= 1;
                continue;
            }
            match take_step(group, &groups[0], &links, &mut rounds).await {
                Ok(Some(Step::HandOver(_))) => drop(resting.insert(group.shard(), LOOKS_AFTER_HANDOVER)),
                Ok(_) => {}
                Err(error) => {
                    tracing::debug!(shard = group.shard(), %error, "a step of a change of members is tried again");
                }
            }
        }
        settle(&council, &groups).await;
    }
}

async fn take_step<A: Apply>(
    group: &Group<A>,
    first: &Group<A>,
    links: &Links,
    rounds: &mut Rounds,
) -> Result<Option<Step>, ProposeError> {
    let own = links.gate.own.node_id;
    let standing = group.standing();
    let near = rounds.near(&standing, &links.connected());
    if next_step(own, &standing, &near, &links.gate.roster.roll()).is_none() {
        return Ok(None);
    }
    // A roll from before is not acted upon: it could take in again who was parted with.
    first.read_barrier().await?;
    let Some(step) = next_step(own, &group.standing(), &near, &links.gate.roster.roll()) else { return Ok(None) };
    tracing::info!(shard = group.shard(), ?step, "a step of a change of members");
    match &step {
        Step::EndJoint => group.change_voters(BTreeSet::new(), BTreeSet::new()).await?,
        Step::AddLearner(node, address) => group.add_learner(*node, address.clone()).await?,
        Step::HandOver(to) => group.transfer_leader(*to).await?,
        Step::ChangeVoters { add, remove } => group.change_voters(add.clone(), remove.clone()).await?,
        Step::RemoveLearner(node) => group.remove_learner(*node).await?,
    }
    Ok(Some(step))
}

/// The next step of a shard that `own` leads. `near`: the nodes that are connected and have the log.
fn next_step(own: u64, shard: &Standing, near: &BTreeSet<u64>, roll: &Roll) -> Option<Step> {
    let voters = shard.voters.last()?;
    let follower = |of: BTreeSet<u64>| of.into_iter().find(|id| *id != own && near.contains(id)).map(Step::HandOver);
    if shard.is_joint() {
        return if voters.contains(&own) { Some(Step::EndJoint) } else { follower(voters.clone()) };
    }
    let stays = |id: &u64| roll.members.contains_key(id) && !roll.is_leaving(*id);
    // Not "is not on the roll": that could be a roll that does not know a newcomer yet.
    let goes = |id: &u64| {
        roll.retired.contains_key(id) || roll.members.get(id).is_some_and(|member| member.state == MemberState::Leaving)
    };
    let missing = roll.members.iter().find(|(id, _)| stays(id) && !shard.nodes.contains_key(id));
    if let Some((id, member)) = missing {
        return Some(Step::AddLearner(*id, member.address.clone()));
    }
    let add: BTreeSet<u64> =
        shard.nodes.keys().copied().filter(|id| !voters.contains(id) && stays(id) && near.contains(id)).collect();
    let replaced = |id: &u64| roll.replaced_by(*id).is_some_and(|new| voters.contains(&new) || add.contains(&new));
    let remove: BTreeSet<u64> = voters.iter().copied().filter(|id| goes(id) || replaced(id)).collect();
    if remove.contains(&own) {
        return follower(voters.difference(&remove).copied().collect());
    }
    if !add.is_empty() || !remove.is_empty() {
        return Some(Step::ChangeVoters { add, remove });
    }
    let parted = shard.nodes.keys().copied().find(|id| !voters.contains(id) && goes(id));
    parted.map(Step::RemoveLearner)
}

/// Whether the member that changes is what it should be in a shard.
fn is_done(shard: &Standing, id: u64, roll: &Roll) -> bool {
    let Some(member) = roll.members.get(&id) else { return false };
    let gone = |id: &u64| !shard.nodes.contains_key(id) && !shard.is_voter(*id);
    let settled = shard.settled && !shard.is_joint();
    settled
        && match member.state {
            MemberState::Leaving => gone(&id),
            _ => shard.is_voter(id) && member.replaces.as_ref().is_none_or(gone),
        }
}

/// Notes in the roll that a change is done in every shard.
async fn settle<A: Apply>(council: &Council<A>, groups: &[Arc<Group<A>>]) {
    let roll = council.roll();
    let Some((id, _)) = roll.changing() else { return };
    let done = groups.iter().all(|group| is_done(&group.standing(), id, &roll));
    if !done || !groups[0].leadership().borrow().is_leader || groups[0].leader_barrier().await.is_err() {
        return;
    }
    let Some(next) = roll.settled(&council.sight()) else { return };
    match groups[0].propose_roll(&next).await {
        Ok(true) => tracing::info!(revision = next.revision, node = id, "the change of members is done"),
        Ok(false) => {}
        Err(error) => tracing::debug!(%error, "the end of a change of members is noted later"),
    }
}

/// Who has the log, also while it grows: whoever has by now all that was there at the look before.
#[derive(Debug, Default)]
struct Rounds(BTreeMap<u32, u64>);

impl Rounds {
    fn near(&mut self, shard: &Standing, connected: &BTreeSet<u64>) -> BTreeSet<u64> {
        let goal = self.0.insert(shard.shard, shard.last_log_index);
        let Some(goal) = goal else { return BTreeSet::new() };
        let there = shard.matched.iter().filter(|(id, matched)| **matched >= goal && connected.contains(id));
        there.map(|(id, _)| *id).collect()
    }
}

#[cfg(test)]
#[path = "conform_tests.rs"]
mod tests;
