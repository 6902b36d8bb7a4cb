//! What travels: content that says who sent it, when, and the how manieth it is.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use prost::Message as _;
use tandem_client::{Batch, Destination, Message, MessageType, wire_duration, wire_time};

use crate::exit::Failure;

/// Bytes of content that carry a meaning; the rest is padding. The arguments ask for at least that many.
pub(super) const STAMP_BYTES: usize = 24;

/// The first bytes of every content, big-endian in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    /// When the message was sent, by [`clock::nanos`](crate::clock::nanos).
    pub(super) sent_nanos: u64,
    /// Counts the messages of this sender to this recipient, from 1.
    pub(super) count: u64,
    pub(super) sender: u32,
    pub(super) recipient: u32,
}

impl Stamp {
    fn write(self, to: &mut [u8]) {
        to[..8].copy_from_slice(&self.sent_nanos.to_be_bytes());
        to[8..16].copy_from_slice(&self.count.to_be_bytes());
        to[16..20].copy_from_slice(&self.sender.to_be_bytes());
        to[20..24].copy_from_slice(&self.recipient.to_be_bytes());
    }

    fn read(content: &[u8]) -> Option<Self> {
        let (sent, rest) = content.split_first_chunk()?;
        let (count, rest) = rest.split_first_chunk()?;
        let (sender, rest) = rest.split_first_chunk()?;
        let (recipient, _) = rest.split_first_chunk()?;
        Some(Self {
            sent_nanos: u64::from_be_bytes(*sent),
            count: u64::from_be_bytes(*count),
            sender: u32::from_be_bytes(*sender),
            recipient: u32::from_be_bytes(*recipient),
        })
    }
}

/// What each message carries beside its content.
#[derive(Debug, Clone, Default)]
pub(super) struct Shape {
    /// Bytes of content.
    pub(super) size: usize,
    /// Whether it has an ordering key, made of the recipient in its stamp.
    pub(super) keyed: bool,
    /// Whether it has an id, made of its stamp.
    pub(super) ids: bool,
    pub(super) ttl: Option<Duration>,
    /// Not delivered before this time.
    pub(super) not_before: Option<SystemTime>,
}

/// A message that is encoded once; only what comes from its stamp changes from one use to the next.
#[derive(Debug, Clone)]
pub(super) struct Template {
    encoded: Vec<u8>,
    /// Where the content begins.
    content_at: usize,
    /// Where the digits of the ordering key begin.
    key_at: Option<usize>,
    /// Where the digits of the id begin.
    id_at: Option<usize>,
}

/// Digits of an ordering key.
const KEY_DIGITS: usize = 8;
/// Digits of an id: sender, recipient, count.
const ID_DIGITS: usize = 32;

impl Template {
    pub(super) fn new(from: String, to: Destination, shape: &Shape) -> Self {
        let content = vec![b'x'; shape.size.max(STAMP_BYTES)];
        let begin = Message {
            message_id: if shape.ids { "0".repeat(ID_DIGITS) } else { String::new() },
            from_sandbox_id: from,
            destination: Some(to),
            r#type: MessageType::Notification.into(),
            content: content.into(),
            ..Message::default()
        };
        // Fields are encoded in the order of their numbers: the id is the first, and the ordering key is the last but the time.
        let content_at = begin.encoded_len() - begin.content.len();
        let keyed = Message {
            ttl: shape.ttl.map(wire_duration),
            ordering_key: if shape.keyed { "0".repeat(KEY_DIGITS) } else { String::new() },
            ..begin
        };
        let key_at = shape.keyed.then(|| keyed.encoded_len() - KEY_DIGITS);
        let id_at = shape.ids.then_some(2);
        let message = Message { not_before: shape.not_before.map(wire_time), ..keyed };
        Self { encoded: message.encode_to_vec(), content_at, key_at, id_at }
    }

    pub(super) fn push_to(&mut self, batch: &mut Batch, stamp: Stamp) {
        self.stamp(stamp);
        batch.push_encoded(&self.encoded);
    }

    /// The same as a message, for single calls.
    pub(super) fn stamped(&mut self, stamp: Stamp) -> Result<Message, Failure> {
        self.stamp(stamp);
        Message::decode(self.encoded.as_slice()).map_err(|error| Failure::failed("ENCODING", error.to_string()))
    }

