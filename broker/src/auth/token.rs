//! Tokens: JWTs that a key of the settings has signed.
//!
//! The key that a token names decides on the algorithm, never the token: a token that says another one is refused before its
//! signature is looked at. Only the signature is left to the library; what the claims come to is decided here, against the
//! clock of this crate.

use std::{collections::HashMap, fs, path::Path, sync::Arc};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, errors::ErrorKind};
use parking_lot::Mutex;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::{
    Caller, Identity, Role, Roles,
    api_keys::{KeyRing, Shown},
    jwks::Jwks,
};
use crate::{
    clock,
    config::{AuthConfig, ConfigError, auth::TokenKey},
    field,
    machine::token::hash_of,
    rejection::{Reason, Rejection},
};

/// The largest token, in bytes. Nobody's claims need more, and work grows with it.
const MAX_TOKEN_BYTES: usize = 8 << 10;
/// Bytes of a secret that signs tokens, at least: as many as its digests have.
const MIN_SECRET_BYTES: usize = 32;
/// Tokens that were found good and are remembered: a signature takes as long as a message.
const MAX_REMEMBERED: usize = 4_096;

/// Tells good tokens from others.
pub(crate) struct Verifier {
    keys: HashMap<String, (Algorithm, DecodingKey)>,
    /// Those of another issuer.
    jwks: Option<Arc<Jwks>>,
    audience: String,
    issuer: String,
    skew_s: u64,
    good: Mutex<Good>,
}

/// Tokens that were found good.
#[derive(Default)]
struct Good {
    /// Of the issuer's keys that they were found good with.
    generation: u64,
    /// By digest: what is kept here is worth nothing elsewhere.
    callers: HashMap<[u8; 32], Caller>,
}

/// A key.
struct Key {
    algorithm: Algorithm,
    key: DecodingKey,
    made: Made,
}

/// What a key says of whoever has made the tokens that it has signed.
struct Made {
    /// What they must say (`iss`); empty: anything.
    issuer: String,
    /// Whether it is a key of the settings. All who have those draw ids of tokens from one set, another issuer from his own.
    own: bool,
}

#[derive(Deserialize)]
struct Claims {
    #[serde(default)]
    sub: String,
    /// Seconds, perhaps with a fraction.
    exp: Option<f64>,
    #[serde(default)]
    nbf: f64,
    #[serde(default)]
    aud: Audience,
    #[serde(default)]
    iss: String,
    #[serde(default)]
    jti: String,
    workspace: Option<String>,
    sandbox: Option<String>,
    #[serde(default)]
    roles: Vec<String>,
}

/// One name, or several.
#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

impl Default for Audience {
    fn default() -> Self {
        Self::Several(Vec::new())
    }
}

impl Audience {
    fn has(&self, name: &str) -> bool {
        match self {
            Self::One(one) => one == name,
            Self::Several(several) => several.iter().any(|one| one == name),
        }
    }
}

impl Verifier {
    /// Reads the keys.
    pub(crate) fn new(config: &AuthConfig) -> Result<Self, ConfigError> {
        Self::with(config, Jwks::new(config)?)
    }

    /// The same, with the keys of another issuer.
    pub(super) fn with(config: &AuthConfig, jwks: Option<Arc<Jwks>>) -> Result<Self, ConfigError> {
        let mut keys = HashMap::new();
        for key in config.token_keys()? {
            let read = read_key(&key)?;
            keys.insert(key.name, (key.algorithm, read));
        }
        let (audience, issuer) = (config.audience.clone(), config.issuer.clone());
        Ok(Self { keys, jwks, audience, issuer, skew_s: config.clock_skew_s, good: Mutex::default() })
    }

    /// The keys of another issuer, which somebody must keep.
    pub(crate) fn jwks(&self) -> Option<&Arc<Jwks>> {
        self.jwks.as_ref()
    }

    /// Where a token names a key that is not known, and the issuer may have it by now: resolves when that is clear.
    pub(crate) fn look_again(&self, token: &str) -> Option<impl Future<Output = ()> + Send + use<>> {
        let jwks = self.jwks.as_ref()?;
        if token.len() > MAX_TOKEN_BYTES {
            return None;
        }
        let name = jsonwebtoken::decode_header(token).ok()?.kid?;
        let known = self.keys.contains_key(&name) || jwks.find(&name).is_some();
        if known { None } else { jwks.look_again() }
    }

