//! Links that are slow, or lose packets, in one direction or in both.

use super::Scene;
use crate::arena::{
    SEATS,
    network::{End, Fault},
};

/// Packets lost, of a hundred.
const LOST: (u64, u64) = (2, 25);

pub(super) async fn strike(mut scene: Scene) {
    let one = scene.some(1, 1).await[0];
    let (what, faults) = if scene.random.percent(40) {
        ("slow".to_owned(), vec![Fault::Slow(one)])
    } else {
        let percent = scene.random.between(LOST.0, LOST.1) as u32;
        let mut others: Vec<_> = (0..SEATS).filter(|number| *number != one).map(End::Seat).collect();
        others.push(End::Clients);
        let both = scene.random.percent(50);
        let mut faults: Vec<_> = others.iter().map(|other| Fault::Lossy(End::Seat(one), *other, percent)).collect();
        if both {
            faults.extend(others.iter().map(|other| Fault::Lossy(*other, End::Seat(one), percent)));
        }
        (format!("losing {percent} % of what it sends{}", if both { " and gets" } else { "" }), faults)
    };
    scene.say(format!("seat {} is {what} for {:?}", one + 1, scene.stays));
    let in_force = scene.arena.network.strike(faults);
    tokio::time::sleep(scene.stays).await;
    scene.arena.network.heal(in_force);
    scene.say(format!("the links of seat {} are as before", one + 1));
}
