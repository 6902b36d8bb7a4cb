//! A rolling restart: every node is asked to stop, and started again when it has; then the next.

use std::time::Duration;

use super::Scene;

pub(super) async fn strike(scene: Scene) {
    let arena = scene.arena.clone();
    scene.say("a rolling restart begins");
    for number in arena.taken().await {
        let (process, id) = {
            let mut seat = arena.seat(number).await;
            (seat.process.take(), seat.node_id)
        };
        let Some(process) = process else { continue };
        // One that hangs, as after SIGSTOP, is killed in the end, as a service manager does.
        let in_time = process.stop().await;
        let mut seat = arena.seat(number).await;
        if seat.process.is_none() && seat.node_id == id && id.is_some() {
            seat.start(&arena);
        }
        drop(seat);
        scene.say(format!("seat {} was restarted{}", number + 1, if in_time { "" } else { ", by force" }));
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}
