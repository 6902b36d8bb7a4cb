//! What travels: content that says who sent it, when, and the how manieth it is.

use bytes::Bytes;
use prost::Message as _;
use tandem_client::{Batch, Destination, Message, MessageType};

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

/// A message that is encoded once; only its stamp changes from one use to the next.
#[derive(Debug, Clone)]
pub(super) struct Template {
    encoded: Vec<u8>,
    /// Where the content begins.
    content_at: usize,
}

impl Template {
    pub(super) fn new(from: String, to: Destination, size: usize) -> Self {
        let message = message(from, to, vec![b'x'; size.max(STAMP_BYTES)].into());
        let encoded = message.encode_to_vec();
        // Content is the last field that is set, and fields are encoded in order.
        let content_at = encoded.len() - message.content.len();
        Self { encoded, content_at }
    }

    pub(super) fn push_to(&mut self, batch: &mut Batch, stamp: Stamp) {
        stamp.write(&mut self.encoded[self.content_at..]);
        batch.push_encoded(&self.encoded);
    }

    /// The same as a message, for single calls.
    pub(super) fn stamped(&mut self, stamp: Stamp) -> Result<Message, Failure> {
        stamp.write(&mut self.encoded[self.content_at..]);
        Message::decode(self.encoded.as_slice()).map_err(|error| Failure::failed("ENCODING", error.to_string()))
    }

    pub(super) fn encoded_bytes(&self) -> usize {
        self.encoded.len()
    }
}

fn message(from: String, to: Destination, content: Bytes) -> Message {
    Message {
        from_sandbox_id: from,
        destination: Some(to),
        r#type: MessageType::Notification.into(),
        content,
        ..Message::default()
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
            let mut template = Template::new("publisher-1".to_owned(), to_sandbox("inbox-1"), size);
            let sent = template.stamped(STAMP).expect("a message");
            assert_eq!((sent.content.len(), sent.from_sandbox_id.as_str()), (size, "publisher-1"));
            assert_eq!(sent.encode_to_vec(), template.encoded);
            assert_eq!(Stamp::read(&sent.content), Some(STAMP));
        }
    }

    #[test]
    fn a_look_sees_what_the_broker_added() {
        let mut template = Template::new("a".to_owned(), to_sandbox("b"), 64);
        let delivered =
            Message { sequence: 77, workspace_id: "w".into(), ..template.stamped(STAMP).expect("a message") };
        assert_eq!(look(&delivered.encode_to_vec().into()).ok(), Some((77, STAMP)));
        let foreign = Message { content: "short".into(), ..Message::default() };
        assert!(look(&foreign.encode_to_vec().into()).is_err());
    }
}
