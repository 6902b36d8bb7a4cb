//! The keys of another issuer, from where it publishes them (JWKS, RFC 7517).
//!
//! They are fetched at the start, then every `auth.jwks_refresh_s`, and out of turn when a token names a key that is not known yet: so a
//! new key counts at once, and one that the issuer does not name any more ends with the next fetch. While the issuer cannot be
//! reached its keys stay as they are, for a day.
//!
//! Invariant: a key of this set is public and good for one algorithm. Secrets (`oct`) in a set are passed over: whoever can read the
//! set could sign with them.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse},
};
use parking_lot::Mutex;
use rustls::ClientConfig;
use serde::Deserialize;
use tokio::sync::{Notify, watch};
use tonic::codegen::http::{Request, Uri, header::ACCEPT};

use crate::{
    clock,
    config::{AuthConfig, ConfigError},
    pem::authority,
};

/// The largest set, in bytes.
const MAX_SET_BYTES: usize = 256 << 10;
/// Keys of a set; those behind are passed over.
const MAX_KEYS: usize = 64;
/// How long one fetch may take.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two fetches, at least: whoever makes up names of keys does not make us hammer the issuer.
const PAUSE: Duration = Duration::from_secs(10);
/// For so long keys count that could not be confirmed.
const STALE: Duration = Duration::from_secs(24 * 3_600);

type Https = Client<HttpsConnector<HttpConnector>, Empty<Bytes>>;

/// See the module.
pub(crate) struct Jwks {
    url: Uri,
    issuer: String,
    refresh: Duration,
    pause: Duration,
    client: Https,
    known: Mutex<Known>,
    wanted: Notify,
    /// Fetches that have ended, well or not.
    ended: watch::Sender<u64>,
}

#[derive(Default)]
struct Known {
    keys: HashMap<String, (Algorithm, DecodingKey)>,
    /// Rises when the keys change.
    generation: u64,
    confirmed: Option<Instant>,
    /// When the newest fetch ended; None while it goes on, too.
    ended: Option<Instant>,
}

/// What a set looks like. Keys one by one: one that is new to us spoils no others.
#[derive(Deserialize)]
struct Set {
    keys: Vec<serde_json::Value>,
}

impl Jwks {
    /// None where the settings name no URL.
    pub(crate) fn new(config: &AuthConfig) -> Result<Option<Arc<Self>>, ConfigError> {
        let Some(url) = config.jwks_url()? else { return Ok(None) };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let fail = |error: &dyn std::fmt::Display, expected| ConfigError::Value {
            key: "auth.jwks_url",
            value: format!("{url} ({error})"),
            expected,
        };
        let connector = if config.jwks_ca_file.as_os_str().is_empty() {
            let system = "served by somebody whom this machine's authorities vouch for; or set auth.jwks_ca_file";
            let builder = HttpsConnectorBuilder::new().with_provider_and_native_roots(provider);
            builder.map_err(|error| fail(&error, system))?
        } else {
            let roots = authority("auth.jwks_ca_file", &config.jwks_ca_file)?;
            let tls = ClientConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .map_err(|error| fail(&error, "a URL that TLS reaches"))?
                .with_root_certificates(roots)
                .with_no_client_auth();
            HttpsConnectorBuilder::new().with_tls_config(tls)
        };
        // The settings allow plain HTTP on loopback only.
        let client = Client::builder(TokioExecutor::new()).build(connector.https_or_http().enable_http1().build());
        Ok(Some(Arc::new(Self {
            url,
            issuer: config.jwks_issuer.clone(),
            refresh: Duration::from_secs(config.jwks_refresh_s),
            pause: PAUSE,
            client,
            known: Mutex::default(),
            wanted: Notify::new(),
            ended: watch::channel(0).0,
        })))
    }

    /// Who must have made the tokens that these keys have signed.
    pub(crate) fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Whether its keys were ever there.
    pub(crate) fn is_known(&self) -> bool {
        self.known.lock().confirmed.is_some()
    }

    /// A key by its name.
    pub(crate) fn find(&self, name: &str) -> Option<(Algorithm, DecodingKey)> {
        self.known.lock().keys.get(name).cloned()
    }

    /// Rises when the keys change: what was found good with the old ones is not any more.
    pub(crate) fn generation(&self) -> u64 {
        self.known.lock().generation
    }

