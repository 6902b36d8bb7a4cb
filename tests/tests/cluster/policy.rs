//! A policy on three nodes: it binds streams that are open everywhere, and whoever leads.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tandem_client::Client;
use tandem_tests::direct;
use tokio::task::JoinHandle;

use crate::trio::{Trio, WORKSPACE, insist};

const DENY: &str = r#"{"policy":"deny_list","rules":[{"from":"alice","to":"bob"}]}"#;

/// What becomes of a policy, in turns: there is none, it is being set, it is in force, it is being removed.
const PHASES: u64 = 4;
const NONE: u64 = 0;
const IN_FORCE: u64 = 2;

/// A message: the phases in which it was sent and answered, and whether it was accepted.
struct Said {
    sent_in: u64,
    answered_in: u64,
    accepted: bool,
}

/// Publishes over one stream until a phase. `heard` is the last phase within which it has said something and was answered, and one
/// more.
fn talk(client: Client, phase: Arc<AtomicU64>, last: u64, heard: Arc<AtomicU64>) -> JoinHandle<Vec<Said>> {
    tokio::spawn(async move {
        let mut stream = client.publisher(WORKSPACE).stream(Default::default());
        let mut seen = Vec::new();
        while phase.load(Ordering::SeqCst) < last {
            let sent_in = phase.load(Ordering::SeqCst);
            let answer = match stream.send(direct("alice", "bob", "hello")).await {
                Ok(pending) => pending.await,
                Err(error) => Err(error),
            };
            let answered_in = phase.load(Ordering::SeqCst);
            let accepted = match answer {
                Ok(_) => true,
                Err(error) if error.reason() == "POLICY_DENIED" => false,
                // A leader that changes says nothing of the message, and ends the stream.
                Err(error) => {
                    assert!(error.is_retryable(), "{error}");
                    stream = client.publisher(WORKSPACE).stream(Default::default());
                    continue;
                }
            };
            if sent_in == answered_in {
                heard.store(sent_in + 1, Ordering::SeqCst);
            }
            seen.push(Said { sent_in, answered_in, accepted });
        }
        seen
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn promise_6_a_policy_binds_open_streams_on_every_node_at_once() {
    let trio = Trio::start().await;
    trio.register("alice").await;
    trio.register("bob").await;
    let (phase, last) = (Arc::new(AtomicU64::new(0)), 3 * PHASES);
    let heard: [Arc<AtomicU64>; 3] = Default::default();
    let talk = |node: usize| talk(trio.client(node), Arc::clone(&phase), last, Arc::clone(&heard[node]));
    let talkers: Vec<_> = (0..3).map(talk).collect();
    for now in 0..last {
        let policies = trio.client(now as usize % 3).policies(WORKSPACE);
        match now % PHASES {
            NONE | IN_FORCE => {
                tokio::time::sleep(Duration::from_millis(400)).await;
                let all_said = async |_: &Trio| heard.iter().all(|heard| heard.load(Ordering::SeqCst) > now);
                trio.until("everybody has said something", all_said).await;
            }
            1 => drop(insist(async || policies.set(DENY, None).await).await),
            _ => drop(insist(async || policies.remove(None).await).await),
        }
        phase.store(now + 1, Ordering::SeqCst);
    }
    for talker in talkers {
        let seen = talker.await.unwrap();
        for wanted in (0..last).filter(|phase| phase % 2 == 0) {
            let within: Vec<_> =
                seen.iter().filter(|said| said.sent_in == wanted && said.answered_in == wanted).collect();
            assert!(!within.is_empty(), "nothing was said in phase {wanted}");
            let expected = wanted % PHASES == NONE;
            let wrong = within.iter().filter(|said| said.accepted != expected).count();
            assert_eq!(wrong, 0, "of {} in phase {wanted}, where accepted is {expected}", within.len());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn promise_6_a_policy_outlives_the_leader_that_took_it() {
    let mut trio = Trio::start().await;
    trio.register("alice").await;
    trio.register("bob").await;
    insist(async || trio.client(0).policies(WORKSPACE).set(DENY, None).await).await;
    let leader = trio.leader().await;
    trio.kill_nine(leader);
    for node in trio.running() {
        let client = trio.client(node);
        let refused =
            insist(async || match client.publisher(WORKSPACE).publish(direct("alice", "bob", "hello")).await {
                Err(error) if error.reason() == "POLICY_DENIED" => Ok(true),
                Err(error) => Err(error),
                Ok(_) => Ok(false),
            })
            .await;
        assert!(refused, "node {node} lets through what is denied");
        let policy = insist(async || client.policies(WORKSPACE).get().await).await;
        assert_eq!((policy.json.as_str(), policy.revision), (DENY, 1));
    }
}
