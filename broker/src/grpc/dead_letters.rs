//! Dead letters: reads, and the two sweeps that put them back or remove them.

use std::time::{Duration, Instant};

use futures_util::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use tandem_proto::raw::messaging::v1::{
    DeadLetter, DeadLetterFilter, FailedAttempt, GetDeadLetterRequest, GetDeadLetterResponse, ListDeadLettersRequest,
    ListDeadLettersResponse, PurgeDeadLettersRequest, PurgeDeadLettersResponse, RedriveDeadLettersRequest,
    RedriveDeadLettersResponse, dead_letter_service_server::DeadLetterService,
};
use tonic::{Request, Response, Status};

use super::{
    Edge, StreamPlace,
    time::{self, timestamp},
};
use crate::{
    auth::Caller,
    clock,
    command::{Outcome, Purge, Redrive, Verb},
    delivery::subscription::encode_message,
    error::RequestError,
    field,
    query::{
        QueryError,
        dead_letters::{DeadFilter, DeadPage, Found, Position},
    },
    rejection::{Reason, Rejection},
    sealing::Sealer,
    shard::Shard,
};

/// Dead letters that one command moves. Live traffic waits while it is applied, at some 10 us each, so it is well below a
/// millisecond's work.
const MAX_MOVED: u32 = 64;
/// Bytes of a dead letter in such a command.
const MOVED_BYTES: usize = 12;
/// How often a sweep answers.
const ANSWER_EVERY: Duration = Duration::from_millis(250);
/// How long a sweep stands back when live traffic leaves no room.
const STAND_BACK: Duration = Duration::from_millis(20);

#[tonic::async_trait]
impl DeadLetterService for Edge {
    async fn list_dead_letters(
        &self,
        request: Request<ListDeadLettersRequest>,
    ) -> Result<Response<ListDeadLettersResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let name = caller.workspace(&request.workspace_id)?;
        let filter = filter(request.filter)?;
        let limit = field::page_size(request.page_size)?;
        let from = if request.page_token.is_empty() { (0, 0) } else { page_token(&request.page_token)? };
        let shard = self.shards.of(name);
        shard.group.read_barrier().await.map_err(RequestError::from)?;
        let number = shard.reader.workspace(name)?.number;
        let page = shard.reader.dead_letters(number, from, &filter, limit)?;
        Ok(Response::new(ListDeadLettersResponse {
            dead_letters: page
                .found
                .into_iter()
                .map(|found| on_wire(shard.delivery.sealer(), found, name))
                .collect::<Result<_, _>>()?,
            next_page_token: page.next.map(|(sandbox, sequence)| format!("d{sandbox}-{sequence}")).unwrap_or_default(),
        }))
    }

    async fn get_dead_letter(
        &self,
        request: Request<GetDeadLetterRequest>,
    ) -> Result<Response<GetDeadLetterResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let name = caller.workspace(&request.workspace_id)?;
        let sandbox = field::id("sandbox_id", &request.sandbox_id)?;
        if request.sequence == 0 {
            return Err(Rejection::field("sequence", "sequence is 0; sequences begin with 1").into());
        }
        let shard = self.shards.of(name);
        shard.group.read_barrier().await.map_err(RequestError::from)?;
        let number = shard.reader.workspace(name)?.number;
        let Some(found) = find(shard, number, sandbox, request.sequence)? else {
            let text = format!("sandbox {sandbox:?} has no dead letter with the sequence {}", request.sequence);
            return Err(Rejection::new(Reason::UnknownDeadLetter, text).into());
        };
        Ok(Response::new(GetDeadLetterResponse { dead_letter: Some(on_wire(shard.delivery.sealer(), found, name)?) }))
    }

    type RedriveDeadLettersStream = BoxStream<'static, Result<RedriveDeadLettersResponse, Status>>;

    async fn redrive_dead_letters(
        &self,
        request: Request<RedriveDeadLettersRequest>,
    ) -> Result<Response<Self::RedriveDeadLettersStream>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let to_sandbox = request.to_sandbox_id;
        if !to_sandbox.is_empty() {
            field::id("to_sandbox_id", &to_sandbox)?;
        }
        let task = Task::Redrive { to_sandbox };
        let sweep =
            Sweep::begin(self, &caller, request.workspace_id, request.filter, task, request.max_per_second).await?;
        let answers = sweep.run().map(|progress| {
            let Progress { moved, skipped, done } = progress?;
            Ok(RedriveDeadLettersResponse { redriven: moved, skipped, done })
        });
        Ok(Response::new(answers.boxed()))
    }

    type PurgeDeadLettersStream = BoxStream<'static, Result<PurgeDeadLettersResponse, Status>>;

    async fn purge_dead_letters(
        &self,
        request: Request<PurgeDeadLettersRequest>,
    ) -> Result<Response<Self::PurgeDeadLettersStream>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let sweep = Sweep::begin(self, &caller, request.workspace_id, request.filter, Task::Purge, 0).await?;
        let answers = sweep.run().map(|progress| {
            let Progress { moved, done, .. } = progress?;
            Ok(PurgeDeadLettersResponse { purged: moved, done })
        });
        Ok(Response::new(answers.boxed()))
    }
}

