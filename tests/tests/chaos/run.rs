//! One run from its beginning to its verdict.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use tandem_tests::{
    history::{Counts, Recorder, judge},
    now,
};

use crate::{
    arena::Arena,
    ending,
    nemesis::{self, Kind},
    settings::Settings,
    workload::Workload,
};

/// How often the output says how far it is.
const PROGRESS: Duration = Duration::from_secs(10);

/// Runs, and fails when a promise was broken.
pub(crate) async fn run(mut settings: Settings) {
    let names: Vec<_> = settings.faults.iter().map(|kind| kind.name()).collect();
    println!("{:?} of faults: {}", settings.duration, names.join(", "));
    let arena = Arc::new(Arena::make(&settings).await);
    println!("everything of this run lies in {}", arena.home.path().display());
    arena.found().await;
    let (recorder, writer) = Recorder::begin(arena.history()).unwrap();
    let workload = Workload::begin(&arena, &recorder, &mut settings.random).await;
    let progress = tokio::spawn(tell_progress(recorder.clone()));

    let struck = nemesis::rage(&arena, &settings.faults, settings.duration, &mut settings.random).await;

    println!("healed; everybody finishes");
    let workspaces: Vec<_> = workload.desks.iter().map(|desk| Arc::clone(&desk.workspace)).collect();
    ending::converge(&arena, &workspaces).await;
    let desks = workload.end(&arena).await;
    let gap = recorder.counts().longest_gap;
    join_all(desks.iter().map(|desk| ending::drain(&arena, desk.clone()))).await;
    for desk in &desks {
        ending::take_stock(&arena, desk).await;
    }
    if let Some(desk) = desks.first() {
        ending::compare_states(&arena, desk).await;
    }
    arena.watch().await;
    progress.abort();
    // It holds a recorder, and the writer ends with the last of them.
    progress.await.ok();
    let counts = recorder.counts();
    drop((desks, recorder));
    writer.join().unwrap().unwrap();
    conclude(&arena, &settings, &struck, &Counts { longest_gap: gap, ..counts });
}

async fn tell_progress(recorder: Recorder) {
    loop {
        tokio::time::sleep(PROGRESS).await;
        let counts = recorder.counts();
        let of = |kind: &str| counts.by_kind.get(kind).copied().unwrap_or(0);
        let (published, delivered, acked) = (of("publishes acknowledged"), of("deliveries"), of("acks confirmed"));
        println!(
            "{:7.1}s  {published} published, {delivered} delivered, {acked} acknowledged; longest gap {:.1?}",
            recorder.time() as f64 / 1e9,
            counts.longest_gap.0
        );
    }
}

fn conclude(arena: &Arena, settings: &Settings, struck: &[(Kind, u32)], counts: &Counts) {
    let began = now();
    let judgement = judge(arena.history()).unwrap();
    let faults: Vec<_> = struck.iter().map(|(kind, count)| format!("{} {count}", kind.name())).collect();
    println!("\nfaults: {}", faults.join(", "));
    for (kind, count) in &counts.by_kind {
        println!("{count:>9} {kind}");
    }
    let (gap, at) = counts.longest_gap;
    println!("longest time without an acknowledged publish in a workspace: {gap:.1?}, until {:.1}s", at.as_secs_f64());
    println!("judged in {:.1?}: {judgement}", began.elapsed());
    let complaints = arena.complaints();
    let seed = settings.random.seed();
    assert!(complaints.is_empty(), "TANDEM_TEST_SEED={seed}: {}", complaints.join("\n"));
    assert!(judgement.holds(), "TANDEM_TEST_SEED={seed}, history in {}:\n{judgement}", arena.history().display());
    let published = counts.by_kind.get("publishes acknowledged").copied().unwrap_or(0);
    let least = settings.duration.as_secs() * 10;
    assert!(published > least, "only {published} publishes in {:?}: this run proves nothing", settings.duration);
}
