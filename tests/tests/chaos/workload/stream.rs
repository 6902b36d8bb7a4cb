//! Publishes over a stream as a producer: messages without ids, numbered. When the stream breaks, everything without an
//! outcome is sent again under its number, through another node.

use std::{collections::VecDeque, time::Duration};

use tandem_client::{Error, PendingReceipt, Producer, ProducerPosition, PublishStream, PublishStreamOptions};
use tandem_tests::history::Outcome;

use super::{Desk, message::Draft};

const FROM: &str = "ada";
/// Messages sent together.
const BURST: (u64, u64) = (1, 24);
/// Between two bursts, in milliseconds.
const PAUSE_MS: (u64, u64) = (10, 150);
/// An answer that takes longer is given up, and its stream with it.
const PATIENCE: Duration = Duration::from_secs(5);

/// What was sent and has no outcome, oldest first; the front has the number `position`.
struct Unanswered {
    drafts: VecDeque<Draft>,
    position: ProducerPosition,
}

pub(super) async fn publish(mut desk: Desk) {
    let producer_id = format!("{FROM}-of-{}", desk.workspace);
    let mut unanswered =
        Unanswered { drafts: VecDeque::new(), position: ProducerPosition { producer_id, sequence: 1 } };
    let mut count = 0;
    while desk.goes_on() || !unanswered.drafts.is_empty() {
        let options = PublishStreamOptions {
            window_messages: 256,
            producer: Producer::Resume(unanswered.position.clone()),
            ..PublishStreamOptions::default()
        };
        let stream = desk.ways.now().publisher(&*desk.workspace).stream(options);
        let broken = one_stream(&mut desk, &stream, &mut unanswered, &mut count).await;
        if desk.gives_up() {
            // What was never sent is nowhere.
            for draft in unanswered.drafts.iter().filter(|draft| draft.tries > 0) {
                desk.recorder.note(&desk.workspace, "stream", draft.invoke, draft.act(Outcome::Unknown, 0));
            }
            return;
        }
        if broken {
            desk.ways.turn();
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Returns whether the stream broke.
async fn one_stream(desk: &mut Desk, stream: &PublishStream, unanswered: &mut Unanswered, count: &mut u64) -> bool {
    if !unanswered.drafts.is_empty() && !send_and_wait(desk, stream, unanswered, 0).await {
        return true;
    }
    while desk.goes_on() {
        let known = unanswered.drafts.len();
        for _ in 0..desk.random.between(BURST.0, BURST.1) {
            *count += 1;
            unanswered.drafts.push_back(Draft::new(format!("{FROM}-{count}"), FROM, &mut desk.random));
        }
        if !send_and_wait(desk, stream, unanswered, known).await {
            return true;
        }
        let pause = desk.random.between(PAUSE_MS.0, PAUSE_MS.1);
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
    false
}

/// Sends the drafts from this place on, and waits for the outcomes of all. False when the stream broke, or is given up.
async fn send_and_wait(desk: &Desk, stream: &PublishStream, unanswered: &mut Unanswered, from: usize) -> bool {
    let mut pending = Vec::new();
    for draft in unanswered.drafts.iter_mut().skip(from) {
        draft.tries += 1;
        if draft.tries == 1 {
            draft.invoke = desk.recorder.time();
        }
        match tokio::time::timeout(PATIENCE, stream.send(draft.message.clone())).await {
            Ok(Ok(receipt)) => pending.push(receipt),
            // What was sent before may have been accepted all the same, and is sent again.
            Ok(Err(_)) | Err(_) => return false,
        }
    }
    for receipt in pending {
        if desk.gives_up() || !take_outcome(desk, receipt, unanswered).await {
            return false;
        }
    }
    true
}

async fn take_outcome(desk: &Desk, receipt: PendingReceipt, unanswered: &mut Unanswered) -> bool {
    let draft = unanswered.drafts.front().expect("a receipt belongs to a draft");
    let act = match tokio::time::timeout(PATIENCE, receipt).await {
        Ok(Ok(receipt)) => draft.act(Outcome::Ok, receipt.sequence),
        Ok(Err(error @ Error::Refused(_))) if !error.is_retryable() => {
            let outcome = if draft.tries == 1 { Outcome::Refused } else { Outcome::Unknown };
            assert!(error.reason() != "PRODUCER_GAP", "{} of {}: {error}", draft.id, desk.workspace);
            draft.act(outcome, 0)
        }
        Ok(Err(_)) | Err(_) => return false,
    };
    desk.recorder.note(&desk.workspace, "stream", draft.invoke, act);
    unanswered.drafts.pop_front();
    unanswered.position.sequence += 1;
    true
}
