use std::net::SocketAddr;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{EncodingKey, Header, encode};
use rcgen::KeyPair;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::*;
use crate::{
    auth::{api_keys::KeyRing, token::Verifier},
    query::StateReader,
    rejection::Reason,
};

/// What was revoked: nothing. Tokens without an id are not even looked up.
fn ring() -> Arc<KeyRing> {
    Arc::new(KeyRing::new(StateReader::default()))
}

/// An issuer that publishes what it is told to.
struct Issuer {
    address: SocketAddr,
    /// The whole answer.
    answer: Arc<Mutex<Vec<u8>>>,
    asked: Arc<Mutex<u64>>,
}

fn answer(status: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let mut whole = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n").into_bytes();
    whole.extend_from_slice(body);
    whole
}

impl Issuer {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (said, asked) = (Arc::new(Mutex::new(answer("200 OK", b"{\"keys\":[]}"))), Arc::new(Mutex::new(0)));
        let issuer = Self { address, answer: Arc::clone(&said), asked: Arc::clone(&asked) };
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let said = said.lock().clone();
                let asked = Arc::clone(&asked);
                tokio::spawn(async move {
                    let mut request = [0; 4096];
                    let got = stream.read(&mut request).await.unwrap_or(0);
                    if got > 0 {
                        *asked.lock() += 1;
                        stream.write_all(&said).await.ok();
                    }
                });
            }
        });
        issuer
    }

    fn publish(&self, keys: &[Value]) {
        *self.answer.lock() = answer("200 OK", json!({ "keys": keys }).to_string().as_bytes());
    }

    /// Keys that are looked at again after this pause, and who checks tokens with them.
    fn followed(&self, pause: Duration) -> (Arc<Jwks>, Verifier) {
        let config = AuthConfig {
            jwks_url: format!("http://{}/keys", self.address),
            jwks_issuer: "the issuer".into(),
            ..AuthConfig::default()
        };
        let mut jwks = Jwks::new(&config).unwrap().unwrap();
        Arc::get_mut(&mut jwks).unwrap().pause = pause;
        let verifier = Verifier::with(&config, Some(Arc::clone(&jwks))).unwrap();
        tokio::spawn(Arc::clone(&jwks).keep());
        (jwks, verifier)
    }
}

/// A key of the issuer.
struct Signer {
    name: &'static str,
    algorithm: Algorithm,
    key: KeyPair,
}

impl Signer {
    fn new(name: &'static str, algorithm: Algorithm) -> Self {
        let kind = if algorithm == Algorithm::ES256 { &rcgen::PKCS_ECDSA_P256_SHA256 } else { &rcgen::PKCS_ED25519 };
        Self { name, algorithm, key: KeyPair::generate_for(kind).unwrap() }
    }

    fn published(&self) -> Value {
        let raw = self.key.public_key_raw();
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        if self.algorithm == Algorithm::ES256 {
            json!({"kty": "EC", "crv": "P-256", "kid": self.name, "x": text(&raw[1..33]), "y": text(&raw[33..])})
        } else {
            json!({"kty": "OKP", "crv": "Ed25519", "kid": self.name, "alg": "EdDSA", "use": "sig", "x": text(raw)})
        }
    }

    fn token(&self, issuer: &str) -> String {
        let pem = self.key.serialize_pem();
        let key = match self.algorithm {
            Algorithm::ES256 => EncodingKey::from_ec_pem(pem.as_bytes()),
            _ => EncodingKey::from_ed_pem(pem.as_bytes()),
        };
        signed(self.algorithm, self.name, &key.unwrap(), issuer)
    }
}

fn signed(algorithm: Algorithm, name: &str, key: &EncodingKey, issuer: &str) -> String {
    let header = Header { kid: Some(name.into()), ..Header::new(algorithm) };
    let ends_s = clock::unix_ms() / 1_000 + 60;
    let claims = json!({"sub": "zoe", "aud": "aintandem", "iss": issuer, "exp": ends_s, "roles": ["developer"]});
    encode(&header, &claims, key).unwrap()
}

/// As the door does.
async fn verified(verifier: &Verifier, token: &str) -> Result<(), Reason> {
    if verifier.verify(token, &ring()).is_err()
        && let Some(clear) = verifier.look_again(token)
    {
        clear.await;
    }
    verifier.verify(token, &ring()).map(drop).map_err(|rejection| rejection.reason)
}

#[tokio::test]
async fn keys_come_and_go_as_their_issuer_has_it() {
    let issuer = Issuer::start().await;
    let (old, new) = (Signer::new("old", Algorithm::ES256), Signer::new("new", Algorithm::EdDSA));
    issuer.publish(&[old.published()]);
    let (_, verifier) = issuer.followed(Duration::ZERO);
    // Also the very first token, which comes before the keys are there.
    assert_eq!(verified(&verifier, &old.token("the issuer")).await, Ok(()));
    assert_eq!(verified(&verifier, &old.token("somebody")).await, Err(Reason::TokenInvalid));
    assert_eq!(verified(&verifier, &new.token("the issuer")).await, Err(Reason::TokenInvalid));
    issuer.publish(&[old.published(), new.published()]);
    assert_eq!(verified(&verifier, &new.token("the issuer")).await, Ok(()));
    let remembered = old.token("the issuer");
    assert_eq!(verified(&verifier, &remembered).await, Ok(()));
    issuer.publish(&[new.published()]);
    // Somebody names a key that nobody has, and the old one is gone with the fetch that it causes.
    assert!(verified(&verifier, &Signer::new("nobody's", Algorithm::EdDSA).token("the issuer")).await.is_err());
    assert_eq!(verified(&verifier, &remembered).await, Err(Reason::TokenInvalid));
    assert_eq!(verified(&verifier, &new.token("the issuer")).await, Ok(()));
}