    /// Whether a token is good, as far as it says so itself.
    pub(crate) fn proves(&self, token: &str) -> Result<(), Rejection> {
        let (claims, made) = self.claims(token)?;
        self.identity(&claims, &made.issuer, clock::unix_ms() / 1_000).map(drop)
    }

    /// Who shows this token. What was revoked, the ring knows.
    pub(crate) fn verify(&self, token: &str, ring: &Arc<KeyRing>) -> Result<Caller, Rejection> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(invalid(format!("it has {} bytes; at most {MAX_TOKEN_BYTES} are read", token.len())));
        }
        let digest: [u8; 32] = Sha256::digest(token).into();
        let now_s = clock::unix_ms() / 1_000;
        // Asked before the keys are: what is found with older ones must not be kept as found with newer ones.
        let generation = self.jwks.as_ref().map_or(0, |jwks| jwks.generation());
        let known = {
            let mut good = self.good.lock();
            if good.generation != generation {
                *good = Good { generation, callers: HashMap::new() };
            }
            good.callers.get(&digest).cloned()
        };
        if let Some(caller) = known {
            return caller.in_time().map(|()| caller);
        }
        let (claims, made) = self.claims(token)?;
        let identity = self.identity(&claims, &made.issuer, now_s)?;
        let caller = if claims.jti.is_empty() {
            Caller::new(identity)
        } else {
            let issuer = if made.own { "" } else { &made.issuer };
            Caller::revocable(identity, Arc::clone(ring), Shown::Token(hash_of(issuer, &claims.jti)))
        };
        caller.in_time()?;
        let mut good = self.good.lock();
        if good.callers.len() >= MAX_REMEMBERED {
            good.callers.clear();
        }
        if good.generation == generation {
            good.callers.insert(digest, caller.clone());
        }
        Ok(caller)
    }

    /// The key that a token names.
    fn key(&self, name: Option<&str>) -> Result<Key, Rejection> {
        let own = |(algorithm, key): &(Algorithm, DecodingKey)| Key {
            algorithm: *algorithm,
            key: key.clone(),
            made: Made { issuer: self.issuer.clone(), own: true },
        };
        let Some(name) = name else {
            let only = self.keys.values().next().filter(|_| self.keys.len() == 1 && self.jwks.is_none());
            return only.map(own).ok_or_else(|| invalid("it does not say which key has signed it (kid)".to_owned()));
        };
        if let Some(key) = self.keys.get(name) {
            return Ok(own(key));
        }
        let found = self.jwks.as_ref().and_then(|jwks| Some((jwks.find(name)?, jwks)));
        if let Some(((algorithm, key), jwks)) = found {
            return Ok(Key { algorithm, key, made: Made { issuer: jwks.issuer().to_owned(), own: false } });
        }
        let text = format!("its key (kid) {:?} is none of this broker's", field::shown(name));
        let waits = self.jwks.as_ref().is_some_and(|jwks| !jwks.is_known());
        let why = if waits { ", and those of auth.jwks_url could not be fetched yet; its log says why" } else { "" };
        Err(invalid(text + why))
    }

    /// What a token says, once its signature is right, and who must say it.
    fn claims(&self, token: &str) -> Result<(Claims, Made), Rejection> {
        let malformed = || invalid("it is no signed JWT".to_owned());
        let encoded = token.split('.').next().unwrap_or_default();
        let raw = URL_SAFE_NO_PAD.decode(encoded).map_err(|_| malformed())?;
        let raw: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&raw).map_err(|_| malformed())?;
        if raw.contains_key("crit") {
            return Err(invalid("it asks for extensions (crit), and there are none here".to_owned()));
        }
        // An algorithm that the library does not know, such as none, is no header to it.
        let header = jsonwebtoken::decode_header(token).map_err(|_| malformed())?;
        let Key { algorithm, key, made } = self.key(header.kid.as_deref())?;
        if header.alg != algorithm {
            return Err(invalid("its key is for another algorithm (alg)".to_owned()));
        }
        let mut signature = Validation::new(algorithm);
        (signature.validate_exp, signature.validate_nbf, signature.validate_aud) = (false, false, false);
        signature.required_spec_claims.clear();
        let decoded = jsonwebtoken::decode::<Claims>(token, &key, &signature);
        decoded.map(|token| (token.claims, made)).map_err(|error| match (error.kind(), &header.kid) {
            (ErrorKind::InvalidSignature, Some(name)) => {
                invalid(format!("its signature is not by key {:?}", field::shown(name)))
            }
            (ErrorKind::InvalidSignature, None) => invalid("its signature is not by the key of this broker".to_owned()),
            _ => invalid("its claims are not what they should be".to_owned()),
        })
    }

    fn identity(&self, claims: &Claims, issuer: &str, now_s: u64) -> Result<Identity, Rejection> {
        let name = |claim: &'static str, value: &Option<String>| match value {
            Some(value) => {
                field::id(claim, value).map(|value| Some(value.to_owned())).map_err(|error| invalid(error.text))
            }
            None => Ok(None),
        };
        let Some(expires_s) = claims.exp else {
            return Err(invalid("it never expires (exp is missing)".to_owned()));
        };
        if !claims.aud.has(&self.audience) {
            return Err(invalid(format!("it is not made for {:?} (aud)", self.audience)));
        }
        if !issuer.is_empty() && claims.iss != issuer {
            return Err(invalid(format!("it is not made by {issuer:?} (iss)")));
        }
        if claims.jti.len() > field::MAX_NAME_BYTES || claims.jti.contains(char::is_control) {
            return Err(invalid("its id (jti) has more than 128 bytes, or characters that nobody can see".to_owned()));
        }
        if claims.sub.is_empty() || claims.sub.len() > field::MAX_NAME_BYTES {
            return Err(invalid("it does not say whose it is (sub), in up to 128 bytes".to_owned()));
        }
        // Casts saturate: what lies beyond all time is the end of it.
        let expires_s = expires_s as u64;
        if claims.nbf as u64 > now_s.saturating_add(self.skew_s) {
            let text = format!("the token holds from {} on (nbf), and it is {now_s}", claims.nbf);
            return Err(Rejection::new(Reason::TokenNotYetValid, text));
        }
        // Roles that a newer version knows mean nothing here.
        let roles: Roles = claims.roles.iter().filter_map(|role| role.parse().ok()).collect();
        let (workspace, sandbox) = (name("workspace", &claims.workspace)?, name("sandbox", &claims.sandbox)?);
        if sandbox.is_some() && workspace.is_none() {
            return Err(invalid("it names a sandbox and no workspace".to_owned()));
        }
        if roles.meets(Roles::of(Role::Sandbox)) && sandbox.is_none() {
            return Err(invalid("it has the role sandbox and does not say which one it is (sandbox)".to_owned()));
        }
        let ends_s = Some(expires_s.saturating_add(self.skew_s));
        Ok(Identity { subject: claims.sub.clone(), roles, workspace, sandbox, ends_s })
    }
}

