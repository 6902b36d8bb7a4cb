//! `tandem sub`.

use tandem_client::SubscribeOptions;

use super::inbox::{self, Reading, Verdict};
use crate::{args::SubArgs, exit::Failure, run::Context};

pub(crate) async fn run(context: &Context, args: SubArgs) -> Result<(), Failure> {
    if args.count == Some(0) {
        return Ok(());
    }
    let mut options = SubscribeOptions::default().low_priority_percent(args.low_priority_percent);
    options.ack_deadline = args.ack_wait;
    if args.lenient {
        options = options.lenient();
    }
    let verdict = if args.no_ack { Verdict::Keep } else { Verdict::Ack };
    let reading = Reading { sandbox: args.sandbox, count: args.count, timeout: args.timeout, verdict };
    inbox::read(context, &reading, options).await?;
    Ok(())
}
