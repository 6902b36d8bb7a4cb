//! What one stream holds: credit, and a lease for every message it was sent and has not acknowledged.

use std::{collections::VecDeque, sync::Arc, task::Waker};

use bytes::{BufMut, Bytes, BytesMut};

use super::{
    Delivery, SharedInbox,
    inbox::Ended,
    lane::{Item, Lease},
};
use crate::{
    batch::MessageRef,
    command::Ack,
    config::Limits,
    machine::StateError,
    rejection::{Reason, Rejection},
};

/// Messages in one response at the most.
const MAX_RESPONSE_MESSAGES: usize = 512;
/// Bytes of messages after which a response is sent.
const MAX_RESPONSE_BYTES: i64 = 256 << 10;

/// One stream's part of an inbox. Dropping it gives back what it holds.
pub(crate) struct Subscription {
    delivery: Arc<Delivery>,
    inbox: SharedInbox,
    workspace_name: String,
    limits: Limits,
    credit_messages: i64,
    credit_bytes: i64,
    /// Leases by delivery id, from `first_id` on; none where the delivery is acknowledged.
    leases: VecDeque<Option<Lease>>,
    first_id: u64,
    taken: Vec<Item>,
    had_credit: bool,
    last_batch_len: u64,
}

impl Subscription {
    /// Opens the inbox of a sandbox.
    pub(crate) fn open(
        delivery: Arc<Delivery>,
        workspace: &str,
        sandbox: &str,
        limits: Limits,
    ) -> Result<Self, crate::query::QueryError> {
        let inbox = delivery.open(workspace, sandbox)?;
        Ok(Self {
            delivery,
            inbox,
            workspace_name: workspace.to_owned(),
            limits,
            credit_messages: 0,
            credit_bytes: 0,
            leases: VecDeque::new(),
            first_id: 1,
            taken: Vec::new(),
            had_credit: false,
            last_batch_len: 0,
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
        let mut queue = self.inbox.lock();
        if let Some(why) = &queue.ended {
            return Err(Stop::Ended(why.clone()));
        }
        let room = self.limits.max_unacknowledged.saturating_sub(self.leases.len());
        if self.credit_messages <= 0 || self.credit_bytes <= 0 || room == 0 {
            // An end of the inbox must be heard also without credit. An ack, which makes room, comes through this stream.
            queue.wait(waker);
            return Ok(None);
        }
        let limit = MAX_RESPONSE_MESSAGES.min(self.credit_messages as usize).min(room);
        let mut bytes_left = self.credit_bytes.min(MAX_RESPONSE_BYTES);
        let accept = |item: &Item| {
            bytes_left -= item.message.record().body.len() as i64;
            bytes_left > 0
        };
        queue.take(limit, accept, &mut self.taken).map_err(Stop::State)?;
        if self.taken.is_empty() {
            queue.wait(waker);
            return Ok(None);
        }
        drop(queue);
        self.last_batch_len = self.taken.len() as u64;
        let mut out = BytesMut::with_capacity(self.taken.len() * 384);
        for item in self.taken.drain(..) {
            let id = self.first_id + self.leases.len() as u64;
            let message_bytes = encode_delivery(id, &item.message, &self.workspace_name, &mut out);
            self.credit_messages -= 1;
            // The subscriber gives back what it sees: the length of the message, not of its frame.
            self.credit_bytes -= message_bytes as i64;
            self.leases.push_back(Some(item.lease()));
        }
        Ok(Some(out.freeze()))
    }

    /// How many deliveries the newest batch has.
    pub(crate) fn last_batch_len(&self) -> u64 {
        self.last_batch_len
    }

    /// Ends the leases of these deliveries. What can be acknowledged becomes one command; the rest are refused.
    pub(crate) fn acknowledge(&mut self, ranges: &[(u64, u64)]) -> Acknowledged {
        let mut leases = Vec::new();
        let mut refused = Vec::new();
        let next_id = self.first_id + self.leases.len() as u64;
        for &(first, last) in ranges {
            if first == 0 || first > last || last >= next_id {
                let text = format!(
                    "no delivery has an id from {first} to {last} here; this subscription made deliveries 1 to {}",
                    next_id - 1
                );
                refused.push((first, last, Rejection::new(Reason::UnknownDelivery, text)));
                continue;
            }
            let mut missing = first < self.first_id;
            for id in first.max(self.first_id)..=last {
                match self.leases[(id - self.first_id) as usize].take() {
                    Some(lease) => leases.push(lease),
                    None => missing = true,
                }
            }
            if missing {
                let text = format!("some of the deliveries {first} to {last} are acknowledged already");
                refused.push((first, last, Rejection::new(Reason::UnknownDelivery, text)));
            }
        }
        while self.leases.front().is_some_and(Option::is_none) {
            self.leases.pop_front();
            self.first_id += 1;
        }
        let command = (!leases.is_empty()).then(|| self.inbox.lock().acknowledge(leases));
        Acknowledged { command, refused }
    }

    /// Tells the inbox how an ack ended. To be called once for each ack, also after the stream has gone.
    pub(crate) fn settler(&self) -> impl FnOnce(bool) + Send + 'static {
        let (delivery, inbox) = (Arc::clone(&self.delivery), Arc::clone(&self.inbox));
        move |durable| delivery.ack_settled(&inbox, durable)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        {
            let mut queue = self.inbox.lock();
            let taken = self.taken.drain(..).map(|item| item.lease());
            for lease in self.leases.drain(..).flatten().chain(taken) {
                if let Some(lane) = queue.lane_mut(lease.lane) {
                    lane.give_back(lease);
                }
            }
        }
        self.delivery.close(&self.inbox);
    }
}

/// What an ack of a client comes to, before it is durable.
pub(crate) struct Acknowledged {
    /// To be committed; none when nothing could be acknowledged.
    pub(crate) command: Option<Ack>,
    /// First and last delivery id of a range, and why some or all of it is refused.
    pub(crate) refused: Vec<(u64, u64, Rejection)>,
}

/// Why a subscription has nothing more to give.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The inbox serves nobody any more.
    Ended(Ended),
    /// The state cannot be read.
    State(StateError),
}

