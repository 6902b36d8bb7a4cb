//! API keys. All of them are kept by shard 0, so its leader answers.

use std::time::Duration;

use tandem_proto::key::v1::{
    CreateKeyRequest, CreateKeyResponse, Key, ListKeysRequest, ListKeysResponse, ReportKeyUseRequest,
    ReportKeyUseResponse, RevokeKeyRequest, RevokeKeyResponse, key_service_client::KeyServiceClient,
    key_service_server::KeyService,
};
use tonic::{Request, Response, Status};

use super::{
    Edge,
    time::{milliseconds, timestamp},
};
use crate::{
    auth::{
        Caller, Identity, Role, Roles,
        api_keys::{self, KeyRing, NewKey},
    },
    clock,
    cluster::Place,
    command::{CreateKey, KeysUsed, Outcome, RevokeKey, Verb},
    error::RequestError,
    field,
    machine::api_key::ApiKey,
    rejection::{Reason, Rejection},
    shard::Shard,
};

/// The longest time that a key may hold, in milliseconds: 10 years.
const MAX_LIFE_MS: u64 = 10 * 366 * 24 * 3_600_000;
/// How often a node says which keys were used.
const REPORT_EVERY: Duration = Duration::from_secs(30);
/// Keys in one report.
const MAX_REPORTED: usize = 10_000;

#[tonic::async_trait]
impl KeyService for Edge {
    async fn create_key(&self, request: Request<CreateKeyRequest>) -> Result<Response<CreateKeyResponse>, Status> {
        let caller = Caller::of(&request)?;
        if self.door.is_open() {
            let text = "everybody may do everything here (auth.open), so anybody could make keys for later; set auth.keys first";
            return Err(Rejection::new(Reason::BrokerOpen, text).into());
        }
        let request = request.into_inner();
        let lives_ms = milliseconds("expires_in", request.expires_in, 1_000..=MAX_LIFE_MS)?;
        let (subject, workspace, sandbox) = (&request.subject, &request.workspace_id, &request.sandbox_id);
        let roles = roles(&caller, &Wanted { subject, roles: &request.roles, workspace, sandbox })?;
        let drawn = NewKey::draw();
        let verb = CreateKey {
            id: drawn.id,
            hash: drawn.hash,
            subject: request.subject,
            roles: roles.bits(),
            workspace: request.workspace_id,
            sandbox: request.sandbox_id,
            expires_ms: lives_ms.map_or(0, |lives_ms| clock::unix_ms() + lives_ms),
            by: caller.identity().subject.clone(),
            max_keys: self.limits.max_api_keys,
        };
        let shard = self.first_shard()?;
        match shard.batcher.call(caller.asks(Verb::CreateKey(verb)), 0).await? {
            Outcome::CreateKey(result) => result?,
            other => return Err(RequestError::internal(format!("a key came to {other:?}")).into()),
        }
        let key = read(shard, drawn.id)?;
        Ok(Response::new(CreateKeyResponse { key: Some(key), secret: drawn.secret }))
    }

    async fn list_keys(&self, request: Request<ListKeysRequest>) -> Result<Response<ListKeysResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let limit = field::page_size(request.page_size)?;
        let behind = match request.page_token.as_str() {
            "" => None,
            token => Some(api_keys::id_of(token).ok_or_else(|| {
                let text = "page_token is not from a listing of keys";
                Rejection {
                    reason: Reason::InvalidPageToken,
                    text: text.into(),
                    field: "page_token".into(),
                    retry_ms: 0,
                }
            })?),
        };
        let shard = self.first_shard()?;
        shard.group.read_barrier().await.map_err(RequestError::from)?;
        let mut found = shard.reader.api_keys_behind(behind, caller.identity().workspace.as_deref(), limit + 1)?;
        let more = found.len() > limit;
        found.truncate(limit);
        let last = found.last().filter(|_| more);
        let next_page_token = last.map(|(id, _)| api_keys::shown(*id)).unwrap_or_default();
        let keys = found.into_iter().map(|(id, key)| on_wire(id, key)).collect();
        Ok(Response::new(ListKeysResponse { keys, next_page_token }))
    }

    async fn revoke_key(&self, request: Request<RevokeKeyRequest>) -> Result<Response<RevokeKeyResponse>, Status> {
        let caller = Caller::of(&request)?;
        let text = request.into_inner().key_id;
        let id = api_keys::id_of(&text).ok_or_else(|| {
            Rejection::field("key_id", format!("{:?} is no id of a key: 16 hex digits", field::shown(&text)))
        })?;
        let workspace = caller.identity().workspace.clone().unwrap_or_default();
        let shard = self.first_shard()?;
        match shard.batcher.call(caller.asks(Verb::RevokeKey(RevokeKey { id, workspace })), 0).await? {
            Outcome::RevokeKey(result) => result?,
            other => return Err(RequestError::internal(format!("a revocation came to {other:?}")).into()),
        }
        Ok(Response::new(RevokeKeyResponse { key: Some(read(shard, id)?) }))
    }

    async fn report_key_use(
        &self,
        request: Request<ReportKeyUseRequest>,
    ) -> Result<Response<ReportKeyUseResponse>, Status> {
        let caller = Caller::of(&request)?;
        if caller.identity().workspace.is_some() {
            let text = "this is for those who are bound to no workspace";
            return Err(Rejection::new(Reason::OtherWorkspace, text).into());
        }
        let ids = request.into_inner().key_ids;
        if ids.len() > MAX_REPORTED {
            let text = format!("there are {} ids; at most {MAX_REPORTED} are taken", ids.len());
            return Err(Rejection::field("key_ids", text).into());
        }
        self.tell_use(ids).await?;
        Ok(Response::new(ReportKeyUseResponse {}))
    }
}

