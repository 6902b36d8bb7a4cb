//! Disks that fail: the broker stops with a plain message, or does not start; it never answers from bad data.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use futures_util::TryStreamExt as _;
use tandem_client::{HistoryQuery, PublishStreamOptions};
use tandem_tests::{BrokerProcess, Exit, Home, Random, broker_binary, direct, now};

use crate::stage::{Stage, WORKSPACE, text};

#[track_caller]
fn expect_plain(exit: &Exit, exit_code: i32, code: &str, says: &[&str]) {
    assert_eq!(exit.code, Some(exit_code), "{exit:#?}");
    let last = exit.stderr.lines().rev().take(2).collect::<Vec<_>>();
    assert!(last[1].starts_with("error: ") && last[0] == format!("code: {code}"), "{exit:#?}");
    for part in says {
        assert!(last[1].contains(part), "{part:?} is not in {:?}", last[1]);
    }
    assert!(!exit.stderr.contains("panicked"), "{exit:#?}");
}

/// All files below a folder with this ending, the largest first.
fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == ending) {
                found.push(path);
            }
        }
    }
    found.sort_by_key(|path| std::cmp::Reverse(fs::metadata(path).unwrap().len()));
    found
}

/// Changes one bit in the middle of a file; returns what was there before.
fn flip(path: &Path, part_percent: usize) -> Vec<u8> {
    let before = fs::read(path).unwrap();
    let mut after = before.clone();
    after[before.len() * part_percent / 100] ^= 0x10;
    fs::write(path, after).unwrap();
    before
}

/// Text that does not compress, so that most of a file is content.
fn contents(count: usize) -> Vec<String> {
    let mut random = Random::new(11);
    (0..count).map(|_| (0..12).map(|_| format!("{:016x}", random.next())).collect()).collect()
}

/// Publishes until the broker answers no more; returns the sequences that it acknowledged.
async fn publish_until_it_fails(stage: &Stage, size: usize) -> Vec<u64> {
    // The broker does not come back: nobody looks for it.
    let options = PublishStreamOptions { resume_attempts: Some(0), ..PublishStreamOptions::default() };
    let stream = stage.client.publisher(WORKSPACE).stream(options);
    let mut pending = Vec::new();
    while let Ok(receipt) = stream.send(direct("alice", "bob", "x".repeat(size))).await {
        pending.push(receipt);
        assert!(pending.len() * size < 1 << 30, "the disk should have been full by now");
    }
    let mut acknowledged = Vec::new();
    for receipt in pending {
        acknowledged.extend(receipt.await.map(|receipt| receipt.sequence));
    }
    acknowledged
}

async fn expect_all(stage: &Stage, acknowledged: &[u64]) {
    let log: Vec<u64> = stage
        .history(HistoryQuery { page_size: 1_000, ..Default::default() })
        .await
        .iter()
        .map(|m| m.sequence)
        .collect();
    assert!(acknowledged.iter().all(|sequence| log.binary_search(sequence).is_ok()), "an acknowledged message is gone");
    assert_eq!(stage.pending("bob").await, log.len() as u64);
    stage.publish(direct("alice", "bob", "it works again")).await;
}

/// No file may grow beyond a limit, so a write fails in the middle of the load: the system's own way to say no, without
/// the right to mount anything.
#[tokio::test]
async fn promise_1_a_write_that_fails_stops_the_node_and_loses_nothing() {
    let home = Home::new();
    let config = home.config();
    let settings = home.path().join("limited.toml");
    fs::write(&settings, toml::to_string(&config).unwrap()).unwrap();
    let mut command = Command::new("sh");
    // Blocks of 512 bytes or 1 KiB, depending on the shell. Ignoring the signal makes the write fail instead.
    command
        .args(["-c", "trap '' XFSZ; ulimit -f 8192; exec \"$0\" --config \"$1\""])
        .arg(broker_binary())
        .arg(settings);
    let broker = BrokerProcess::spawn(&home, command).await.unwrap();
    let stage = Stage { client: broker.client(), home, config, broker };
    stage.register("alice").await;
    stage.register("bob").await;
    let acknowledged = publish_until_it_fails(&stage, 1_000).await;
    let Stage { home, config, broker, .. } = stage;
    let exit = broker.exit().await;
    println!(
        "{} messages acknowledged; then: {}",
        acknowledged.len(),
        exit.stderr.lines().rev().nth(1).unwrap_or_default()
    );
    expect_plain(&exit, 70, "STORAGE_FAILED", &["storage failed while", "the node must stop"]);
    assert!(acknowledged.len() > 100);

    let broker = BrokerProcess::start(&home, &config).await;
    let stage = Stage { client: broker.client(), home, config, broker };
    expect_all(&stage, &acknowledged).await;
}

