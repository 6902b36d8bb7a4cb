use super::{publish::Exception, *};
use crate::{
    command::ack::{FinishedRun, Source},
    rejection::Reason,
};

fn verbs() -> Vec<Verb> {
    let range = AckedRange { lane: Lane { source: Source::Broadcast, priority: 9 }, after: 3, through: 7, count: 2 };
    vec![
        Verb::CreateWorkspace(CreateWorkspace { workspace: "w".into(), max_workspaces: 9 }),
        Verb::RegisterSandbox(RegisterSandbox {
            workspace: "w".into(),
            sandbox: "s".into(),
            description: Bytes::from_static(b"d"),
            max_sandboxes: 5,
        }),
        Verb::Heartbeat(Heartbeat { workspace: "w".into(), sandbox: "s".into() }),
        Verb::Publish(Publish { workspace: "w".into(), batch: Bytes::from_static(b"batch") }),
        Verb::Ack(Ack {
            workspace: 1,
            sandbox: 2,
            ranges: vec![range],
            finished: vec![FinishedRun { priority: 4, first: 1, last: 7 }],
        }),
        Verb::UnregisterSandbox(UnregisterSandbox { workspace: "w".into(), sandbox: "s".into() }),
        Verb::DeleteWorkspace(DeleteWorkspace { workspace: "w".into() }),
    ]
}

fn encoded(verbs: &[Verb]) -> Bytes {
    let mut builder = CommandBuilder::new(Header { time_ms: 5, max_inbox_messages: 6 }, 64);
    verbs.iter().for_each(|verb| builder.push(verb));
    builder.finish()
}

#[test]
fn commands_come_back_as_they_were() {
    let (header, seen) = decode(&encoded(&verbs())).unwrap();
    assert_eq!(header, Header { time_ms: 5, max_inbox_messages: 6 });
    assert_eq!(seen, verbs());
}

#[test]
fn a_command_has_these_bytes() {
    let golden = [
        1, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 6, // header
        5, 0, 0, 0, 4, 1, b'w', 1, b's', // heartbeat
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
            ],
        })),
        Outcome::Publish(Err(refused)),
        Outcome::Ack(Ok(Acked { count: 4 })),
        Outcome::RegisterSandbox(Ok(Registered { created: true })),
        Outcome::UnregisterSandbox(Ok(Unregistered { abandoned: 2 })),
        Outcome::Heartbeat(Ok(())),
        Outcome::CreateWorkspace(Ok(())),
        Outcome::DeleteWorkspace(Ok(())),
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
