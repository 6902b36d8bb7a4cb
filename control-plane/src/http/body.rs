//! Bodies and queries, read with errors that say where they are wrong.

use std::error::Error as _;

use axum::{
    body::Bytes,
    extract::{
        FromRequest, FromRequestParts, Request,
        rejection::{BytesRejection, QueryRejection},
    },
    http::{HeaderMap, header, request::Parts},
};
use serde::de::DeserializeOwned;

use super::problem::Problem;
use crate::error::{Failure, Reason};

/// A body in JSON.
pub(crate) struct Json<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        is_json(request.headers())?;
        let bytes = Bytes::from_request(request, state).await.map_err(unread)?;
        Ok(Self(read(&bytes)?))
    }
}

/// Parameters behind `?`.
pub(crate) struct Query<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let read = axum::extract::Query::<T>::from_request_parts(parts, state).await;
        read.map(|axum::extract::Query(read)| Self(read)).map_err(|error| wrong_query(&error).into())
    }
}

/// A part of the path.
pub(crate) struct Path<T>(pub(crate) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let read = axum::extract::Path::<T>::from_request_parts(parts, state).await;
        let wrong = |error: axum::extract::rejection::PathRejection| {
            Problem::from(Failure::new(Reason::InvalidField, format!("the path cannot be read: {}", error.body_text())))
        };
        read.map(|axum::extract::Path(read)| Self(read)).map_err(wrong)
    }
}

fn is_json(headers: &HeaderMap) -> Result<(), Failure> {
    let named = headers.get(header::CONTENT_TYPE).map(|named| String::from_utf8_lossy(named.as_bytes()).to_lowercase());
    let named = named.as_deref().map(|named| named.split(';').next().unwrap_or_default().trim());
    match named {
        Some("application/json" | "application/merge-patch+json") => Ok(()),
        other => {
            let text = format!("the body is said to be {:?}; send application/json", other.unwrap_or("nothing"));
            Err(Failure::new(Reason::UnsupportedMediaType, text))
        }
    }
}

/// Why a body could not be read.
pub(super) fn unread(error: BytesRejection) -> Failure {
    if error.status() == axum::http::StatusCode::PAYLOAD_TOO_LARGE {
        return Failure::new(Reason::BodyTooLarge, "the body is larger than limits.max_body_bytes; it was not read");
    }
    Failure::new(Reason::MalformedRequest, format!("the body cannot be read: {}", error.body_text()))
}

/// Which parameter cannot be read, and why; of one that is missing only the text tells the name.
fn wrong_query(error: &QueryRejection) -> Failure {
    type Placed = serde_path_to_error::Error<serde::de::value::Error>;
    let mut source = error.source();
    while let Some(inner) = source {
        if let Some(placed) = inner.downcast_ref::<Placed>() {
            let place = placed.path().to_string();
            let place = if place == "." { "parameters" } else { place.as_str() };
            return Failure::field(place, placed.inner().to_string());
        }
        source = inner.source();
    }
    Failure::new(Reason::InvalidField, format!("the parameters cannot be read: {}", error.body_text()))
}

fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Failure> {
    let no_json =
        |error: serde_json::Error| Failure::new(Reason::MalformedRequest, format!("the body is no JSON: {error}"));
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let place = error.path().to_string();
        let inner: serde_json::Error = error.into_inner();
        // An object where one of some words is expected is taken for broken JSON.
        if inner.is_data() || serde_json::from_slice::<serde_json::Value>(bytes).is_ok() {
            let place = if place == "." { "body".to_owned() } else { place };
            Failure::field(&place, inner.to_string())
        } else {
            no_json(inner)
        }
    })?;
    json.end().map_err(no_json)?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code<T: DeserializeOwned>(text: &str) -> String {
        read::<T>(text.as_bytes()).err().map_or("none".to_owned(), |failure| failure.to_string())
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        type Body = std::collections::BTreeMap<String, Vec<u8>>;
        assert_eq!(code::<Body>(r#"{"a":[1,2]}"#), "none");
        assert!(code::<Body>(r#"{"a":[1,300]}"#).starts_with("a[1]: "));
        assert!(code::<Body>("[]").starts_with("body: "));
        for text in ["", "{", "{} {}", "\0", &"[".repeat(100_000)] {
            assert!(code::<serde_json::Value>(text).starts_with("the body is no JSON"), "{text:.9}");
        }
        #[derive(Debug, serde::Deserialize)]
        enum Word {
            One,
        }
        type Words = std::collections::BTreeMap<String, Word>;
        assert_eq!(code::<Words>(r#"{"a":"One"}"#), "none");
        for text in [r#"{"a":{}}"#, r#"{"a":"Two"}"#, r#"{"a":{"One":null,"Two":null}}"#] {
            assert!(code::<Words>(text).starts_with("a"), "{text}: {}", code::<Words>(text));
        }
        assert!(matches!(read::<Word>(br#""One""#), Ok(Word::One)));
    }

    #[test]
    fn a_parameter_that_cannot_be_read_is_named() {
        #[derive(Debug, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        #[expect(dead_code, reason = "is never read")]
        struct Wanted {
            workspace_id: String,
            limit: Option<u16>,
        }
        for (query, field) in [
            ("workspace_id=w&limit=100000", "limit"),
            ("workspace_id=w&limit=x", "limit"),
            ("workspace_id=w&nonsense=1", "nonsense"),
            ("limit=1", "parameters"),
        ] {
            let uri: axum::http::Uri = format!("http://h/?{query}").parse().unwrap();
            let error = axum::extract::Query::<Wanted>::try_from_uri(&uri).unwrap_err();
            let Failure::Refused { reason, fields, .. } = wrong_query(&error) else { panic!("{query}") };
            assert_eq!((reason, fields[0].field.as_str()), (Reason::InvalidField, field), "{query}");
        }
    }
}
