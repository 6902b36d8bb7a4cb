//! `ETag`, `If-Match` and `If-None-Match` (RFC 9110): a resource's tag is its revision.

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::error::Failure;

/// The tag of a revision.
pub(crate) fn tag(revision: i64) -> HeaderValue {
    HeaderValue::try_from(format!("\"{revision}\"")).unwrap_or(HeaderValue::from_static("\"0\""))
}

/// The revision that a change is for; None: whatever it is.
pub(crate) fn wanted(headers: &HeaderMap) -> Result<Option<i64>, Failure> {
    let Some(text) = value(headers, &header::IF_MATCH)? else { return Ok(None) };
    if text == "*" {
        return Ok(None);
    }
    let wrong =
        || Failure::field("If-Match", format!("{text:?} is no tag, such as \"7\", of a resource that was read"));
    let number = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).ok_or_else(wrong)?;
    // What is no revision is one that it never had.
    Ok(Some(number.parse().unwrap_or(-1)))
}

/// Whether the caller has a resource of this revision already.
pub(crate) fn has(headers: &HeaderMap, revision: i64) -> bool {
    let tag = format!("\"{revision}\"");
    let known = headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok()).unwrap_or_default();
    known == "*" || known.split(',').any(|known| known.trim().trim_start_matches("W/") == tag)
}

fn value<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Failure> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    value.to_str().map(|value| Some(value.trim())).map_err(|_| Failure::field(name.as_str(), "it is no text"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_str(value).unwrap())])
    }

    #[test]
    fn a_change_is_for_what_was_seen() {
        let of = |value| wanted(&with(header::IF_MATCH, value));
        assert_eq!(of("\"7\"").unwrap(), Some(7));
        assert_eq!(of("*").unwrap(), None);
        assert_eq!(wanted(&HeaderMap::new()).unwrap(), None);
        assert_eq!(of("\"x\"").unwrap(), Some(-1), "a tag that nothing has");
        for wrong in ["7", "W/\"7\"", "\"7\", \"8\"x", "\""] {
            assert!(of(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn who_has_it_need_not_get_it() {
        for same in ["\"7\"", "W/\"7\"", "\"1\", \"7\"", "*"] {
            assert!(has(&with(header::IF_NONE_MATCH, same), 7), "{same}");
        }
        assert!(!has(&with(header::IF_NONE_MATCH, "\"8\""), 7) && !has(&HeaderMap::new(), 7));
        assert_eq!(tag(7), "\"7\"");
    }
}
