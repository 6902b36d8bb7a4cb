//! What an operator says of who may come in.

use std::{net::IpAddr, path::PathBuf};

use jsonwebtoken::Algorithm;
use serde::{Deserialize, Serialize};
use tonic::codegen::http::Uri;

use super::{ConfigError, check};
use crate::{
    auth::{Role, Roles},
    field,
};

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
    /// Where another issuer publishes the public keys that sign its tokens (JWKS): `https://…`, or `http://` on loopback. RS256,
    /// ES256 and EdDSA; keys are told apart by `kid`, and those of `auth.keys` go before. Empty: nowhere. Default empty.
    pub jwks_url: String,
    /// Who must have made the tokens (`iss`) that those keys have signed. Needed with `auth.jwks_url`.
    pub jwks_issuer: String,
    /// Certificates of the authority that vouches for the host of that URL, as PEM. Empty: those that this machine trusts. Default
    /// empty.
    pub jwks_ca_file: PathBuf,
    /// How often the keys are fetched anew, in seconds; a token that names an unknown one makes it happen at once, every 10 seconds
    /// at most. 10 to 86,400, default 300.
    pub jwks_refresh_s: u64,
    /// Who shows a client certificate of `tls.client_ca_file` and no token,
    /// `["ops.example=operator", "build.example=sandbox@team-a,build", …]`: a name in the certificate (a DNS name or URI of its
    /// subject's alternative names), the roles, with `+` between them, and what they are bound to: a workspace, or a sandbox of it.
    /// Default none.
    pub certificates: Vec<String>,
    /// The key that the broker signs tokens with, `NAME=ALGORITHM:FILE` like those of `auth.keys`, which must have its counterpart
    /// under the same name; the file is the private key as PEM, for HS256 the secret. The same on all nodes. Empty: it signs none.
    /// Default empty.
    pub signing_key: String,
    /// How far clocks may be apart, in seconds: so much later a token still holds, and so much earlier it holds already. At
    /// most 300, default 30.
    pub clock_skew_s: u64,
}

impl Default for AuthConfig {
    fn default() -> Self {
        let audience = "aintandem".to_owned();
        Self {
            open: false,
            keys: Vec::new(),
            audience,
            issuer: String::new(),
            jwks_url: String::new(),
            jwks_issuer: String::new(),
            jwks_ca_file: PathBuf::new(),
            jwks_refresh_s: 300,
            certificates: Vec::new(),
            signing_key: String::new(),
            clock_skew_s: 30,
        }
    }
}

/// A key that signs tokens, as the settings name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TokenKey {
    pub(crate) name: String,
    pub(crate) algorithm: Algorithm,
    pub(crate) file: PathBuf,
}

/// Who is shown by a name in a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CertificateName {
    pub(crate) name: String,
    pub(crate) roles: Roles,
    pub(crate) workspace: Option<String>,
    pub(crate) sandbox: Option<String>,
}

