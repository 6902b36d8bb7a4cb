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
    let seen = verify(&lines, Some(hashes[30]), &Anchors::default()).unwrap();
    assert_eq!((seen.first, seen.last, seen.head, seen.known), (1, 30, hashes[30], Some(30)));
    assert_eq!(
        verify(&lines, Some(hashes[12]), &Anchors::default()).unwrap().known,
        Some(12),
        "an older head covers what came before it"
    );
    assert_eq!(verify(&lines, None, &Anchors::default()).unwrap().known, None);
    let (part, _) = export(11, 30);
    let seen = verify(&part, Some(hashes[30]), &Anchors::default()).unwrap();
    assert_eq!((seen.first, seen.last), (11, 30));
    assert_eq!(verify(&lines[..1], None, &Anchors::default()).unwrap().last, 0, "an empty chain");
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
        assert!(verify(&dropped, head, &Anchors::default()).is_err(), "record {at} is missing");
        let mut moved = lines.clone();
        moved.swap(at, if at == 20 { 1 } else { at + 1 });
        assert!(verify(&moved, head, &Anchors::default()).is_err(), "record {at} is elsewhere");
        let mut twice = lines.clone();
        twice.insert(at, lines[at].clone());
        assert!(verify(&twice, head, &Anchors::default()).is_err(), "record {at} is there twice");
    }
    // Renumbered after one was dropped, and hashed anew: only the head tells.
    let (forged, _) = export(1, 19);
    assert!(verify(&forged, None, &Anchors::default()).is_ok() && verify(&forged, head, &Anchors::default()).is_err());
    assert!(verify(&forged, head, &Anchors::default()).unwrap_err().text.contains("missing at the end"));
    assert!(verify(Vec::<String>::new(), None, &Anchors::default()).is_err());
    let headless = [&[lines[0].replace("\"previous\":\"00", "\"previous\":\"01")], &lines[1..]].concat();
    assert!(verify(&headless, None, &Anchors::default()).is_err(), "a chain begins with zeros");
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
        let seen = verify(&lines_now, Some(hashes[12]), &Anchors::default());
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

/// An anchor of the chain that `export` makes, or of another one.
fn anchor(number: u64, hash: &Hash, origin: &Hash) -> anchor::Anchor {
    anchor::Anchor {
        anchor: 1,
        cluster: "c".into(),
        chain: "team".into(),
        origin: origin.to_string(),
        number,
        hash: hash.to_string(),
        time_ms: 5 + number,
        node: 1,
        signature: String::new(),
    }
}

fn try_anchors(anchors: &[anchor::Anchor], chain: &str) -> Result<Anchors, Fault> {
    let lines = anchors.iter().map(|anchor| serde_json::to_string(anchor).unwrap());
    Anchors::read(lines, chain, None)
}

#[test]
fn anchors_find_what_a_head_alone_cannot() {
    let (lines, hashes) = export(1, 30);
    let origin = hashes[1];
    let at = |number: usize| anchor(number as u64, &hashes[number], &origin);
    let read = |anchors: &[anchor::Anchor]| try_anchors(anchors, "team").unwrap();
    let some = read(&[at(10), at(20)]);
    assert_eq!(verify(&lines, None, &some).unwrap().anchored, (2, Some(20)));
    // Of several nodes, one behind the other.
    assert_eq!(verify(&lines, None, &read(&[at(10), at(20), at(5), at(10), at(15)])).unwrap().anchored.0, 4);
    // A chain that was made anew from record 15 on, with sound hashes.
    let forged = read(&[at(10), anchor(20, &hashes[21], &origin)]);
    assert!(verify(&lines, None, &forged).unwrap_err().text.contains("record 20"));
    assert!(verify(&lines[..15], None, &some).unwrap_err().text.contains("missing at the end"));
    // One that was set back to record 10 and has gone on from there.
    let set_back = read(&[at(20), at(10), at(11)]);
    assert!(verify(&lines[..15], None, &set_back).is_err());
    assert!(try_anchors(&[at(20), anchor(20, &hashes[21], &origin)], "team").unwrap_err().text.contains("record 20"));
    let other = anchor::Anchor { chain: "other".into(), ..at(20) };
    assert_eq!(read(&[other]).len(), 0, "of another chain");
    // The workspace was made anew, and the newest anchor says which chain is meant.
    let earlier = anchor::Anchor { time_ms: 1, ..anchor(25, &hashes[3], &hashes[2]) };
    let again = read(&[earlier.clone(), at(7)]);
    assert_eq!((again.of_earlier, verify(&lines, None, &again).unwrap().anchored), (1, (1, Some(7))));
    let elsewhere = read(std::slice::from_ref(&earlier));
    assert!(verify(&lines, None, &elsewhere).unwrap_err().text.contains("record 1 "));
    let shards = [earlier, at(7)].map(|anchor| anchor::Anchor { chain: "shard 0".into(), ..anchor });
    assert!(try_anchors(&shards, "shard 0").unwrap_err().text.contains("never begins anew"));
    for torn in ["", "{}", "nonsense", "{\"anchor\":1,\"clus"] {
        assert_eq!(Anchors::read([torn], "team", None).unwrap().unreadable, 1);
    }
}

#[test]
fn a_signature_is_of_all_that_an_anchor_says() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: String| {
        let file = dir.path().join(name);
        std::fs::write(&file, text).unwrap();
        file
    };
    let pair = |name: &str| {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let private = file(name, pair.serialize_pem());
        let public = file(&format!("{name}.pub"), pair.public_key_pem());
        (anchor::AnchorKey::read(&private).unwrap(), anchor::AnchorPublicKey::read(&public).unwrap())
    };
    let ((key, public), (_, other)) = (pair("one"), pair("other"));
    let signed = anchor(7, &Hash::of(b"7"), &Hash::of(b"1")).signed(&key);
    let read =
        |anchor: &anchor::Anchor, key| Anchors::read([serde_json::to_string(anchor).unwrap()], "team", Some(key));
    assert_eq!(read(&signed, &public).unwrap().len(), 1);
    assert!(read(&signed, &other).unwrap_err().text.contains("not signed"));
    assert!(read(&anchor(7, &Hash::of(b"7"), &Hash::of(b"1")), &public).is_err(), "nobody has signed it");
    let changes: [fn(&mut anchor::Anchor); 7] = [
        |anchor| anchor.origin = Hash::of(b"2").to_string(),
        |anchor| anchor.cluster.push('x'),
        |anchor| anchor.chain.push('x'),
        |anchor| anchor.number += 1,
        |anchor| anchor.hash = Hash::of(b"8").to_string(),
        |anchor| anchor.time_ms += 1,
        |anchor| anchor.node += 1,
    ];
    for (at, change) in changes.into_iter().enumerate() {
        let mut changed = signed.clone();
        change(&mut changed);
        assert!(read(&changed, &public).is_err(), "change {at}");
    }
    let no_key = file("none", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n".into());
    assert!(anchor::AnchorKey::read(&no_key).is_err() && anchor::AnchorPublicKey::read(&no_key).is_err());
}
