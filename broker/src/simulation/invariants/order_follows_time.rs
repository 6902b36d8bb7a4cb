//! Who was acknowledged before another was asked for has the lower sequence.

use super::super::history::{Ended, Final, History};

pub(super) fn check(history: &History, end: &Final) -> Vec<String> {
    let mut broken = Vec::new();
    for workspace in end.log.keys() {
        let mut events = Vec::new();
        for published in history.published.iter().filter(|published| published.workspace == *workspace) {
            if let (Ended::Accepted(sequence), Some(answered)) = (&published.ended, published.answered) {
                events.push((published.asked, None, *sequence, &published.label));
                events.push((answered, Some(()), *sequence, &published.label));
            }
        }
        events.sort_unstable_by_key(|(moment, ..)| *moment);
        let mut highest = (0, "nothing");
        for (_, answered, sequence, label) in events {
            match answered {
                Some(()) if sequence > highest.0 => highest = (sequence, label),
                None if sequence < highest.0 => broken.push(format!(
                    "{workspace}/{label} has sequence {sequence}, but {} had {} before it was asked for",
                    highest.1, highest.0
                )),
                _ => {}
            }
        }
    }
    broken
}
