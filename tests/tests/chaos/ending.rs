//! After the faults: everything runs again, what waits is taken, and what is there is noted.

use std::{sync::Arc, time::Duration};

use futures_util::TryStreamExt as _;
use tandem_client::{Client, DeadLetterQuery, Error, HistoryQuery, VerifyClusterResponse};
use tandem_tests::{
    history::{Act, digest},
    now,
};

use crate::{
    arena::{Arena, SEATS},
    workload::{Desk, SANDBOXES, SHARDS, Session, name_and_digest, within},
};

/// How long the nodes may take until all serve and agree, and how long an inbox until it is empty.
const PATIENCE: Duration = Duration::from_secs(90);
/// How long a question about a workspace may go without an answer. It is asked on every node, and a run has an end.
const ANSWER_PATIENCE: Duration = Duration::from_secs(20);
/// How long one comparison of states may take.
const VERIFY_TIMEOUT: Duration = Duration::from_secs(30);

/// Starts who does not run, and waits until every node serves every workspace. One that does not is complained of, and the rest
/// of the run goes on.
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
                    Err(error) if started.elapsed() > PATIENCE => {
                        arena.complain(format!(
                            "seat {} does not serve {workspace} within {PATIENCE:?} after all faults were healed: {error}",
                            number + 1
                        ));
                        return;
                    }
                    Err(_) => {}
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
        let inbox = format!("the inbox of {sandbox} of {}", desk.workspace);
        loop {
            let what = format!("{inbox} is looked at");
            let pending = within(ANSWER_PATIENCE, &what, async |turn| {
                let registry = desk.ways.at(turn).registry(&*desk.workspace);
                registry.get(sandbox).await.map(|sandbox| sandbox.pending_messages).map_err(|error| error.to_string())
            });
            let complaint = match pending.await {
                Ok(0) => break,
                Ok(pending) if started.elapsed() > PATIENCE => {
                    Some(format!("{inbox} is not empty within {PATIENCE:?}: {pending} messages wait"))
                }
                Ok(_) => None,
                Err(why) => Some(why),
            };
            if let Some(complaint) = complaint {
                arena.complain(complaint);
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

/// What a workspace holds, as one node says.
struct Stock {
    /// Sequence, name and digest of each message.
    log: Vec<(u64, String, u64)>,
    /// Sandbox, messages that wait, and sequences of dead letters.
    inboxes: Vec<(&'static str, u64, Vec<u64>)>,
}

/// Notes what each node says of a workspace, and what it holds, as the first one says. Who says nothing is complained of, and
/// leaves the word to the others.
pub(crate) async fn take_stock(arena: &Arena, desk: &Desk) {
    let mut is_known = false;
    for number in arena.taken().await {
        let node = arena.seat(number).await.node_id.unwrap_or(0);
        let client = arena.client(number);
        let what = format!("node {node} says what {} holds", desk.workspace);
        let stock = within(ANSWER_PATIENCE, &what, async |_| {
            Stock::of(&client, &desk.workspace).await.map_err(|error| error.to_string())
        });
        match stock.await {
            Ok(stock) => {
                stock.note_state(desk, node);
                if !is_known {
                    stock.note(desk);
                    is_known = true;
                }
            }
            Err(why) => arena.complain(why),
        }
    }
    if !is_known {
        let workspace = &desk.workspace;
        arena.complain(format!("no node says what {workspace} holds: that the log lacks its messages proves nothing"));
    }
}

impl Stock {
    async fn of(client: &Client, workspace: &str) -> Result<Self, Error> {
        let query = HistoryQuery { page_size: 1_000, ..HistoryQuery::default() };
        let messages = client.history(workspace).list(query).map_ok(|message| {
            let (id, content) = name_and_digest(&message);
            (message.sequence, id, content)
        });
        let log: Vec<_> = messages.try_collect().await?;
        let mut inboxes = Vec::new();
        for sandbox in SANDBOXES {
            let (pending, dead) = inbox(client, workspace, sandbox).await?;
            inboxes.push((sandbox, pending, dead));
        }
        Ok(Self { log, inboxes })
    }

    /// In short, for the comparison with other nodes.
    fn note_state(&self, desk: &Desk, node: u64) {
        let state = |what: String, value| {
            desk.recorder.found(&desk.workspace, "the end", Act::State { node, what, value });
        };
        let mut bytes = Vec::new();
        for (sequence, _, content) in &self.log {
            // A digest of digests stands for everything up to here.
            bytes.extend_from_slice(&sequence.to_be_bytes());
            bytes.extend_from_slice(&content.to_be_bytes());
            bytes = digest(&bytes).to_be_bytes().to_vec();
        }
        state("the log".to_owned(), format!("{} messages, digest {bytes:?}", self.log.len()));
        for (sandbox, pending, dead) in &self.inboxes {
            state(format!("the inbox of {sandbox}"), format!("{pending} pending, {} dead letters", dead.len()));
        }
    }

    /// In full, to be judged.
    fn note(self, desk: &Desk) {
        let note = |act| desk.recorder.found(&desk.workspace, "the end", act);
        for (sequence, id, content) in self.log {
            note(Act::Log { sequence, id, content });
        }
        for (sandbox, pending, dead) in self.inboxes {
            note(Act::Rest { sandbox: sandbox.to_owned(), pending });
            for sequence in dead {
                note(Act::DeadLetter { sandbox: sandbox.to_owned(), sequence });
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
        // Who says nothing is complained of, and does not differ from the others.
        for node in shard.nodes.into_iter().filter(|node| node.missing.is_empty()) {
            let what = format!("the state of shard {} after entry {}", shard.shard_id, shard.index);
            let act = Act::State { node: node.node_id, what, value: node.digest };
            desk.recorder.found(&desk.workspace, "the end", act);
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
async fn inbox(client: &Client, workspace: &str, sandbox: &str) -> Result<(u64, Vec<u64>), Error> {
    let pending = client.registry(workspace).get(sandbox).await?.pending_messages;
    let query = DeadLetterQuery { sandbox_id: Some(sandbox.to_owned()), ..DeadLetterQuery::default() };
    let letters: Vec<_> = client.dead_letters(workspace).list(query).try_collect().await?;
    let sequence = |letter: &tandem_client::DeadLetter| letter.message.as_ref().map_or(0, |message| message.sequence);
    Ok((pending, letters.iter().map(sequence).collect()))
}
