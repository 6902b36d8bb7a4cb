//! The scenarios of `clients/conformance`, played by the Rust client against one node and against three whose leader is killed.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "these are tests, and say what they leave out")]

mod broker;
mod examples;
mod expect;
mod stage;
#[path = "../cluster/trio.rs"]
#[allow(dead_code, reason = "other tests need the rest of it")]
mod trio;
mod tutorial;
mod verbs;

use std::{collections::BTreeMap, fs, path::PathBuf, time::Duration};

use serde_json::{Map, Value, json};

use self::{broker::Broker, expect::difference, stage::Stage, verbs::Failure};

/// Beside the verb of a step.
const BESIDE: [&str; 4] = ["expect", "error", "save", "client"];

fn scenarios() -> BTreeMap<String, Value> {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../clients/conformance"));
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let read = files.filter(|path| path.extension().is_some_and(|extension| extension == "yaml")).map(|path| {
        let text = fs::read_to_string(&path).unwrap();
        let scenario: Value =
            serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        assert_eq!(scenario["name"], *name);
        (name, scenario)
    });
    read.collect()
}

fn needs(scenario: &Value, what: &str) -> bool {
    scenario["needs"].as_array().is_some_and(|needs| needs.iter().any(|need| need == what))
}

async fn play(name: &str, nodes: usize) {
    let scenario = scenarios().remove(name).expect("there is such a scenario");
    if nodes == 1 && needs(&scenario, "cluster") {
        eprintln!("{name} needs three nodes, and is not played against one");
        return;
    }
    let broker = Broker::start(nodes, needs(&scenario, "tokens")).await;
    let mut stage = Stage::new(broker, name, needs(&scenario, "cut")).await;
    let limit = Duration::from_secs(scenario["timeout_s"].as_u64().unwrap_or(60));
    let played = tokio::time::timeout(limit, steps(&mut stage, &scenario)).await;
    if let Err(why) = played.unwrap_or_else(|_| Err(format!("it takes longer than {limit:?}"))) {
        panic!("{name}, {nodes} nodes: {why}");
    }
}

async fn steps(stage: &mut Stage, scenario: &Value) -> Result<(), String> {
    let mut kept = Map::new();
    for (number, step) in scenario["steps"].as_array().unwrap().iter().enumerate() {
        let step = filled(step, &kept);
        let mut verbs = step.as_object().unwrap().iter().filter(|(key, _)| !BESIDE.contains(&key.as_str()));
        let (Some((verb, arguments)), None) = (verbs.next(), verbs.next()) else {
            return Err(format!("step {} has not one verb", number + 1));
        };
        let found = stage.step(verb, arguments, &step).await;
        let found = judged(found, &step).map_err(|why| format!("step {} ({verb}): {why}", number + 1))?;
        for (name, field) in step["save"].as_object().into_iter().flatten() {
            kept.insert(name.clone(), found[field.as_str().unwrap()].clone());
        }
    }
    Ok(())
}

/// What a step came to, if that is what it should.
fn judged(found: Result<Value, Failure>, step: &Value) -> Result<Value, String> {
    let wanted = match &step["error"] {
        Value::Null => None,
        Value::String(code) => Some(json!({ "code": code })),
        other => Some(other.clone()),
    };
    match (found, wanted) {
        (Err(Failure::Test(why)), _) => Err(why),
        (Err(Failure::Client(error)), None) => Err(format!("{} {error}", error.reason())),
        (Err(Failure::Client(error)), Some(wanted)) => {
            let retry_after = error.retry_delay().is_some();
            let seen = json!({"code": error.reason(), "retryable": error.is_retryable(), "retry_after": retry_after});
            let why = difference(&wanted, &seen, "it");
            if why.is_empty() { Ok(Value::Null) } else { Err(format!("{why}: {error}")) }
        }
        (Ok(found), Some(wanted)) => Err(format!("no error, but {found}; expected {wanted}")),
        (Ok(found), None) => {
            let why = difference(&step["expect"], &found, "it");
            if why.is_empty() { Ok(found) } else { Err(why) }
        }
    }
}

/// With what was kept in the place of `$name`.
fn filled(value: &Value, kept: &Map<String, Value>) -> Value {
    match value {
        Value::String(text) => match text.strip_prefix('$') {
            Some(name) => kept[name].clone(),
            None => value.clone(),
        },
        Value::Array(all) => all.iter().map(|one| filled(one, kept)).collect(),
        Value::Object(all) => all.iter().map(|(key, one)| (key.clone(), filled(one, kept))).collect(),
        _ => value.clone(),
    }
}

macro_rules! played {
    ($($name:ident),* $(,)?) => {
        const PLAYED: &[&str] = &[$(stringify!($name)),*];

        mod one_node {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::play(stringify!($name), 1).await;
            })*
        }

        mod three_nodes {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::play(stringify!($name), 3).await;
            })*
        }
    };
}

played! {
    ack, approval, broadcast, dead_letter, discover, expired_token, failover, full_inbox, nack, policy_refusal, publish,
    request_response, resume, retry, subscribe, topics, unreachable,
}

#[test]
fn all_scenarios_are_played() {
    let there: Vec<_> = scenarios().into_keys().collect();
    assert_eq!(there, PLAYED);
}
