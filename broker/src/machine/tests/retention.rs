//! History goes, what is waited for stays.

use super::harness::*;
use crate::{
    batch::{Kind, Record},
    command::{
        Ack, AckedRange, Lane, Outcome, Source, Trim, UpdateWorkspace, Verb,
        create_workspace::Settings,
        topics::{CreateTopic, FollowTopics},
    },
    machine::events::EventKind,
    query::{
        QueryError,
        history::{Filter, Span},
        retention::Cut,
    },
    rejection::Reason,
    retention::look_at,
};

const PLENTY: (u64, u64) = (1_000, 1 << 30);

fn direct<'a>(from: &'a str, to: &'a str) -> Record<'a> {
    Record { kind: Kind::Direct, priority: 5, message_type: 1, from, to, body: b"body", ..Record::default() }
}

fn broadcast<'a>() -> Record<'a> {
    Record { kind: Kind::Broadcast, ..direct("a", "") }
}

fn trim() -> Trim {
    Trim {
        workspace: WORKSPACE.into(),
        number: 1,
        first_sequence: 0,
        trimmed_bytes: 0,
        batches: Vec::new(),
        overflows: Vec::new(),
    }
}

impl TestShard {
    fn cut(&mut self, first_sequence: u64) {
        self.apply(&[Verb::Trim(Trim { first_sequence, ..trim() })]);
    }

    /// One round: what is not needed goes. Returns batches that went, and messages that were taken from inboxes.
    fn clean(&mut self, limits: (u64, u64)) -> (u64, u64) {
        let workspace = self.reader.workspace(WORKSPACE).map_err(|error| error.to_string()).unwrap();
        let (batches, overflows) =
            look_at(&self.reader, &workspace, limits).map_err(|error| error.to_string()).unwrap();
        match self.apply(&[Verb::Trim(Trim { batches, overflows, ..trim() })]).remove(0) {
            Outcome::Trim(Ok(trimmed)) => (trimmed.batches, trimmed.overflowed),
            other => panic!("{other:?}"),
        }
    }

    /// First sequences of the batches there are.
    fn batches(&self) -> Vec<u64> {
        let batches = self.reader.batches_between(1, 0, u64::MAX, 1 << 30).map_err(|error| error.to_string()).unwrap();
        batches.iter().map(|batch| batch.first_sequence).collect()
    }
}

#[test]
fn a_history_is_cut_by_age_at_a_batch() {
    let mut shard = TestShard::with_sandboxes();
    let settings = Settings { retention_age_ms: 64_000, ..Settings::default() };
    shard.apply(&[Verb::UpdateWorkspace(UpdateWorkspace { workspace: WORKSPACE.into(), settings })]);
    for _ in 0..4 {
        shard.publish_records(&[direct("a", "b"), direct("a", "b")]);
        shard.time_ms += 10_000;
    }
    let workspace = shard.reader.workspace(WORKSPACE).map_err(|error| error.to_string()).unwrap();
    let first_ms = shard.reader.batches_between(1, 0, 2, 1).map_err(|error| error.to_string()).unwrap()[0].time_ms;
    let cut = |now_ms| shard.reader.retention_cut(&workspace, now_ms).map_err(|error| error.to_string()).unwrap();
    assert_eq!(cut(first_ms + 64_900), None, "not for the last hundredth of the age");
    let bytes = workspace.committed_bytes / 4;
    assert_eq!(cut(first_ms + 65_000), Some(Cut { first_sequence: 3, trimmed_bytes: bytes }));
    assert_eq!(cut(first_ms + 64_000 + 15_000), Some(Cut { first_sequence: 5, trimmed_bytes: 2 * bytes }));
    assert_eq!(cut(u64::MAX), Some(Cut { first_sequence: 9, trimmed_bytes: 4 * bytes }), "all of it");
}

