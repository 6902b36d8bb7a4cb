//! Every delivery belongs to an accepted message that was meant for this recipient, with the content that was published.

use super::{findings::Findings, loaded::Loaded};

pub(super) fn check(history: &Loaded, findings: &mut Findings) {
    let published = history.by_id();
    for delivered in &history.deliveries {
        let (id, sandbox, sequence) = (history.text(delivered.id), history.text(delivered.sandbox), delivered.sequence);
        let Some(logged) = history.at(sequence) else {
            findings.add(|| format!("{sandbox} got {id} at {sequence}, where the log holds nothing"), [delivered.line]);
            continue;
        };
        if (logged.id, logged.content) != (delivered.id, delivered.content) {
            let other = history.text(logged.id);
            findings.add(
                || format!("{sandbox} got {id} at {sequence}, where the log holds {other}, or another content"),
                [delivered.line, logged.line],
            );
            continue;
        }
        // What nobody published is found by `publishes_exist_once`.
        let Some(published) = published.get(&delivered.id) else { continue };
        if !history.audiences[published.to as usize].contains(&delivered.sandbox) {
            findings.add(|| format!("{sandbox} got {id}, which is not for it"), [delivered.line, published.line]);
        }
    }
}
