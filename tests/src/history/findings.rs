//! What broke an invariant, in plain words, with the lines of the history that show it.

use std::{
    collections::BTreeSet,
    fmt,
    fs::File,
    io::{self, BufRead, BufReader},
    path::{Path, PathBuf},
};

/// Findings of one invariant in one workspace that are told in full; the others are counted.
const TOLD: usize = 10;

/// What one invariant found in one workspace.
#[derive(Debug, Default)]
pub(super) struct Findings {
    told: Vec<(String, Vec<u32>)>,
    count: u64,
}

impl Findings {
    /// Something that must not have happened, and the lines of the file that show it.
    pub(super) fn add(&mut self, text: impl FnOnce() -> String, lines: impl IntoIterator<Item = u32>) {
        self.count += 1;
        if self.told.len() < TOLD {
            self.told.push((text(), lines.into_iter().collect()));
        }
    }
}

/// Something that must not have happened.
#[derive(Debug, Clone)]
pub struct Finding {
    /// The name of the invariant that is broken.
    pub invariant: &'static str,
    /// The file of the workspace.
    pub file: PathBuf,
    /// What happened.
    pub text: String,
    /// The events that show it: line number, counted from 1, and the line.
    pub events: Vec<(u32, String)>,
}

/// What came out.
#[derive(Debug, Default)]
pub struct Judgement {
    /// Events that were judged.
    pub events: u64,
    /// What was found: up to ten per invariant and workspace.
    pub findings: Vec<Finding>,
    /// All that was found.
    pub count: u64,
}

impl Judgement {
    /// Whether every invariant holds.
    pub fn holds(&self) -> bool {
        self.count == 0
    }

    /// The names of the broken invariants, each once, in order.
    pub fn broken(&self) -> Vec<&'static str> {
        self.findings.iter().map(|finding| finding.invariant).collect::<BTreeSet<_>>().into_iter().collect()
    }

    pub(super) fn add_events(&mut self, events: u64) {
        self.events += events;
    }

    pub(super) fn add(&mut self, invariant: &'static str, file: &Path, findings: Findings) -> io::Result<()> {
        self.count += findings.count;
        if findings.told.is_empty() {
            return Ok(());
        }
        let wanted: BTreeSet<u32> = findings.told.iter().flat_map(|(_, lines)| lines.iter().copied()).collect();
        let lines = fetch(file, &wanted)?;
        for (text, numbers) in findings.told {
            let events = lines.iter().filter(|(number, _)| numbers.contains(number)).cloned().collect();
            self.findings.push(Finding { invariant, file: file.to_owned(), text, events });
        }
        Ok(())
    }
}

/// These lines of a file.
fn fetch(file: &Path, wanted: &BTreeSet<u32>) -> io::Result<Vec<(u32, String)>> {
    let mut lines = Vec::with_capacity(wanted.len());
    for (number, line) in (1..).zip(BufReader::new(File::open(file)?).lines()) {
        let line = line?;
        if wanted.contains(&number) {
            lines.push((number, line));
        }
    }
    Ok(lines)
}

/// An event is shown up to here: a read may hold hundreds of messages.
const SHOWN_BYTES: usize = 400;

impl fmt::Display for Judgement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.holds() {
            return write!(f, "every invariant holds over {} events", self.events);
        }
        writeln!(f, "{} violations over {} events; broken: {}", self.count, self.events, self.broken().join(", "))?;
        for finding in &self.findings {
            writeln!(f, "\n{} is broken in {}:\n  {}", finding.invariant, finding.file.display(), finding.text)?;
            for (number, line) in &finding.events {
                let end = (0..=SHOWN_BYTES.min(line.len())).rev().find(|at| line.is_char_boundary(*at)).unwrap_or(0);
                writeln!(f, "  line {number}: {}", &line[..end])?;
            }
        }
        Ok(())
    }
}
