//! Nacks, extensions, lost leases, and the end of a subscription.

use std::time::Duration;

use tandem_client::{AckMode, Delivery, Incoming, Message, Nack, SubscribeOptions, Subscription};

use crate::fake::{End, Fake};

async fn open(contents: &[&'static str], options: SubscribeOptions) -> (Fake, Subscription) {
    let fake = Fake::start().await;
    let messages = contents.iter().map(|&content| Message { content: content.into(), ..Message::default() });
    *fake.seen.inbox.waiting.lock().unwrap() = messages.collect();
    let inbox = fake.client().subscribe("w", "bob", options).await.expect("the sandbox exists");
    (fake, inbox)
}

async fn take(inbox: &mut Subscription, count: usize) -> Vec<Delivery> {
    let mut deliveries = Vec::new();
    while deliveries.len() < count {
        deliveries.extend(inbox.next_batch().await.expect("no error").expect("deliveries"));
    }
    deliveries
}

fn ranges(ranges: &[tandem_proto::messaging::v1::DeliveryRange]) -> Vec<(u64, u64)> {
    ranges.iter().map(|range| (range.first, range.last)).collect()
}

#[tokio::test]
async fn options_go_out_with_open() {
    let (fake, inbox) = open(&[], SubscribeOptions::default()).await;
    assert_eq!(inbox.ack_deadline(), Duration::from_secs(30), "the default of the broker");
    let options =
        SubscribeOptions::default().ack_deadline(Duration::from_millis(1500)).low_priority_percent(20).lenient();
    let inbox = fake.client().subscribe("w", "bob", options).await.expect("the sandbox exists");
    assert_eq!(inbox.ack_deadline(), Duration::from_millis(1500));
    let opens = fake.seen.inbox.opens.lock().unwrap();
    assert_eq!((opens[0].ack_deadline, opens[0].ack_mode, opens[0].low_priority_percent), (None, 0, 0));
    let deadline = Some(prost_types::Duration { seconds: 1, nanos: 500_000_000 });
    assert_eq!((opens[1].ack_deadline, opens[1].ack_mode()), (deadline, AckMode::Lenient));
    assert_eq!((opens[1].workspace_id.as_str(), opens[1].low_priority_percent), ("w", 20));
}

#[tokio::test]
async fn nacks_say_when_why_and_whether_at_all() {
    let (fake, mut inbox) = open(&["x"; 6], SubscribeOptions::default()).await;
    let deliveries = take(&mut inbox, 6).await;
    inbox.nack(&deliveries[0], Nack::because("busy").after(Duration::from_secs(60)));
    inbox.nack(&deliveries[1], Nack::because("busy").after(Duration::from_secs(60)));
    inbox.nack(&deliveries[2], Nack::dead_letter("not for me"));
    inbox.acker().nack_range(4, 5, Nack::default());
    inbox.acker().nack_range(6, 5, Nack::default());
    inbox.flush_acks().await.expect("all are good");
    let nacks = fake.seen.inbox.nacks.lock().unwrap().clone();
    let told: Vec<_> = nacks
        .iter()
        .map(|nack| (ranges(&nack.ranges), nack.delay.map(|d| d.seconds), nack.reason.as_str(), nack.dead_letter))
        .collect();
    assert_eq!(
        told,
        [
            (vec![(1, 2)], Some(60), "busy", false),
            (vec![(3, 3)], None, "not for me", true),
            (vec![(4, 5)], None, "", false)
        ]
    );
    let counts = inbox.nack_counts();
    assert_eq!((counts.given, counts.deferred, counts.dead_lettered, counts.refused), (5, 4, 1, 0));
    inbox.nack(&deliveries[0], Nack::default());
    let error = inbox.flush_acks().await.expect_err("it was given back before");
    assert_eq!((error.reason(), inbox.nack_counts().refused), ("DELIVERY_UNKNOWN", 1));
}

#[tokio::test]
async fn verdicts_of_different_kinds_keep_their_order() {
    let (fake, mut inbox) = open(&["x"; 3], SubscribeOptions::default()).await;
    let deliveries = take(&mut inbox, 3).await;
    // The second word on a delivery is refused, so the order decides.
    inbox.nack(&deliveries[0], Nack::default());
    inbox.ack(&deliveries[0]);
    inbox.ack(&deliveries[1]);
    inbox.flush_acks().await.expect_err("the first was given back");
    assert_eq!((inbox.nack_counts().deferred, inbox.ack_counts().refused), (1, 2));
    assert_eq!(*fake.seen.inbox.acks.lock().unwrap(), [[(1, 2)]]);
}

#[tokio::test]
async fn extensions_reach_one_or_all() {
    let (fake, mut inbox) = open(&["x"; 6], SubscribeOptions::default()).await;
    inbox.extend_all(None);
    let deliveries = take(&mut inbox, 6).await;
    inbox.extend(&deliveries[1], Some(Duration::from_secs(3600)));
    inbox.flush_acks().await.expect("it is held");
    inbox.ack(&deliveries[0]);
    inbox.extend_all(None);
    inbox.flush_acks().await.expect("one range over everything passes over what is done");
    let extends = fake.seen.inbox.extends.lock().unwrap().clone();
    let told: Vec<_> =
        extends.iter().map(|extend| (ranges(&extend.ranges), extend.ack_deadline.map(|d| d.seconds))).collect();
    assert_eq!(told, [(vec![(2, 2)], Some(3600)), (vec![(1, 6)], None)]);
    assert_eq!(inbox.lease_counts().extended, 1 + 5);
    inbox.acker().extend_range(7, 9, None);
    let error = inbox.flush_acks().await.expect_err("7 to 9 never came");
    assert_eq!((error.reason(), inbox.lease_counts().refused), ("DELIVERY_UNKNOWN", 3));
}

#[tokio::test]
async fn a_heartbeat_from_another_task_reaches_a_subscription_that_nobody_reads() {
    let (fake, mut inbox) = open(&["x"], SubscribeOptions::default()).await;
    take(&mut inbox, 1).await;
    let acker = inbox.acker();
    tokio::spawn(async move { acker.extend_all(None) }).await.expect("it does not panic");
    while fake.seen.inbox.extends.lock().unwrap().is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    inbox.close().await.expect("it is answered");
}

#[tokio::test]
async fn lost_leases_are_told_among_deliveries() {
    let (_fake, mut inbox) = open(&["x", "slow", "slow", "x"], SubscribeOptions::default()).await;
    let mut told = Vec::new();
    while told.len() < 5 {
        told.push(match inbox.next_incoming().await.expect("no error").expect("more comes") {
            Incoming::Delivery(delivery) => format!("delivery {}", delivery.delivery_id),
            Incoming::LeasesLost(lost) => {
                assert!(lost.contains(3) && !lost.contains(4), "{lost:?}");
                format!("lost {:?} {}", lost.ranges, lost.refusal.reason)
            }
        });
    }
    assert_eq!(told, ["delivery 1", "delivery 2", "delivery 3", "lost [2..=3] LEASE_LOST", "delivery 4"]);
    assert_eq!(inbox.take_leases_lost(), None, "it was told");
}

#[tokio::test]
async fn lost_leases_wait_for_who_takes_deliveries_only() {
    let (_fake, mut inbox) = open(&["slow", "x", "x", "x"], SubscribeOptions::default()).await;
    for _ in 0..4 {
        inbox.next().await.expect("no error").expect("a delivery");
    }
    let lost = inbox.take_leases_lost().expect("the first was lost");
    assert_eq!((lost.ranges, lost.refusal.reason.as_str()), (vec![1..=1], "LEASE_LOST"));
    assert_eq!((inbox.lease_counts().lost, inbox.take_leases_lost()), (1, None));
    inbox.acker().ack(1);
    assert_eq!(inbox.flush_acks().await.expect_err("the mode is strict").reason(), "LEASE_LOST");
}

#[tokio::test]
async fn a_lenient_subscription_still_acknowledges_what_it_lost() {
    let (_fake, mut inbox) = open(&["slow"], SubscribeOptions::default().lenient()).await;
    take(&mut inbox, 1).await;
    inbox.acker().ack(1);
    inbox.flush_acks().await.expect("nobody else holds it");
    assert_eq!(inbox.ack_counts().confirmed, 1);
}

#[tokio::test]
async fn closing_sends_what_waits_and_gives_back_what_is_held() {
    let (fake, mut inbox) = open(&["x"; 9], SubscribeOptions::default()).await;
    let deliveries = take(&mut inbox, 4).await;
    inbox.ack(&deliveries[0]);
    inbox.nack(&deliveries[2], Nack::default());
    // Refused: proves that `close` waited for the last outcome.
    inbox.acker().ack(77);
    let error = inbox.close().await.expect_err("77 never came");
    assert_eq!(error.reason(), "DELIVERY_UNKNOWN");
    assert_eq!(*fake.seen.inbox.ends.lock().unwrap(), [End::InOrder(vec![2, 4, 5, 6, 7, 8, 9])]);
}

/// Without this the test above would prove nothing.
#[tokio::test]
async fn a_client_that_is_killed_does_not_end_in_order() {
    let fake = Fake::start().await;
    let url = fake.url();
    let killed = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let inbox = runtime.block_on(async {
            let client = tandem_client::Client::connect(url).expect("a good endpoint");
            client.subscribe("w", "bob", SubscribeOptions::default()).await.expect("the sandbox exists")
        });
        // The connection goes with its runtime, before anything could be closed.
        runtime.shutdown_background();
        drop(inbox);
    });
    killed.await.expect("it does not panic");
    while fake.seen.inbox.ends.lock().unwrap().is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(*fake.seen.inbox.ends.lock().unwrap(), [End::Broken]);
}
