//! Tokens that the broker signs itself, with `auth.signing_key`.

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::json;

use super::{Roles, token::Verifier};
use crate::{
    clock,
    config::{AuthConfig, ConfigError},
    error::RequestError,
    pem::wrong,
};

/// Signs tokens.
pub(crate) struct Signer {
    header: Header,
    key: EncodingKey,
    audience: String,
    issuer: String,
}

/// What a token is to say.
pub(crate) struct Claims<'a> {
    pub(crate) token_id: &'a str,
    pub(crate) subject: &'a str,
    pub(crate) roles: Roles,
    /// Empty: all.
    pub(crate) workspace: &'a str,
    /// Empty: all.
    pub(crate) sandbox: &'a str,
    /// Milliseconds since 1970.
    pub(crate) expires_ms: u64,
}

impl Signer {
    /// None where the settings name no key to sign with. What it signs must be good here.
    pub(crate) fn new(config: &AuthConfig, verifier: &Verifier) -> Result<Option<Self>, ConfigError> {
        let Some(named) = config.signing_key()? else { return Ok(None) };
        let fail = |error: &dyn std::fmt::Display, expected| wrong("auth.signing_key", &named.file, error, expected);
        let bytes = std::fs::read(&named.file).map_err(|error| fail(&error, "a file that can be read"))?;
        let bytes = bytes.trim_ascii();
        let key = match named.algorithm {
            Algorithm::HS256 => Ok(EncodingKey::from_secret(bytes)),
            Algorithm::RS256 => EncodingKey::from_rsa_pem(bytes),
            Algorithm::ES256 => EncodingKey::from_ec_pem(bytes),
            _ => EncodingKey::from_ed_pem(bytes),
        };
        let key = key.map_err(|error| fail(&error, "a private key as PEM, of the kind of its algorithm"))?;
        let header = Header { kid: Some(named.name.clone()), ..Header::new(named.algorithm) };
        let (audience, issuer) = (config.audience.clone(), config.issuer.clone());
        let signer = Self { header, key, audience, issuer };
        let counterpart = "the private counterpart of the key of that name and algorithm in auth.keys";
        let expires_ms = clock::unix_ms() + 60_000;
        let roles = Roles::default();
        let trial = Claims { token_id: "trial", subject: "trial", roles, workspace: "", sandbox: "", expires_ms };
        let trial = signer.sign(&trial).map_err(|error| fail(&error, counterpart))?;
        verifier.proves(&trial).map_err(|error| fail(&error, counterpart))?;
        Ok(Some(signer))
    }

    /// A token that says this.
    pub(crate) fn sign(&self, claims: &Claims<'_>) -> Result<String, RequestError> {
        let mut said = json!({
            "jti": claims.token_id, "sub": claims.subject, "aud": self.audience,
            "iat": clock::unix_ms() / 1_000, "exp": claims.expires_ms / 1_000,
            "roles": claims.roles.iter().map(|role| role.name()).collect::<Vec<_>>(),
        });
        for (name, value) in [("workspace", claims.workspace), ("sandbox", claims.sandbox), ("iss", &self.issuer)] {
            if !value.is_empty() {
                said[name] = json!(value);
            }
        }
        jsonwebtoken::encode(&self.header, &said, &self.key)
            .map_err(|error| RequestError::internal(format!("a token could not be signed: {error}")))
    }
}
