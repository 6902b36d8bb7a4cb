//! Nodes that do not hear each other: one that is cut off from all others, in both directions or in one; a bridge, over which
//! alone the others could speak; a node without clients, or with nobody else.

use super::{Scene, pause::from_one};
use crate::arena::network::{End, Fault};

pub(super) async fn strike(mut scene: Scene) {
    let taken = scene.arena.taken().await;
    let one = scene.some(1, 1).await[0];
    let others: Vec<_> = taken.into_iter().filter(|number| *number != one).collect();
    let alone = scene.arena.network.is_isolated();
    let shapes = if alone { 5 } else { 2 };
    let (what, faults) = match scene.random.between(1, shapes) {
        1 => ("cut off from the others", both_ways(&[one], &others)),
        2 => ("the only bridge between the others", between(&others)),
        3 => ("heard by nobody else", one_way(&[one], &others)),
        4 => ("deaf to the others", one_way(&others, &[one])),
        _ => ("cut off from all clients", clients(one)),
    };
    scene.say(format!("seat {} is {what}, seats {:?}, for {:?}", one + 1, from_one(&others), scene.stays));
    let in_force = scene.arena.network.strike(faults);
    tokio::time::sleep(scene.stays).await;
    scene.arena.network.heal(in_force);
    scene.say(format!("seat {} is healed", one + 1));
}

fn one_way(from: &[usize], to: &[usize]) -> Vec<Fault> {
    let pairs = from.iter().flat_map(|from| to.iter().map(move |to| (*from, *to)));
    pairs.map(|(from, to)| Fault::Cut(End::Seat(from), End::Seat(to))).collect()
}

fn both_ways(one: &[usize], other: &[usize]) -> Vec<Fault> {
    [one_way(one, other), one_way(other, one)].concat()
}

fn between(seats: &[usize]) -> Vec<Fault> {
    let pairs = seats.iter().flat_map(|from| seats.iter().map(move |to| (*from, *to)));
    pairs.filter(|(from, to)| from != to).map(|(from, to)| Fault::Cut(End::Seat(from), End::Seat(to))).collect()
}

fn clients(seat: usize) -> Vec<Fault> {
    vec![Fault::Cut(End::Clients, End::Seat(seat)), Fault::Cut(End::Seat(seat), End::Clients)]
}
