use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::{Value, json};

use super::*;
use crate::query::StateReader;

const SECRET: &str = "a secret that is long enough for it";

/// What was revoked: nothing. Tokens without an id are not even looked up.
fn ring() -> Arc<KeyRing> {
    Arc::new(KeyRing::new(StateReader::default()))
}

struct Keys {
    dir: tempfile::TempDir,
    ec: rcgen::KeyPair,
    ed: rcgen::KeyPair,
}

impl Keys {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ec = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let ed = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        fs::write(dir.path().join("hs"), format!("{SECRET}\n")).unwrap();
        fs::write(dir.path().join("ec"), ec.public_key_pem()).unwrap();
        fs::write(dir.path().join("ed"), ed.public_key_pem()).unwrap();
        Self { dir, ec, ed }
    }

    fn config(&self, keys: &[&str]) -> AuthConfig {
        let path = self.dir.path().display();
        let keys = keys.iter().map(|key| key.replace('@', &format!("{path}/"))).collect();
        AuthConfig { keys, ..AuthConfig::default() }
    }

    fn verifier(&self) -> Verifier {
        Verifier::new(&self.config(&["hs=HS256:@hs", "ec=ES256:@ec", "ed=EdDSA:@ed"])).unwrap()
    }
}

fn now() -> u64 {
    clock::unix_ms() / 1_000
}

fn claims() -> Value {
    json!({"sub": "zoe", "aud": "aintandem", "exp": now() + 60, "workspace": "w", "roles": ["developer"]})
}

fn signed(algorithm: Algorithm, kid: Option<&str>, key: &EncodingKey, claims: &Value) -> String {
    let header = Header { kid: kid.map(str::to_owned), ..Header::new(algorithm) };
    encode(&header, claims, key).unwrap()
}

fn hs(claims: &Value) -> String {
    signed(Algorithm::HS256, Some("hs"), &EncodingKey::from_secret(SECRET.as_bytes()), claims)
}

fn with(name: &str, value: Value) -> String {
    let mut claims = claims();
    claims[name] = value;
    hs(&claims)
}

#[test]
fn tokens_of_every_kind_of_key_are_accepted() {
    let keys = Keys::new();
    let verifier = keys.verifier();
    let ec = EncodingKey::from_ec_pem(keys.ec.serialize_pem().as_bytes()).unwrap();
    let ed = EncodingKey::from_ed_pem(keys.ed.serialize_pem().as_bytes()).unwrap();
    let tokens = [
        hs(&claims()),
        signed(Algorithm::ES256, Some("ec"), &ec, &claims()),
        signed(Algorithm::EdDSA, Some("ed"), &ed, &claims()),
    ];
    for token in &tokens {
        // Also from memory.
        for _ in 0..2 {
            let caller = verifier.verify(token, &ring()).unwrap();
            let identity = caller.identity();
            assert_eq!((identity.subject.as_str(), identity.workspace.as_deref()), ("zoe", Some("w")));
            assert_eq!(identity.roles, Roles::of(Role::Developer));
        }
    }
    let only = Verifier::new(&keys.config(&["hs=HS256:@hs"])).unwrap();
    let nameless = signed(Algorithm::HS256, None, &EncodingKey::from_secret(SECRET.as_bytes()), &claims());
    assert!(only.verify(&nameless, &ring()).is_ok(), "there is one key only");
    assert!(verifier.verify(&nameless, &ring()).unwrap_err().text.contains("kid"));
}

/// A token with a header of its own, signed as the algorithm there says or not at all.
fn forged(header: &Value, signature: &[u8]) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.{}", part(header), part(&claims()), URL_SAFE_NO_PAD.encode(signature))
}

#[test]
fn a_token_does_not_choose_its_algorithm() {
    let keys = Keys::new();
    let verifier = keys.verifier();
    let public = keys.ec.public_key_pem();
    // The public key, which everybody knows, taken for a secret.
    let confused = EncodingKey::from_secret(public.as_bytes());
    let trimmed = EncodingKey::from_secret(public.trim().as_bytes());
    let attacks = [
        forged(&json!({"alg": "none", "kid": "hs"}), b""),
        forged(&json!({"alg": "None", "kid": "ec"}), b""),
        forged(&json!({"alg": "none"}), b""),
        forged(&json!({"kid": "hs"}), b""),
        forged(&json!({"alg": "HS256", "kid": "hs"}), b""),
        forged(&json!({"alg": "HS256", "kid": "hs"}), &[0; 32]),
        forged(&json!({"alg": "HS256", "kid": "../hs"}), &[0; 32]),
        signed(Algorithm::HS256, Some("ec"), &confused, &claims()),
        signed(Algorithm::HS256, Some("ec"), &trimmed, &claims()),
        signed(Algorithm::HS384, Some("hs"), &EncodingKey::from_secret(SECRET.as_bytes()), &claims()),
        signed(
            Algorithm::HS256,
            Some("hs"),
            &EncodingKey::from_secret(b"another secret of the same length.."),
            &claims(),
        ),
        signed(Algorithm::HS256, Some("nobody"), &EncodingKey::from_secret(SECRET.as_bytes()), &claims()),
    ];
    for (number, token) in attacks.iter().enumerate() {
        assert_eq!(verifier.verify(token, &ring()).unwrap_err().reason, Reason::TokenInvalid, "attack {number}");
    }
}

