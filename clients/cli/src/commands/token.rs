//! `tandem token`.

use std::{
    fs,
    path::Path,
    time::{Duration, UNIX_EPOCH},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use futures_util::TryStreamExt as _;
use jsonwebtoken::{Algorithm, EncodingKey, Header, errors::Error};
use prost_types::Timestamp;
use serde_json::{Value, json};
use tandem_client::{KnownToken, NewToken};

use crate::{
    args::{CreateTokenArgs, IssueTokenArgs, RevokeTokenArgs, TokenAlgorithm, TokenArgs, TokenCommand},
    clock,
    exit::Failure,
    output::{has_passed, time},
    replace::replace,
    run::Context,
};

/// As brokers ask for.
const MIN_SECRET_BYTES: usize = 32;
/// How long a token is remembered whose end nobody knows.
const YEAR: Duration = Duration::from_secs(366 * 86_400);
/// Between two tries to renew a token whose broker cannot be reached.
const TRY_AGAIN: Duration = Duration::from_secs(5);

pub(crate) async fn run(context: &Context, args: &TokenArgs) -> Result<(), Failure> {
    match &args.command {
        TokenCommand::Create(args) => create(context, args),
        TokenCommand::Issue(args) => issue(context, args).await,
        TokenCommand::Renew(args) if args.keep => keep(context).await,
        TokenCommand::Renew(_) => {
            let renewed = context.client()?.tokens().renew().await?;
            let expire_time = time(renewed.expire_time);
            context.output.note(&format!("it holds until {expire_time}"));
            let told = || json!({ "token": renewed.signed, "expire_time": expire_time });
            context.output.result(told, || renewed.signed.clone())
        }
        TokenCommand::List => {
            let tokens: Vec<KnownToken> = context.client()?.tokens().list().try_collect().await?;
            let rows: Vec<_> = tokens.iter().map(|token| (told(token), row(token))).collect();
            context.output.rows(&["TOKEN", "SUBJECT", "ROLES", "BOUND TO", "STATE", "UNTIL", "MADE BY"], &rows)
        }
        TokenCommand::Revoke(args) => revoke(context, args).await,
    }
}

async fn issue(context: &Context, args: &IssueTokenArgs) -> Result<(), Failure> {
    let wanted = NewToken {
        subject: args.subject.clone(),
        roles: args.roles.iter().map(|role| role.name().to_owned()).collect(),
        workspace_id: args.bind_workspace.clone(),
        sandbox_id: args.bind_sandbox.clone(),
        lifetime: Some(args.lifetime),
        // What holds for longer than it can be renewed is not renewed.
        renewable_for: Some(args.renewable_for.max(args.lifetime)),
    };
    let (token, renewed) = context.client()?.tokens().create(wanted).await?;
    let (expire_time, end_time) = (time(renewed.expire_time), time(token.end_time));
    context
        .output
        .note(&format!("token {}: it holds until {expire_time}, and can be renewed until {end_time}", token.token_id));
    let told = || {
        let mut told = told(&token);
        told["token"] = json!(renewed.signed);
        told["expire_time"] = json!(expire_time);
        told
    };
    context.output.result(told, || renewed.signed.clone())
}

/// Renews the token in its file for as long as that goes.
async fn keep(context: &Context) -> Result<(), Failure> {
    let Some(file) = &context.token_file else {
        return Err(Failure::Usage("say where the token is that is to be kept fresh: --token-file FILE".to_owned()));
    };
    let tokens = context.client()?.tokens();
    loop {
        let pause = match tokens.renew().await {
            Ok(renewed) => {
                let failed = |error| Failure::failed("TOKEN_NOT_WRITTEN", format!("{}: {error}", file.display()));
                replace(file, format!("{}\n", renewed.signed).as_bytes()).map_err(failed)?;
                context.output.note(&format!("renewed; it holds until {}", time(renewed.expire_time)));
                left(renewed.expire_time) * 2 / 3
            }
            Err(error) if error.is_retryable() => {
                context.output.note(&format!("not renewed yet: {error}"));
                TRY_AGAIN
            }
            Err(error) => return Err(error.into()),
        };
        tokio::time::sleep(pause.max(Duration::from_secs(1))).await;
    }
}

fn left(expire_time: Option<Timestamp>) -> Duration {
    let now_s = clock::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let expires_s = expire_time.map_or(0, |time| u64::try_from(time.seconds).unwrap_or(0));
    Duration::from_secs(expires_s.saturating_sub(now_s))
}

async fn revoke(context: &Context, args: &RevokeTokenArgs) -> Result<(), Failure> {
    let (id, issuer, end_time) = match (&args.id, &args.token) {
        (Some(id), _) => {
            let year = args.made_elsewhere.then(|| Timestamp::from(clock::now() + YEAR));
            (id.clone(), args.issuer.clone().unwrap_or_default(), year)
        }
        (None, Some(file)) => {
            let failed = |text: String| Failure::failed("TOKEN_UNUSABLE", format!("{}: {text}", file.display()));
            let text = fs::read_to_string(file).map_err(|error| failed(error.to_string()))?;
            let claims = claims(text.trim()).ok_or_else(|| failed("it is no token".to_owned()))?;
            let id =
                claims["jti"].as_str().ok_or_else(|| failed("it has no id (jti), and cannot be revoked".to_owned()))?;
            // A float, as others write it, is as good.
            let end_time = claims["exp"].as_f64().map(|exp| Timestamp { seconds: exp as i64 + 300, nanos: 0 });
            (id.to_owned(), args.issuer.clone().unwrap_or_default(), end_time)
        }
        (None, None) => return Err(Failure::Usage("say which token: TOKEN_ID, or --token FILE".to_owned())),
    };
    let token = context.client()?.tokens().revoke(id, issuer, end_time).await?;
    context.output.result(|| told(&token), || format!("token {} revoked", token.token_id))
}

/// What a token says; nobody has looked whether it is true.
fn claims(token: &str) -> Option<Value> {
    let part = token.split('.').nth(1)?;
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}

/// How long the token of a file holds in all, as it says itself; None: it does not, or is none, but a key.
pub(super) fn lifetime(file: &Path) -> Option<Duration> {
    let claims = claims(fs::read_to_string(file).ok()?.trim())?;
    Duration::try_from_secs_f64(claims["exp"].as_f64()? - claims["iat"].as_f64()?).ok()
}

fn told(token: &KnownToken) -> Value {
    json!({
        "token_id": token.token_id, "subject": token.subject, "roles": token.roles, "workspace_id": token.workspace_id,
        "sandbox_id": token.sandbox_id, "create_time": time(token.create_time), "end_time": time(token.end_time),
        "lifetime_s": token.lifetime.map(|lifetime| lifetime.seconds), "revoke_time": time(token.revoke_time),
        "created_by": token.created_by, "issuer": token.issuer,
    })
}

fn row(token: &KnownToken) -> Vec<String> {
    let bound = match (token.workspace_id.as_str(), token.sandbox_id.as_str()) {
        _ if token.lifetime.is_none() => String::new(),
        ("", _) => "nothing".to_owned(),
        (workspace, "") => workspace.to_owned(),
        (workspace, sandbox) => format!("{workspace}/{sandbox}"),
    };
    let state = match (token.revoke_time, token.end_time) {
        (Some(_), _) => "revoked",
        (None, end) if has_passed(end) => "ended",
        _ => "holds",
    };
    vec![
        token.token_id.clone(),
        token.subject.clone(),
        token.roles.join(", "),
        bound,
        state.to_owned(),
        time(token.end_time),
        token.created_by.clone(),
    ]
}

fn create(context: &Context, args: &CreateTokenArgs) -> Result<(), Failure> {
    let wrong = if args.subject.is_empty() || args.subject.len() > 128 {
        Some("--subject must have 1 to 128 bytes")
    } else if args.expires_in.as_secs() == 0 {
        Some("--expires-in must be 1s or more: the token would never hold")
    } else if args.roles.iter().any(|role| role.name() == "sandbox") && args.bind_sandbox.is_none() {
        Some("the role sandbox needs the sandbox that the token acts as: --bind-workspace and --bind-sandbox")
    } else {
        None
    };
    if let Some(text) = wrong {
        return Err(Failure::usage(text));
    }
    let failed = |text: String| Failure::failed("KEY_UNUSABLE", format!("{}: {text}", args.key_file.display()));
    let bytes = fs::read(&args.key_file).map_err(|error| failed(error.to_string()))?;
    if args.algorithm == TokenAlgorithm::Hs256 && bytes.trim_ascii().len() < MIN_SECRET_BYTES {
        return Err(failed(format!("a secret for HS256 has {MIN_SECRET_BYTES} bytes or more, or no broker takes it")));
    }
    let (algorithm, key) = key(args.algorithm, bytes.trim_ascii()).map_err(|error| failed(error.to_string()))?;
    let now_s = clock::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let expires_s = now_s.saturating_add(args.expires_in.as_secs());
    let mut claims = json!({
        "jti": clock::new_id(), "sub": args.subject, "aud": args.audience, "iat": now_s, "exp": expires_s,
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
