//! Rules on what stands in a file.

use crate::source::Source;

/// Written so that this file does not offend against itself.
const UNFINISHED: [&str; 3] = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X:")];
const BARE_IGNORE: &str = concat!("#[", "ignore]");
const CLOCK_LINT: &str = concat!("clippy::", "disallowed_methods");

fn lines_with(source: &Source, what: &str, offends: impl Fn(&str) -> bool) -> Vec<String> {
    let numbered = source.text.lines().zip(1..);
    let found = numbered.filter(|(line, _)| offends(line));
    found.map(|(line, number)| format!("{}:{number}: {what}: {}", source.path, line.trim())).collect()
}

pub(crate) fn unfinished(source: &Source) -> Vec<String> {
    lines_with(source, "unfinished", |line| UNFINISHED.iter().any(|mark| line.contains(mark)))
}

pub(crate) fn ignored_without_reason(source: &Source) -> Vec<String> {
    lines_with(source, "ignored without a reason", |line| line.contains(BARE_IGNORE))
}

/// `.clippy.toml` bans clocks and randomness; only these may lift the ban: the one file for each, tests, and programs whose
/// purpose is to measure.
pub(crate) fn clock_outside_its_file(source: &Source) -> Vec<String> {
    let name = source.path.rsplit('/').next().unwrap_or_default();
    let door = ["clock.rs", "random.rs"].contains(&name);
    let test = name == "tests.rs" || name.ends_with("_tests.rs") || source.path.contains("/tests/");
    let program = ["tests/", "benches/", "clients/cli/"].iter().any(|folder| source.path.starts_with(folder));
    if door || test || program || !source.path.ends_with(".rs") {
        return Vec::new();
    }
    lines_with(source, "lifts the ban on clocks", |line| {
        line.contains(CLOCK_LINT) && line.trim_start().starts_with("#") && !line.contains("cfg_attr(test")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(path: &str, text: String) -> Source {
        Source { path: path.to_owned(), text }
    }

    #[test]
    fn unfinished_work_is_found() {
        for mark in UNFINISHED {
            let offences = unfinished(&source("proto/a.proto", format!("first\n// {mark} later\n")));
            assert_eq!(offences, [format!("proto/a.proto:2: unfinished: // {mark} later")]);
        }
    }

    #[test]
    fn a_bare_ignore_is_found() {
        let planted = source("tests/tests/crash.rs", format!("    {BARE_IGNORE}\n"));
        assert_eq!(ignored_without_reason(&planted).len(), 1);
        let reasoned = source("tests/tests/crash.rs", "#[ignore = \"chaos: kills brokers for minutes\"]\n".to_owned());
        assert_eq!(ignored_without_reason(&reasoned), Vec::<String>::new());
    }

    #[test]
    fn a_second_door_to_the_clock_is_found() {
        let allow = format!("#![allow({CLOCK_LINT}, reason = \"it is handy\")]\n");
        assert_eq!(clock_outside_its_file(&source("broker/src/machine/publish.rs", allow.clone())).len(), 1);
        for path in ["broker/src/clock.rs", "broker/tests/restart.rs", "clients/cli/src/bench.rs", "tests/src/lib.rs"] {
            assert_eq!(clock_outside_its_file(&source(path, allow.clone())), Vec::<String>::new(), "{path}");
        }
        let in_tests = format!("#![cfg_attr(test, allow({CLOCK_LINT}))]\n");
        assert_eq!(clock_outside_its_file(&source("raft/src/lib.rs", in_tests)), Vec::<String>::new());
    }
}
