//! kill -9, of one node, of a majority or of all, and their start after a while.

use super::Scene;

pub(super) async fn strike(mut scene: Scene) {
    let most = if scene.random.percent(70) { 1 } else { 3 };
    let seats = scene.some(1, most).await;
    let arena = scene.arena.clone();
    let mut killed = Vec::new();
    for number in seats {
        let mut seat = arena.seat(number).await;
        if let Some(process) = seat.process.take() {
            drop(process);
            killed.push((number, seat.node_id));
        }
    }
    let ids: Vec<_> = killed.iter().filter_map(|(_, id)| *id).collect();
    scene.say(format!("kill -9 of {ids:?} for {:?}", scene.stays));
    tokio::time::sleep(scene.stays).await;
    for (number, id) in killed {
        let mut seat = arena.seat(number).await;
        // Something else may have put another one there meanwhile.
        if seat.process.is_none() && seat.node_id == id {
            seat.start(&arena);
        }
    }
    scene.say(format!("started {ids:?}"));
}
