//! Messages that wait for approval on three nodes: one outcome, whoever decides, however many do, and whoever leads.

use std::{sync::Arc, time::Duration};

use tandem_client::{ApprovalState, Client, Decision, Error, Sandbox, SubscribeOptions};
use tandem_tests::{direct, named, now};
use tokio::sync::Barrier;

use crate::{
    identity::{ALICE, Closed},
    trio::{PATIENCE, WORKSPACE, insist},
};

const HOLD: &str = r#"{"policy":"deny_list","rules":[{"from":"alice","to":"bob","approval_required":true}]}"#;
const APPROVERS: [&str; 4] = ["ann", "ben", "cem", "dea"];
const DECISIONS: usize = 100;

/// What somebody heard who decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Heard {
    /// His decision was taken, or had been; this is what became of the message.
    Taken(ApprovalState, u64),
    /// Somebody else was quicker.
    TooLate,
}

/// Decides through one node after the other until one answers for good.
async fn decide(clients: Vec<Client>, first: usize, approval: u64, decision: Decision) -> Heard {
    let started = now();
    for turn in first.. {
        let approvals = clients[turn % clients.len()].approvals(WORKSPACE);
        match approvals.decide(approval, decision, "").await {
            Ok(seen) => return Heard::Taken(seen.state(), seen.sequence),
            Err(error) if error.reason() == "APPROVAL_ENDED" => return Heard::TooLate,
            Err(error) => assert!(error.is_retryable() && started.elapsed() < PATIENCE, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    unreachable!("the turns do not end")
}

async fn held(publisher: &Client, id: &str) -> u64 {
    let publisher = publisher.publisher(WORKSPACE);
    let receipt = insist(async || publisher.publish(named(id, direct("alice", "bob", "x"))).await).await;
    let approval = receipt.approval_id.expect("the policy holds it");
    // A call that is repeated names the same one.
    let again = insist(async || publisher.publish(named(id, direct("alice", "bob", "x"))).await).await;
    assert_eq!((receipt.sequence, again.approval_id), (0, Some(approval)));
    approval
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn promise_3_a_hundred_decisions_come_to_one_outcome_across_a_failover() {
    let mut closed = Closed::start().await;
    let admin = closed.client(0, &["--role", "admin"]).await;
    for id in ["alice", "bob"] {
        let sandbox = || Sandbox { sandbox_id: id.into(), ..Sandbox::default() };
        insist(async || admin.registry(WORKSPACE).register(sandbox()).await).await;
    }
    insist(async || admin.policies(WORKSPACE).set(HOLD, None).await).await;
    let shard = insist(async || admin.workspaces().get(WORKSPACE).await).await.shard_id;
    let info = insist(async || admin.server_info().await).await;
    let leader = info.shards.iter().find(|seen| seen.shard_id == shard).unwrap().leader_node_id as usize - 1;
    let mut approvers = Vec::new();
    for subject in APPROVERS {
        let mut clients = Vec::new();
        for node in 0..3 {
            clients.push(closed.client_of(subject, node, &["--role", "approver"]).await);
        }
        approvers.push(clients);
    }
    let follower = (leader + 1) % 3;
    let alice = closed.client(follower, &ALICE).await;
    let bob_is = [&ALICE[..4], &["--bind-sandbox", "bob"]].concat();
    let bob = closed.client(follower, &bob_is).await;

    let first = held(&alice, "first").await;
    let own = [&ALICE[..], &["--role", "approver"]].concat();
    let own = closed.client(follower, &own).await.approvals(WORKSPACE).decide(first, Decision::Approve, "").await;
    assert_eq!(own.unwrap_err().reason(), "OWN_MESSAGE");
    assert_eq!(alice.approvals(WORKSPACE).get(first).await.unwrap().1.unwrap().content.as_ref(), b"x");
    assert_eq!(bob.approvals(WORKSPACE).get(first).await.unwrap_err().reason(), "UNKNOWN_APPROVAL");
    assert_eq!(bob.approvals(WORKSPACE).decide(first, Decision::Deny, "").await.unwrap_err().reason(), "ROLE_MISSING");

    let mut approved = Vec::new();
    for (round, approval) in [first, held(&alice, "second").await, held(&alice, "third").await].into_iter().enumerate()
    {
        let together = Arc::new(Barrier::new(DECISIONS + 1));
        let tasks: Vec<_> = (0..DECISIONS)
            .map(|number| {
                let (clients, together) = (approvers[number % APPROVERS.len()].clone(), Arc::clone(&together));
                let decision =
                    if (number / APPROVERS.len()).is_multiple_of(2) { Decision::Approve } else { Decision::Deny };
                tokio::spawn(async move {
                    together.wait().await;
                    decide(clients, number, approval, decision).await
                })
            })
            .collect();
        together.wait().await;
        if round == 1 {
            closed.trio.kill_nine(leader);
        }
        let mut heard = Vec::new();
        for task in tasks {
            heard.push(task.await.unwrap());
        }
        let (seen, _) = insist(async || look_up(&admin, &alice, approval).await).await;
        assert_ne!(seen.state(), ApprovalState::Waiting, "{seen:?}");
        let outcome = Heard::Taken(seen.state(), seen.sequence);
        assert!(heard.iter().all(|heard| *heard == outcome || *heard == Heard::TooLate), "{seen:?}: {heard:?}");
        assert!(heard.contains(&outcome), "who decided was told: {seen:?}");
        if seen.state() == ApprovalState::Approved {
            approved.push(seen.sequence);
        }
    }

    // What was approved is there once, and nothing else; and its sender has heard of each.
    let mut delivered = Vec::new();
    let mut inbox = insist(async || bob.subscribe(WORKSPACE, "bob", SubscribeOptions::default()).await).await;
    while delivered.len() < approved.len() {
        let delivery = inbox.next().await.unwrap().unwrap();
        delivered.push(delivery.message.sequence);
        inbox.ack(&delivery);
    }
    assert_eq!(delivered, approved);
    assert!(tokio::time::timeout(Duration::from_millis(500), inbox.next()).await.is_err(), "one more was delivered");
    let mut told = Vec::new();
    let mut inbox = insist(async || alice.subscribe(WORKSPACE, "alice", SubscribeOptions::default()).await).await;
    while told.len() < 3 {
        let delivery = tokio::time::timeout(PATIENCE, inbox.next()).await.expect("its sender hears of each");
        let delivery = delivery.unwrap().unwrap();
        told.push(delivery.message.metadata["aintandem-approval"].clone());
        inbox.ack(&delivery);
    }
    assert!(tokio::time::timeout(Duration::from_millis(500), inbox.next()).await.is_err(), "it hears of one again");
    assert_eq!(told, [first, first + 1, first + 2].map(|approval| approval.to_string()));
}

/// Through whichever of two nodes runs.
async fn look_up(
    one: &Client,
    other: &Client,
    approval: u64,
) -> Result<(tandem_client::Approval, Option<tandem_client::Message>), Error> {
    match other.approvals(WORKSPACE).get(approval).await {
        Err(_) => one.approvals(WORKSPACE).get(approval).await,
        found => found,
    }
}
