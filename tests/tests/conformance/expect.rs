//! How what came is compared to what a scenario expects.

use serde_json::Value;

/// What does not fit, in words; empty where all does.
pub(crate) fn difference(expected: &Value, found: &Value, place: &str) -> String {
    let other = || format!("{place} is {found}, expected {expected}");
    match (expected, found) {
        (Value::Null, _) if place == "it" => String::new(),
        (Value::Object(fields), _) => match special(expected, found) {
            Some(true) => String::new(),
            Some(false) => other(),
            None => {
                let Value::Object(there) = found else { return other() };
                // What an application has written comes as it was written, and of all else scenarios name what they are about.
                if is_content(place) && fields.len() != there.len() {
                    return other();
                }
                let mut differences = fields.iter().map(|(key, value)| match there.get(key) {
                    Some(found) => difference(value, found, &format!("{place}.{key}")),
                    None => format!("{place}.{key} is missing in {found}"),
                });
                differences.find(|difference| !difference.is_empty()).unwrap_or_default()
            }
        },
        (Value::Array(all), Value::Array(there)) if all.len() == there.len() => {
            let pairs = all.iter().zip(there).enumerate();
            let mut differences =
                pairs.map(|(index, (one, found))| difference(one, found, &format!("{place}[{index}]")));
            differences.find(|difference| !difference.is_empty()).unwrap_or_default()
        }
        _ if expected == found => String::new(),
        _ => other(),
    }
}

/// Whether a place is the content of a message, or in it.
fn is_content(place: &str) -> bool {
    place.ends_with(".content") || place.contains(".content.") || place.contains(".content[")
}

/// Whether it fits; None where the mapping is to be taken literally.
fn special(expected: &Value, found: &Value) -> Option<bool> {
    let fields = expected.as_object().filter(|fields| fields.len() == 1)?;
    let (key, value) = fields.iter().next()?;
    Some(match key.as_str() {
        "any" => !(found.is_null() || *found == "" || found.as_array().is_some_and(Vec::is_empty)),
        "at_least" => found.as_u64() >= value.as_u64() && found.is_u64(),
        "contains" => found.as_str()?.contains(value.as_str()?),
        "unordered" => {
            let sorted = |list: &Value| {
                let mut texts: Vec<_> = list.as_array().into_iter().flatten().map(Value::to_string).collect();
                texts.sort();
                texts
            };
            found.is_array() && sorted(found) == sorted(value)
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_differs_is_found() {
        let found = json!({"count": 2, "ids": ["b", "a"], "content": {"n": 1, "m": 2}, "text": "no credentials"});
        for fits in [
            json!({"count": 2}),
            json!({"count": {"at_least": 2}, "ids": {"unordered": ["a", "b"]}, "text": {"contains": "cred"}}),
            json!({"content": {"n": 1, "m": 2}, "ids": {"any": true}}),
            Value::Null,
        ] {
            assert_eq!(difference(&fits, &found, "it"), "", "{fits}");
        }
        for wrong in [
            json!({"count": 3}),
            json!({"count": true}),
            json!({"count": {"at_least": 3}}),
            json!({"ids": ["a", "b"]}),
            json!({"ids": {"unordered": ["a"]}}),
            json!({"content": {"n": 2, "m": 2}}),
            json!({"content": {"n": 1}}),
            json!({"gone": 1}),
            json!({"text": {"contains": "x"}}),
        ] {
            assert_ne!(difference(&wrong, &found, "it"), "", "{wrong}");
        }
    }
}
