//! Addresses in the web that people configure.

use axum::http::Uri;

use crate::error::Failure;

const MAX_BYTES: usize = 2_048;

/// Whether a text is an address of `http` or `https`, with a host and without a password or a fragment.
pub(crate) fn check(field: &str, url: &str) -> Result<Uri, Failure> {
    let wrong = |why: &str| Err(Failure::field(field, format!("{why}; write it like https://host.example/path")));
    if url.len() > MAX_BYTES {
        return wrong("it has more than 2,048 bytes");
    }
    // What stands before @ may be a password: it is not shown.
    let authority = url.split_once("://").map_or(url, |(_, rest)| rest).split(['/', '?']).next().unwrap_or_default();
    if authority.contains('@') {
        return wrong("it holds a name or a password; put that into a secret");
    }
    let Ok(parsed) = url.parse::<Uri>() else {
        return wrong("it is no URL");
    };
    let scheme = parsed.scheme_str().unwrap_or_default();
    if !["http", "https"].contains(&scheme) || parsed.host().is_none_or(str::is_empty) || url.contains('#') {
        return wrong("it is no URL of http or https with a host and without a fragment");
    }
    Ok(parsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_whole_and_hold_no_secret() {
        for good in ["https://a", "http://127.0.0.1:11434/v1", "https://[::1]:8443/x?y=z", "HTTPS://A.example/"] {
            check("u", good).unwrap();
        }
        let long = format!("https://a/{}", "x".repeat(2_048));
        for wrong in ["", "a", "/x", "ftp://a", "https://", "https:///x", "https://a b", "https://a#b", &long] {
            assert!(check("u", wrong).unwrap_err().to_string().starts_with("u: "), "{wrong:.20}");
        }
        let why = check("u", "https://me:hunter2@a/").unwrap_err().to_string();
        assert!(!why.contains("hunter2"), "{why}");
    }
}
