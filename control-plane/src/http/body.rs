//! Bodies and queries, read with errors that say where they are wrong.

use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Request, rejection::BytesRejection},
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
        Ok(Self(read(&mut serde_json::Deserializer::from_slice(&bytes))?))
    }
}

/// Parameters behind `?`.
pub(crate) struct Query<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let read = axum::extract::Query::<T>::from_request_parts(parts, state).await;
        let wrong = |error: axum::extract::rejection::QueryRejection| {
            Problem::from(Failure::new(
                Reason::InvalidField,
                format!("the parameters cannot be read: {}", error.body_text()),
            ))
        };
        read.map(|axum::extract::Query(read)| Self(read)).map_err(wrong)
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

fn read<'de, T, R>(json: &mut serde_json::Deserializer<R>) -> Result<T, Failure>
where
    T: DeserializeOwned,
    R: serde_json::de::Read<'de>,
{
    let value = serde_path_to_error::deserialize(&mut *json).map_err(|error| {
        let place = error.path().to_string();
        let inner = error.into_inner();
        if inner.is_data() {
            let place = if place == "." { "body".to_owned() } else { place };
            Failure::field(&place, inner.to_string())
        } else {
            Failure::new(Reason::MalformedRequest, format!("the body is no JSON: {inner}"))
        }
    })?;
    json.end().map_err(|error| Failure::new(Reason::MalformedRequest, format!("the body is no JSON: {error}")))?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code<T: DeserializeOwned>(text: &str) -> String {
        let mut json = serde_json::Deserializer::from_slice(text.as_bytes());
        read::<T, _>(&mut json).err().map_or("none".to_owned(), |failure| failure.to_string())
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
    }
}
