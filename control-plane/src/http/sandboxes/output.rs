//! What comes out of sandboxes: logs, numbers, and the output of commands.

use std::{collections::BTreeMap, convert::Infallible, time::Duration};

use axum::{
    Extension, Json as JsonAnswer,
    extract::State,
    response::{
        IntoResponse, Response,
        sse::{Event as SseEvent, KeepAlive, Sse},
    },
};
use futures_util::{Stream, StreamExt as _, TryStreamExt as _, stream};
use serde::{Deserialize, Serialize};
use tokio::sync::OwnedSemaphorePermit;
use utoipa::{IntoParams, ToSchema};

use super::super::{
    Edge,
    body::{Json, Path, Query},
    problem::{Problem, ProblemDocument},
    time,
};
use crate::{
    error::Failure,
    sandbox::{Exec, LogLine, LogQuery, Told},
    service::caller::Caller,
};

const DEFAULT_TAIL: u32 = 100;
const MAX_TAIL: u32 = 10_000;
/// So that nobody in between takes a silent stream for a dead one.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
const MAX_WORDS: usize = 256;
const MAX_COMMAND_BYTES: usize = 128 << 10;
/// Bytes of output that are answered, of each kind.
const MAX_OUTPUT_BYTES: usize = 256 << 10;
/// How long a command may take, in seconds: no longer than any other request.
const MAX_EXEC_SECONDS: u64 = 25;

/// Which lines are wanted.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Lines {
    /// The last ones: 1 to 10,000.
    #[param(minimum = 1, maximum = 10_000, default = 100)]
    tail: Option<u32>,
    /// From this time on. RFC 3339.
    #[param(format = DateTime)]
    since: Option<String>,
    /// Also what it prints from now on, as server-sent events.
    #[serde(default)]
    follow: bool,
}

/// A line that a sandbox has printed.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ShownLine {
    /// RFC 3339.
    #[schema(format = DateTime)]
    time: String,
    /// `stdout` or `stderr`.
    stream: &'static str,
    text: String,
}

impl From<LogLine> for ShownLine {
    fn from(line: LogLine) -> Self {
        Self { time: line.time, stream: line.stream, text: line.text }
    }
}

/// What a sandbox has printed.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LineList {
    lines: Vec<ShownLine>,
}

/// What a sandbox has printed; the newest 10 MiB are kept.
#[utoipa::path(get, path = "/sandboxes/{id}/logs", operation_id = "get_sandbox_logs", tag = "sandboxes",
    params(("id" = String, Path, description = "Its id"), Lines), responses(
    (status = 200, description = "Lines; with `follow` a stream of them", content((LineList = "application/json"), (String = "text/event-stream"))),
    (status = "default", description = "Why not", body = ProblemDocument, content_type = "application/problem+json"),
))]
pub(crate) async fn logs(
    State(edge): State<Edge>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    Query(wanted): Query<Lines>,
) -> Result<Response, Problem> {
    let tail = wanted.tail.unwrap_or(DEFAULT_TAIL);
    if !(1..=MAX_TAIL).contains(&tail) {
        return Err(Failure::field("tail", format!("{tail} is not 1 to {MAX_TAIL}")).into());
    }
    let since_s = time::read("since", wanted.since.as_deref())?.map(|since| {
        let since = since.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        i32::try_from(since.as_secs()).unwrap_or(i32::MAX)
    });
    let query = LogQuery { tail: Some(tail), since_s, follow: wanted.follow };
    if wanted.follow {
        let place = edge.place()?;
        let lines = edge.sandboxes.logs(&caller, &id, &query).await?;
        let mut stopping = edge.stopping.clone();
        let stopped = async move { drop(stopping.wait_for(|stopping| *stopping).await) };
        let lines = as_it_comes(lines, place).take_until(Box::pin(stopped));
        return Ok(Sse::new(lines).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response());
    }
    let lines = edge.sandboxes.logs(&caller, &id, &query).await?;
    let lines = lines.map_ok(ShownLine::from).take(MAX_TAIL as usize).try_collect().await.map_err(Failure::from)?;
    Ok(JsonAnswer(LineList { lines }).into_response())
}

/// Ends when the sandbox does; what breaks off ends with an event `problem`, which says why.
fn as_it_comes(lines: Told<LogLine>, place: OwnedSemaphorePermit) -> impl Stream<Item = Result<SseEvent, Infallible>> {
    stream::unfold(Some((lines, place)), |lines| async move {
        let (mut lines, place) = lines?;
        let (said, left) = match lines.next().await? {
            Ok(line) => {
                let said = SseEvent::default().event("line").json_data(ShownLine::from(line));
                (said, Some((lines, place)))
            }
            Err(error) => {
                let failure = Failure::from(error);
                let why = serde_json::json!({ "code": failure.code(), "detail": failure.to_string() });
                (SseEvent::default().event("problem").json_data(why), None)
            }
        };
        // What is made of texts can be written.
        Some((Ok(said.unwrap_or_default()), left))
    })
}