#[test]
fn a_history_is_cut_by_bytes_where_a_mark_is() {
    let mut shard = TestShard::with_sandboxes();
    let settings = Settings { retention_bytes: 3 << 20, ..Settings::default() };
    shard.apply(&[Verb::UpdateWorkspace(UpdateWorkspace { workspace: WORKSPACE.into(), settings })]);
    let body = vec![b'x'; 300 << 10];
    for _ in 0..20 {
        shard.publish_records(&[Record { body: &body, ..direct("a", "b") }]);
    }
    let workspace = shard.reader.workspace(WORKSPACE).map_err(|error| error.to_string()).unwrap();
    let cut =
        shard.reader.retention_cut(&workspace, shard.time_ms).map_err(|error| error.to_string()).unwrap().unwrap();
    let kept = workspace.committed_bytes - cut.trimmed_bytes;
    assert!((2 << 20..=3 << 20).contains(&kept), "{kept} bytes are kept");
    let bytes = |before| {
        let batches =
            shard.reader.batches_between(1, 0, before, usize::MAX).map_err(|error| error.to_string()).unwrap();
        batches.iter().map(|batch| batch.bytes().len() as u64).sum::<u64>()
    };
    assert_eq!(bytes(cut.first_sequence), cut.trimmed_bytes);
    shard.apply(&[Verb::Trim(Trim { first_sequence: cut.first_sequence, trimmed_bytes: cut.trimmed_bytes, ..trim() })]);
    let workspace = shard.reader.workspace(WORKSPACE).map_err(|error| error.to_string()).unwrap();
    assert_eq!(shard.reader.retention_cut(&workspace, shard.time_ms).map_err(|error| error.to_string()).unwrap(), None);
}

#[test]
fn what_was_cut_is_a_gap_for_readers() {
    let mut shard = TestShard::with_sandboxes();
    for _ in 0..3 {
        shard.publish_records(&[direct("a", "b")]);
    }
    shard.cut(3);
    let workspace = shard.reader.workspace(WORKSPACE).map_err(|error| error.to_string()).unwrap();
    let read = |from| {
        let span = Span { from, to: u64::MAX, descending: false };
        let encode = |message: &crate::batch::MessageRef| Ok(message.sequence().to_string().into());
        shard.reader.history(&workspace, span, &Filter::default(), 10, &encode)
    };
    let Err(QueryError::Rejected(gap)) = read(1) else { panic!("a part of it is gone") };
    assert_eq!(
        (gap.reason, gap.text.as_str()),
        (Reason::HistoryGap, "messages 1 to 2 were trimmed; the history begins with 3")
    );
    for from in [0, 3] {
        assert_eq!(read(from).map_err(|error| error.to_string()).unwrap().messages, ["3"]);
    }
    assert!(matches!(shard.reader.message_in_history(&workspace, 2), Err(QueryError::Rejected(_))));
}

#[test]
fn waiting_messages_outlive_their_history_and_batches_go_when_nobody_waits() {
    let mut shard = TestShard::with_sandboxes();
    let several = Record { kind: Kind::Several, recipients: &[0, 0, 0, 2, 0, 0, 0, 3], ..direct("a", "") };
    shard.publish_records(&[direct("a", "b"), direct("a", "c"), direct("a", "b"), broadcast(), several]);
    shard.publish_records(&[direct("a", "c")]);
    let inbox = shard.open("b");
    let taken = shard.take(&inbox, 9);
    assert_eq!(sequences(&taken), [1, 3, 4, 5]);
    shard.ack(&inbox, &taken[1..3]);
    shard.nack(&inbox, &taken[..1], Some(0));
    shard.cut(7);
    assert_eq!(shard.clean(PLENTY), (0, 0), "each batch is still needed");
    assert_eq!(shard.batches(), [1, 6]);
    let kept = shard.reader.batch(1, 1).unwrap().unwrap();
    let left: Vec<_> = (0..kept.len()).filter(|index| kept.record(*index).kind != Kind::Void).collect();
    assert_eq!(left, [0, 1, 3, 4], "a retry, one for c, the broadcast for c and a, one for both");

    shard.restart();
    let inbox = shard.open("b");
    let taken = shard.take(&inbox, 9);
    assert_eq!(sequences(&taken), [1, 5]);
    assert_eq!((taken[0].attempt, taken[0].message.record().body), (2, b"body".as_slice()));
    shard.ack(&inbox, &taken);
    let inbox = shard.open("c");
    let taken = shard.take(&inbox, 9);
    assert_eq!(sequences(&taken), [2, 4, 5, 6]);
    shard.ack(&inbox, &taken);
    assert_eq!(shard.clean(PLENTY).0, 2);
    assert!(shard.batches().is_empty());
    let runs = shard.dump().into_iter().filter(|(space, ..)| *space == crate::machine::keys::RUNS.0).count();
    assert_eq!(runs, 0, "nothing leads to what is gone");
    assert_eq!((shard.pending("a"), shard.pending("b"), shard.pending("c")), (0, 0, 0));
}

