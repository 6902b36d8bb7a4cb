//! `tandem request`.

use tandem_client::{MessageType, to_capability, to_capability_or_wait, to_sandbox};

use super::publish;
use crate::{args::RequestArgs, exit::Failure, output::message, run::Context};

pub(crate) async fn run(context: &Context, args: RequestArgs) -> Result<(), Failure> {
    let destination = match (args.to, args.capability, args.wait_for_capable) {
        (Some(sandbox), None, _) => to_sandbox(sandbox),
        (None, Some(capability), false) => to_capability(capability),
        (None, Some(capability), true) => to_capability_or_wait(capability),
        _ => return Err(Failure::usage("give either --to or --capability")),
    };
    let kind = if args.command { MessageType::Command } else { MessageType::Request };
    let request = publish::message(args.message, destination, kind)?;
    let publisher = context.client()?.publisher(context.workspace.as_str());
    let response = publisher.request(request, args.timeout).await?;
    context.output.result(
        || {
            let mut json = message::json(&response.message);
            json["request_sequence"] = response.request_sequence.into();
            json["resumed"] = response.resumed.into();
            json
        },
        || message::text(&response.message),
    )
}