#[tokio::test]
async fn a_key_is_good_for_what_it_was_published_for() {
    let issuer = Issuer::start().await;
    let (ec, ed) = (Signer::new("ec", Algorithm::ES256), Signer::new("ed", Algorithm::EdDSA));
    let secret = b"a secret that everybody can read, because it is published";
    let changed = |mut key: Value, name: &str, field: &str, value: Value| {
        key["kid"] = json!(name);
        key[field] = value;
        key
    };
    issuer.publish(&[
        ec.published(),
        ed.published(),
        json!({"kty": "oct", "kid": "secret", "alg": "HS256", "k": URL_SAFE_NO_PAD.encode(secret)}),
        changed(ed.published(), "for encryption", "use", json!("enc")),
        changed(ed.published(), "signs only", "key_ops", json!(["sign"])),
        changed(ec.published(), "of another algorithm", "alg", json!("ES384")),
        changed(ec.published(), "of another curve", "crv", json!("P-384")),
        changed(ed.published(), "no key", "x", json!("?")),
        json!({"kty": "of a later time", "kid": "later"}),
        json!("nonsense"),
        changed(ed.published(), "", "use", json!("sig")),
    ]);
    let (jwks, verifier) = issuer.followed(Duration::from_secs(60));
    for good in [&ec, &ed] {
        assert_eq!(verified(&verifier, &good.token("the issuer")).await, Ok(()));
    }
    let mut names: Vec<_> = jwks.known.lock().keys.keys().cloned().collect();
    names.sort();
    assert_eq!(names, ["ec", "ed"]);
    let hmac = |name: &str, key: &[u8]| signed(Algorithm::HS256, name, &EncodingKey::from_secret(key), "the issuer");
    let attacks = [
        hmac("secret", secret),
        // What is public, taken for a secret.
        hmac("ec", ec.key.public_key_pem().as_bytes()),
        hmac("ed", ed.key.public_key_raw()),
        Signer { name: "ec", ..Signer::new("ed", Algorithm::EdDSA) }.token("the issuer"),
        Signer::new("ed", Algorithm::EdDSA).token("the issuer"),
    ];
    for (number, token) in attacks.iter().enumerate() {
        assert_eq!(verified(&verifier, token).await, Err(Reason::TokenInvalid), "attack {number}");
    }
}

#[tokio::test]
async fn an_issuer_in_trouble_keeps_its_keys() {
    let issuer = Issuer::start().await;
    let key = Signer::new("key", Algorithm::EdDSA);
    issuer.publish(&[key.published()]);
    let (_, verifier) = issuer.followed(Duration::ZERO);
    let (token, unknown) = (key.token("the issuer"), Signer::new("unknown", Algorithm::EdDSA).token("the issuer"));
    assert_eq!(verified(&verifier, &token).await, Ok(()));
    let too_large = format!("{{\"keys\":[],\"more\":\"{}\"}}", "x".repeat(MAX_SET_BYTES));
    let answers = [
        answer("500 Internal Server Error", b""),
        answer("200 OK", b"<html>"),
        answer("200 OK", too_large.as_bytes()),
        b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n".to_vec(),
        Vec::new(),
    ];
    for said in answers {
        let before = *issuer.asked.lock();
        *issuer.answer.lock() = said;
        assert!(verified(&verifier, &unknown).await.is_err());
        assert!(*issuer.asked.lock() > before);
        assert_eq!(verified(&verifier, &token).await, Ok(()));
    }
}

#[tokio::test]
async fn unknown_keys_do_not_make_us_hammer_the_issuer() {
    let issuer = Issuer::start().await;
    let (_, verifier) = issuer.followed(Duration::from_secs(60));
    for _ in 0..20 {
        assert!(verified(&verifier, &Signer::new("unknown", Algorithm::EdDSA).token("the issuer")).await.is_err());
    }
    assert_eq!(*issuer.asked.lock(), 1);
}

#[tokio::test]
async fn where_the_issuer_never_answered_the_refusal_says_so() {
    let issuer = Issuer::start().await;
    *issuer.answer.lock() = Vec::new();
    let (_, verifier) = issuer.followed(Duration::ZERO);
    let token = Signer::new("key", Algorithm::EdDSA).token("the issuer");
    verified(&verifier, &token).await.unwrap_err();
    let text = verifier.verify(&token, &ring()).map(drop).unwrap_err().text;
    assert!(text.contains("auth.jwks_url"), "{text}");
}
