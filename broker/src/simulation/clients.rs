//! What clients share: where nodes are, what is recorded, and how a node is asked.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use parking_lot::Mutex;

use super::{
    draw::Draw,
    history::{History, Read},
    host::Door,
    net::NodeId,
};
use crate::{
    command::{
        CreateWorkspace, Outcome, RegisterSandbox, Verb, create_workspace::Settings, register_sandbox::InboxSettings,
    },
    error::RequestError,
    shard::{Shard, Shards},
};

pub(super) const WORKSPACES: [&str; 2] = ["default", "replay-1"];
pub(super) const SANDBOXES: [&str; 3] = ["a", "b", "c"];
/// A message dies after so many deliveries.
const MAX_ATTEMPTS: u32 = 3;

/// How long a client waits for a node.
const PATIENCE: Duration = Duration::from_secs(2);
/// Between two tries.
pub(super) const PAUSE: Duration = Duration::from_millis(20);

/// What every client knows.
pub(super) struct Clients {
    pub(super) doors: Mutex<BTreeMap<NodeId, Door>>,
    pub(super) history: Mutex<History>,
    pub(super) wishes: Mutex<Wishes>,
}

/// What clients shall do now.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Wishes {
    /// Publishers finish what they have begun.
    pub(super) finish: bool,
    /// Subscribers acknowledge everything at once.
    pub(super) drain: bool,
    /// Publishers that are at work.
    pub(super) publishing: usize,
}

impl Clients {
    pub(super) fn wishes(&self) -> Wishes {
        *self.wishes.lock()
    }

    /// Does something on a node, as a request would. None when nothing comes back: it may have been done all the same.
    pub(super) async fn ask<T, F, Fut>(&self, node: NodeId, act: F) -> Option<T>
    where
        T: Send + 'static,
        F: FnOnce(Shards) -> Fut + Send + 'static,
        Fut: Future<Output = T> + Send + 'static,
    {
        let door = self.doors.lock().get(&node).cloned()?;
        let task = door.handle.spawn(async move { act(door.shards).await });
        tokio::time::timeout(PATIENCE, task).await.ok()?.ok()
    }

    /// A node that runs, at random.
    pub(super) fn some_node(&self, draw: &mut Draw) -> Option<NodeId> {
        let doors = self.doors.lock();
        let nodes: Vec<NodeId> = doors.keys().copied().collect();
        (!nodes.is_empty()).then(|| draw.one_of(&nodes))
    }

    /// Does something until a node says that it is done. A refusal is a fault of the simulation.
    pub(super) async fn insist(&self, workspace: &'static str, verb: impl Fn() -> Verb, draw: &mut Draw) {
        loop {
            if let Some(node) = self.some_node(draw) {
                let verb = verb();
                let called =
                    self.ask(node, move |shards| async move { shards.of(workspace).batcher.call(verb, 64).await });
                match called.await {
                    Some(Ok(outcome)) => {
                        let fine = !matches!(&outcome, Outcome::RegisterSandbox(Err(_)));
                        assert!(fine, "{outcome:?}");
                        return;
                    }
                    Some(Err(RequestError::Rejected(rejection))) => panic!("{rejection:?}"),
                    Some(Err(_)) | None => {}
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Creates workspaces and sandboxes.
    pub(super) async fn prepare(&self, draw: &mut Draw) {
        for workspace in WORKSPACES {
            let settings = Settings::default();
            let create =
                || Verb::CreateWorkspace(CreateWorkspace { workspace: workspace.into(), max_workspaces: 10, settings });
            self.insist(workspace, create, draw).await;
            for sandbox in SANDBOXES {
                let settings = InboxSettings {
                    max_attempts: MAX_ATTEMPTS,
                    initial_backoff_ms: 50,
                    max_backoff_ms: 500,
                    ..Default::default()
                };
                let register = || {
                    Verb::RegisterSandbox(RegisterSandbox {
                        workspace: workspace.into(),
                        sandbox: sandbox.into(),
                        description: bytes::Bytes::new(),
                        max_sandboxes: 10,
                        settings,
                        capabilities: Vec::new(),
                        heartbeat_timeout_ms: 30_000,
                    })
                };
                self.insist(workspace, register, draw).await;
            }
        }
    }

    /// Reads the log now and then, from any node, each time from where it was.
    pub(super) async fn read_on(self: Arc<Self>, workspace: &'static str, mut draw: Draw) {
        let mut after = 0;
        while !self.wishes().drain {
            tokio::time::sleep(Duration::from_millis(draw.between(20, 300))).await;
            let Some(node) = self.some_node(&mut draw) else { continue };
            let asked = self.history.lock().now();
            let read = self.ask(node, move |shards| async move {
                let shard = shards.of(workspace);
                shard.group.read_barrier().await.ok()?;
                Some(log_after(shard, workspace, after))
            });
            let Some(Some(found)) = read.await else { continue };
            let newest = found.last().map_or(after, |(sequence, _)| *sequence);
            self.history.lock().reads.push(Read { workspace, node, asked, after, found });
            after = newest;
        }
    }
}

/// The log of a workspace behind a sequence, as this node has it: sequences and labels.
pub(super) fn log_after(shard: &Shard, workspace: &str, after: u64) -> Vec<(u64, String)> {
    let Ok(record) = shard.reader.workspace(workspace) else { return Vec::new() };
    // The batch that holds a sequence begins before it.
    let batches = shard.reader.batches_between(record.number, 0, u64::MAX, usize::MAX).unwrap_or_default();
    let mut found = Vec::new();
    for batch in batches {
        for index in 0..batch.len() {
            let (sequence, record) = (batch.sequence(index), batch.record(index));
            if sequence > after && !record.body.is_empty() {
                found.push((sequence, label(record.body)));
            }
        }
    }
    found
}

/// The content of an encoded message.
pub(super) fn label(body: &[u8]) -> String {
    let message: tandem_proto::messaging::v1::Message = prost::Message::decode(body).unwrap_or_default();
    String::from_utf8_lossy(&message.content).into_owned()
}
