//! `tandem bench`: throughput and latency of a broker, measured from outside.

mod arena;
mod live;
mod order;
mod pace;
mod payload;
mod plan;
mod publisher;
mod redrive;
mod report;
mod scenario;
mod subscriber;
mod unary;

use self::{arena::Arena, plan::Plan, redrive::RedriveReport, report::Report};
use crate::{args::BenchArgs, exit::Failure, run::Context};

/// What was measured.
enum Measured {
    Load(Box<Report>),
    Redrive(Box<RedriveReport>),
}

pub(crate) async fn run(context: &Context, args: BenchArgs) -> Result<(), Failure> {
    let plan = Plan::new(args.kind, &args.load)?;
    let arena = Arena::create(context, &plan, args.load.policy.as_deref()).await?;
    let outcome = tokio::select! {
        outcome = Box::pin(measure(context, &arena, &plan)) => outcome,
        _ = tokio::signal::ctrl_c() => Err(Failure::failed("INTERRUPTED", "interrupted")),
    };
    if args.load.keep {
        context.output.note(&format!("workspace {} is kept", arena.workspace_id));
    } else {
        arena.remove().await;
    }
    match outcome? {
        Measured::Load(report) => {
            context.output.result(|| report.json(&plan), || report.text(&plan))?;
            report.verdict()
        }
        Measured::Redrive(report) => {
            context.output.result(|| report.json(&plan), || report.text(&plan))?;
            report.verdict()
        }
    }
}

async fn measure(context: &Context, arena: &Arena, plan: &Plan) -> Result<Measured, Failure> {
    if let Some(letters) = &plan.dead_letters {
        return redrive::measure(context, arena, plan, letters).await.map(Box::new).map(Measured::Redrive);
    }
    scenario::measure(context, arena, plan).await.map(Box::new).map(Measured::Load)
}
