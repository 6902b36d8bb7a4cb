//! Tokens that the broker signs, and the end of those that others do. What is known of them is kept by shard 0; to renew one takes
//! nothing but this node.

use tandem_proto::token::v1::{
    CreateTokenRequest, CreateTokenResponse, ListTokensRequest, ListTokensResponse, RenewTokenRequest,
    RenewTokenResponse, RevokeTokenRequest, RevokeTokenResponse, Token, token_service_server::TokenService,
};
use tonic::{Request, Response, Status};

use super::{
    Edge,
    keys::{Wanted, roles},
    time::{duration, milliseconds, timestamp, unix_ms},
};
use crate::{
    auth::{
        Caller, Roles,
        issue::{Claims, Signer},
    },
    clock,
    command::{CreateToken, Outcome, RevokeToken, Verb},
    error::RequestError,
    field,
    machine::token::{TokenRecord, hash_of},
    random,
    rejection::{Reason, Rejection},
    shard::Shard,
};

const MINUTE_MS: u64 = 60_000;
const DAY_MS: u64 = 24 * 60 * MINUTE_MS;
/// How long one token holds where nothing is said.
const LIFE_MS: u64 = 15 * MINUTE_MS;
/// For how long it can be renewed where nothing is said.
const RENEWABLE_MS: u64 = 30 * DAY_MS;
/// The longest that a token is renewed, and that a revoked one is remembered whose end nobody says.
const YEAR_MS: u64 = 366 * DAY_MS;

#[tonic::async_trait]
impl TokenService for Edge {
    async fn create_token(
        &self,
        request: Request<CreateTokenRequest>,
    ) -> Result<Response<CreateTokenResponse>, Status> {
        let caller = Caller::of(&request)?;
        if self.door.is_open() {
            let text = "everybody may do everything here (auth.open), so nobody needs a token; set auth.keys first";
            return Err(Rejection::new(Reason::BrokerOpen, text).into());
        }
        let request = request.into_inner();
        let life_ms = milliseconds("lifetime", request.lifetime, 10_000..=DAY_MS)?.unwrap_or(LIFE_MS);
        let renewable_ms = milliseconds("renewable_for", request.renewable_for, life_ms..=YEAR_MS)?;
        let (subject, workspace, sandbox) = (&request.subject, &request.workspace_id, &request.sandbox_id);
        let roles = roles(&caller, &Wanted { subject, roles: &request.roles, workspace, sandbox })?;
        let signer = self.signer()?;
        let token_id = format!("{:016x}{:016x}", random::id(), random::id());
        let now_ms = clock::unix_ms();
        let verb = CreateToken {
            token_id: token_id.clone(),
            subject: request.subject,
            roles: roles.bits(),
            workspace: request.workspace_id,
            sandbox: request.sandbox_id,
            life_ms,
            ends_ms: now_ms + renewable_ms.unwrap_or(RENEWABLE_MS.max(life_ms)),
            by: caller.identity().subject.clone(),
            max_tokens: self.limits.max_tokens,
        };
        let shard = self.first_shard()?;
        match shard.batcher.call(caller.asks(Verb::CreateToken(verb)), 0).await? {
            Outcome::CreateToken(result) => result?,
            other => return Err(RequestError::internal(format!("a token came to {other:?}")).into()),
        }
        let record = read(shard, "", &token_id)?;
        let (signed, expires_ms) = sign(signer, &record)?;
        let expire_time = Some(timestamp(expires_ms));
        Ok(Response::new(CreateTokenResponse { token: Some(on_wire(record)), signed, expire_time }))
    }

    async fn renew_token(&self, request: Request<RenewTokenRequest>) -> Result<Response<RenewTokenResponse>, Status> {
        let caller = Caller::of(&request)?;
        let signer = self.signer()?;
        let not_ours = || {
            let text =
                "only a token that this broker has made can be renewed; ask whoever has made this one for another";
            Rejection::new(Reason::TokenNotRenewable, text)
        };
        let found = caller.token().map(|hash| self.door.keys().token(hash)).transpose()?.flatten();
        let record = found.filter(|record| record.life_ms > 0).ok_or_else(not_ours)?;
        let (signed, expires_ms) = sign(signer, &record)?;
        let (expire_time, end_time) = (Some(timestamp(expires_ms)), Some(timestamp(record.ends_ms)));
        Ok(Response::new(RenewTokenResponse { signed, expire_time, end_time }))
    }

