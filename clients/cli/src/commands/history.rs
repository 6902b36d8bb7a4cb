//! `tandem get` and `tandem history`.

use std::pin::pin;

use futures_util::{Stream, TryStreamExt as _, future::Either};
use tandem_client::{Client, Error, HistoryQuery, Message, MessageFilter, MessageType, StreamQuery};

use crate::{
    args::{FilterArgs, GetArgs, HistoryArgs},
    exit::Failure,
    output::{MORE, message, output_closed},
    run::Context,
};

/// What is printed without `--limit`, because a log may be long.
const DEFAULT_LIMIT: usize = 100;

pub(crate) async fn get(context: &Context, args: GetArgs) -> Result<(), Failure> {
    let message = context.client()?.history(context.workspace.as_str()).get(args.id).await?;
    context.output.result(|| message::json(&message), || message::text(&message))
}

pub(crate) async fn list(context: &Context, args: HistoryArgs) -> Result<(), Failure> {
    let limit = match (args.limit, args.follow) {
        (Some(0), _) | (None, true) => usize::MAX,
        (limit, _) => limit.unwrap_or(DEFAULT_LIMIT),
    };
    let follow = args.follow;
    let client = context.client()?;
    let mut messages = pin!(open(context, &client, args, limit));
    let mut printed = 0;
    let mut unread = Box::pin(output_closed());
    while printed < limit {
        let message = tokio::select! {
            message = messages.try_next() => message?,
            () = &mut unread => return Err(Failure::OutputClosed),
        };
        let Some(message) = message else { break };
        context.output.result(|| message::json(&message), || message::text(&message))?;
        printed += 1;
    }
    if printed == 0 {
        context.output.note("nothing found");
    }
    if printed == limit && !follow && messages.try_next().await?.is_some() {
        context.output.note(MORE);
    }
    Ok(())
}

/// One stream that stays, or pages up to the limit.
fn open(
    context: &Context,
    client: &Client,
    args: HistoryArgs,
    limit: usize,
) -> impl Stream<Item = Result<Message, Error>> + use<> {
    let history = client.history(context.workspace.as_str());
    let (from_sequence, to_sequence) = (args.from_sequence, args.to_sequence);
    let filter = filter(args.filter);
    if args.follow {
        let query = StreamQuery { from_sequence, to_sequence, filter, follow: true };
        return Either::Left(history.stream_messages(query).into_stream());
    }
    Either::Right(history.list(HistoryQuery {
        from_sequence,
        to_sequence,
        start_time: filter.start_time,
        end_time: filter.end_time,
        sandbox_id: filter.sandbox_id,
        agent: filter.agent,
        correlation_id: filter.correlation_id,
        message_type: filter.message_type,
        descending: args.reverse,
        // With the one that tells whether there are more.
        page_size: u16::try_from(limit).unwrap_or(u16::MAX).saturating_add(1).min(1000),
    }))
}

pub(super) fn filter(args: FilterArgs) -> MessageFilter {
    MessageFilter {
        start_time: args.since,
        end_time: args.until,
        sandbox_id: args.sandbox,
        agent: args.agent,
        correlation_id: args.correlation_id,
        message_type: args.kind.map(MessageType::from),
    }
}
