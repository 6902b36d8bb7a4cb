//! What a running benchmark has done so far, seen from all its tasks.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::plan::Plan;
use crate::{exit::Failure, output::Output};

/// Latencies in nanoseconds with three digits, up to ten minutes.
pub(super) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 600_000_000_000, 3).expect("the bounds are constants in the range of the type")
}

/// Counts of all tasks. Relaxed: each number stands for itself.
#[derive(Debug, Default)]
pub(super) struct Live {
    pub(super) acked: AtomicU64,
    /// First deliveries.
    pub(super) delivered: AtomicU64,
    stopped: AtomicBool,
}

impl Live {
    pub(super) fn delivered(&self) -> u64 {
        self.delivered.load(Ordering::Relaxed)
    }

    pub(super) fn acked(&self) -> u64 {
        self.acked.load(Ordering::Relaxed)
    }

    /// Lets the senders end, whatever is left of their pace.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// Shows progress, and returns only when there was none for too long.
    pub(super) async fn watch(self: Arc<Self>, plan: Plan, output: Output) -> Failure {
        const TICK: Duration = Duration::from_millis(250);
        let bar = bar(&plan, output);
        let limit = plan.stall_limit();
        let (mut last, mut still) = ((0, 0), Duration::ZERO);
        loop {
            tokio::time::sleep(TICK).await;
            let now = (self.acked(), self.delivered());
            still = if now == last { still + TICK } else { Duration::ZERO };
            last = now;
            bar.set_position(now.0);
            bar.set_message(format!("{} delivered", now.1));
            if still >= limit {
                bar.finish_and_clear();
                let (acked, delivered) = now;
                return Failure::failed(
                    "STALLED",
                    format!("no progress for {limit:?}; {acked} messages were acknowledged, {delivered} delivered"),
                );
            }
        }
    }
}

fn bar(plan: &Plan, output: Output) -> ProgressBar {
    // Indicatif draws nothing when standard error is no terminal.
    let target = if output.quiet || output.json { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    let (bar, form) = match plan.messages {
        Some(messages) => (ProgressBar::with_draw_target(Some(messages), target), "{wide_bar} {pos}/{len}"),
        None => (ProgressBar::with_draw_target(None, target), "{spinner} {elapsed} {pos}"),
    };
    match ProgressStyle::with_template(&format!("{form} acknowledged, {{msg}}")) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// A histogram that several tasks of one connection share; a thousand tasks with one each would take 200 MB.
#[derive(Debug, Clone)]
pub(super) struct SharedHistogram(Arc<Mutex<Histogram<u64>>>);

impl SharedHistogram {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(histogram())))
    }

    // Poisoned means that a task panicked, which ends the run; the numbers are whole all the same.

    /// Records `count` messages that took the same time.
    pub(super) fn record(&self, nanos: u64, count: u64) {
        let mut histogram = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        histogram.saturating_record_n(nanos, count);
    }

    /// Records a batch under one lock.
    pub(super) fn record_all(&self, nanos: impl Iterator<Item = u64>) {
        let mut histogram = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        for value in nanos {
            histogram.saturating_record(value);
        }
    }

    pub(super) fn add_to(&self, sum: &mut Histogram<u64>) {
        let histogram = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        sum.add(&*histogram).expect("all histograms have the same bounds");
    }
}
