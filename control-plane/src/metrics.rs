//! What can be scraped.

use std::{sync::Arc, time::Duration};

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    method: String,
    /// As it is declared, never as it was sent: that would be a label for each id.
    path: String,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Of {
    method: String,
    path: String,
}

/// All there is to scrape.
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<Answered, Counter>,
    seconds: Family<Of, Histogram, fn() -> Histogram>,
    /// Requests that are being answered.
    pub(crate) under_way: Gauge,
    /// WebSockets and streams of events that are open.
    pub(crate) sockets: Gauge,
    /// Connections and WebSockets that are open.
    pub(crate) open: Gauge,
    /// Alerts that fired.
    pub(crate) alerts_fired: Counter,
    /// Alerts that were forgotten, because a workspace keeps no more.
    pub(crate) alerts_forgotten: Counter,
    /// Attempts of webhooks that failed.
    pub(crate) webhooks_failed: Counter,
    /// What the reconciler has found overdue when it last looked.
    pub(crate) overdue: Gauge,
}

impl Metrics {
    pub(crate) fn new() -> Arc<Self> {
        let mut registry = Registry::with_prefix("tandem_control_plane");
        let requests = Family::default();
        registry.register("http_requests", "Requests that were answered", requests.clone());
        let seconds: Family<Of, Histogram, fn() -> Histogram> =
            Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.000_5, 2.0, 16)));
        registry.register("http_request_seconds", "How long the answers took, in seconds", seconds.clone());
        let (under_way, overdue) = (Gauge::default(), Gauge::default());
        let (alerts_fired, alerts_forgotten, webhooks_failed) =
            (Counter::default(), Counter::default(), Counter::default());
        registry.register("alerts_fired", "Alerts that fired", alerts_fired.clone());
        let forgotten = "Alerts that were forgotten, because a workspace keeps no more";
        registry.register("alerts_forgotten", forgotten, alerts_forgotten.clone());
        registry.register("webhooks_failed", "Attempts of webhooks that failed", webhooks_failed.clone());
        let (sockets, open) = (Gauge::default(), Gauge::default());
        registry.register("sockets", "WebSockets and streams of events that are open", sockets.clone());
        registry.register("connections", "Connections and WebSockets that are open", open.clone());
        registry.register("http_requests_under_way", "Requests that are being answered", under_way.clone());
        registry.register("overdue", "What the reconciler has found overdue, 100 at most", overdue.clone());
        Arc::new(Self {
            registry,
            requests,
            seconds,
            under_way,
            sockets,
            open,
            overdue,
            alerts_fired,
            alerts_forgotten,
            webhooks_failed,
        })
    }

    pub(crate) fn answered(&self, method: &str, path: &str, status: u16, took: Duration) {
        let of = Of { method: method.to_owned(), path: path.to_owned() };
        self.requests.get_or_create(&Answered { method: of.method.clone(), path: of.path.clone(), status }).inc();
        self.seconds.get_or_create(&of).observe(took.as_secs_f64());
    }

    /// In the text format of OpenMetrics.
    pub(crate) fn encode(&self) -> String {
        let mut text = String::new();
        // Writing to a text cannot fail.
        if encode(&mut text, &self.registry).is_err() {
            tracing::error!("the metrics cannot be written");
        }
        text
    }
}
