//! A little of what `make fuzz` does at length, in every test run: the seeds, and 20,000 mutations of them for each door.
//! No coverage guides it, and the same inputs come every time.

#[path = "fuzz_doors/mutation.rs"]
mod mutation;
#[path = "fuzz_doors/seeds.rs"]
mod seeds;

use std::{collections::BTreeMap, fs, panic, path::Path};

use mutation::Mutator;
use prost::Message as _;
use tandem_broker::fuzzing;
use tandem_proto::messaging::v1::Message;

const MUTATIONS: usize = 20_000;

/// Reads a message as the fuzz target does. Whether it was accepted.
fn message(bytes: &[u8]) -> bool {
    let accepted = fuzzing::message(bytes);
    if accepted {
        let message = Message::decode(bytes).expect("what the broker accepts, generated code can read");
        assert!(fuzzing::message(&message.encode_to_vec()), "refused when encoded again: {message:?}");
    }
    accepted
}

/// Hands `door` mutations of its seeds; names the input if it panics. How many inputs were accepted.
fn mutate(name: &str, door: fn(&[u8]) -> bool) -> usize {
    let seeds = seeds::all().into_iter().find(|(of, _)| *of == name).expect("every door has seeds").1;
    let mut mutator = Mutator::new(seeds.into_values().collect());
    let mut accepted = 0;
    for round in 0..MUTATIONS {
        let input = mutator.next_input();
        match panic::catch_unwind(|| door(&input)) {
            Ok(yes) => accepted += usize::from(yes),
            Err(_) => panic!("door {name}, round {round}: it panicked on b\"{}\"", input.escape_ascii()),
        }
    }
    accepted
}

#[test]
fn the_doors_know_which_messages_are_good() {
    for (name, bytes) in seeds::messages() {
        assert_eq!(message(&bytes), !name.starts_with("refused"), "{name}");
    }
}

#[test]
fn the_other_doors_know_their_seeds() {
    let [_, (_, commands), (_, records)] = seeds::all();
    for (name, bytes) in &commands {
        assert!(fuzzing::command(bytes), "{name}");
    }
    for (name, bytes) in &records {
        assert!(fuzzing::records(bytes), "{name}");
    }
}

#[test]
fn mutated_messages_are_read_or_refused() {
    let accepted = mutate("message", message);
    // Mutations that spoil everything, or nothing, would test nothing.
    assert!((MUTATIONS / 50..MUTATIONS / 2).contains(&accepted), "{accepted} of {MUTATIONS} were accepted");
}

#[test]
fn mutated_commands_are_read_or_refused() {
    assert!(mutate("command", fuzzing::command) > 100);
}

#[test]
fn mutated_records_are_read_or_refused() {
    assert!(mutate("records", fuzzing::records) > 100);
}

/// The fuzzer begins with the files in `fuzz/seeds`. `UPDATE_SEEDS=1` writes them.
#[test]
fn the_seeds_on_disk_are_these() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds");
    for (door, seeds) in seeds::all() {
        let folder = root.join(door);
        if std::env::var_os("UPDATE_SEEDS").is_some() {
            fs::create_dir_all(&folder).expect("fuzz/seeds can be written");
            for (name, bytes) in &seeds {
                fs::write(folder.join(name), bytes).expect("fuzz/seeds can be written");
            }
        }
        let on_disk: BTreeMap<_, _> = fs::read_dir(&folder)
            .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
            .map(|entry| entry.expect("a folder that opened can be listed"))
            .map(|entry| (entry.file_name(), fs::read(entry.path()).expect("a seed can be read")))
            .collect();
        let names: Vec<_> = on_disk.keys().collect();
        assert_eq!(names, seeds.keys().collect::<Vec<_>>(), "fuzz/seeds/{door}: run this test with UPDATE_SEEDS=1");
        for ((name, on_disk), bytes) in on_disk.iter().zip(seeds.values()) {
            assert!(on_disk == bytes, "fuzz/seeds/{door}/{name:?} is old: run this test with UPDATE_SEEDS=1");
        }
    }
}
