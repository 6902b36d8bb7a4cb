//! `tandem bench`: throughput and latency of a broker, measured from outside.

mod arena;
mod live;
mod order;
mod pace;
mod payload;
mod plan;
mod publisher;
mod report;
mod scenario;
mod subscriber;
mod unary;

use self::{arena::Arena, plan::Plan};
use crate::{args::BenchArgs, exit::Failure, run::Context};

pub(crate) async fn run(context: &Context, args: BenchArgs) -> Result<(), Failure> {
    let plan = Plan::new(args.kind, &args.load)?;
    let arena = Arena::create(context, &plan).await?;
    let outcome = tokio::select! {
        outcome = Box::pin(scenario::measure(context, &arena, &plan)) => outcome,
        _ = tokio::signal::ctrl_c() => Err(Failure::failed("INTERRUPTED", "interrupted")),
    };
    if args.load.keep {
        context.output.note(&format!("workspace {} is kept", arena.workspace_id));
    } else {
        arena.remove().await;
    }
    let report = outcome?;
    context.output.result(|| report.json(&plan), || report.text(&plan))?;
    report.verdict()
}
