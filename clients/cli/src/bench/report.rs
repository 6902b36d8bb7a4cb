//! The numbers at the end.

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::{
    live::{SharedHistogram, histogram},
    order::Faults,
    plan::Plan,
    publisher::Sent,
    subscriber::Followed,
};
use crate::{exit::Failure, output::table};

/// The head of a table of latencies.
pub(super) const LATENCY_HEAD: [&str; 5] = ["MILLISECONDS", "P50", "P99", "P99.9", "MAX"];

/// What the tasks measured.
pub(super) struct Latencies {
    /// One for each publisher.
    pub(super) publish: Vec<SharedHistogram>,
    /// One for each connection with subscriptions.
    pub(super) end_to_end: Vec<SharedHistogram>,
}

pub(super) struct Report {
    acked: u64,
    /// First deliveries.
    delivered: u64,
    /// Deliveries whose acknowledgement is confirmed.
    confirmed: u64,
    seconds: f64,
    publish: Histogram<u64>,
    end_to_end: Histogram<u64>,
    /// None when nobody received.
    faults: Option<Faults>,
    sent: Vec<Sent>,
}

impl Report {
    pub(super) fn new(
        plan: &Plan,
        start_nanos: u64,
        sent: Vec<Sent>,
        followed: Vec<Followed>,
        latencies: &Latencies,
    ) -> Self {
        let (publish, end_to_end) = (sum(&latencies.publish), sum(&latencies.end_to_end));
        let ends = sent.iter().map(|sent| sent.last_nanos).chain(followed.iter().map(|followed| followed.last_nanos));
        let end_nanos = ends.max().unwrap_or(start_nanos);
        let confirmed = followed.iter().map(|followed| followed.confirmed).sum();
        let mut faults = Faults::default();
        for followed in followed {
            faults.add(followed.order.finish(|sender, recipient| sent_to(&sent, sender, recipient)));
        }
        Self {
            acked: sent.iter().map(|sent| sent.acked).sum(),
            delivered: end_to_end.len(),
            confirmed,
            seconds: (end_nanos - start_nanos) as f64 / 1e9,
            publish,
            end_to_end,
            faults: plan.subscribed.then_some(faults),
            sent,
        }
    }

    /// Messages that the broker has acknowledged.
    pub(super) fn acked(&self) -> u64 {
        self.acked
    }

    /// What was found wrong at the inboxes.
    pub(super) fn faults(&self) -> Faults {
        self.faults.unwrap_or_default()
    }

    /// Messages that were acknowledged for this recipient.
    pub(super) fn sent_to(&self, recipient: usize) -> u64 {
        self.sent.iter().filter_map(|sent| sent.counts.get(recipient)).sum()
    }

    /// What the senders did.
    pub(super) fn into_sent(self) -> Vec<Sent> {
        self.sent
    }

    /// Milliseconds from sending to arrival that 99 of 100 messages did not exceed.
    pub(super) fn end_to_end_p99_ms(&self) -> f64 {
        self.end_to_end.value_at_quantile(0.99) as f64 / 1e6
    }

    /// The latencies alone.
    pub(super) fn latencies_json(&self) -> Value {
        json!({
            "acked": self.acked, "seconds": rounded(self.seconds),
            "publish_ms": percentiles(&self.publish), "e2e_ms": percentiles(&self.end_to_end),
        })
    }

    /// The latencies alone, as rows of a table.
    pub(super) fn latency_rows(&self, name: &str) -> Vec<Vec<String>> {
        let named = [("publish", &self.publish), ("end to end", &self.end_to_end)].into_iter();
        let measured = named.filter(|(_, histogram)| !histogram.is_empty());
        measured
            .map(|(what, histogram)| {
                let numbers = figures(histogram).map(|(_, value)| format!("{value:.3}"));
                [format!("{name}{what}")].into_iter().chain(numbers).collect()
            })
            .collect()
    }

    /// What the benchmark is about, a second.
    fn rate_per_s(&self) -> f64 {
        let counted = if self.faults.is_some() { self.confirmed } else { self.acked };
        if self.seconds > 0.0 { counted as f64 / self.seconds } else { 0.0 }
    }

