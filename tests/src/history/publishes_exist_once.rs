//! Every acknowledged publish stands in the log exactly once, at the sequence that was given; one without an answer at most
//! once; one that was refused never. And the log holds nothing that nobody published.

use std::collections::HashMap;

use super::{
    event::Outcome,
    findings::Findings,
    loaded::{Loaded, Name},
};

pub(super) fn check(history: &Loaded, findings: &mut Findings) {
    let mut places: HashMap<Name, Vec<usize>> = HashMap::with_capacity(history.log.len());
    for (place, logged) in history.log.iter().enumerate() {
        places.entry(logged.id).or_default().push(place);
    }
    for published in &history.publishes {
        let found = places.remove(&published.id).unwrap_or_default();
        let id = history.text(published.id);
        let lines = || std::iter::once(published.line).chain(found.iter().map(|place| history.log[*place].line));
        let sequences = || found.iter().map(|place| history.log[*place].sequence).collect::<Vec<_>>();
        match (published.outcome, found.as_slice()) {
            (Outcome::Ok, []) => findings.add(
                || format!("{id} was acknowledged with sequence {}, and the log does not hold it", published.sequence),
                lines(),
            ),
            (_, [_, _, ..]) => {
                findings.add(|| format!("{id} stands in the log {} times, at {:?}", found.len(), sequences()), lines());
            }
            (Outcome::Refused, [_]) => findings
                .add(|| format!("{id} was refused for good, and the log holds it at {:?}", sequences()), lines()),
            (Outcome::Ok, [place]) if history.log[*place].sequence != published.sequence => findings.add(
                || {
                    let given = published.sequence;
                    format!("{id} was acknowledged with sequence {given}, and stands in the log at {:?}", sequences())
                },
                lines(),
            ),
            (_, [place]) if history.log[*place].content != published.content => {
                findings.add(|| format!("the log holds {id} with another content than was published"), lines());
            }
            _ => {}
        }
    }
    for place in places.into_values().flatten() {
        let logged = &history.log[place];
        let text =
            || format!("the log holds {} at {}, and nobody published it", history.text(logged.id), logged.sequence);
        findings.add(text, [logged.line]);
    }
}
