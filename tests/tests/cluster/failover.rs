//! The leader dies under load: nothing that was acknowledged is lost or there twice, and clients go on.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tandem_proto::messaging::v1::subscribe_response::Kind;
use tandem_tests::{Subscriber, direct, named};

use crate::{
    load::{LEAST, check, publish},
    trio::{Trio, WORKSPACE, insist},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn promise_1_2_nothing_acknowledged_is_lost_or_doubled_when_leaders_are_killed() {
    let mut trio = Trio::start().await;
    trio.register("alice").await;
    trio.register("bob").await;
    let mut all = BTreeMap::new();
    let mut gaps = Vec::new();
    for round in ["first", "second", "third"] {
        let leader = trio.leader().await;
        let others: Vec<_> = (0..3).filter(|node| *node != leader).collect();
        let stop = Arc::new(AtomicBool::new(false));
        let to_any = publish((0..3).map(|node| trio.client(node)).collect(), round, Arc::clone(&stop));
        let others = others.into_iter().map(|node| trio.client(node)).collect();
        let name: &'static str = Box::leak(format!("{round}-other").into_boxed_str());
        let to_others = publish(others, name, Arc::clone(&stop));
        tokio::time::sleep(Duration::from_millis(500)).await;
        // Whoever leads now: a busy machine may have had an election meanwhile.
        let leader = trio.leader().await;
        trio.kill_nine(leader);
        tokio::time::sleep(Duration::from_millis(2_500)).await;
        stop.store(true, Ordering::Relaxed);
        for publisher in [to_any, to_others] {
            let (acknowledged, longest) = publisher.await.unwrap();
            assert!(acknowledged.len() > LEAST, "hardly anything was published: {}", acknowledged.len());
            gaps.push(longest);
            all.extend(acknowledged);
        }
        check(&trio, &all).await;
        // Back again, it catches up and says the same.
        trio.run(leader).await;
        trio.until_served().await;
        check(&trio, &all).await;
        // It gets back what it should lead, and the next round must not kill the one that has just handed over.
        trio.until_spread().await;
    }
    println!("{} acknowledged; without an acknowledgement for at most {gaps:?}", all.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn promise_7_a_subscription_moves_with_the_leader() {
    let mut trio = Trio::start().await;
    trio.register("alice").await;
    trio.register("bob").await;
    let leader = trio.leader().await;
    let near = (leader + 1) % 3;
    let client = trio.client(near);
    let publish = async |text: String| {
        let message = named(text.clone(), direct("alice", "bob", text));
        insist(async || client.publisher(WORKSPACE).publish(message.clone()).await).await.sequence
    };
    let mut subscriber = Subscriber::open(trio.process(near).channel(), WORKSPACE, "bob").await;
    subscriber.credit(6, 1 << 20);
    for number in 0..4 {
        publish(format!("before-{number}")).await;
    }
    let before = subscriber.take(4).await;
    assert_eq!(subscriber.ack(before[0].delivery_id, before[1].delivery_id).await.acknowledged, 2);

    trio.kill_nine(leader);
    let lost = match subscriber.answer().await {
        Ok(Some(Kind::LeasesLost(lost))) => lost,
        other => panic!("the client was not told that its leases are lost: {other:?}"),
    };
    let ranges: Vec<_> = lost.ranges.iter().map(|range| (range.first, range.last)).collect();
    assert_eq!(ranges, [(before[2].delivery_id, before[3].delivery_id)], "what was acknowledged is not lost");
    // Of the credit for six messages four are used: two come, and no third.
    publish("after".into()).await;
    let again = subscriber.take(2).await;
    let texts: Vec<_> = again.iter().map(|delivery| delivery.message.message_id.as_str()).collect();
    assert_eq!(texts, ["before-2", "before-3"], "in order, and without what was acknowledged");
    assert!(again[0].delivery_id > before[3].delivery_id, "numbers go on: {}", again[0].delivery_id);
    subscriber.expect_silence().await;

    let outcome = subscriber.ack(before[3].delivery_id, before[3].delivery_id).await;
    assert_eq!((outcome.acknowledged, outcome.refusals.len()), (0, 1), "promise 5: a lease from before is refused");
    assert_eq!(subscriber.ack(again[0].delivery_id, again[1].delivery_id).await.acknowledged, 2);
    subscriber.credit(10, 1 << 20);
    let after = subscriber.take(1).await;
    assert_eq!(after[0].message.message_id, "after");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_was_stopped_goes_on_where_it_was() {
    let mut trio = Trio::start().await;
    trio.register("alice").await;
    trio.register("bob").await;
    let client = trio.client(0);
    for number in 0..50 {
        client.publisher(WORKSPACE).publish(direct("alice", "bob", format!("{number}"))).await.unwrap();
    }
    let before = trio.history(0).await;
    let cluster_id = client.server_info().await.unwrap().cluster_id;
    for node in 0..3 {
        let (exit, _) = trio.seats[node].process.take().unwrap().stop().await;
        assert_eq!(exit.code, Some(0), "{exit:#?}");
    }
    for node in 0..3 {
        // A restart needs no flags; with them it goes on just the same.
        if node == 1 {
            trio.seats[node].config.cluster.members.clear();
        }
        trio.run(node).await;
    }
    trio.until_served().await;
    for node in 0..3 {
        assert_eq!(trio.history(node).await, before);
        assert_eq!(trio.client(node).server_info().await.unwrap().cluster_id, cluster_id, "bootstrapped once");
    }
}
