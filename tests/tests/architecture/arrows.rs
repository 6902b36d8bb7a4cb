//! Who may import whom, and which crate alone may use a library that the others must not see.

use std::{fs, path::Path};

use cargo_metadata::DependencyKind;

/// A crate of the workspace with the names it depends on, of every kind: a test may not take a forbidden way either.
pub(crate) struct Package {
    pub(crate) name: String,
    /// Relative to the root of the workspace.
    pub(crate) folder: String,
    pub(crate) manifest: String,
    pub(crate) dependencies: Vec<String>,
}

impl Package {
    pub(crate) fn from_metadata(package: &cargo_metadata::Package, root: &Path) -> Self {
        let folder = package.manifest_path.as_std_path().parent().expect("a manifest stands in a folder");
        Self {
            name: package.name.to_string(),
            folder: folder.strip_prefix(root).expect("a member stands in the workspace").to_string_lossy().into_owned(),
            manifest: fs::read_to_string(&package.manifest_path).expect("cargo read this manifest a moment ago"),
            dependencies: package
                .dependencies
                .iter()
                .filter(|dependency| dependency.kind != DependencyKind::Unknown)
                .map(|dependency| dependency.name.clone())
                .collect(),
        }
    }
}

enum May {
    Import(&'static [&'static str]),
    ImportAll,
}

const ARROWS: [(&str, May); 10] = [
    ("tandem-storage", May::Import(&[])),
    ("tandem-proto", May::Import(&[])),
    ("tandem-raft", May::Import(&["tandem-storage", "tandem-proto"])),
    ("tandem-broker", May::Import(&["tandem-raft", "tandem-proto", "tandem-storage"])),
    ("tandem-client", May::Import(&["tandem-proto"])),
    ("tandem-control-plane", May::Import(&["tandem-client"])),
    ("tandem-agent", May::Import(&["tandem-client"])),
    ("tandem-cli", May::ImportAll),
    ("tandem-tests", May::ImportAll),
    ("tandem-benches", May::ImportAll),
];

const NEVER_IMPORTED: [&str; 2] = ["tandem-tests", "tandem-benches"];

/// A library, with the crates that belong to it by name (`openraft-macros`), and its only user.
const SOLE_USERS: [(&str, &str); 6] = [
    ("openraft", "tandem-raft"),
    ("rocksdb", "tandem-storage"),
    ("librocksdb", "tandem-storage"),
    ("sqlx", "tandem-control-plane"),
    ("rusqlite", "tandem-control-plane"),
    ("bollard", "tandem-control-plane"),
];

pub(crate) fn offences(packages: &[Package]) -> Vec<String> {
    packages
        .iter()
        .flat_map(|package| forbidden_imports(package).into_iter().chain(borrowed_libraries(package)))
        .collect()
}

fn forbidden_imports(package: &Package) -> Vec<String> {
    let name = &package.name;
    let Some((_, may)) = ARROWS.iter().find(|(known, _)| known == name) else {
        return vec![format!("{name}: no arrow says what this crate may import")];
    };
    let ours = package.dependencies.iter().filter(|dependency| dependency.starts_with("tandem-"));
    ours.filter(|dependency| {
        let allowed = match may {
            May::Import(list) => list.contains(&dependency.as_str()),
            May::ImportAll => true,
        };
        !allowed || NEVER_IMPORTED.contains(&dependency.as_str())
    })
    .map(|dependency| format!("{name} imports {dependency}"))
    .collect()
}

fn borrowed_libraries(package: &Package) -> Vec<String> {
    let mut offences = Vec::new();
    for dependency in &package.dependencies {
        for (library, user) in SOLE_USERS {
            let rest = dependency.strip_prefix(library);
            if rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-')) && package.name != user {
                offences.push(format!("{} uses {dependency}, which only {user} may", package.name));
            }
        }
    }
    offences
}

pub(crate) fn lints_not_inherited(package: &Package) -> Option<String> {
    let inherits = package.manifest.contains("[lints]\nworkspace = true");
    (!inherits).then(|| format!("{}: has lints of its own", package.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, dependencies: &[&str]) -> Package {
        Package {
            name: name.to_owned(),
            folder: name.to_owned(),
            manifest: String::new(),
            dependencies: dependencies.iter().map(|&dependency| dependency.to_owned()).collect(),
        }
    }

    #[test]
    fn the_drawn_arrows_pass() {
        let packages = [
            package("tandem-broker", &["tandem-raft", "tandem-storage", "tandem-proto", "tokio"]),
            package("tandem-raft", &["openraft", "tandem-storage"]),
            package("tandem-storage", &["rocksdb"]),
            package("tandem-cli", &["tandem-broker", "tandem-client"]),
            package("tandem-tests", &["tandem-cli"]),
        ];
        assert_eq!(offences(&packages), Vec::<String>::new());
    }

    #[test]
    fn planted_offences_are_found() {
        let planted: [(&str, &[&str], &str); 7] = [
            ("tandem-storage", &["tandem-proto"], "tandem-storage imports tandem-proto"),
            ("tandem-client", &["tandem-broker"], "tandem-client imports tandem-broker"),
            ("tandem-cli", &["tandem-tests"], "tandem-cli imports tandem-tests"),
            ("tandem-tests", &["tandem-benches"], "tandem-tests imports tandem-benches"),
            ("tandem-broker", &["openraft"], "tandem-broker uses openraft, which only tandem-raft may"),
            ("tandem-tests", &["librocksdb-sys"], "tandem-tests uses librocksdb-sys, which only tandem-storage may"),
            ("tandem-types", &[], "tandem-types: no arrow says what this crate may import"),
        ];
        for (name, dependencies, offence) in planted {
            assert_eq!(offences(&[package(name, dependencies)]), [offence]);
        }
    }

    #[test]
    fn lints_of_its_own_are_found() {
        let mut planted = package("tandem-raft", &[]);
        planted.manifest = "[lints.rust]\nunsafe_code = \"allow\"\n".to_owned();
        assert_eq!(lints_not_inherited(&planted).as_deref(), Some("tandem-raft: has lints of its own"));
        planted.manifest = "[lints]\nworkspace = true\n".to_owned();
        assert_eq!(lints_not_inherited(&planted), None);
    }
}
