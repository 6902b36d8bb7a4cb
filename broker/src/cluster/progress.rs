//! How far a change of members is, in words.

use tandem_proto::cluster::v1::{Change, NodeState};
use tandem_raft::{MemberState, Roll, RollMember, Standing};

/// The change that is under way, and what it waits for.
pub(crate) fn of(roll: &Roll, shards: &[Standing], connected: impl Fn(u64) -> bool) -> Option<Change> {
    let (id, member) = roll.changing()?;
    let done = shards.iter().filter(|shard| is_done(shard, id, member)).count();
    let next_step = match member.state {
        MemberState::Leaving => leaving(id, roll, shards, done, connected),
        _ => joining(id, member, roll, shards, done, connected),
    };
    let state = match member.state {
        MemberState::Voting => NodeState::Voting,
        MemberState::Joining => NodeState::Joining,
        MemberState::Leaving => NodeState::Leaving,
    };
    let replaces_node_id = member.replaces.unwrap_or(0);
    Some(Change { node_id: id, state: state.into(), replaces_node_id, done_shards: done as u32, next_step })
}

fn is_done(shard: &Standing, id: u64, member: &RollMember) -> bool {
    let gone = |id: &u64| !shard.nodes.contains_key(id);
    !shard.is_joint()
        && match member.state {
            MemberState::Leaving => gone(&id),
            _ => shard.is_voter(id) && member.replaces.as_ref().is_none_or(gone),
        }
}

fn joining(
    id: u64,
    member: &RollMember,
    roll: &Roll,
    shards: &[Standing],
    done: usize,
    connected: impl Fn(u64) -> bool,
) -> String {
    if done == shards.len() {
        return "all shards are done; this is being noted".to_owned();
    }
    if !connected(id) {
        return format!(
            "node {id} is not connected: start it with --join --node-id {id} and the peer address {}, or give up: tandem \
             cluster remove {id}",
            member.address
        );
    }
    blocked(roll, shards, &connected).unwrap_or_else(|| {
        let behind = shards.iter().filter(|shard| !shard.is_voter(id));
        let lag = |shard: &Standing| match shard.snapshots.get(&id) {
            Some((there, all)) => format!("{} of {} MiB of a snapshot", there >> 20, all.div_ceil(1 << 20)),
            None => {
                let has = shard.matched.get(&id).copied().unwrap_or(0);
                format!("{has} of {} log entries", shard.last_log_index)
            }
        };
        let behind: Vec<_> = behind.map(|shard| format!("shard {} has {}", shard.shard, lag(shard))).collect();
        match behind.is_empty() {
            true => "the shards end their joint changes".to_owned(),
            false => format!("node {id} catches up: {}", behind.join(", ")),
        }
    })
}

fn leaving(id: u64, roll: &Roll, shards: &[Standing], done: usize, connected: impl Fn(u64) -> bool) -> String {
    if done == shards.len() {
        return "all shards are done; this is being noted".to_owned();
    }
    blocked(roll, shards, &connected).unwrap_or_else(|| {
        let led: Vec<_> =
            shards.iter().filter(|shard| shard.leader == Some(id)).map(|shard| shard.shard.to_string()).collect();
        match led.is_empty() {
            true => format!("{} of {} shards still count node {id}", shards.len() - done, shards.len()),
            false => format!("node {id} hands over what it leads: shard {}", led.join(", ")),
        }
    })
}

