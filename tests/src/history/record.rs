//! Writes a history while it happens.

use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, mpsc},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use super::event::{Act, Event, Outcome};
use crate::clock;

/// Events on their way to the disk; beyond, clients wait.
const QUEUE: usize = 65_536;

/// How much was done so far.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    /// Operations and things seen, by kind and outcome.
    pub by_kind: BTreeMap<&'static str, u64>,
    /// The longest time in which no publish of a workspace was acknowledged, and when it ended, since the run began.
    pub longest_gap: (Duration, Duration),
}

#[derive(Debug, Default)]
struct Tally {
    counts: Counts,
    /// When the newest publish of each workspace was acknowledged.
    acknowledged: HashMap<String, u64>,
}

/// Takes events of all clients. Clones write to the same history.
#[derive(Debug, Clone)]
pub struct Recorder {
    began: Instant,
    queue: mpsc::SyncSender<(String, Event)>,
    tally: Arc<Mutex<Tally>>,
}

impl Recorder {
    /// Begins a history in a directory, which is made. The thread ends when the last recorder is gone, and says how that went.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub fn begin(directory: &Path) -> io::Result<(Self, JoinHandle<io::Result<()>>)> {
        fs::create_dir_all(directory)?;
        let (queue, events) = mpsc::sync_channel(QUEUE);
        let directory = directory.to_owned();
        let writer = std::thread::Builder::new().name("history".into()).spawn(move || write(directory, events))?;
        Ok((Self { began: clock::now(), queue, tally: Arc::default() }, writer))
    }

    /// Nanoseconds since the history began.
    pub fn time(&self) -> u64 {
        self.began.elapsed().as_nanos() as u64
    }

    /// Notes an operation that was invoked at this time and ended now.
    ///
    /// # Panics
    /// When the history cannot be written any more.
    pub fn note(&self, workspace: &str, client: &str, invoke: u64, act: Act) {
        let done = self.time();
        self.count(workspace, done, &act);
        self.write(workspace, Event { client: client.to_owned(), invoke, done, act });
    }

    pub(super) fn write(&self, workspace: &str, event: Event) {
        self.queue.send((workspace.to_owned(), event)).expect("the history can be written");
    }

    /// Notes something that is just so.
    pub fn found(&self, workspace: &str, client: &str, act: Act) {
        self.note(workspace, client, self.time(), act);
    }

    /// How much was done so far.
    ///
    /// # Panics
    /// When another thread panicked in here.
    pub fn counts(&self) -> Counts {
        self.tally.lock().expect("nobody panics with the lock").counts.clone()
    }

    fn count(&self, workspace: &str, done: u64, act: &Act) {
        let mut tally = self.tally.lock().expect("nobody panics with the lock");
        let (kind, number) = kind(act);
        *tally.counts.by_kind.entry(kind).or_default() += number;
        if let Act::Publish { outcome: Outcome::Ok, .. } = act {
            let before = tally.acknowledged.insert(workspace.to_owned(), done).unwrap_or(done);
            let gap = Duration::from_nanos(done.saturating_sub(before));
            if gap > tally.counts.longest_gap.0 {
                tally.counts.longest_gap = (gap, Duration::from_nanos(done));
            }
        }
    }
}

fn kind(act: &Act) -> (&'static str, u64) {
    match act {
        Act::Publish { outcome: Outcome::Ok, .. } => ("publishes acknowledged", 1),
        Act::Publish { outcome: Outcome::Refused, .. } => ("publishes refused", 1),
        Act::Publish { outcome: Outcome::Unknown, .. } => ("publishes unknown", 1),
        Act::Subscribe { .. } => ("subscriptions", 1),
        Act::Deliver { .. } => ("deliveries", 1),
        Act::Ack { outcome: Outcome::Ok, deliveries, .. } => ("acks confirmed", deliveries.len() as u64),
        Act::Ack { deliveries, .. } => ("acks unknown or refused", deliveries.len() as u64),
        Act::Nack { outcome: Outcome::Ok, .. } => ("nacks confirmed", 1),
        Act::Nack { .. } => ("nacks unknown or refused", 1),
        Act::Read { messages, .. } => ("messages read from the log", messages.len() as u64),
        Act::Log { .. } => ("messages in the log", 1),
        Act::DeadLetter { .. } => ("dead letters", 1),
        Act::Rest { .. } => ("inboxes looked at", 1),
        Act::State { .. } => ("states compared", 1),
    }
}

fn write(directory: PathBuf, events: mpsc::Receiver<(String, Event)>) -> io::Result<()> {
    let mut files: HashMap<String, BufWriter<File>> = HashMap::new();
    for (workspace, event) in events {
        let file = match files.get_mut(&workspace) {
            Some(file) => file,
            None => {
                let file = BufWriter::new(File::create(directory.join(format!("{workspace}.jsonl")))?);
                files.entry(workspace).or_insert(file)
            }
        };
        serde_json::to_writer(&mut *file, &event)?;
        file.write_all(b"\n")?;
    }
    files.into_values().try_for_each(|mut file| file.flush())
}