fn invalid(text: String) -> Rejection {
    Rejection::new(Reason::TokenInvalid, format!("the token is not accepted: {text}"))
}

fn read_key(key: &TokenKey) -> Result<DecodingKey, ConfigError> {
    let wrong = |error: &dyn std::fmt::Display, expected| ConfigError::Value {
        key: "auth.keys",
        value: format!("{} ({error})", key.file.display()),
        expected,
    };
    let bytes = read(&key.file).map_err(|error| wrong(&error, "files that can be read"))?;
    let pem = "a public key as PEM, of the kind of its algorithm";
    match key.algorithm {
        // A key that everybody has would be taken for one that nobody has.
        Algorithm::HS256 if bytes.starts_with(b"-----BEGIN") => {
            Err(wrong(&"it is a PEM", "a secret of 32 bytes or more, and not a key as PEM"))
        }
        Algorithm::HS256 if bytes.len() < MIN_SECRET_BYTES => {
            Err(wrong(&format!("{} bytes", bytes.len()), "a secret of 32 bytes or more"))
        }
        Algorithm::HS256 => Ok(DecodingKey::from_secret(&bytes)),
        Algorithm::RS256 => DecodingKey::from_rsa_pem(&bytes).map_err(|error| wrong(&error, pem)),
        Algorithm::ES256 => DecodingKey::from_ec_pem(&bytes).map_err(|error| wrong(&error, pem)),
        _ => DecodingKey::from_ed_pem(&bytes).map_err(|error| wrong(&error, pem)),
    }
}

/// Without the newline that editors put at the end.
fn read(file: &Path) -> std::io::Result<Vec<u8>> {
    fs::read(file).map(|bytes| bytes.trim_ascii().to_vec())
}

#[cfg(test)]
#[path = "token_tests.rs"]
mod tests;