/// A shard that cannot take a step, because it has no leader or a joint change lacks a majority.
fn blocked(roll: &Roll, shards: &[Standing], connected: &impl Fn(u64) -> bool) -> Option<String> {
    // Whoever joins becomes a voter only once it is connected, and is told of apart.
    let voters: Vec<u64> = roll.members.keys().copied().filter(|id| !roll.is_leaving(*id)).collect();
    let away = voters.iter().filter(|id| !connected(**id));
    let away: Vec<_> = away.map(|id| format!("node {id}")).collect();
    if away.len() * 2 >= voters.len() && !shards.iter().any(Standing::is_joint) {
        return Some(format!("a majority of those who stay has to be connected; bring back {}", away.join(" or ")));
    }
    if let Some(shard) = shards.iter().find(|shard| shard.leader.is_none()) {
        return Some(format!("shard {} has no leader: a majority of its voters must be connected", shard.shard));
    }
    let stuck = shards.iter().find(|shard| {
        shard.is_joint()
            && shard.voters.iter().any(|config| config.iter().filter(|id| connected(**id)).count() <= config.len() / 2)
    })?;
    let away: Vec<_> = roll.members.keys().filter(|id| !connected(**id)).map(|id| format!("node {id}")).collect();
    Some(format!("the joint change of shard {} waits for a majority; bring back {}", stuck.shard, away.join(" or ")))
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    fn roll(state: MemberState) -> Roll {
        let member = |state| RollMember { address: "a:1".into(), state, ..RollMember::default() };
        let members = BTreeMap::from([
            (1, member(MemberState::Voting)),
            (2, member(MemberState::Voting)),
            (3, member(MemberState::Voting)),
            (4, member(state)),
        ]);
        Roll { revision: 1, members, ..Roll::default() }
    }

    fn shard(voters: &[&[u64]], nodes: &[u64]) -> Standing {
        Standing {
            leader: Some(1),
            voters: voters.iter().map(|config| config.iter().copied().collect::<BTreeSet<_>>()).collect(),
            nodes: nodes.iter().map(|id| (*id, String::new())).collect(),
            last_log_index: 100,
            matched: BTreeMap::from([(4, 40)]),
            ..Standing::default()
        }
    }

    #[test]
    fn the_next_step_is_named() {
        let all = |_| true;
        let without_four = |id| id != 4;
        let learns = shard(&[&[1, 2, 3]], &[1, 2, 3, 4]);
        let voter = shard(&[&[1, 2, 3, 4]], &[1, 2, 3, 4]);
        let joint = shard(&[&[1, 2, 3], &[1, 2, 3, 4]], &[1, 2, 3, 4]);
        let said = |state, shards: &[Standing], connected: &dyn Fn(u64) -> bool| {
            let change = of(&roll(state), shards, connected).unwrap();
            (change.done_shards, change.next_step)
        };
        let (done, step) = said(MemberState::Joining, &[voter.clone(), learns.clone()], &all);
        assert!(done == 1 && step.contains("shard 0 has 40 of 100"), "{step}");
        let gets = Standing { snapshots: BTreeMap::from([(4, (5 << 20, 1 + (7 << 20)))]), ..learns.clone() };
        let (_, step) = said(MemberState::Joining, &[gets], &all);
        assert!(step.contains("shard 0 has 5 of 8 MiB of a snapshot"), "{step}");
        let (_, step) = said(MemberState::Joining, std::slice::from_ref(&learns), &without_four);
        assert!(step.contains("--join") && step.contains("cluster remove 4"), "{step}");
        let (done, step) = said(MemberState::Joining, std::slice::from_ref(&voter), &all);
        assert!(done == 1 && step.contains("being noted"), "{step}");
        let (_, step) = said(MemberState::Joining, std::slice::from_ref(&joint), &|id| id == 1 || id == 4);
        assert!(step.contains("waits for a majority; bring back node 2 or node 3"), "{step}");
        let (_, step) = said(MemberState::Leaving, std::slice::from_ref(&voter), &|id| id == 1 || id == 4);
        assert!(step.contains("has to be connected; bring back node 2 or node 3"), "{step}");
        let (_, step) = said(MemberState::Leaving, &[Standing { leader: Some(4), ..voter.clone() }], &all);
        assert!(step.contains("hands over"), "{step}");
        let (_, step) = said(MemberState::Leaving, &[Standing { leader: None, ..voter }], &all);
        assert!(step.contains("has no leader"), "{step}");
        assert_eq!(of(&roll(MemberState::Voting), &[learns], all), None);
    }
}