/// A disk of 24 MiB that fills up, and then grows.
#[tokio::test]
#[ignore = "chaos: mounts a small disk, which needs root"]
async fn promise_1_a_full_disk_stops_the_node_and_loses_nothing() {
    let home = Home::new();
    let disk = SmallDisk::mount(&home.path().join("disk"), 24);
    let mut config = home.config();
    config.data_dir = disk.path.join("data");
    let broker = BrokerProcess::start(&home, &config).await;
    let stage = Stage { client: broker.client(), home, config, broker };
    stage.register("alice").await;
    stage.register("bob").await;
    let acknowledged = publish_until_it_fails(&stage, 1_000).await;
    let Stage { home, config, broker, .. } = stage;
    expect_plain(&broker.exit().await, 70, "STORAGE_FULL", &["disk full while", "free space and start the node again"]);
    // Still full: it says so again rather than start by halves.
    if let Err(exit) = BrokerProcess::try_start(&home, &config).await {
        expect_plain(&exit, 1, "STORAGE_FULL", &["disk full while"]);
    }
    disk.grow(400);
    let broker = BrokerProcess::start(&home, &config).await;
    let stage = Stage { client: broker.client(), home, config, broker };
    expect_all(&stage, &acknowledged).await;
    println!("{} messages acknowledged before the disk was full", acknowledged.len());
    drop(stage);
}

/// A file system in memory, unmounted at the end.
struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    fn mount(path: &Path, mebibytes: u32) -> Self {
        fs::create_dir(path).unwrap();
        let disk = Self { path: path.to_owned() };
        disk.run(Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={mebibytes}m"), "none"]).arg(path));
        disk
    }

    fn grow(&self, mebibytes: u32) {
        self.run(Command::new("mount").args(["-o", &format!("remount,size={mebibytes}m")]).arg(&self.path));
    }

    fn run(&self, command: &mut Command) {
        let output = command.output().unwrap();
        assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: after a failed test the broker may still run.
        Command::new("umount").arg("-l").arg(&self.path).status().ok();
    }
}

/// Damage to what was synced, far from the end of the log: to go on would be to forget acknowledged messages.
#[tokio::test]
async fn promise_1_a_damaged_log_is_refused_at_the_start() {
    let stage = Stage::with(&["alice", "bob"]).await;
    stage.publish_all(contents(3_000).into_iter().map(|content| direct("alice", "bob", content))).await;
    let Stage { home, config, broker, .. } = stage;
    broker.kill_nine();
    let log = files(&home.data().join("log"), "log").remove(0);
    for part_percent in [20, 50, 80] {
        let intact = flip(&log, part_percent);
        match BrokerProcess::try_start(&home, &config).await {
            Err(exit) => {
                let says = ["corrupt data while", "restore the data directory from a backup"];
                expect_plain(&exit, 1, "STORAGE_CORRUPT", &says);
            }
            Ok(broker) => panic!("it started from a damaged log:\n{}", broker.stderr()),
        }
        fs::write(&log, intact).unwrap();
    }
    let broker = BrokerProcess::start(&home, &config).await;
    let stage = Stage { client: broker.client(), home, config, broker };
    expect_all(&stage, &(1..=3_000).collect::<Vec<_>>()).await;
}

/// What a start says that sets a damaged state aside.
const REPAIRED: &str = "the state is damaged; it is made anew";