#[test]
fn a_follower_keeps_as_much_as_its_inbox_holds_and_is_told_of_the_rest() {
    let mut shard = TestShard::with_sandboxes();
    let topic = || "t".to_owned();
    let create = CreateTopic { workspace: WORKSPACE.into(), topic: topic(), max_topics: 9 };
    let follow = FollowTopics {
        workspace: WORKSPACE.into(),
        sandbox: "b".into(),
        pattern: ">".into(),
        from_sequence: None,
        max_follows: 9,
    };
    shard.apply(&[Verb::CreateTopic(create), Verb::FollowTopics(follow)]);
    let on_topic = Record { kind: Kind::Topic, to: "t", ..direct("a", "") };
    for round in 0..10 {
        shard.publish_records(&[if round % 2 == 0 { on_topic } else { broadcast() }, direct("a", "c")]);
    }
    // It has one of them, and works on another.
    let inbox = shard.open("b");
    let taken = shard.take(&inbox, 2);
    shard.ack(&inbox, &taken[..1]);
    shard.cut(21);
    assert_eq!(shard.clean((4, 1 << 30)), (0, 5 + 1), "five of b and one of c; the sender waits for nothing");
    assert_eq!(shard.pending("b"), 4);
    assert_eq!(shard.clean((4, 1 << 30)).1, 0);
    assert_eq!(shard.events().iter().filter(|kind| **kind == EventKind::InboxTrimmed).count(), 3);
    // The one that was lost while it was worked on is acknowledged to no effect.
    shard.ack(&inbox, &taken[1..]);
    assert_eq!(sequences(&shard.take(&inbox, 99)), [13, 15, 17, 19]);
    assert_eq!(shard.pending("b"), 4);
    shard.restart();
    assert_eq!(sequences(&shard.take(&shard.open("b"), 99)), [13, 15, 17, 19]);
}

#[test]
fn a_late_follower_counts_right_behind_a_trimmed_history() {
    let mut shard = TestShard::with_sandboxes();
    let create = CreateTopic { workspace: WORKSPACE.into(), topic: "t".into(), max_topics: 9 };
    shard.apply(&[Verb::CreateTopic(create)]);
    let on_topic = Record { kind: Kind::Topic, to: "t", ..direct("a", "") };
    for _ in 0..5 {
        shard.publish_records(&[on_topic, on_topic]);
    }
    shard.cut(5);
    assert_eq!(shard.clean(PLENTY).0, 2);
    let follow = FollowTopics {
        workspace: WORKSPACE.into(),
        sandbox: "b".into(),
        pattern: "t".into(),
        from_sequence: Some(1),
        max_follows: 9,
    };
    // Together with a publish that no engine shows yet.
    let publish = shard.publish_verb(&[Draft::direct("a", "c")]);
    shard.apply(&[publish, Verb::FollowTopics(follow)]);
    assert_eq!(shard.pending("b"), 6);
    assert_eq!(sequences(&shard.take(&shard.open("b"), 99)), [5, 6, 7, 8, 9, 10]);
}

#[test]
fn an_unread_message_stays_where_the_counters_are_wrong() {
    let mut shard = TestShard::with_sandboxes();
    let create = CreateTopic { workspace: WORKSPACE.into(), topic: "t".into(), max_topics: 9 };
    let follow = FollowTopics {
        workspace: WORKSPACE.into(),
        sandbox: "b".into(),
        pattern: "t".into(),
        from_sequence: None,
        max_follows: 9,
    };
    shard.apply(&[Verb::CreateTopic(create), Verb::FollowTopics(follow)]);
    for _ in 0..4 {
        shard.publish_records(&[broadcast()]);
    }
    for _ in 0..4 {
        shard.publish_records(&[Record { kind: Kind::Topic, to: "t", ..direct("a", "") }]);
    }
    let number = shard.reader.workspace(WORKSPACE).map_err(|error| error.to_string()).unwrap().number;
    let topic = shard.reader.all_topics(number).unwrap()[0].1.number;
    // Ranges that overlap are counted twice, and the fourth message of each lane is not among them.
    let range =
        |source, after, through| AckedRange { lane: Lane { source, priority: 5 }, after, through, count: 2, bytes: 8 };
    let on_topic = Source::Topic(topic);
    let ranges = vec![
        range(Source::Broadcast, 0, 2),
        range(Source::Broadcast, 1, 3),
        range(on_topic, 0, 6),
        range(on_topic, 5, 7),
    ];
    let ack = Ack { workspace: number, sandbox: 2, ranges, finished: Vec::new(), parked: Vec::new() };
    shard.apply(&[Verb::Ack(ack)]);
    let inbox = shard.open("c");
    let taken = shard.take(&inbox, 9);
    assert_eq!(sequences(&taken), [1, 2, 3, 4]);
    shard.ack(&inbox, &taken);
    shard.cut(9);
    shard.clean(PLENTY);
    assert_eq!(shard.batches(), [4, 8]);
    assert_eq!(sequences(&shard.take(&shard.open("b"), 9)), [4, 8]);
}
