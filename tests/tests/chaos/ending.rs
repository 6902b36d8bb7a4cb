//! After the faults: everything runs again, what waits is taken, and what is there is noted.

use std::{sync::Arc, time::Duration};

use futures_util::TryStreamExt as _;
use tandem_client::{Client, DeadLetterQuery, HistoryQuery};
use tandem_tests::{
    history::{Act, digest},
    now,
};

use crate::{
    arena::{Arena, SEATS},
    workload::{Desk, SANDBOXES, Session, name_and_digest, until},
};

/// How long the nodes may take until all serve and agree, and how long an inbox until it is empty.
const PATIENCE: Duration = Duration::from_secs(90);

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

/// Takes everything that waits in the inboxes of a workspace.
pub(crate) async fn drain(mut desk: Desk) {
    for sandbox in SANDBOXES {
        let (started, mut turn) = (now(), 0);
        loop {
            let pending = until("an inbox is looked at", async |turn| {
                let registry = desk.ways.at(turn).registry(&*desk.workspace);
                registry.get(sandbox).await.map(|sandbox| sandbox.pending_messages).map_err(|error| error.to_string())
            });
            if pending.await == 0 {
                break;
            }
            assert!(started.elapsed() < PATIENCE, "{sandbox} of {} is not empty within {PATIENCE:?}", desk.workspace);
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

/// Notes what the state of every shard comes to on every node, at the same entry of its log.
pub(crate) async fn compare_states(arena: &Arena, desk: &Desk) {
    let first = *arena.taken().await.first().expect("three nodes run");
    let verified = arena.client(first).cluster().verify(PATIENCE).await.unwrap();
    for shard in verified.shards {
        for node in shard.nodes {
            let what = format!("the state of shard {} after entry {}", shard.shard_id, shard.index);
            let value = if node.missing.is_empty() { node.digest } else { format!("nothing: {}", node.missing) };
            desk.recorder.found(&desk.workspace, "the end", Act::State { node: node.node_id, what, value });
        }
    }
}

/// What waits, and the sequences of dead letters.
async fn inbox(client: &Client, workspace: &str, sandbox: &str) -> (u64, Vec<u64>) {
    let pending = client.registry(workspace).get(sandbox).await.unwrap().pending_messages;
    let query = DeadLetterQuery { sandbox_id: Some(sandbox.to_owned()), ..DeadLetterQuery::default() };
    let letters: Vec<_> = client.dead_letters(workspace).list(query).try_collect().await.unwrap();
    let sequence = |letter: &tandem_client::DeadLetter| letter.message.as_ref().map_or(0, |message| message.sequence);
    (pending, letters.iter().map(sequence).collect())
}
