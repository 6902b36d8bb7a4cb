//! A disk without any room left, under a node that runs or that starts. The node may stop, as it does when its log cannot be
//! written; it is started again once there is room.

use std::time::Duration;

use super::Scene;

pub(super) async fn strike(mut scene: Scene) {
    let one = scene.some(1, 1).await[0];
    let again = scene.random.percent(50);
    scene.stays *= 3;
    let arena = scene.arena.clone();
    let id = {
        let mut seat = arena.seat(one).await;
        if seat.may_end {
            return scene.say(format!("the disk of seat {} is full already", one + 1));
        }
        seat.may_end = true;
        seat.disk.fill();
        // What RocksDB has asked for ahead lasts a while, unless the node must start on such a disk.
        if again && seat.process.take().is_some() {
            seat.start(&arena);
        }
        seat.node_id
    };
    let what = if again { ", and its node is killed and started on it" } else { "" };
    scene.say(format!("the disk of seat {} is full{what}, for {:?}", one + 1, scene.stays));
    tokio::time::sleep(scene.stays).await;
    arena.seat(one).await.disk.free();
    // What was asked of the disk before it had room again may still fail.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut seat = arena.seat(one).await;
    seat.may_end = false;
    if seat.node_id != id {
        return;
    }
    seat.process.take_if(|process| process.has_ended());
    let ended = seat.process.is_none();
    if ended {
        seat.start(&arena);
    }
    let what = if ended { "started again" } else { "and its node went on all the while" };
    scene.say(format!("the disk of seat {} has room again, {what}", one + 1));
}
