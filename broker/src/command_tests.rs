use super::{publish::Exception, *};
use crate::{
    command::ack::{FinishedRun, Source},
    machine::approval::ApprovalState,
    rejection::Reason,
};

const HEADER: Header =
    Header { time_ms: 5, max_inbox_messages: 6, max_inbox_bytes: 7, max_dead_letters: 8, dedupe_window_ms: 9 };

fn verbs() -> Vec<Verb> {
    let range =
        AckedRange { lane: Lane { source: Source::Broadcast, priority: 9 }, after: 3, through: 7, count: 2, bytes: 9 };
    vec![
        Verb::CreateWorkspace(CreateWorkspace {
            workspace: "w".into(),
            max_workspaces: 9,
            settings: Default::default(),
        }),
        Verb::RegisterSandbox(RegisterSandbox {
            workspace: "w".into(),
            sandbox: "s".into(),
            description: Bytes::from_static(b"d"),
            max_sandboxes: 5,
            settings: Default::default(),
            capabilities: vec!["c".into()],
            heartbeat_timeout_ms: 3,
        }),
        Verb::Heartbeat(Heartbeat { workspace: "w".into(), sandbox: "s".into() }),
        Verb::Publish(Publish { workspace: "w".into(), batch: Bytes::from_static(b"batch") }),
        Verb::Ack(Ack {
            workspace: 1,
            sandbox: 2,
            ranges: vec![range],
            finished: vec![FinishedRun { priority: 4, first: 1, last: 7 }],
            parked: vec![(5, 9)],
        }),
        Verb::Nack(Nack {
            workspace: 1,
            sandbox: 2,
            messages: vec![nack::Failed { lane: range.lane, sequence: 3, after: 2, batch: 1 }],
            finished: Vec::new(),
            error: nack::AttemptError::Lapsed,
            text: Bytes::from_static(b"slow"),
            delay_ms: Some(7),
            dead_letter: true,
        }),
        Verb::Tick(Tick {
            max_entries: 5,
            leased: vec![tick::Leased { workspace: 1, sandbox: 2, lane: range.lane, sequence: 3 }],
            heartbeat_timeout_ms: 9,
        }),
        Verb::Redrive(Redrive { workspace: "w".into(), dead_letters: vec![(1, 2)], to_sandbox: "s".into() }),
        Verb::Purge(Purge { workspace: "w".into(), dead_letters: vec![(1, 2)] }),
        Verb::Replay(Replay {
            workspace: "w".into(),
            sandbox: "s".into(),
            messages: vec![(1, Bytes::from_static(b"m"))],
        }),
        Verb::CreateTopic(CreateTopic { workspace: "w".into(), topic: "t".into(), max_topics: 3 }),
        Verb::FollowTopics(FollowTopics {
            workspace: "w".into(),
            sandbox: "s".into(),
            pattern: "t.*".into(),
            from_sequence: None,
            max_follows: 4,
        }),
        Verb::UnfollowTopics(UnfollowTopics { workspace: "w".into(), sandbox: "s".into(), pattern: "t.*".into() }),
        Verb::DeleteTopic(DeleteTopic { workspace: "w".into(), topic: "t".into() }),
        Verb::UpdateWorkspace(UpdateWorkspace { workspace: "w".into(), settings: Default::default() }),
        Verb::Alive(Alive { sandboxes: vec![(1, 2)] }),
        Verb::Answered(Answered { workspace: 1, sandbox: 2, correlation: 3 }),
        Verb::SetPolicy(SetPolicy {
            workspace: "w".into(),
            json: Bytes::from_static(b"{}"),
            if_revision: Some(3),
            by: "z".into(),
        }),
        Verb::CreateKey(CreateKey {
            id: 1,
            hash: Bytes::from_static(b"h"),
            subject: "s".into(),
            roles: 3,
            workspace: "w".into(),
            sandbox: "b".into(),
            expires_ms: 4,
            by: "z".into(),
            max_keys: 5,
        }),
        Verb::RevokeKey(RevokeKey { id: 1, workspace: "w".into() }),
        Verb::CreateToken(CreateToken {
            token_id: "t".into(),
            subject: "s".into(),
            roles: 3,
            workspace: "w".into(),
            sandbox: "b".into(),
            life_ms: 4,
            ends_ms: 5,
            by: "z".into(),
            max_tokens: 6,
        }),
        Verb::RevokeToken(RevokeToken {
            token_id: "t".into(),
            issuer: "i".into(),
            workspace: "w".into(),
            ends_ms: 5,
            by: "z".into(),
            max_tokens: 6,
        }),
        Verb::KeysUsed(KeysUsed { ids: vec![1, 2] }),
        Verb::Attributed(Attributed {
            origin: Origin { by: "z".into(), address: "::1".into(), request_id: "r".into() },
            verb: Box::new(Verb::RevokeKey(RevokeKey { id: 1, workspace: "w".into() })),
        }),
        Verb::SetQuotas(SetQuotas {
            workspace: "w".into(),
            quotas: crate::quotas::Quotas { max_streams: 3, ..Default::default() },
        }),
        Verb::Note(Note {
            workspace: "w".into(),
            entries: vec![Noted {
                kind: crate::audit::Kind::CallRefused,
                origin: Origin::default(),
                about: "b".into(),
                count: 2,
                text: Bytes::from_static(b"t"),
            }],
        }),
        Verb::ReportEvents(ReportEvents {
            workspace: "w".into(),
            events: vec![ReportedEvent {
                kind: crate::machine::events::EventKind::OutOfMemory,
                sandbox: "s".into(),
                text: Bytes::from_static(b"t"),
            }],
        }),
        Verb::Decide(Decide {
            workspace: "w".into(),
            number: 3,
            approve: true,
            comment: Bytes::from_static(b"fine"),
            by: "z".into(),
            sandbox: "s".into(),
        }),
        Verb::UnregisterSandbox(UnregisterSandbox { workspace: "w".into(), sandbox: "s".into() }),
        Verb::DeleteWorkspace(DeleteWorkspace { workspace: "w".into() }),
    ]
}

