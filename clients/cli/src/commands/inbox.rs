//! Reading an inbox to the end that the user has set, for `tandem sub` and `tandem nack`.

use std::time::Duration;

use serde_json::Value;
use tandem_client::{Delivery, Incoming, Nack, NackCounts, SubscribeOptions, Subscription};
use tokio::time::{Interval, MissedTickBehavior};

use crate::{
    exit::Failure,
    output::{message, output_closed},
    run::Context,
};

/// Credit of a reader without a count.
const MAX_CREDIT: u32 = 1024;
/// How long the broker may take to confirm the end of a subscription.
const CLOSING: Duration = Duration::from_secs(10);

/// How to read.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) sandbox: String,
    /// Messages after which to stop; at least 1.
    pub(super) count: Option<u64>,
    /// Without a message for so long: stop.
    pub(super) timeout: Option<Duration>,
    /// What becomes of a message that was printed.
    pub(super) verdict: Verdict,
}

/// What becomes of a message that was printed.
#[derive(Debug)]
pub(super) enum Verdict {
    Ack,
    /// It stays in the inbox.
    Keep,
    Nack(Nack),
}

/// Why reading stopped.
enum Stop {
    Counted,
    Quiet(Duration),
    Interrupted,
    Ended,
}

/// Reads, prints and closes, so that what is held at the end goes back without a failed attempt. Returns what became of
/// the nacks.
pub(super) async fn read(
    context: &Context,
    reading: &Reading,
    options: SubscribeOptions,
) -> Result<NackCounts, Failure> {
    // Credit for no more than is wanted: the rest stays free for another reader of this inbox.
    let credit = reading.count.and_then(|count| u32::try_from(count).ok()).unwrap_or(MAX_CREDIT).min(MAX_CREDIT);
    let options = SubscribeOptions { credit_messages: credit, ..options };
    let client = context.client()?;
    let mut printed = 0;
    let mut is_first = true;
    let (stop, closed) = loop {
        let subscribing = client.subscribe(context.workspace.as_str(), reading.sandbox.as_str(), options.clone());
        let mut inbox = subscribing.await?;
        if std::mem::take(&mut is_first) {
            context.output.note(&format!("inbox of {} is open; Ctrl-C ends", reading.sandbox));
        }
        let stop = Box::pin(print_all(context, reading, &mut inbox, &mut printed)).await;
        // Also after a failure of this side, such as a closed output.
        let closed = Box::pin(close(inbox)).await;
        // The sandbox follows other topics now, and the broker wants the inbox to be opened again.
        if !matches!(&stop, Err(Failure::Broker(error)) if error.reason() == "FOLLOWS_CHANGED") {
            break (stop?, closed);
        }
    };
    match (stop, reading.count) {
        (Stop::Ended, _) => Err(Failure::TimedOut("the broker ended the subscription; it may be stopping".to_owned())),
        (Stop::Quiet(timeout), Some(count)) => closed.and(Err(Failure::TimedOut(format!(
            "{printed} of {count} messages came, then none for {}",
            humantime::format_duration(timeout)
        )))),
        (Stop::Counted | Stop::Quiet(_) | Stop::Interrupted, _) => closed,
    }
}

async fn print_all(
    context: &Context,
    reading: &Reading,
    inbox: &mut Subscription,
    printed: &mut u64,
) -> Result<Stop, Failure> {
    let mut interrupt = Box::pin(tokio::signal::ctrl_c());
    let mut unread = Box::pin(output_closed());
    let mut heartbeat = heartbeat(inbox.ack_deadline());
    let for_ever = Duration::from_secs(u64::from(u32::MAX));
    let quiet_time = reading.timeout.unwrap_or(for_ever);
    let mut quiet = Box::pin(tokio::time::sleep(quiet_time));
    loop {
        let incoming = tokio::select! {
            incoming = inbox.next_incoming() => incoming?,
            () = &mut quiet => return Ok(Stop::Quiet(quiet_time)),
            _ = heartbeat.tick() => {
                // What is kept, and what waits to be printed, must not count as failed.
                inbox.extend_all(None);
                continue;
            }
            _ = &mut interrupt => return Ok(Stop::Interrupted),
            () = &mut unread => return Err(Failure::OutputClosed),
        };
        let delivery = match incoming {
            Some(Incoming::Delivery(delivery)) => delivery,
            Some(Incoming::LeasesLost(lost)) => {
                context.output.note(&format!("lost: {}", lost.refusal));
                continue;
            }
            None => return Ok(Stop::Ended),
        };
        context.output.result(|| json(&delivery), || message::text(&delivery.message))?;
        *printed += 1;
        // Only what was printed is done.
        match &reading.verdict {
            Verdict::Ack => inbox.ack(&delivery),
            Verdict::Keep => {}
            Verdict::Nack(nack) => inbox.nack(&delivery, nack.clone()),
        }
        if reading.count == Some(*printed) {
            return Ok(Stop::Counted);
        }
        quiet.set(tokio::time::sleep(quiet_time));
    }
}

/// Three times within an ack deadline, the first time after a third of it.
fn heartbeat(ack_deadline: Duration) -> Interval {
    let period = (ack_deadline / 3).max(Duration::from_millis(100));
    let mut heartbeat = tokio::time::interval(period);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    heartbeat.reset();
    heartbeat
}

/// Waits until the broker has confirmed all verdicts, and gives back what is held.
async fn close(mut inbox: Subscription) -> Result<NackCounts, Failure> {
    let closing = async {
        let flushed = inbox.flush_acks().await;
        let nacks = inbox.nack_counts();
        let closed = inbox.close().await;
        flushed?;
        closed?;
        Ok::<_, tandem_client::Error>(nacks)
    };
    match tokio::time::timeout(CLOSING, closing).await {
        Ok(closed) => Ok(closed?),
        Err(_) => Err(Failure::TimedOut(format!(
            "the broker did not confirm the acknowledgements within {}; messages may come again",
            humantime::format_duration(CLOSING)
        ))),
    }
}

fn json(delivery: &Delivery) -> Value {
    let mut json = message::json(&delivery.message);
    json["delivery_id"] = delivery.delivery_id.into();
    json["attempt"] = delivery.attempt.into();
    json
}
