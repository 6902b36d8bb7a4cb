//! Batches and their records.

use super::*;

fn record(to: &'static str) -> Record<'static> {
    Record {
        kind: Kind::Direct,
        priority: 5,
        message_type: 1,
        from: "a",
        to,
        id: "m1",
        digest: 7,
        body: b"xyz",
        ..Record::default()
    }
}

fn batch() -> Bytes {
    let mut out = BytesMut::new();
    encode_header(1000, 2, &mut out);
    record("b").encode(&mut out);
    record("c").encode(&mut out);
    out.freeze()
}

#[test]
fn a_batch_has_these_bytes() {
    let golden = [
        2, 0, 0, 0, 0, 0, 0, 3, 232, 0, 0, 0, 2, // head
        0, 5, 1, 0, 0, 1, b'a', 1, b'b', 2, b'm', b'1', 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 3, b'x', b'y', b'z',
    ];
    assert_eq!(batch()[..golden.len()], golden);
}

#[test]
fn records_come_back_with_their_sequences() {
    let batch = Batch::decode(40, batch()).unwrap();
    assert_eq!((batch.len(), batch.time_ms, batch.sequence(1)), (2, 1000, 41));
    assert_eq!(batch.record(1), record("c"));
}

#[test]
fn voided_records_keep_the_places_of_the_others() {
    let voided = Batch::decode(40, Batch::decode(40, batch()).unwrap().without(|index| index == 0)).unwrap();
    assert_eq!(voided.record(0).kind, Kind::Void);
    assert_eq!(voided.record(1), record("c"));
}

#[test]
fn extras_have_these_bytes_and_come_back() {
    let full = Record {
        requires_response: true,
        dead_letter_on_expiry: true,
        ttl_ms: 1,
        not_before_ms: 2,
        ordering: 3,
        correlation: 4,
        producer: (5, 6),
        reply_timeout_ms: 7,
        recipients: &[0, 0, 0, 8],
        ..record("b")
    };
    let mut out = BytesMut::new();
    encode_header(1000, 1, &mut out);
    full.encode(&mut out);
    let eight = |value: u8| [0, 0, 0, 0, 0, 0, 0, value];
    let golden: Vec<u8> = [eight(1), eight(2), eight(3), eight(0), eight(4), eight(0), eight(5), eight(6), eight(7)]
        .concat()
        .into_iter()
        .chain([0, 1, 0, 0, 0, 8, 0, 0, 0, 3, b'x', b'y', b'z'])
        .collect();
    assert!(out.ends_with(&golden) && out[BATCH_HEADER + 4] == 255);
    let batch = Batch::decode(40, out.freeze()).unwrap();
    assert_eq!(batch.record(0), full);
    assert_eq!(batch.record(0).recipients().collect::<Vec<_>>(), [8]);
    assert_eq!(
        (full.expires_ms(1000), full.expires_ms(1)),
        (1001, 3),
        "counted from the later of commit and not before"
    );
    let hopped = Batch::decode(40, batch.with_hops(&[(0, 9)])).unwrap();
    assert_eq!(hopped.record(0), Record { hops: 9, ..full });
    assert_eq!(Batch::decode(77, hopped.alone(0)).unwrap().record(0), Record { hops: 9, ..full });
}

#[test]
fn every_cut_and_every_extra_byte_is_found() {
    let whole = batch();
    for length in 0..whole.len() {
        assert!(Batch::decode(1, whole.slice(..length)).is_err(), "length {length}");
    }
    let mut longer = whole.to_vec();
    longer.push(0);
    assert_eq!(Batch::decode(1, longer.into()).unwrap_err(), DecodeError::Trailing { what: "batch", count: 1 });
}

#[test]
fn an_id_is_read_as_with_the_whole_record() {
    let mut out = BytesMut::new();
    encode_header(7, 3, &mut out);
    let records = [
        Record { kind: Kind::Direct, from: "a", to: "bob", id: "m-1", ..Record::default() },
        Record::void(),
        Record { kind: Kind::Broadcast, from: "long-sender", id: "x", body: b"body", ..Record::default() },
    ];
    records.iter().for_each(|record| record.encode(&mut out));
    let batch = Batch::decode(1, out.freeze()).unwrap();
    for (index, record) in records.iter().enumerate() {
        assert_eq!(batch.id(index), record.id.as_bytes());
    }
}
