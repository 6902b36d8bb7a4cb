//! `tandem events`.

use serde_json::{Value, json};
use tandem_client::{Event, EventQuery, EventType};

use crate::{
    args::EventsArgs,
    exit::Failure,
    output::{MORE, output_closed, time, word},
    run::Context,
};

/// What is printed without `--limit`, because a broker keeps many.
const DEFAULT_LIMIT: usize = 100;

pub(crate) async fn run(context: &Context, args: EventsArgs) -> Result<(), Failure> {
    let limit = match (args.limit, args.follow) {
        (Some(0), _) | (None, true) => usize::MAX,
        (limit, _) => limit.unwrap_or(DEFAULT_LIMIT),
    };
    let query = EventQuery {
        // 0 is from now on, which a stream that does not stay would end with.
        from_event: args.from_event.unwrap_or(u64::from(!args.follow)),
        types: args.kinds.into_iter().map(EventType::from).collect(),
        sandbox_id: args.sandbox,
        follow: args.follow,
    };
    let mut events = context.client()?.events(context.workspace.as_str(), query).await?;
    if args.follow {
        context.output.note(&format!("events from {} on; Ctrl-C ends", events.cursor()));
    }
    let mut printed = 0;
    let mut unread = Box::pin(output_closed());
    while printed < limit {
        let event = tokio::select! {
            event = events.next() => event?,
            () = &mut unread => return Err(Failure::OutputClosed),
        };
        let Some(event) = event else { break };
        context.output.result(|| json(&event), || text(&event))?;
        printed += 1;
    }
    if printed == 0 {
        context.output.note("nothing found");
    }
    if printed == limit && !args.follow && events.next().await?.is_some() {
        context.output.note(MORE);
    }
    Ok(())
}

fn json(event: &Event) -> Value {
    json!({
        "event_id": event.event_id, "time": time(event.time), "type": name(event), "sandbox_id": event.sandbox_id,
        "sequence": event.sequence, "count": event.count, "text": event.text, "approval_id": event.approval_id,
    })
}

fn text(event: &Event) -> String {
    let mut line = format!("{} {} {} {}", event.event_id, time(event.time), name(event), event.sandbox_id);
    if event.sequence > 0 {
        line += &format!(" #{}", event.sequence);
    }
    if event.approval_id > 0 {
        line += &format!(" approval {}", event.approval_id);
    }
    if event.count > 1 {
        line += &format!(" ({} messages)", event.count);
    }
    if !event.text.is_empty() {
        line += &format!(": {}", event.text);
    }
    line
}

fn name(event: &Event) -> String {
    word(event.r#type().as_str_name(), "EVENT_TYPE_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_holds_what_is_known() {
        let mut event = Event {
            event_id: 3,
            r#type: EventType::SandboxOffline.into(),
            sandbox_id: "bob".into(),
            count: 1,
            ..Event::default()
        };
        assert_eq!(text(&event), "3  sandbox-offline bob");
        (event.sequence, event.count, event.text) = (7, 2, "no room".into());
        assert_eq!(text(&event), "3  sandbox-offline bob #7 (2 messages): no room");
    }
}
