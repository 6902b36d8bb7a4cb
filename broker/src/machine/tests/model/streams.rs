//! Subscribers: streams with leases, as the edge keeps them, and beside each what the model knows of it.

use bytes::Bytes;

use super::{
    drive::{Run, agree},
    form::{MAIN, Op},
    inbox::How,
    publish::Answer,
    state::*,
    step::Act,
};
use crate::{
    command::{Nack, Verb, nack::AttemptError},
    delivery::{
        SharedInbox,
        inbox::Taking,
        lane::{Item, Lease},
        leases::Leases,
    },
    rejection::Reason,
};

/// How long a delivery may take here, in milliseconds.
const ACK_DEADLINE_MS: u64 = 1_500;

pub(super) struct Stream {
    pub(super) inbox: SharedInbox,
    workspace: u32,
    sandbox: u32,
    leases: Leases,
    /// Deliveries in the order of their ids, from 1.
    made: Vec<Made>,
}

#[derive(Debug, Clone)]
struct Made {
    source: Source,
    sequence: u64,
    deadline: u64,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Held,
    Lapsed,
    Done,
}

/// A message that is no longer worked on.
type Ended = (Source, u64);
/// An ack or a nack on its way, and what the inbox has to know when it is settled.
pub(super) type Settling = (SharedInbox, Vec<(u8, u64, u32)>);

impl Stream {
    /// What the contract says of ending these deliveries: those that are held; those that had lapsed, if that may count; and
    /// the reasons of the refusals.
    fn end(&mut self, ranges: &[(u64, u64)], lenient: bool) -> (Vec<Ended>, Vec<Ended>, Vec<Reason>) {
        let (mut held, mut late, mut refused) = (Vec::new(), Vec::new(), Vec::new());
        for &(first, last) in ranges {
            if first == 0 || last > self.made.len() as u64 {
                refused.push(Reason::UnknownDelivery);
                continue;
            }
            let range = &mut self.made[first as usize - 1..last as usize];
            if !lenient && range.iter().any(|made| made.state == State::Lapsed) {
                refused.push(Reason::LeaseLost);
            }
            if range.iter().any(|made| made.state == State::Done) {
                refused.push(Reason::UnknownDelivery);
            }
            for made in range {
                match made.state {
                    State::Held => held.push((made.source.clone(), made.sequence)),
                    State::Lapsed if lenient => late.push((Source::Alone, made.sequence)),
                    State::Lapsed | State::Done => continue,
                }
                made.state = State::Done;
            }
        }
        (held, late, refused)
    }
}

fn sequences(ended: &[Ended]) -> Vec<u64> {
    let mut all: Vec<u64> = ended.iter().map(|(_, sequence)| *sequence).collect();
    all.sort_unstable();
    all
}

fn leased(leases: &[Lease]) -> Vec<u64> {
    let mut all: Vec<u64> = leases.iter().map(|lease| lease.sequence).collect();
    all.sort_unstable();
    all
}

impl Sandbox {
    /// Nobody works on anything any more, as after a restart.
    pub(super) fn forget_leases(&mut self) {
        for waiting in &mut self.inbox {
            (waiting.leased, waiting.turn) = (false, false);
        }
    }
}

impl Run {
    fn sandbox(&mut self, workspace: u32, sandbox: u32) -> Option<&mut Sandbox> {
        self.model.numbered(workspace)?.sandboxes.get_mut(&sandbox)
    }

    pub(super) fn open(&mut self, name: &str) -> Result<(), String> {
        let numbers = self.numbers(name);
        let opened = self.shard.delivery.open(MAIN, name);
        agree("a subscription", opened.is_ok(), numbers.is_some())?;
        if let (Ok(inbox), Some((workspace, sandbox))) = (opened, numbers) {
            let leases = Leases::default();
            self.streams.push(Stream { inbox, workspace, sandbox, leases, made: Vec::new() });
        }
        Ok(())
    }