#[test]
fn what_a_token_says_must_hold() {
    let verifier = Keys::new().verifier();
    let code =
        |token: String| verifier.verify(&token, &ring()).map_or_else(|rejection| rejection.reason.code(), |_| "OK");
    let late = now() - 31;
    for (name, value, expected) in [
        ("exp", json!(now() - 29), "OK"),
        ("exp", json!(late), "TOKEN_EXPIRED"),
        ("exp", Value::Null, "TOKEN_INVALID"),
        ("exp", json!("tomorrow"), "TOKEN_INVALID"),
        ("exp", json!(u64::MAX), "OK"),
        ("exp", json!(now() as f64 + 0.5), "OK"),
        ("exp", json!(-1), "TOKEN_EXPIRED"),
        ("nbf", json!(now() + 25), "OK"),
        ("nbf", json!(now() + 40), "TOKEN_NOT_YET_VALID"),
        ("aud", json!("somebody"), "TOKEN_INVALID"),
        ("aud", json!(["somebody", "aintandem"]), "OK"),
        ("aud", json!([]), "TOKEN_INVALID"),
        ("aud", Value::Null, "TOKEN_INVALID"),
        ("sub", json!(""), "TOKEN_INVALID"),
        ("sub", json!("x".repeat(129)), "TOKEN_INVALID"),
        ("workspace", json!("../w"), "TOKEN_INVALID"),
        ("workspace", Value::Null, "OK"),
        ("sandbox", json!("a"), "OK"),
        ("roles", json!(["sandbox"]), "TOKEN_INVALID"),
        ("roles", json!(["developer", "of a later version"]), "OK"),
        ("roles", json!("developer"), "TOKEN_INVALID"),
    ] {
        assert_eq!(code(with(name, value.clone())), expected, "{name} = {value}");
    }
    let nowhere = json!({"sub": "zoe", "aud": "aintandem", "exp": now() + 60, "sandbox": "a", "roles": ["sandbox"]});
    assert_eq!(code(hs(&nowhere)), "TOKEN_INVALID", "a sandbox of no workspace");
    let nothing = json!({"sub": "zoe", "aud": "aintandem", "exp": now() + 60});
    assert!(verifier.verify(&hs(&nothing), &ring()).unwrap().identity().roles.is_empty());
}

#[test]
fn an_issuer_that_is_asked_for_must_have_made_it() {
    let keys = Keys::new();
    let config = AuthConfig { issuer: "the lead".into(), ..keys.config(&["hs=HS256:@hs"]) };
    let verifier = Verifier::new(&config).unwrap();
    assert!(verifier.verify(&with("iss", json!("the lead")), &ring()).is_ok());
    assert!(verifier.verify(&with("iss", json!("the leader")), &ring()).is_err());
    assert!(verifier.verify(&hs(&claims()), &ring()).is_err());
}

#[test]
fn a_remembered_token_expires_like_any_other() {
    let verifier = Keys::new().verifier();
    let token = with("exp", json!(now() - 29));
    verifier.verify(&token, &ring()).unwrap();
    let mut outcome = verifier.verify(&token, &ring());
    for _ in 0..50 {
        if outcome.is_err() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
        outcome = verifier.verify(&token, &ring());
    }
    assert_eq!(outcome.unwrap_err().reason, Reason::TokenExpired);
}

#[test]
fn bytes_that_are_no_token_are_refused() {
    let verifier = Keys::new().verifier();
    let good = hs(&claims());
    for garbage in
        ["", ".", "..", "a.b.c", "\u{1F980}.x.y", &good[..good.len() - 4], &format!("{good}."), &"x".repeat(1 << 20)]
    {
        assert_eq!(verifier.verify(garbage, &ring()).unwrap_err().reason, Reason::TokenInvalid);
    }
    let mut bytes = good.clone().into_bytes();
    for place in 0..bytes.len() {
        let before = bytes[place];
        bytes[place] = if before == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(bytes.clone()).unwrap();
        assert!(verifier.verify(&changed, &ring()).is_err(), "byte {place}");
        bytes[place] = before;
    }
    let critical = Header { kid: Some("hs".into()), ..Header::new(Algorithm::HS256) };
    let mut header = serde_json::to_value(critical).unwrap();
    header["crit"] = json!(["b64"]);
    assert!(verifier.verify(&forged(&header, &[0; 32]), &ring()).unwrap_err().text.contains("crit"));
}

#[test]
fn keys_that_are_none_are_refused_at_the_start() {
    let keys = Keys::new();
    fs::write(keys.dir.path().join("short"), "too short").unwrap();
    for (key, text) in [
        ("a=HS256:@short", "32 bytes"),
        ("a=HS256:@ed", "not a key as PEM"),
        ("a=HS256:@nowhere", "No such file"),
        ("a=EdDSA:@hs", "PEM"),
        ("a=RS256:@ed", "PEM"),
        ("a=ES256:@ed", "PEM"),
    ] {
        let error = Verifier::new(&keys.config(&[key])).err().expect(key).to_string();
        assert!(error.contains(text) && error.contains("auth.keys"), "{error}");
    }
}
