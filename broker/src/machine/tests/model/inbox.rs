//! The model of one inbox: what is delivered next, and what becomes of deliveries.

use super::state::*;
use crate::machine::{dead_letter::DeadReason, events::EventKind};

/// How deliveries failed.
pub(super) struct How {
    pub(super) error: crate::command::nack::AttemptError,
    pub(super) text: String,
    pub(super) delay: Option<u64>,
    pub(super) dead_letter: bool,
}

/// What can be known only from the machine: chosen freely within the contract.
pub(super) trait Chosen {
    /// When a failed message is due, of a workspace, sandbox, priority and sequence.
    fn due(&self, workspace: u32, sandbox: u32, priority: u8, sequence: u64) -> Option<u64>;
    /// The body of the answer that the broker gave in the place of a recipient of the message `about`, if that is the message
    /// with this sequence.
    fn notice(&self, workspace: u32, sequence: u64, about: u64) -> Option<bytes::Bytes>;
}

impl Waiting {
    pub(super) fn new(source: Source, message: Message) -> Self {
        let expires = message.expires();
        Self {
            source,
            attempt: 1,
            due: 0,
            deferred: false,
            expires,
            look: expires,
            again: false,
            retry: false,
            history: Vec::new(),
            leased: false,
            turn: false,
            message,
        }
    }

    pub(super) fn is(&self, source: &Source, sequence: u64) -> bool {
        self.source == *source && self.message.sequence == sequence
    }

    /// Waits for a sandbox in a lane, not on its own.
    pub(super) fn in_lane(&self, sandbox: &str) -> bool {
        match self.source {
            Source::Alone => false,
            Source::Topic(..) => self.message.from != sandbox,
            Source::Direct | Source::Broadcast => true,
        }
    }

    /// Expired, or a message of a topic to the sandbox that sent it: never delivered.
    pub(super) fn is_for_nobody(&self, sandbox: &str, now: u64) -> bool {
        (self.expires > 0 && self.expires <= now)
            || matches!(self.source, Source::Topic(..)) && self.message.from == sandbox
    }
}

impl Sandbox {
    /// Whether the ordering key of a message is free: one at a time, and a failed one first.
    fn key_is_free(&self, candidate: &Waiting, now: u64) -> bool {
        let key = candidate.message.key;
        let same = |waiting: &&Waiting| waiting.message.key == key;
        let first = self.inbox.iter().filter(same).filter(|waiting| {
            (waiting.retry && waiting.deferred)
                || ((waiting.retry || waiting.turn) && !waiting.is_for_nobody(&self.name, now))
        });
        key == 0
            || !self.inbox.iter().filter(same).any(|waiting| waiting.leased)
                && first.map(|waiting| waiting.message.sequence).min().is_none_or(|at| at == candidate.message.sequence)
    }

    /// The next delivery: the highest priority, then the lowest sequence, of what may be delivered.
    pub(super) fn next(&self, now: u64) -> Option<usize> {
        (0..self.inbox.len())
            .filter(|at| {
                let waiting = &self.inbox[*at];
                !waiting.leased
                    && !waiting.deferred
                    && !waiting.is_for_nobody(&self.name, now)
                    && self.key_is_free(waiting, now)
            })
            .min_by_key(|at| {
                let waiting = &self.inbox[*at];
                (9 - waiting.message.priority, waiting.message.sequence, waiting.source.clone())
            })
    }

    /// Hands out up to `limit` messages, each under a lease.
    pub(super) fn take(&mut self, limit: usize, now: u64) -> Vec<Waiting> {
        let mut taken = Vec::new();
        while taken.len() < limit
            && let Some(at) = self.next(now)
        {
            self.inbox[at].leased = true;
            self.inbox[at].turn = false;
            taken.push(self.inbox[at].clone());
        }
        taken
    }

    /// Messages that a reader passes by: they are for nobody, but counted until then.
    pub(super) fn sweep(&mut self, sequence: u64, now: u64) -> bool {
        let name = self.name.clone();
        let before = self.inbox.len();
        self.inbox.retain(|waiting| {
            !(waiting.message.sequence == sequence
                && matches!(waiting.source, Source::Broadcast | Source::Topic(..))
                && waiting.is_for_nobody(&name, now))
        });
        self.inbox.len() < before
    }