    /// Resolves when it is known whether there are keys that are not known yet. None: that was asked a moment ago.
    pub(crate) fn look_again(&self) -> Option<impl Future<Output = ()> + Send + use<>> {
        let mut known = self.known.lock();
        let mut ends = self.ended.subscribe();
        if let Some(ended) = known.ended {
            if clock::now().saturating_duration_since(ended) < self.pause {
                return None;
            }
            self.wanted.notify_one();
            // It is under way: who comes now waits for the same one.
            known.ended = None;
        }
        // Who is woken by the end of everything finds the key missing still.
        Some(async move { drop(ends.changed().await) })
    }

    /// Keeps the keys as the issuer has them, for as long as the broker runs.
    pub(crate) async fn keep(self: Arc<Self>) {
        loop {
            self.known.lock().ended = None;
            let fetched = tokio::time::timeout(FETCH_TIMEOUT, self.fetch()).await;
            let fetched = fetched.unwrap_or_else(|_| Err("it takes too long".to_owned()));
            let next = if fetched.is_ok() { self.refresh } else { self.pause.max(self.refresh / 10) };
            self.take(fetched);
            self.ended.send_modify(|ends| *ends += 1);
            tokio::select! {
                () = tokio::time::sleep(next) => {}
                () = self.wanted.notified() => {}
            }
        }
    }

    async fn fetch(&self) -> Result<Vec<serde_json::Value>, String> {
        let request = Request::get(self.url.clone()).header(ACCEPT, "application/json").body(Empty::new());
        let request = request.map_err(|error| error.to_string())?;
        let response = self.client.request(request).await.map_err(|error| because(&error))?;
        // Also where it says that the keys are elsewhere: the settings say where they are.
        if response.status() != 200 {
            return Err(format!("it answers {}", response.status()));
        }
        let body = Limited::new(response.into_body(), MAX_SET_BYTES).collect().await;
        let body = body.map_err(|error| format!("{error}; at most {MAX_SET_BYTES} bytes are read"))?;
        let set: Set = serde_json::from_slice(&body.to_bytes()).map_err(|error| format!("no set of keys: {error}"))?;
        Ok(set.keys)
    }

    fn take(&self, fetched: Result<Vec<serde_json::Value>, String>) {
        let mut known = self.known.lock();
        let now = clock::now();
        known.ended = Some(now);
        match fetched {
            Ok(found) => {
                let passed_over = found.len();
                let keys: HashMap<_, _> = found.into_iter().take(MAX_KEYS).filter_map(usable).collect();
                let passed_over = passed_over - keys.len();
                let names = |keys: &HashMap<String, _>| keys.keys().cloned().collect::<BTreeSet<_>>();
                if names(&keys) != names(&known.keys) {
                    tracing::info!(url = %self.url, keys = ?names(&keys), passed_over, "the issuer's keys are others by now");
                }
                // Also a key that kept its name may be another one.
                known.generation += 1;
                (known.keys, known.confirmed) = (keys, Some(now));
            }
            Err(error) => {
                tracing::warn!(url = %self.url, %error, "the issuer's keys could not be fetched");
                if known.confirmed.is_some_and(|at| now.saturating_duration_since(at) > STALE) && !known.keys.is_empty()
                {
                    tracing::error!(url = %self.url, "the issuer has not been reached for a day: its keys do not count any more");
                    known.keys.clear();
                    known.generation += 1;
                }
            }
        }
    }
}

/// An error with what is behind it: the outermost alone says that something failed.
fn because(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut inner = error.source();
    while let Some(error) = inner {
        text.push_str(": ");
        text.push_str(&error.to_string());
        inner = error.source();
    }
    text
}

/// A key with its name, if it signs what is understood here.
fn usable(key: serde_json::Value) -> Option<(String, (Algorithm, DecodingKey))> {
    // What the library does not know is no key to it.
    let declared = key.get("alg").cloned();
    let key: Jwk = serde_json::from_value(key).ok()?;
    let name = key.common.key_id.clone().filter(|name| !name.is_empty())?;
    let algorithm = match &key.algorithm {
        AlgorithmParameters::RSA(_) => Algorithm::RS256,
        AlgorithmParameters::EllipticCurve(curve) if curve.curve == EllipticCurve::P256 => Algorithm::ES256,
        AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => Algorithm::EdDSA,
        _ => return None,
    };
    let signs = key.common.public_key_use.as_ref().is_none_or(|usage| *usage == PublicKeyUse::Signature);
    let verifies = key.common.key_operations.as_ref().is_none_or(|uses| uses.contains(&KeyOperations::Verify));
    let fits = declared.is_none_or(|declared| declared == format!("{algorithm:?}"));
    (signs && verifies && fits)
        .then(|| DecodingKey::from_jwk(&key).ok().map(|read| (name, (algorithm, read))))
        .flatten()
}

#[cfg(test)]
#[path = "jwks_tests.rs"]
mod tests;
