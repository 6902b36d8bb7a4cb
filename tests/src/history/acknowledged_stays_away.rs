//! Once an ack was confirmed its message does not come again. An ack is confirmed only while its lease is the current one, so
//! there is at most one for each recipient.
//!
//! A delivery that arrives later need not have been sent later: a stopped or cut off node may hold it for long. What cannot
//! have been sent before:
//!
//! - a delivery with a higher attempt: each attempt begins after the lease of the one before has ended, and the ack of an ended
//!   lease is refused, whichever of the two came first;
//! - one on a subscription that was opened after the confirmation;
//! - one on the same subscription behind the confirmation, because a stream keeps its order.

use super::{event::Outcome, findings::Findings, loaded::Loaded};

pub(super) fn check(history: &Loaded, findings: &mut Findings) {
    let mut acks: Vec<_> = history.acks.iter().filter(|acked| acked.outcome == Outcome::Ok).collect();
    acks.sort_unstable_by_key(|acked| (acked.sandbox, acked.sequence, acked.done));
    for pair in acks.windows(2) {
        let (one, other) = (pair[0], pair[1]);
        if (one.sandbox, one.sequence) == (other.sandbox, other.sequence) {
            let (sandbox, sequence) = (history.text(one.sandbox), one.sequence);
            let text = || format!("two acks of the message at {sequence} by {sandbox} were confirmed");
            findings.add(text, [one.line, other.line]);
        }
    }
    let mut deliveries: Vec<_> = history.deliveries.iter().collect();
    deliveries.sort_unstable_by_key(|delivered| (delivered.sandbox, delivered.sequence, delivered.at));
    let mut acks = acks.into_iter().peekable();
    for delivered in deliveries {
        let place = (delivered.sandbox, delivered.sequence);
        while acks.next_if(|acked| (acked.sandbox, acked.sequence) < place).is_some() {}
        let Some(acked) = acks.peek().filter(|acked| (acked.sandbox, acked.sequence) == place) else { continue };
        let opened = history.subscriptions.get(&delivered.subscription).copied().unwrap_or(0);
        let why = if delivered.attempt > acked.attempt {
            "as a later attempt than the one whose ack was confirmed"
        } else if opened > acked.done {
            "on a subscription that was opened after its ack was confirmed"
        } else if delivered.subscription == acked.subscription && delivered.at > acked.done {
            "on the subscription on which its ack had been confirmed"
        } else {
            continue;
        };
        let (sandbox, id) = (history.text(delivered.sandbox), history.text(delivered.id));
        let (attempt, sequence) = (delivered.attempt, delivered.sequence);
        let text = || format!("{sandbox} got {id} at {sequence} (attempt {attempt}) {why} (attempt {})", acked.attempt);
        findings.add(text, [delivered.line, acked.line]);
    }
}
