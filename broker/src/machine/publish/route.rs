//! Finds the way of one message: to the lanes of its recipients, to a record of its own, to a caller that waits for it, or, of
//! a conversation that goes round in circles, to the dead letters.

use super::{Conversation, Origin, Routes, TopicRoutes};
use crate::{
    batch::{Batch, Kind, Record},
    command::{Lane, Source, publish::Exception},
    machine::{
        approval,
        events::{self, EventKind},
        keys::{self, RECORDS, Remembered},
        lineage::{self, EVERYBODY},
        park::{self, Place},
        parked::{Content, Parked},
        policy::{self, Held, Judged, Judging},
        request,
        state::{State, StateError},
        wanted::{self, NOBODY},
    },
    policy::Recipient,
    rejection::{Reason, Rejection},
};

/// Gaps in what others have said that own broadcasts may make. The record of an inbox is written with each of them, so it must
/// not grow with all of them; what is not marked here is left out when it would be delivered. Part of the format: every node
/// must stop at the same gap.
const MAX_OWN_RANGES: usize = 1_024;

/// Accepted, or why not.
pub(super) type Routed = Result<Result<(), Exception>, StateError>;

fn refused(rejection: Rejection) -> Routed {
    Ok(Err(Exception::Refused(rejection)))
}

impl Routes {
    /// Sends one message on its way, or says why it goes nowhere.
    pub(super) fn route(&mut self, state: &mut State, batch: &Batch, index: usize, record: &Record<'_>) -> Routed {
        let workspace = self.workspace.number;
        let Some(sender) = state.sandbox_number(workspace, record.from)? else {
            return refused(Rejection::unknown_sandbox(record.from));
        };
        if let Some(known) = repeated_request(state, workspace, sender, record)? {
            return Ok(Err(known));
        }
        let judging = self.judging(state, sender, record)?;
        let held = match self.judge(state, record, judging.as_ref())? {
            Judged::Denied(rejection) => return refused(rejection),
            Judged::Held(held) if self.origin == Origin::Clients => Some(held),
            Judged::Held(_) | Judged::Allowed => None,
        };
        if let Some(rejection) = request::check(state, workspace, sender, record)? {
            return refused(rejection);
        }
        if let Some(held) = held {
            return self.hold(state, sender, batch, record, &held);
        }
        let hops = self.hops(state, sender, record)?;
        let too_often = self.is_too_often(hops);
        let sequence = batch.sequence(index);
        match record.kind {
            Kind::Direct => {
                let Some(recipient) = state.sandbox_number(workspace, record.to)? else {
                    return refused(Rejection::unknown_sandbox(record.to));
                };
                if let Err(rejection) = admit(state, workspace, recipient, record, too_often)? {
                    return refused(rejection);
                }
                if too_often && !self.may_bury(state, recipient, record, sequence)? {
                    return self.refuse_loop(state, record.to, sequence, hops);
                }
                self.count_hops(record, index, sequence, hops, |conversation| conversation.receive(recipient, hops));
                self.hand_on(record, sender, recipient);
                if too_often {
                    self.bury_loop(state, recipient, batch, index, hops)?;
                } else {
                    self.direct(state, recipient, batch, index, hops)?;
                }
            }
            Kind::Wanted => return self.wanted(state, sender, (batch, index), hops, judging.as_ref()),
            Kind::Several => {
                let recipients: Vec<u32> = record.recipients().collect();
                return self.several(state, (sender, &recipients), (batch, index), hops, judging.as_ref());
            }
            Kind::Broadcast | Kind::Topic if too_often => {
                return self.refuse_loop(state, record.from, sequence, hops);
            }
            Kind::Broadcast => {
                self.broadcast(state, sender, batch, index, record.priority)?;
                self.hand_on(record, sender, EVERYBODY);
                self.count_hops(record, index, sequence, hops, |conversation| conversation.receive_all(sender, hops));
            }
            Kind::Topic => {
                if !self.topic(state, record.to, record.priority, index)? {
                    return refused(Rejection::unknown_topic(record.to));
                }
                self.hand_on(record, sender, EVERYBODY);
                self.count_hops(record, index, sequence, hops, |conversation| conversation.receive_all(sender, hops));
            }
            Kind::Void => return refused(Rejection::field("destination", "the message goes nowhere")),
        }
        request::expect(state, workspace, sender, record, sequence)?;
        Ok(Ok(()))
    }

