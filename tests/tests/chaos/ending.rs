//! After the faults: everything runs again, what waits is taken, and what is there is noted.

use std::{sync::Arc, time::Duration};

use futures_util::TryStreamExt as _;
use tandem_client::{Client, DeadLetterQuery, HistoryQuery, VerifyClusterResponse};
use tandem_tests::{
    history::{Act, digest},
    now,
};

use crate::{
    arena::{Arena, SEATS},
    workload::{Desk, SANDBOXES, SHARDS, Session, name_and_digest, until},
};

/// How long the nodes may take until all serve and agree, and how long an inbox until it is empty.
const PATIENCE: Duration = Duration::from_secs(90);
/// How long one comparison of states may take.
const VERIFY_TIMEOUT: Duration = Duration::from_secs(30);

/// Starts who does not run, and waits until every node serves every workspace.
pub(crate) async fn converge(arena: &Arena, workspaces: &[Arc<str>]) {
    for number in 0..SEATS {
        let mut seat = arena.seat(number).await;
        if seat.node_id.is_some() && seat.process.is_none() {
            seat.start(arena);
        }
    }
    let started = now();
    for number in arena.taken().await {
        let client = arena.client(number);
        for workspace in workspaces {
            loop {
                match client.workspaces().get(&**workspace).await {
                    Ok(_) => break,
                    Err(error) => assert!(
                        started.elapsed() < PATIENCE,
                        "seat {} does not serve {workspace} within {PATIENCE:?} after all faults were healed: {error}",
                        number + 1
                    ),
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// Takes everything that waits in the inboxes of a workspace. What is still there after a while is complained of.
pub(crate) async fn drain(arena: &Arena, mut desk: Desk) {
    let (started, mut turn) = (now(), 0);
    for sandbox in SANDBOXES {
        loop {
            let pending = until("an inbox is looked at", async |turn| {
                let registry = desk.ways.at(turn).registry(&*desk.workspace);
                registry.get(sandbox).await.map(|sandbox| sandbox.pending_messages).map_err(|error| error.to_string())
            });
            let pending = pending.await;
            if pending == 0 {
                break;
            }
            if started.elapsed() > PATIENCE {
                let inbox = format!("the inbox of {sandbox} of {}", desk.workspace);
                arena.complain(format!("{inbox} is not empty within {PATIENCE:?}: {pending} messages wait"));
                return;
            }
            turn += 1;
            let name = format!("{sandbox}-drain-{turn}");
            if let Some(mut session) = Session::open(&desk, sandbox, name).await {
                while let Some(batch) = session.take(Duration::from_millis(700)).await {
                    if !session.acknowledge(&batch.iter().collect::<Vec<_>>()).await {
                        break;
                    }
                }
            }
            desk.ways.turn();
        }
    }
}

/// Notes what a workspace holds, and what each node says of it.
pub(crate) async fn take_stock(arena: &Arena, desk: &Desk) {
    let note = |act| desk.recorder.found(&desk.workspace, "the end", act);
    for (place, number) in arena.taken().await.into_iter().enumerate() {
        let node = arena.seat(number).await.node_id.unwrap_or(0);
        let client = arena.client(number);
        let state = |what: &str, value: String| note(Act::State { node, what: what.to_owned(), value });
        let (mut messages, mut bytes) = (0, Vec::new());
        let query = HistoryQuery { page_size: 1_000, ..HistoryQuery::default() };
        let log: Vec<_> = client.history(&*desk.workspace).list(query).try_collect().await.unwrap();
        for message in log {
            let (id, content) = name_and_digest(&message);
            messages += 1;
            // A digest of digests stands for everything up to here.
            bytes.extend_from_slice(&message.sequence.to_be_bytes());
            bytes.extend_from_slice(&content.to_be_bytes());
            bytes = digest(&bytes).to_be_bytes().to_vec();
            if place == 0 {
                note(Act::Log { sequence: message.sequence, id, content });
            }
        }
        state("the log", format!("{messages} messages, digest {bytes:?}"));
        for sandbox in SANDBOXES {
            let (pending, dead) = inbox(&client, &desk.workspace, sandbox).await;
            state(&format!("the inbox of {sandbox}"), format!("{pending} pending, {} dead letters", dead.len()));
            if place == 0 {
                note(Act::Rest { sandbox: sandbox.to_owned(), pending });
                for sequence in dead {
                    note(Act::DeadLetter { sandbox: sandbox.to_owned(), sequence });
                }
            }
        }
    }
}

/// Notes what the state of every shard comes to on every node, at the same entry of its log. Complains when not all of them
/// could be looked at.
pub(crate) async fn compare_states(arena: &Arena, desk: &Desk) {
    let taken = arena.taken().await;
    let cluster = arena.client(*taken.first().expect("three nodes run")).cluster();
    let started = now();
    let (verified, why) = loop {
        let (verified, why) = match cluster.verify(VERIFY_TIMEOUT).await {
            Ok(verified) => {
                let why = not_compared(&verified, taken.len());
                (Some(verified), why)
            }
            Err(error) => (None, Some(error.to_string())),
        };
        if why.is_none() || started.elapsed() > PATIENCE {
            break (verified, why);
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    if let Some(why) = why {
        arena.complain(format!("the states of all nodes could not be compared within {PATIENCE:?}: {why}"));
    }
    for shard in verified.map_or_else(Vec::new, |verified| verified.shards) {
        for node in shard.nodes {
            let what = format!("the state of shard {} after entry {}", shard.shard_id, shard.index);
            let value = match node.missing.is_empty() {
                true => node.digest,
                // No two that say nothing are taken for equal.
                false => format!("nothing by node {}: {}", node.node_id, node.missing),
            };
            desk.recorder.found(&desk.workspace, "the end", Act::State { node: node.node_id, what, value });
        }
    }
}

/// What a comparison leaves out, if anything.
fn not_compared(verified: &VerifyClusterResponse, nodes: usize) -> Option<String> {
    if verified.shards.len() as u32 != SHARDS {
        return Some(format!("{} shards were looked at, not {SHARDS}", verified.shards.len()));
    }
    verified.shards.iter().find_map(|shard| {
        let missing = shard.nodes.iter().find(|node| !node.missing.is_empty());
        if let Some(node) = missing {
            return Some(format!("shard {} on node {}: {}", shard.shard_id, node.node_id, node.missing));
        }
        let wrong = shard.nodes.len() != nodes;
        wrong.then(|| format!("shard {} was looked at on {} nodes of {nodes}", shard.shard_id, shard.nodes.len()))
    })
}

/// What waits, and the sequences of dead letters.
async fn inbox(client: &Client, workspace: &str, sandbox: &str) -> (u64, Vec<u64>) {
    let pending = client.registry(workspace).get(sandbox).await.unwrap().pending_messages;
    let query = DeadLetterQuery { sandbox_id: Some(sandbox.to_owned()), ..DeadLetterQuery::default() };
    let letters: Vec<_> = client.dead_letters(workspace).list(query).try_collect().await.unwrap();
    let sequence = |letter: &tandem_client::DeadLetter| letter.message.as_ref().map_or(0, |message| message.sequence);
    (pending, letters.iter().map(sequence).collect())
}
