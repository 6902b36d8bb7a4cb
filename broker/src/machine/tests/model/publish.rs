//! The model of publishing: each message is accepted, a duplicate, or refused; an accepted one goes into inboxes.

use std::collections::BTreeMap;

use super::{inbox::Chosen, state::*};
use crate::{
    batch::RESPONSE,
    machine::{dead_letter::DeadReason, events::EventKind},
    rejection::Reason,
};

/// How a verb ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    Done,
    Refused(Reason),
    Published {
        first: u64,
        exceptions: Vec<(u32, NotNew)>,
    },
    Count(u64),
    /// Deferred and dead-lettered, or redriven and skipped.
    Counts(u64, u64),
    Created(bool),
    Followed(bool, u64),
}

/// Why a message has no sequence of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotNew {
    Duplicate(u64, u64),
    Refused(Reason),
}

type Accepted = Result<(), NotNew>;

impl<T: Clone> Remembered<T> {
    fn is_known(&self, window: u64) -> bool {
        window - self.window <= 1
    }
}

/// What is remembered under a key.
fn recall<K: Ord, T: Clone>(memory: &BTreeMap<K, Remembered<T>>, key: &K, window: u64) -> Option<T> {
    memory.get(key).filter(|known| known.is_known(window)).map(|known| known.value.clone())
}

impl Model {
    pub(super) fn publish(&mut self, workspace: &str, mut messages: Vec<Message>) -> Answer {
        let now = self.now;
        let Some(workspace) = self.workspaces.get_mut(workspace) else {
            return Answer::Refused(Reason::UnknownWorkspace);
        };
        let first = workspace.last + 1;
        let mut exceptions = Vec::new();
        let count = messages.len();
        for (index, message) in messages.iter_mut().enumerate() {
            (message.sequence, message.time, message.batch) = (first + index as u64, now, first);
            match workspace.accept(now, message) {
                Ok(()) => drop(workspace.log.insert(message.sequence, message.clone())),
                Err(why) => exceptions.push((index as u32, why)),
            }
        }
        if exceptions.len() < count {
            workspace.last += count as u64;
        }
        Answer::Published { first, exceptions }
    }

    /// The answers that the broker gives in the place of recipients.
    pub(super) fn publish_notices(&mut self, chosen: &dyn Chosen) {
        let told: Vec<(String, Message, String)> = self
            .workspaces
            .iter_mut()
            .flat_map(|(name, workspace)| {
                workspace.notices.drain(..).map(|(message, from)| (name.clone(), message, from)).collect::<Vec<_>>()
            })
            .collect();
        for (name, message, from) in told {
            let Some(workspace) = self.workspaces.get(&name) else { continue };
            // One that was refused for want of room is nowhere to be found; it is about as large as this.
            let body = chosen.notice(workspace.number, workspace.last + 1, message.sequence);
            let notice = Message {
                from,
                to: To::Sandbox(message.from.clone()),
                priority: message.priority,
                kind: RESPONSE,
                correlation: message.correlation,
                body: body.unwrap_or_else(|| vec![0; 400].into()),
                by_broker: true,
                ..Message::default()
            };
            self.publish(&name, vec![notice]);
        }
    }
}

impl Workspace {
    fn window(&self, now: u64) -> u64 {
        now / WINDOW_MS
    }

    fn accept(&mut self, now: u64, message: &mut Message) -> Accepted {
        let window = self.window(now);
        let (producer, position) = message.producer;
        let mut not_accepted = Ok(());
        if producer != 0 {
            let mut known = recall(&self.producers, &producer, window).unwrap_or_default();
            let decided = known.decide(position);
            if decided.is_ok() {
                // Refused messages count as well.
                known.last = position;
            }
            self.producers.insert(producer, Remembered { window, value: known });
            match decided {
                Err(NotNew::Refused(Reason::PositionRefused)) => not_accepted = decided,
                decided => decided?,
            }
        }
        if let Some(known) = recall(&self.ids, &message.id, window) {
            let repeated = known.repeated(message);
            if let NotNew::Duplicate(sequence, _) = repeated
                && message.reply_timeout > 0
            {
                // Whose time is over waits on.
                let Some(sender) = self.number_of(&message.from) else {
                    return Err(NotNew::Refused(Reason::UnknownSandbox));
                };
                if !self.sandboxes[&sender].requests.contains_key(&message.correlation) {
                    self.expect(now, sender, message, sequence);
                }
            }
            return Err(repeated);
        }
        not_accepted?;
        self.route(now, message)?;
        let known = KnownId { sequence: message.sequence, digest: message.digest, time: now };
        if !message.id.is_empty() {
            self.ids.insert(message.id.clone(), Remembered { window, value: known });
        }
        if let Some(known) = self.producers.get_mut(&producer) {
            known.value.accepted.insert(position, (message.sequence, now));
        }
        Ok(())
    }

