//! The examples of the Rust client, run as they are: each plays all its parts, and says what came of it.

use std::{fs, process::Command};

use futures_util::TryStreamExt as _;
use tandem_tests::{BrokerProcess, Home, example, run_to_exit};

const CAUSE: &str = "version 41 of the shop was deployed at 12:02";

/// What one prints, line by line, against a broker of its own.
async fn said_by(name: &str) -> Vec<String> {
    let home = Home::new();
    let broker = BrokerProcess::start(&home, &home.config()).await;
    let mut command = Command::new(example(name));
    command.arg(format!("http://{}", broker.grpc_address()));
    let exit = run_to_exit(&home, command).await;
    assert_eq!(exit.code, Some(0), "{name}: {exit:?}");
    let left: Vec<_> = broker.client().workspaces().list().try_collect().await.unwrap();
    let left: Vec<_> = left.into_iter().map(|workspace| workspace.workspace_id).collect();
    assert_eq!(left, ["default"], "{name} leaves something behind");
    exit.stdout.lines().map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_agents() {
    let expected = ["alice asks: fix the build", "bob answers: looks good", "bob tells: I am going home"];
    assert_eq!(said_by("two_agents").await, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn coordinator_and_workers() {
    let said = said_by("coordinator_and_workers").await;
    let squares: Vec<_> = (1..=12).map(|number| number * number).collect();
    assert_eq!((said.len(), &said[0]), (2, &format!("{squares:?}")));
    let mut done = 0;
    for share in said[1].split(", ") {
        let (name, count) = share.split_once(": ").unwrap();
        assert!(["worker-1", "worker-2", "worker-3"].contains(&name), "{said:?}");
        done += count.parse::<u32>().unwrap();
    }
    assert_eq!(done, 12);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn swarm_vote() {
    assert_eq!(said_by("swarm_vote").await, ["decided: release (release 3, wait 2)"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn human_approval() {
    let expected = [
        "20 waits for approval 1",
        "5000 waits for approval 2",
        "paid: [20]; the buyer heard: APPROVAL_DENIED, APPROVED",
    ];
    assert_eq!(said_by("human_approval").await, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn incident_investigation() {
    let said = said_by("incident_investigation").await;
    assert_eq!(said.len(), 10, "{said:?}");
    assert_eq!(said[0], format!("4 specialists; the cause: {CAUSE}"));
    let areas: Vec<_> = said[1..6].iter().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(areas, ["logs", "metrics", "deployments", "network", "astrology"]);
    assert_eq!(said[3], format!("  deployments  {CAUSE}"));
    assert_eq!(said[5], "  astrology    no answer (NO_CAPABLE_SANDBOX)");
    let told = ["deployments", "logs", "metrics", "network"].map(|area| format!("{area} knows: {CAUSE}"));
    assert_eq!(said[6..], told);
}

#[test]
fn all_examples_are_run_and_named_in_the_guide() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let files = fs::read_dir(format!("{root}/clients/rust/examples")).unwrap();
    let mut there: Vec<_> = files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    there.sort();
    // `author` and `reviewer` are those of the tutorial, and run there.
    let run = [
        "author.rs",
        "coordinator_and_workers.rs",
        "human_approval.rs",
        "incident_investigation.rs",
        "reviewer.rs",
        "swarm_vote.rs",
        "two_agents.rs",
    ];
    assert_eq!(there, run);
    let guide = fs::read_to_string(format!("{root}/docs/guides/rust.md")).unwrap();
    for name in run {
        assert!(guide.contains(name), "{name} is not named in docs/guides/rust.md");
    }
}
