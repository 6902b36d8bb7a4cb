//! Webhooks: where they may be, how what they are sent is signed, and the sending.
//!
//! Signed as the Standard Webhooks specification has it (symmetric, `v1`): `webhook-id`, `webhook-timestamp` in seconds since 1970, and
//! `webhook-signature`: `v1,` and base64 of HMAC-SHA256 over `ID.TIMESTAMP.BODY` under the bytes of the secret.

use std::{
    future::Future,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::http::{Request, Uri, header};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http_body_util::Full;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{
        Client,
        connect::{HttpConnector, dns::Name},
    },
    rt::TokioExecutor,
};
use ring::hmac;
use tower::Service;

use crate::{clock, error::Failure, secrets::Secret, service::web_address};

/// How often a write to an alert that others change is tried.
pub(super) const WRITES: u32 = 5;
/// How a secret begins.
const PREFIX: &str = "whsec_";
/// Of 410: the receiver wants no more.
const GONE: u16 = 410;
/// What machines of a cloud ask for their own credentials and which is not link-local.
const METADATA_V4: [Ipv4Addr; 2] = [Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(168, 63, 129, 16)];
const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);

/// Whether a webhook may be there.
pub(super) fn check(url: &str, allow_loopback: bool) -> Result<Uri, Failure> {
    const FIELD: &str = "webhook.url";
    let uri = web_address::check(FIELD, url)?;
    let host = uri.host().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().ok();
    let is_here = host.eq_ignore_ascii_case("localhost") || address.is_some_and(|address| plain(address).is_loopback());
    if is_here && !allow_loopback {
        let text = "it is on the machine of the control plane; set alerts.allow_loopback if it may be";
        return Err(Failure::field(FIELD, text));
    }
    if uri.scheme_str() != Some("https") && !is_here {
        return Err(Failure::field(FIELD, "what is told there could be read on the way; write https://"));
    }
    match address.map(|address| allowed(address, allow_loopback)) {
        Some(false) => Err(Failure::field(FIELD, format!("{host} is an address that no webhook may have"))),
        _ => Ok(uri),
    }
}

/// An address that another one only wraps.
fn plain(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    let parts = v6.segments();
    // NAT64 (RFC 6052), and 6to4 (RFC 3056).
    let embedded = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        IpAddr::V4(Ipv4Addr::new(a, b, c, d))
    };
    match parts {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => embedded(high, low),
        [0x2002, high, low, ..] => embedded(high, low),
        // Mapped, and the form before that.
        _ => v6.to_ipv4().filter(|_| !v6.is_loopback() && !v6.is_unspecified()).map_or(address, IpAddr::V4),
    }
}

/// Whether somebody may be told something at an address.
fn allowed(address: IpAddr, allow_loopback: bool) -> bool {
    match plain(address) {
        here if here.is_loopback() => allow_loopback,
        IpAddr::V4(v4) => {
            let reserved = v4.octets()[0] == 0 || v4.octets()[0] >= 240;
            !v4.is_link_local() && !v4.is_multicast() && !v4.is_broadcast() && !reserved && !METADATA_V4.contains(&v4)
        }
        IpAddr::V6(v6) => {
            let is_link_local = v6.segments()[0] & 0xffc0 == 0xfe80;
            !is_link_local && !v6.is_multicast() && !v6.is_unspecified() && v6 != METADATA_V6
        }
    }
}

/// The key that a secret stands for: `whsec_` and base64 of 24 to 64 bytes.
pub(super) fn key(secret: &Secret) -> Result<hmac::Key, Failure> {
    let bytes = secret.expose().strip_prefix(PREFIX).and_then(|text| STANDARD.decode(text).ok());
    match bytes.filter(|bytes| (24..=64).contains(&bytes.len())) {
        Some(bytes) => Ok(hmac::Key::new(hmac::HMAC_SHA256, &bytes)),
        None => {
            let text = "it is not whsec_ and base64 of 24 to 64 bytes; make one with: \
                        echo \"whsec_$(openssl rand -base64 32)\"";
            Err(Failure::field("webhook.secret", text))
        }
    }
}

/// The signature of what is sent.
fn signature(key: &hmac::Key, id: &str, timestamp_s: i64, body: &str) -> String {
    let tag = hmac::sign(key, format!("{id}.{timestamp_s}.{body}").as_bytes());
    format!("v1,{}", STANDARD.encode(tag.as_ref()))
}