    fn stamp(&mut self, stamp: Stamp) {
        stamp.write(&mut self.encoded[self.content_at..]);
        if let Some(at) = self.key_at {
            hexadecimal(stamp.recipient.into(), &mut self.encoded[at..at + KEY_DIGITS]);
        }
        if let Some(at) = self.id_at {
            let (sender, rest) = self.encoded[at..at + ID_DIGITS].split_at_mut(8);
            let (recipient, count) = rest.split_at_mut(8);
            hexadecimal(stamp.sender.into(), sender);
            hexadecimal(stamp.recipient.into(), recipient);
            hexadecimal(stamp.count, count);
        }
    }

    pub(super) fn encoded_bytes(&self) -> usize {
        self.encoded.len()
    }
}

/// Writes the lowest digits of a number, as many as there is room for.
fn hexadecimal(mut number: u64, digits: &mut [u8]) {
    for digit in digits.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(number & 15) as usize];
        number >>= 4;
    }
}

/// The two fields of a message that a measurement needs; the decoder skips the others, which spares their strings. Tags as in
/// `aintandem.messaging.v1.Message`; a test holds them together.
#[derive(Clone, PartialEq, Eq, prost::Message)]
struct Glance {
    #[prost(bytes = "bytes", tag = "7")]
    content: Bytes,
    #[prost(uint64, tag = "31")]
    sequence: u64,
}

/// The sequence and the stamp of an encoded message.
pub(super) fn look(message: &Bytes) -> Result<(u64, Stamp), Failure> {
    let foreign = || Failure::failed("FOREIGN_MESSAGE", "a message arrived that this benchmark did not send");
    let glance = Glance::decode(message.clone()).map_err(|_| foreign())?;
    Ok((glance.sequence, Stamp::read(&glance.content).ok_or_else(foreign)?))
}

#[cfg(test)]
mod tests {
    use tandem_client::to_sandbox;

    use super::*;

    const STAMP: Stamp = Stamp { sent_nanos: 1 << 40, count: 2, sender: 3, recipient: 4 };

    #[test]
    fn a_stamped_template_is_the_message() {
        for size in [24, 100, 300] {
            let shape = Shape { size, ..Shape::default() };
            let mut template = Template::new("publisher-1".to_owned(), to_sandbox("inbox-1"), &shape);
            let sent = template.stamped(STAMP).expect("a message");
            assert_eq!((sent.content.len(), sent.from_sandbox_id.as_str()), (size, "publisher-1"));
            assert_eq!((sent.message_id.as_str(), sent.ordering_key.as_str()), ("", ""));
            assert_eq!(sent.encode_to_vec(), template.encoded);
            assert_eq!(Stamp::read(&sent.content), Some(STAMP));
        }
    }

    #[test]
    fn key_and_id_come_from_the_stamp() {
        let shape = Shape {
            size: 300,
            keyed: true,
            ids: true,
            ttl: Some(Duration::from_secs(90)),
            not_before: Some(SystemTime::UNIX_EPOCH + Duration::from_millis(1_500)),
        };
        let mut template = Template::new("publisher-1".to_owned(), to_sandbox("inbox-1"), &shape);
        let first = template.stamped(STAMP).expect("a message");
        let other = Stamp { count: 3, recipient: 0xabc, ..STAMP };
        let second = template.stamped(other).expect("a message");
        assert_eq!((first.ordering_key.as_str(), second.ordering_key.as_str()), ("00000004", "00000abc"));
        assert_eq!(first.message_id, "00000003000000040000000000000002");
        assert_eq!(second.message_id, "0000000300000abc0000000000000003");
        assert_eq!(Stamp::read(&second.content), Some(other));
        assert_eq!(second.ttl.map(|ttl| ttl.seconds), Some(90));
        assert_eq!(second.not_before.map(|time| (time.seconds, time.nanos)), Some((1, 500_000_000)));
    }

    #[test]
    fn a_look_sees_what_the_broker_added() {
        let mut template = Template::new("a".to_owned(), to_sandbox("b"), &Shape { size: 64, ..Shape::default() });
        let delivered =
            Message { sequence: 77, workspace_id: "w".into(), ..template.stamped(STAMP).expect("a message") };
        assert_eq!(look(&delivered.encode_to_vec().into()).ok(), Some((77, STAMP)));
        let foreign = Message { content: "short".into(), ..Message::default() };
        assert!(look(&foreign.encode_to_vec().into()).is_err());
    }
}