impl Edge {
    /// Where keys are kept.
    pub(super) fn first_shard(&self) -> Result<&Shard, RequestError> {
        self.shards.iter().next().ok_or_else(|| RequestError::internal("there is no shard".to_owned()))
    }

    async fn tell_use(&self, ids: Vec<u64>) -> Result<(), RequestError> {
        let bytes = ids.len() * size_of::<u64>();
        match self.first_shard()?.batcher.call(Verb::KeysUsed(KeysUsed { ids }), bytes).await? {
            Outcome::KeysUsed(result) => Ok(result?),
            other => Err(RequestError::internal(format!("a use came to {other:?}"))),
        }
    }

    /// Says now and then which keys were used here, for as long as the node runs.
    pub(crate) async fn report_key_use_of(self, ring: std::sync::Arc<KeyRing>) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(REPORT_EVERY) => {}
                () = self.stopped() => return,
            }
            let mut ids = ring.take_used();
            let rest = ids.split_off(ids.len().min(MAX_REPORTED));
            ring.not_told(rest);
            if !ids.is_empty() && !self.report(ids.clone()).await {
                ring.not_told(ids);
            }
        }
    }

    async fn report(&self, ids: Vec<u64>) -> bool {
        let Some(routing) = &self.routing else { return self.tell_use(ids).await.is_ok() };
        match routing.place(0).await {
            Ok(Place::Here) => self.tell_use(ids).await.is_ok(),
            Ok(Place::There { channel, .. }) => {
                let subject = format!("node {}", self.info.node_id);
                let roles = Roles::of(Role::Admin);
                let node = Caller::new(Identity { subject, roles, workspace: None, sandbox: None, ends_s: None });
                let mut request = Request::new(ReportKeyUseRequest { key_ids: ids });
                self.vouch(&node, request.metadata_mut());
                KeyServiceClient::new(channel).report_key_use(request).await.is_ok()
            }
            Err(_) => false,
        }
    }
}

/// What a new key or token is to be.
pub(super) struct Wanted<'a> {
    pub(super) subject: &'a str,
    pub(super) roles: &'a [String],
    pub(super) workspace: &'a str,
    pub(super) sandbox: &'a str,
}

/// The roles of a new key or token, if the caller may give them.
pub(super) fn roles(caller: &Caller, wanted: &Wanted<'_>) -> Result<Roles, Rejection> {
    let own = caller.identity();
    if own.sandbox.is_some() {
        let text = format!("{:?} is bound to a sandbox, and makes no keys and no tokens", own.subject);
        return Err(Rejection::new(Reason::OtherSandbox, text));
    }
    if let Some(workspace) = own.workspace.as_ref().filter(|workspace| workspace.as_str() != wanted.workspace) {
        let text = format!("{:?} is bound to workspace {workspace:?}, and so is what he makes", own.subject);
        return Err(Rejection { reason: Reason::OtherWorkspace, text, field: "workspace_id".into(), retry_ms: 0 });
    }
    if wanted.subject.is_empty() {
        return Err(Rejection::field("subject", "subject is empty; say whose it is"));
    }
    field::name("subject", wanted.subject)?;
    let parsed: Result<Roles, _> = wanted.roles.iter().map(|role| role.parse::<Role>()).collect();
    let roles = parsed.map_err(|error| Rejection::field("roles", error.to_string()))?;
    if roles.is_empty() {
        return Err(Rejection::field("roles", "roles is empty, and it could do nothing"));
    }
    if !wanted.workspace.is_empty() {
        field::id("workspace_id", wanted.workspace)?;
    }
    if !wanted.sandbox.is_empty() {
        field::id("sandbox_id", wanted.sandbox)?;
        if wanted.workspace.is_empty() {
            return Err(Rejection::field("workspace_id", "what is bound to a sandbox needs its workspace"));
        }
    }
    if roles.meets(Roles::of(Role::Sandbox)) && wanted.sandbox.is_empty() {
        return Err(Rejection::field("sandbox_id", "the role sandbox needs the sandbox that it acts as"));
    }
    Ok(roles)
}

fn read(shard: &Shard, id: u64) -> Result<Key, RequestError> {
    let key = shard.reader.api_key(id)?.ok_or_else(|| Rejection::unknown_key(id))?;
    Ok(on_wire(id, key))
}

fn on_wire(id: u64, key: ApiKey) -> Key {
    let time = |at_ms: u64| Some(at_ms).filter(|at_ms| *at_ms > 0).map(timestamp);
    Key {
        key_id: api_keys::shown(id),
        subject: key.subject,
        roles: Roles::from_bits(key.roles).iter().map(|role| role.name().to_owned()).collect(),
        workspace_id: key.workspace,
        sandbox_id: key.sandbox,
        create_time: time(key.create_ms),
        expire_time: time(key.expires_ms),
        last_use_time: time(key.used_ms),
        revoke_time: time(key.revoked_ms),
        created_by: key.by,
    }
}