    /// Sends a message on its way, or says why it goes nowhere.
    fn route(&mut self, now: u64, message: &mut Message) -> Accepted {
        let unknown = Err(NotNew::Refused(Reason::UnknownSandbox));
        let Some(sender) = self.number_of(&message.from) else { return unknown };
        if message.reply_timeout > 0
            && let Some(asked) = self.sandboxes[&sender].requests.get(&message.correlation)
        {
            let same = asked.digest == message.digest;
            return Err(if same {
                NotNew::Duplicate(asked.sequence, 0)
            } else {
                NotNew::Refused(Reason::MessageIdReused)
            });
        }
        let mut conversation = recall(&self.conversations, &message.correlation, self.window(now)).unwrap_or_default();
        if let Some(known) =
            self.conversations.get_mut(&message.correlation).filter(|known| known.is_known(now / WINDOW_MS))
        {
            // Who speaks keeps it in memory, accepted or not.
            known.window = now / WINDOW_MS;
        }
        message.hops = if message.correlation == 0 { 0 } else { conversation.next_hops(sender) };
        let loops = self.is_loop(message);
        let recipients = match &message.to {
            To::Sandbox(name) => match self.number_of(name) {
                Some(number) => vec![number],
                None => return unknown,
            },
            To::Several(numbers) => {
                numbers.iter().copied().filter(|number| self.sandboxes.contains_key(number)).collect()
            }
            To::Broadcast | To::Topic(_) if loops => {
                self.raise(now, EventKind::Looped, &message.from.clone(), message.sequence, 1);
                return Err(NotNew::Refused(Reason::TooManyHops));
            }
            To::Topic(name) if !self.topics.contains_key(name) => return Err(NotNew::Refused(Reason::UnknownTopic)),
            To::Broadcast | To::Topic(_) => Vec::new(),
        };
        if let To::Topic(name) = &message.to {
            message.topic = self.topics[name].order;
        }
        if message.correlation != 0 && conversation.chain.len() <= usize::from(message.hops) {
            conversation.chain.push(message.sequence);
        }
        match message.to {
            To::Sandbox(_) | To::Several(_) => self.reach_each(now, message, &recipients, &mut conversation)?,
            To::Broadcast | To::Topic(_) => {
                conversation.shared.push((sender, message.hops));
                self.reach_followers(sender, message);
            }
        }
        if message.correlation != 0 {
            let window = self.window(now);
            self.conversations.insert(message.correlation, Remembered { window, value: conversation });
        }
        if message.reply_timeout > 0 {
            self.expect(now, sender, message, message.sequence);
        }
        Ok(())
    }

    /// From now on the sender waits for a response.
    fn expect(&mut self, now: u64, sender: u32, message: &Message, sequence: u64) {
        let Some(sandbox) = self.sandboxes.get_mut(&sender) else { return };
        let (digest, deadline) = (message.digest, now + message.reply_timeout);
        let request = Request { sequence, digest, deadline, response: None, answered: false };
        sandbox.requests.insert(message.correlation, request);
    }

    /// Whether a message goes to and fro too often. What the broker says itself never does.
    fn is_loop(&self, message: &Message) -> bool {
        message.hops > self.settings.hop_limit() && !message.by_broker
    }

