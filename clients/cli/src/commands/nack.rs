//! `tandem nack`.

use tandem_client::{Nack, SubscribeOptions};

use super::inbox::{self, Reading, Verdict};
use crate::{args::NackArgs, exit::Failure, run::Context};

pub(crate) async fn run(context: &Context, args: NackArgs) -> Result<(), Failure> {
    if args.count == 0 {
        return Ok(());
    }
    let nack = Nack { delay: args.delay, reason: args.reason, dead_letter: args.dead_letter };
    let reading =
        Reading { sandbox: args.sandbox, count: Some(args.count), timeout: args.timeout, verdict: Verdict::Nack(nack) };
    let nacks = inbox::read(context, &reading, SubscribeOptions::default()).await?;
    context.output.note(&format!("to be tried again: {}; dead letters: {}", nacks.deferred, nacks.dead_lettered));
    Ok(())
}
