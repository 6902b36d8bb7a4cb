//! The table at the end.

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::check::Faults;
use crate::{exit::Failure, output::table};

/// What one session came to.
#[derive(Debug)]
pub(super) struct SessionTally {
    messages: u64,
    deliveries: u64,
    acks: u64,
    pub(super) faults: Faults,
    latencies_nanos: Vec<u64>,
}

impl SessionTally {
    pub(super) fn new(messages: u64) -> Self {
        Self { messages, deliveries: 0, acks: 0, faults: Faults::default(), latencies_nanos: Vec::new() }
    }

    /// Adds what one sandbox got.
    pub(super) fn add(&mut self, faults: Faults, deliveries: u64, acks: u64, latencies_nanos: &[u64]) {
        self.faults.add(faults);
        self.deliveries += deliveries;
        self.acks += acks;
        self.latencies_nanos.extend_from_slice(latencies_nanos);
    }
}

/// All sessions together.
#[derive(Debug)]
pub(super) struct Report {
    sessions: u64,
    messages: u64,
    deliveries: u64,
    acks: u64,
    faults: Faults,
    latency: Histogram<u64>,
}

impl Default for Report {
    fn default() -> Self {
        // Nanoseconds with three digits, up to ten minutes.
        let latency = Histogram::new_with_bounds(1, 600_000_000_000, 3)
            .expect("the bounds are constants in the range of the type");
        Self { sessions: 0, messages: 0, deliveries: 0, acks: 0, faults: Faults::default(), latency }
    }
}

impl Report {
    pub(super) fn add(&mut self, tally: &SessionTally) {
        self.sessions += 1;
        self.messages += tally.messages;
        self.deliveries += tally.deliveries;
        self.acks += tally.acks;
        self.faults.add(tally.faults);
        for nanos in &tally.latencies_nanos {
            self.latency.saturating_record(*nanos);
        }
    }

    /// Milliseconds.
    fn latency_ms(&self, quantile: f64) -> f64 {
        (self.latency.value_at_quantile(quantile) as f64 / 1e3).round() / 1e3
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "sessions": self.sessions, "messages": self.messages, "deliveries": self.deliveries, "acks": self.acks,
            "lost": self.faults.lost, "duplicated": self.faults.duplicated, "out_of_order": self.faults.out_of_order,
            "latency_ms": { "p50": self.latency_ms(0.5), "p99": self.latency_ms(0.99) },
        })
    }

    pub(super) fn text(&self) -> String {
        let headings =
            ["SESSIONS", "MESSAGES", "DELIVERIES", "ACKS", "LOST", "DUPLICATED", "OUT OF ORDER", "P50 MS", "P99 MS"];
        let counts = [self.sessions, self.messages, self.deliveries, self.acks];
        let faults = [self.faults.lost, self.faults.duplicated, self.faults.out_of_order];
        let latencies = [0.5, 0.99].map(|quantile| format!("{:.3}", self.latency_ms(quantile)));
        let row = counts.into_iter().chain(faults).map(|count| count.to_string()).chain(latencies);
        table(&headings, [row.collect()])
    }

    /// A failure unless everything arrived once and in order, and every delivery was acknowledged.
    pub(super) fn verdict(&self) -> Result<(), Failure> {
        let Faults { lost, duplicated, out_of_order } = self.faults;
        if self.faults != Faults::default() {
            let text = format!("{lost} messages were lost, {duplicated} duplicated, {out_of_order} out of order");
            return Err(Failure::failed("DELIVERY_CHECK_FAILED", text));
        }
        if self.acks != self.deliveries {
            let text = format!("{} of {} deliveries were acknowledged", self.acks, self.deliveries);
            return Err(Failure::failed("DELIVERY_CHECK_FAILED", text));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verdict_follows_the_faults() {
        let mut report = Report::default();
        let mut tally = SessionTally::new(2);
        tally.add(Faults::default(), 3, 3, &[1_000_000, 2_000_000, 3_000_000]);
        report.add(&tally);
        assert!(report.verdict().is_ok());
        let json = report.json();
        assert_eq!((json["sessions"].as_u64(), json["deliveries"].as_u64()), (Some(1), Some(3)));
        assert!((report.latency_ms(0.5) - 2.0).abs() < 0.01);
        tally.add(Faults { lost: 1, ..Faults::default() }, 0, 0, &[]);
        report.add(&tally);
        assert_eq!(report.verdict().map_err(|failure| failure.exit_code()), Err(1));
    }
}
