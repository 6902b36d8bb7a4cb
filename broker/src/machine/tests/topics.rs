//! Topics, as the machine keeps them.

use bytes::{Bytes, BytesMut};

use super::harness::*;
use crate::{
    batch::{self, Kind, Record},
    command::{
        self, Verb,
        topics::{CreateTopic, FollowTopics},
    },
};

fn log(shard: &mut TestShard) -> Vec<Bytes> {
    let publish = |time_ms: u64| {
        let mut out = BytesMut::new();
        batch::encode_header(time_ms, 3, &mut out);
        for _ in 0..3 {
            let record = Record {
                kind: Kind::Topic,
                priority: 5,
                message_type: 1,
                from: "a",
                to: "t",
                body: b"body",
                ..Record::default()
            };
            record.encode(&mut out);
        }
        Verb::Publish(command::Publish { workspace: WORKSPACE.into(), batch: out.freeze() })
    };
    let follow = Verb::FollowTopics(FollowTopics {
        workspace: WORKSPACE.into(),
        sandbox: "b".into(),
        pattern: "t".into(),
        from_sequence: Some(5),
        max_follows: 9,
    });
    let create = Verb::CreateTopic(CreateTopic { workspace: WORKSPACE.into(), topic: "t".into(), max_topics: 9 });
    [create, publish(1), publish(2), follow].into_iter().map(|verb| shard.command(&[verb])).collect()
}

/// After a restart commands are applied many at once: who follows from the past must count what was published just before.
#[test]
fn promise_9_a_late_follower_counts_the_same_however_many_commands_share_a_write() {
    let mut one_by_one = TestShard::with_sandboxes();
    for command in log(&mut one_by_one) {
        one_by_one.apply_chunk(&[command]);
    }
    let mut at_once = TestShard::with_sandboxes();
    let commands = log(&mut at_once);
    at_once.apply_chunk(&commands);
    assert_eq!((one_by_one.pending("b"), at_once.pending("b")), (2, 2));
    assert_eq!(one_by_one.dump(), at_once.dump());
}
