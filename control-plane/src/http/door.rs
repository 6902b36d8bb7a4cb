//! The door: before a request is answered, whoever makes it is known, has a role that may make it, and has not made too many.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderMap, HeaderValue, header},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use parking_lot::Mutex;

use super::{Edge, REQUEST_ID, problem::Problem, roles};
use crate::{
    clock,
    error::{Failure, Reason},
    service::caller::Caller,
};

const SCHEME: &str = "bearer ";
/// Callers whose requests are counted at once.
const MAX_COUNTED: usize = 10_000;

/// Lets a request in, or not.
pub(crate) async fn let_in(State(edge): State<Edge>, path: MatchedPath, mut request: Request, next: Next) -> Response {
    let rule = roles::find(request.method().as_str(), path.as_str());
    // Of its own: a request is not shared across an await.
    let token = token(request.headers()).map(|token| token.map(str::to_owned));
    let caller = match known(&edge, rule, token).await {
        Ok(caller) => caller,
        Err(why) => return Problem::from(why).into_response(),
    };
    let room = edge.rates.check(caller.key(), caller.subject());
    let left = room.as_ref().map_or(0, |left| *left);
    let mut answer = match room {
        Ok(_) => {
            let id = request.headers().get(REQUEST_ID).and_then(|id| id.to_str().ok()).unwrap_or_default();
            let caller = caller.named(id);
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(why) => Problem::from(why).into_response(),
    };
    let headers = answer.headers_mut();
    let per_second = edge.rates.per_second;
    for (name, value) in [
        ("ratelimit-policy", format!("\"caller\";q={per_second};w=1")),
        ("ratelimit", format!("\"caller\";r={left};t=1")),
    ] {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(name, value);
        }
    }
    answer
}

async fn known(
    edge: &Edge,
    rule: Option<&roles::Rule>,
    token: Result<Option<String>, Failure>,
) -> Result<Caller, Failure> {
    let caller = edge.callers.identify(token?.as_deref()).await?;
    // What has no row nobody may do; a test sees to it that everything has one.
    let roles = rule.map_or(&[][..], |rule| rule.roles);
    if caller.has_one_of(roles) {
        return Ok(caller);
    }
    let operation = rule.map_or("this", |rule| rule.operation);
    let text = format!(
        "{operation} takes one of the roles {}; {:?} has {}",
        roles.join(", "),
        caller.subject(),
        caller.roles()
    );
    Err(Failure::new(Reason::RoleMissing, text))
}

/// The token behind the scheme, whose case does not matter; None: there is none, and the broker says whether there must be one.
pub(super) fn token(headers: &HeaderMap) -> Result<Option<&str>, Failure> {
    let mut shown = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = shown.next() else { return Ok(None) };
    if shown.next().is_some() {
        return Err(Failure::field("Authorization", "it is there twice; send it once"));
    }
    let token = value.to_str().ok().and_then(|value| {
        let (scheme, token) = value.split_at_checked(SCHEME.len())?;
        scheme.eq_ignore_ascii_case(SCHEME).then(|| token.trim())
    });
    token.map(Some).ok_or_else(|| Failure::field("Authorization", "it is not: Bearer, a space, and a token"))
}

/// Requests of each caller: a bucket that fills while he is quiet.
pub(crate) struct Rates {
    per_second: u32,
    left: Mutex<HashMap<Arc<str>, (f64, Instant)>>,
}

impl Rates {
    pub(crate) fn new(per_second: u32) -> Self {
        Self { per_second, left: Mutex::default() }
    }

    /// The same, with a refusal for people.
    pub(super) fn check(&self, caller: &str, subject: &str) -> Result<u32, Failure> {
        self.take(caller).map_err(|delay| {
            let text = format!("{subject:?} sends more than {} requests a second", self.per_second);
            Failure::new(Reason::TooManyRequests, text).after(delay)
        })
    }

    /// Takes one of a caller, and tells how many are left; Err: when there is one again.
    fn take(&self, caller: &str) -> Result<u32, Duration> {
        let (now, most) = (clock::now(), f64::from(self.per_second));
        let mut all = self.left.lock();
        if all.len() >= MAX_COUNTED && !all.contains_key(caller) {
            // Who has been quiet for a second has all again, counted or not.
            all.retain(|_, (_, seen)| now.saturating_duration_since(*seen) < Duration::from_secs(1));
        }
        if !all.contains_key(caller) {
            all.insert(caller.into(), (most, now));
        }
        let Some((left, seen)) = all.get_mut(caller) else { return Ok(0) };
        *left = (*left + now.saturating_duration_since(*seen).as_secs_f64() * most).min(most);
        *seen = now;
        if *left < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - *left) / most));
        }
        *left -= 1.0;
        Ok(*left as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_own_rate() {
        let rates = Rates::new(3);
        let taken: Vec<_> = (0..4).map(|_| rates.take("a")).collect();
        assert_eq!(taken[..3], [Ok(2), Ok(1), Ok(0)]);
        assert!(taken[3].is_err_and(|delay| delay <= Duration::from_millis(334)), "{taken:?}");
        assert_eq!(rates.take("b"), Ok(2));
        rates.left.lock().get_mut("a").unwrap().1 -= Duration::from_secs(1);
        assert_eq!(rates.take("a"), Ok(2));
    }

    #[test]
    fn a_token_is_shown_once_and_with_its_scheme() {
        let of = |values: &[&str]| {
            let headers: HeaderMap = values
                .iter()
                .map(|value| (header::AUTHORIZATION, HeaderValue::from_str(value).unwrap()))
                .fold(HeaderMap::new(), |mut all, (name, value)| {
                    all.append(name, value);
                    all
                });
            token(&headers).map(|token| token.map(str::to_owned)).map_err(|why| why.code().to_owned())
        };
        assert_eq!(of(&[]), Ok(None));
        assert_eq!(of(&["BEARER  x.y "]), Ok(Some("x.y".to_owned())));
        for wrong in [&["Basic eA=="][..], &["Bearer"], &["Bearer a", "Bearer b"]] {
            assert_eq!(of(wrong), Err("INVALID_FIELD".to_owned()));
        }
    }
}
