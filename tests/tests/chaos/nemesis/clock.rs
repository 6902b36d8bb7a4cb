//! The time of day on one node jumps, forwards or backwards, and back again. No deadline, order or lease may hang on it.

use std::fs;

use super::Scene;

/// How far, in seconds. Less than any window in which a message id is remembered.
const JUMP_S: (u64, u64) = (1, 600);

pub(super) async fn strike(mut scene: Scene) {
    let one = scene.some(1, 1).await[0];
    let seconds = scene.random.between(JUMP_S.0, JUMP_S.1);
    let sign = if scene.random.percent(50) { '+' } else { '-' };
    let clock = scene.arena.seat(one).await.clock();
    fs::write(&clock, format!("{sign}{seconds}s\n")).unwrap();
    scene.say(format!("the clock of seat {} jumps by {sign}{seconds} s for {:?}", one + 1, scene.stays));
    tokio::time::sleep(scene.stays).await;
    fs::write(&clock, "+0s\n").unwrap();
    scene.say(format!("the clock of seat {} is right again", one + 1));
}