impl AuthConfig {
    /// The keys by name.
    pub(crate) fn token_keys(&self) -> Result<Vec<TokenKey>, ConfigError> {
        let mut keys: Vec<TokenKey> = Vec::new();
        for text in &self.keys {
            let parsed = token_key(text);
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

    /// The key to sign with.
    pub(crate) fn signing_key(&self) -> Result<Option<TokenKey>, ConfigError> {
        if self.signing_key.is_empty() {
            return Ok(None);
        }
        let expected = "NAME=ALGORITHM:FILE, with the name and the algorithm of a key in auth.keys";
        let wrong = || ConfigError::Value { key: "auth.signing_key", value: self.signing_key.clone(), expected };
        let key = token_key(&self.signing_key).ok_or_else(wrong)?;
        let same = |other: &TokenKey| other.name == key.name && other.algorithm == key.algorithm;
        if self.token_keys()?.iter().any(same) { Ok(Some(key)) } else { Err(wrong()) }
    }

    /// Where keys are published; None: nowhere.
    pub(crate) fn jwks_url(&self) -> Result<Option<Uri>, ConfigError> {
        if self.jwks_url.is_empty() {
            return Ok(None);
        }
        let here = |host: &str| host == "localhost" || host.parse::<IpAddr>().is_ok_and(|host| host.is_loopback());
        let parsed = self.jwks_url.parse::<Uri>().ok().filter(|url| match (url.scheme_str(), url.host()) {
            (Some("https"), Some(_)) => true,
            (Some("http"), Some(host)) => here(host.trim_matches(['[', ']'])),
            _ => false,
        });
        let expected = "a URL that begins with https://, because whoever can change what it says can make tokens; http:// only on loopback";
        let wrong = || ConfigError::Value { key: "auth.jwks_url", value: self.jwks_url.clone(), expected };
        parsed.map(Some).ok_or_else(wrong)
    }

    /// Who is shown by which name in a certificate.
    pub(crate) fn named_certificates(&self) -> Result<Vec<CertificateName>, ConfigError> {
        let mut names: Vec<CertificateName> = Vec::new();
        for text in &self.certificates {
            let wrong = || ConfigError::Value {
                key: "auth.certificates",
                value: text.clone(),
                expected: "a list of NAME=ROLE+ROLE@WORKSPACE,SANDBOX, each name once; the role sandbox needs a sandbox",
            };
            let name = certificate_name(text).ok_or_else(wrong)?;
            if names.iter().any(|other| other.name == name.name) {
                return Err(wrong());
            }
            names.push(name);
        }
        Ok(names)
    }

    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        let skew = self.clock_skew_s;
        check("auth.clock_skew_s", skew, skew <= 300, "300 or less")?;
        check("auth.audience", &self.audience, !self.audience.is_empty(), "a name that tokens are made for")?;
        let jwks = self.jwks_url()?.is_some();
        check("auth.jwks_issuer", "empty", !jwks || !self.jwks_issuer.is_empty(), "set where auth.jwks_url is")?;
        let issuer = &self.jwks_issuer;
        let fine = issuer.len() <= field::MAX_NAME_BYTES && !issuer.contains(char::is_control);
        check("auth.jwks_issuer", issuer, fine, "up to 128 bytes, all of which can be seen")?;
        let refresh = self.jwks_refresh_s;
        check("auth.jwks_refresh_s", refresh, (10..=86_400).contains(&refresh), "10 to 86,400")?;
        let certificates = self.named_certificates()?;
        self.signing_key()?;
        let closed = jwks || !self.keys.is_empty() || !self.certificates.is_empty() || !self.signing_key.is_empty();
        let expected = "false beside auth.keys, auth.jwks_url, auth.certificates or auth.signing_key: nobody would be asked for them";
        check("auth.open", "true", !(self.open && closed), expected)?;
        let some = self.open || jwks || !self.token_keys()?.is_empty() || !certificates.is_empty();
        let expected = "at least one key that signs tokens (or auth.jwks_url, or auth.certificates), or auth.open = true, which lets \
                        everyone do everything";
        check("auth.keys", "empty", some, expected)
    }
}

fn certificate_name(text: &str) -> Option<CertificateName> {
    // The last one: a URI may have one, too.
    let (name, rest) = text.rsplit_once('=')?;
    let (roles, bound) = rest.split_once('@').map_or((rest, None), |(roles, bound)| (roles, Some(bound)));
    let roles: Result<Roles, _> = roles.split('+').map(|role| role.trim().parse::<Role>()).collect();
    let roles = roles.ok()?;
    let (workspace, sandbox) = match bound {
        None => (None, None),
        Some(bound) => bound.split_once(',').map_or((Some(bound), None), |(own, sandbox)| (Some(own), Some(sandbox))),
    };
    let id = |value: Option<&str>| value.is_none_or(|value| field::id("auth.certificates", value.trim()).is_ok());
    let name = name.trim().to_owned();
    let fine = !name.is_empty() && name.len() <= field::MAX_NAME_BYTES && id(workspace) && id(sandbox);
    let owned = |value: Option<&str>| value.map(|value| value.trim().to_owned());
    let named = CertificateName { name, roles, workspace: owned(workspace), sandbox: owned(sandbox) };
    (fine && (named.sandbox.is_some() || !roles.meets(Roles::of(Role::Sandbox)))).then_some(named)
}

fn token_key(text: &str) -> Option<TokenKey> {
    let (name, rest) = text.split_once('=')?;
    let (algorithm, file) = rest.split_once(':')?;
    let algorithm = algorithm_of(algorithm.trim())?;
    let (name, file) = (name.trim().to_owned(), PathBuf::from(file.trim()));
    let good = !name.is_empty() && !file.as_os_str().is_empty();
    good.then_some(TokenKey { name, algorithm, file })
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
    fn certificates_are_read_and_wrong_ones_are_named() {
        let certificates = |texts: &[&str]| AuthConfig {
            certificates: texts.iter().map(|text| (*text).to_owned()).collect(),
            ..AuthConfig::default()
        };
        let some = certificates(&[
            "ops.example=operator+auditor",
            "spiffe://a/b?c=d = sandbox@team-a,build",
            "lead.example=approver@team-a",
        ]);
        some.validate().unwrap();
        let read = some.named_certificates().unwrap();
        assert_eq!(read[0].roles, [Role::Operator, Role::Auditor].into_iter().collect());
        assert_eq!((read[1].name.as_str(), read[1].workspace.as_deref()), ("spiffe://a/b?c=d", Some("team-a")));
        assert_eq!((read[1].sandbox.as_deref(), read[2].sandbox.as_deref()), (Some("build"), None));
        for wrong in
            ["a", "a=", "=admin", "a=root", "a=admin@", "a=admin@b,", "a=sandbox", "a=sandbox@b", "a=admin@b,c,d"]
        {
            let error = certificates(&[wrong]).validate().unwrap_err().to_string();
            assert!(error.contains(wrong) && error.contains("NAME=ROLE"), "{error}");
        }
        assert!(certificates(&["a=admin", "a=operator"]).validate().is_err());
    }

    #[test]
    fn the_broker_signs_with_the_counterpart_of_a_key() {
        let with = |signing_key: &str| AuthConfig { signing_key: signing_key.into(), ..keys(&["a=EdDSA:/public"]) };
        with("a=EdDSA:/private").validate().unwrap();
        for wrong in ["a", "b=EdDSA:/private", "a=ES256:/private", "a=EdDSA:"] {
            assert!(with(wrong).validate().unwrap_err().to_string().contains("auth.signing_key"), "{wrong}");
        }
    }

    #[test]
    fn keys_come_from_where_nobody_else_can_change_them() {
        let with = |url: &str, issuer: &str| AuthConfig {
            jwks_url: url.into(),
            jwks_issuer: issuer.into(),
            ..AuthConfig::default()
        };
        for url in ["https://a.example/keys", "http://127.0.0.1:1/keys", "http://[::1]/keys", "http://localhost/k"] {
            with(url, "a").validate().unwrap();
        }
        for url in ["http://a.example/keys", "ftp://a.example", "/keys", "https://", "nonsense"] {
            assert!(with(url, "a").validate().unwrap_err().to_string().contains("https://"), "{url}");
        }
        let nobody = with("https://a.example/keys", "").validate().unwrap_err().to_string();
        assert!(nobody.contains("auth.jwks_issuer"), "{nobody}");
    }

    #[test]
    fn a_broker_is_closed_unless_somebody_opens_it() {
        assert!(AuthConfig::default().validate().unwrap_err().to_string().contains("auth.open"));
        AuthConfig { open: true, ..AuthConfig::default() }.validate().unwrap();
        let skewed = AuthConfig { clock_skew_s: 301, open: true, ..AuthConfig::default() };
        assert!(skewed.validate().is_err());
    }
}
