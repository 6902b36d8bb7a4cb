//! One thread per node writes the logs of all shards: it takes what has queued, writes once, fsyncs once, and completes
//! every request in order. No timer: while one fsync is under way, the next batch gathers. In a simulation a task does the
//! same, in simulated time.

use std::{
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use tandem_storage::{Durability, Engine, WriteBatch};
use tokio::{sync::mpsc as tasks, task::JoinHandle};

use crate::{clock, error::FatalError, error::FatalSink, metrics::CommitMetrics, random, simulation::SlowDisk};

/// The most bytes that one fsync covers, so that a burst does not make early requests wait for all of it.
const MAX_BATCH_BYTES: usize = 16 << 20;

/// Called once the write is durable, or has failed for good.
pub(crate) type Done = Box<dyn FnOnce(Result<(), FatalError>) + Send>;

struct Request {
    writes: WriteBatch,
    durability: Durability,
    done: Done,
}

/// The way to the commit thread. Cheap to clone; the thread ends when the last handle is gone and the queue is empty.
///
/// The queue needs no limit of its own: each shard has a bounded number of proposals in flight, and votes wait for their
/// answer.
#[derive(Clone)]
pub(crate) struct CommitHandle {
    queue: Queue,
}

#[derive(Clone)]
enum Queue {
    ToThread(mpsc::Sender<Request>),
    ToTask(tasks::UnboundedSender<Request>),
}

impl CommitHandle {
    /// Queues a write. Requests become durable, and `done` is called, in the order of these calls. `done` runs on the
    /// commit thread and must not block.
    pub(crate) fn submit(&self, writes: WriteBatch, durability: Durability, done: Done) {
        let request = Request { writes, durability, done };
        let sent = match &self.queue {
            Queue::ToThread(queue) => queue.send(request).map_err(|refused| refused.0),
            Queue::ToTask(queue) => queue.send(request).map_err(|refused| refused.0),
        };
        if let Err(request) = sent {
            (request.done)(Err(stopped()));
        }
    }
}

fn stopped() -> FatalError {
    FatalError::Raft { shard: 0, detail: "the commit thread has ended".into() }
}

/// Starts the thread. After a failed write it answers every later request with the first error: what is durable is
/// unknown, and a second fsync after a failed one proves nothing.
pub(crate) fn spawn(
    engine: Arc<dyn Engine>,
    metrics: CommitMetrics,
    fatal: FatalSink,
) -> std::io::Result<(CommitHandle, thread::JoinHandle<()>)> {
    let (queue, requests) = mpsc::channel();
    let thread = thread::Builder::new()
        .name("commit".into())
        .spawn(move || run(&requests, engine.as_ref(), &metrics, &fatal))?;
    Ok((CommitHandle { queue: Queue::ToThread(queue) }, thread))
}

/// The same as a task of this runtime, on a disk that takes its time.
pub(crate) fn spawn_task(engine: Arc<dyn Engine>, fatal: FatalSink, disk: SlowDisk) -> (CommitHandle, JoinHandle<()>) {
    let (queue, requests) = tasks::unbounded_channel();
    let task = tokio::spawn(run_in_simulated_time(requests, engine, fatal, disk));
    (CommitHandle { queue: Queue::ToTask(queue) }, task)
}

/// What one fsync covers.
struct Gathered {
    writes: WriteBatch,
    durability: Durability,
    waiting: Vec<Done>,
}

impl Gathered {
    fn new(first: Request, mut next: impl FnMut() -> Option<Request>) -> Self {
        let mut gathered = Self { writes: first.writes, durability: first.durability, waiting: vec![first.done] };
        while gathered.writes.size_bytes() < MAX_BATCH_BYTES {
            let Some(mut request) = next() else { break };
            gathered.writes.append(&mut request.writes);
            if request.durability == Durability::Synced {
                gathered.durability = Durability::Synced;
            }
            gathered.waiting.push(request.done);
        }
        gathered
    }
}

fn answer(waiting: Vec<Done>, result: &Result<(), FatalError>, fatal: &FatalSink) {
    if let Err(error) = result {
        fatal.report(error.clone());
    }
    for done in waiting {
        done(result.clone());
    }
}

fn run(requests: &mpsc::Receiver<Request>, engine: &dyn Engine, metrics: &CommitMetrics, fatal: &FatalSink) {
    while let Ok(first) = requests.recv() {
        let Gathered { writes, durability, waiting } = Gathered::new(first, || requests.try_recv().ok());
        let result = match fatal.get() {
            Some(error) => Err(error),
            None => commit(engine, writes, durability, waiting.len(), metrics),
        };
        answer(waiting, &result, fatal);
    }
}

async fn run_in_simulated_time(
    mut requests: tasks::UnboundedReceiver<Request>,
    engine: Arc<dyn Engine>,
    fatal: FatalSink,
    disk: SlowDisk,
) {
    while let Some(first) = requests.recv().await {
        let Gathered { writes, durability, waiting } = Gathered::new(first, || requests.try_recv().ok());
        let result = match fatal.get() {
            Some(error) => Err(error),
            None => commit_slowly(engine.as_ref(), writes, durability, disk).await,
        };
        answer(waiting, &result, &fatal);
    }
}

/// In two steps, so that the power may fail between them.
async fn commit_slowly(
    engine: &dyn Engine,
    writes: WriteBatch,
    durability: Durability,
    disk: SlowDisk,
) -> Result<(), FatalError> {
    engine.write(writes, Durability::Deferred)?;
    if durability == Durability::Synced {
        tokio::time::sleep(Duration::from_micros(random::below(disk.longest_sync_us.max(1)))).await;
        engine.flush()?;
    }
    Ok(())
}

fn commit(
    engine: &dyn Engine,
    writes: WriteBatch,
    durability: Durability,
    requests: usize,
    metrics: &CommitMetrics,
) -> Result<(), FatalError> {
    let bytes = writes.size_bytes();
    let started = clock::now();
    engine.write(writes, durability)?;
    metrics.observe(requests, bytes, started.elapsed());
    Ok(())
}
