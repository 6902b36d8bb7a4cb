//! Of all deliveries of a message to a recipient one ack at the most is confirmed. After it the message is not delivered again,
//! once no node takes itself for a leader that is none. What one leader has handed out again only the newest delivery
//! acknowledges.

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
    let mut deliveries: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for delivered in &history.delivered {
        let message = (delivered.workspace, delivered.sandbox, delivered.sequence);
        deliveries.entry((message, delivered.reign)).or_default().push((delivered.at, delivered.stream));
    }
    for acked in history.acked.iter().filter(|acked| acked.confirmed.is_some()) {
        let message = (acked.workspace, acked.sandbox, acked.sequence);
        let newer = deliveries.get(&(message, acked.reign)).into_iter().flatten();
        for (at, stream) in newer.filter(|(at, _)| *at > acked.delivered && *at < acked.asked) {
            broken.push(format!(
                "an ack of {message:?} counted on stream {}, after stream {stream} got it at {at}",
                acked.stream
            ));
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
