//! The documentation, as far as a test can judge it: codes, settings, targets and links are those that there are.

use std::{
    fs,
    path::{Path, PathBuf},
};

use tandem_broker::{Config, Reason};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests crate is a folder of the workspace").to_owned()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// All pages: the README and what is under docs.
fn pages() -> Vec<PathBuf> {
    let mut pages = vec![root().join("README.md")];
    let mut folders = vec![root().join("docs")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of the documentation can be listed") {
            let path = entry.expect("a folder of the documentation can be listed").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                pages.push(path);
            }
        }
    }
    pages
}

/// The lines of fenced code, and the lines of everything else.
fn code_and_prose(text: &str) -> (Vec<&str>, Vec<&str>) {
    let (mut code, mut prose, mut fenced) = (Vec::new(), Vec::new(), false);
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if fenced {
            code.push(line);
        } else {
            prose.push(line);
        }
    }
    (code, prose)
}

/// What stands between single backticks.
fn inline_code(prose: &[&str]) -> Vec<String> {
    prose.join("\n").split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Targets of `[text](target)` that are no addresses elsewhere.
fn relative_links(prose: &[&str]) -> Vec<String> {
    let text = prose.join("\n");
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    targets.filter(|target| !target.contains("://") && *target != "...").map(str::to_owned).collect()
}

/// A heading as the part of a link behind `#`.
fn anchor(heading: &str) -> String {
    let kept = heading.trim_start_matches('#').trim().chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

#[test]
fn every_reason_is_explained() {
    let page = read("docs/errors/README.md");
    let missing: Vec<_> = Reason::ALL
        .iter()
        .map(|reason| reason.code())
        .filter(|code| !page.contains(&format!("\n| `{code}` |")))
        .collect();
    assert!(missing.is_empty(), "docs/errors/README.md has no row for {missing:?}");
}

#[test]
fn every_problem_of_the_control_plane_is_explained() {
    let page = read("docs/errors/control-plane.md");
    let codes: Vec<_> = tandem_control_plane::error_codes().collect();
    let missing: Vec<_> = codes.iter().filter(|code| !page.contains(&format!("\n| `{code}` |"))).collect();
    assert!(codes.len() > 10 && missing.is_empty(), "docs/errors/control-plane.md has no row for {missing:?}");
}

#[test]
fn every_setting_of_the_control_plane_is_documented_with_its_default() {
    let page = read("docs/guides/control-plane.md");
    let mut settings =
        toml::Table::try_from(tandem_control_plane::Config::default()).expect("the defaults can be written");
    // It is not printed.
    let url = toml::Value::from(tandem_control_plane::DatabaseConfig::default().url);
    settings["database"].as_table_mut().expect("a section").insert("url".to_owned(), url);
    let mut leaves = Vec::new();
    for (key, value) in settings {
        match value {
            toml::Value::Table(section) => {
                leaves.extend(section.into_iter().map(|(inner, value)| (format!("{key}.{inner}"), value)));
            }
            value => leaves.push((key, value)),
        }
    }
    for (key, value) in leaves {
        let row = page.lines().find_map(|line| line.strip_prefix(&format!("| `{key}` | ")));
        let row = row.unwrap_or_else(|| panic!("docs/guides/control-plane.md has no row for {key}"));
        let default = row.split(" |").next().unwrap_or_default().trim_matches('`').replace("empty", "");
        assert_eq!(default, value.to_string().trim_matches('"'), "the default of {key}");
    }
}

/// Sources of the codes that are no reasons of refusals, by folder or file.
const CODE_SOURCES: [&str; 6] = [
    "broker/src/error.rs",
    "storage/src/error.rs",
    "raft/src/error.rs",
    "raft/src/peers/refusal.rs",
    "clients/rust/src/error.rs",
    "clients/cli/src",
];
/// Ends the command without a word, so nobody sees it.
const NEVER_PRINTED: &str = "OUTPUT_CLOSED";

/// Rust sources, without what stands behind the mark of their unit tests.
fn sources(path: &Path) -> Vec<String> {
    if path.is_dir() {
        let entries = fs::read_dir(path).expect("a folder of sources can be listed");
        return entries.flat_map(|entry| sources(&entry.expect("a folder of sources can be listed").path())).collect();
    }
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    vec![text.split("#[cfg(test)]").next().unwrap_or_default().to_owned()]
}

/// The codes that a source gives to errors: words in capitals as arms of `match`, as a field `code`, or in `failed(...)`.
fn codes(source: &str) -> Vec<String> {
    let is_code = |word: &str| word.len() > 3 && word.chars().all(|c| c.is_ascii_uppercase() || c == '_');
    let parts: Vec<_> = source.split('"').collect();
    let literals = parts.windows(2).filter(|pair| {
        let before = pair[0].trim_end();
        is_code(pair[1]) && ["=>", "code:", "failed("].iter().any(|end| before.ends_with(end))
    });
    literals.map(|pair| pair[1].to_owned()).collect()
}

#[test]
fn every_code_of_a_start_a_stop_and_the_clients_is_explained() {
    let page = read("docs/errors/README.md");
    let mut found = Vec::new();
    for path in CODE_SOURCES {
        let here: Vec<_> = sources(&root().join(path)).iter().flat_map(|source| codes(source)).collect();
        assert!(here.len() > 2, "only {here:?} were found in {path}");
        found.extend(here);
    }
    for known in ["INVALID_CONFIG", "STORAGE_LOCKED", "NODE_ID_REUSED", "UNREACHABLE", "NOT_A_CLUSTER", "BAD_RECORD"] {
        assert!(found.iter().any(|code| code == known), "{known} is not found in the sources any more");
    }
    found.retain(|code| code != NEVER_PRINTED && !page.contains(&format!("`{code}`")));
    assert!(found.is_empty(), "docs/errors/README.md does not explain {found:?}");
}

#[test]
fn every_setting_is_documented_with_its_default() {
    let page = read("docs/guides/configuration.md");
    let settings = toml::Table::try_from(Config::default()).expect("the defaults can be written as TOML");
    let mut leaves = Vec::new();
    for (key, value) in settings {
        match value {
            toml::Value::Table(section) => leaves.extend(section),
            value => leaves.push((key, value)),
        }
    }
    assert!(leaves.len() > 20, "only {} settings were found", leaves.len());
    for (key, value) in leaves {
        let row = page.lines().find_map(|line| line.strip_prefix(&format!("| `{key}` | ")));
        let row = row.unwrap_or_else(|| panic!("docs/guides/configuration.md has no row for {key}"));
        let default = row.split(" |").next().unwrap_or_default().trim_matches('`');
        assert_eq!(default, value.to_string().trim_matches('"'), "the default of {key}");
    }
}

#[test]
fn every_target_that_the_readme_names_exists() {
    let (readme, makefile) = (read("README.md"), read("Makefile"));
    let (code, prose) = code_and_prose(&readme);
    let mut named = 0;
    for command in code.into_iter().map(str::to_owned).chain(inline_code(&prose)) {
        let Some(target) = command.strip_prefix("make ").and_then(|rest| rest.split_whitespace().next()) else {
            continue;
        };
        assert!(
            makefile.contains(&format!("\n{target}:")),
            "the README says `make {target}`, which the Makefile has not"
        );
        named += 1;
    }
    assert!(named > 3, "only {named} targets were found");
}

#[test]
fn every_link_leads_somewhere() {
    let mut checked = 0;
    for page in pages() {
        let text = fs::read_to_string(&page).expect("a page can be read");
        for link in relative_links(&code_and_prose(&text).1) {
            let (path, heading) = link.split_once('#').unwrap_or((&link, ""));
            let target = if path.is_empty() { page.clone() } else { page.with_file_name("").join(path) };
            assert!(target.exists(), "{}: {link} leads nowhere", page.display());
            if !heading.is_empty() {
                let text = fs::read_to_string(&target).expect("a page that is linked to can be read");
                let found = code_and_prose(&text).1.iter().any(|line| line.starts_with('#') && anchor(line) == heading);
                assert!(found, "{}: {link} names no heading", page.display());
            }
            checked += 1;
        }
    }
    assert!(checked > 30, "only {checked} links were found");
}
