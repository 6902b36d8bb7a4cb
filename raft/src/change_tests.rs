use super::*;

fn three() -> Roll {
    Roll::bootstrapped(&(1..=3).map(|id| (id, format!("n{id}:1"))).collect())
}

fn sight(connected: &[u64]) -> Sight {
    let disks = connected.iter().map(|id| (*id, format!("disk-{id}"))).collect();
    Sight { shards: 4, connected: connected.iter().copied().collect(), disks }
}

fn add(node: u64) -> Change {
    Change::Add { node, address: format!("n{node}:1") }
}

fn remove(node: u64) -> Change {
    Change::Remove { node, force: false }
}

fn replace(old: u64, new: u64) -> Change {
    Change::Replace { old, new, address: format!("n{new}:1"), force: false }
}

#[track_caller]
fn made(roll: &Roll, change: &Change, connected: &[u64]) -> Roll {
    roll.changed(change, &sight(connected)).unwrap().expect("a change")
}

#[track_caller]
fn code(roll: &Roll, change: &Change, connected: &[u64]) -> ChangeCode {
    match roll.changed(change, &sight(connected)) {
        Err(ChangeError::Refused { code, text }) => {
            assert!(!text.is_empty());
            code
        }
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn a_node_joins_and_only_one_at_a_time() {
    let roll = made(&three(), &add(4), &[1, 2, 3]);
    assert_eq!(roll.members[&4].state, MemberState::Joining);
    assert_eq!(roll.changed(&add(4), &sight(&[1])).unwrap(), None, "asked for again");
    for other in [add(5), remove(2), replace(1, 6)] {
        assert_eq!(code(&roll, &other, &[1, 2, 3]), ChangeCode::InProgress);
    }
    let done = roll.settled(&sight(&[1, 2, 3, 4])).unwrap();
    assert_eq!((done.members[&4].state, done.members[&4].disk_id.as_str()), (MemberState::Voting, "disk-4"));
    assert_eq!(done.changed(&add(4), &sight(&[1])).unwrap(), None);
    assert_eq!(done.settled(&sight(&[])), None);
}

#[test]
fn who_was_removed_never_comes_back() {
    let leaving = made(&three(), &remove(3), &[1, 2, 3]);
    assert_eq!(leaving.changed(&remove(3), &sight(&[1])).unwrap(), None, "asked for again");
    let gone = leaving.settled(&sight(&[1, 2])).unwrap();
    assert_eq!(gone.retired, BTreeMap::from([(3, "disk-3".to_owned())]), "with the disk that it was seen with");
    assert_eq!(gone.changed(&remove(3), &sight(&[1, 2])).unwrap(), None, "asked for once more");
    assert_eq!(code(&gone, &add(3), &[1, 2]), ChangeCode::NodeIdReused);
    assert_eq!(code(&gone, &replace(2, 3), &[1, 2]), ChangeCode::NodeIdReused);
    assert_eq!(code(&gone, &replace(2, 2), &[1, 2]), ChangeCode::NodeIdReused);
}

#[test]
fn a_majority_of_those_who_stay_is_connected() {
    assert_eq!(code(&three(), &remove(2), &[1, 2]), ChangeCode::QuorumAtRisk);
    made(&three(), &remove(3), &[1, 2]);
    made(&three(), &Change::Remove { node: 2, force: true }, &[1, 2]);
    // Four voters need three.
    made(&three(), &add(4), &[1, 2]);
    assert_eq!(code(&three(), &add(4), &[1]), ChangeCode::QuorumAtRisk);
    made(&three(), &replace(3, 4), &[1, 2]);
    made(&three(), &replace(2, 4), &[1, 2]);
    assert_eq!(code(&three(), &replace(1, 4), &[1]), ChangeCode::QuorumAtRisk);
    let one = Roll::bootstrapped(&BTreeMap::from([(1, "n1:1".to_owned())]));
    assert_eq!(code(&one, &Change::Remove { node: 1, force: true }, &[1]), ChangeCode::LastNode);
}

#[test]
fn a_replacement_can_be_given_up_or_done() {
    let roll = made(&three(), &replace(3, 4), &[1, 2]);
    assert_eq!(roll.changed(&replace(3, 4), &sight(&[1])).unwrap(), None, "asked for again");
    assert_eq!(code(&roll, &remove(3), &[1, 2]), ChangeCode::InProgress);
    assert!(!roll.may_lead(3));
    let given_up = made(&roll, &remove(4), &[1, 2, 3]).settled(&sight(&[])).unwrap();
    assert!(given_up.members.contains_key(&3) && given_up.retired.contains_key(&4));
    let done = roll.settled(&sight(&[1, 2, 4])).unwrap();
    assert_eq!(done.members.keys().copied().collect::<Vec<_>>(), [1, 2, 4]);
    assert!(done.retired.contains_key(&3) && done.members[&4].replaces.is_none());
    assert_eq!(done.changed(&replace(3, 4), &sight(&[1])).unwrap(), None, "asked for once more");
}

#[test]
fn ids_and_addresses_are_taken_once_and_there_is_a_limit() {
    let elsewhere = Change::Add { node: 3, address: "x:1".into() };
    assert_eq!(code(&three(), &elsewhere, &[1, 2, 3]), ChangeCode::NodeExists);
    let taken = Change::Add { node: 4, address: "n3:1".into() };
    assert_eq!(code(&three(), &taken, &[1, 2, 3]), ChangeCode::NodeExists);
    assert_eq!(code(&three(), &remove(9), &[1, 2, 3]), ChangeCode::UnknownNode);
    let seven = Roll::bootstrapped(&(1..=7).map(|id| (id, format!("n{id}:1"))).collect());
    let all: Vec<u64> = (1..=7).collect();
    assert_eq!(code(&seven, &add(8), &all), ChangeCode::TooManyNodes);
    made(&seven, &replace(1, 8), &all);
}

#[test]
fn leaders_are_pinned_drained_and_set_free() {
    let pin = Change::Transfer { shard: 1, to: 3 };
    let pinned = made(&three(), &pin, &[1, 2, 3]);
    assert_eq!(pinned.pinned, BTreeMap::from([(1, 3)]));
    assert_eq!(code(&three(), &pin, &[1, 2]), ChangeCode::NodeNotReady);
    assert_eq!(code(&three(), &Change::Transfer { shard: 4, to: 3 }, &[1, 2, 3]), ChangeCode::UnknownShard);
    let drained = made(&pinned, &Change::Drain { node: 3 }, &[1, 2, 3]);
    assert!(!drained.may_lead(3) && drained.pinned.is_empty());
    assert_eq!(code(&drained, &pin, &[1, 2, 3]), ChangeCode::NodeNotReady);
    let both = made(&drained, &Change::Drain { node: 2 }, &[1, 2, 3]);
    assert_eq!(code(&both, &Change::Drain { node: 1 }, &[1, 2, 3]), ChangeCode::NodeNotReady);
    assert!(made(&both, &Change::Undrain { node: 3 }, &[1]).may_lead(3));
    assert!(made(&pinned, &Change::Rebalance, &[1]).pinned.is_empty());
}
