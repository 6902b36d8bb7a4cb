//! `tandem replay-range`.

use serde_json::json;

use super::history::filter;
use crate::{args::ReplayRangeArgs, exit::Failure, run::Context};

pub(crate) async fn run(context: &Context, args: ReplayRangeArgs) -> Result<(), Failure> {
    let (from, to, inbox) = (args.from_sequence, args.to_sequence, args.inbox);
    if from > to {
        let text = format!("--from-sequence {from} is behind --to-sequence {to}; give the lower sequence first");
        return Err(Failure::usage(text));
    }
    let history = context.client()?.history(context.workspace.as_str());
    let replayed = history.replay_messages(inbox.as_str(), from, to, filter(args.filter)).await?;
    context.output.result(
        || json!({ "sandbox_id": inbox, "from_sequence": from, "to_sequence": to, "replayed": replayed }),
        || format!("{replayed} messages of #{from} to #{to} put into the inbox of {inbox}"),
    )
}
