//! What operators read: metrics, health, readiness.

use std::{collections::BTreeMap, time::Duration};

use tandem_tests::direct;

use crate::stage::Stage;

/// Names of metric families with their types, after checking the grammar of every line.
fn parse(page: &str) -> BTreeMap<String, String> {
    let mut types = BTreeMap::new();
    let mut helped = Vec::new();
    let lines: Vec<&str> = page.lines().collect();
    assert_eq!(lines.last(), Some(&"# EOF"), "OpenMetrics ends so");
    for line in &lines[..lines.len() - 1] {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            helped.push(rest.split_once(' ').expect("a name and a text").0.to_owned());
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a name and a type");
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert!(types.insert(name.to_owned(), kind.to_owned()).is_none(), "{name} is there twice");
        } else if let Some(rest) = line.strip_prefix("# UNIT ") {
            assert!(rest.contains(' '), "{line}");
        } else {
            check_sample(line, &types);
        }
    }
    assert_eq!(helped.len(), types.len(), "every family says what it is");
    types
}

fn check_sample(line: &str, types: &BTreeMap<String, String>) {
    let (series, value) = line.rsplit_once(' ').expect("a series and a value");
    value.parse::<f64>().unwrap_or_else(|_| panic!("no number: {line}"));
    let name = series.split('{').next().unwrap_or_default();
    let (family, kind) = types
        .iter()
        .rfind(|(family, _)| name.starts_with(family.as_str()))
        .unwrap_or_else(|| panic!("a sample before its type: {line}"));
    let suffixes: &[&str] = match kind.as_str() {
        "counter" => &["_total"],
        "histogram" => &["_bucket", "_sum", "_count"],
        _ => &[""],
    };
    assert!(suffixes.contains(&&name[family.len()..]), "{line} is no sample of a {kind}");
    if let Some((_, labels)) = series.split_once('{') {
        let labels = labels.strip_suffix('}').expect("labels end");
        for label in labels.split(',') {
            let (name, value) = label.split_once('=').expect("a label has a value");
            assert!(!name.is_empty() && value.len() >= 2 && value.starts_with('"') && value.ends_with('"'), "{line}");
        }
    }
}

#[tokio::test]
async fn metrics_are_openmetrics_and_count_what_happens() {
    let stage = Stage::with(&["alice", "bob"]).await;
    stage.publish_all(vec![direct("alice", "bob", "x"); 250]).await;
    stage.try_publish(direct("alice", "nobody", "x")).await.unwrap_err();
    let mut bob = stage.subscribe("bob").await;
    bob.take(250).await;
    bob.ack(1, 100).await;

    let answer = stage.broker.get("/metrics").await;
    assert_eq!(answer.status, 200);
    assert!(answer.head.to_lowercase().contains("content-type: application/openmetrics-text"), "{}", answer.head);
    let types = parse(&answer.body);
    let expected = [
        ("tandem_command_requests", "histogram"),
        ("tandem_publish_messages", "counter"),
        ("tandem_command_bytes", "counter"),
        ("tandem_refusals", "counter"),
        ("tandem_deliveries", "counter"),
        ("tandem_acknowledged", "counter"),
        ("tandem_streams", "gauge"),
        ("tandem_shard_is_leader", "gauge"),
        ("tandem_shard_term", "gauge"),
        ("tandem_shard_last_log_index", "gauge"),
        ("tandem_shard_applied_index", "gauge"),
        ("tandem_shard_snapshot_index", "gauge"),
        ("tandem_shard_purged_index", "gauge"),
        ("tandem_shard_open_inboxes", "gauge"),
        ("tandem_shard_queued_bytes", "gauge"),
        ("tandem_shard_state_bytes", "gauge"),
    ];
    for (name, kind) in expected {
        assert_eq!(types.get(name).map(String::as_str), Some(kind), "{name} in {:?}", types.keys());
    }
    let counted = [
        ("tandem_publish_messages_total", 251.0),
        ("tandem_refusals_total", 1.0),
        ("tandem_deliveries_total", 250.0),
        ("tandem_acknowledged_total", 100.0),
        ("tandem_streams", 1.0),
        ("tandem_shard_is_leader", 2.0),
        ("tandem_shard_open_inboxes", 1.0),
        ("tandem_shard_queued_bytes", 0.0),
    ];
    for (name, value) in counted {
        assert_eq!(stage.broker.metric(name).await, value, "{name}");
    }
    assert!(answer.body.contains("tandem_refusals_total{reason=\"UNKNOWN_SANDBOX\"} 1"), "{}", answer.body);
    assert!(answer.body.contains("shard=\"0\"") && answer.body.contains("shard=\"1\""));
}

#[tokio::test]
async fn health_and_readiness_answer_and_other_pages_do_not_exist() {
    let stage = Stage::with(&[]).await;
    for page in ["/health", "/ready"] {
        let answer = stage.broker.get(page).await;
        assert_eq!(answer.status, 200, "{page}: {answer:?}");
    }
    assert_eq!(stage.broker.get("/").await.status, 404);
}

/// So that a rise always means that somebody did something.
#[tokio::test]
async fn every_metric_is_unmoved_by_reading_it() {
    let stage = Stage::with(&[]).await;
    let first = stage.broker.get("/metrics").await.body;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(first, stage.broker.get("/metrics").await.body, "an idle broker writes nothing and counts nothing");
}
