//! Files as the rules see them, and the rules on their names and lengths.

use std::{fs, path::Path};

/// One file of the tree.
pub(crate) struct Source {
    /// Relative to the root of the workspace, with `/` between its parts.
    pub(crate) path: String,
    pub(crate) text: String,
}

/// Lines of a Rust file, tests included. Beyond it a file has certainly more than one idea.
const MAX_LINES: usize = 500;

/// Names that say nothing about what is inside.
const EMPTY_NAMES: [&str; 12] =
    ["common", "data", "helper", "helpers", "impls", "manager", "misc", "shared", "stuff", "types", "util", "utils"];

/// Reads what people write below `folder`: Rust, contracts and scripts. Build output and foreign packages are left out.
pub(crate) fn read_into(sources: &mut Vec<Source>, root: &Path, folder: &Path) {
    for entry in fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let path = entry.expect("a folder that opened can be listed").path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if path.is_dir() {
            if !["target", "node_modules", "corpus", "artifacts"].contains(&name.as_str()) {
                read_into(sources, root, &path);
            }
        } else if [".rs", ".proto", ".sh"].iter().any(|end| name.ends_with(end)) || folder == root.join(".ci") {
            let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            let path = path.strip_prefix(root).expect("the folder is in the tree").to_string_lossy().replace('\\', "/");
            sources.push(Source { path, text });
        }
    }
}

pub(crate) fn too_long(source: &Source) -> Vec<String> {
    let lines = source.text.lines().count();
    let offends = source.path.ends_with(".rs") && lines > MAX_LINES;
    offends.then(|| format!("{}: {lines} lines, {MAX_LINES} at most", source.path)).into_iter().collect()
}

pub(crate) fn empty_names(source: &Source) -> Vec<String> {
    let Some(stem) = source.path.strip_suffix(".rs") else { return Vec::new() };
    let mut offences = Vec::new();
    if stem.ends_with("/mod") {
        offences.push(format!("{}: a module's file bears its name", source.path));
    }
    let inline = source.text.lines().filter_map(inline_module);
    for name in stem.split('/').chain(inline).filter(|name| EMPTY_NAMES.contains(name)) {
        offences.push(format!("{}: the name `{name}` says nothing", source.path));
    }
    offences
}

/// The name in `mod name {`.
fn inline_module(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let line = line.strip_prefix("pub(crate) ").or_else(|| line.strip_prefix("pub ")).unwrap_or(line);
    line.strip_prefix("mod ")?.strip_suffix('{').map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(path: &str, text: &str) -> Source {
        Source { path: path.to_owned(), text: text.to_owned() }
    }

    #[test]
    fn a_long_file_is_found() {
        let at_the_limit = source("raft/src/node.rs", &"x\n".repeat(MAX_LINES));
        assert_eq!(too_long(&at_the_limit), Vec::<String>::new());
        let beyond = source("raft/src/node.rs", &"x\n".repeat(MAX_LINES + 1));
        assert_eq!(too_long(&beyond), ["raft/src/node.rs: 501 lines, 500 at most"]);
    }

    #[test]
    fn empty_names_are_found() {
        for path in ["broker/src/util.rs", "broker/src/types/message.rs"] {
            assert_eq!(empty_names(&source(path, "")).len(), 1, "{path}");
        }
        assert_eq!(
            empty_names(&source("broker/src/app.rs", "    pub(crate) mod helpers {\n")),
            ["broker/src/app.rs: the name `helpers` says nothing"]
        );
        assert_eq!(
            empty_names(&source("broker/src/grpc/mod.rs", "")),
            ["broker/src/grpc/mod.rs: a module's file bears its name"]
        );
        assert_eq!(empty_names(&source("broker/src/machine/publish.rs", "mod tests {\n")), Vec::<String>::new());
    }
}
