//! Unary calls that are tried again: what was no verdict (no connection, a broken one, `UNAVAILABLE`), and what asks for a short
//! wait. How often, and for how long in all, the settings say; a budget that all clones share spares a broker that is down.

use std::{
    error::Error as _,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, request::Parts};
use http_body_util::{BodyExt as _, Full};
use parking_lot::Mutex;
use tonic::{
    Code, ConnectError, Status, TimeoutExpired,
    body::Body,
    codegen::Service,
    transport::{self, Channel},
};

use crate::{Error, clock};

/// Retries that there may be before any call succeeds: hundreds of calls at once survive a failover, each with its attempts.
const BUDGET: f64 = 1_000.0;
/// What a call that succeeds gives back.
const SHARE: f64 = 0.2;
/// What each second gives back: so many retries a second there are against a broker that stays down.
const BACK_PER_SECOND: f64 = 10.0;
/// The longest wait that the broker can ask for, and is granted here. What is longer is the caller's to decide.
pub(crate) const LONGEST: Duration = Duration::from_secs(2);
/// What must not be done twice when an answer is lost: each makes something that nobody would know of.
const ONCE: [&str; 3] = ["/CreateKey", "/CreateToken", "/RenewToken"];
/// What is tried again only when it surely was not done: otherwise the second try would do it twice, remove what was made anew
/// meanwhile, or refuse what the first has done.
const UNLESS_LOST: [&str; 8] = [
    "/CreateWorkspace",
    "/DeleteWorkspace",
    "/UnregisterSandbox",
    "/DeleteTopic",
    "/SetPolicy",
    "/RemovePolicy",
    "/ReplayMessages",
    "/ReportEvents",
];
const TIMEOUT: &str = "grpc-timeout";

/// What retries cost and successes give back.
#[derive(Debug)]
pub(crate) struct Budget(Mutex<(f64, clock::Moment)>);

impl Default for Budget {
    fn default() -> Self {
        Self(Mutex::new((BUDGET, clock::Moment::now())))
    }
}

impl Budget {
    /// A call went through.
    pub(crate) fn succeeded(&self) {
        let mut budget = self.0.lock();
        budget.0 = (budget.0 + SHARE).min(BUDGET);
    }

    /// Whether there may be one more retry now.
    pub(crate) fn take(&self) -> bool {
        let (left, seen) = &mut *self.0.lock();
        *left = (*left + seen.elapsed().as_secs_f64() * BACK_PER_SECOND).min(BUDGET);
        *seen = clock::Moment::now();
        if *left < 1.0 {
            return false;
        }
        *left -= 1.0;
        true
    }
}

/// A connection whose calls are tried again. Cheap to clone. Only for calls with one request.
#[derive(Debug, Clone)]
pub(crate) struct Calls {
    channel: Channel,
    attempts: u32,
    budget: Arc<Budget>,
    endpoint: Arc<str>,
}

impl Calls {
    pub(crate) fn new(channel: Channel, attempts: u32, budget: Arc<Budget>, endpoint: Arc<str>) -> Self {
        Self { channel, attempts, budget, endpoint }
    }

    async fn run(mut self, request: Request<Body>) -> Result<Response<Body>, transport::Error> {
        let (parts, body) = request.into_parts();
        let body = match body.collect().await {
            Ok(body) => body.to_bytes(),
            // It cannot be sent, such as when it is too large.
            Err(status) => return Ok(status.into_http()),
        };
        let limit = parts.headers.get(TIMEOUT).and_then(|value| parse(value.to_str().ok()?));
        let allowance = limit.map(clock::Allowance::of);
        let is_delicate = UNLESS_LOST.iter().any(|name| parts.uri.path().ends_with(name));
        let attempts = if ONCE.iter().any(|name| parts.uri.path().ends_with(name)) { 1 } else { self.attempts };
        let mut attempt = 1;
        loop {
            let answered = self.once(&parts, &body, allowance).await;
            let error = match &answered {
                Ok(answer) => match Status::from_header_map(answer.headers()) {
                    Some(status) if status.code() != Code::Ok => self.refused(&status),
                    _ => {
                        self.budget.succeeded();
                        None
                    }
                },
                Err(error) => lost(error, &self.endpoint),
            };
            let Some(error) = error.filter(|error| !is_delicate || is_undone(error)) else { return answered };
            let wait = clock::pause(error.retry_delay(), attempt);
            let is_late = allowance.is_some_and(|allowance| wait >= allowance.left());
            if attempt >= attempts || is_late || !self.budget.take() {
                return answered;
            }
            tracing::debug!(path = parts.uri.path(), %error, attempt, ?wait, "a call is tried again");
            tokio::time::sleep(wait).await;
            attempt += 1;
        }
    }

    async fn once(
        &mut self,
        parts: &Parts,
        body: &Bytes,
        allowance: Option<clock::Allowance>,
    ) -> Result<Response<Body>, transport::Error> {
        let mut request = Request::from_parts(parts.clone(), Body::new(Full::new(body.clone())));
        if let Some(allowance) = allowance
            && let Ok(value) = HeaderValue::from_str(&format!("{}m", allowance.left().as_millis().clamp(1, 99_999_999)))
        {
            request.headers_mut().insert(TIMEOUT, value);
        }
        std::future::poll_fn(|cx| self.channel.poll_ready(cx)).await?;
        self.channel.call(request).await
    }

    /// What the broker has said, if another try may help soon.
    fn refused(&self, status: &Status) -> Option<Error> {
        let error = Error::from_status(status, &self.endpoint, Duration::ZERO);
        let is_short = error.retry_delay().is_none_or(|delay| delay <= LONGEST);
        (error.is_momentary() && is_short).then_some(error)
    }
}

/// Whether nothing was done, for sure.
fn is_undone(error: &Error) -> bool {
    matches!(error, Error::Unreachable { .. })
        || matches!(error, Error::Refused(refusal) if refusal.reason != "UNSETTLED")
}

/// What has happened on the way; None where no time is left.
fn lost(error: &transport::Error, endpoint: &Arc<str>) -> Option<Error> {
    let causes = || std::iter::successors(error.source(), |&error| error.source());
    if causes().any(|cause| cause.is::<TimeoutExpired>()) {
        return None;
    }
    let (endpoint, cause) = (Arc::clone(endpoint), error.to_string());
    Some(if causes().any(|cause| cause.is::<ConnectError>()) {
        Error::Unreachable { endpoint, cause }
    } else {
        Error::ConnectionLost { endpoint, cause }
    })
}

/// A time limit as gRPC writes it: up to eight digits and a unit.
fn parse(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number: u64 = number.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number.saturating_mul(3_600)),
        "M" => Duration::from_secs(number.saturating_mul(60)),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

impl Service<Request<Body>> for Calls {
    type Response = Response<Body>;
    type Error = transport::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, transport::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        // Each try waits for the connection itself.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.clone().run(request))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_limits_are_read() {
        let read = ["5S", "1500m", "2M", "7u", "1H", "30000000n"].map(|text| parse(text).map(|time| time.as_micros()));
        assert_eq!(read, [5_000_000, 1_500_000, 120_000_000, 7, 3_600_000_000, 30_000].map(Some));
        for wrong in ["", "S", "5", "5x", "é"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_budget_runs_out_and_comes_back_with_successes() {
        let budget = Budget::default();
        let taken = (0..2_000).filter(|_| budget.take()).count();
        assert!((1_000..1_050).contains(&taken), "{taken}");
        (0..10).for_each(|_| budget.succeeded());
        assert!(budget.take() && budget.take());
    }
}
