//! Publishes one message at a time with an id of its own, and sends it again, through any node, until it knows the outcome.

use std::time::Duration;

use tandem_client::Error;
use tandem_tests::{history::Outcome, named};

use super::{Desk, message::Draft};

const FROM: &str = "bob";
const TO_NOBODY_PERCENT: u64 = 1;
/// Between two messages, in milliseconds.
const PAUSE_MS: (u64, u64) = (0, 60);

pub(super) async fn publish(mut desk: Desk) {
    let mut count = 0;
    while desk.goes_on() {
        count += 1;
        let id = format!("{FROM}-{count}");
        let draft = match desk.random.percent(TO_NOBODY_PERCENT) {
            true => Draft::to_nobody(id, FROM),
            false => Draft::new(id, FROM, &mut desk.random),
        };
        until_known(&mut desk, draft).await;
        let pause = desk.random.between(PAUSE_MS.0, PAUSE_MS.1);
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
}

async fn until_known(desk: &mut Desk, mut draft: Draft) {
    let message = named(draft.id.clone(), draft.message.clone());
    draft.invoke = desk.recorder.time();
    // Whether a try may have been accepted without an answer.
    let mut doubt = false;
    let (outcome, sequence) = loop {
        draft.tries += 1;
        let publisher = desk.ways.now().publisher(&*desk.workspace);
        match publisher.publish(message.clone()).await {
            Ok(receipt) => break (Outcome::Ok, receipt.sequence),
            Err(error) if error.is_retryable() => {
                if desk.gives_up() {
                    break (Outcome::Unknown, 0);
                }
                doubt |= !matches!(error, Error::Unreachable { .. });
                desk.ways.turn();
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            Err(Error::Refused(_)) if !doubt => break (Outcome::Refused, 0),
            // A refusal of a later try says nothing of the earlier ones.
            Err(Error::Refused(_)) => break (Outcome::Unknown, 0),
            Err(error) => panic!("{} was not expected to fail with {error}", draft.id),
        }
    };
    desk.recorder.note(&desk.workspace, "one by one", draft.invoke, draft.act(outcome, sequence));
}
