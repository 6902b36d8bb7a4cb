use super::*;

#[test]
fn keys_have_these_bytes() {
    assert_eq!(message(1, 258).as_ref(), [0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 2]);
    assert_eq!(run(1, 2, 9, 3).as_ref(), [0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 3]);
    assert_eq!(run(1, BROADCAST, 0, 3)[4..9], [255, 255, 255, 255, 9]);
    assert_eq!(inbox(1, 2).as_ref(), [0, 0, 0, 1, 0, 0, 0, 2]);
    assert_eq!(remembered(1, 2, Remembered::Producer, 3)[..9], [0, 0, 0, 1, 0, 0, 0, 2, 1]);
    assert_eq!(remembered(1, 2, Remembered::Id, 3).len(), 25);
    assert_eq!(text_hash("m1"), 0x9a6b019f95a49a9af4edaab5e5c1529d, "the hash is part of the format");
    assert_eq!(ordering_hash("m1"), 0xf4edaab5e5c1529d_u64, "the hash is part of the format");
    assert_eq!(shard().as_ref(), [1]);
    assert_eq!(workspace("ab").as_ref(), [2, b'a', b'b']);
    assert_eq!(sandbox(1, "ab").as_ref(), [3, 0, 0, 0, 1, b'a', b'b']);
    assert_eq!(api_key(258).as_ref(), [16, 0, 0, 0, 0, 0, 0, 1, 2]);
    assert_eq!((api_key_count("").as_ref(), api_key_count("a").as_ref()), (&[17][..], &[17, b'a'][..]));
    assert_eq!(due(1, NO_WORKSPACE, DueKind::Key { id: 2 })[8..], [0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 2]);
    assert_eq!(policy(1).as_ref(), [15, 0, 0, 0, 1]);
    assert_eq!(approval(1, 2).as_ref(), [18, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2]);
    assert_eq!(approval_message(1, 2)[0], 19);
    assert_eq!((approval_waiting(1, 2)[0], approval_ended(1, 2)[0]), (20, 21));
    assert_eq!(approvals(1).as_ref(), [22, 0, 0, 0, 1]);
    assert_eq!(approvals_of(1, "a").as_ref(), [28, 0, 0, 0, 1, b'a']);
    assert_eq!(audit(1, 2).as_ref(), [0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2]);
    assert_eq!(quotas(1).as_ref(), [24, 0, 0, 0, 1]);
    assert_eq!(audit_head(NO_WORKSPACE).as_ref(), [23, 0, 0, 0, 0]);
    assert_eq!(due(1, 2, DueKind::Audit)[8..], [0, 0, 0, 2, 9]);
    assert_eq!(due(1, 2, DueKind::Approval { number: 3 })[8..], [0, 0, 0, 2, 8, 0, 0, 0, 0, 0, 0, 0, 3]);
    assert_eq!((token(2)[0], token(2)[16], token(2).len()), (25, 2, 17));
    assert_eq!((token_of(&token(7)), token_count("a").as_ref()), (Ok(7), &[26, b'a'][..]));
    assert_eq!(revocations().as_ref(), [27]);
    assert_eq!(due(1, NO_WORKSPACE, DueKind::Token { hash: 2 })[8..13], [0, 0, 0, 0, 10]);
    assert_eq!(heartbeat(1, 2).as_ref(), [4, 0, 0, 0, 1, 0, 0, 0, 2]);
}

#[test]
fn ranges_hold_their_workspace_and_no_other() {
    let (from, to) = sandboxes(1);
    assert!(sandbox(1, "a") >= from && sandbox(1, "\u{10ffff}") < to && sandbox(2, "a") >= to);
    let (from, to) = of_workspace(1);
    assert!(run(1, BROADCAST, 0, u64::MAX) < to && run(1, 0, 9, 0) >= from && run(2, 0, 9, 0) >= to);
    let (from, to) = runs_of(1, 7);
    assert!(run(1, 7, 9, 1) >= from && run(1, 7, 0, 9) < to && run(1, 8, 9, 0) >= to);
}

#[test]
fn higher_priorities_sort_first() {
    assert!(run(1, 2, 9, 500) < run(1, 2, 8, 1));
}
