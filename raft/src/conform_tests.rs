use super::*;
use crate::roll::RollMember;

fn roll(states: &[(u64, MemberState)]) -> Roll {
    let member = |id: u64, state| RollMember { address: format!("n{id}:1"), state, ..RollMember::default() };
    let members = states.iter().map(|(id, state)| (*id, member(*id, *state))).collect();
    Roll { revision: 1, members, ..Roll::default() }
}

fn shard(voters: &[&[u64]], nodes: &[u64]) -> Standing {
    Standing {
        voters: voters.iter().map(|config| config.iter().copied().collect()).collect(),
        nodes: nodes.iter().map(|id| (*id, String::new())).collect(),
        settled: true,
        ..Standing::default()
    }
}

fn set(ids: &[u64]) -> BTreeSet<u64> {
    ids.iter().copied().collect()
}

fn next_step(own: u64, shard: &Standing, near: &BTreeSet<u64>, roll: &Roll) -> Option<Step> {
    View { own, shard, near, kept: &BTreeSet::new(), roll }.next_step()
}

const V: MemberState = MemberState::Voting;
const J: MemberState = MemberState::Joining;
const L: MemberState = MemberState::Leaving;

#[test]
fn a_newcomer_learns_first_and_votes_once_it_has_the_log() {
    let roll = roll(&[(1, V), (2, V), (3, V), (4, J)]);
    let near = set(&[2, 3]);
    let before = shard(&[&[1, 2, 3]], &[1, 2, 3]);
    assert_eq!(next_step(1, &before, &near, &roll), Some(Step::AddLearner(4, "n4:1".into())));
    let learns = shard(&[&[1, 2, 3]], &[1, 2, 3, 4]);
    assert_eq!(next_step(1, &learns, &near, &roll), None, "it has not caught up");
    let promote = Step::ChangeVoters { add: set(&[4]), remove: set(&[]) };
    assert_eq!(next_step(1, &learns, &set(&[2, 3, 4]), &roll), Some(promote));
    assert!(!is_done(&learns, 4, &roll));
    let joint = shard(&[&[1, 2, 3], &[1, 2, 3, 4]], &[1, 2, 3, 4]);
    assert_eq!(next_step(2, &joint, &near, &roll), Some(Step::EndJoint), "also by the next leader");
    assert!(!is_done(&joint, 4, &roll));
    let done = shard(&[&[1, 2, 3, 4]], &[1, 2, 3, 4]);
    assert_eq!(next_step(1, &done, &near, &roll), None);
    assert!(is_done(&done, 4, &roll));
    assert!(!is_done(&Standing { settled: false, ..done }, 4, &roll), "a majority must have it");
}

#[test]
fn a_leader_that_goes_hands_over_first() {
    let roll = roll(&[(1, V), (2, V), (3, L)]);
    let before = shard(&[&[1, 2, 3]], &[1, 2, 3]);
    assert_eq!(next_step(3, &before, &set(&[2]), &roll), Some(Step::HandOver(2)));
    assert_eq!(next_step(3, &before, &set(&[]), &roll), None, "nobody could follow");
    let part = Step::ChangeVoters { add: set(&[]), remove: set(&[3]) };
    assert_eq!(next_step(2, &before, &set(&[1]), &roll), Some(part));
    let joint = shard(&[&[1, 2, 3], &[1, 2]], &[1, 2, 3]);
    assert_eq!(next_step(3, &joint, &set(&[1]), &roll), Some(Step::HandOver(1)));
    let done = shard(&[&[1, 2]], &[1, 2]);
    assert!(is_done(&done, 3, &roll) && next_step(1, &done, &set(&[2]), &roll).is_none());
    let learns = shard(&[&[1, 2]], &[1, 2, 3]);
    assert_eq!(next_step(1, &learns, &set(&[2]), &roll), Some(Step::RemoveLearner(3)));
}

#[test]
fn a_change_does_not_begin_without_the_majority_that_has_to_end_it() {
    let leaving = roll(&[(1, V), (2, L), (3, V)]);
    let before = shard(&[&[1, 2, 3]], &[1, 2, 3]);
    assert_eq!(next_step(1, &before, &set(&[2]), &leaving), None, "node 3 is away");
    assert!(next_step(1, &before, &set(&[2, 3]), &leaving).is_some());
    let joining = roll(&[(1, V), (2, V), (3, V), (4, J)]);
    let learns = shard(&[&[1, 2, 3]], &[1, 2, 3, 4]);
    assert_eq!(next_step(1, &learns, &set(&[4]), &joining), None, "three of four are needed");
    assert!(next_step(1, &learns, &set(&[2, 4]), &joining).is_some());
}

