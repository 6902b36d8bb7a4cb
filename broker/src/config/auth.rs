//! What an operator says of who may come in.

use std::path::PathBuf;

use jsonwebtoken::Algorithm;
use serde::{Deserialize, Serialize};

use super::{ConfigError, check};

/// How somebody proves who he is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuthConfig {
    /// Whether everyone may do everything, without a word about who it is: for development on one machine. `tandem dev` sets
    /// it. Default false.
    pub open: bool,
    /// Keys that sign tokens, `["k1=EdDSA:/etc/tandem/k1.pem", …]`: the name that tokens give in `kid`, the one algorithm that
    /// the key is good for (HS256, RS256, ES256 or EdDSA), and the file: a public key as PEM, for HS256 a secret of 32 bytes or
    /// more. Default none.
    pub keys: Vec<String>,
    /// Whom tokens must be made for (`aud`). Default `aintandem`.
    pub audience: String,
    /// Who must have made them (`iss`). Empty: anyone who has a key. Default empty.
    pub issuer: String,
    /// How far clocks may be apart, in seconds: so much later a token still holds, and so much earlier it holds already. At
    /// most 300, default 30.
    pub clock_skew_s: u64,
}

impl Default for AuthConfig {
    fn default() -> Self {
        let audience = "aintandem".to_owned();
        Self { open: false, keys: Vec::new(), audience, issuer: String::new(), clock_skew_s: 30 }
    }
}

/// A key that signs tokens, as the settings name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TokenKey {
    pub(crate) name: String,
    pub(crate) algorithm: Algorithm,
    pub(crate) file: PathBuf,
}

impl AuthConfig {
    /// The keys by name.
    pub(crate) fn token_keys(&self) -> Result<Vec<TokenKey>, ConfigError> {
        let mut keys: Vec<TokenKey> = Vec::new();
        for text in &self.keys {
            let parsed = text.split_once('=').and_then(|(name, rest)| {
                let (algorithm, file) = rest.split_once(':')?;
                let algorithm = algorithm_of(algorithm.trim())?;
                let (name, file) = (name.trim().to_owned(), PathBuf::from(file.trim()));
                let good = !name.is_empty() && !file.as_os_str().is_empty();
                good.then_some(TokenKey { name, algorithm, file })
            });
            let expected = "a list of NAME=ALGORITHM:FILE, with HS256, RS256, ES256 or EdDSA, each name once";
            let wrong = || ConfigError::Value { key: "auth.keys", value: text.clone(), expected };
            let key = parsed.ok_or_else(wrong)?;
            if keys.iter().any(|other| other.name == key.name) {
                return Err(wrong());
            }
            keys.push(key);
        }
        Ok(keys)
    }

    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        let skew = self.clock_skew_s;
        check("auth.clock_skew_s", skew, skew <= 300, "300 or less")?;
        check("auth.audience", &self.audience, !self.audience.is_empty(), "a name that tokens are made for")?;
        let keys = self.token_keys()?;
        let expected = "at least one key that signs tokens, or auth.open = true, which lets everyone do everything";
        check("auth.keys", "empty", self.open || !keys.is_empty(), expected)
    }
}

fn algorithm_of(name: &str) -> Option<Algorithm> {
    match name {
        "HS256" => Some(Algorithm::HS256),
        "RS256" => Some(Algorithm::RS256),
        "ES256" => Some(Algorithm::ES256),
        "EdDSA" => Some(Algorithm::EdDSA),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(keys: &[&str]) -> AuthConfig {
        AuthConfig { keys: keys.iter().map(|key| (*key).to_owned()).collect(), ..AuthConfig::default() }
    }

    #[test]
    fn keys_are_read_and_wrong_ones_are_named() {
        let two = keys(&["a=HS256:/x", " b = EdDSA : /y/z:1.pem"]);
        two.validate().unwrap();
        let read = two.token_keys().unwrap();
        assert_eq!((read[1].name.as_str(), read[1].algorithm), ("b", Algorithm::EdDSA));
        assert_eq!(read[1].file, PathBuf::from("/y/z:1.pem"));
        for wrong in ["a", "a=HS256", "a=none:/x", "a=HS512:/x", "=HS256:/x", "a=HS256:", "a=hs256:/x"] {
            let error = keys(&[wrong]).validate().unwrap_err().to_string();
            assert!(error.contains(wrong) && error.contains("NAME=ALGORITHM:FILE"), "{error}");
        }
        assert!(keys(&["a=HS256:/x", "a=EdDSA:/y"]).validate().is_err());
    }

    #[test]
    fn a_broker_is_closed_unless_somebody_opens_it() {
        assert!(AuthConfig::default().validate().unwrap_err().to_string().contains("auth.open"));
        AuthConfig { open: true, ..AuthConfig::default() }.validate().unwrap();
        let skewed = AuthConfig { clock_skew_s: 301, open: true, ..AuthConfig::default() };
        assert!(skewed.validate().is_err());
    }
}
