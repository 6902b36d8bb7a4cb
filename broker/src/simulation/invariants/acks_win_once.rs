//! Of all deliveries of a message to a recipient one ack at the most is confirmed. After it the message is not delivered again,
//! once no node takes itself for a leader that is none.

use std::collections::BTreeMap;

use super::super::history::{Final, History, Moment};

pub(super) fn check(history: &History, _end: &Final) -> Vec<String> {
    let mut broken = Vec::new();
    let mut winners: BTreeMap<_, (u64, Moment)> = BTreeMap::new();
    for acked in &history.acked {
        let Some(confirmed) = acked.confirmed else { continue };
        let message = (acked.workspace, acked.sandbox, acked.sequence);
        if let Some((stream, _)) = winners.insert(message, (acked.stream, confirmed)) {
            broken.push(format!("acks of {message:?} were confirmed on streams {stream} and {}", acked.stream));
        }
    }
    let settled = history.settled.unwrap_or(Moment::MAX);
    for delivered in history.delivered.iter().filter(|delivered| delivered.at > settled) {
        let message = (delivered.workspace, delivered.sandbox, delivered.sequence);
        if let Some((stream, confirmed)) = winners.get(&message)
            && *confirmed < settled
        {
            broken.push(format!(
                "{message:?} was delivered on stream {} after its ack was confirmed on stream {stream}",
                delivered.stream
            ));
        }
    }
    broken
}
