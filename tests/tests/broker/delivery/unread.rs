//! A client that has stopped reading.

use std::collections::BTreeSet;

use tandem_proto::messaging::v1::{Open, subscribe_response::Kind};
use tandem_tests::{Subscriber, direct};

use crate::stage::{Stage, WORKSPACE};

/// Its window is full, so the broker cannot write to it and does not look at its requests: its leases lapse all the same.
#[tokio::test]
async fn promise_5_leases_of_a_stream_that_nobody_reads_lapse() {
    const MESSAGES: usize = 1_000;
    let stage = Stage::with(&["alice", "bob"]).await;
    let open = Open {
        workspace_id: WORKSPACE.into(),
        sandbox_id: "bob".into(),
        ack_deadline: Some(prost_types::Duration { seconds: 1, nanos: 0 }),
        ..Open::default()
    };
    let mut stuck = Subscriber::open_as(stage.broker.channel(), open).await;
    stuck.credit(60_000, 64 << 20);
    stage.publish_all((0..MESSAGES).map(|_| direct("alice", "bob", "x".repeat(4_000)))).await;

    let mut other = stage.subscribe("bob").await;
    let deliveries = other.take(MESSAGES).await;
    let seen: BTreeSet<u64> = deliveries.iter().map(|delivery| delivery.message.sequence).collect();
    assert_eq!(seen.len(), MESSAGES, "each came once");
    let again = deliveries.iter().filter(|delivery| delivery.attempt > 1).count();
    assert!(again > 0, "the stream that is not read held nothing");
    assert_eq!(other.ack(1, MESSAGES as u64).await.acknowledged, MESSAGES as u64);

    // Once it reads, it hears what it has lost: all that it was sent.
    let (mut delivered, mut lost) = (0, BTreeSet::new());
    while lost.len() < again {
        match stuck.answer().await.unwrap() {
            Some(Kind::DeliveryBatch(batch)) => delivered += batch.deliveries.len(),
            Some(Kind::LeasesLost(leases)) => lost.extend(leases.ranges.iter().flat_map(|one| one.first..=one.last)),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((delivered, lost), (again, (1..=again as u64).collect()));
}
