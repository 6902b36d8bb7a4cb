//! `tandem token`.

use std::{fs, time::UNIX_EPOCH};

use jsonwebtoken::{Algorithm, EncodingKey, Header, errors::Error};
use serde_json::json;

use crate::{
    args::{CreateTokenArgs, TokenAlgorithm, TokenArgs, TokenCommand},
    clock,
    exit::Failure,
    run::Context,
};

pub(crate) fn run(context: &Context, args: &TokenArgs) -> Result<(), Failure> {
    let TokenCommand::Create(args) = &args.command;
    create(context, args)
}

fn create(context: &Context, args: &CreateTokenArgs) -> Result<(), Failure> {
    let failed = |text: String| Failure::failed("KEY_UNUSABLE", format!("{}: {text}", args.key_file.display()));
    let bytes = fs::read(&args.key_file).map_err(|error| failed(error.to_string()))?;
    let (algorithm, key) = key(args.algorithm, bytes.trim_ascii()).map_err(|error| failed(error.to_string()))?;
    let now_s = clock::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let expires_s = now_s.saturating_add(args.expires_in.as_secs());
    let mut claims = json!({
        "sub": args.subject, "aud": args.audience, "iat": now_s, "exp": expires_s,
        "roles": args.roles.iter().map(|role| role.name()).collect::<Vec<_>>(),
    });
    for (name, value) in [("workspace", &args.bind_workspace), ("sandbox", &args.bind_sandbox), ("iss", &args.issuer)] {
        if let Some(value) = value {
            claims[name] = json!(value);
        }
    }
    let header = Header { kid: Some(args.key_id.clone()), ..Header::new(algorithm) };
    let token = jsonwebtoken::encode(&header, &claims, &key).map_err(|error| failed(error.to_string()))?;
    context.output.result(|| json!({ "token": token, "claims": claims }), || token.clone())
}

fn key(algorithm: TokenAlgorithm, bytes: &[u8]) -> Result<(Algorithm, EncodingKey), Error> {
    Ok(match algorithm {
        TokenAlgorithm::Hs256 => (Algorithm::HS256, EncodingKey::from_secret(bytes)),
        TokenAlgorithm::Rs256 => (Algorithm::RS256, EncodingKey::from_rsa_pem(bytes)?),
        TokenAlgorithm::Es256 => (Algorithm::ES256, EncodingKey::from_ec_pem(bytes)?),
        TokenAlgorithm::EdDsa => (Algorithm::EdDSA, EncodingKey::from_ed_pem(bytes)?),
    })
}
