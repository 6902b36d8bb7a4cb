//! What one stream holds: credit, and a lease for every message it was sent and is not done with.

use std::{sync::Arc, task::Waker, time::Instant};

use bytes::{BufMut, Bytes, BytesMut};

use super::{
    Delivery, SharedInbox,
    inbox::{Ended, InboxQueue, Taking},
    lane::{Item, Lease},
    leases::{Leases, Refused},
};
use crate::{
    batch::{MessageRef, Record},
    clock,
    command::{Ack, Nack, nack::AttemptError},
    config::Limits,
    leader_time::LeaderTime,
    machine::StateError,
    message::put_varint,
    rejection::{Reason, Rejection},
    sealing::Sealer,
};

#[cfg(test)]
thread_local! {
    /// A fault that a simulation builds in: a lease that has lapsed acknowledges whoever holds the message now.
    pub(crate) static STALE_LEASES_COUNT: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// Messages in one response at the most.
const MAX_RESPONSE_MESSAGES: usize = 512;
/// Bytes of messages after which a response is sent.
const MAX_RESPONSE_BYTES: i64 = 256 << 10;
/// Failed deliveries in one command.
const MAX_NACK_MESSAGES: usize = 4_096;

/// What a subscriber asks for when it opens.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SubscriptionOptions {
    /// How long a delivery may take, in milliseconds.
    pub(crate) ack_deadline_ms: u64,
    /// An ack after the deadline counts as long as nobody else works on the message.
    pub(crate) lenient: bool,
    /// Of 100 messages, how many are not of the highest priority that waits.
    pub(crate) low_priority_percent: u32,
}

/// One stream's part of an inbox. Dropping it gives back what it holds.
pub(crate) struct Subscription {
    delivery: Arc<Delivery>,
    time: Arc<LeaderTime>,
    inbox: SharedInbox,
    workspace_name: String,
    limits: Limits,
    options: SubscriptionOptions,
    opened: Instant,
    credit_messages: i64,
    credit_bytes: i64,
    leases: Leases,
    taken: Vec<(Item, Lease)>,
    had_credit: bool,
    last_batch_len: u64,
    /// Why the subscription ends once what came before it was handed out.
    unreadable: Option<Rejection>,
}

impl Subscription {
    /// Opens the inbox of a sandbox. `time` is that of its shard.
    pub(crate) fn open(
        (delivery, time): (Arc<Delivery>, Arc<LeaderTime>),
        workspace: &str,
        sandbox: &str,
        limits: Limits,
        options: SubscriptionOptions,
        first_delivery: u64,
    ) -> Result<Self, crate::query::QueryError> {
        let inbox = delivery.open(workspace, sandbox)?;
        Ok(Self {
            delivery,
            time,
            inbox,
            workspace_name: workspace.to_owned(),
            limits,
            options,
            opened: clock::now(),
            credit_messages: 0,
            credit_bytes: 0,
            leases: Leases::starting_at(first_delivery),
            taken: Vec::new(),
            had_credit: false,
            last_batch_len: 0,
            unreadable: None,
        })
    }

    /// Adds credit.
    pub(crate) fn add_credit(&mut self, messages: u32, bytes: u64) -> Result<(), Rejection> {
        let (limit_messages, limit_bytes) = (self.limits.max_credit_messages, self.limits.max_credit_bytes);
        let new_messages = self.credit_messages + i64::from(messages);
        let new_bytes = i64::try_from(bytes).ok().and_then(|bytes| self.credit_bytes.checked_add(bytes));
        match new_bytes {
            Some(new_bytes) if new_messages <= i64::from(limit_messages) && new_bytes <= limit_bytes as i64 => {
                self.had_credit |= messages > 0 && bytes > 0;
                self.credit_messages = new_messages;
                self.credit_bytes = new_bytes;
                Ok(())
            }
            _ => {
                let text = format!(
                    "credit of {messages} messages and {bytes} bytes would bring what is outstanding above the limit of \
                     {limit_messages} messages and {limit_bytes} bytes; give less"
                );
                Err(Rejection::new(Reason::CreditTooLarge, text))
            }
        }
    }

    /// Whether the subscriber has ever given credit for messages and for bytes.
    pub(crate) fn had_credit(&self) -> bool {
        self.had_credit
    }

