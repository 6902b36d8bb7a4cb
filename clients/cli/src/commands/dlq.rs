//! `tandem dlq`.

use std::pin::pin;

use futures_util::{Stream, TryStreamExt as _};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};
use tandem_client::{
    DeadLetterQuery, DeadLetterReason, DeadLetters, Error, MessageType, PurgeProgress, RedriveOptions, RedriveProgress,
};

use crate::{
    args::{DlqArgs, DlqCommand, LetterFilterArgs},
    exit::Failure,
    output::{MORE, Output, dead_letter},
    run::Context,
};

pub(crate) async fn run(context: &Context, args: DlqArgs) -> Result<(), Failure> {
    let letters = context.client()?.dead_letters(context.workspace.as_str());
    let output = context.output;
    match args.command {
        DlqCommand::List { filter, limit } => list(output, &letters, query(filter), limit).await,
        DlqCommand::Show { sandbox, sequence } => {
            let letter = letters.get(sandbox, sequence).await?;
            output.result(|| dead_letter::json(&letter), || dead_letter::text(&letter))
        }
        DlqCommand::Redrive { filter, all, to, rate } => {
            let query = chosen("redrive", filter, all)?;
            let options = RedriveOptions { to_sandbox_id: to, max_per_second: rate };
            follow(output, letters.redrive(query, options), redrive_json, redrive_text).await
        }
        DlqCommand::Purge { filter, all } => {
            let query = chosen("purge", filter, all)?;
            follow(output, letters.purge(query), purge_json, purge_text).await
        }
    }
}

async fn list(output: Output, letters: &DeadLetters, query: DeadLetterQuery, limit: usize) -> Result<(), Failure> {
    let limit = if limit == 0 { usize::MAX } else { limit };
    let mut found = pin!(letters.list(query));
    let mut rows = Vec::new();
    let mut listed = 0;
    while listed < limit
        && let Some(letter) = found.try_next().await?
    {
        listed += 1;
        if output.json {
            output.line(&dead_letter::json(&letter).to_string())?;
        } else {
            rows.push((Value::Null, dead_letter::row(&letter)));
        }
    }
    if output.json {
        return Ok(());
    }
    output.rows(&dead_letter::HEADINGS, &rows)?;
    if listed == limit && found.try_next().await?.is_some() {
        output.note(MORE);
    }
    Ok(())
}

/// What to change. A filter that was forgotten must not mean everything.
fn chosen(what: &str, filter: LetterFilterArgs, all: bool) -> Result<DeadLetterQuery, Failure> {
    match (filter.is_empty(), all) {
        (true, false) => {
            Err(Failure::usage(format!("say what to {what}, such as --sandbox ID, or --all for the whole workspace")))
        }
        (false, true) => Err(Failure::usage("--all and a filter contradict each other; give one of them")),
        _ => Ok(query(filter)),
    }
}

fn query(filter: LetterFilterArgs) -> DeadLetterQuery {
    DeadLetterQuery {
        sandbox_id: filter.sandbox,
        reason: filter.reason.map(DeadLetterReason::from),
        from_sandbox_id: filter.from,
        correlation_id: filter.correlation_id,
        message_type: filter.kind.map(MessageType::from),
        start_time: filter.since,
        end_time: filter.until,
        sequence: filter.sequence,
    }
}

/// Shows how far long work is; in JSON every step is a document, the last with `done`.
async fn follow<T>(
    output: Output,
    steps: impl Stream<Item = Result<T, Error>>,
    json: fn(&T) -> Value,
    text: fn(&T) -> String,
) -> Result<(), Failure> {
    let bar = ProgressBar::with_draw_target(None, draw_target(output));
    bar.set_style(ProgressStyle::with_template("{elapsed} {msg}").unwrap_or_else(|_| ProgressStyle::default_spinner()));
    let mut steps = pin!(steps);
    let mut last = None;
    while let Some(step) = steps.try_next().await? {
        if output.json {
            output.line(&json(&step).to_string())?;
        }
        bar.set_message(text(&step));
        bar.tick();
        last = Some(step);
    }
    bar.finish_and_clear();
    match last {
        Some(last) if !output.json => output.line(&text(&last)),
        _ => Ok(()),
    }
}

fn draw_target(output: Output) -> ProgressDrawTarget {
    if output.json || output.quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() }
}

fn redrive_json(step: &RedriveProgress) -> Value {
    json!({ "redriven": step.redriven, "skipped": step.skipped, "done": step.done })
}

fn redrive_text(step: &RedriveProgress) -> String {
    match step.skipped {
        0 => format!("redriven: {}", step.redriven),
        skipped => format!("redriven: {}; left alone, because the inbox is full or gone: {skipped}", step.redriven),
    }
}

fn purge_json(step: &PurgeProgress) -> Value {
    json!({ "purged": step.purged, "done": step.done })
}

fn purge_text(step: &PurgeProgress) -> String {
    format!("purged: {}", step.purged)
}
