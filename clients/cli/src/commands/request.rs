//! `tandem request`.

use tandem_client::{MessageType, to_capability, to_capability_or_wait, to_sandbox};

use super::publish;
use crate::{args::RequestArgs, clock, exit::Failure, output::message, run::Context};

pub(crate) async fn run(context: &Context, args: RequestArgs) -> Result<(), Failure> {
    let destination = match (args.to, args.capability, args.wait_for_capable) {
        (Some(sandbox), None, _) => to_sandbox(sandbox),
        (None, Some(capability), false) => to_capability(capability),
        (None, Some(capability), true) => to_capability_or_wait(capability),
        _ => return Err(Failure::usage("give either --to or --capability")),
    };
    let kind = if args.command { MessageType::Command } else { MessageType::Request };
    let mut request = publish::message(args.message, destination, kind)?;
    // Both are known here, so that the user can be told how to wait on.
    for id in [&mut request.message_id, &mut request.correlation_id] {
        if id.is_empty() {
            *id = clock::new_id();
        }
    }
    let next = format!(
        "to wait on, repeat the command with --id {} --correlation-id {}; a response that comes meanwhile is in the inbox: \
         tandem sub {}",
        request.message_id, request.correlation_id, request.from_sandbox_id
    );
    let publisher = context.client()?.publisher(context.workspace.as_str());
    let response = publisher.request(request, args.timeout).await.map_err(|error| match error.reason() {
        "RESPONSE_TIMEOUT" => Failure::Advised { error, next },
        _ => Failure::Broker(error),
    })?;
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
