//! The model of time: what a tick lets happen.

use super::{inbox::Chosen, state::*};
use crate::machine::{dead_letter::DeadReason, events::EventKind};

/// How long something that should expire and cannot is left alone.
const AGAIN_MS: u64 = 10_000;

/// Something that is due: what, in which sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Due {
    Waiting(Source, u64),
    Watch,
    Request(u128),
}

/// The order of what is due: by time. What has the same time happens in an order that nobody is promised; the model has to know
/// it only because dead letters run out of room in it, and answers get their sequences.
type Order = (u64, u32, u8, u64, u64, u128);

/// The same within one workspace.
type Within = (u64, u8, u64, u64, u128);

impl Model {
    pub(super) fn tick(&mut self, chosen: &dyn Chosen) {
        let now = self.now;
        let mut due: Vec<(Order, String, u32, Due)> = Vec::new();
        for (name, workspace) in &self.workspaces {
            for sandbox in workspace.sandboxes.values() {
                for (order, what) in sandbox.due(now) {
                    let (time, kind, a, b, c) = order;
                    due.push(((time, workspace.number, kind, a, b, c), name.clone(), sandbox.number, what));
                }
            }
        }
        due.sort_by_key(|(order, ..)| *order);
        for (_, name, number, what) in due {
            let Some(workspace) = self.workspaces.get_mut(&name) else { continue };
            match what {
                Due::Waiting(source, sequence) => workspace.waited(now, number, &source, sequence),
                Due::Watch => workspace.watch(now, number),
                Due::Request(correlation) => workspace.end_request(now, number, correlation),
            }
        }
        self.publish_notices(chosen);
    }
}

impl Sandbox {
    fn due(&self, now: u64) -> Vec<(Within, Due)> {
        let mut due = Vec::new();
        let number = u64::from(self.number);
        for waiting in &self.inbox {
            let (priority, sequence) = (u64::from(waiting.message.priority), waiting.message.sequence);
            let what = Due::Waiting(waiting.source.clone(), sequence);
            match waiting.source {
                // The first of its two times.
                Source::Alone => {
                    let looked_at = waiting.again && waiting.due + AGAIN_MS <= waiting.look;
                    let times = [(waiting.deferred && !looked_at, waiting.due), (waiting.look > 0, waiting.look)];
                    let first = times.into_iter().filter(|(counts, _)| *counts).map(|(_, time)| time).min();
                    if let Some(time) = first.filter(|time| *time <= now) {
                        due.push(((time, 1, number, priority, sequence.into()), what));
                    }
                }
                // A batch expires together, in tenths of a second.
                Source::Direct if waiting.look > 0 && !waiting.again => {
                    let time = waiting.look.div_ceil(100) * 100;
                    if time <= now {
                        due.push(((time, 2, waiting.message.batch, sequence, number.into()), what));
                    }
                }
                Source::Direct if waiting.look > 0 && waiting.look <= now => {
                    due.push(((waiting.look, 3, number, priority, sequence.into()), what));
                }
                _ => {}
            }
        }
        if self.watch > 0 && self.watch <= now {
            due.push(((self.watch, 4, number, 0, 0), Due::Watch));
        }
        for (correlation, request) in &self.requests {
            if request.deadline <= now {
                due.push(((request.deadline, 5, number, 0, *correlation), Due::Request(*correlation)));
            }
        }
        due
    }
}

impl Workspace {
    /// A message has waited until its time, or for longer than its ttl.
    fn waited(&mut self, now: u64, number: u32, source: &Source, sequence: u64) {
        let room = self.dead_of(number) < MAX_DEAD;
        let Some(sandbox) = self.sandboxes.get_mut(&number) else { return };
        let Some(waiting) = sandbox.inbox.iter_mut().find(|waiting| waiting.is(source, sequence)) else { return };
        if waiting.expires == 0 || waiting.expires > now {
            waiting.deferred = waiting.deferred && waiting.due > now;
            return;
        }
        let to_dead_letters = waiting.message.dead_letter_on_expiry;
        if waiting.leased || (to_dead_letters && !room) {
            waiting.look = now + AGAIN_MS;
            waiting.again = true;
            return;
        }
        let name = sandbox.name.clone();
        let Some(waiting) = sandbox.remove(source, sequence) else { return };
        self.raise(now, EventKind::Expired, &name, sequence, 1);
        if to_dead_letters {
            self.bury(now, number, waiting.message, DeadReason::Expired, waiting.history, Vec::new());
        } else if waiting.message.requires_response {
            self.notices.push((waiting.message, name));
        }
    }

    fn watch(&mut self, now: u64, number: u32) {
        let Some(sandbox) = self.sandboxes.get_mut(&number) else { return };
        sandbox.watch = sandbox.heard + HEARTBEAT_MS;
        if sandbox.watch <= now {
            sandbox.watch = 0;
            sandbox.online = false;
            let name = sandbox.name.clone();
            self.raise(now, EventKind::SandboxOffline, &name, 0, 0);
        }
    }

    /// A request has waited long enough. A response that reached nobody goes to the inbox.
    fn end_request(&mut self, now: u64, number: u32, correlation: u128) {
        let Some(sandbox) = self.sandboxes.get_mut(&number) else { return };
        let Some(request) = sandbox.requests.remove(&correlation) else { return };
        if let Some(response) = request.response.filter(|_| !request.answered) {
            sandbox.put_alone(now, Waiting::new(Source::Alone, response));
        }
    }
}