    /// A message before the policy, with those on whose behalf it is sent; None where there is no policy.
    fn judging<'a>(
        &mut self,
        state: &State,
        sender: u32,
        record: &Record<'a>,
    ) -> Result<Option<Judging<'a>>, StateError> {
        let Some(policy) = self.policy.clone() else { return Ok(None) };
        let mut chain = Vec::new();
        if policy.follows_chains() && record.correlation != 0 {
            if !self.lineages.contains_key(&record.correlation) {
                let known = state.remembered(&self.workspace, Remembered::Lineage, record.correlation)?;
                self.lineages.insert(record.correlation, (known.unwrap_or_default(), false));
            }
            let behind = self.lineages[&record.correlation].0.behind(sender);
            chain = lineage::names(state, self.workspace.number, &behind)?;
        }
        let judging = policy.judging(record.from, record.message_type, record.body, state.now_ms());
        Ok(Some(judging.for_all(chain)))
    }

    /// A message reaches somebody, who speaks on behalf of its sender from now on.
    fn hand_on(&mut self, record: &Record<'_>, sender: u32, recipient: u32) {
        if let Some((lineage, changed)) = self.lineages.get_mut(&record.correlation) {
            *changed |= lineage.receive(recipient, sender);
        }
    }

    /// What the policy says of a message. One to several waits when one of them may have it only with approval.
    fn judge(&self, state: &State, record: &Record<'_>, judging: Option<&Judging<'_>>) -> Result<Judged, StateError> {
        let Some(judging) = judging else { return Ok(Judged::Allowed) };
        let to = match record.kind {
            Kind::Direct => Recipient::Sandbox(record.to),
            Kind::Wanted => Recipient::Capability(record.to),
            Kind::Topic => Recipient::Topic(record.to),
            Kind::Broadcast => Recipient::Broadcast,
            Kind::Several if self.origin == Origin::Clients => {
                let mut all = Judged::Allowed;
                for recipient in record.recipients() {
                    if let Judged::Held(held) =
                        policy::judge_for(state, self.workspace.number, Some(judging), recipient)?
                    {
                        all = all.and_held(held);
                    }
                }
                return Ok(all);
            }
            Kind::Several | Kind::Void => return Ok(Judged::Allowed),
        };
        Ok(judging.on(to))
    }

    /// Lets a message wait for approval, if it goes somewhere at all.
    fn hold(&self, state: &mut State, sender: u32, batch: &Batch, record: &Record<'_>, held: &Held) -> Routed {
        let workspace = self.workspace.number;
        match record.kind {
            Kind::Direct if state.sandbox_number(workspace, record.to)?.is_none() => {
                return refused(Rejection::unknown_sandbox(record.to));
            }
            Kind::Topic if state.get(RECORDS, &keys::topic(workspace, record.to))?.is_none() => {
                return refused(Rejection::unknown_topic(record.to));
            }
            _ => {}
        }
        let times = (batch.time_ms, self.workspace.window_ms);
        let approval = match approval::hold(state, workspace, times, record, held)? {
            Ok(approval) => approval,
            Err(rejection) => return refused(rejection),
        };
        request::expect(state, workspace, sender, record, approval::in_place_of_sequence(approval))?;
        Ok(Err(Exception::Held { approval }))
    }

    /// To the lane of a recipient, unless it has to wait or somebody waits for it.
    fn direct(
        &mut self,
        state: &mut State,
        recipient: u32,
        batch: &Batch,
        index: usize,
        hops: u8,
    ) -> Result<(), StateError> {
        let workspace = self.workspace.number;
        let record = &batch.record(index);
        if request::answer(state, workspace, recipient, batch, index, hops)? {
            return Ok(());
        }
        let sequence = batch.sequence(index);
        let now_ms = state.now_ms();
        let priority = record.priority;
        let Some(inbox) = state.inbox_mut(workspace, recipient)? else { return Ok(()) };
        inbox.counters.bytes += record.body.len() as u64;
        inbox.counters.full = false;
        if record.not_before_ms > now_ms {
            let place = Place { workspace, sandbox: recipient, priority, sequence };
            return park::park_new(state, place, &parked(batch, record));
        }
        inbox.waiting[usize::from(priority)] += 1;
        let before = std::mem::replace(&mut inbox.newest[usize::from(priority)], sequence);
        self.direct.entry((recipient, priority)).or_default().push(index as u16);
        self.expiries.add(recipient, before, batch, index, record);
        Ok(())
    }

    fn several(
        &mut self,
        state: &mut State,
        (sender, recipients): (u32, &[u32]),
        (batch, index): (&Batch, usize),
        hops: u8,
        judging: Option<&Judging<'_>>,
    ) -> Routed {
        let workspace = self.workspace.number;
        let record = batch.record(index);
        let too_often = self.is_too_often(hops);
        let mut reached = Vec::new();
        let mut first_refusal = None;
        for recipient in recipients {
            if state.inbox(workspace, *recipient)?.is_none() {
                continue;
            }
            let refused = match policy::judge_for(state, workspace, judging, *recipient)? {
                Judged::Denied(forbidden) => Some(forbidden),
                // Who needs approval has it: else the message would wait.
                Judged::Allowed | Judged::Held(_) => admit(state, workspace, *recipient, &record, too_often)?.err(),
            };
            if let Some(rejection) = refused {
                // What is approved is not given up because of one recipient while another is only full.
                let may_pass = self.origin == Origin::Approved && rejection.reason == Reason::InboxFull;
                first_refusal = first_refusal.filter(|_| !may_pass).or(Some(rejection));
                continue;
            }
            if too_often && !self.may_bury(state, *recipient, &record, batch.sequence(index))? {
                let name = state.sandbox_name(workspace, *recipient)?;
                if let Err(Exception::Refused(rejection)) =
                    self.refuse_loop(state, &name, batch.sequence(index), hops)?
                {
                    first_refusal = first_refusal.or(Some(rejection));
                }
                continue;
            }
            reached.push(*recipient);
            if too_often {
                if let Some(conversation) = self.conversations.get_mut(&record.correlation) {
                    conversation.extend_chain(hops, batch.sequence(index));
                }
                self.bury_loop(state, *recipient, batch, index, hops)?;
            } else {
                self.direct(state, *recipient, batch, index, hops)?;
            }
        }
        if reached.is_empty() {
            return refused(first_refusal.unwrap_or_else(|| Rejection::no_capable_sandbox("any more")));
        }
        self.count_hops(&record, index, batch.sequence(index), hops, |conversation| {
            reached.iter().for_each(|recipient| conversation.receive(*recipient, hops));
        });
        reached.iter().for_each(|recipient| self.hand_on(&record, sender, *recipient));
        Ok(Ok(()))
    }

    /// To somebody who has a capability, or to wait for one.
    fn wanted(
        &mut self,
        state: &mut State,
        sender: u32,
        (batch, index): (&Batch, usize),
        hops: u8,
        judging: Option<&Judging<'_>>,
    ) -> Routed {
        let workspace = self.workspace.number;
        let record = batch.record(index);
        let sequence = batch.sequence(index);
        let approved = self.origin == Origin::Approved;
        let recipient = match wanted::online(state, workspace, (sender, approved), &record, judging)? {
            Some(recipient) => recipient,
            None => {
                wanted::open(state, workspace)?;
                NOBODY
            }
        };
        if let Err(rejection) = room(state, workspace, recipient, &record)? {
            return refused(rejection);
        }
        let too_often = self.is_too_often(hops);
        if too_often && !self.may_bury(state, recipient, &record, sequence)? {
            return self.refuse_loop(state, record.from, sequence, hops);
        }
        self.count_hops(&record, index, sequence, hops, |conversation| {
            if recipient != NOBODY {
                conversation.receive(recipient, hops);
            }
        });
        if recipient != NOBODY {
            self.hand_on(&record, sender, recipient);
        }
        if too_often {
            self.bury_loop(state, recipient, batch, index, hops)?;
        } else if recipient == NOBODY {
            wanted::wait(state, workspace, (sender, approved), (sequence, &record), parked(batch, &record))?;
        } else {
            if let Some(inbox) = state.inbox_mut(workspace, recipient)? {
                inbox.counters.bytes += record.body.len() as u64;
            }
            let place = Place { workspace, sandbox: recipient, priority: record.priority, sequence };
            park::park(state, place, &parked(batch, &record))?;
        }
        request::expect(state, workspace, sender, &record, sequence)?;
        Ok(Ok(()))
    }

    fn broadcast(
        &mut self,
        state: &mut State,
        sender: u32,
        batch: &Batch,
        index: usize,
        priority: u8,
    ) -> Result<(), StateError> {
        let own = self.broadcast.entry(priority).or_default();
        let before = own.last().map(|index| batch.sequence(usize::from(*index)));
        let before = before.unwrap_or(self.workspace.newest_broadcast.0[usize::from(priority)]);
        if let Some(inbox) = state.inbox_mut(self.workspace.number, sender)? {
            let gaps =
                inbox.cursor(Lane { source: Source::Broadcast, priority }).map_or(0, |cursor| cursor.ranges.len());
            if gaps < MAX_OWN_RANGES
                && let Some(cursor) = inbox.cursor_mut(Lane { source: Source::Broadcast, priority })
            {
                // Done with before it is there, so that who only speaks need not read all it has said.
                cursor.insert(before, batch.sequence(index));
            }
            inbox.broadcasts_done += 1;
        }
        own.push(index as u16);
        Ok(())
    }

    /// False when there is no such topic.
    fn topic(&mut self, state: &State, name: &str, priority: u8, index: usize) -> Result<bool, StateError> {
        if !self.topics.contains_key(name) {
            let Some(topic) = state.read(RECORDS, &keys::topic(self.workspace.number, name), "topic")? else {
                return Ok(false);
            };
            self.topics.insert(name.to_owned(), TopicRoutes { topic, by_priority: Default::default() });
        }
        if let Some(routes) = self.topics.get_mut(name) {
            routes.by_priority.entry(priority).or_default().push(index as u16);
        }
        Ok(true)
    }

    /// How often the conversation of a message went to and fro before it.
    fn hops(&mut self, state: &State, sender: u32, record: &Record<'_>) -> Result<u8, StateError> {
        if record.correlation == 0 {
            return Ok(0);
        }
        if !self.conversations.contains_key(&record.correlation) {
            let known = state.remembered(&self.workspace, Remembered::Conversation, record.correlation)?;
            self.conversations.insert(record.correlation, known.unwrap_or_default());
        }
        Ok(self.conversations[&record.correlation].next_hops(sender))
    }

    fn count_hops(
        &mut self,
        record: &Record<'_>,
        index: usize,
        sequence: u64,
        hops: u8,
        receive: impl FnOnce(&mut Conversation),
    ) {
        if let Some(conversation) = self.conversations.get_mut(&record.correlation) {
            conversation.extend_chain(hops, sequence);
            receive(conversation);
        }
        if hops > 0 {
            self.hops.push((index as u16, hops));
        }
    }
}

