//! Agent names as sandbox ids.

use std::collections::{HashMap, HashSet};

/// Longest id that a name becomes; the broker allows 128 bytes, and a number may have to be added.
const MAX_BYTES: usize = 100;

/// Gives each name an id of its own: letters, digits and `.`, `_`, `-` are kept, anything else becomes `-`. When two names
/// would become one id, the later one gets a number.
#[derive(Debug, Default)]
pub(super) struct Names {
    by_name: HashMap<String, usize>,
    ids: Vec<(String, String)>,
    taken: HashSet<String>,
}

impl Names {
    /// The index of the name, counted in the order of coming.
    pub(super) fn index(&mut self, name: &str) -> usize {
        if let Some(index) = self.by_name.get(name) {
            return *index;
        }
        let base = sanitised(name);
        let numbered = (2..).map(|number: u32| format!("{base}.{number}"));
        let free = std::iter::once(base.clone()).chain(numbered).find(|id| !self.taken.contains(id));
        let id = free.expect("there are more numbers than names");
        self.taken.insert(id.clone());
        self.ids.push((id, name.to_owned()));
        self.by_name.insert(name.to_owned(), self.ids.len() - 1);
        self.ids.len() - 1
    }

    /// Sandbox ids and the names they stand for, by index.
    pub(super) fn into_ids(self) -> Vec<(String, String)> {
        self.ids
    }
}

fn sanitised(name: &str) -> String {
    let keep = |letter: char| if letter.is_ascii_alphanumeric() || "._-".contains(letter) { letter } else { '-' };
    let id: String = name.chars().take(MAX_BYTES).map(keep).collect();
    // An id begins with a letter or a digit.
    if id.starts_with(|first: char| first.is_ascii_alphanumeric()) { id } else { format!("agent{id}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn different_names_become_different_ids() {
        let mut names = Names::default();
        let indexes: Vec<_> =
            ["a b", "a/b", "a-b", "a-b.2", "_x", "\u{e4}", "", "a b"].iter().map(|name| names.index(name)).collect();
        assert_eq!(indexes, [0, 1, 2, 3, 4, 5, 6, 0]);
        let ids: Vec<_> = names.into_ids().into_iter().map(|(id, _)| id).collect();
        assert_eq!(ids, ["a-b", "a-b.2", "a-b.3", "a-b.2.2", "agent_x", "agent-", "agent"]);
    }

    #[test]
    fn long_names_fit() {
        let mut names = Names::default();
        let long = "x".repeat(5000);
        names.index(&long);
        names.index(&format!("{long}y"));
        let ids = names.into_ids();
        assert!(ids.iter().all(|(id, _)| id.len() <= 128) && ids[0].0 != ids[1].0);
    }
}
