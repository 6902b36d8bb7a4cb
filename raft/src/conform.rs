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
/// How long the note that a change is done may take before it is looked at again.
const NOTE_TIMEOUT: Duration = Duration::from_secs(5);
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
            biased;
            () = tokio::time::sleep(INTERVAL) => {}
            changed = rolls.changed() => if changed.is_err() { return },
        }
        raise_level(&council, &links).await;
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
            match take_step(group, &groups, &links, &mut rounds).await {
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
    groups: &[Arc<Group<A>>],
    links: &Links,
    rounds: &mut Rounds,
) -> Result<Option<Step>, ProposeError> {
    let near = rounds.near(&group.standing(), &links.connected());
    let look = || {
        let (shard, own) = (group.standing(), links.gate.own.node_id);
        let kept = if group.shard() == 0 { elsewhere(groups) } else { BTreeSet::new() };
        View { own, shard: &shard, near: &near, kept: &kept, roll: &links.gate.roster.roll() }.next_step()
    };
    let step = match look() {
        None => return Ok(None),
        Some(Step::HandOver(to)) => Step::HandOver(to),
        Some(_) => {
            // A roll from before is not acted upon: it could take in again who was parted with.
            groups[0].read_barrier().await?;
            let Some(step) = look() else { return Ok(None) };
            step
        }
    };
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

/// Who belongs to another shard than the first.
fn elsewhere<A: Apply>(groups: &[Arc<Group<A>>]) -> BTreeSet<u64> {
    groups[1..].iter().flat_map(|group| group.standing().nodes.into_keys()).collect()
}

/// What the leader of a shard sees when it looks for its next step.
struct View<'a> {
    own: u64,
    shard: &'a Standing,
    /// Who is connected and has the log.
    near: &'a BTreeSet<u64>,
    /// Who must not be parted with yet: shard 0 comes last, because whoever leads another shard reads the roll in it.
    kept: &'a BTreeSet<u64>,
    roll: &'a Roll,
}

impl View<'_> {
    fn next_step(&self) -> Option<Step> {
        let Self { own, shard, near, roll, .. } = *self;
        let voters = shard.voters.last()?;
        if shard.is_joint() {
            return if voters.contains(&own) { Some(Step::EndJoint) } else { self.hand_over(voters.clone()) };
        }
        // Who was parted with in another shard hears no more of it, and would wait here for ever. The others see it.
        if self.kept.contains(&own) && roll.is_leaving(own) {
            let others = voters.iter().copied().filter(|id| !roll.is_leaving(*id)).collect();
            if let Some(step) = self.hand_over(others) {
                return Some(step);
            }
        }
        let stays = |id: &u64| roll.members.contains_key(id) && !roll.is_leaving(*id);
        let missing = roll.members.iter().find(|(id, _)| stays(id) && !shard.nodes.contains_key(id));
        if let Some((id, member)) = missing {
            return Some(Step::AddLearner(*id, member.address.clone()));
        }
        let waits = |id: &u64| roll.members[id].replaces.is_some_and(|old| self.kept.contains(&old));
        let learners = shard.nodes.keys().copied().filter(|id| !voters.contains(id));
        let ready = |id: &u64| stays(id) && near.contains(id) && !waits(id);
        let add: BTreeSet<u64> = learners.clone().filter(ready).collect();
        let replaced = |id: &u64| roll.replaced_by(*id).is_some_and(|new| voters.contains(&new) || add.contains(&new));
        let parts = |id: &u64| (self.goes(*id) || replaced(id)) && !self.kept.contains(id);
        let remove: BTreeSet<u64> = voters.iter().copied().filter(parts).collect();
        if remove.contains(&own) || (voters.contains(&own) && self.goes(own)) {
            return self.hand_over(voters.difference(&remove).copied().filter(|id| !self.goes(*id)).collect());
        }
        if !add.is_empty() || !remove.is_empty() {
            let next: BTreeSet<u64> = voters.difference(&remove).chain(&add).copied().collect();
            // Otherwise the shard would stand still in the middle.
            let there = next.iter().filter(|id| **id == own || near.contains(id)).count();
            return (there > next.len() / 2).then_some(Step::ChangeVoters { add, remove });
        }
        learners.clone().find(|id| self.goes(*id) && !self.kept.contains(id)).map(Step::RemoveLearner)
    }

    /// Not "is not on the roll": that could be a roll that does not know a newcomer yet.
    fn goes(&self, id: u64) -> bool {
        let leaves = self.roll.members.get(&id).is_some_and(|member| member.state == MemberState::Leaving);
        leaves || self.roll.retired.contains_key(&id)
    }

    fn hand_over(&self, followers: BTreeSet<u64>) -> Option<Step> {
        followers.into_iter().find(|id| *id != self.own && self.near.contains(id)).map(Step::HandOver)
    }
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
    match tokio::time::timeout(NOTE_TIMEOUT, groups[0].propose_roll(&next)).await.unwrap_or(Ok(false)) {
        Ok(true) => tracing::info!(revision = next.revision, node = id, "the change of members is done"),
        Ok(false) => {}
        Err(error) => tracing::debug!(%error, "the end of a change of members is noted later"),
    }
}

/// Raises the level of the cluster to what every member can apply, once all of them are connected and say so.
async fn raise_level<A: Apply>(council: &Council<A>, links: &Links) {
    let group = council.group();
    let roll = council.roll();
    let said = links.levels();
    let all: Option<Vec<u32>> = roll.members.keys().map(|node| said.get(node).copied()).collect();
    let Some(level) = all.and_then(|levels| levels.into_iter().min()).filter(|level| *level > roll.level()) else {
        return;
    };
    if !group.leadership().borrow().is_leader || group.leader_barrier().await.is_err() {
        return;
    }
    // What was applied meanwhile counts: a member may have come that cannot.
    let roll = council.roll();
    if roll.members.keys().any(|node| said.get(node).is_none_or(|can| *can < level)) || roll.level() >= level {
        return;
    }
    let next = Roll { level, revision: roll.revision + 1, ..roll };
    match tokio::time::timeout(NOTE_TIMEOUT, group.propose_roll(&next)).await.unwrap_or(Ok(false)) {
        Ok(true) => {
            tracing::info!(level, revision = next.revision, "every member can apply this level; it is used from now on")
        }
        Ok(false) => {}
        Err(error) => tracing::debug!(%error, level, "the level of the cluster is raised later"),
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
