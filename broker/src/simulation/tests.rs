//! Seeds, and faults that are built in on purpose.

use super::{
    draw::Draw,
    host::Shape,
    world::{Plan, Report, World},
};

/// What a seed makes of a cluster.
fn plan(seed: u64) -> Plan {
    let mut draw = Draw::new(seed ^ 0x5eed);
    let nodes = if draw.percent(70) { 3 } else { 5 };
    let shape = Shape {
        nodes,
        shards: 2,
        snapshot_every_bytes: draw.one_of(&[8 << 10, 64 << 10, 1 << 30]),
        dedupe_window_ms: 3_600_000,
        longest_sync_us: draw.one_of(&[200, 2_000, 30_000]),
        planted: None,
        disks_lie: false,
    };
    Plan { seed, shape, faults_ms: 6_000, membership: draw.percent(30) }
}

/// Where it went wrong, with what led to it.
fn explain(plan: &Plan, report: &Report) -> String {
    let told: Vec<&str> = report.trace.iter().map(String::as_str).filter(|line| !line.contains("applied")).collect();
    let tail = &told[told.len().saturating_sub(60)..];
    let mut broken = report.broken.clone();
    broken.truncate(12);
    format!(
        "seed {} breaks {} invariants:\n  {}\n{plan:?}\nwhat happened last:\n{}\nsee it again: SIMULATION_SEED={} cargo nextest \
         run --release -p tandem-broker one_seed --no-capture",
        plan.seed,
        report.broken.len(),
        broken.join("\n  "),
        tail.join("\n"),
        plan.seed
    )
}

fn expect_unbroken(seeds: impl Iterator<Item = u64>) {
    let (mut accepted, mut acknowledged) = (0, 0);
    let mut broken = Vec::new();
    for seed in seeds {
        let plan = plan(seed);
        let report = World::run(plan);
        if !report.broken.is_empty() {
            broken.push(explain(&plan, &report));
        }
        accepted += report.accepted;
        acknowledged += report.acknowledged;
    }
    assert!(broken.is_empty(), "{} seeds break something:\n\n{}", broken.len(), broken.join("\n\n"));
    assert!(accepted > 100 && acknowledged > 100, "{accepted} accepted, {acknowledged} acknowledged: nothing was tried");
}

/// The seed of the environment, or a quiet one.
#[test]
fn one_seed() {
    let seed = std::env::var("SIMULATION_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let plan = plan(seed);
    if let Ok(filter) = std::env::var("SIMULATION_LOG") {
        let filter = tracing_subscriber::EnvFilter::new(filter);
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).without_time().init();
    }
    let report = World::run(plan);
    if std::env::var_os("SIMULATION_TRACE").is_some() {
        std::fs::write("/tmp/trace", report.trace.join("\n")).unwrap();
    }
    assert!(report.broken.is_empty(), "{}", explain(&plan, &report));
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in [3, 4] {
        let (one, other) = (World::run(plan(seed)), World::run(plan(seed)));
        let differs = one.trace.iter().zip(&other.trace).position(|(one, other)| one != other);
        if let Some(at) = differs {
            let around = |trace: &[String]| trace[at.saturating_sub(5)..(at + 3).min(trace.len())].join("\n");
            panic!("seed {seed}, line {at}:\n{}\n\n{}", around(&one.trace), around(&other.trace));
        }
        assert_eq!(one.trace.len(), other.trace.len());
    }
}

#[test]
fn seeds_1_to_100_break_nothing() {
    expect_unbroken(1..=100);
}

#[test]
fn seeds_101_to_200_break_nothing() {
    expect_unbroken(101..=200);
}