    /// The next deliveries, as an encoded `DeliveryBatch`; nothing when there are none or there is no credit, and then
    /// the waker is called once that changes.
    pub(crate) fn next(&mut self, waker: &Waker) -> Result<Option<Bytes>, Stop> {
        if let Some(rejection) = self.unreadable.take() {
            return Err(Stop::Unreadable(rejection));
        }
        let mut queue = self.inbox.lock();
        if let Some(why) = &queue.ended {
            return Err(Stop::Ended(why.clone()));
        }
        let room = self.limits.max_unacknowledged.saturating_sub(self.leases.span());
        if self.credit_messages <= 0 || self.credit_bytes <= 0 || room == 0 {
            // An end of the inbox must be heard also without credit. An ack, which makes room, comes through this stream.
            queue.wait(waker);
            return Ok(None);
        }
        if !self.delivery.may_lend() {
            queue.wait(waker);
            return Ok(None);
        }
        let taking = Taking {
            limit: MAX_RESPONSE_MESSAGES.min(self.credit_messages as usize).min(room),
            low_priority_percent: self.options.low_priority_percent,
            now_ms: self.time.now_ms(),
        };
        let mut bytes_left = self.credit_bytes.min(MAX_RESPONSE_BYTES);
        let accept = |lease: &Lease| {
            bytes_left -= i64::from(lease.bytes);
            bytes_left > 0
        };
        let more = queue.take(taking, accept, &mut self.taken).map_err(Stop::State)?;
        if self.taken.is_empty() {
            if more {
                // Others have their turn first.
                waker.wake_by_ref();
            } else {
                queue.wait(waker);
            }
            return Ok(None);
        }
        drop(queue);
        self.last_batch_len = self.taken.len() as u64;
        let deadline_ms = self.elapsed_ms() + self.options.ack_deadline_ms;
        let mut out = BytesMut::with_capacity(self.taken.len() * 384);
        for (item, lease) in self.taken.drain(..) {
            let id = self.leases.push(lease, deadline_ms);
            // What comes behind one that cannot be read goes back with the subscription, and so does that one.
            if self.unreadable.is_some() {
                continue;
            }
            match encode_delivery(id, &item, (self.delivery.sealer(), &self.workspace_name), &mut out) {
                Ok(message_bytes) => {
                    self.credit_messages -= 1;
                    // The subscriber gives back what it sees: the length of the message, not of its frame.
                    self.credit_bytes -= message_bytes as i64;
                }
                Err(rejection) => self.unreadable = Some(rejection),
            }
        }
        self.leases.end_batch(self.last_batch_len, deadline_ms);
        match self.unreadable.take_if(|_| out.is_empty()) {
            Some(rejection) => Err(Stop::Unreadable(rejection)),
            None => Ok(Some(out.freeze())),
        }
    }

    /// How many deliveries the newest batch has.
    pub(crate) fn last_batch_len(&self) -> u64 {
        self.last_batch_len
    }

    /// Milliseconds since the subscription was opened: what the deadlines of its leases count in.
    pub(crate) fn elapsed_ms(&self) -> u64 {
        clock::now().saturating_duration_since(self.opened).as_millis() as u64
    }

    /// When the next lease may lapse, on the same scale.
    pub(crate) fn next_deadline_ms(&self) -> Option<u64> {
        self.leases.next_deadline_ms()
    }

    /// Messages that nobody is to get, and that have to be acknowledged in the name of the subscribers.
    pub(crate) fn dropped(&mut self) -> Option<Ack> {
        let mut queue = self.inbox.lock();
        if queue.has_lost_leases() {
            return None;
        }
        let dropped = std::mem::take(&mut queue.dropped);
        (!dropped.is_empty()).then(|| queue.acknowledge(dropped))
    }

    /// Ends the leases of these deliveries. What can be acknowledged becomes one command; the rest are refused.
    pub(crate) fn acknowledge(&mut self, ranges: &[(u64, u64)]) -> (Option<Ack>, Vec<Refused>) {
        let mut queue = self.inbox.lock();
        if queue.has_lost_leases() {
            return (None, lost(ranges));
        }
        let lenient = self.options.lenient;
        #[cfg(test)]
        let lenient = lenient || STALE_LEASES_COUNT.get();
        let (mut leases, late, mut refused) = self.leases.take(ranges, lenient);
        for (id, lease) in late {
            #[cfg(test)]
            if STALE_LEASES_COUNT.get() {
                leases.push(lease.on_its_own());
                continue;
            }
            if queue.holds_ready(lease.lane.priority, lease.sequence) {
                let text = format!(
                    "the ack deadline of delivery {id} has passed, and its message is another delivery by now; that one counts"
                );
                refused.push((id, id, Rejection::new(Reason::LeaseLost, text)));
            } else {
                // What lapsed waits on its own now, whatever lane it came from.
                leases.push(lease.on_its_own());
            }
        }
        ((!leases.is_empty()).then(|| queue.acknowledge(leases)), refused)
    }

