//! A rolling restart: every node is asked to stop, and started again when it has; then the next.

use std::time::Duration;

use tandem_tests::now;

use super::Scene;
use crate::arena::Arena;

/// One that hangs, as under SIGSTOP, is killed in the end, as a service manager does.
const PATIENCE: Duration = Duration::from_secs(20);

pub(super) async fn strike(scene: Scene) {
    let arena = scene.arena.clone();
    scene.say("a rolling restart begins");
    for number in arena.taken().await {
        if ask_to_stop(&arena, number).await {
            let in_time = wait_and_start(&arena, number).await;
            scene.say(format!("seat {} was restarted{}", number + 1, if in_time { "" } else { ", by force" }));
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}

/// False when there is nobody, or somebody else has asked already.
async fn ask_to_stop(arena: &Arena, number: usize) -> bool {
    let mut seat = arena.seat(number).await;
    let asked = match &seat.process {
        Some(process) if !seat.stopping => {
            process.signal("TERM");
            true
        }
        _ => false,
    };
    seat.stopping |= asked;
    asked
}

/// The process stays on its seat meanwhile: other faults may stop, wake or kill it. Returns whether it ended in time.
async fn wait_and_start(arena: &Arena, number: usize) -> bool {
    let asked = now();
    loop {
        let mut seat = arena.seat(number).await;
        // Whoever started it meanwhile has begun anew, and it may be another node by now.
        if !seat.stopping || seat.node_id.is_none() {
            return true;
        }
        let ended = seat.process.as_mut().is_none_or(|process| process.has_ended());
        let late = asked.elapsed() > PATIENCE;
        if ended || late {
            seat.process = None;
            seat.start(arena);
            return !late;
        }
        drop(seat);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
