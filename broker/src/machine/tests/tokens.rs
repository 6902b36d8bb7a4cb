//! Tokens as a part of the state.

use super::harness::*;
use crate::{
    command::{CreateToken, Outcome, RevokeKey, RevokeToken, Verb},
    machine::token::{KEPT_MS, hash_of},
    rejection::{Reason, Rejection},
};

const LIFE_MS: u64 = 60_000;

fn create(shard: &mut TestShard, id: &str, workspace: &str, ends_ms: u64) -> Result<(), Rejection> {
    let verb = CreateToken {
        token_id: id.into(),
        subject: "build".into(),
        roles: 4,
        workspace: workspace.into(),
        sandbox: String::new(),
        life_ms: LIFE_MS,
        ends_ms,
        by: "lead".into(),
        max_tokens: 3,
    };
    match shard.apply(&[Verb::CreateToken(verb)]).remove(0) {
        Outcome::CreateToken(result) => result,
        other => panic!("{other:?}"),
    }
}

fn revoke(shard: &mut TestShard, id: &str, issuer: &str, workspace: &str, ends_ms: u64) -> Result<(), Rejection> {
    let verb = RevokeToken {
        token_id: id.into(),
        issuer: issuer.into(),
        workspace: workspace.into(),
        ends_ms,
        by: "lead".into(),
        max_tokens: 3,
    };
    match shard.apply(&[Verb::RevokeToken(verb)]).remove(0) {
        Outcome::RevokeToken(result) => result,
        other => panic!("{other:?}"),
    }
}

/// Those that are known, and whether they were revoked.
fn known(shard: &TestShard, workspace: Option<&str>) -> Vec<(String, bool)> {
    let (found, next) = shard.reader.tokens_behind(None, workspace, 10).unwrap();
    assert_eq!(next, None);
    let mut known: Vec<_> = found.into_iter().map(|(_, token)| (token.token_id, token.revoked_ms > 0)).collect();
    known.sort();
    known
}

#[test]
fn tokens_are_known_until_they_cannot_hold_and_a_day_more() {
    let mut shard = TestShard::new();
    let ends_ms = shard.time_ms + 10 * KEPT_MS;
    create(&mut shard, "a", "w", ends_ms).unwrap();
    create(&mut shard, "b", "", ends_ms).unwrap();
    assert_eq!(create(&mut shard, "a", "", ends_ms).unwrap_err().reason, Reason::Overloaded, "the id is taken");
    assert_eq!(shard.reader.revocations().unwrap(), 0);
    shard.restart();
    assert_eq!(known(&shard, Some("w")), [("a".into(), false)]);
    let reason = |result: Result<(), Rejection>| result.unwrap_err().reason;
    assert_eq!(reason(revoke(&mut shard, "b", "", "w", ends_ms)), Reason::UnknownToken, "of another workspace");
    assert_eq!(reason(revoke(&mut shard, "c", "", "w", ends_ms)), Reason::UnknownToken, "of nobody knows whom");
    revoke(&mut shard, "a", "", "w", ends_ms).unwrap();
    let revoked_ms = shard.time_ms;
    revoke(&mut shard, "a", "", "", ends_ms).unwrap();
    let record = shard.reader.token(hash_of("", "a")).unwrap().unwrap();
    assert_eq!(record.revoked_ms, revoked_ms, "the first time counts");
    assert_eq!(shard.reader.revocations().unwrap(), 1, "what was revoked before tells nobody anything");
    // What it was renewed to may hold until its end, and so long it is refused.
    shard.time_ms = ends_ms + KEPT_MS - 1_000;
    shard.tick();
    assert_eq!(known(&shard, None), [("a".into(), true), ("b".into(), false)]);
    shard.time_ms = ends_ms + KEPT_MS + 1_000;
    shard.tick();
    assert_eq!(known(&shard, None), []);
    for id in ["c", "d", "e"] {
        let ends_ms = shard.time_ms + LIFE_MS;
        create(&mut shard, id, "w", ends_ms).unwrap();
    }
    assert_eq!(reason(create(&mut shard, "f", "w", ends_ms)), Reason::TooManyTokens);
    create(&mut shard, "f", "", ends_ms).unwrap();
}

#[test]
fn a_token_of_others_is_refused_for_as_long_as_it_could_hold() {
    let mut shard = TestShard::new();
    let ends_ms = shard.time_ms + 10 * KEPT_MS;
    revoke(&mut shard, "a", "https://issuer", "", ends_ms).unwrap();
    revoke(&mut shard, "a", "", "", ends_ms).unwrap();
    assert_eq!(known(&shard, None).len(), 2, "each issuer draws ids of his own");
    shard.time_ms += 3 * KEPT_MS;
    shard.tick();
    assert_eq!(known(&shard, None).len(), 2, "not a day, but until they end");
    revoke(&mut shard, "b", "", "", ends_ms).unwrap();
    assert_eq!(revoke(&mut shard, "c", "", "", ends_ms).unwrap_err().reason, Reason::TooManyTokens);
    assert_eq!(shard.reader.revocations().unwrap(), 3);
    // Whoever has said too early an end says another one.
    let later_ms = ends_ms + 5 * KEPT_MS;
    revoke(&mut shard, "b", "", "", later_ms).unwrap();
    assert_eq!(shard.reader.revocations().unwrap(), 3);
    assert_eq!(revoke(&mut shard, "d", "", "", 0).unwrap_err().reason, Reason::UnknownToken);
    shard.time_ms = ends_ms + KEPT_MS + 1_000;
    shard.tick();
    assert_eq!(known(&shard, None), [("b".into(), true)]);
    shard.time_ms = later_ms + KEPT_MS + 1_000;
    shard.tick();
    assert_eq!(known(&shard, None), []);
}

#[test]
fn the_end_of_a_key_is_a_revocation_too() {
    let mut shard = TestShard::new();
    shard.apply(&[Verb::RevokeKey(RevokeKey { id: 9, workspace: String::new() })]);
    assert_eq!(shard.reader.revocations().unwrap(), 0, "there is no such key");
    super::api_keys::create_key(&mut shard, 7, "", 0).unwrap();
    shard.apply(&[Verb::RevokeKey(RevokeKey { id: 7, workspace: String::new() })]);
    assert_eq!(shard.reader.revocations().unwrap(), 1);
}
