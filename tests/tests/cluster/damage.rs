//! Bytes are flipped in every kind of file on one node of three: it says so, it serves nothing that is bad, and the cluster
//! loses nothing.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tandem_tests::{BrokerProcess, Exit, now};

use crate::{
    load::{check, publish},
    membership::{tandem, until_voting},
    trio::{PATIENCE, Trio},
};

/// The node whose disk lies: it leads the shard of the workspace whenever it can.
const LIAR: usize = 2;
/// Written by the scrub after each pass.
const CLEAN: &str = "everything on the disk is as it was written";

/// In every word of a node that ends, or of damage.
const OF_DAMAGE: [&str; 3] = ["\ncode: ", "_DAMAGED", "CORRUPT"];

/// What becomes of a node with a damaged file.
#[derive(Clone, Copy, PartialEq)]
enum Fate {
    /// It does not run until the file is what it was, or the node is replaced.
    Stops,
    /// It makes the file anew, after it has ended for it or at once.
    Repairs,
    /// Nothing is read from it that is used, or it is made anew from what is sound, without a word.
    Goes,
}

/// A kind of file: the folder in the data directory, how its name begins and ends, and what is said about damage to it.
struct Kind {
    folder: &'static str,
    begins: &'static str,
    ends: &'static str,
    fate: Fate,
    codes: &'static [&'static str],
}

const fn kind(
    folder: &'static str,
    begins: &'static str,
    ends: &'static str,
    fate: Fate,
    codes: &'static [&'static str],
) -> Kind {
    Kind { folder, begins, ends, fate, codes }
}

const STATE: &[&str] = &["STATE_DAMAGED"];
/// A snapshot shares its tables with the state.
const EITHER: &[&str] = &["STATE_DAMAGED", "SNAPSHOT_DAMAGED"];

const KINDS: [Kind; 19] = [
    kind("log", "", ".log", Fate::Stops, &["STORAGE_CORRUPT"]),
    kind("log", "MANIFEST-", "", Fate::Stops, &["STORAGE_CORRUPT"]),
    kind("log", "CURRENT", "", Fate::Stops, &["STORAGE_CORRUPT"]),
    kind("log", "", ".sst", Fate::Stops, &["STORAGE_CORRUPT", "LOG_DAMAGED"]),
    kind("log", "OPTIONS-", "", Fate::Goes, &[]),
    kind("log", "LOG", "", Fate::Goes, &[]),
    kind("", "IDENTITY", "", Fate::Stops, &["DATA_DIRECTORY_MISMATCH"]),
    kind("", "PEERS", "", Fate::Stops, &["FILE_DAMAGED"]),
    kind("", "ROLL", "", Fate::Repairs, &["FILE_DAMAGED"]),
    kind("shard-2", "CURRENT", "", Fate::Repairs, STATE),
    kind("shard-2/state-", "", ".sst", Fate::Repairs, STATE),
    kind("shard-2/state-", "MANIFEST-", "", Fate::Repairs, STATE),
    kind("shard-2/state-", "CURRENT", "", Fate::Repairs, STATE),
    kind("shard-2/state-", "OPTIONS-", "", Fate::Goes, &[]),
    kind("shard-2/snapshots/0", "", ".sst", Fate::Repairs, EITHER),
    kind("shard-2/snapshots/0", "MANIFEST-", "", Fate::Repairs, EITHER),
    kind("shard-2/snapshots/0", "CURRENT", "", Fate::Repairs, EITHER),
    kind("shard-2/snapshots/0", "OPTIONS-", "", Fate::Goes, &[]),
    kind("shard-2/snapshots/0", "CONTENTS", "", Fate::Goes, &[]),
];

impl Kind {
    fn name(&self) -> String {
        format!("{}…/{}…{}", self.folder, self.begins, self.ends)
    }

    /// The largest file of this kind.
    fn find(&self, data: &Path) -> PathBuf {
        let mut found = Vec::new();
        let mut folders = vec![data.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).unwrap() {
                let path = entry.unwrap().path();
                let name = path.file_name().unwrap().to_string_lossy().into_owned();
                let parent = path.parent().unwrap().strip_prefix(data).unwrap().to_string_lossy().into_owned();
                if path.is_dir() {
                    folders.push(path);
                } else if self.holds(&parent) && name.starts_with(self.begins) && name.ends_with(self.ends) {
                    found.push((fs::metadata(&path).unwrap().len(), path));
                }
            }
        }
        found.into_iter().max().unwrap_or_else(|| panic!("there is no {}", self.name())).1
    }

    fn holds(&self, folder: &str) -> bool {
        let numbered = self.folder.ends_with('-') || self.folder.ends_with('0');
        folder == self.folder || (numbered && folder.starts_with(self.folder))
    }
}

/// Whether there is one that is complete: those in the making have other names.
fn has_snapshot(data: &Path) -> bool {
    fs::read_dir(data.join("shard-2/snapshots"))
        .is_ok_and(|mut all| all.any(|one| one.unwrap().file_name().to_string_lossy().starts_with('0')))
}

