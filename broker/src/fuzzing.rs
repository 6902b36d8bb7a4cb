//! Doors for fuzzing: every decoder that sees bytes from outside or from disk. Not part of the interface.

use bytes::{Bytes, BytesMut};

use crate::{
    batch::Batch,
    command,
    config::Limits,
    machine::{inbox::Inbox, workspace::Workspace},
    message,
};

/// Reads an encoded message as a publish does. Whatever is accepted here, generated code must accept too.
pub fn message(bytes: &[u8]) -> bool {
    let mut record = BytesMut::new();
    if message::encode_record(bytes, &Limits::default(), &mut record).is_err() {
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
pub fn command(bytes: &[u8]) {
    let bytes = Bytes::copy_from_slice(bytes);
    let Ok((header, verbs)) = command::decode(&bytes) else { return };
    let mut builder = command::CommandBuilder::new(header, bytes.len());
    verbs.iter().for_each(|verb| builder.push(verb));
    assert_eq!(builder.finish(), bytes);
}

/// Reads outcomes and stored records.
pub fn records(bytes: &[u8]) {
    let bytes = Bytes::copy_from_slice(bytes);
    drop(command::decode_outcomes(bytes.clone()));
    drop(Workspace::decode(bytes.clone()));
    drop(Inbox::decode(bytes.clone()));
    if let Ok(batch) = Batch::decode(1, bytes) {
        for index in 0..batch.len() {
            assert!(batch.record(index).body.len() <= batch.bytes().len());
        }
    }
}