/// A request that is published a second time, because its caller calls again.
fn repeated_request(
    state: &State,
    workspace: u32,
    sender: u32,
    record: &Record<'_>,
) -> Result<Option<Exception>, StateError> {
    if record.reply_timeout_ms == 0 {
        return Ok(None);
    }
    let Some(known) = request::find(state, workspace, sender, record.correlation)? else { return Ok(None) };
    if known.digest == record.digest {
        // Whatever became of what was held: its caller has an answer.
        let answered = known.response.is_some();
        let sequence = if answered { approval::in_log(known.sequence) } else { known.sequence };
        return Ok(Some(Exception::Duplicate { sequence, time_ms: 0 }));
    }
    let text = format!(
        "another request of sandbox {:?} waits under the same correlation id; give each request its own",
        record.from
    );
    Ok(Some(Exception::Refused(Rejection::new(Reason::MessageIdReused, text))))
}

/// Whether a recipient can have a message: it fits into the inbox, or does not go through it because somebody waits for it.
fn admit(
    state: &mut State,
    workspace: u32,
    recipient: u32,
    record: &Record<'_>,
    too_often: bool,
) -> Result<Result<(), Rejection>, StateError> {
    if !too_often && request::waited_for(state, workspace, recipient, record)?.is_some() {
        return Ok(Ok(()));
    }
    room(state, workspace, recipient, record)
}

