//! What clients saw of a cluster in one run, and the judgement on it.
//!
//! Clients note every operation as an [`Event`]: when it was invoked, when its outcome came, and which: accepted, refused, or
//! unknown. [`Recorder`] writes the events of each workspace to a file of its own, one JSON object a line; nothing of the
//! broker reaches over the edge of a workspace, so each file is judged alone. At the end of a run, when all faults are
//! healed, the runner adds what is left: the whole log, the dead letters, how many messages still wait, and what each node
//! says of its state. [`judge`] then holds all that against the invariants, one file each below `history/`.
//!
//! No invariant needs a search over possible orders. The broker gives every accepted message a sequence, which fixes the
//! order; what remains are comparisons of sorted lists, in time `n log n` over the events of one workspace
//! (docs/adr/0025).

mod acknowledged_stays_away;
mod deliveries_were_accepted;
mod event;
mod findings;
mod keys_keep_their_order;
mod loaded;
mod nodes_agree;
mod one_end_for_each_recipient;
mod publishes_exist_once;
mod reads_are_gap_free;
mod record;
mod sequences_follow_real_time;
#[cfg(test)]
mod tests;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

pub use self::{
    event::{Act, Event, Outcome, digest},
    findings::{Finding, Judgement},
    record::{Counts, Recorder},
};
use self::{findings::Findings, loaded::Loaded};

/// One invariant: reads what happened in a workspace, and reports what must not have.
type Invariant = fn(&Loaded, &mut Findings);

/// All of them, by name. The name says what holds.
const INVARIANTS: [(&str, Invariant); 8] = [
    ("publishes_exist_once", publishes_exist_once::check),
    ("sequences_follow_real_time", sequences_follow_real_time::check),
    ("reads_are_gap_free", reads_are_gap_free::check),
    ("deliveries_were_accepted", deliveries_were_accepted::check),
    ("one_end_for_each_recipient", one_end_for_each_recipient::check),
    ("acknowledged_stays_away", acknowledged_stays_away::check),
    ("keys_keep_their_order", keys_keep_their_order::check),
    ("nodes_agree", nodes_agree::check),
];

/// Judges the history in a directory, as [`Recorder`] wrote it: every file that ends in `.jsonl` is a workspace.
///
/// # Errors
/// When a file cannot be read or holds a line that is no event.
pub fn judge(directory: &Path) -> io::Result<Judgement> {
    let mut judgement = Judgement::default();
    for file in files(directory)? {
        let loaded = Loaded::read(&file)?;
        judgement.add_events(loaded.events);
        for (name, check) in INVARIANTS {
            let mut findings = Findings::default();
            check(&loaded, &mut findings);
            judgement.add(name, &file, findings)?;
        }
    }
    Ok(judgement)
}

fn files(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files: Vec<PathBuf> =
        fs::read_dir(directory)?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
    files.retain(|path| path.extension().is_some_and(|extension| extension == "jsonl"));
    files.sort();
    Ok(files)
}