/// Why a webhook did not take what it was sent.
#[derive(Debug)]
pub(super) struct Unheard {
    /// For people.
    pub(super) why: String,
    /// It is not tried again.
    pub(super) is_final: bool,
}

/// Sends to webhooks.
#[derive(Clone)]
pub(crate) struct Sender {
    client: Client<HttpsConnector<HttpConnector<Guard>>, Full<Bytes>>,
    timeout: Duration,
    allow_loopback: bool,
}

impl Sender {
    /// Each attempt may take so long.
    ///
    /// # Errors
    /// Where this build speaks no TLS.
    pub(crate) fn new(timeout: Duration, allow_loopback: bool) -> Result<Self, rustls::Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = match HttpsConnectorBuilder::new().with_provider_and_native_roots(Arc::clone(&provider)) {
            Ok(builder) => builder,
            Err(error) => {
                tracing::warn!(%error, "this machine trusts no authority: webhooks over https will fail");
                let tls =
                    rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
                let tls = tls.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth();
                HttpsConnectorBuilder::new().with_tls_config(tls)
            }
        };
        let mut http = HttpConnector::new_with_resolver(Guard { allow_loopback });
        http.enforce_http(false);
        http.set_connect_timeout(Some(timeout));
        let connector = builder.https_or_http().enable_http1().wrap_connector(http);
        // Alerts are rare: no connection is kept.
        let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector);
        Ok(Self { client, timeout, allow_loopback })
    }

    /// Sends something once. Redirects are not followed, and what is answered beyond its status is not read.
    pub(super) async fn send(&self, (url, secret): (&str, &Secret), (id, body): (&str, &str)) -> Result<(), Unheard> {
        let unheard = |why: String| Unheard { why, is_final: false };
        // The settings may be others since the rule was made.
        let uri = check(url, self.allow_loopback).map_err(|why| unheard(why.to_string()))?;
        let key = key(secret).map_err(|why| unheard(why.to_string()))?;
        let timestamp_s = clock::unix_ms() / 1_000;
        let request = Request::post(uri)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, concat!("tandem-control-plane/", env!("CARGO_PKG_VERSION")))
            .header("webhook-id", id)
            .header("webhook-timestamp", timestamp_s)
            .header("webhook-signature", signature(&key, id, timestamp_s, body))
            .body(Full::from(body.to_owned()))
            .map_err(|error| unheard(error.to_string()))?;
        let answer = match tokio::time::timeout(self.timeout, self.client.request(request)).await {
            Ok(answer) => answer.map_err(|error| unheard(because(&error)))?,
            Err(_) => return Err(unheard(format!("it did not answer within {} ms", self.timeout.as_millis()))),
        };
        let status = answer.status();
        if status.is_success() {
            return Ok(());
        }
        let more = if status.is_redirection() { "; redirects are not followed, so name the place itself" } else { "" };
        Err(Unheard { why: format!("it answers {}{more}", status.as_u16()), is_final: status.as_u16() == GONE })
    }
}

/// The cause that lies deepest: what is around it says less.
fn because(error: &(dyn std::error::Error + 'static)) -> String {
    let chain = std::iter::successors(Some(error), |error| error.source());
    chain.last().map_or_else(|| error.to_string(), ToString::to_string)
}

/// Finds the addresses of a name, but for those where no webhook may be: a name can be given any address at any time.
#[derive(Clone)]
struct Guard {
    allow_loopback: bool,
}

type Found = Pin<Box<dyn Future<Output = io::Result<std::vec::IntoIter<SocketAddr>>> + Send>>;

impl Service<Name> for Guard {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Found;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Found {
        let allow_loopback = self.allow_loopback;
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let (good, bad): (Vec<_>, Vec<_>) = found.partition(|address| allowed(address.ip(), allow_loopback));
            match (good.is_empty(), bad.first()) {
                (true, Some(bad)) => Err(io::Error::other(format!(
                    "{} has the address {}, which no webhook may have",
                    name.as_str(),
                    bad.ip()
                ))),
                _ => Ok(good.into_iter()),
            }
        })
    }
}

#[cfg(test)]
#[path = "webhook_tests.rs"]
mod tests;
