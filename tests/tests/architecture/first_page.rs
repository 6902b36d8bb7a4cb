//! A crate's first page: the documentation at the top of its `lib.rs`, with nothing but modules and re-exports below it.

use crate::source::Source;

const MAX_LINES: usize = 40;

/// What the page must speak about, in the words it may use for it.
const SUBJECTS: [(&str, &[&str]); 3] = [
    ("what the crate owns", &["owns"]),
    ("what it deliberately does not know", &["not know", "knows no"]),
    ("what to read first", &["read first"]),
];

/// Code that belongs in a module of its own. Constants and aliases may stand on the page.
const TOO_MUCH: [&str; 8] = ["fn", "async fn", "struct", "enum", "trait", "impl", "impl<", "macro_rules!"];

pub(crate) fn offences(source: &Source) -> Vec<String> {
    if !source.path.ends_with("src/lib.rs") {
        return Vec::new();
    }
    let page: Vec<&str> = source.text.lines().take_while(|line| line.starts_with("//!")).collect();
    let words = page.join(" ").replace("//!", "").split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase();
    let mut offences = Vec::new();
    if page.len() > MAX_LINES {
        offences.push(format!("{}: its first page has {} lines, {MAX_LINES} at most", source.path, page.len()));
    }
    for (subject, phrases) in SUBJECTS {
        if !phrases.iter().any(|phrase| words.contains(phrase)) {
            offences.push(format!("{}: its first page does not say {subject} (looked for {phrases:?})", source.path));
        }
    }
    for line in source.text.lines().filter(|line| is_code(line)) {
        offences.push(format!("{}: move this to a module: {line}", source.path));
    }
    offences
}

fn is_code(line: &str) -> bool {
    let line = line.strip_prefix("pub(crate) ").or_else(|| line.strip_prefix("pub ")).unwrap_or(line);
    TOO_MUCH
        .iter()
        .any(|start| line.strip_prefix(start).is_some_and(|rest| start.ends_with(['<', '!']) || rest.starts_with(' ')))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str =
        "//! Keeps things.\n//!\n//! It owns things, and does not\n//! know why. Read first: Thing.\n\nmod thing;\n";

    fn page(text: String) -> Source {
        Source { path: "raft/src/lib.rs".to_owned(), text }
    }

    #[test]
    fn a_page_that_says_it_all_passes() {
        assert_eq!(offences(&page(PAGE.to_owned())), Vec::<String>::new());
    }

    #[test]
    fn planted_offences_are_found() {
        assert_eq!(offences(&page("mod thing;\n".to_owned())).len(), SUBJECTS.len());
        let long = format!("{}{PAGE}", "//!\n".repeat(MAX_LINES));
        assert_eq!(offences(&page(long)), ["raft/src/lib.rs: its first page has 44 lines, 40 at most"]);
        for code in ["pub fn keep() {}", "impl<T> Keep for T {}", "pub(crate) struct Kept;", "macro_rules! keep {"] {
            let planted = page(format!("{PAGE}{code}\n"));
            assert_eq!(offences(&planted), [format!("raft/src/lib.rs: move this to a module: {code}")]);
        }
    }
}
