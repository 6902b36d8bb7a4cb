//! Flipped bytes in what a shard keeps on its disk, on the engines of production: the node ends or makes it anew, and what
//! was acknowledged is there afterwards.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    cluster::{applied, insist},
    hub::{Trio, until},
    journal::rocks_states,
};
use crate::{FatalSink, Part, ShardDigests, snapshot::SnapshotDir};
use bytes::Bytes;

/// Flips a byte in the middle of every file with this ending. Returns how many there were.
pub(super) fn damage(dir: &Path, ending: &str) -> usize {
    let mut damaged = 0;
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.to_string_lossy().ends_with(ending) {
            let mut bytes = fs::read(&path).unwrap();
            let middle = bytes.len() / 3;
            bytes[middle] ^= 1;
            fs::write(&path, bytes).unwrap();
            damaged += 1;
        }
    }
    damaged
}

pub(super) fn only(dir: &Path, prefix: &str) -> PathBuf {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<_> =
        entries.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with(prefix)).collect();
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

/// The state that counts: one that was replaced may still be there.
pub(super) fn state(shard: &Path) -> PathBuf {
    let record = fs::read_to_string(shard.join("CURRENT")).unwrap();
    shard.join(record.split_once(' ').unwrap().0)
}

/// The snapshot that a start looks at: an older one may still be there.
pub(super) fn newest(snapshots: &Path) -> PathBuf {
    let all = fs::read_dir(snapshots).unwrap().map(|entry| entry.unwrap().path());
    let taken = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().bytes().all(|byte| byte.is_ascii_digit());
    all.filter(taken).max().unwrap()
}

/// A cluster whose logs begin behind snapshots, and what each of its shards has acknowledged.
pub(super) async fn purged(shards: u32) -> (Trio, Vec<Bytes>) {
    let trio = Trio::with(shards, 20_000, rocks_states).await;
    let mut expected = Vec::new();
    let groups = || trio.nodes.values().flat_map(|node| node.groups());
    while expected.len() < 200 || !groups().all(|group| group.status().purged_index > 100) {
        let command = Bytes::from(format!("{:01000}", expected.len()));
        for shard in 0..shards {
            insist(&trio, shard, &command).await;
        }
        expected.push(command);
        assert!(expected.len() < 20_000, "the log is never purged");
    }
    for id in trio.nodes.keys() {
        for shard in 0..shards {
            until("all have it", || applied(&trio, *id, shard) == expected).await;
        }
    }
    (trio, expected)
}

