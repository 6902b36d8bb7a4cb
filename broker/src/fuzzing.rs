//! Doors for fuzzing: every decoder that sees bytes from outside or from disk. Not part of the interface.

use bytes::{Bytes, BytesMut};

use crate::{
    batch::Batch,
    command,
    config::Limits,
    encoding::Field as _,
    machine::{
        dead_letter::DeadLetter,
        events::Event,
        follow::TopicCursors,
        inbox::Inbox,
        parked::Parked,
        request::WaitingRequest,
        state::{KnownId, Sandbox, Shard},
        topic::Topic,
        workspace::Workspace,
    },
    message,
};

/// Reads an encoded message as a publish does. Whatever is accepted here, generated code must accept too.
pub fn message(bytes: &[u8]) -> bool {
    let mut record = BytesMut::new();
    if message::encode_record(bytes, &Limits::default(), &message::Envelope::default(), &mut record).is_err() {
        return false;
    }
    let mut batch = BytesMut::new();
    crate::batch::encode_header(1, 1, &mut batch);
    batch.extend_from_slice(&record);
    let batch = Batch::decode(1, batch.freeze()).expect("what the edge encodes can be decoded");
    assert_eq!(batch.record(0).body, bytes);
    true
}

/// Reads a command; one that is accepted is encoded again to the same bytes.
pub fn command(bytes: &[u8]) -> bool {
    let bytes = Bytes::copy_from_slice(bytes);
    let Ok((header, verbs)) = command::decode(&bytes) else { return false };
    let mut builder = command::CommandBuilder::new(header, bytes.len());
    verbs.iter().for_each(|verb| builder.push(verb));
    assert_eq!(builder.finish(), bytes);
    true
}

/// Reads outcomes and stored records. Whether it is one of them.
pub fn records(bytes: &[u8]) -> bool {
    let bytes = Bytes::copy_from_slice(bytes);
    let mut known = command::decode_outcomes(bytes.clone()).is_ok();
    known |= Workspace::decode(bytes.clone()).is_ok();
    known |= Inbox::decode(bytes.clone()).is_ok();
    known |= Sandbox::decode(bytes.clone()).is_ok();
    known |= Topic::from_bytes(bytes.clone(), "topic").is_ok();
    known |= TopicCursors::from_bytes(bytes.clone(), "topic cursors").is_ok();
    known |= Event::from_bytes(bytes.clone(), "event").is_ok();
    known |= WaitingRequest::from_bytes(bytes.clone(), "request").is_ok();
    known |= Shard::from_bytes(bytes.clone(), "shard").is_ok();
    known |= KnownId::from_bytes(bytes.clone(), "message id").is_ok();
    known |= Parked::from_bytes(bytes.clone(), "parked").is_ok();
    known |= DeadLetter::from_bytes(bytes.clone(), "dead letter").is_ok();
    if let Ok(batch) = Batch::decode(1, bytes) {
        for index in 0..batch.len() {
            assert!(batch.record(index).body.len() <= batch.bytes().len());
        }
        known = true;
    }
    known
}
