//! One thread per node writes the logs of all shards: it takes what has queued, writes once, fsyncs once, and completes
//! every request in order. No timer: while one fsync is under way, the next batch gathers.

use std::{
    sync::{Arc, mpsc},
    thread,
};

use tandem_storage::{Durability, Engine, WriteBatch};

use crate::{clock, error::FatalError, error::FatalSink, metrics::CommitMetrics};

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
    queue: mpsc::Sender<Request>,
}

impl CommitHandle {
    /// Queues a write. Requests become durable, and `done` is called, in the order of these calls. `done` runs on the
    /// commit thread and must not block.
    pub(crate) fn submit(&self, writes: WriteBatch, durability: Durability, done: Done) {
        if let Err(mpsc::SendError(request)) = self.queue.send(Request { writes, durability, done }) {
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
    Ok((CommitHandle { queue }, thread))
}

fn run(requests: &mpsc::Receiver<Request>, engine: &dyn Engine, metrics: &CommitMetrics, fatal: &FatalSink) {
    let mut waiting: Vec<Done> = Vec::new();
    while let Ok(first) = requests.recv() {
        let mut writes = first.writes;
        let mut durability = first.durability;
        waiting.push(first.done);
        while writes.size_bytes() < MAX_BATCH_BYTES {
            let Ok(mut next) = requests.try_recv() else { break };
            writes.append(&mut next.writes);
            if next.durability == Durability::Synced {
                durability = Durability::Synced;
            }
            waiting.push(next.done);
        }
        let result = match fatal.get() {
            Some(error) => Err(error),
            None => commit(engine, writes, durability, waiting.len(), metrics),
        };
        if let Err(error) = &result {
            fatal.report(error.clone());
        }
        for done in waiting.drain(..) {
            done(result.clone());
        }
    }
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
