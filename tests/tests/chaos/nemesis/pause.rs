//! SIGSTOP: a node that hangs, with all its connections open, and goes on later as if no time had passed.

use super::Scene;

pub(super) async fn strike(mut scene: Scene) {
    let seats = scene.some(1, 2).await;
    let arena = scene.arena.clone();
    scene.say(format!("SIGSTOP on seats {:?} for {:?}", from_one(&seats), scene.stays));
    for number in &seats {
        if let Some(process) = &arena.seat(*number).await.process {
            process.signal("STOP");
        }
    }
    tokio::time::sleep(scene.stays).await;
    for number in &seats {
        if let Some(process) = &arena.seat(*number).await.process {
            process.signal("CONT");
        }
    }
    scene.say(format!("SIGCONT on seats {:?}", from_one(&seats)));
}

/// As seats are counted in the output.
pub(super) fn from_one(seats: &[usize]) -> Vec<usize> {
    seats.iter().map(|number| number + 1).collect()
}
