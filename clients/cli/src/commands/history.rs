//! `tandem get` and `tandem history`.

use std::pin::pin;

use futures_util::TryStreamExt as _;
use tandem_client::HistoryQuery;

use crate::{
    args::{GetArgs, HistoryArgs},
    exit::Failure,
    output::message,
    run::Context,
};

pub(crate) async fn get(context: &Context, args: GetArgs) -> Result<(), Failure> {
    let message = context.client()?.history(context.workspace.as_str()).get(args.id).await?;
    context.output.result(|| message::json(&message), || message::text(&message))
}

pub(crate) async fn list(context: &Context, args: HistoryArgs) -> Result<(), Failure> {
    let limit = if args.limit == 0 { usize::MAX } else { args.limit };
    let query = HistoryQuery {
        from_sequence: args.from_sequence,
        to_sequence: args.to_sequence,
        start_time: args.since,
        end_time: args.until,
        sandbox_id: args.sandbox,
        agent: args.agent,
        correlation_id: args.correlation_id,
        descending: args.reverse,
        page_size: u16::try_from(limit).unwrap_or(u16::MAX).min(1000),
    };
    let mut messages = pin!(context.client()?.history(context.workspace.as_str()).list(query));
    let mut printed = 0;
    while printed < limit
        && let Some(message) = messages.try_next().await?
    {
        context.output.result(|| message::json(&message), || message::text(&message))?;
        printed += 1;
    }
    if printed == 0 {
        context.output.note("nothing found");
    }
    Ok(())
}