    /// Ends the leases of these deliveries as failed.
    pub(crate) fn refuse(&mut self, ranges: &[(u64, u64)], how: Failure) -> (Vec<Nack>, Vec<Refused>) {
        let mut queue = self.inbox.lock();
        if queue.has_lost_leases() {
            return (Vec::new(), lost(ranges));
        }
        let (leases, _, refused) = self.leases.take(ranges, false);
        (nacks(&mut queue, &leases, &how), refused)
    }

    /// Prolongs the leases of these deliveries; returns how many there were.
    pub(crate) fn extend(&mut self, ranges: &[(u64, u64)], ack_deadline_ms: Option<u64>) -> (u64, Vec<Refused>) {
        let deadline_ms = self.elapsed_ms() + ack_deadline_ms.unwrap_or(self.options.ack_deadline_ms);
        self.leases.extend(ranges, deadline_ms)
    }

    /// Ends the leases whose deadline has passed. Returns the ranges of their ids.
    pub(crate) fn lapse(&mut self) -> (Vec<Nack>, Vec<(u64, u64)>) {
        let (leases, ids) = self.leases.lapse(self.elapsed_ms());
        let text = format!("no ack within {} ms", self.options.ack_deadline_ms);
        let how = Failure { error: AttemptError::Lapsed, text: text.into(), delay_ms: None, dead_letter: false };
        (self.fail(&leases, &how), ids)
    }

    /// The stream broke: all that it holds has failed, and is to be attempted again at once.
    pub(crate) fn break_off(&mut self) -> Vec<Nack> {
        let text = Bytes::from_static(b"the stream broke");
        let how = Failure { error: AttemptError::StreamBroken, text, delay_ms: Some(0), dead_letter: false };
        let leases = self.leases.take_all();
        self.fail(&leases, &how)
    }

    /// What nobody said is not worth a command once all leases end anyway.
    fn fail(&mut self, leases: &[Lease], how: &Failure) -> Vec<Nack> {
        let mut queue = self.inbox.lock();
        if queue.ended.is_some() { Vec::new() } else { nacks(&mut queue, leases, how) }
    }

    /// Tells the inbox how an ack or a nack ended, of which `alone` are the messages that waited on their own. To be taken
    /// before it is handed in and called once, also after the stream has gone.
    pub(crate) fn settler(&self, alone: &mut dyn Iterator<Item = (u8, u64)>) -> impl FnOnce(bool) + Send + use<> {
        let (delivery, inbox) = (Arc::clone(&self.delivery), Arc::clone(&self.inbox));
        let mut alone = alone.peekable();
        // Who publishes takes this lock too, and as a rule nothing waited on its own.
        let ended = if alone.peek().is_none() { Vec::new() } else { inbox.lock().ending(alone) };
        move |durable| delivery.ack_settled(&inbox, &ended, durable)
    }
}

/// The commands that say that a subscription failed with these.
fn nacks(queue: &mut InboxQueue, leases: &[Lease], how: &Failure) -> Vec<Nack> {
    let (workspace, sandbox) = (queue.loader.workspace, queue.loader.sandbox);
    let nack = |leases: &[Lease]| {
        let (messages, finished) = queue.fail(leases.to_vec());
        Nack {
            workspace,
            sandbox,
            messages,
            finished,
            error: how.error,
            text: how.text.clone(),
            delay_ms: how.delay_ms,
            dead_letter: how.dead_letter,
        }
    };
    leases.chunks(MAX_NACK_MESSAGES).map(nack).collect()
}

/// Refuses all of it: another subscription may hold the same messages by now.
fn lost(ranges: &[(u64, u64)]) -> Vec<Refused> {
    let text = "the subscription's leases have ended; the messages come again";
    ranges.iter().map(|(first, last)| (*first, *last, Rejection::new(Reason::LeaseLost, text))).collect()
}