fn flip(file: &Path) -> Vec<u8> {
    let intact = fs::read(file).unwrap();
    let mut bytes = intact.clone();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    fs::write(file, bytes).unwrap();
    intact
}

/// Runs the node until it has read all of its disk again twice and found nothing, or ends.
async fn run_until_clean(trio: &mut Trio) -> Result<(), Exit> {
    let seat = &mut trio.seats[LIAR];
    let mut process = BrokerProcess::try_start(&seat.home, &seat.config).await?;
    let started = now();
    while process.stderr().matches(CLEAN).count() < 2 {
        if !process.is_running() {
            return Err(process.exit().await);
        }
        assert!(started.elapsed() < PATIENCE, "no pass comes to its end:\n{}", process.stderr());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    seat.process = Some(process);
    Ok(())
}

/// What a node says of damage until it runs again; `mend` is what an operator does where it does not run by itself.
async fn until_it_runs(trio: &mut Trio, fate: Fate, mut mend: impl FnMut()) -> String {
    let mut said = String::new();
    for _ in 0..6 {
        match run_until_clean(trio).await {
            Ok(()) => {
                said.push_str(&trio.process(LIAR).stderr());
                return said;
            }
            Err(exit) => {
                assert!(matches!(exit.code, Some(1 | 70)), "{exit:#?}");
                assert!(exit.stderr.contains("\ncode: "), "{exit:#?}");
                said.push_str(&exit.stderr);
                // A node that met damage while it ran says so again before it is mended.
                if fate == Fate::Stops && exit.code == Some(1) {
                    mend();
                }
            }
        }
    }
    panic!("it ends again and again:\n{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn promise_1_a_flipped_byte_in_any_kind_of_file_loses_nothing_and_is_reported() {
    let mut trio = Trio::prepare();
    for seat in &mut trio.seats {
        seat.config.storage.snapshot_every_bytes = 1 << 20;
        seat.config.storage.scrub_interval_ms = 1_000;
        seat.config.storage.scrub_bytes_per_second = 1 << 30;
    }
    for node in 0..3 {
        trio.run(node).await;
    }
    trio.until_served().await;
    trio.until_spread().await;
    trio.register("alice").await;
    trio.register("bob").await;
    // A change, so that there is a file ROLL.
    let moved = tandem(&trio, 0, &["transfer", "--shard", "0", "--to", "1"]).await;
    assert_eq!(moved.code, Some(0), "{moved:#?}");
    let stop = Arc::new(AtomicBool::new(false));
    let publishers = ["a", "b"].map(|name| publish(vec![trio.client(0), trio.client(1)], name, Arc::clone(&stop)));
    let data = trio.seats[LIAR].home.data();
    let filler = crate::load::fill(&trio, 3_000).await;
    trio.until("there is a snapshot", async |_| has_snapshot(&data)).await;

    for kind in &KINDS {
        trio.until("there is a snapshot", async |_| has_snapshot(&data)).await;
        // The tables of the state are written when it closes; the rest as a killed node leaves it.
        match kind.ends {
            ".sst" => drop(trio.seats[LIAR].process.take().unwrap().stop().await),
            _ => trio.kill_nine(LIAR),
        }
        let file = kind.find(&data);
        let intact = flip(&file);
        let mut mended = false;
        let mend = || {
            fs::write(&file, &intact).unwrap();
            mended = true;
        };
        let said = until_it_runs(&mut trio, kind.fate, mend).await;
        assert_eq!(mended, kind.fate == Fate::Stops, "whether {} is only mended by an operator: {said}", kind.name());
        if kind.fate == Fate::Goes {
            let word = OF_DAMAGE.into_iter().find(|word| said.contains(word));
            assert_eq!(word, None, "{} is of no use to anybody: {said}", kind.name());
        } else {
            assert!(kind.codes.iter().any(|code| said.contains(code)), "{}: {said}", kind.name());
        }
    }

    stop.store(true, Ordering::Relaxed);
    let mut acknowledged = filler;
    for publisher in publishers {
        acknowledged.extend(publisher.await.unwrap().0);
    }
    trio.until_served().await;
    trio.until_spread().await;
    check(&trio, &acknowledged).await;
    let verified = tandem(&trio, 0, &["verify"]).await;
    assert_eq!(verified.code, Some(0), "{verified:#?}");

    // A log that nobody can restore: the node is replaced.
    trio.kill_nine(LIAR);
    flip(&KINDS[0].find(&data));
    let exit = run_until_clean(&mut trio).await.unwrap_err();
    assert!(exit.stderr.contains("tandem cluster replace"), "{exit:#?}");
    let (node, peer) = trio.prepare_node(4);
    let joining = trio.begin(node);
    let replaced = tandem(&trio, 0, &["replace", "3", "4", "--peer", &peer]).await;
    assert_eq!(replaced.code, Some(0), "{replaced:#?}");
    trio.seats[node].process = Some(joining.await.unwrap());
    until_voting(&trio, &[1, 2, 4]).await;
    trio.until_served().await;
    check(&trio, &acknowledged).await;
    let verified = tandem(&trio, 1, &["verify"]).await;
    assert_eq!(verified.code, Some(0), "{verified:#?}");
}
