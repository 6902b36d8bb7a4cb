//! Clients that work as clients do, through whichever node answers, and note what they see.
//!
//! There is a workspace on every shard. Each has four sandboxes; two of them publish, one over a stream as a producer, one a
//! message at a time with ids of its own, and both try each message until they know what became of it. Each inbox has a
//! subscriber, one of them two, that acknowledge, give back, prolong, let leases lapse and vanish. One reader follows the log
//! from its beginning, another one looks at pages of it.

mod message;
mod one_by_one;
mod reader;
mod stream;
mod subscriber;
mod ways;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tandem_client::{RetryPolicy, Sandbox, wire_duration};
use tandem_tests::{Random, history::Recorder, now};
use tokio::task::JoinHandle;

pub(crate) use self::{message::name_and_digest, subscriber::Session, ways::Ways};
use crate::arena::Arena;

/// Shards that must have a workspace.
const SHARDS: u32 = 4;
/// Inboxes of each workspace.
pub(crate) const SANDBOXES: [&str; 4] = ["ada", "bob", "cleo", "dan"];

/// What every client of a workspace holds.
#[derive(Clone)]
pub(crate) struct Desk {
    pub(crate) workspace: Arc<str>,
    pub(crate) ways: Ways,
    pub(crate) recorder: Recorder,
    pub(crate) random: Random,
    /// No new work is begun; what was begun is finished.
    stop: Arc<AtomicBool>,
}

impl Desk {
    pub(crate) fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    fn for_client(&mut self) -> Self {
        let random = self.random.fork();
        Self { ways: self.ways.anywhere(&mut self.random), random, ..self.clone() }
    }
}

/// Clients at work.
pub(crate) struct Workload {
    pub(crate) desks: Vec<Desk>,
    publishers: Vec<JoinHandle<()>>,
    others: Vec<JoinHandle<()>>,
    stop_publishers: Arc<AtomicBool>,
    stop_others: Arc<AtomicBool>,
}

impl Workload {
    /// Makes the workspaces and sets everybody to work.
    pub(crate) async fn begin(arena: &Arena, recorder: &Recorder, random: &mut Random) -> Self {
        let ways = Ways::to(arena);
        let (stop_publishers, stop_others) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let mut workload =
            Self { desks: Vec::new(), publishers: Vec::new(), others: Vec::new(), stop_publishers, stop_others };
        for workspace in make_workspaces(&ways).await {
            let mut desk = Desk {
                workspace: workspace.into(),
                ways: ways.clone(),
                recorder: recorder.clone(),
                random: random.fork(),
                stop: Arc::clone(&workload.stop_others),
            };
            for sandbox in SANDBOXES {
                register(&desk, sandbox).await;
                workload.others.push(tokio::spawn(subscriber::work(desk.for_client(), sandbox, 0)));
            }
            workload.others.push(tokio::spawn(subscriber::work(desk.for_client(), "cleo", 1)));
            workload.others.push(tokio::spawn(reader::follow(desk.for_client())));
            workload.others.push(tokio::spawn(reader::look_at_pages(desk.for_client())));
            let publisher = Desk { stop: Arc::clone(&workload.stop_publishers), ..desk.clone() };
            workload.publishers.push(tokio::spawn(stream::publish(publisher.clone().for_client())));
            workload.publishers.push(tokio::spawn(one_by_one::publish(publisher.clone().for_client())));
            workload.desks.push(desk);
        }
        workload
    }

    /// Lets everybody finish: publishers once every message has its outcome, then the others.
    pub(crate) async fn end(self) -> Vec<Desk> {
        self.stop_publishers.store(true, Ordering::Relaxed);
        for publisher in self.publishers {
            publisher.await.unwrap();
        }
        self.stop_others.store(true, Ordering::Relaxed);
        for other in self.others {
            other.await.unwrap();
        }
        self.desks
    }
}

/// Waits for something that needs the cluster.
pub(crate) async fn until<T>(what: &str, mut ask: impl AsyncFnMut(usize) -> Result<T, String>) -> T {
    const PATIENCE: Duration = Duration::from_secs(60);
    let (started, mut turn) = (now(), 0);
    loop {
        match ask(turn).await {
            Ok(answer) => return answer,
            Err(why) => assert!(started.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}: {why}"),
        }
        turn += 1;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// One workspace on each shard.
async fn make_workspaces(ways: &Ways) -> Vec<String> {
    let mut by_shard = BTreeMap::new();
    for number in 0.. {
        let name = format!("team-{number}");
        let made = until("a workspace is made", async |turn| {
            let workspaces = ways.at(turn).workspaces();
            match workspaces.create(name.clone()).await {
                Ok(workspace) => Ok(workspace),
                // A try before may have made it.
                Err(error) => workspaces.get(name.clone()).await.map_err(|_| error.to_string()),
            }
        });
        by_shard.entry(made.await.shard_id).or_insert(name);
        if by_shard.len() as u32 == SHARDS {
            break;
        }
    }
    by_shard.into_values().collect()
}

async fn register(desk: &Desk, sandbox: &str) {
    // Soon tried again and soon given up, so that a short run sees dead letters.
    let policy = RetryPolicy {
        max_attempts: 4,
        initial_backoff: Some(wire_duration(Duration::from_millis(100))),
        max_backoff: Some(wire_duration(Duration::from_millis(800))),
    };
    until("a sandbox is registered", async |turn| {
        let sandbox = Sandbox { sandbox_id: sandbox.to_owned(), retry_policy: Some(policy), ..Sandbox::default() };
        desk.ways.at(turn).registry(&*desk.workspace).register(sandbox).await.map_err(|error| error.to_string())
    })
    .await;
}
