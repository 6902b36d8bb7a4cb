//! Leaders that are moved, nodes that are drained, and nodes that are replaced by others, with `tandem cluster`, while
//! everything else goes on. What is refused because of another fault is tried again for a while, then left.

use std::{process::Output, time::Duration};

use tandem_tests::{now, tandem_command};

use super::Scene;
use crate::arena::{Arena, SEATS};

/// How long a change may take, with other faults beside it. One that was accepted goes on without its command, so it is
/// finished before the next: the harness must know who sits where.
const PATIENCE: Duration = Duration::from_secs(120);

pub(super) async fn strike(mut scene: Scene) {
    match scene.random.between(1, 5) {
        1 => {
            let to = scene.node().await;
            let shard = scene.random.between(0, 3);
            scene.ask(&["transfer", "--shard", &shard.to_string(), "--to", &to.to_string()]).await;
        }
        2 => {
            let node = scene.node().await.to_string();
            scene.ask(&["drain", &node]).await;
            tokio::time::sleep(scene.stays).await;
            scene.ask(&["undrain", &node]).await;
        }
        3 => {
            scene.ask(&["rebalance"]).await;
        }
        4 => grow_and_shrink(scene).await,
        _ => replace(scene).await,
    }
}

impl Scene {
    /// The id of any node.
    async fn node(&mut self) -> u64 {
        let one = self.some(1, 1).await[0];
        self.arena.seat(one).await.node_id.unwrap_or(1)
    }

    /// Gives the command once, to any node.
    async fn ask(&mut self, arguments: &[&str]) -> bool {
        let at = self.some(1, 1).await[0];
        let output = tandem(&self.arena, at, arguments, "10s").await;
        let said = String::from_utf8_lossy(if output.status.success() { &output.stdout } else { &output.stderr });
        let line = said.lines().find(|line| !line.trim().is_empty()).unwrap_or_default().trim().to_owned();
        self.say(format!("tandem cluster {}: {line}", arguments.join(" ")));
        output.status.success()
    }
}

/// A node goes for good, with its disk, and a new one takes its place on a free seat.
async fn replace(mut scene: Scene) {
    let arena = scene.arena.clone();
    // One change at a time, as the cluster itself wants it.
    let Ok(_alone) = arena.changing.try_lock() else { return };
    let old_seat = scene.some(1, 1).await[0];
    let taken = arena.taken().await;
    let Some((new_seat, new)) = sit_down(&arena, &taken).await else { return };
    let old = arena.seat(old_seat).await.node_id.unwrap_or(1);
    // From when it is accepted, which may be before the answer, the old one may be told to stop.
    arena.seat(old_seat).await.may_leave = true;
    scene.say(format!("node {new} on seat {} replaces node {old} on seat {}", new_seat + 1, old_seat + 1));
    let began = now();
    let peer = arena.network.peer_address(old_seat, new_seat);
    // Others than the one that goes are asked: it may stop before it has said yes.
    let others: Vec<_> = taken.into_iter().filter(|number| *number != old_seat).collect();
    carry_out(&arena, &others, &["replace", &old.to_string(), &new.to_string(), "--peer", &peer]).await;
    // It was told to stop; if it could not hear that, nobody needs it any more.
    arena.seat(old_seat).await.leave();
    scene.say(format!("node {new} has taken the place of node {old} after {:.1?}", began.elapsed()));
}

/// A fourth node comes, and after a while any of the four goes.
async fn grow_and_shrink(mut scene: Scene) {
    let arena = scene.arena.clone();
    let Ok(_alone) = arena.changing.try_lock() else { return };
    let before = arena.taken().await;
    let Some((new_seat, new)) = sit_down(&arena, &before).await else { return };
    scene.say(format!("node {new} on seat {} joins", new_seat + 1));
    let began = now();
    let peer = arena.network.peer_address(before[0], new_seat);
    carry_out(&arena, &before, &["add", &new.to_string(), "--peer", &peer]).await;
    scene.say(format!("node {new} is a member after {:.1?}", began.elapsed()));
    tokio::time::sleep(scene.stays).await;
    let goes_from = scene.some(1, 1).await[0];
    let goes = arena.seat(goes_from).await.node_id.unwrap_or(new);
    arena.seat(goes_from).await.may_leave = true;
    scene.say(format!("node {goes} on seat {} is removed", goes_from + 1));
    let began = now();
    let others: Vec<_> = arena.taken().await.into_iter().filter(|number| *number != goes_from).collect();
    carry_out(&arena, &others, &["remove", &goes.to_string()]).await;
    arena.seat(goes_from).await.leave();
    scene.say(format!("node {goes} is no member any more after {:.1?}", began.elapsed()));
}

/// Starts a node that joins, on a free seat. Returns seat and id.
async fn sit_down(arena: &Arena, taken: &[usize]) -> Option<(usize, u64)> {
    let number = (0..SEATS).find(|number| !taken.contains(number))?;
    let id = arena.new_id();
    let mut seat = arena.seat(number).await;
    seat.take_place(id, true);
    seat.start(arena);
    Some((number, id))
}

/// Gives the same command, to one after the other, until it has been carried out: it does nothing twice.
async fn carry_out(arena: &Arena, at: &[usize], command: &[&str]) {
    let began = now();
    for turn in 0.. {
        let output = tandem(arena, at[turn % at.len()], command, "10s").await;
        if output.status.success() {
            return;
        }
        let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        assert!(began.elapsed() < PATIENCE, "tandem cluster {}: not within {PATIENCE:?}: {why}", command.join(" "));
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

async fn tandem(arena: &Arena, at: usize, arguments: &[&str], timeout: &str) -> Output {
    let mut command = tandem_command();
    let server = format!("http://{}", arena.endpoints()[at]);
    command.args(["--server", &server, "cluster"]).args(arguments);
    if !["rebalance", "undrain"].contains(&arguments[0]) {
        command.args(["--timeout", timeout]);
    }
    tokio::task::spawn_blocking(move || command.output().expect("the command can be run")).await.unwrap()
}
