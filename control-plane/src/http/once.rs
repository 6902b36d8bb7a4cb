//! `Idempotency-Key`: a request that is sent again is answered as the first time, and does nothing.

use axum::{
    body::{Body, Bytes, to_bytes},
    extract::{Request, State},
    http::{HeaderName, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use sha2::{Digest as _, Sha256};

use super::{Edge, problem::Problem};
use crate::{
    clock,
    error::{Failure, Reason},
    hex,
    service::caller::Caller,
    store::{Answer, Known},
};

const KEY: HeaderName = HeaderName::from_static("idempotency-key");
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
const MAX_KEY_BYTES: usize = 128;
/// How long a request may be under way before its key is free again: its process may have ended. In milliseconds.
const UNDER_WAY_MS: i64 = 120_000;
/// How long an answer is known, in milliseconds: a day.
const KNOWN_MS: i64 = 86_400_000;
/// Bytes of an answer that is remembered.
const MAX_ANSWER_BYTES: usize = 1 << 20;

/// What may be otherwise when it is asked again.
const PASSING: [StatusCode; 5] = [
    StatusCode::CONFLICT,
    StatusCode::TOO_MANY_REQUESTS,
    StatusCode::UNAUTHORIZED,
    StatusCode::FORBIDDEN,
    StatusCode::NOT_FOUND,
];

/// Answers a request that has a key from what is known, or remembers the answer.
pub(crate) async fn answer(State(edge): State<Edge>, request: Request, next: Next) -> Response {
    let key = match request.headers().get(&KEY) {
        Some(key) if request.method() == Method::POST => key.to_str().unwrap_or_default().to_owned(),
        _ => return next.run(request).await,
    };
    if key.is_empty() || key.len() > MAX_KEY_BYTES {
        let text = format!("it has 1 to {MAX_KEY_BYTES} bytes of ASCII");
        return Problem::from(Failure::field("Idempotency-Key", text)).into_response();
    }
    let Some(caller) = request.extensions().get::<Caller>().map(|caller| caller.key().to_owned()) else {
        return Problem::from(Failure::internal("a request with a key has no caller")).into_response();
    };
    let (request, fingerprint) = match fingerprint(&edge, request).await {
        Ok(read) => read,
        Err(why) => return Problem::from(why).into_response(),
    };
    let now_ms = clock::unix_ms();
    let known = edge.store.reserve_answer((&caller, &key, &fingerprint), (now_ms, now_ms + UNDER_WAY_MS)).await;
    match known {
        Ok(Known::Reserved) => {
            // On its own: it goes on when its client does not wait for it, and its answer is known when he comes again.
            let answering = tokio::spawn(async move { keep(&edge, (&caller, &key), next.run(request).await).await });
            match answering.await {
                Ok(answer) => answer,
                Err(error) => Problem::from(Failure::internal(error.to_string())).into_response(),
            }
        }
        Ok(Known::Answered(answer)) => again(answer),
        Ok(Known::UnderWay) => {
            let text = "a request with this key is under way; wait for its answer";
            let failure = Failure::new(Reason::IdempotencyKeyInUse, text).after(std::time::Duration::from_secs(1));
            Problem::from(failure).into_response()
        }
        Ok(Known::OfAnother) => {
            let text = "another request has had this key; use a new key for a new request";
            Problem::from(Failure::new(Reason::IdempotencyKeyReused, text)).into_response()
        }
        Err(error) => Problem::from(Failure::from(error)).into_response(),
    }
}

/// What tells a request from others, and the request, whose body is read by then.
async fn fingerprint(edge: &Edge, request: Request) -> Result<(Request, String), Failure> {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, edge.limits.max_body_bytes).await.map_err(|_| {
        Failure::new(Reason::BodyTooLarge, "the body is larger than limits.max_body_bytes, or broke off")
    })?;
    let mut digest = Sha256::new();
    // It stands in the database, and the body may hold a secret.
    digest.update(edge.secrets.pepper());
    digest.update(parts.uri.to_string());
    digest.update([0]);
    digest.update(&body);
    Ok((Request::from_parts(parts, Body::from(body)), hex::of(&digest.finalize())))
}

/// Remembers an answer that would be the same again; the key of any other is free again.
async fn keep(edge: &Edge, place: (&str, &str), answer: Response) -> Response {
    let (parts, body) = answer.into_parts();
    let is_final = !parts.status.is_server_error() && !PASSING.contains(&parts.status);
    let Ok(body) = to_bytes(body, MAX_ANSWER_BYTES).await else {
        if let Err(error) = edge.store.forget_answer(place).await {
            tracing::warn!(%error, "a key is free again only later");
        }
        let text = format!(
            "the answer has more than {MAX_ANSWER_BYTES} bytes and cannot be remembered; leave out Idempotency-Key"
        );
        return Problem::from(Failure::field("Idempotency-Key", text)).into_response();
    };
    let location = parts.headers.get(header::LOCATION).and_then(|place| place.to_str().ok()).unwrap_or_default();
    let kept = match (is_final, std::str::from_utf8(&body)) {
        (true, Ok(text)) => {
            let answer = Answer { status: parts.status.as_u16(), location: location.to_owned(), body: text.to_owned() };
            edge.store.keep_answer(place, &answer, clock::unix_ms() + KNOWN_MS).await
        }
        _ => edge.store.forget_answer(place).await,
    };
    if let Err(error) = kept {
        tracing::warn!(%error, "the answer of a request with a key is not remembered; its key is free again later");
    }
    Response::from_parts(parts, Body::from(body))
}

/// The answer of the first time.
fn again(answer: Answer) -> Response {
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::OK);
    let kind = if status.is_success() { "application/json" } else { "application/problem+json" };
    let mut response = (status, Bytes::from(answer.body)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(REPLAYED, HeaderValue::from_static("true"));
    if let Ok(location) = HeaderValue::try_from(answer.location)
        && !location.is_empty()
    {
        headers.insert(header::LOCATION, location);
    }
    response
}