    async fn list_tokens(&self, request: Request<ListTokensRequest>) -> Result<Response<ListTokensResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let limit = field::page_size(request.page_size)?;
        let behind = match request.page_token.as_str() {
            "" => None,
            token => Some(u128::from_str_radix(token, 16).map_err(|_| Rejection {
                reason: Reason::InvalidPageToken,
                text: "page_token is not from a listing of tokens".into(),
                field: "page_token".into(),
                retry_ms: 0,
            })?),
        };
        let shard = self.first_shard()?;
        shard.group.read_barrier().await.map_err(RequestError::from)?;
        let (found, next) = shard.reader.tokens_behind(behind, caller.identity().workspace.as_deref(), limit)?;
        let next_page_token = next.map(|hash| format!("{hash:032x}")).unwrap_or_default();
        let tokens = found.into_iter().map(|(_, record)| on_wire(record)).collect();
        Ok(Response::new(ListTokensResponse { tokens, next_page_token }))
    }

    async fn revoke_token(
        &self,
        request: Request<RevokeTokenRequest>,
    ) -> Result<Response<RevokeTokenResponse>, Status> {
        let caller = Caller::of(&request)?;
        let RevokeTokenRequest { token_id, issuer, end_time } = request.into_inner();
        for (name, value) in [("token_id", &token_id), ("issuer", &issuer)] {
            field::name(name, value)?;
            if value.contains(char::is_control) {
                return Err(Rejection::field(name, format!("{name} has characters that nobody can see")).into());
            }
        }
        if token_id.is_empty() {
            return Err(Rejection::field("token_id", "token_id is empty; it is what the token says in jti").into());
        }
        let now_ms = clock::unix_ms();
        // It is remembered for no longer than it is worth, and for no shorter.
        let ends_ms = match unix_ms("end_time", end_time)? {
            Some(ends_ms) => ends_ms.clamp(now_ms + MINUTE_MS, now_ms + 10 * YEAR_MS),
            None if !issuer.is_empty() => now_ms + YEAR_MS,
            // One of those that the broker has made: what is none of them is a mistake most likely.
            None => 0,
        };
        let verb = RevokeToken {
            token_id: token_id.clone(),
            issuer: issuer.clone(),
            workspace: caller.identity().workspace.clone().unwrap_or_default(),
            ends_ms,
            by: caller.identity().subject.clone(),
            max_tokens: self.limits.max_tokens,
        };
        let shard = self.first_shard()?;
        match shard.batcher.call(caller.asks(Verb::RevokeToken(verb)), 0).await? {
            Outcome::RevokeToken(result) => result?,
            other => return Err(RequestError::internal(format!("a revocation came to {other:?}")).into()),
        }
        Ok(Response::new(RevokeTokenResponse { token: Some(on_wire(read(shard, &issuer, &token_id)?)) }))
    }
}

impl Edge {
    fn signer(&self) -> Result<&Signer, Rejection> {
        self.door.signer().ok_or_else(|| {
            let text = "the broker signs no tokens; set auth.signing_key, or make one with `tandem token create`";
            Rejection::new(Reason::NoSigningKey, text)
        })
    }
}

/// The newest token of a record, and when it ends.
fn sign(signer: &Signer, record: &TokenRecord) -> Result<(String, u64), RequestError> {
    let now_ms = clock::unix_ms();
    if record.ends_ms <= now_ms {
        let text = "the token cannot be renewed any more; have another one made";
        return Err(Rejection::new(Reason::TokenExpired, text).into());
    }
    let expires_ms = (now_ms + record.life_ms).min(record.ends_ms);
    let TokenRecord { token_id, subject, workspace, sandbox, .. } = record;
    let roles = Roles::from_bits(record.roles);
    let signed = signer.sign(&Claims { token_id, subject, roles, workspace, sandbox, expires_ms })?;
    Ok((signed, expires_ms))
}

fn read(shard: &Shard, issuer: &str, token_id: &str) -> Result<TokenRecord, RequestError> {
    let found = shard.reader.token(hash_of(issuer, token_id))?;
    Ok(found.ok_or_else(|| Rejection::unknown_token(token_id))?)
}

fn on_wire(record: TokenRecord) -> Token {
    let time = |at_ms: u64| Some(at_ms).filter(|at_ms| *at_ms > 0).map(timestamp);
    Token {
        token_id: record.token_id,
        subject: record.subject,
        roles: Roles::from_bits(record.roles).iter().map(|role| role.name().to_owned()).collect(),
        workspace_id: record.workspace,
        sandbox_id: record.sandbox,
        create_time: time(record.create_ms),
        end_time: time(record.ends_ms),
        lifetime: Some(record.life_ms).filter(|life_ms| *life_ms > 0).map(duration),
        revoke_time: time(record.revoked_ms),
        created_by: record.by,
        issuer: record.issuer,
    }
}
