//! What is to be done with a sandbox: from what is wanted and what is, without doing anything.

use super::super::sandbox::{Document, RestartCondition, Wanted};
use crate::sandbox::Doing;

/// States of sandboxes.
pub(crate) const CREATING: &str = "creating";
pub(crate) const STARTING: &str = "starting";
pub(crate) const RUNNING: &str = "running";
pub(crate) const RESTARTING: &str = "restarting";
pub(crate) const STOPPING: &str = "stopping";
pub(crate) const STOPPED: &str = "stopped";
pub(crate) const FAILED: &str = "failed";
pub(crate) const DELETING: &str = "deleting";

/// How long a sandbox may take until the broker knows it, in milliseconds.
pub(crate) const START_LIMIT_MS: i64 = 60_000;
/// How long one may be silent that was heard of, before it is taken for dead.
const SILENCE_LIMIT_MS: i64 = 90_000;
/// One that has run so long has not failed in a row.
const HEALTHY_MS: i64 = 60_000;
/// Before the first retry; doubled up to the longest.
const FIRST_RETRY_MS: i64 = 500;
const LONGEST_RETRY_MS: i64 = 300_000;

/// What is known about a sandbox at the moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Facts {
    pub(crate) now_ms: i64,
    /// Its container; None: there is none.
    pub(crate) doing: Option<Doing>,
    /// Since when the broker has not heard of it; None: it does, or nobody knows.
    pub(crate) silent_since_ms: Option<i64>,
    /// Whether the broker hears of it.
    pub(crate) is_online: bool,
    /// Messages in its inbox.
    pub(crate) waiting: u64,
    /// Of its volume; None: nobody knows.
    pub(crate) disk_bytes: Option<u64>,
    /// Since when it has done nothing; None: it does something, or nobody knows.
    pub(crate) idle_since_ms: Option<i64>,
}

/// Why a sandbox is stopped that nobody has asked to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    TimedOut,
    Idle,
    DiskLimit,
}

impl Why {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::TimedOut => "timed_out",
            Self::Idle => "idle",
            Self::DiskLimit => "disk_limit",
        }
    }
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    Nothing,
    /// Make its container, if need be, and start it.
    Start,
    /// It is wanted again, because messages wait.
    Wake,
    /// It is alive: say so.
    Registered,
    /// It has ended by itself: decide what comes of it.
    Ended {
        exit_code: i64,
        out_of_memory: bool,
    },
    /// It does not say that it is alive: end it, as if it had ended by itself.
    Unhealthy,
    /// Nobody wants it to run any more.
    Stop,
    /// The same, for a reason of its own.
    StopFor(Why),
    /// It does not run, as is wanted: say so.
    Stopped,
    Remove,
}

/// What is to be done with a sandbox in a state.
pub(crate) fn decide(state: &str, document: &Document, facts: &Facts) -> Step {
    let runs = facts.doing == Some(Doing::Running);
    match document.wanted {
        Wanted::Gone => Step::Remove,
        Wanted::Stopped if runs => Step::Stop,
        Wanted::Stopped if ![STOPPED, FAILED].contains(&state) => Step::Stopped,
        Wanted::Stopped if state == STOPPED && document.spec.wake_on_message && facts.waiting > 0 => Step::Wake,
        Wanted::Stopped => Step::Nothing,
        Wanted::Running if runs => running(state, document, facts),
        Wanted::Running => match (&facts.doing, state) {
            (_, RESTARTING) if facts.now_ms >= document.retry_ms => Step::Start,
            (_, RESTARTING) => Step::Nothing,
            (Some(Doing::Ended { exit_code, out_of_memory }), RUNNING | STARTING) if document.start_ms > 0 => {
                Step::Ended { exit_code: *exit_code, out_of_memory: *out_of_memory }
            }
            // Somebody has taken it away.
            (None, RUNNING) => Step::Ended { exit_code: -1, out_of_memory: false },
            _ => Step::Start,
        },
    }
}

fn running(state: &str, document: &Document, facts: &Facts) -> Step {
    if state != RUNNING {
        return if facts.is_online {
            Step::Registered
        } else if document.start_ms > 0 && facts.now_ms - document.start_ms > START_LIMIT_MS {
            Step::Unhealthy
        } else if state == STARTING && document.start_ms > 0 {
            Step::Nothing
        } else {
            // It may never have got its assignment.
            Step::Start
        };
    }
    let resources = &document.spec.resources;
    let ran_ms = facts.now_ms - document.start_ms;
    let over = |seconds: Option<u64>, ms: i64| {
        seconds.is_some_and(|seconds| ms >= i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1_000))
    };
    if over(resources.timeout_seconds, ran_ms) {
        return Step::StopFor(Why::TimedOut);
    }
    if facts.disk_bytes.is_some_and(|bytes| bytes > resources.disk_mb << 20) {
        return Step::StopFor(Why::DiskLimit);
    }
    if let Some(since_ms) = facts.idle_since_ms
        && facts.waiting == 0
        && over(document.spec.idle_timeout_seconds, facts.now_ms - since_ms.max(document.register_ms))
    {
        return Step::StopFor(Why::Idle);
    }
    match facts.silent_since_ms {
        Some(since_ms) if facts.now_ms - since_ms.max(document.start_ms) > SILENCE_LIMIT_MS => Step::Unhealthy,
        _ => Step::Nothing,
    }
}

/// What the agent process answers to who asks it from outside to stop, such as Docker when it is started again. A command can end
/// so, too: it is believed only of one that has run for a while.
const ASKED: i64 = 143;
const BELIEVED_MS: i64 = 5_000;

/// A sandbox that has ended by itself: its next state, and what there is to say about it.
pub(crate) fn ended(before: &Document, exit_code: i64, now_ms: i64) -> (&'static str, Document) {
    let policy = &before.spec.restart_policy;
    let was_healthy = before.register_ms > 0 && now_ms - before.start_ms >= HEALTHY_MS;
    let retries = if was_healthy { 0 } else { before.retries };
    let again = match policy.condition {
        RestartCondition::Always => true,
        RestartCondition::OnFailure => exit_code != 0,
        RestartCondition::Never => false,
    };
    let was_asked = exit_code == ASKED && before.register_ms > 0 && now_ms - before.start_ms >= BELIEVED_MS;
    let document = Document { exit_code: Some(exit_code), stop_ms: now_ms, retries, register_ms: 0, ..before.clone() };
    if again && (was_asked || policy.max_retries.is_none_or(|most| retries < most)) {
        let pause_ms = FIRST_RETRY_MS.saturating_mul(1 << retries.min(20)).min(LONGEST_RETRY_MS);
        // It has not failed, so it need not wait longer the next time.
        let retries = if was_asked { retries } else { retries.saturating_add(1) };
        let restarts = document.restarts + 1;
        return (RESTARTING, Document { retries, restarts, retry_ms: now_ms + pause_ms, ..document });
    }
    let failed = exit_code != 0;
    let stopped_because = if failed { "failed" } else { "ended" }.to_owned();
    (if failed { FAILED } else { STOPPED }, Document { wanted: Wanted::Stopped, stopped_because, ..document })
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
