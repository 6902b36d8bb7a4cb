use std::collections::BTreeMap;

use super::*;

struct Side {
    gate: Gate,
    _dir: tempfile::TempDir,
}

fn introduction(node_id: u64) -> Introduction {
    Introduction {
        cluster_id: "blue".into(),
        node_id,
        disk_id: format!("disk-{node_id}"),
        shards: 4,
        service_address: format!("127.0.0.1:800{node_id}"),
        versions: Versions::default(),
    }
}

fn side(own: Introduction, secret: &str) -> Side {
    let dir = tempfile::tempdir().unwrap();
    let members = BTreeMap::from([(1, String::new()), (2, String::new()), (3, String::new())]);
    let roster = Roster::open(dir.path(), members).unwrap();
    Side { gate: Gate { own, secret: Secret::new(secret.as_bytes().to_vec()), roster }, _dir: dir }
}

async fn meet(dialer: &Side, acceptor: &Side, to: u64) -> (Result<u64, Refusal>, Result<u64, Refusal>) {
    let (left, right) = tokio::io::duplex(1 << 16);
    let dialing = async {
        let (read, mut write) = tokio::io::split(left);
        dial(&dialer.gate, to, &mut FrameReader::new(read, 0), &mut write).await.map(|who| who.node_id)
    };
    let accepting = async {
        let (read, mut write) = tokio::io::split(right);
        accept(&acceptor.gate, &mut FrameReader::new(read, 0), &mut write).await.map(|who| who.node_id)
    };
    tokio::join!(dialing, accepting)
}

fn code(result: &Result<u64, Refusal>) -> &'static str {
    result.as_ref().map_or_else(|refusal| refusal.code.code(), |_| "OK")
}

#[tokio::test]
async fn members_find_each_other() {
    let (one, two) = (side(introduction(1), "secret"), side(introduction(2), "secret"));
    for _ in 0..2 {
        let (dialed, accepted) = meet(&one, &two, 2).await;
        assert_eq!((dialed.unwrap(), accepted.unwrap()), (2, 1));
    }
}

#[tokio::test]
async fn strangers_are_refused_with_a_code() {
    let one = side(introduction(1), "secret");
    let cases = [
        (side(introduction(2), "another"), "CLUSTER_SECRET_MISMATCH"),
        (side(Introduction { cluster_id: "red".into(), ..introduction(2) }, "secret"), "CLUSTER_ID_MISMATCH"),
        (side(Introduction { shards: 8, ..introduction(2) }, "secret"), "SHARD_COUNT_MISMATCH"),
        (side(introduction(3), "secret"), "NODE_ID_MISMATCH"),
    ];
    for (other, expected) in cases {
        let (dialed, _) = meet(&one, &other, 2).await;
        assert_eq!(code(&dialed), expected);
    }
    let nine = side(introduction(9), "secret");
    let (dialed, accepted) = meet(&nine, &one, 1).await;
    assert_eq!((code(&dialed), code(&accepted)), ("NOT_A_MEMBER", "NOT_A_MEMBER"));
}

#[tokio::test]
async fn another_disk_under_a_known_id_is_refused_from_both_sides_and_after_a_restart() {
    let (one, two) = (side(introduction(1), "secret"), side(introduction(2), "secret"));
    meet(&one, &two, 2).await.0.unwrap();
    let reopened = Roster::open(one._dir.path(), one.gate.roster.members()).unwrap();
    let one = Side { gate: Gate { roster: reopened, ..one.gate }, _dir: one._dir };
    let wiped = side(Introduction { disk_id: "another".into(), ..introduction(2) }, "secret");
    assert_eq!(code(&meet(&one, &wiped, 2).await.0), "NODE_ID_REUSED");
    assert_eq!(code(&meet(&wiped, &one, 1).await.0), "NODE_ID_REUSED");
    meet(&two, &one, 1).await.0.unwrap();
}

