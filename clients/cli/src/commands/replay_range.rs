//! `tandem replay-range`.

use serde_json::json;

use super::history::filter;
use crate::{args::ReplayRangeArgs, exit::Failure, run::Context};

pub(crate) async fn run(context: &Context, args: ReplayRangeArgs) -> Result<(), Failure> {
    let (from, to, inbox) = (args.from, args.to, args.inbox);
    if from > to {
        return Err(Failure::usage(format!("--from {from} is behind --to {to}; give the lower sequence first")));
    }
    let history = context.client()?.history(context.workspace.as_str());
    let replayed = history.replay_messages(inbox.as_str(), from, to, filter(args.filter)).await?;
    context.output.result(
        || json!({ "sandbox_id": inbox, "from_sequence": from, "to_sequence": to, "replayed": replayed }),
        || format!("{replayed} messages of #{from} to #{to} put into the inbox of {inbox}"),
    )
}