/// Damage in the state may be found only when the damaged part is read. Then the broker stops; what it said before was
/// right. The next start sets the state aside and makes it anew, here from the log alone.
#[tokio::test]
async fn a_damaged_state_is_never_answered_from() {
    let written = contents(6_000);
    let stage = Stage::with(&["alice", "bob"]).await;
    stage.publish_all(written.iter().map(|content| direct("alice", "bob", content.clone()))).await;
    let Stage { mut home, mut config, broker, .. } = stage;
    let (exit, _) = broker.stop().await;
    assert_eq!(exit.code, Some(0), "{exit:#?}");
    // Found by who reads, not by who looks for it.
    config.storage.scrub_bytes_per_second = 0;
    for part_percent in [10, 50, 90] {
        let table = largest_table(&home);
        assert!(fs::metadata(&table).unwrap().len() > 500_000, "the messages lie in {}", table.display());
        flip(&table, part_percent);
        let mut started = BrokerProcess::start(&home, &config).await;
        // What an opening meets is repaired at once; what somebody reads later ends the broker, and the next start repairs it.
        if !started.stderr().contains(REPAIRED) {
            expect_it_stops_when_read(started, &written).await;
            started = BrokerProcess::start(&home, &config).await;
        }
        assert!(started.stderr().contains(REPAIRED), "it says so: {}", started.stderr());
        let client = started.client();
        let stage = Stage { client, home, config, broker: started };
        expect_all(&stage, &(1..=6_000).collect::<Vec<_>>()).await;
        let Stage { broker: repaired, home: same, config: kept, .. } = stage;
        (home, config) = (same, kept);
        let (exit, _) = repaired.stop().await;
        assert_eq!(exit.code, Some(0), "{exit:#?}");
        assert!(files(&home.data(), "sst").iter().any(|path| path.to_string_lossy().contains("damaged")));
    }
}

/// The largest table of a state that is in use.
fn largest_table(home: &Home) -> PathBuf {
    let tables = files(&home.data(), "sst").into_iter();
    let of_states = tables.filter(|path| path.to_string_lossy().contains("/state-"));
    of_states.max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap()
}

async fn expect_it_stops_when_read(mut broker: BrokerProcess, written: &[String]) {
    let history = broker.client().history(WORKSPACE);
    let mut listing = Box::pin(history.list(HistoryQuery::default()));
    let mut right = 0;
    let failed = loop {
        match listing.try_next().await {
            Ok(Some(message)) => {
                assert_eq!(text(&message), written[message.sequence as usize - 1], "an answer from bad data");
                right += 1;
            }
            Ok(None) => break false,
            Err(_) => break true,
        }
    };
    assert!(failed, "all {right} messages were read from a damaged table");
    let asked = now();
    while broker.is_running() {
        assert!(asked.elapsed() < Duration::from_secs(5), "it goes on with a damaged state:\n{}", broker.stderr());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    expect_plain(
        &broker.exit().await,
        70,
        "STATE_DAMAGED",
        &["the state of shard", "is damaged", "start the node again"],
    );
}

/// The state of a shard is gone, and the log does not reach back to its beginning.
#[tokio::test]
async fn promise_1_a_state_that_is_gone_is_not_taken_for_an_empty_one() {
    let stage = Stage::set_up(&["alice", "bob"], |config| {
        config.storage.snapshot_every_bytes = 1 << 20;
        config.storage.shards = 1;
    })
    .await;
    stage.publish_all(contents(20_000).into_iter().map(|content| direct("alice", "bob", content))).await;
    while stage.broker.metric("tandem_shard_purged_index").await == 0.0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let Stage { home, config, broker, .. } = stage;
    broker.stop().await;
    fs::rename(home.data().join("shard-0"), home.path().join("elsewhere")).unwrap();
    match BrokerProcess::try_start(&home, &config).await {
        Err(exit) => assert!(exit.code == Some(1) && exit.stderr.contains("\ncode: "), "{exit:#?}"),
        Ok(broker) => panic!("it started without its state:\n{}", broker.stderr()),
    }
    fs::remove_dir_all(home.data().join("shard-0")).ok();
    fs::rename(home.path().join("elsewhere"), home.data().join("shard-0")).unwrap();
    let broker = BrokerProcess::start(&home, &config).await;
    let stage = Stage { client: broker.client(), home, config, broker };
    expect_all(&stage, &(1..=20_000).collect::<Vec<_>>()).await;
}

/// The log is gone: its vote and everything behind the state are unknown, and a node that forgot its vote may vote twice.
#[tokio::test]
async fn a_log_that_is_gone_is_not_taken_for_an_empty_one() {
    let stage = Stage::with(&["alice", "bob"]).await;
    stage.publish_all(contents(1_000).into_iter().map(|content| direct("alice", "bob", content))).await;
    let Stage { home, config, broker, .. } = stage;
    broker.stop().await;
    fs::rename(home.data().join("log"), home.path().join("elsewhere")).unwrap();
    match BrokerProcess::try_start(&home, &config).await {
        Err(exit) => assert!(exit.code == Some(1) && exit.stderr.contains("\ncode: "), "{exit:#?}"),
        Ok(broker) => panic!("it started without its log:\n{}", broker.stderr()),
    }
}
