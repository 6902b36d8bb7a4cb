use super::*;

fn log_id(term: u64, index: u64) -> LogId {
    LogId { leader_id: Leader { term, node_id: 1 }, index }
}

fn membership() -> Membership {
    let nodes = BTreeMap::from([(1, BasicNode { addr: "n1:8002".into() }), (2, BasicNode::default())]);
    Membership::new(vec![BTreeSet::from([1]), BTreeSet::from([1, 2])], nodes).unwrap()
}

#[test]
fn entries_come_back_as_they_were() {
    let payloads = [
        EntryPayload::Blank,
        EntryPayload::Normal(Command::Apply(Bytes::from_static(b"abc"))),
        EntryPayload::Normal(Command::Roll(Bytes::from_static(b"abc"))),
        EntryPayload::Normal(Command::Digest(Bytes::new())),
        EntryPayload::Membership(membership()),
    ];
    for payload in payloads {
        let entry = Entry::new(log_id(3, 9), payload);
        assert_eq!(decode_entry(&encode_entry(&entry)).unwrap(), entry);
    }
}

#[test]
fn a_command_entry_has_these_bytes() {
    let entry = Entry::new(log_id(2, 5), EntryPayload::Normal(Command::Apply(Bytes::from_static(b"hi"))));
    let golden = [
        0x9c, 0x4b, 0x1c, 0x2e, // crc32c of the rest
        0, 0, 0, 0, 0, 0, 0, 2, // term
        0, 0, 0, 0, 0, 0, 0, 1, // node
        0, 0, 0, 0, 0, 0, 0, 5, // index
        1, b'h', b'i',
    ];
    assert_eq!(encode_entry(&entry)[4..], golden[4..]);
    assert_eq!(decode_entry(&encode_entry(&entry)).unwrap(), entry);
}

#[test]
fn every_flipped_bit_is_found() {
    let record =
        encode_entry(&Entry::new(log_id(2, 5), EntryPayload::Normal(Command::Apply(Bytes::from_static(b"hello")))));
    for bit in 0..record.len() * 8 {
        let mut bad = record.to_vec();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(matches!(decode_entry(&bad.into()), Err(DecodeError::Checksum { .. })), "bit {bit}");
    }
}

#[test]
fn every_cut_is_found() {
    let record = encode_entry(&Entry::new(log_id(2, 5), EntryPayload::Membership(membership())));
    for length in 0..record.len() {
        assert!(decode_entry(&record.slice(..length)).is_err(), "length {length}");
    }
}

#[test]
fn votes_and_positions_come_back_as_they_were() {
    for vote in [Vote::new(4, 2), Vote::new_committed(4, 2)] {
        assert_eq!(decode_vote(&encode_vote(&vote)).unwrap(), vote);
    }
    let stored = StoredMembership::new(Some(log_id(1, 1)), membership());
    for applied in [None, Some(log_id(2, 7))] {
        assert_eq!(decode_position(&encode_position(applied.as_ref(), &stored)).unwrap(), (applied, stored.clone()));
    }
}