/// Appends one `deliveries` field of a `DeliveryBatch`. By hand, because the message is bytes already: its fields, and
/// behind them those of the broker, which protobuf reads as one message. Returns the length of the message.
fn encode_delivery(id: u64, message: &MessageRef, workspace: &str, out: &mut BytesMut) -> usize {
    let record = message.record();
    let tail = broker_fields(message, workspace);
    let message_length = record.body.len() + tail.len();
    let length = 1 + varint_length(id) + 2 + 1 + varint_length(message_length as u64) + message_length;
    out.put_u8(0x0a); // deliveries, length-delimited
    put_varint(out, length as u64);
    out.put_u8(0x08); // delivery_id, varint
    put_varint(out, id);
    out.put_slice(&[0x10, 1]); // attempt, varint
    out.put_u8(0x1a); // message, length-delimited
    put_varint(out, message_length as u64);
    out.put_slice(record.body);
    out.put_slice(&tail);
    message_length
}

/// A message as it is handed out: its own bytes and the fields of the broker.
pub(crate) fn encode_message(message: &MessageRef, workspace: &str) -> Bytes {
    let body = message.record().body;
    let tail = broker_fields(message, workspace);
    let mut out = BytesMut::with_capacity(body.len() + tail.len());
    out.put_slice(body);
    out.put_slice(&tail);
    out.freeze()
}

fn broker_fields(message: &MessageRef, workspace: &str) -> BytesMut {
    let mut out = BytesMut::with_capacity(workspace.len() + 64);
    let sequence = message.sequence();
    if message.record().id.is_empty() {
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
    out
}

fn varint_length(value: u64) -> usize {
    ((u64::BITS - (value | 1).leading_zeros()) as usize).div_ceil(7)
}

fn put_varint(out: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

#[cfg(test)]
#[path = "subscription_tests.rs"]
mod tests;
