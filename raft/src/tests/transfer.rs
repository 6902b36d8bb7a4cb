//! Snapshots on their way: cut off, damaged, slow, overtaken. On the engines of production.

use std::{
    fs,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};

use super::{
    cluster::{applied, insist_among},
    hub::{NODES, Trio, until, within},
    journal::rocks_states,
};
use crate::{
    FatalSink, PeerMetrics, PeerState, clock,
    contents::{Contents, KnownSums},
    pace::Pace,
    peers::{
        lender::{ALL_FILES, Lender},
        snapshot::Intake,
        wire::{Installed, SnapshotPiece},
    },
    snapshot::SnapshotDir,
    throttle::Throttle,
    type_config::Vote,
};

const COMMAND_BYTES: usize = 16 << 10;
/// A snapshot is due after a few commands.
const EVERY_BYTES: u64 = 10 * COMMAND_BYTES as u64;

/// Bytes that no engine makes smaller.
fn command(number: u64) -> Bytes {
    let mut seed = number * 2 + 1;
    let words = std::iter::repeat_with(|| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        seed.to_be_bytes()
    });
    words.flatten().take(COMMAND_BYTES).collect()
}

/// A cluster in which one node was away until the log that it needs was gone.
struct Late {
    trio: Trio,
    away: u64,
    others: Vec<u64>,
    proposed: Vec<Bytes>,
}

impl Late {
    async fn prepare(bytes_per_second: u64, held_log_bytes: u64) -> Self {
        let mut trio = Trio::with(1, EVERY_BYTES, rocks_states).await;
        // What counts is what those are told who start from now on.
        (trio.snapshot_bytes_per_second, trio.held_log_bytes) = (bytes_per_second, held_log_bytes);
        // Node 1 is who should lead; so it does not move when the third one comes.
        let away = 3;
        trio.stop(away).await;
        let others: Vec<u64> = NODES.into_iter().filter(|id| *id != away).collect();
        for id in &others {
            trio.stop(*id).await;
            trio.run(*id).await;
        }
        until("node 1 leads", || trio.group(1, 0).leadership().borrow().is_leader).await;
        let mut late = Self { trio, away, others, proposed: Vec::new() };
        for _ in 0..100 {
            late.propose().await;
        }
        for id in &late.others {
            let group = late.trio.group(*id, 0);
            while group.status().purged_index < 90 {
                group.trigger_snapshot().await.unwrap();
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        late
    }

    async fn propose(&mut self) {
        let command = command(self.proposed.len() as u64);
        insist_among(&self.trio, &self.others, 0, &command).await;
        self.proposed.push(command);
    }

    /// Bytes of snapshots that were sent, and that needed not be.
    fn sent(&self) -> (u64, u64) {
        let sent = self.others.iter().map(|id| self.trio.metrics[id].snapshot_bytes());
        sent.fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1))
    }

    fn progress(&self) -> Option<(u64, u64)> {
        let progress = self.others.iter().map(|id| self.trio.group(*id, 0).transfers_for_tests().progress());
        progress.flat_map(|progress| progress.get(&self.away).copied()).max()
    }

    /// Whether a node leads, and since which election.
    fn reign(&self, id: u64) -> (bool, u64) {
        let leadership = *self.trio.group(id, 0).leadership().borrow();
        (leadership.is_leader, leadership.term)
    }

    async fn until_caught_up(&self) {
        let all = || applied(&self.trio, self.away, 0) == self.proposed;
        assert!(within(30_000, all).await, "it does not catch up: {:?}", self.trio.group(self.away, 0).status());
        let idle = || self.others.iter().all(|id| self.trio.group(*id, 0).transfers_for_tests().is_empty());
        until("nothing is kept for anybody", idle).await;
    }
}

