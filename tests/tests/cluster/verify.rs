//! `tandem cluster verify`: what three nodes have is the same, byte for byte, while messages flow and after restarts.

use std::sync::{Arc, atomic::AtomicBool};

use crate::{
    load::{check, publish},
    membership::tandem,
    trio::Trio,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn promise_9_nodes_agree_under_load_after_kills_and_restarts() {
    let mut trio = Trio::start().await;
    trio.register("alice").await;
    trio.register("bob").await;
    let stop = Arc::new(AtomicBool::new(false));
    let clients = trio.running().into_iter().map(|node| trio.client(node)).collect();
    let publisher = publish(clients, "a", Arc::clone(&stop));
    for at in 0..3 {
        let verified = tandem(&trio, at, &["verify"]).await;
        assert_eq!(verified.code, Some(0), "{verified:#?}");
        assert!(verified.stdout.contains("all nodes agree"), "{verified:#?}");
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let (acknowledged, _) = publisher.await.unwrap();

    let killed = trio.leader().await;
    trio.kill_nine(killed);
    let at = (killed + 1) % 3;
    trio.until("a node that is away is named", async |trio: &Trio| {
        let verified = tandem(trio, at, &["verify", "--timeout", "5s"]).await;
        let named = verified.stdout.contains("missing: it is not connected");
        verified.code == Some(1) && verified.stderr.contains("code: NODES_MISSING") && named
    })
    .await;
    trio.run(killed).await;
    trio.until_served().await;
    trio.until_spread().await;
    check(&trio, &acknowledged).await;
    let verified = tandem(&trio, at, &["verify"]).await;
    assert_eq!(verified.code, Some(0), "{verified:#?}");
}
