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
pub(crate) const SHARDS: u32 = 4;
/// How long all of them may take, after the faults, until they have finished.
const FINISH_TIMEOUT: Duration = Duration::from_secs(90);
/// How long who has not finished may take until it has given up: longer than any one call.
const GIVE_UP_TIMEOUT: Duration = Duration::from_secs(10);
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
    /// Nor is that finished any more: what has no outcome is noted as such.
    give_up: Arc<AtomicBool>,
}

impl Desk {
    pub(crate) fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    fn gives_up(&self) -> bool {
        self.give_up.load(Ordering::Relaxed)
    }

    fn for_client(&mut self) -> Self {
        let random = self.random.fork();
        Self { ways: self.ways.anywhere(&mut self.random), random, ..self.clone() }
    }
}

/// A client at work, and what it is called.
struct Client {
    name: String,
    task: JoinHandle<()>,
}

/// Clients at work.
pub(crate) struct Workload {
    pub(crate) desks: Vec<Desk>,
    publishers: Vec<Client>,
    others: Vec<Client>,
    stop_publishers: Arc<AtomicBool>,
    stop_others: Arc<AtomicBool>,
    give_up: Arc<AtomicBool>,
}

impl Workload {
    /// Makes the workspaces and sets everybody to work.
    pub(crate) async fn begin(arena: &Arena, recorder: &Recorder, random: &mut Random) -> Self {
        let ways = Ways::to(arena);
        let (stop_publishers, stop_others) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let mut workload = Self {
            desks: Vec::new(),
            publishers: Vec::new(),
            others: Vec::new(),
            stop_publishers,
            stop_others,
            give_up: Arc::default(),
        };
        for workspace in make_workspaces(&ways).await {
            let mut desk = Desk {
                workspace: workspace.into(),
                ways: ways.clone(),
                recorder: recorder.clone(),
                random: random.fork(),
                stop: Arc::clone(&workload.stop_others),
                give_up: Arc::clone(&workload.give_up),
            };
            let others = &mut workload.others;
            for sandbox in SANDBOXES {
                register(&desk, sandbox).await;
                let task = subscriber::work(desk.for_client(), sandbox, 0);
                others.push(Client::begin(&desk, &format!("the subscriber of {sandbox}"), task));
            }
            let second = subscriber::work(desk.for_client(), "cleo", 1);
            others.push(Client::begin(&desk, "the second subscriber of cleo", second));
            let follower = reader::follow(desk.for_client());
            others.push(Client::begin(&desk, "who follows the log", follower));
            let looks = reader::look_at_pages(desk.for_client());
            others.push(Client::begin(&desk, "who looks at pages of the log", looks));
            let publisher = Desk { stop: Arc::clone(&workload.stop_publishers), ..desk.clone() };
            let stream = stream::publish(publisher.clone().for_client());
            workload.publishers.push(Client::begin(&desk, "who publishes over a stream", stream));
            let one_by_one = one_by_one::publish(publisher.clone().for_client());
            workload.publishers.push(Client::begin(&desk, "who publishes one by one", one_by_one));
            workload.desks.push(desk);
        }
        workload
    }

    /// Lets everybody finish: publishers once every message has its outcome, then the others. Who does not is complained of, and
    /// the rest of the run goes on: what is known by then is judged.
    pub(crate) async fn end(self, arena: &Arena) -> Vec<Desk> {
        self.stop_publishers.store(true, Ordering::Relaxed);
        finish(arena, self.publishers, &self.give_up).await;
        self.stop_others.store(true, Ordering::Relaxed);
        finish(arena, self.others, &self.give_up).await;
        self.desks
    }
}

impl Client {
    fn begin(desk: &Desk, name: &str, work: impl Future<Output = ()> + Send + 'static) -> Self {
        Self { name: format!("{name} of {}", desk.workspace), task: tokio::spawn(work) }
    }
}

async fn finish(arena: &Arena, clients: Vec<Client>, give_up: &AtomicBool) {
    let deadline = now() + FINISH_TIMEOUT;
    let mut late = Vec::new();
    for mut client in clients {
        match tokio::time::timeout_at(deadline.into(), &mut client.task).await {
            Ok(finished) => finished.unwrap(),
            Err(_) => late.push(client),
        }
    }
    if late.is_empty() {
        return;
    }
    // What stands in the log must stand in the history, too: who is only aborted has not noted what was on its way.
    give_up.store(true, Ordering::Relaxed);
    let deadline = now() + GIVE_UP_TIMEOUT;
    for Client { name, mut task } in late {
        arena.complain(format!("{name} has not finished within {FINISH_TIMEOUT:?} after all faults were healed"));
        match tokio::time::timeout_at(deadline.into(), &mut task).await {
            Ok(finished) => finished.unwrap(),
            Err(_) => {
                arena.complain(format!("{name} has not given up either: what it did last is missing from the history"));
                // It holds a recorder.
                task.abort();
                task.await.ok();
            }
        }
    }
}

/// Waits for something that needs the cluster, and without which there is no run.
async fn until<T>(what: &str, ask: impl AsyncFnMut(usize) -> Result<T, String>) -> T {
    within(Duration::from_secs(60), what, ask).await.unwrap_or_else(|why| panic!("{why}"))
}

/// Asks again and again, each time with the number of the try; the last error when nothing has come of it.
pub(crate) async fn within<T>(
    patience: Duration,
    what: &str,
    mut ask: impl AsyncFnMut(usize) -> Result<T, String>,
) -> Result<T, String> {
    let (started, mut turn) = (now(), 0);
    loop {
        match ask(turn).await {
            Ok(answer) => return Ok(answer),
            Err(why) if started.elapsed() > patience => return Err(format!("not within {patience:?}: {what}: {why}")),
            Err(_) => {}
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