/// What a sweep does with what it finds.
enum Task {
    Redrive { to_sandbox: String },
    Purge,
}

/// How far a sweep is.
#[derive(Clone, Copy, Default)]
struct Progress {
    moved: u64,
    skipped: u64,
    done: bool,
}

/// A redrive or a purge under way. It goes through the dead letters once, in their order, and ends with the stream.
struct Sweep {
    edge: Edge,
    caller: Caller,
    place: StreamPlace,
    name: String,
    /// The number of the workspace.
    workspace: u32,
    filter: DeadFilter,
    task: Task,
    /// 0 for no limit.
    max_per_second: u32,
    /// What lies before was looked at.
    from: Position,
    /// Not before this time goes the next command out.
    not_before: Instant,
    progress: Progress,
}

impl Sweep {
    async fn begin(
        edge: &Edge,
        caller: &Caller,
        name: String,
        wanted: Option<DeadLetterFilter>,
        task: Task,
        max_per_second: u32,
    ) -> Result<Self, RequestError> {
        caller.workspace(&name)?;
        let mut filter = filter(wanted)?;
        let shard = edge.shards.of(&name);
        shard.group.read_barrier().await?;
        let workspace = shard.reader.workspace(&name)?.number;
        if let Task::Redrive { to_sandbox } = &task
            && !to_sandbox.is_empty()
        {
            shard.reader.sandbox(workspace, to_sandbox)?;
        }
        // What dies from now on, perhaps for the second time, is left alone: else the sweep might never end.
        let now_ms = shard.reader.time_ms().map_err(QueryError::from)?;
        filter.end_ms = Some(filter.end_ms.unwrap_or(u64::MAX).min(now_ms.saturating_add(1)));
        Ok(Self {
            edge: edge.clone(),
            caller: caller.clone(),
            place: edge.take_stream_place_of(&name)?,
            name,
            workspace,
            filter,
            task,
            max_per_second,
            from: (0, 0),
            not_before: clock::now(),
            progress: Progress::default(),
        })
    }

    fn run(self) -> BoxStream<'static, Result<Progress, Status>> {
        let answers = stream::try_unfold(Some(self), |sweep| async move {
            let Some(mut sweep) = sweep else { return Ok(None) };
            let edge = sweep.edge.clone();
            let progress = tokio::select! {
                () = edge.stopped() => return Err(super::status::shutting_down()),
                progress = sweep.next() => progress?,
            };
            Ok(Some((progress, (!progress.done).then_some(sweep))))
        });
        answers.boxed()
    }

    /// Works until it is time to answer, or until the end.
    async fn next(&mut self) -> Result<Progress, RequestError> {
        let _held = &self.place;
        let answer = clock::now() + ANSWER_EVERY;
        while !self.progress.done {
            let wait = self.not_before.min(answer).saturating_duration_since(clock::now());
            if !wait.is_zero() {
                tokio::time::sleep(wait).await;
            }
            if clock::now() >= answer {
                break;
            }
            if clock::now() >= self.not_before {
                self.advance().await?;
                // Pages without a match are read without waiting for anything.
                tokio::task::yield_now().await;
            }
        }
        Ok(self.progress)
    }

    /// Looks at one page, and moves what it holds in one command.
    async fn advance(&mut self) -> Result<(), RequestError> {
        let shard = self.edge.shards.of(&self.name);
        // A slow pace goes in small steps, several between two answers.
        let limit = if self.max_per_second == 0 { MAX_MOVED } else { (self.max_per_second / 10).clamp(1, MAX_MOVED) };
        let page = shard.reader.dead_letters(self.workspace, self.from, &self.filter, limit as usize)?;
        if !page.found.is_empty() {
            let (verb, bytes) = self.verb(&page);
            let started = clock::now();
            let outcome = match shard.batcher.call(self.caller.asks(verb), bytes).await {
                Err(RequestError::Rejected(rejection)) if rejection.reason == Reason::Overloaded => {
                    // The page is read again then.
                    self.not_before = clock::now() + STAND_BACK;
                    return Ok(());
                }
                outcome => outcome?,
            };
            let (moved, skipped) = match outcome {
                Outcome::Redrive(result) => result.map(|redriven| (redriven.redriven, redriven.skipped))?,
                Outcome::Purge(result) => (result?.purged, 0),
                other => return Err(RequestError::internal(format!("a sweep came to {other:?}"))),
            };
            self.progress.moved += moved;
            self.progress.skipped += skipped;
            if self.max_per_second > 0 {
                let moved = page.found.len() as f64;
                self.not_before = started + Duration::from_secs_f64(moved / f64::from(self.max_per_second));
            }
        }
        match page.next {
            Some(next) => self.from = next,
            None => self.progress.done = true,
        }
        Ok(())
    }

    /// The command for a page, and what it counts for: a redrive writes the messages again.
    fn verb(&self, page: &DeadPage) -> (Verb, usize) {
        let dead_letters: Vec<Position> = page.found.iter().map(|found| found.position).collect();
        let (workspace, bytes) = (self.name.clone(), dead_letters.len() * MOVED_BYTES);
        match &self.task {
            Task::Redrive { to_sandbox } => {
                let messages: usize = page.found.iter().map(|found| found.letter.message.len()).sum();
                (Verb::Redrive(Redrive { workspace, dead_letters, to_sandbox: to_sandbox.clone() }), bytes + messages)
            }
            Task::Purge => (Verb::Purge(Purge { workspace, dead_letters }), bytes),
        }
    }
}