/// Whether a message fits into an inbox. The first one that does not is told to whoever watches.
fn room(
    state: &mut State,
    workspace: u32,
    recipient: u32,
    record: &Record<'_>,
) -> Result<Result<(), Rejection>, StateError> {
    let header = state.header();
    let bytes = record.body.len() as u64;
    let Some(inbox) = state.inbox(workspace, recipient)? else {
        return Ok(Err(Rejection::unknown_sandbox(record.to)));
    };
    if inbox.has_room(bytes, &header) {
        return Ok(Ok(()));
    }
    let (held, held_bytes, limits) = (inbox.held(), inbox.counters.bytes, inbox.limits(&header));
    let told = inbox.counters.full;
    let name = state.sandbox_name(workspace, recipient)?;
    let whose = if recipient == NOBODY {
        "what waits for a capability".into()
    } else {
        format!("the inbox of sandbox {name:?}")
    };
    let text = format!(
        "{whose} holds {held} messages and {held_bytes} bytes; {} messages and {} bytes are allowed: try \
         again later",
        limits.0, limits.1
    );
    if !told {
        if let Some(inbox) = state.inbox_mut(workspace, recipient)? {
            inbox.counters.full = true;
        }
        events::raise(state, workspace, EventKind::InboxFull, &name, (0, 1), text.clone())?;
    }
    Ok(Err(Rejection::new(Reason::InboxFull, text)))
}

/// A message that waits on its own from the beginning.
fn parked(batch: &Batch, record: &Record<'_>) -> Parked {
    Parked {
        content: Content::Stored(batch.first_sequence),
        attempt: 1,
        due_ms: record.not_before_ms,
        expires_ms: record.expires_ms(batch.time_ms),
        ordering: record.ordering,
        bytes: record.body.len() as u32,
        blocks: false,
        history: Vec::new(),
    }
}