#[tokio::test]
async fn who_does_not_know_the_secret_learns_nothing_else() {
    let one = side(introduction(1), "secret");
    let stranger = side(Introduction { cluster_id: "red".into(), shards: 1, ..introduction(2) }, "guess");
    let (dialed, accepted) = meet(&stranger, &one, 1).await;
    assert_eq!((code(&dialed), code(&accepted)), ("CLUSTER_SECRET_MISMATCH", "PEER_UNREACHABLE"));
}

#[test]
fn secrets_are_not_printed() {
    assert!(!format!("{:?}", Secret::new(b"hunter2hunter2".to_vec())).contains("hunter2"));
}

fn with(node_id: u64, versions: Versions) -> Side {
    side(Introduction { versions, ..introduction(node_id) }, "secret")
}

#[tokio::test]
async fn versions_that_cannot_work_together_part_and_others_do_not() {
    let now = Versions::default();
    let one = with(1, now);
    let next = Versions { newest_protocol: now.newest_protocol + 1, newest_level: now.newest_level + 1, ..now };
    meet(&one, &with(2, next), 2).await.0.unwrap();
    meet(&with(2, next), &one, 1).await.0.unwrap();
    let after = Versions { oldest_protocol: now.newest_protocol + 1, ..next };
    assert_eq!(code(&meet(&one, &with(2, after), 2).await.0), "PEER_VERSION_MISMATCH");
    assert_eq!(code(&meet(&with(2, after), &one, 1).await.0), "PEER_VERSION_MISMATCH");

    let mut raised = one.gate.roster.roll();
    (raised.revision, raised.level) = (1, now.newest_level + 1);
    let up = with(1, next);
    up.gate.roster.rolls().send_replace(raised);
    meet(&up, &with(2, next), 2).await.0.unwrap();
    assert_eq!(code(&meet(&with(2, now), &up, 1).await.0), "NODE_TOO_OLD");
    let needs_more = Versions { oldest_level: now.newest_level + 2, newest_level: now.newest_level + 2, ..next };
    assert_eq!(code(&meet(&with(2, needs_more), &up, 1).await.0), "NODE_TOO_NEW");
}

#[tokio::test]
async fn a_newer_roll_is_learned_from_a_member_of_it_and_from_nobody_else() {
    let now = Versions::default();
    let roll = |revision, ids: &[u64]| {
        let mut roll = Roll::bootstrapped(&ids.iter().map(|id| (*id, String::new())).collect());
        roll.revision = revision;
        roll
    };
    let with_roll = |id: u64, versions, roll: Roll| {
        let side = side(Introduction { versions, ..introduction(id) }, "secret");
        side.gate.roster.rolls().send_replace(roll);
        side
    };
    let stale = with_roll(1, now, roll(2, &[1, 2, 3]));
    let refused = "NOT_A_MEMBER";
    let before = Versions { newest_protocol: PROTOCOL_WITH_ROLL - 1, ..now };
    let cases = [
        (with_roll(8, before, roll(5, &[1, 7, 8])), 2, refused),
        (with_roll(8, now, roll(1, &[1, 7, 8])), 2, refused),
        (with_roll(8, now, roll(5, &[7, 8, 9])), 2, refused),
        (with_roll(9, now, roll(5, &[1, 7, 8])), 2, refused),
        (with_roll(8, now, roll(5, &[1, 7, 8])), 5, "OK"),
        (with_roll(7, now, roll(4, &[1, 2, 7])), 5, "OK"),
    ];
    for (number, (dialer, revision, expected)) in cases.iter().enumerate() {
        let (_, accepted) = meet(dialer, &stale, 1).await;
        assert_eq!((code(&accepted), stale.gate.roster.roll().revision), (*expected, *revision), "case {number}");
    }
    let stranger = side(introduction(8), "guess");
    stranger.gate.roster.rolls().send_replace(roll(9, &[1, 8]));
    meet(&stranger, &stale, 1).await.1.unwrap_err();
    assert_eq!(stale.gate.roster.roll().revision, 5);
}