    /// Hands out messages to a stream; acknowledges in its name what nobody is to get.
    pub(super) fn take(&mut self, stream: usize, count: usize) -> Result<(), String> {
        let now = self.time;
        let Some(Stream { inbox, workspace, sandbox, .. }) = self.streams.get(stream) else { return Ok(()) };
        let (inbox, workspace, sandbox) = (inbox.clone(), *workspace, *sandbox);
        let mut items = Vec::new();
        let taking = Taking { limit: count, low_priority_percent: 0, now_ms: now };
        inbox.lock().take(taking, |_| true, &mut items).map_err(|error| error.to_string())?;
        let expected = self.sandbox(workspace, sandbox).map(|sandbox| sandbox.take(count, now)).unwrap_or_default();
        let told: Vec<Told> = items.iter().map(|(item, _)| told(item)).collect();
        agree("what is handed out", told, expected.iter().map(Waiting::told).collect())?;
        let made = &mut self.streams[stream];
        let deadline = now + ACK_DEADLINE_MS;
        for ((_, lease), waiting) in items.iter().zip(&expected) {
            made.leases.push(*lease, deadline);
            let (source, sequence) = (waiting.source.clone(), waiting.message.sequence);
            made.made.push(Made { source, sequence, deadline, state: State::Held });
        }
        if !items.is_empty() {
            made.leases.end_batch(items.len() as u64, deadline);
        }
        let dropped = std::mem::take(&mut inbox.lock().dropped);
        if dropped.is_empty() {
            return Ok(());
        }
        let passed = leased(&dropped);
        let ack = inbox.lock().acknowledge(dropped);
        let ending = inbox.lock().ending(ack.alone());
        let op: Op = Box::new(move |model, _| {
            let there = model.numbered(workspace).and_then(|workspace| workspace.sandboxes.get_mut(&sandbox));
            let swept = there.map_or(0, |there| passed.iter().filter(|at| there.sweep(**at, now)).count());
            Ok(Answer::Count(swept as u64))
        });
        self.apply(&[Verb::Ack(ack)], vec![op])?;
        self.settle(vec![(inbox, ending)])
    }

    /// The verb for what a subscriber says, or for what it does not say in time.
    pub(super) fn form_stream(
        &mut self,
        act: &Act,
        settling: &mut Vec<Settling>,
    ) -> Result<Option<(Verb, Op)>, String> {
        match act {
            Act::Ack { stream, ranges, lenient, .. } => self.ack(*stream, ranges, *lenient, settling),
            Act::Nack { stream, ranges, delay_ms, dead_letter } => {
                let Some(there) = self.streams.get_mut(*stream) else { return Ok(None) };
                let ranges = there.ids(ranges);
                let (leases, _, refused) = there.leases.take(&ranges, false);
                let (ended, _, reasons) = there.end(&ranges, false);
                agree("refused", refused.iter().map(|(.., why)| why.reason).collect::<Vec<_>>(), reasons)?;
                let (delay, dead_letter) = (*delay_ms, *dead_letter);
                let how = How { error: AttemptError::Nacked, text: "no".into(), delay, dead_letter };
                self.fail_leases(*stream, leases, ended, how, settling)
            }
            Act::Lapse { stream } => {
                let now = self.time;
                let Some(there) = self.streams.get_mut(*stream) else { return Ok(None) };
                let (leases, _) = there.leases.lapse(now);
                let mut ended = Vec::new();
                for made in there.made.iter_mut().filter(|made| made.state == State::Held && made.deadline <= now) {
                    made.state = State::Lapsed;
                    ended.push((made.source.clone(), made.sequence));
                }
                let how = How { error: AttemptError::Lapsed, text: "late".into(), delay: None, dead_letter: false };
                self.fail_leases(*stream, leases, ended, how, settling)
            }
            Act::Break { stream } => {
                let Some(there) = self.streams.get_mut(*stream) else { return Ok(None) };
                let leases = there.leases.take_all();
                let mut ended = Vec::new();
                for made in there.made.iter_mut().filter(|made| made.state == State::Held) {
                    made.state = State::Done;
                    ended.push((made.source.clone(), made.sequence));
                }
                let (error, delay) = (AttemptError::StreamBroken, Some(0));
                let how = How { error, text: "broke".into(), delay, dead_letter: false };
                self.fail_leases(*stream, leases, ended, how, settling)
            }
            _ => Ok(None),
        }
    }

