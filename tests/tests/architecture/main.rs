//! The tidy test: what compilers and lints cannot see. It reads the tree and changes nothing.
//!
//! Every rule is a function from what was read to a list of offences, and every rule is itself tested on a planted
//! offence, so that none can fall silent.

use std::{fs, path::Path};

use cargo_metadata::MetadataCommand;

mod arrows;
mod first_page;
mod source;
mod text;

use arrows::Package;
use source::Source;

/// What the rules look at.
struct Tree {
    packages: Vec<Package>,
    sources: Vec<Source>,
}

impl Tree {
    /// Reads the workspace that this test was compiled in.
    fn read() -> Self {
        let root =
            Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests crate is a folder of the workspace");
        let metadata = MetadataCommand::new()
            .manifest_path(root.join("Cargo.toml"))
            .no_deps()
            .exec()
            .expect("cargo metadata reads the workspace");
        let packages: Vec<Package> =
            metadata.workspace_packages().into_iter().map(|package| Package::from_metadata(package, root)).collect();
        let mut sources = Vec::new();
        for folder in packages.iter().map(|package| package.folder.as_str()).chain(["tools", ".ci"]) {
            source::read_into(&mut sources, root, &root.join(folder));
        }
        Self { packages, sources }
    }

    fn offences(&self, rule: fn(&Source) -> Vec<String>) -> Vec<String> {
        self.sources.iter().flat_map(rule).collect()
    }
}

#[track_caller]
fn assert_none(offences: &[String], what_to_do: &str) {
    assert!(offences.is_empty(), "{}\n{what_to_do}", offences.join("\n"));
}

#[test]
fn the_tree_is_read() {
    let tree = Tree::read();
    let names: Vec<_> = tree.packages.iter().map(|package| package.name.as_str()).collect();
    for name in ["tandem-proto", "tandem-storage", "tandem-raft", "tandem-broker", "tandem-client", "tandem-cli"] {
        assert!(names.contains(&name), "{name} is not in the workspace: {names:?}");
    }
    for path in ["storage/src/lib.rs", "tests/tests/architecture/main.rs", "tools/verify.sh", ".ci/run"] {
        assert!(tree.sources.iter().any(|source| source.path == path), "{path} was not read");
    }
}

#[test]
fn imports_follow_the_arrows() {
    assert_none(
        &arrows::offences(&Tree::read().packages),
        "An import against the arrows needs an ADR first (docs/adr).",
    );
}

#[test]
fn every_crate_inherits_the_lints() {
    let offences: Vec<_> = Tree::read().packages.iter().filter_map(arrows::lints_not_inherited).collect();
    assert_none(&offences, "One lints table for the workspace: write `[lints]` and `workspace = true`.");
}

#[test]
fn every_crate_has_a_first_page() {
    let offences = Tree::read().offences(first_page::offences);
    assert_none(&offences, "The first page says what the crate owns, what it does not know, what to read first.");
}

#[test]
fn names_say_something() {
    assert_none(
        &Tree::read().offences(source::empty_names),
        "Name it after what it holds; `foo.rs` stands beside `foo/`.",
    );
}

#[test]
fn files_hold_one_idea() {
    assert_none(&Tree::read().offences(source::too_long), "Split it along its ideas; most files stay under 300 lines.");
}

#[test]
fn nothing_is_left_unfinished() {
    let tree = Tree::read();
    assert_none(&tree.offences(text::unfinished), "Do it, or file it as an issue.");
    assert_none(&tree.offences(text::ignored_without_reason), "Say when the test runs: `#[ignore = \"chaos: ...\"]`.");
}

#[test]
fn clocks_and_randomness_have_one_door() {
    assert_none(
        &Tree::read().offences(text::clock_outside_its_file),
        "Move the call to the crate's clock.rs or random.rs.",
    );
}

#[test]
fn every_decision_is_in_the_index() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/adr");
    let index = fs::read_to_string(folder.join("README.md")).expect("docs/adr has an index");
    let missing: Vec<_> = fs::read_dir(&folder)
        .expect("docs/adr is a folder")
        .map(|entry| entry.expect("docs/adr can be listed").file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with(|first: char| first.is_ascii_digit()) && !index.contains(name.as_str()))
        .collect();
    assert_none(&missing, "Add a line for it to docs/adr/README.md.");
}