/// What a sandbox takes.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SandboxStats {
    /// Since its start, in seconds of one processor.
    cpu_seconds: f64,
    memory_bytes: u64,
    memory_limit_bytes: u64,
    /// Processes and threads.
    pids: u64,
    received_bytes: u64,
    sent_bytes: u64,
    /// What is in `/work`; left out where it cannot be counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    disk_bytes: Option<u64>,
}

/// What a sandbox takes that runs.
#[utoipa::path(get, path = "/sandboxes/{id}/stats", operation_id = "get_sandbox_stats", tag = "sandboxes",
    params(("id" = String, Path, description = "Its id")), responses(
    (status = 200, description = "What it takes", body = SandboxStats),
    (status = "default", description = "Why not", body = ProblemDocument, content_type = "application/problem+json"),
))]
pub(crate) async fn stats(
    State(edge): State<Edge>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<JsonAnswer<SandboxStats>, Problem> {
    let (usage, disk_bytes) = edge.sandboxes.stats(&caller, &id).await?;
    Ok(JsonAnswer(SandboxStats {
        cpu_seconds: Duration::from_nanos(usage.cpu_ns).as_secs_f64(),
        memory_bytes: usage.memory_bytes,
        memory_limit_bytes: usage.memory_limit_bytes,
        pids: usage.pids,
        received_bytes: usage.received_bytes,
        sent_bytes: usage.sent_bytes,
        disk_bytes,
    }))
}

/// A command for a sandbox.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExecCommand {
    /// The program and its arguments.
    #[schema(min_items = 1, max_items = 256)]
    command: Vec<String>,
    /// Beside those of the sandbox.
    #[serde(default)]
    environment: BTreeMap<String, String>,
    /// How long to wait for its end: 1 to 25; then it runs on.
    #[serde(default = "ten")]
    #[schema(minimum = 1, maximum = 25, default = 10)]
    timeout_seconds: u64,
}

fn ten() -> u64 {
    10
}

/// What came of a command.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ExecResult {
    /// Left out: it takes longer, and runs on.
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<i64>,
    /// As text; what is none is replaced.
    stdout: String,
    /// As text; what is none is replaced.
    stderr: String,
    /// There was more than 256 KiB of one of them.
    truncated: bool,
}

/// Runs a command in a sandbox that runs.
#[utoipa::path(post, path = "/sandboxes/{id}/exec", operation_id = "exec_in_sandbox", tag = "sandboxes",
    params(("id" = String, Path, description = "Its id")), request_body = ExecCommand, responses(
    (status = 200, description = "What came of it", body = ExecResult),
    (status = "default", description = "Why not", body = ProblemDocument, content_type = "application/problem+json"),
))]
pub(crate) async fn exec(
    State(edge): State<Edge>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    Json(body): Json<ExecCommand>,
) -> Result<JsonAnswer<ExecResult>, Problem> {
    let bytes = body.command.iter().map(String::len).sum::<usize>();
    let fits = (1..=MAX_WORDS).contains(&body.command.len())
        && bytes <= MAX_COMMAND_BYTES
        && !body.command[0].is_empty()
        && !body.command.iter().any(|word| word.contains('\0'));
    if !fits {
        let text = format!("it has 1 to {MAX_WORDS} words of {MAX_COMMAND_BYTES} bytes in all, the first not empty");
        return Err(Failure::field("command", text).into());
    }
    if !(1..=MAX_EXEC_SECONDS).contains(&body.timeout_seconds) {
        let text = format!("{} is not 1 to {MAX_EXEC_SECONDS}", body.timeout_seconds);
        return Err(Failure::field("timeout_seconds", text).into());
    }
    let plain = |name: &str| !name.is_empty() && !name.contains(['=', '\0']);
    if let Some((name, _)) = body.environment.iter().find(|(name, value)| !plain(name) || value.contains('\0')) {
        return Err(Failure::field(&format!("environment.{name}"), "no name has =, and neither part a NUL").into());
    }
    let wanted = Exec {
        command: body.command,
        environment: body.environment.into_iter().collect(),
        timeout: Duration::from_secs(body.timeout_seconds),
        most: MAX_OUTPUT_BYTES,
    };
    let executed = edge.sandboxes.exec(&caller, &id, wanted).await?;
    Ok(JsonAnswer(ExecResult {
        exit_code: executed.exit_code,
        stdout: String::from_utf8_lossy(&executed.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&executed.stderr).into_owned(),
        truncated: executed.truncated,
    }))
}
