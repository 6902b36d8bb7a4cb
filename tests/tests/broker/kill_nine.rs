//! kill -9 at any moment under load: what was acknowledged is there, once, and what was not is there or not, never twice.

mod ledger;
mod load;

use std::time::Duration;

use tandem_tests::{BrokerProcess, Home, Random, now};

use self::{ledger::Ledger, load::Load};
use crate::stage::Stage;

/// How often the broker is killed under load.
const ROUNDS: u32 = 24;
/// How long it is left alone, at the least and at the most.
const LIFE_MS: (u64, u64) = (20, 400);
/// In so many of a hundred rounds it is killed again while it starts.
const KILLED_WHILE_STARTING_PERCENT: u64 = 30;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn promise_1_2_3_4_acknowledged_means_durable_and_once_under_kill_9() {
    rounds(ROUNDS, Random::from_environment()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "chaos: kills brokers for minutes"]
async fn promise_1_2_3_4_acknowledged_means_durable_and_once_under_kill_9_for_long() {
    rounds(150, Random::from_environment()).await;
}

async fn rounds(rounds: u32, mut random: Random) {
    let home = Home::new();
    let mut config = home.config();
    // Small, so that buffers are flushed, snapshots taken and logs purged all the time.
    config.storage.snapshot_every_bytes = 1 << 20;
    config.storage.state_memtable_bytes = 1 << 20;
    let broker = BrokerProcess::start(&home, &config).await;
    let mut stage = Stage { client: broker.client(), home, config, broker };
    for sandbox in load::sandboxes() {
        stage.register(&sandbox).await;
    }
    let mut ledger = Ledger::default();
    let started = now();
    for round in 0..rounds {
        let load = Load::start(&stage, round, &mut random, &ledger);
        tokio::time::sleep(Duration::from_millis(random.between(LIFE_MS.0, LIFE_MS.1))).await;
        let Stage { home, config, broker, .. } = stage;
        broker.kill_nine();
        ledger.add(load.end().await);

        while random.percent(KILLED_WHILE_STARTING_PERCENT) {
            BrokerProcess::kill_while_starting(&home, &config, Duration::from_millis(random.between(0, 120))).await;
        }
        let broker = BrokerProcess::start(&home, &config).await;
        stage = Stage { client: broker.client(), home, config, broker };
        ledger.check_new_history(&stage).await;
        ledger.retry(&stage, &mut random).await;
    }
    ledger.check_all_history(&stage).await;
    ledger.check_inboxes(&stage).await;
    println!("{rounds} times kill -9 in {:?}: {ledger}", started.elapsed());
    ledger.expect_enough(rounds);
}