    /// To everybody named. Who has no room is passed over; when nobody is left the message is refused.
    fn reach_each(
        &mut self,
        now: u64,
        message: &Message,
        recipients: &[u32],
        conversation: &mut Conversation,
    ) -> Accepted {
        let loops = self.is_loop(message);
        let mut reached = false;
        let mut refusal = None;
        for number in recipients {
            let dead_full = self.dead_of(*number) >= MAX_DEAD;
            let Some(sandbox) = self.sandboxes.get_mut(number) else { continue };
            let waits_for_it = message.kind == RESPONSE
                && message.correlation != 0
                && sandbox.requests.get(&message.correlation).is_some_and(|request| request.response.is_none());
            // A response that somebody waits for does not go through the inbox.
            let needs_room = loops || !waits_for_it;
            if needs_room && !sandbox.has_room(message.bytes()) {
                refusal.get_or_insert(Reason::InboxFull);
                let (name, told) = (sandbox.name.clone(), std::mem::replace(&mut sandbox.full, true));
                if !told {
                    self.raise(now, EventKind::InboxFull, &name, 0, 1);
                }
                continue;
            }
            if loops && dead_full {
                refusal.get_or_insert(Reason::TooManyHops);
                let name = sandbox.name.clone();
                self.raise(now, EventKind::Looped, &name, message.sequence, 1);
                continue;
            }
            reached = true;
            conversation.received.push((*number, message.hops));
            if loops {
                let chain = conversation.chain.clone();
                self.bury(now, *number, message.clone(), DeadReason::Loop, Vec::new(), chain);
            } else if waits_for_it {
                if let Some(request) = sandbox.requests.get_mut(&message.correlation) {
                    request.response = Some(message.clone());
                }
            } else {
                sandbox.full = false;
                let mut waiting = Waiting::new(Source::Direct, message.clone());
                if message.not_before > now {
                    (waiting.due, waiting.deferred) = (message.not_before, true);
                    sandbox.put_alone(now, waiting);
                } else {
                    sandbox.inbox.push(waiting);
                }
            }
        }
        if reached { Ok(()) } else { Err(NotNew::Refused(refusal.unwrap_or(Reason::NoCapableSandbox))) }
    }

    fn reach_followers(&mut self, sender: u32, message: &Message) {
        let source = match &message.to {
            To::Topic(name) => {
                let Some(topic) = self.topics.get_mut(name) else { return };
                topic.messages += 1;
                topic.last = message.sequence;
                Source::Topic(topic.order, name.clone())
            }
            _ => Source::Broadcast,
        };
        for sandbox in self.sandboxes.values_mut() {
            let wanted = match &message.to {
                // An own message of a topic is passed by when it would be delivered; until then it counts.
                To::Topic(name) => sandbox.follows.keys().any(|pattern| super::registry::fits(pattern, name)),
                _ => sandbox.number != sender,
            };
            if wanted {
                sandbox.inbox.push(Waiting::new(source.clone(), message.clone()));
            }
        }
    }
}

impl Producer {
    fn decide(&self, position: u64) -> Accepted {
        if position == 0 {
            return Err(NotNew::Refused(Reason::InvalidField));
        }
        if self.last == 0 || position == self.last + 1 {
            return Ok(());
        }
        if position > self.last {
            return Err(NotNew::Refused(Reason::ProducerGap));
        }
        match self.accepted.get(&position) {
            Some((sequence, time)) => Err(NotNew::Duplicate(*sequence, *time)),
            None if self.accepted.keys().next().is_some_and(|first| position < *first) => Err(NotNew::Duplicate(0, 0)),
            None => Err(NotNew::Refused(Reason::PositionRefused)),
        }
    }
}

impl KnownId {
    fn repeated(&self, message: &Message) -> NotNew {
        if self.digest == message.digest {
            NotNew::Duplicate(self.sequence, self.time)
        } else {
            NotNew::Refused(Reason::MessageIdReused)
        }
    }
}

impl Conversation {
    /// 0 when the sender has received nothing, else one more than the highest count it has received. What went to everybody
    /// may have been received by everybody but who sent it.
    fn next_hops(&self, sender: u32) -> u8 {
        let own = self.received.iter().filter(|(sandbox, _)| *sandbox == sender);
        let shared = self.shared.iter().filter(|(from, _)| *from != sender);
        own.chain(shared).map(|(_, hops)| hops.saturating_add(1)).max().unwrap_or(0)
    }
}
