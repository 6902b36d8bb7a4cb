//! API keys as a part of the state.

use bytes::Bytes;

use super::harness::*;
use crate::{
    command::{CreateKey, KeysUsed, Outcome, RevokeKey, Verb},
    machine::api_key::KEPT_MS,
    rejection::{Reason, Rejection},
};

pub(super) fn create_key(shard: &mut TestShard, id: u64, workspace: &str, expires_ms: u64) -> Result<(), Rejection> {
    let verb = CreateKey {
        id,
        hash: Bytes::from_static(b"hash"),
        subject: "ci".into(),
        roles: 4,
        workspace: workspace.into(),
        sandbox: String::new(),
        expires_ms,
        by: "lead".into(),
        max_keys: 3,
    };
    match shard.apply(&[Verb::CreateKey(verb)]).remove(0) {
        Outcome::CreateKey(result) => result,
        other => panic!("{other:?}"),
    }
}

fn revoke(shard: &mut TestShard, id: u64, workspace: &str) -> Result<(), Rejection> {
    match shard.apply(&[Verb::RevokeKey(RevokeKey { id, workspace: workspace.into() })]).remove(0) {
        Outcome::RevokeKey(result) => result,
        other => panic!("{other:?}"),
    }
}

fn ids(shard: &TestShard, workspace: Option<&str>) -> Vec<u64> {
    shard.reader.api_keys_behind(None, workspace, 10).unwrap().into_iter().map(|(id, _)| id).collect()
}

#[test]
fn keys_are_made_used_revoked_and_outlive_a_restart() {
    let mut shard = TestShard::new();
    create_key(&mut shard, 7, "w", 0).unwrap();
    create_key(&mut shard, 3, "", 0).unwrap();
    shard.apply(&[Verb::KeysUsed(KeysUsed { ids: vec![7, 99] })]);
    let used_ms = shard.time_ms;
    shard.restart();
    assert_eq!((ids(&shard, None), ids(&shard, Some("w"))), (vec![3, 7], vec![7]));
    let key = shard.reader.api_key(7).unwrap().unwrap();
    assert_eq!((key.used_ms, key.revoked_ms, key.by.as_str()), (used_ms, 0, "lead"));
    assert_eq!(shard.reader.api_keys_behind(Some(3), None, 10).unwrap().len(), 1);

    let reason = |result: Result<(), Rejection>| result.unwrap_err().reason;
    assert_eq!(reason(revoke(&mut shard, 3, "w")), Reason::UnknownKey, "of another workspace");
    assert_eq!(reason(revoke(&mut shard, 8, "")), Reason::UnknownKey);
    revoke(&mut shard, 7, "w").unwrap();
    let revoked_ms = shard.time_ms;
    revoke(&mut shard, 7, "").unwrap();
    assert_eq!(shard.reader.api_key(7).unwrap().unwrap().revoked_ms, revoked_ms, "the first time counts");
    assert_eq!(reason(create_key(&mut shard, 3, "", 0)), Reason::Overloaded, "the id is taken");
    create_key(&mut shard, 4, "", 0).unwrap();
    create_key(&mut shard, 5, "", 0).unwrap();
    assert_eq!(reason(create_key(&mut shard, 6, "", 0)), Reason::TooManyKeys);
    create_key(&mut shard, 6, "w", 0).unwrap();
}

#[test]
fn keys_that_ended_long_ago_are_forgotten() {
    let mut shard = TestShard::new();
    let expires_ms = shard.time_ms + 5_000;
    create_key(&mut shard, 1, "", expires_ms).unwrap();
    create_key(&mut shard, 2, "", 0).unwrap();
    create_key(&mut shard, 3, "", 0).unwrap();
    revoke(&mut shard, 2, "").unwrap();
    shard.time_ms = expires_ms + KEPT_MS - 1_000;
    shard.tick();
    assert_eq!(ids(&shard, None), [1, 3]);
    shard.time_ms = expires_ms + KEPT_MS + 1_000;
    shard.tick();
    assert_eq!(ids(&shard, None), [3], "what holds stays");
    create_key(&mut shard, 4, "", 0).unwrap();
    create_key(&mut shard, 5, "", 0).unwrap();
}
