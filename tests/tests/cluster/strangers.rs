//! Who does not belong to a cluster stays out, and is told why.

use tandem_tests::{BrokerProcess, direct};

use crate::trio::{Trio, WORKSPACE};

/// A third node that the other two refuse ends with this code, and harms nobody.
async fn refused(code: &str, spoil: impl FnOnce(&mut Trio)) {
    let mut trio = Trio::prepare();
    spoil(&mut trio);
    trio.run(0).await;
    trio.run(1).await;
    trio.until_served().await;
    let seat = &trio.seats[2];
    // It may be refused before it is up or after.
    let exit = match BrokerProcess::try_start(&seat.home, &seat.config).await {
        Ok(process) => process.exit().await,
        Err(exit) => exit,
    };
    assert!(matches!(exit.code, Some(1 | 70)), "{exit:#?}");
    assert!(exit.stderr.contains(&format!("code: {code}")), "{exit:#?}");
    assert!(!exit.stderr.contains("another secret"), "secrets are not logged: {exit:#?}");
    trio.register("alice").await;
    trio.client(1).publisher(WORKSPACE).publish(direct("alice", "alice", "still here")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_with_another_secret_is_refused() {
    refused("CLUSTER_SECRET_MISMATCH", |trio| {
        std::fs::write(&trio.seats[2].config.cluster.secret_file, "another secret, just as long").unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_of_another_cluster_is_refused() {
    refused("CLUSTER_ID_MISMATCH", |trio| trio.seats[2].config.cluster.id = "another".into()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_with_another_number_of_shards_is_refused() {
    refused("SHARD_COUNT_MISMATCH", |trio| trio.seats[2].config.storage.shards = 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn promise_1_a_node_that_lost_its_disk_is_not_taken_for_what_it_was() {
    let mut trio = Trio::start().await;
    trio.kill_nine(2);
    std::fs::remove_dir_all(trio.seats[2].home.data()).unwrap();
    let seat = &trio.seats[2];
    let exit = match BrokerProcess::try_start(&seat.home, &seat.config).await {
        Ok(process) => process.exit().await,
        Err(exit) => exit,
    };
    assert!(exit.stderr.contains("code: NODE_ID_REUSED"), "{exit:#?}");
    trio.register("alice").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_data_directory_stays_with_its_node() {
    let mut trio = Trio::prepare();
    trio.run(0).await;
    let (exit, _) = trio.seats[0].process.take().unwrap().stop().await;
    assert_eq!(exit.code, Some(0), "{exit:#?}");
    let mut other = trio.seats[0].config.clone();
    other.node_id = 2;
    let refused = BrokerProcess::try_start(&trio.seats[0].home, &other).await.unwrap_err();
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("code: DATA_DIRECTORY_MISMATCH") && refused.stderr.contains("belongs to node 1"));
}
