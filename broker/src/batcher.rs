//! One batcher per shard: everything that waits becomes one command. No timer; while a command is under way the next one
//! gathers. Bounded by bytes: who publishes holds a part of the budget until the answer is there.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use bytes::Bytes;
use futures_util::{StreamExt, stream::FuturesOrdered};
use tandem_raft::{Apply, FIRST_LEVEL, Group, ProposeError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::{
    command::{self, Ack, CommandBuilder, Header, Nack, Outcome, Published, Verb, publish::Exception},
    error::RequestError,
    leader_time::LeaderTime,
    metrics::BatchMetrics,
    rejection::{Reason, Rejection},
};

/// Commands under way at once. Two keep the disk busy while the next one gathers.
const MAX_IN_FLIGHT: usize = 2;
/// Messages in one command at the most; an index in a batch is a u16.
const MAX_COMMAND_MESSAGES: usize = 16_384;
/// What a verb counts for beside what it carries.
const VERB_BYTES: usize = 128;
/// Bytes after which a command is closed.
const MAX_COMMAND_BYTES: usize = 4 << 20;

/// Messages of one request, as records.
pub(crate) struct PublishRecords {
    pub(crate) workspace: Arc<str>,
    pub(crate) count: u32,
    pub(crate) records: Bytes,
}

/// How a request of several messages ended.
pub(crate) type PublishResult = Result<Published, RequestError>;
/// How another request ended.
pub(crate) type VerbResult = Result<Outcome, RequestError>;

/// Who hears how a verb ended. Called once, on the batcher's task; must not block.
pub(crate) type VerbAnswer = Box<dyn FnOnce(VerbResult) + Send>;

enum Request {
    Publish { publish: PublishRecords, answer: oneshot::Sender<PublishResult>, permit: OwnedSemaphorePermit },
    Verb { verb: Verb, bytes: usize, answer: VerbAnswer, permit: Option<OwnedSemaphorePermit> },
}

/// The way into a shard's batcher. Cheap to clone.
#[derive(Clone)]
pub(crate) struct BatcherHandle {
    // Unbounded in itself: publishes are bounded by the budget, acks by the credit of their streams, the rest by the
    // number of requests that the server serves at once.
    queue: mpsc::UnboundedSender<Request>,
    budget: Arc<Semaphore>,
    budget_bytes: usize,
}

impl BatcherHandle {
    /// Publishes when there is room at once, and refuses otherwise: for callers that cannot be made to wait.
    pub(crate) async fn publish_now(&self, publish: PublishRecords) -> PublishResult {
        let permit = Arc::clone(&self.budget)
            .try_acquire_many_owned(self.cost(publish.records.len()))
            .map_err(|_| self.overloaded())?;
        self.enqueue(publish, permit)?.await.map_err(|_| RequestError::Unavailable(ProposeError::Unsettled))?
    }

    /// Publishes as soon as there is room. The future that comes back resolves to the outcome.
    pub(crate) async fn publish(
        &self,
        publish: PublishRecords,
    ) -> Result<oneshot::Receiver<PublishResult>, RequestError> {
        let permit = Arc::clone(&self.budget).acquire_many_owned(self.cost(publish.records.len())).await;
        self.enqueue(publish, permit.map_err(|_| RequestError::Unavailable(ProposeError::Unsettled))?)
    }

    /// Hands in an ack. Never refused: credit bounds how many there can be.
    pub(crate) fn acknowledge(&self, ack: Ack, answer: VerbAnswer) {
        let bytes = VERB_BYTES + ack.ranges.len() * 40 + ack.finished.len() * 24 + ack.parked.len() * 16;
        self.enqueue_verb(Verb::Ack(ack), bytes, answer, None);
    }

    /// Hands in a nack. Never refused, as an ack.
    pub(crate) fn refuse(&self, nack: Nack, answer: VerbAnswer) {
        // What is parked is written with its history, some hundred bytes each.
        let bytes = VERB_BYTES + nack.messages.len() * 256 + nack.finished.len() * 24;
        self.enqueue_verb(Verb::Nack(nack), bytes, answer, None);
    }

    /// Hands in a verb that carries `bytes` of its own and waits; refused when there is no room.
    pub(crate) async fn call(&self, verb: Verb, bytes: usize) -> VerbResult {
        let bytes = VERB_BYTES + bytes;
        let permit =
            Arc::clone(&self.budget).try_acquire_many_owned(self.cost(bytes)).map_err(|_| self.overloaded())?;
        let (sender, receiver) = oneshot::channel();
        // A caller that has gone away needs no answer.
        self.enqueue_verb(verb, bytes, Box::new(move |result| drop(sender.send(result))), Some(permit));
        receiver.await.map_err(|_| RequestError::Unavailable(ProposeError::Unsettled))?
    }

    fn enqueue_verb(&self, verb: Verb, bytes: usize, answer: VerbAnswer, permit: Option<OwnedSemaphorePermit>) {
        let request = Request::Verb { verb, bytes, answer, permit };
        if let Err(mpsc::error::SendError(Request::Verb { answer, .. })) = self.queue.send(request) {
            answer(Err(RequestError::Unavailable(ProposeError::Unsettled)));
        }
    }

    /// What something of this size takes of the budget: at most all of it, so that it can always go through alone.
    fn cost(&self, bytes: usize) -> u32 {
        bytes.min(self.budget_bytes) as u32
    }

    /// Bytes of publishes that wait or are under way.
    pub(crate) fn queued_bytes(&self) -> usize {
        self.budget_bytes - self.budget.available_permits()
    }

    fn enqueue(
        &self,
        publish: PublishRecords,
        permit: OwnedSemaphorePermit,
    ) -> Result<oneshot::Receiver<PublishResult>, RequestError> {
        let (answer, receiver) = oneshot::channel();
        let sent = self.queue.send(Request::Publish { publish, answer, permit });
        sent.map_err(|_| RequestError::Unavailable(ProposeError::Unsettled))?;
        Ok(receiver)
    }

    fn overloaded(&self) -> RequestError {
        let text = format!(
            "{} bytes of messages wait to be committed, as many as may; try again after the delay given",
            self.budget_bytes
        );
        RequestError::Rejected(Rejection::new(Reason::Overloaded, text))
    }
}

/// What a batcher needs to know.
pub(crate) struct BatcherOptions {
    pub(crate) max_queued_bytes: usize,
    /// The limits in force. Its time is set with every command.
    pub(crate) header: Header,
    /// No command is stamped with an earlier time than the one before.
    pub(crate) time: Arc<LeaderTime>,
    pub(crate) metrics: BatchMetrics,
}

/// Starts the batcher of a shard. It ends when the last handle is gone and everything is answered.
pub(crate) fn spawn<A: Apply>(group: Arc<Group<A>>, options: BatcherOptions) -> BatcherHandle {
    let (queue, requests) = mpsc::unbounded_channel();
    let budget = Arc::new(Semaphore::new(options.max_queued_bytes));
    let budget_bytes = options.max_queued_bytes;
    tokio::spawn(run(group, requests, options));
    BatcherHandle { queue, budget, budget_bytes }
}

/// Who waits for which part of a command's outcomes.
struct Waiting {
    /// For each publish item: the requests in it, each with the number of its messages.
    publishes: Vec<Vec<(u32, oneshot::Sender<PublishResult>, OwnedSemaphorePermit)>>,
    /// For each other item, behind the publishes.
    verbs: Vec<(VerbAnswer, Option<OwnedSemaphorePermit>)>,
}

async fn run<A: Apply>(
    group: Arc<Group<A>>,
    mut requests: mpsc::UnboundedReceiver<Request>,
    mut options: BatcherOptions,
) {
    let mut in_flight = FuturesOrdered::new();
    loop {
        tokio::select! {
            biased;
            Some((outcome, waiting)) = in_flight.next(), if !in_flight.is_empty() => settle(outcome, waiting),
            request = requests.recv(), if in_flight.len() < MAX_IN_FLIGHT => {
                let Some(request) = request else { break };
                let gathered = admit(gather(request, &mut requests), |level| group.allows(level));
                if gathered.is_empty() {
                    continue;
                }
                options.header.time_ms = options.time.now_ms();
                let (command, waiting) = build(gathered, &options);
                options.metrics.observe(&command, &waiting.sizes());
                match group.submit(command).await {
                    Ok(pending) => in_flight.push_back(async move { (pending.outcome().await, waiting) }),
                    Err(error) => settle(Err(error), waiting),
                }
            }
        }
    }
    while let Some((outcome, waiting)) = in_flight.next().await {
        settle(outcome, waiting);
    }
}

/// Takes what waits, until there is enough for one command.
fn gather(first: Request, requests: &mut mpsc::UnboundedReceiver<Request>) -> Vec<Request> {
    let mut gathered = Vec::new();
    let (mut messages, mut bytes) = (0, 0);
    let mut next = Some(first);
    while let Some(request) = next {
        let (more_messages, more_bytes) = match &request {
            Request::Publish { publish, .. } => (publish.count as usize, publish.records.len()),
            Request::Verb { bytes, .. } => (1, *bytes),
        };
        messages += more_messages;
        bytes += more_bytes;
        gathered.push(request);
        let enough = messages >= MAX_COMMAND_MESSAGES || bytes >= MAX_COMMAND_BYTES;
        next = if enough { None } else { requests.try_recv().ok() };
    }
    gathered
}

/// Refuses what not every node of the cluster can apply yet, and lets the rest through. Who asks for something is not said to nodes
/// that could not note it: what is asked for goes on.
fn admit(gathered: Vec<Request>, allows: impl Fn(u32) -> Result<(), ProposeError>) -> Vec<Request> {
    let allows = |verb: &Verb| if verb.level() > FIRST_LEVEL { allows(verb.level()) } else { Ok(()) };
    let admitted = gathered.into_iter().filter_map(|request| {
        let (verb, bytes, answer, permit) = match request {
            Request::Verb { verb, bytes, answer, permit } => (verb, bytes, answer, permit),
            publish @ Request::Publish { .. } => return Some(publish),
        };
        let refused = match (allows(&verb), verb) {
            (Ok(()), verb) => return Some(Request::Verb { verb, bytes, answer, permit }),
            (Err(_), Verb::Attributed(attributed)) => match allows(&attributed.verb) {
                Ok(()) => return Some(Request::Verb { verb: *attributed.verb, bytes, answer, permit }),
                Err(error) => error,
            },
            (Err(error), _) => error,
        };
        answer(Err(RequestError::Unavailable(refused)));
        None
    });
    admitted.collect()
}

/// Makes one command of all that was gathered.
fn build(gathered: Vec<Request>, options: &BatcherOptions) -> (Bytes, Waiting) {
    type Part = (Bytes, u32, oneshot::Sender<PublishResult>, OwnedSemaphorePermit);
    let mut by_workspace: Vec<(Arc<str>, Vec<Part>)> = Vec::new();
    let mut places: HashMap<Arc<str>, usize> = HashMap::new();
    let mut verbs = Vec::new();
    let mut bytes = 0;
    for request in gathered {
        match request {
            Request::Publish { publish, answer, permit } => {
                bytes += publish.records.len() + 32;
                let place = *places.entry(Arc::clone(&publish.workspace)).or_insert_with(|| {
                    by_workspace.push((publish.workspace, Vec::new()));
                    by_workspace.len() - 1
                });
                by_workspace[place].1.push((publish.records, publish.count, answer, permit));
            }
            Request::Verb { verb, bytes: more, answer, permit } => {
                bytes += more;
                verbs.push((verb, answer, permit));
            }
        }
    }
    let mut builder = CommandBuilder::new(options.header, bytes);
    let mut waiting = Waiting { publishes: Vec::with_capacity(by_workspace.len()), verbs: Vec::new() };
    for (workspace, parts) in by_workspace {
        let count = parts.iter().map(|(_, count, ..)| count).sum();
        builder.push_records(&workspace, count, parts.iter().map(|(records, ..)| records));
        waiting.publishes.push(parts.into_iter().map(|(_, count, answer, permit)| (count, answer, permit)).collect());
    }
    for (verb, answer, permit) in verbs {
        builder.push(&verb);
        waiting.verbs.push((answer, permit));
    }
    (builder.finish(), waiting)
}

impl Waiting {
    fn sizes(&self) -> (usize, u64) {
        let requests = self.publishes.iter().map(Vec::len).sum::<usize>() + self.verbs.len();
        let messages = self.publishes.iter().flatten().map(|(count, ..)| u64::from(*count)).sum();
        (requests, messages)
    }
}

fn settle(outcome: Result<Bytes, ProposeError>, waiting: Waiting) {
    let outcomes = outcome.map_err(RequestError::Unavailable).and_then(|bytes| {
        let expected = waiting.publishes.len() + waiting.verbs.len();
        match command::decode_outcomes(bytes) {
            Ok(outcomes) if outcomes.len() == expected => Ok(outcomes),
            Ok(outcomes) => Err(RequestError::internal(format!("{} outcomes for {expected} verbs", outcomes.len()))),
            Err(error) => Err(RequestError::internal(error.to_string())),
        }
    });
    match outcomes {
        Ok(outcomes) => {
            let mut outcomes = outcomes.into_iter();
            for requests in waiting.publishes {
                if let Some(Outcome::Publish(result)) = outcomes.next() {
                    answer_publishes(result, requests);
                }
            }
            for ((answer, _permit), outcome) in waiting.verbs.into_iter().zip(outcomes) {
                answer(Ok(outcome));
            }
        }
        Err(error) => {
            for (_, answer, _) in waiting.publishes.into_iter().flatten() {
                drop(answer.send(Err(error.clone())));
            }
            for (answer, _permit) in waiting.verbs {
                answer(Err(error.clone()));
            }
        }
    }
}

/// Cuts the outcome of one publish into the parts of its requests.
fn answer_publishes(
    result: Result<Published, Rejection>,
    requests: Vec<(u32, oneshot::Sender<PublishResult>, OwnedSemaphorePermit)>,
) {
    let published = match result {
        Ok(published) => published,
        Err(rejection) => {
            for (_, answer, _) in requests {
                drop(answer.send(Err(RequestError::Rejected(rejection.clone()))));
            }
            return;
        }
    };
    let mut exceptions: VecDeque<(u32, Exception)> = published.exceptions.into();
    let mut start = 0;
    for (count, answer, _permit) in requests {
        let mut own = Vec::new();
        while let Some((index, exception)) = exceptions.pop_front_if(|(index, _)| *index < start + count) {
            own.push((index - start, exception));
        }
        let part = Published {
            first_sequence: published.first_sequence + u64::from(start),
            time_ms: published.time_ms,
            exceptions: own,
        };
        drop(answer.send(Ok(part)));
        start += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Attributed, Heartbeat, Origin, RevokeKey};

    #[test]
    fn who_asks_is_left_out_where_not_every_node_could_note_it() {
        let asked = |verb| Verb::Attributed(Attributed { origin: Origin::default(), verb: Box::new(verb) });
        let old = Verb::Heartbeat(Heartbeat { workspace: "w".into(), sandbox: "s".into() });
        let new = Verb::RevokeKey(RevokeKey { id: 1, workspace: "w".into() });
        let admitted = |verb: &Verb, level: u32| {
            let too_low = |needed| ProposeError::LevelTooLow { needed, level, who: Vec::new() };
            let allows = move |needed| if needed <= level { Ok(()) } else { Err(too_low(needed)) };
            let (told, answers) = std::sync::mpsc::channel();
            let answer: VerbAnswer = Box::new(move |result| told.send(result.is_err()).unwrap_or_default());
            let request = Request::Verb { verb: verb.clone(), bytes: 0, answer, permit: None };
            let through = admit(vec![request], allows).pop();
            let verb = through.map(|request| match request {
                Request::Verb { verb, .. } => verb,
                Request::Publish { .. } => panic!("it is no publish"),
            });
            (verb, answers.try_recv().unwrap_or(false))
        };
        assert_eq!(admitted(&asked(old.clone()), 1), (Some(old.clone()), false));
        assert_eq!(admitted(&asked(old.clone()), 2), (Some(asked(old)), false));
        assert_eq!(admitted(&asked(new.clone()), 1), (None, true));
        assert_eq!(admitted(&new, 1), (None, true));
        assert_eq!(admitted(&asked(new.clone()), 2), (Some(asked(new)), false));
    }
}
