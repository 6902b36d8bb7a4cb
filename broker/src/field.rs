//! Checks of single values, the same for every request.

use std::collections::HashMap;

use crate::rejection::Rejection;

/// Longest id, in bytes.
pub(crate) const MAX_ID_BYTES: usize = 128;
/// Longest name or correlation id, in bytes.
pub(crate) const MAX_NAME_BYTES: usize = 128;
/// Most pairs of a map.
const MAX_PAIRS: usize = 64;
/// Longest value of a map, in bytes.
const MAX_VALUE_BYTES: usize = 4 << 10;
/// Longest map in all, in bytes of keys and values.
const MAX_MAP_BYTES: usize = 16 << 10;

/// An id: 1 to 128 bytes of letters, digits and `. _ : @ / -`, beginning with a letter or digit.
pub(crate) fn id<'a>(field: &str, value: &'a str) -> Result<&'a str, Rejection> {
    let fault = if value.is_empty() {
        "is empty"
    } else if value.len() > MAX_ID_BYTES {
        "is longer than 128 bytes"
    } else if !value.as_bytes()[0].is_ascii_alphanumeric() {
        "does not begin with a letter or a digit"
    } else if !value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._:@/-".contains(&byte)) {
        "has characters other than A-Z a-z 0-9 . _ : @ / -"
    } else if value.split('/').any(|part| matches!(part, "." | "..")) {
        // Somebody may make a path of it.
        "has a part between slashes that is . or .."
    } else {
        return Ok(value);
    };
    Err(Rejection::field(field, format!("{field} {:?} {fault}", shown(value))))
}

/// A text for people and filters: any characters, up to 128 bytes.
pub(crate) fn name<'a>(field: &str, value: &'a str) -> Result<&'a str, Rejection> {
    if value.len() <= MAX_NAME_BYTES {
        return Ok(value);
    }
    Err(Rejection::field(field, format!("{field} {:?} is longer than {MAX_NAME_BYTES} bytes", shown(value))))
}

/// Most parts of a topic's name.
const MAX_TOPIC_PARTS: usize = 16;

/// The name of a topic: up to 16 parts of letters, digits, `_` and `-`, divided by dots, up to 128 bytes.
pub(crate) fn topic<'a>(field: &str, value: &'a str) -> Result<&'a str, Rejection> {
    let part =
        |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
    parts(field, value, "a topic", value.split('.').all(part))
}

/// A pattern of topics: the same, with `*` for a part, and `>` as the last.
pub(crate) fn topic_pattern<'a>(field: &str, value: &'a str) -> Result<&'a str, Rejection> {
    let body = match value.strip_suffix('>') {
        Some("") => return Ok(value),
        Some(body) => body.strip_suffix('.').unwrap_or(">"),
        None => value,
    };
    let part = |part: &str| part == "*" || topic("", part).is_ok();
    parts(field, value, "a topic or a pattern", body.split('.').all(part))
}

fn parts<'a>(field: &str, value: &'a str, what: &str, good: bool) -> Result<&'a str, Rejection> {
    if good && value.len() <= MAX_NAME_BYTES && value.split('.').count() <= MAX_TOPIC_PARTS {
        return Ok(value);
    }
    let text = format!(
        "{field} {:?} is not {what}: up to {MAX_TOPIC_PARTS} parts of A-Z a-z 0-9 _ -, divided by dots, up to \
         {MAX_NAME_BYTES} bytes",
        shown(value)
    );
    Err(Rejection::field(field, text))
}

/// A map of the application: labels, metadata.
pub(crate) fn map(field: &str, pairs: &HashMap<String, String>) -> Result<(), Rejection> {
    let mut budget = MapBudget::default();
    pairs.iter().try_for_each(|(key, value)| budget.add(field, key, value))
}

/// Counts the pairs of a map.
#[derive(Default)]
pub(crate) struct MapBudget {
    pairs: usize,
    bytes: usize,
}

impl MapBudget {
    pub(crate) fn add(&mut self, field: &str, key: &str, value: &str) -> Result<(), Rejection> {
        self.pairs += 1;
        self.bytes += key.len() + value.len();
        let fault = if key.is_empty() {
            "has an empty key".to_owned()
        } else if key.len() > MAX_NAME_BYTES {
            format!("has the key {:?}, longer than {MAX_NAME_BYTES} bytes", shown(key))
        } else if value.len() > MAX_VALUE_BYTES {
            format!("has {} bytes under the key {key:?}; at most {MAX_VALUE_BYTES} are allowed", value.len())
        } else if self.pairs > MAX_PAIRS {
            format!("has more than {MAX_PAIRS} pairs")
        } else if self.bytes > MAX_MAP_BYTES {
            format!("holds more than {MAX_MAP_BYTES} bytes")
        } else {
            return Ok(());
        };
        Err(Rejection::field(field, format!("{field} {fault}")))
    }
}

/// How many to list: 0 means 100, at most 1,000.
pub(crate) fn page_size(value: i32) -> Result<usize, Rejection> {
    match value {
        0 => Ok(100),
        1..=1_000 => Ok(value as usize),
        _ => Err(Rejection::field("page_size", format!("page_size is {value}; it must be 0 to 1000"))),
    }
}

/// A value as it may stand in an error text: cut, so that a giant value is not echoed.
pub(crate) fn shown(value: &str) -> String {
    if value.chars().count() <= 64 { value.to_owned() } else { value.chars().take(64).chain("…".chars()).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_checked() {
        for good in ["a", "A1", "session/7:agent@host.x_y-z", "a//b/...", &"x".repeat(128)] {
            assert_eq!(id("f", good).unwrap(), good);
        }
        for bad in ["", "-a", ".a", "a b", "ä", "a\n", "../x", "a/../b", "a/.", &"x".repeat(129)] {
            assert_eq!(id("f", bad).unwrap_err().field, "f", "{bad:?}");
        }
    }

    #[test]
    fn maps_are_bounded() {
        let mut budget = MapBudget::default();
        for number in 0..MAX_PAIRS {
            budget.add("labels", &format!("k{number}"), "v").unwrap();
        }
        assert!(budget.add("labels", "one-more", "v").unwrap_err().text.contains("more than 64 pairs"));
        assert!(MapBudget::default().add("labels", "", "v").is_err());
        assert!(MapBudget::default().add("labels", "k", &"v".repeat(MAX_VALUE_BYTES + 1)).is_err());
    }

    #[test]
    fn topics_and_patterns_are_checked() {
        for good in ["a", "build.x-1.y_2"] {
            assert_eq!((topic("f", good).unwrap(), topic_pattern("f", good).unwrap()), (good, good));
        }
        for good in ["*", ">", "a.*", "*.b", "a.>", "a.*.>"] {
            assert_eq!(topic_pattern("f", good).unwrap(), good);
            assert!(topic("f", good).is_err());
        }
        for bad in ["", ".", "a.", ".a", "a..b", "a b", "a.>.b", "a>", "a*", "ä", &"x".repeat(129), &"a.".repeat(20)] {
            assert!(topic("f", bad).is_err() && topic_pattern("f", bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn giant_values_are_not_echoed() {
        assert!(id("f", &"x".repeat(100_000)).unwrap_err().text.len() < 300);
    }
}