#[test]
fn the_first_shard_parts_with_a_node_when_the_others_have() {
    let near = set(&[1, 2, 3, 4]);
    let step = |own, shard: &Standing, kept: &[u64], roll: &Roll| {
        View { own, shard, near: &near, kept: &set(kept), roll }.next_step()
    };
    let leaving = roll(&[(1, V), (2, V), (3, L)]);
    let before = shard(&[&[1, 2, 3]], &[1, 2, 3]);
    assert_eq!(step(1, &before, &[1, 2, 3], &leaving), None);
    assert_eq!(step(3, &before, &[1, 2, 3], &leaving), Some(Step::HandOver(1)), "it need not wait for that");
    assert!(step(1, &before, &[1, 2], &leaving).is_some());
    let learner = shard(&[&[1, 2]], &[1, 2, 3]);
    assert_eq!(step(1, &learner, &[1, 2, 3], &leaving), None);
    let mut replacing = roll(&[(1, V), (2, V), (3, V), (4, J)]);
    replacing.members.get_mut(&4).unwrap().replaces = Some(3);
    let learns = shard(&[&[1, 2, 3]], &[1, 2, 3, 4]);
    assert_eq!(step(1, &learns, &[1, 2, 3, 4], &replacing), None);
    assert_eq!(
        step(3, &learns, &[1, 2, 3, 4], &replacing),
        Some(Step::HandOver(1)),
        "it may hear no more of the others"
    );
    let change = Step::ChangeVoters { add: set(&[4]), remove: set(&[3]) };
    assert_eq!(step(1, &learns, &[1, 2, 4], &replacing), Some(change));
}

#[test]
fn a_replacement_is_one_joint_change_and_the_old_one_is_not_taken_in_again() {
    let mut roll = roll(&[(1, V), (2, V), (3, V), (4, J)]);
    roll.members.get_mut(&4).unwrap().replaces = Some(3);
    let learns = shard(&[&[1, 2, 3]], &[1, 2, 3, 4]);
    assert_eq!(next_step(1, &learns, &set(&[2]), &roll), None);
    let change = Step::ChangeVoters { add: set(&[4]), remove: set(&[3]) };
    assert_eq!(next_step(1, &learns, &set(&[2, 4]), &roll), Some(change));
    assert_eq!(next_step(3, &learns, &set(&[2, 4]), &roll), Some(Step::HandOver(2)));
    let done = shard(&[&[1, 2, 4]], &[1, 2, 4]);
    assert_eq!(next_step(1, &done, &set(&[2, 4]), &roll), None);
    assert!(is_done(&done, 4, &roll));
    // Given up: who was replaced here already comes back.
    roll.members.get_mut(&4).unwrap().replaces = None;
    roll.members.get_mut(&4).unwrap().state = L;
    assert_eq!(next_step(1, &done, &set(&[2, 4]), &roll), Some(Step::AddLearner(3, "n3:1".into())));
}

#[test]
fn who_is_unknown_to_an_old_roll_is_left_alone() {
    let roll = roll(&[(1, V), (2, V), (3, V)]);
    let newer = shard(&[&[1, 2, 3]], &[1, 2, 3, 4]);
    assert_eq!(next_step(1, &newer, &set(&[2, 3, 4]), &roll), None);
}

#[test]
fn a_node_has_the_log_when_it_has_what_was_there_before() {
    let mut rounds = Rounds::default();
    let look = |last, matched: &[(u64, u64)]| Standing {
        last_log_index: last,
        matched: matched.iter().copied().collect(),
        ..Standing::default()
    };
    let all = set(&[2, 3, 4]);
    assert_eq!(rounds.near(&look(100, &[(2, 100)]), &all), set(&[]), "the first look");
    assert_eq!(rounds.near(&look(200, &[(2, 150), (3, 99), (4, 100)]), &all), set(&[2, 4]));
    assert_eq!(rounds.near(&look(300, &[(2, 250), (4, 250)]), &set(&[2])), set(&[2]), "connected");
}