pub(super) async fn agrees(trio: &Trio, at: u64) {
    for _ in 0..100 {
        let found = trio.nodes[&at].cluster().unwrap().verify(Duration::from_secs(20)).await;
        if found.iter().all(ShardDigests::agree) {
            return;
        }
        assert!(found.iter().any(|shard| shard.nodes.values().any(Result::is_err)), "states differ: {found:#?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the states could not be compared");
}

#[tokio::test(flavor = "multi_thread")]
async fn promise_1_a_shard_that_lost_state_and_snapshot_gets_one_from_another_node() {
    let (mut trio, mut expected) = purged(1).await;
    let hurt = trio.leader(0).await;
    trio.stop(hurt).await;
    let dir = trio.dirs[&hurt].path().join("shard-0");
    // Closing takes a moment: its readers go one by one.
    assert!(damage(&state(&dir), "CURRENT") == 1, "the state cannot be opened any more");
    assert!(damage(&newest(&dir.join("snapshots")), ".sst") > 0);
    let meanwhile = Bytes::from_static(b"meanwhile");
    insist(&trio, 0, &meanwhile).await;
    expected.push(meanwhile);
    trio.run(hurt).await;
    until("it has everything again", || applied(&trio, hurt, 0) == expected).await;
    assert!(dir.join("damaged-state").exists() && dir.join("damaged-snapshot").exists(), "kept for a look");
    let left = || fs::read_dir(trio.group(hurt, 0).home().received()).map_or(0, Iterator::count);
    until("nothing is left of the transfer", || left() == 0).await;
    agrees(&trio, hurt).await;
    trio.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_that_a_read_meets_ends_the_node_and_the_next_start_repairs_it() {
    let (mut trio, expected) = purged(1).await;
    let hurt = trio.leader(0).await % 3 + 1;
    trio.stop(hurt).await;
    let dir = trio.dirs[&hurt].path().join("shard-0");
    // The largest table holds the commands; a start reads the position only.
    let tables = fs::read_dir(state(&dir)).unwrap().map(|entry| entry.unwrap().path());
    let tables = tables.filter(|path| path.extension().is_some_and(|found| found == "sst"));
    let largest = tables.max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
    assert_eq!(damage(largest.parent().unwrap(), largest.file_name().unwrap().to_str().unwrap()), 1);
    let fatal = FatalSink::default();
    trio.run_with_disk(hurt, &format!("disk-{hurt}"), fatal.clone()).await.unwrap();
    {
        let engine = trio.group(hurt, 0).engine_for_tests();
        assert!(engine.verify(&mut |_| true).is_err(), "the damage is there");
        drop(engine);
        let error = fatal.wait().await;
        assert_eq!(error.code(), "STATE_DAMAGED", "{error}");
        assert!(
            error.to_string().contains("the state of shard 0") && error.to_string().contains("start the node again")
        );
        let node = trio.nodes.remove(&hurt).unwrap();
        trio.hub.cut_off(hurt);
        node.shutdown().await.ok();
        trio.hub.heal();
        assert!(dir.join("STATE-DAMAGED").exists());
    }
    // The engine that has failed may still be closing.
    let mut tries = 0;
    while let Err(error) = trio.run_with_disk(hurt, &format!("disk-{hurt}"), FatalSink::default()).await {
        tries += 1;
        assert!(tries < 100, "{error}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    until("it has everything again", || applied(&trio, hurt, 0) == expected).await;
    assert!(!dir.join("STATE-DAMAGED").exists());
    agrees(&trio, hurt).await;
    trio.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_to_a_name_or_a_snapshot_alone_is_repaired_from_what_is_sound() {
    let (mut trio, expected) = purged(1).await;
    let hurt = trio.leader(0).await % 3 + 1;
    let dir = trio.dirs[&hurt].path().join("shard-0");
    for round in 0..2 {
        trio.stop(hurt).await;
        match round {
            0 => assert_eq!(damage(&dir, "CURRENT"), 1),
            _ => assert_eq!(damage(&newest(&dir.join("snapshots")), "CURRENT"), 1),
        }
        trio.run(hurt).await;
        until("it has everything again", || applied(&trio, hurt, 0) == expected).await;
        let name = ["damaged-state", "damaged-snapshot"][round];
        assert!(dir.join(name).exists(), "round {round}");
        fs::remove_dir_all(dir.join(name)).unwrap();
    }
    until("there is a snapshot again", || trio.group(hurt, 0).home().newest_snapshot().is_some()).await;
    // What a snapshot consists of is looked up in its files when it is not on record.
    trio.stop(hurt).await;
    let snapshot = newest(&dir.join("snapshots"));
    let record = fs::read(snapshot.join("CONTENTS")).unwrap();
    assert_eq!(damage(&snapshot, "CONTENTS"), 1);
    trio.run(hurt).await;
    assert_eq!(fs::read(snapshot.join("CONTENTS")).unwrap(), record);
    for name in ["damaged-state", "damaged-snapshot"] {
        assert!(!dir.join(name).exists(), "{name}");
    }
    until("it has everything again", || applied(&trio, hurt, 0) == expected).await;
    agrees(&trio, hurt).await;
    trio.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_snapshot_is_not_taken_from_another_node() {
    let (trio, _) = purged(1).await;
    let (from, to) = (trio.leader(0).await, trio.leader(0).await % 3 + 1);
    // Held, so that a newer one does not take its place; and a copy where nobody else clears up.
    let taken = trio.group(from, 0).home().newest_snapshot().unwrap();
    let received = SnapshotDir { path: trio.dirs[&to].path().join("a copy"), contents: taken.contents.clone() };
    fs::create_dir_all(&received.path).unwrap();
    for entry in fs::read_dir(&taken.path).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, received.path.join(path.file_name().unwrap())).unwrap();
    }
    trio.group(to, 0).check_received(&received, None).await.unwrap();
    let mut another = (*taken.contents).clone();
    another.meta.last_log_id.as_mut().unwrap().index += 1;
    let another = SnapshotDir { path: received.path.clone(), contents: another.into() };
    let error = trio.group(to, 0).check_received(&another, None).await.unwrap_err();
    assert!(error.is_damage() && error.to_string().contains("as announced"), "{error}");
    assert!(damage(&received.path, ".sst") > 0);
    let error = trio.group(to, 0).check_received(&received, None).await.unwrap_err();
    assert!(error.is_damage(), "{error}");
    trio.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_scrub_finds_a_flipped_byte_in_a_log_and_the_node_does_not_start_again() {
    use super::journal::{Journal, rocks_log};
    use crate::{CommitMetrics, Node, NodeOptions};

    let dir = tempfile::tempdir().unwrap();
    let options = || {
        let mut options = NodeOptions::new(1, dir.path().to_owned(), 2);
        options.scrub.interval = Duration::from_millis(240);
        options.scrub.bytes_per_second = 1 << 30;
        options
    };
    let fatal = FatalSink::default();
    let log = rocks_log(&dir.path().join("log"));
    let apply = |_| Journal::default();
    let node =
        Node::start(&options(), log, rocks_states(), apply, CommitMetrics::default(), fatal.clone()).await.unwrap();
    let group = &node.groups()[0];
    while group.read_barrier().await.is_err() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    group.propose(Bytes::from(vec![7; 100_000])).await.unwrap();
    assert!(damage(&dir.path().join("log"), ".log") > 0);
    let error = tokio::time::timeout(Duration::from_secs(10), fatal.wait()).await.expect("the scrub finds it");
    assert_eq!((error.code(), Part::Log.code()), ("LOG_DAMAGED", "LOG_DAMAGED"), "{error}");
    assert!(error.to_string().contains("tandem cluster replace"), "{error}");
    node.shutdown().await.ok();
    assert!(dir.path().join("LOG-DAMAGED").exists());
}
