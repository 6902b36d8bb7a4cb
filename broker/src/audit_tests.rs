use super::*;

fn record(number: u64) -> Record {
    Record {
        time_ms: 1_000 + number,
        kind: Kind::ALL[number as usize % Kind::ALL.len()],
        by: format!("who {number}"),
        address: "127.0.0.1:9".into(),
        request_id: "r".into(),
        about: "bob".into(),
        first: number,
        last: number * 2,
        count: 3,
        digest: if number.is_multiple_of(2) { Bytes::copy_from_slice(&[7; 32]) } else { Bytes::new() },
        text: Bytes::from_static("in \"plain\" words, \u{e9}\n".as_bytes()),
    }
}

/// An export of the records of a range, and the hash of each.
fn export(first: u64, last: u64) -> (Vec<String>, Vec<Hash>) {
    let mut hashes = vec![GENESIS];
    let mut lines = Vec::new();
    for number in 1..=last {
        let hash = link(&hashes[number as usize - 1], number, &record(number));
        if number == first {
            let previous = hashes[number as usize - 1].to_string();
            let start = Start { audit: 1, chain: "w".into(), first, previous };
            lines.push(serde_json::to_string(&start).unwrap());
        }
        if number >= first {
            lines.push(serde_json::to_string(&Line::new(number, &record(number), &hash)).unwrap());
        }
        hashes.push(hash);
    }
    (lines, hashes)
}

#[test]
fn what_was_not_touched_is_believed() {
    let (lines, hashes) = export(1, 30);
    let seen = verify(&lines, Some(hashes[30])).unwrap();
    assert_eq!((seen.first, seen.last, seen.head, seen.known), (1, 30, hashes[30], Some(30)));
    assert_eq!(verify(&lines, Some(hashes[12])).unwrap().known, Some(12), "an older head covers what came before it");
    assert_eq!(verify(&lines, None).unwrap().known, None);
    let (part, _) = export(11, 30);
    let seen = verify(&part, Some(hashes[30])).unwrap();
    assert_eq!((seen.first, seen.last), (11, 30));
    assert_eq!(verify(&lines[..1], None).unwrap().last, 0, "an empty chain");
}

#[test]
fn a_record_has_this_hash() {
    let (_, hashes) = export(1, 2);
    assert_eq!(hashes[2].to_string(), hex(&hashes[2].0));
    let golden = Record {
        time_ms: 1,
        kind: Kind::PolicySet,
        by: "z".into(),
        address: String::new(),
        request_id: String::new(),
        about: "p".into(),
        first: 2,
        last: 2,
        count: 1,
        digest: Bytes::new(),
        text: Bytes::from_static(b"t"),
    };
    let bytes = [
        &[0, 0, 0, 0, 0, 0, 0, 1, 9, 1, b'z', 0, 0, 1, b'p'][..],
        &[0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 1],
        &[0, 0, 0, 0, 0, 0, 0, 1, b't'],
    ]
    .concat();
    assert_eq!(golden.to_bytes().as_ref(), bytes);
    let by_hand = Hash::of(&[&GENESIS.0[..], &[0, 0, 0, 0, 0, 0, 0, 1], &bytes].concat());
    assert_eq!(link(&GENESIS, 1, &golden), by_hand);
}

#[test]
fn any_record_that_is_edited_dropped_or_moved_is_found() {
    let (lines, hashes) = export(1, 20);
    let head = Some(hashes[20]);
    for at in 1..=20 {
        let mut dropped = lines.clone();
        dropped.remove(at);
        assert!(verify(&dropped, head).is_err(), "record {at} is missing");
        let mut moved = lines.clone();
        moved.swap(at, if at == 20 { 1 } else { at + 1 });
        assert!(verify(&moved, head).is_err(), "record {at} is elsewhere");
        let mut twice = lines.clone();
        twice.insert(at, lines[at].clone());
        assert!(verify(&twice, head).is_err(), "record {at} is there twice");
    }
    // Renumbered after one was dropped, and hashed anew: only the head tells.
    let (forged, _) = export(1, 19);
    assert!(verify(&forged, None).is_ok() && verify(&forged, head).is_err());
    assert!(verify(&forged, head).unwrap_err().text.contains("missing at the end"));
    assert!(verify(Vec::<String>::new(), None).is_err());
    let headless = [&[lines[0].replace("\"previous\":\"00", "\"previous\":\"01")], &lines[1..]].concat();
    assert!(verify(&headless, None).is_err(), "a chain begins with zeros");
}

proptest::proptest! {
    /// Whichever byte of an export is changed, it is found, unless the text means the same as before.
    #[test]
    fn any_byte_that_is_changed_is_found(at in 0..10_000_usize, byte in 0x20..0x7f_u8) {
        let (lines, hashes) = export(1, 12);
        let mut text = lines.join("\n").into_bytes();
        let at = at % text.len();
        let before = text[at];
        text[at] = byte;
        let changed = String::from_utf8(text);
        proptest::prop_assume!(before != byte && before != b'\n' && changed.is_ok());
        let changed = changed.unwrap();
        let lines_now: Vec<&str> = changed.split('\n').collect();
        let means = |text: &str| serde_json::from_str::<serde_json::Value>(text).ok();
        let same = lines.iter().zip(&lines_now).all(|(one, other)| means(one) == means(other));
        // The name of the chain is no part of it.
        let renamed = serde_json::from_str::<Start>(lines_now[0]).is_ok_and(|start| start.chain != "w");
        let seen = verify(&lines_now, Some(hashes[12]));
        proptest::prop_assert_eq!(seen.is_ok(), same || renamed, "{:?}", seen);
    }
}

#[test]
fn digits_are_read_as_they_are_written() {
    assert_eq!(unhex("00ff0a").unwrap(), [0, 255, 10]);
    assert!(["0", "0g", "FF", " 1"].iter().all(|wrong| unhex(wrong).is_none()));
    assert_eq!(Hash::parse(&Hash::of(b"x").to_string()), Some(Hash::of(b"x")));
    assert_eq!(Hash::parse("00"), None);
}