/// How deliveries failed.
pub(crate) struct Failure {
    pub(crate) error: AttemptError,
    /// UTF-8.
    pub(crate) text: Bytes,
    pub(crate) delay_ms: Option<u64>,
    pub(crate) dead_letter: bool,
}

impl Drop for Subscription {
    fn drop(&mut self) {
        {
            let mut queue = self.inbox.lock();
            let taken = self.taken.drain(..).map(|(_, lease)| lease);
            for lease in self.leases.take_all().into_iter().chain(taken) {
                queue.give_back(lease);
            }
        }
        self.delivery.close(&self.inbox);
    }
}

/// Why a subscription has nothing more to give.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The inbox serves nobody any more.
    Ended(Ended),
    /// The state cannot be read.
    State(StateError),
    /// The content of a message cannot be decrypted.
    Unreadable(Rejection),
}

/// Appends one `deliveries` field of a `DeliveryBatch`. By hand, because the message is bytes already: its fields, and
/// behind them those of the broker, which protobuf reads as one message. Returns the length of the message.
fn encode_delivery(
    id: u64,
    item: &Item,
    (sealer, workspace): (&Sealer, &str),
    out: &mut BytesMut,
) -> Result<usize, Rejection> {
    let (attempt, message) = (item.attempt, &item.message);
    let record = message.record();
    let body = sealer.open(workspace, record.body).map_err(|why| why.of_message(message.sequence()))?;
    let tail = broker_fields(message, &record, workspace);
    let message_length = body.len() + tail.len();
    let attempt_length = 1 + varint_length(u64::from(attempt));
    let length = 1 + varint_length(id) + attempt_length + 1 + varint_length(message_length as u64) + message_length;
    out.put_u8(0x0a); // deliveries, length-delimited
    put_varint(out, length as u64);
    out.put_u8(0x08); // delivery_id, varint
    put_varint(out, id);
    out.put_u8(0x10); // attempt, varint
    put_varint(out, u64::from(attempt));
    out.put_u8(0x1a); // message, length-delimited
    put_varint(out, message_length as u64);
    out.put_slice(&body);
    out.put_slice(&tail);
    Ok(message_length)
}

/// A message as it is handed out: its own bytes and the fields of the broker.
pub(crate) fn encode_message(sealer: &Sealer, message: &MessageRef, workspace: &str) -> Result<Bytes, Rejection> {
    let record = message.record();
    let body = sealer.open(workspace, record.body).map_err(|why| why.of_message(message.sequence()))?;
    let tail = broker_fields(message, &record, workspace);
    let mut out = BytesMut::with_capacity(body.len() + tail.len());
    out.put_slice(&body);
    out.put_slice(&tail);
    Ok(out.freeze())
}

fn broker_fields(message: &MessageRef, record: &Record<'_>, workspace: &str) -> BytesMut {
    let mut out = BytesMut::with_capacity(workspace.len() + 64);
    let sequence = message.sequence();
    if record.id.is_empty() {
        let id = format!("{}{sequence}", crate::message::SEQUENCE_ID_PREFIX);
        out.put_u8(0x0a); // message_id
        put_varint(&mut out, id.len() as u64);
        out.put_slice(id.as_bytes());
    }
    out.put_slice(&[0xf2, 0x01]); // workspace_id
    put_varint(&mut out, workspace.len() as u64);
    out.put_slice(workspace.as_bytes());
    out.put_slice(&[0xf8, 0x01]); // sequence
    put_varint(&mut out, sequence);
    let (seconds, nanos) = (message.batch.time_ms / 1000, message.batch.time_ms % 1000 * 1_000_000);
    out.put_slice(&[0x82, 0x02]); // server_time
    let nanos_length = if nanos > 0 { 1 + varint_length(nanos) } else { 0 };
    put_varint(&mut out, (1 + varint_length(seconds) + nanos_length) as u64);
    out.put_u8(0x08);
    put_varint(&mut out, seconds);
    if nanos > 0 {
        out.put_u8(0x10);
        put_varint(&mut out, nanos);
    }
    let hops = record.hops;
    if hops > 0 {
        out.put_slice(&[0x88, 0x02]); // hop_count
        put_varint(&mut out, u64::from(hops));
    }
    out
}

fn varint_length(value: u64) -> usize {
    ((u64::BITS - (value | 1).leading_zeros()) as usize).div_ceil(7)
}

#[cfg(test)]
#[path = "subscription_tests.rs"]
mod tests;