/// Whether everything went as it should with one leader; an election in the middle proves nothing either way.
async fn resumes() -> bool {
    let mut late = Late::prepare(512 << 10, 1 << 30).await;
    let leader = late.trio.leader(0).await;
    late.trio.run(late.away).await;
    let before = late.reign(leader);
    let half = || late.progress().is_some_and(|(there, all)| there > all / 3 && there < all);
    until("a third of it is there", half).await;
    late.trio.hub.cut_off(late.away);
    let connected = || {
        let peers = late.trio.nodes[&leader].cluster().unwrap().peers();
        peers.iter().any(|peer| peer.node_id == late.away && peer.state == PeerState::Connected)
    };
    until("the connection is cut", || !connected()).await;
    let (sent_before, _) = late.sent();
    if late.trio.group(late.away, 0).status().snapshot_index > 0 {
        // Too fast to be cut.
        late.trio.shutdown().await;
        return false;
    }
    let all = late.progress().map_or(0, |(_, all)| all);
    late.trio.hub.heal();
    late.until_caught_up().await;
    let (sent, resumed) = late.sent();
    let same = before.0 && late.reign(leader) == before;
    late.trio.shutdown().await;
    if same {
        assert!(resumed + (512 << 10) >= sent_before, "{resumed} of {sent_before} bytes were not sent again");
        assert!(sent <= all + (512 << 10), "{sent} bytes were sent for a snapshot of {all}");
    }
    same
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_that_was_cut_goes_on_where_it_was() {
    for _ in 0..5 {
        if resumes().await {
            return;
        }
    }
    panic!("elections, five times");
}

/// The largest file of the newest snapshot of a node.
fn largest_file(trio: &Trio, id: u64) -> PathBuf {
    let snapshot = trio.group(id, 0).home().newest_snapshot().unwrap();
    let file = snapshot.contents.files.iter().max_by_key(|file| file.bytes).unwrap();
    snapshot.path.join(&file.name)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_byte_that_flipped_in_a_snapshot_stops_who_sends_it_and_is_installed_nowhere() {
    for _ in 0..5 {
        if a_byte_flips().await {
            return;
        }
    }
    panic!("elections, five times");
}

/// Whether the one whose file is damaged went on sending; after an election it is another one, whose file is sound.
async fn a_byte_flips() -> bool {
    let mut late = Late::prepare(512 << 10, 1 << 30).await;
    late.trio.run(late.away).await;
    until("it is being sent", || late.progress().is_some()).await;
    let leader = late.trio.leader(0).await;
    let before = late.reign(leader);
    let file = fs::File::options().read(true).write(true).open(largest_file(&late.trio, leader)).unwrap();
    let (mut byte, far) = ([0], file.metadata().unwrap().len() * 9 / 10);
    file.read_exact_at(&mut byte, far).unwrap();
    file.write_all_at(&[byte[0] ^ 16], far).unwrap();
    let is_there = || late.trio.group(late.away, 0).status().snapshot_index > 0;
    within(30_000, || late.trio.has_ended(leader) || late.reign(leader) != before || is_there()).await;
    if !late.trio.has_ended(leader) {
        // Whoever looks at the damaged file may find it while it ends.
        while let Some((_, node)) = late.trio.nodes.pop_first() {
            node.shutdown().await.ok();
        }
        return false;
    }
    let reason = late.trio.expect_fatal(leader, "STATE_DAMAGED").await;
    assert!(reason.to_string().contains("of a snapshot: its checksum is"), "{reason}");
    // The other one has it, too, and undamaged.
    let all = || applied(&late.trio, late.away, 0) == late.proposed;
    assert!(within(30_000, all).await, "it does not catch up");
    late.trio.shutdown().await;
    true
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_not_purged_past_a_snapshot_that_is_being_sent() {
    let mut late = Late::prepare(1 << 20, 1 << 30).await;
    late.trio.run(late.away).await;
    let (mut newest, mut came) = (0, 0);
    while late.trio.group(late.away, 0).status().snapshot_index == 0 {
        late.propose().await;
        for id in late.others.clone() {
            let (status, kept) =
                (late.trio.group(id, 0).status(), late.trio.group(id, 0).transfers_for_tests().kept_from());
            newest = newest.max(status.snapshot_index);
            came = kept.unwrap_or(came);
            // Read in this order: what is kept now was kept when the status was, or began later behind it.
            let outrun = kept.is_some_and(|kept| status.purged_index > kept);
            assert!(!outrun, "purged up to {}, needed from {kept:?}", status.purged_index);
        }
        // A load that leaves time for something else.
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert!(late.proposed.len() < 6_000, "it never comes");
    }
    assert!(newest > came, "newer snapshots were taken meanwhile: {newest}, {came}");
    late.until_caught_up().await;
    let purged = || late.others.iter().all(|id| late.trio.group(*id, 0).status().purged_index > came);
    until("the log is purged again", purged).await;
    late.trio.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_that_overtakes_a_slow_transfer_does_not_do_so_for_ever() {
    let began: Instant = clock::now();
    let mut late = Late::prepare(1 << 10, EVERY_BYTES).await;
    late.trio.run(late.away).await;
    while late.trio.group(late.away, 0).status().snapshot_index == 0 {
        late.propose().await;
        // A disk that is slow shall not lose the race for ever.
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert!(began.elapsed() < Duration::from_secs(120), "it never comes: {:?}", late.progress());
    }
    late.until_caught_up().await;
    let (sent, _) = late.sent();
    let limit = began.elapsed().as_secs() * (1 << 10);
    assert!(sent > 2 * limit, "{sent} bytes were sent where the limit lets {limit} pass");
    late.trio.shutdown().await;
}

/// A directory of what another one holds, with files of its own.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_whole_and_was_not_installed_before_the_process_ended_is_not_sent_again() {
    for _ in 0..5 {
        if is_not_sent_again().await {
            return;
        }
    }
    panic!("elections, five times");
}

/// Whether the one whose snapshot was there already has sent it; that of another one consists of other files.
async fn is_not_sent_again() -> bool {
    let mut late = Late::prepare(0, 1 << 30).await;
    let leader = late.trio.leader(0).await;
    let before = late.reign(leader);
    let taken = late.trio.group(leader, 0).home().newest_snapshot().unwrap();
    let shard = late.trio.dirs[&late.away].path().join("shard-0");
    copy(&taken.path, &shard.join("received"));
    late.trio.run(late.away).await;
    late.until_caught_up().await;
    let (sent, resumed) = late.sent();
    let same = before.0 && late.reign(leader) == before;
    let is_rest = sent < taken.contents.bytes() / 10 && resumed > sent;
    assert!(is_rest || !same, "{sent} bytes were sent, {resumed} were there");
    assert!(!shard.join("received").exists() && !shard.join("incoming").exists());
    drop(taken);
    late.trio.shutdown().await;
    same
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_was_damaged_before_its_checksum_was_taken_ends_who_has_it() {
    let mut late = Late::prepare(0, 1 << 30).await;
    for id in late.others.clone() {
        let file = largest_file(&late.trio, id);
        late.trio.stop(id).await;
        // Not the state, which shares its files.
        let mut bytes = fs::read(&file).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 4;
        fs::remove_file(&file).unwrap();
        fs::write(&file, bytes).unwrap();
        let dir = file.parent().unwrap();
        let meta = Contents::announced(dir).unwrap().meta;
        Contents::of(dir, meta, &mut KnownSums::default()).unwrap().record(dir).unwrap();
    }
    for id in late.others.clone() {
        late.trio.run(id).await;
    }
    late.trio.run(late.away).await;
    late.trio.leader(0).await;
    // Who leads when it is sent, which may be the other one by then: both have it damaged.
    let reason = late.trio.expect_fatal_of(&late.others.clone(), "STATE_DAMAGED").await;
    assert!(reason.to_string().contains("of a snapshot"), "{reason}");
    assert_eq!(late.trio.group(late.away, 0).status().snapshot_index, 0, "nothing was installed");
    // The other one may lead by now, and end for the same reason.
    for id in late.trio.nodes.keys().copied().collect::<Vec<_>>() {
        late.trio.stop(id).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deposed_leader_does_not_take_the_place_of_a_transfer() {
    let trio = Trio::with(1, EVERY_BYTES, rocks_states).await;
    let leader = trio.leader(0).await;
    let group = trio.group(leader, 0);
    group.trigger_snapshot().await.unwrap();
    until("there is a snapshot", || group.status().snapshot_index > 0).await;
    let contents = (*group.home().newest_snapshot().unwrap().contents).clone();
    let (intake, vote) = (Intake::default(), group.vote());
    let number = intake.begin(vote, contents.clone(), group).unwrap();
    let before = Vote::new_committed(vote.leader_id.term - 1, vote.leader_id.node_id);
    let error = intake.begin(before, contents, group).unwrap_err();
    assert!(error.to_string().contains("has voted"), "{error}");
    assert_eq!(intake.file(number, 0).unwrap(), 0, "the first transfer goes on");
    trio.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_ends_a_transfer_late_does_not_touch_the_one_that_is_being_installed() {
    let trio = Trio::with(1, EVERY_BYTES, rocks_states).await;
    let group = trio.group(trio.leader(0).await, 0);
    group.trigger_snapshot().await.unwrap();
    until("there is a snapshot", || group.status().snapshot_index > 0).await;
    let taken = group.home().newest_snapshot().unwrap();
    let (intake, vote) = (Intake::default(), group.vote());
    let late = intake.begin(vote, (*taken.contents).clone(), group).unwrap();
    let transfer = intake.begin(vote, (*taken.contents).clone(), group).unwrap();
    for (place, file) in (0..).zip(&taken.contents.files) {
        assert_eq!(intake.file(transfer, place).unwrap(), 0);
        // An empty file is complete already.
        if file.bytes == 0 {
            continue;
        }
        let bytes = fs::read(taken.path.join(&file.name)).unwrap().into();
        intake.piece(&SnapshotPiece { transfer, place, offset: 0, bytes }).unwrap();
    }
    // Verified at a byte a second.
    assert_eq!(intake.end(transfer, group, Some(Pace::new(1))).await.unwrap(), Installed::GoesOn);
    let refused = intake.end(late, group, None).await.unwrap_err();
    assert!(refused.to_string().contains("another snapshot is being installed"), "{refused}");
    assert!(group.home().received().exists());
    drop(intake);
    trio.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_lent_leaves_no_faster_than_snapshots_may_and_is_looked_at_when_it_arrives_damaged() {
    let late = Late::prepare(0, 1 << 30).await;
    let leader = late.trio.leader(0).await;
    let group = late.trio.group(leader, 0);
    let (throttle, fatal) = (Arc::new(Throttle::new(1 << 20)), FatalSink::default());
    let lender = Lender::new(throttle, PeerMetrics::default(), fatal.clone());
    for _ in 0..80 {
        let mut out = BytesMut::new();
        lender.lend(group, 0, &mut out).await.unwrap();
        assert_eq!(out[..9], [1, 0, 0, 0, 0, 0, 0, 0, 1], "all share a loan");
    }
    let taken = group.home().newest_snapshot().unwrap();
    for other in 1..=64 {
        let another = SnapshotDir { path: other.to_string().into(), contents: Arc::clone(&taken.contents) };
        let refused = lender.offer(another, &mut BytesMut::new()).err();
        assert_eq!(refused.is_some(), other == 64, "{refused:?}");
    }

    let largest = taken.contents.files.iter().enumerate().max_by_key(|(_, file)| file.bytes).unwrap();
    let (place, file) = (largest.0 as u32, largest.1.clone());
    let question = |offset: u64| [&1_u64.to_be_bytes()[..], &place.to_be_bytes(), &offset.to_be_bytes()].concat();
    let (began, mut offset) = (clock::now(), 0);
    while offset < file.bytes {
        offset += lender.piece(question(offset).into()).await.unwrap().len() as u64;
    }
    assert!(began.elapsed().as_secs_f64() > file.bytes as f64 / f64::from(1 << 20) - 0.1, "{} bytes", file.bytes);

    for judged in [place, ALL_FILES] {
        lender.judge(1, judged, group.home()).await.unwrap();
    }
    assert!(fatal.get().is_none(), "it is sound here");
    let handle = fs::File::options().read(true).write(true).open(taken.path.join(&file.name)).unwrap();
    let mut byte = [0];
    handle.read_exact_at(&mut byte, file.bytes / 2).unwrap();
    handle.write_all_at(&[byte[0] ^ 1], file.bytes / 2).unwrap();
    assert!(lender.judge(1, place, group.home()).await.is_err());
    assert_eq!(fatal.get().unwrap().code(), "STATE_DAMAGED");
    // Also where all files arrived as they were announced, and only who reads them as a whole sees it.
    let fatal = FatalSink::default();
    let lender = Lender::new(Arc::new(Throttle::new(0)), PeerMetrics::default(), fatal.clone());
    lender.offer(taken.clone(), &mut BytesMut::new()).unwrap();
    assert!(lender.judge(1, ALL_FILES, group.home()).await.is_err());
    assert_eq!(fatal.get().unwrap().code(), "STATE_DAMAGED");
}