/// One dead letter, also of a sandbox that is gone or was registered anew.
fn find(shard: &Shard, workspace: u32, sandbox: &str, sequence: u64) -> Result<Option<Found>, QueryError> {
    match shard.reader.sandbox(workspace, sandbox) {
        Ok(known) => {
            if let Some(found) = shard.reader.dead_letter(workspace, (known.number, sequence))? {
                return Ok(Some(found));
            }
        }
        Err(QueryError::Rejected(_)) => {}
        Err(error) => return Err(error),
    }
    let filter = DeadFilter { sandbox: sandbox.to_owned(), sequence, ..DeadFilter::default() };
    let mut from = Some((0, 0));
    while let Some(position) = from {
        let mut page = shard.reader.dead_letters(workspace, position, &filter, 1)?;
        if let Some(found) = page.found.pop() {
            return Ok(Some(found));
        }
        from = page.next;
    }
    Ok(None)
}

fn filter(wanted: Option<DeadLetterFilter>) -> Result<DeadFilter, Rejection> {
    let wanted = wanted.unwrap_or_default();
    if wanted.sequence > 0 && wanted.sandbox_id.is_empty() {
        let text = format!("sequence {} is set without sandbox_id; say whose dead letter it is", wanted.sequence);
        return Err(Rejection::field("filter.sandbox_id", text));
    }
    Ok(DeadFilter {
        sandbox: field::name("filter.sandbox_id", &wanted.sandbox_id)?.to_owned(),
        reason: number("filter.reason", wanted.reason)?,
        from: field::name("filter.from_sandbox_id", &wanted.from_sandbox_id)?.to_owned(),
        correlation_id: field::name("filter.correlation_id", &wanted.correlation_id)?.to_owned(),
        message_type: number("filter.type", wanted.r#type)?,
        start_ms: time::unix_ms("filter.start_time", wanted.start_time)?,
        end_ms: time::unix_ms("filter.end_time", wanted.end_time)?,
        sequence: wanted.sequence,
    })
}

/// A reason or a type of message: both have the numbers 1 to 4, and 0 for all.
fn number(field: &'static str, value: i32) -> Result<u8, Rejection> {
    match value {
        0..=4 => Ok(value as u8),
        _ => Err(Rejection::field(field, format!("{field} {value} does not exist; it must be 0 to 4"))),
    }
}

fn page_token(token: &str) -> Result<Position, Rejection> {
    let parts = token.strip_prefix('d').and_then(|position| position.split_once('-'));
    let position = parts.and_then(|(sandbox, sequence)| Some((sandbox.parse().ok()?, sequence.parse().ok()?)));
    position.ok_or_else(|| {
        let text = format!("page_token {:?} is not from a listing of dead letters", field::shown(token));
        Rejection { reason: Reason::InvalidPageToken, text, field: "page_token".into(), retry_ms: 0 }
    })
}

fn on_wire(sealer: &Sealer, found: Found, workspace: &str) -> Result<DeadLetter, Rejection> {
    let attempts = found.letter.history.iter().map(|failed| FailedAttempt {
        attempt: failed.attempt,
        time: Some(timestamp(failed.time_ms)),
        error: failed.error as i32,
        text: String::from_utf8_lossy(&failed.text).into_owned(),
    });
    Ok(DeadLetter {
        message: encode_message(sealer, &found.message, workspace)?,
        reason: found.letter.reason as i32,
        reason_text: String::from_utf8_lossy(&found.letter.text).into_owned(),
        dead_time: Some(timestamp(found.letter.time_ms)),
        attempts: attempts.collect(),
        sandbox_id: found.letter.sandbox,
        chain: found.letter.chain,
    })
}
