use super::*;
use crate::{
    contents::{Contents, FileSum},
    snapshot::SnapshotDir,
    type_config::{Leader, LogId, SnapshotMeta, StoredMembership},
};

const SNAPSHOT_BYTES: u64 = 1_000;

fn snapshot(index: u64) -> Snapshot {
    let last_log_id = Some(LogId { leader_id: Leader { term: 1, node_id: 1 }, index });
    let meta = SnapshotMeta { last_log_id, last_membership: StoredMembership::default() };
    let files = vec![FileSum { name: "a".into(), bytes: SNAPSHOT_BYTES, checksum: 0 }];
    Snapshot::from(SnapshotDir { path: "nowhere".into(), contents: Arc::new(Contents { meta, files }) })
}

/// Follower 2 has its log up to `matched`.
fn look(matched: u64, snapshot_index: u64, now: Instant) -> Look {
    Look { matched: Some(BTreeMap::from([(2, matched)])), snapshot_index, held_log_bytes: 0, now }
}

fn is_overtaken(ticket: &Ticket) -> bool {
    *ticket.overtaken.borrow()
}

#[test]
fn the_log_is_kept_until_the_receiver_does_not_need_a_newer_snapshot() {
    let (transfers, now) = (Transfers::default(), clock::now());
    let ticket = transfers.begin(2, &snapshot(50));
    assert_eq!(transfers.kept_from(), Some(50));
    transfers.review(&look(0, 90, now));
    assert_eq!(transfers.kept_from(), Some(50), "a newer snapshot changes nothing");
    ticket.moved(400);
    assert_eq!(transfers.progress(), BTreeMap::from([(2, (400, SNAPSHOT_BYTES))]));
    ticket.installed();
    drop(ticket);
    assert!(transfers.progress().is_empty() && transfers.unfinished().is_none());
    transfers.review(&look(50, 90, now));
    assert_eq!(transfers.kept_from(), Some(50), "it still needs what is behind");
    transfers.review(&look(90, 90, now));
    assert_eq!(transfers.kept_from(), None);
}

#[test]
fn what_broke_off_is_kept_to_go_on_with_but_not_for_ever() {
    let (transfers, now) = (Transfers::default(), clock::now());
    drop(transfers.begin(2, &snapshot(50)));
    transfers.review(&look(0, 90, now + STALLED_AFTER / 2));
    let unfinished = transfers.unfinished().unwrap();
    assert_eq!(unfinished.snapshot.contents.index(), 50);
    drop(unfinished);
    let ticket = transfers.begin(2, &snapshot(50));
    transfers.review(&look(0, 90, clock::now() + STALLED_AFTER));
    assert!(is_overtaken(&ticket) && transfers.is_empty());
    assert!(!transfers.begin(2, &snapshot(90)).hurried, "it was away; that says nothing about speed");
}

#[test]
fn who_is_overtaken_by_the_log_gets_the_next_snapshot_in_a_hurry() {
    let (transfers, now) = (Transfers::default(), clock::now());
    let ticket = transfers.begin(2, &snapshot(50));
    assert!(!ticket.hurried);
    transfers.log_grew(SNAPSHOT_BYTES);
    transfers.review(&look(0, 90, now));
    assert!(!is_overtaken(&ticket), "as much log as snapshot");
    drop(ticket);
    // A connection that breaks does not begin the count anew.
    let ticket = transfers.begin(2, &snapshot(50));
    transfers.log_grew(1);
    transfers.review(&look(0, 90, now));
    assert!(is_overtaken(&ticket) && transfers.is_empty(), "more of it");
    drop(ticket);
    assert!(transfers.begin(2, &snapshot(90)).hurried);
    transfers.review(&look(90, 90, now));
    transfers.review(&Look { matched: None, ..look(0, 90, now) });
    assert!(transfers.is_empty(), "who does not lead keeps nothing for anybody");
    assert!(!transfers.begin(2, &snapshot(190)).hurried);
}

#[test]
fn an_attempt_that_was_replaced_changes_nothing_any_more() {
    let transfers = Transfers::default();
    let first = transfers.begin(2, &snapshot(50));
    let second = transfers.begin(2, &snapshot(60));
    first.moved(100);
    drop(first);
    second.moved(5);
    assert_eq!(transfers.progress(), BTreeMap::from([(2, (5, SNAPSHOT_BYTES))]));
    assert_eq!(transfers.kept_from(), Some(60));
}
