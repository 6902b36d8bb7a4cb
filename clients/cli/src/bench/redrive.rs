//! A redrive beside live traffic: dead letters are made, put back while others publish and receive, and read again.

use std::{sync::Arc, time::Duration};

use futures_util::TryStreamExt as _;
use serde_json::{Value, json};
use tandem_client::{DeadLetterQuery, Nack, RedriveOptions, Subscription};
use tokio::task::JoinSet;

use super::{
    arena::Arena,
    live::Live,
    order::Faults,
    plan::Plan,
    report::{LATENCY_HEAD, Report, rounded},
    scenario,
};
use crate::{clock, connections::Connections, exit::Failure, output::table, run::Context};

/// How long the live traffic runs before the redrive begins.
const LEAD: Duration = Duration::from_millis(250);
/// How long making a sandbox's dead letters may take.
const BURYING: Duration = Duration::from_secs(60);

/// What a redrive did.
pub(super) struct RedriveReport {
    dead_letters: u64,
    seconds: f64,
    /// The live traffic alone, and beside the redrive.
    usual: Report,
    beside: Report,
    faults: Faults,
}

pub(super) async fn measure(
    context: &Context,
    arena: &Arena,
    plan: &Plan,
    letters: &Plan,
) -> Result<RedriveReport, Failure> {
    let published = scenario::run(context, arena, letters, &Arc::default()).await?;
    let dead_letters = published.acked();
    bury(context, arena, letters, &published).await?;
    let usual = scenario::run(context, arena, plan, &Arc::default()).await?;

    let live = Arc::new(Live::default());
    let endless = Plan { messages: None, sending: None, ..plan.clone() };
    let sweep = async {
        while live.acked() == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        tokio::time::sleep(LEAD).await;
        let seconds = redrive(arena, dead_letters).await;
        live.stop();
        seconds
    };
    let (beside, seconds) = tokio::try_join!(Box::pin(scenario::run(context, arena, &endless, &live)), sweep)?;

    let mut faults = usual.faults();
    faults.add(beside.faults());
    faults.add(scenario::drain(context, arena, letters, published).await?.faults());
    Ok(RedriveReport { dead_letters, seconds, usual, beside, faults })
}

/// Makes dead letters of everything that was published to the inboxes of a plan.
async fn bury(context: &Context, arena: &Arena, letters: &Plan, published: &Report) -> Result<(), Failure> {
    let connections = Connections::for_streams(context, letters.inboxes)?;
    let mut tasks = JoinSet::new();
    for index in 0..letters.inboxes {
        let opening = scenario::open(arena, &connections, letters, index);
        let expected = published.sent_to(index);
        tasks.spawn(async move { refuse_all(opening.await?, expected).await });
    }
    let mut dead = 0;
    while let Some(joined) = tasks.join_next().await {
        dead += scenario::outcome(joined)?;
    }
    if dead == published.acked() {
        return Ok(());
    }
    let text = format!("{} messages were refused for good, and {dead} became dead letters", published.acked());
    Err(Failure::failed("DEAD_LETTERS_MISSING", text))
}

async fn refuse_all(mut inbox: Subscription, expected: u64) -> Result<u64, Failure> {
    let acker = inbox.acker();
    let work = async {
        let mut seen = 0;
        while seen < expected {
            let ended = || Failure::failed("STREAM_ENDED", "the broker ended a subscription; it may be stopping");
            let batch = inbox.next_raw_batch().await?.ok_or_else(ended)?;
            let (Some(first), Some(last)) = (batch.first(), batch.last()) else { continue };
            acker.nack_range(first.delivery_id, last.delivery_id, Nack::dead_letter("the benchmark wants it dead"));
            seen += batch.len() as u64;
        }
        inbox.flush_acks().await?;
        Ok::<_, Failure>(inbox.nack_counts().dead_lettered)
    };
    let late = |_| Failure::failed("STALLED", format!("{expected} dead letters were not there within {BURYING:?}"));
    tokio::time::timeout(BURYING, work).await.map_err(late)?
}

/// Puts all dead letters back; returns how many seconds it took.
async fn redrive(arena: &Arena, expected: u64) -> Result<f64, Failure> {
    let dead_letters = arena.client.dead_letters(arena.workspace_id.as_str());
    let start_nanos = clock::nanos();
    let mut progress = Box::pin(dead_letters.redrive(DeadLetterQuery::default(), RedriveOptions::default()));
    let mut last = None;
    while let Some(step) = progress.try_next().await? {
        last = Some(step);
    }
    let seconds = (clock::nanos() - start_nanos) as f64 / 1e9;
    match last {
        Some(step) if step.redriven == expected && step.skipped == 0 => Ok(seconds),
        step => {
            let (redriven, skipped) = step.map_or((0, 0), |step| (step.redriven, step.skipped));
            let text = format!("of {expected} dead letters {redriven} were put back and {skipped} left alone");
            Err(Failure::failed("REDRIVE_INCOMPLETE", text))
        }
    }
}

impl RedriveReport {
    fn rate_per_s(&self) -> f64 {
        if self.seconds > 0.0 { self.dead_letters as f64 / self.seconds } else { 0.0 }
    }

    /// How much slower the slowest of a hundred live messages arrived.
    fn p99_ratio(&self) -> f64 {
        let usual_ms = self.usual.end_to_end_p99_ms();
        if usual_ms > 0.0 { self.beside.end_to_end_p99_ms() / usual_ms } else { 0.0 }
    }

    pub(super) fn json(&self, plan: &Plan) -> Value {
        json!({
            "bench": plan.name(), "dead_letters": self.dead_letters, "size": plan.shape.size,
            "inboxes": plan.inboxes, "publishers": plan.publishers, "rate": plan.rate.unwrap_or(0.0),
            "seconds": rounded(self.seconds), "rate_per_s": rounded(self.rate_per_s()),
            "usual": self.usual.latencies_json(), "beside": self.beside.latencies_json(),
            "p99_ratio": rounded(self.p99_ratio()), "lost": self.faults.lost,
            "duplicated": self.faults.duplicated, "out_of_order": self.faults.out_of_order,
        })
    }

    pub(super) fn text(&self, plan: &Plan) -> String {
        let facts = [
            ("bench", plan.name().to_owned()),
            ("dead letters", self.dead_letters.to_string()),
            ("seconds", format!("{:.3}", self.seconds)),
            ("rate", format!("{:.0} a second", self.rate_per_s())),
            ("live p99", format!("{:.2} times the usual one", self.p99_ratio())),
            ("lost", self.faults.lost.to_string()),
            ("duplicated", self.faults.duplicated.to_string()),
            ("out of order", self.faults.out_of_order.to_string()),
        ];
        let facts: Vec<_> = facts.iter().map(|(name, fact)| format!("{name:<14}{fact}")).collect();
        let rows = self.usual.latency_rows("usual ").into_iter().chain(self.beside.latency_rows("beside "));
        format!("{}\n\n{}", facts.join("\n"), table(&LATENCY_HEAD, rows))
    }

    /// A failure when a check found something.
    pub(super) fn verdict(&self) -> Result<(), Failure> {
        self.faults.verdict()
    }
}