    /// Acknowledged: gone for good. False when it had left.
    pub(super) fn remove(&mut self, source: &Source, sequence: u64) -> Option<Waiting> {
        let at = self.inbox.iter().position(|waiting| waiting.is(source, sequence))?;
        Some(self.inbox.remove(at))
    }

    pub(super) fn give_back(&mut self, source: &Source, sequence: u64) {
        if let Some(waiting) = self.inbox.iter_mut().find(|waiting| waiting.is(source, sequence)) {
            waiting.leased = false;
            waiting.turn = waiting.message.key != 0;
        }
    }

    /// A message on its own; there is one of a sequence at most.
    pub(super) fn put_alone(&mut self, now: u64, mut waiting: Waiting) {
        waiting.source = Source::Alone;
        waiting.leased = false;
        waiting.look = if waiting.expires == 0 { 0 } else { waiting.expires.max(now) };
        waiting.again = false;
        self.remove(&Source::Alone, waiting.message.sequence);
        self.inbox.push(waiting);
    }

    /// The bounds of the backoff before an attempt: doubling, spread by a fifth either way.
    pub(super) fn backoff(&self, attempt: u32) -> (u64, u64) {
        let or = |value: u64, default: u64| if value == 0 { default } else { value };
        let initial = or(self.settings.initial_backoff_ms, 1_000);
        let most = or(self.settings.max_backoff_ms, 16_000).max(initial);
        let mut backoff = initial;
        for _ in 2..attempt {
            backoff = (backoff * 2).min(most);
        }
        (backoff * 4 / 5, backoff * 6 / 5)
    }
}

impl Model {
    /// A delivery failed. True when the message became a dead letter; none when it had left.
    pub(super) fn fail(
        &mut self,
        workspace: u32,
        number: u32,
        (source, sequence): (&Source, u64),
        how: &How,
        chosen: &dyn Chosen,
    ) -> Result<Option<bool>, String> {
        let now = self.now;
        let Some(workspace) = self.numbered(workspace) else { return Ok(None) };
        let dead = workspace.dead_of(number);
        let Some(sandbox) = workspace.sandboxes.get_mut(&number) else { return Ok(None) };
        let Some(mut waiting) = sandbox.remove(source, sequence) else { return Ok(None) };
        waiting.history.push(Failed { attempt: waiting.attempt, time: now, error: how.error, text: how.text.clone() });
        waiting.attempt += 1;
        let exhausted =
            waiting.attempt > if sandbox.settings.max_attempts == 0 { 5 } else { sandbox.settings.max_attempts };
        if (exhausted || how.dead_letter) && dead < MAX_DEAD {
            let reason = if how.dead_letter { DeadReason::Rejected } else { DeadReason::AttemptsExhausted };
            workspace.bury(now, number, waiting.message, reason, waiting.history, Vec::new());
            return Ok(Some(true));
        }
        // Nothing is dropped: without room for a dead letter it is attempted again.
        waiting.due = match how.delay {
            Some(delay) => now + delay,
            None => {
                let (least, most) = sandbox.backoff(waiting.attempt);
                let due =
                    chosen.due(workspace.number, number, waiting.message.priority, sequence).unwrap_or(now + least);
                if !(now + least..=now + most).contains(&due) {
                    return Err(format!(
                        "attempt {} is due {due}, not within {least} to {most} of {now}",
                        waiting.attempt
                    ));
                }
                due
            }
        };
        waiting.deferred = waiting.due > now;
        waiting.retry = waiting.message.key != 0;
        waiting.turn = false;
        sandbox.put_alone(now, waiting);
        Ok(Some(false))
    }
}

impl Workspace {
    /// A message that has left its inbox becomes a dead letter, and its sender is told.
    pub(super) fn bury(
        &mut self,
        now: u64,
        number: u32,
        message: Message,
        reason: DeadReason,
        history: Vec<Failed>,
        chain: Vec<u64>,
    ) {
        let name = self.sandboxes[&number].name.clone();
        let kind = if reason == DeadReason::Loop { EventKind::Looped } else { EventKind::DeadLettered };
        self.raise(now, kind, &name, message.sequence, 1);
        if message.requires_response {
            self.notices.push((message.clone(), name.clone()));
        }
        let letter = Dead { sandbox: name, message, reason, time: now, history, chain };
        self.dead.insert((number, letter.message.sequence), letter);
    }
}