fn encoded(verbs: &[Verb]) -> Bytes {
    let mut builder = CommandBuilder::new(HEADER, 64);
    verbs.iter().for_each(|verb| builder.push(verb));
    builder.finish()
}

#[test]
fn commands_come_back_as_they_were() {
    let (header, seen) = decode(&encoded(&verbs())).unwrap();
    assert_eq!(header, HEADER);
    assert_eq!(seen, verbs());
}

#[test]
fn what_is_attributed_is_not_attributed_again() {
    let attributed = |verb| Verb::Attributed(Attributed { origin: Origin::default(), verb: Box::new(verb) });
    let once = attributed(Verb::RevokeKey(RevokeKey { id: 1, workspace: "w".into() }));
    assert!(decode(&encoded(&[attributed(once)])).is_err());
}

#[test]
fn a_command_has_these_bytes() {
    let golden = [
        2, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0, 7, // header
        0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 9, 5, 0, 0, 0, 4, 1, b'w', 1, b's', // heartbeat
    ];
    assert_eq!(encoded(&verbs()[2..3]).as_ref(), golden);
}

#[test]
fn every_cut_is_found() {
    let whole = encoded(&verbs());
    for length in 0..whole.len() {
        // A cut between two items leaves a shorter command that is whole in itself.
        if let Ok((_, seen)) = decode(&whole.slice(..length)) {
            assert!(seen.len() < verbs().len(), "length {length}");
        }
    }
}

#[test]
fn outcomes_come_back_as_they_were() {
    let refused = Rejection::new(Reason::InboxFull, "full");
    let outcomes = vec![
        Outcome::Publish(Ok(Published {
            first_sequence: 9,
            time_ms: 8,
            exceptions: vec![
                (1, Exception::Duplicate { sequence: 3, time_ms: 2 }),
                (4, Exception::Refused(refused.clone())),
                (5, Exception::Held { approval: 6 }),
            ],
        })),
        Outcome::Publish(Err(refused)),
        Outcome::Ack(Ok(Acked { count: 4 })),
        Outcome::RegisterSandbox(Ok(Registered { created: true })),
        Outcome::UnregisterSandbox(Ok(Unregistered { abandoned: 2 })),
        Outcome::Heartbeat(Ok(())),
        Outcome::CreateWorkspace(Ok(())),
        Outcome::DeleteWorkspace(Ok(())),
        Outcome::SetPolicy(Ok(PolicySet { revision: 7, time_ms: 8 })),
        Outcome::RevokeKey(Err(Rejection::unknown_key(1))),
        Outcome::Decide(Ok(Decided { state: ApprovalState::Approved, sequence: 9 })),
    ];
    assert_eq!(decode_outcomes(encode_outcomes(&outcomes)).unwrap(), outcomes);
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
        drop(decode(&Bytes::from(bytes.clone())));
        drop(decode_outcomes(Bytes::from(bytes)));
    }
}
