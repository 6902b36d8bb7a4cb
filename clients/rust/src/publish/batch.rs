//! Messages in the form they have on the wire, one after the other.

use bytes::{BufMut as _, BytesMut};
use prost::Message as _;

use crate::Message;

/// Tag of `messages` in `PublishStreamRequest`: field 3, length-delimited.
const MESSAGES_TAG: u8 = 3 << 3 | 2;

/// Messages that go out as one request. Each is encoded once, into one buffer, when it is added.
///
/// The broker takes at most 1,000 messages in a batch unless its settings say otherwise.
#[derive(Debug, Default)]
pub struct Batch {
    body: BytesMut,
    messages: u32,
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty batch with room for so many encoded bytes.
    pub fn with_capacity(bytes: usize) -> Self {
        Self { body: BytesMut::with_capacity(bytes), messages: 0 }
    }

    /// Adds a message. Its fields of the broker must not be set.
    pub fn push(&mut self, message: &Message) {
        self.begin(message.encoded_len());
        message.encode_raw(&mut self.body);
    }

    /// Adds a message that is encoded already. Bytes that are no message are refused by the broker, not here.
    pub fn push_encoded(&mut self, message: &[u8]) {
        self.begin(message.len());
        self.body.put_slice(message);
    }

    fn begin(&mut self, message_bytes: usize) {
        self.messages += 1;
        self.body.reserve(message_bytes + 1 + prost::length_delimiter_len(message_bytes));
        self.body.put_u8(MESSAGES_TAG);
        prost::encode_length_delimiter(message_bytes, &mut self.body).expect("a BytesMut has room for any length");
    }

    /// How many messages it holds.
    pub fn len(&self) -> usize {
        self.messages as usize
    }

    /// Whether it holds no message.
    pub fn is_empty(&self) -> bool {
        self.messages == 0
    }

    /// Bytes of the messages as encoded, with what separates them.
    pub fn encoded_bytes(&self) -> usize {
        self.body.len()
    }

    pub(crate) fn into_body(self) -> BytesMut {
        self.body
    }
}

impl<'a> Extend<&'a Message> for Batch {
    fn extend<I: IntoIterator<Item = &'a Message>>(&mut self, messages: I) {
        for message in messages {
            self.push(message);
        }
    }
}

impl<'a> FromIterator<&'a Message> for Batch {
    fn from_iter<I: IntoIterator<Item = &'a Message>>(messages: I) -> Self {
        let mut batch = Self::new();
        batch.extend(messages);
        batch
    }
}
