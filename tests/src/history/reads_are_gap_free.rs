//! Whoever reads the log gets a part of it without a hole: sequences rise, and between the first and the last that a reader got
//! stands exactly what the log holds there at the end, with the same content. The log itself has no more holes than messages
//! were refused or sent again: only those use up a sequence without leaving a message.

use super::{
    event::Outcome,
    findings::Findings,
    loaded::{Loaded, Logged},
};

pub(super) fn check(history: &Loaded, findings: &mut Findings) {
    if !rises(history, &history.log, "the log at the end", findings) {
        return;
    }
    holes(history, findings);
    let mut streams: Vec<_> = history.reads.iter().collect();
    streams.sort_unstable_by_key(|(stream, _)| **stream);
    for (stream, read) in streams {
        let reader = format!("the reader {}", history.text(*stream));
        if rises(history, read, &reader, findings) {
            compare(history, read, &reader, findings);
        }
    }
}

fn rises(history: &Loaded, read: &[Logged], reader: &str, findings: &mut Findings) -> bool {
    let mut good = true;
    for pair in read.windows(2) {
        let (one, next) = (&pair[0], &pair[1]);
        if one.sequence >= next.sequence {
            good = false;
            let (one_id, next_id) = (history.text(one.id), history.text(next.id));
            findings.add(
                || format!("{reader} got {next_id} at {} after {one_id} at {}", next.sequence, one.sequence),
                [one.line, next.line],
            );
        }
    }
    good
}

/// Holds what was read against the part of the log between its ends.
fn compare(history: &Loaded, read: &[Logged], reader: &str, findings: &mut Findings) {
    let (Some(first), Some(last)) = (read.first(), read.last()) else { return };
    let from = history.log.partition_point(|logged| logged.sequence < first.sequence);
    let to = history.log.partition_point(|logged| logged.sequence <= last.sequence);
    let mut read = read.iter().peekable();
    for logged in &history.log[from..to] {
        while let Some(got) = read.next_if(|got| got.sequence < logged.sequence) {
            let (id, sequence) = (history.text(got.id), got.sequence);
            findings.add(|| format!("{reader} got {id} at {sequence}, where the log holds nothing"), [got.line]);
        }
        let (id, sequence) = (history.text(logged.id), logged.sequence);
        match read.next_if(|got| got.sequence == sequence) {
            None => {
                findings.add(|| format!("{reader} never got {id} at {sequence}, but went on behind it"), [logged.line])
            }
            Some(got) if (got.id, got.content) != (logged.id, logged.content) => {
                let other = history.text(got.id);
                findings.add(
                    || format!("{reader} got {other} at {sequence}, and at the end the log holds {id} there, or another content"),
                    [got.line, logged.line],
                );
            }
            Some(_) => {}
        }
    }
    for got in read {
        let (id, sequence) = (history.text(got.id), got.sequence);
        findings.add(|| format!("{reader} got {id} at {sequence}, where the log holds nothing"), [got.line]);
    }
}

fn holes(history: &Loaded, findings: &mut Findings) {
    let (Some(first), Some(last)) = (history.log.first(), history.log.last()) else { return };
    // What was refused for good before the first accepted message used no sequence that can be seen here.
    let holes = last.sequence - first.sequence + 1 - history.log.len() as u64;
    let spent = |published: &super::loaded::Published| match published.outcome {
        Outcome::Ok => u64::from(published.tries) - 1,
        Outcome::Refused | Outcome::Unknown => u64::from(published.tries),
    };
    let allowed: u64 = history.publishes.iter().map(spent).sum();
    if holes > allowed {
        let text = || format!("the log has {holes} holes, but only {allowed} tries to publish left none behind");
        findings.add(text, [first.line, last.line]);
    }
}
