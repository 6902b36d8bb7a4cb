//! `tandem sub`.

use std::time::Duration;

use serde_json::Value;
use tandem_client::{Delivery, SubscribeOptions, Subscription};

use crate::{args::SubArgs, exit::Failure, output::message, run::Context};

/// Why reading stopped.
enum Stop {
    Counted,
    Quiet(Duration),
    Interrupted,
    Ended,
}

pub(crate) async fn run(context: &Context, args: SubArgs) -> Result<(), Failure> {
    if args.count == Some(0) {
        return Ok(());
    }
    // Credit for no more than is wanted: the rest stays free for another reader of this inbox.
    let credit = args.count.and_then(|count| u32::try_from(count).ok()).unwrap_or(u32::MAX).min(1024);
    let options = SubscribeOptions { credit_messages: credit, ..SubscribeOptions::default() };
    let client = context.client()?;
    let mut inbox = client.subscribe(context.workspace.as_str(), args.sandbox.as_str(), options).await?;
    context.output.note(&format!("inbox of {} is open; Ctrl-C ends", args.sandbox));
    let mut printed = 0;
    let stop = Box::pin(read(context, &args, &mut inbox, &mut printed)).await?;
    if !args.no_ack && !matches!(stop, Stop::Ended) {
        inbox.flush_acks().await?;
    }
    match (stop, args.count) {
        (Stop::Quiet(timeout), Some(count)) => Err(Failure::TimedOut(format!(
            "{printed} of {count} messages came, then none for {}",
            humantime::format_duration(timeout)
        ))),
        (Stop::Ended, _) => Err(Failure::TimedOut("the broker ended the subscription; it may be stopping".to_owned())),
        (Stop::Counted | Stop::Quiet(_) | Stop::Interrupted, _) => Ok(()),
    }
}

async fn read(context: &Context, args: &SubArgs, inbox: &mut Subscription, printed: &mut u64) -> Result<Stop, Failure> {
    let mut interrupt = Box::pin(tokio::signal::ctrl_c());
    let for_ever = Duration::from_secs(u64::from(u32::MAX));
    loop {
        let next = tokio::select! {
            next = tokio::time::timeout(args.timeout.unwrap_or(for_ever), inbox.next()) => next,
            _ = &mut interrupt => return Ok(Stop::Interrupted),
        };
        let delivery = match next {
            Err(_) => return Ok(Stop::Quiet(args.timeout.unwrap_or(for_ever))),
            Ok(delivery) => delivery?,
        };
        let Some(delivery) = delivery else { return Ok(Stop::Ended) };
        print(context, &delivery)?;
        *printed += 1;
        // Only what was printed is done.
        if !args.no_ack {
            inbox.ack(&delivery);
        }
        if args.count == Some(*printed) {
            return Ok(Stop::Counted);
        }
    }
}

fn print(context: &Context, delivery: &Delivery) -> Result<(), Failure> {
    context.output.result(|| json(delivery), || message::text(&delivery.message))
}

fn json(delivery: &Delivery) -> Value {
    let mut json = message::json(&delivery.message);
    json["delivery_id"] = delivery.delivery_id.into();
    json["attempt"] = delivery.attempt.into();
    json
}