    fn ack(
        &mut self,
        stream: usize,
        ranges: &[(u64, u64)],
        lenient: bool,
        settling: &mut Vec<Settling>,
    ) -> Result<Option<(Verb, Op)>, String> {
        let Some(there) = self.streams.get_mut(stream) else { return Ok(None) };
        let (workspace, number, inbox) = (there.workspace, there.sandbox, there.inbox.clone());
        let ranges = there.ids(ranges);
        let (mut leases, mut late, refused) = there.leases.take(&ranges, lenient);
        let (mut ended, mut late_ended, reasons) = there.end(&ranges, lenient);
        agree("refused", refused.iter().map(|(.., why)| why.reason).collect::<Vec<_>>(), reasons)?;
        late.retain(|(_, lease)| !inbox.lock().holds_ready(lease.lane.priority, lease.sequence));
        let held_by_others = self.sandbox(workspace, number).map_or(Vec::new(), |sandbox| {
            let alone = sandbox.inbox.iter().filter(|waiting| waiting.leased && waiting.source == Source::Alone);
            alone.map(|waiting| waiting.message.sequence).collect::<Vec<_>>()
        });
        late_ended.retain(|(_, sequence)| !held_by_others.contains(sequence));
        leases.extend(late.into_iter().map(|(_, lease)| lease.on_its_own()));
        ended.extend(late_ended);
        agree("acknowledged", leased(&leases), sequences(&ended))?;
        if leases.is_empty() {
            return Ok(None);
        }
        let ack = inbox.lock().acknowledge(leases);
        let ending = inbox.lock().ending(ack.alone());
        settling.push((inbox, ending));
        let op: Op = Box::new(move |model, _| {
            let there = model.numbered(workspace).and_then(|workspace| workspace.sandboxes.get_mut(&number));
            let Some(there) = there else { return Ok(Answer::Refused(Reason::LeaseLost)) };
            let gone = ended.iter().filter(|(source, sequence)| there.remove(source, *sequence).is_some());
            Ok(Answer::Count(gone.count() as u64))
        });
        Ok(Some((Verb::Ack(ack), op)))
    }

    fn fail_leases(
        &mut self,
        stream: usize,
        leases: Vec<Lease>,
        ended: Vec<Ended>,
        how: How,
        settling: &mut Vec<Settling>,
    ) -> Result<Option<(Verb, Op)>, String> {
        agree("failed", leased(&leases), sequences(&ended))?;
        if leases.is_empty() {
            return Ok(None);
        }
        let Stream { inbox, workspace, sandbox, .. } = &self.streams[stream];
        let (workspace, sandbox) = (*workspace, *sandbox);
        let (messages, finished) = inbox.lock().fail(leases);
        let nack = Nack {
            workspace,
            sandbox,
            messages,
            finished,
            error: how.error,
            text: Bytes::from(how.text.clone()),
            delay_ms: how.delay,
            dead_letter: how.dead_letter,
        };
        let ending = inbox.lock().ending(nack.alone());
        settling.push((inbox.clone(), ending));
        let op: Op = Box::new(move |model, chosen| {
            if model.numbered(workspace).is_none_or(|there| !there.sandboxes.contains_key(&sandbox)) {
                return Ok(Answer::Refused(Reason::LeaseLost));
            }
            let (mut deferred, mut dead) = (0, 0);
            for (source, sequence) in &ended {
                match model.fail(workspace, sandbox, (source, *sequence), &how, chosen)? {
                    Some(true) => dead += 1,
                    Some(false) => deferred += 1,
                    None => {}
                }
            }
            Ok(Answer::Counts(deferred, dead))
        });
        Ok(Some((Verb::Nack(nack), op)))
    }

    /// The stream ends: what it holds goes back without a failed attempt.
    pub(super) fn close(&mut self, stream: usize) -> Result<(), String> {
        if stream >= self.streams.len() {
            return Ok(());
        }
        let mut gone = self.streams.remove(stream);
        let ended = gone.inbox.lock().ended.is_some();
        for lease in gone.leases.take_all() {
            gone.inbox.lock().give_back(lease);
        }
        self.shard.delivery.close(&gone.inbox);
        let key = (gone.workspace, gone.sandbox);
        let last = !self.streams.iter().any(|other| (other.workspace, other.sandbox) == key);
        if let Some(sandbox) = self.sandbox(gone.workspace, gone.sandbox) {
            for made in gone.made.iter().filter(|made| made.state == State::Held) {
                sandbox.give_back(&made.source, made.sequence);
            }
            // With the last stream the queue goes, and with it who was next of a key.
            if last || ended {
                sandbox.inbox.iter_mut().for_each(|waiting| waiting.turn = false);
            }
        }
        Ok(())
    }
}

impl Stream {
    /// Ranges of ids around the newest ones, some of them never made.
    fn ids(&self, ranges: &[(u64, u64)]) -> Vec<(u64, u64)> {
        let from = (self.made.len() as u64).saturating_sub(7);
        ranges.iter().map(|(first, more)| (from + first, from + first + more)).collect()
    }
}

/// What can be seen of a message that is handed out.
pub(super) type Told = (u64, u8, u32, u64, u8, u64, Bytes);

pub(super) fn told(item: &Item) -> Told {
    let record = item.message.record();
    let body = Bytes::copy_from_slice(record.body);
    let sequence = item.message.sequence();
    (sequence, item.lane.priority, item.attempt, item.expires_ms, record.hops, record.ordering, body)
}

impl Waiting {
    pub(super) fn told(&self) -> Told {
        let Message { sequence, priority, hops, key, ref body, .. } = self.message;
        (sequence, priority, self.attempt, self.expires, hops, key, body.clone())
    }
}
