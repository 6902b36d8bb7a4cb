//! `tandem replay`: recorded conversations, sent again through real inboxes, with every delivery checked.

mod check;
mod names;
mod plan;
mod receiver;
mod record;
mod report;
mod session;

use std::{
    fs,
    io::Read as _,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use self::{plan::SessionPlan, report::Report, session::Session};
use crate::{args::ReplayArgs, clock, exit::Failure, output::Output, run::Context};

/// How long the broker may take to delete what a replay that failed has left.
const REMOVING: Duration = Duration::from_secs(5);

pub(crate) async fn run(context: &Context, args: ReplayArgs) -> Result<(), Failure> {
    let plans = plan::sessions(record::parse(&read(&args.file)?)?, &clock::run_id())?;
    let empty = plans.iter().map(SessionPlan::empty_turns).sum::<usize>();
    if empty > 0 {
        context.output.note(&format!("turns with empty content, sent as the JSON text \"\": {empty}"));
    }
    let bar = bar(plans.iter().map(|plan| plan.turns.len() as u64).sum(), context.output);
    let workspaces: Vec<_> = plans.iter().map(|plan| plan.workspace_id.clone()).collect();
    let begun = AtomicUsize::new(0);
    let outcome = tokio::select! {
        outcome = Box::pin(replay(context, &args, plans, &bar, &begun)) => outcome,
        _ = tokio::signal::ctrl_c() => Err(Failure::failed("INTERRUPTED", "interrupted")),
    };
    bar.finish_and_clear();
    if outcome.is_err() && !args.keep {
        // Sessions that were under way are dropped by now; each leaves its workspace.
        let left = &workspaces[..begun.load(Ordering::Relaxed).min(workspaces.len())];
        tokio::time::timeout(REMOVING, Box::pin(remove(context, left))).await.ok();
    }
    let report = outcome?;
    context.output.result(|| report.json(), || report.text())?;
    report.verdict()
}

/// Sessions begin in the order of `plans`; `begun` counts them.
async fn replay(
    context: &Context,
    args: &ReplayArgs,
    plans: Vec<SessionPlan>,
    bar: &ProgressBar,
    begun: &AtomicUsize,
) -> Result<Report, Failure> {
    let sessions = plans.into_iter().map(|plan| {
        let session =
            Session { context: context.clone(), plan: Arc::new(plan), timeout: args.timeout, keep: args.keep };
        begun.fetch_add(1, Ordering::Relaxed);
        session.run(bar.clone())
    });
    stream::iter(sessions)
        .buffer_unordered(usize::from(args.concurrency))
        .try_fold(Report::default(), async |mut report, tally| {
            report.add(&tally);
            Ok(report)
        })
        .await
}

/// Deletes workspaces as far as they are there.
async fn remove(context: &Context, workspaces: &[String]) {
    let Ok(client) = context.client() else { return };
    let service = client.workspaces();
    let deleting: Vec<_> = workspaces.iter().map(|id| service.delete(id.as_str())).collect();
    stream::iter(deleting).buffer_unordered(16).for_each(async |_| ()).await;
}

fn read(path: &Path) -> Result<String, Failure> {
    let bytes = if path == Path::new("-") {
        let mut bytes = Vec::new();
        std::io::stdin().read_to_end(&mut bytes).map(|_| bytes)
    } else {
        fs::read(path)
    };
    let bytes = bytes.map_err(|error| Failure::file(path, &error))?;
    String::from_utf8(bytes).map_err(|error| {
        let line =
            error.as_bytes()[..error.utf8_error().valid_up_to()].iter().filter(|byte| **byte == b'\n').count() + 1;
        Failure::failed("BAD_RECORD", format!("line {line}: the text is not UTF-8"))
    })
}

fn bar(turns: u64, output: Output) -> ProgressBar {
    let target = if output.quiet || output.json { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    let bar = ProgressBar::with_draw_target(Some(turns), target);
    match ProgressStyle::with_template("{wide_bar} {pos}/{len} turns") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