    pub(super) fn json(&self, plan: &Plan) -> Value {
        let mut value = json!({
            "bench": plan.name(), "publishers": plan.publishers, "window": plan.window, "size": plan.shape.size,
            "inboxes": plan.inboxes, "unary": plan.unary, "rate": plan.rate.unwrap_or(0.0),
            "acked": self.acked, "delivered": self.delivered, "confirmed_acks": self.confirmed,
            "seconds": rounded(self.seconds), "rate_per_s": rounded(self.rate_per_s()),
            "publish_ms": percentiles(&self.publish), "e2e_ms": percentiles(&self.end_to_end),
        });
        if plan.keys > 0 {
            value["keys"] = plan.keys.into();
        }
        if let Some(backlog) = &plan.backlog {
            value["backlog"] = backlog.messages.into();
        }
        if plan.idle_inboxes > 0 {
            value["idle_inboxes"] = plan.idle_inboxes.into();
            value["idle_subscribers"] = plan.idle_subscribers.into();
        }
        if let Some(faults) = self.faults {
            value["lost"] = faults.lost.into();
            value["duplicated"] = faults.duplicated.into();
            value["out_of_order"] = faults.out_of_order.into();
        }
        value
    }

    pub(super) fn text(&self, plan: &Plan) -> String {
        let mut facts = vec![
            ("bench", plan.name().to_owned()),
            ("acked", self.acked.to_string()),
            ("delivered", self.delivered.to_string()),
            ("seconds", format!("{:.3}", self.seconds)),
            ("rate", format!("{:.0} a second", self.rate_per_s())),
        ];
        if let Some(faults) = self.faults {
            facts.extend([
                ("confirmed", self.confirmed.to_string()),
                ("lost", faults.lost.to_string()),
                ("duplicated", faults.duplicated.to_string()),
                ("out of order", faults.out_of_order.to_string()),
            ]);
        }
        let facts: Vec<_> = facts.iter().map(|(name, fact)| format!("{name:<14}{fact}")).collect();
        let rows = self.latency_rows("");
        format!("{}\n\n{}", facts.join("\n"), table(&LATENCY_HEAD, rows))
    }

    /// A failure when a check found something.
    pub(super) fn verdict(&self) -> Result<(), Failure> {
        self.faults().verdict()
    }
}

fn sum(parts: &[SharedHistogram]) -> Histogram<u64> {
    let mut sum = histogram();
    for part in parts {
        part.add_to(&mut sum);
    }
    sum
}

/// Messages that this sender had acknowledged for this recipient.
fn sent_to(sent: &[Sent], sender: usize, recipient: usize) -> u64 {
    let of_sender = sent.iter().find(|sent| sent.sender as usize == sender);
    of_sender.and_then(|sent| sent.counts.get(recipient)).copied().unwrap_or(0)
}

/// p50, p99, p999 and max in milliseconds.
fn figures(histogram: &Histogram<u64>) -> [(&'static str, f64); 4] {
    let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e6;
    [("p50", at(0.5)), ("p99", at(0.99)), ("p999", at(0.999)), ("max", histogram.max() as f64 / 1e6)]
}

/// Null when nothing was measured.
fn percentiles(histogram: &Histogram<u64>) -> Value {
    if histogram.is_empty() {
        return Value::Null;
    }
    figures(histogram).into_iter().map(|(name, value)| (name.to_owned(), json!(rounded(value)))).collect()
}

/// To the microsecond of a millisecond: more digits would be noise.
pub(super) fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_milliseconds() {
        let mut latencies = histogram();
        for micros in 1..=1000 {
            latencies.saturating_record(micros * 1000);
        }
        let json = percentiles(&latencies);
        let p50 = json["p50"].as_f64().expect("a number");
        assert!((p50 - 0.5).abs() < 0.002, "{json}");
        assert!((json["max"].as_f64().expect("a number") - 1.0).abs() < 0.002, "{json}");
        assert_eq!(percentiles(&histogram()), Value::Null);
    }
}
