//! `/api-keys`: what programs show that stay the same for long.

use std::time::Duration;

use axum::{
    Extension, Json as JsonAnswer,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use futures_util::{TryStreamExt as _, future};
use serde::{Deserialize, Serialize};
use tandem_client::{Key, NewKey};
use utoipa::{IntoParams, ToSchema};

use super::{
    body::{Json, Path, Query},
    problem::{Problem, ProblemDocument},
    some, time,
};
use crate::{error::Failure, service::caller::Caller};

const DEFAULT_MOST: usize = 100;
const MAX_MOST: usize = 1_000;
/// The longest that a key holds which expires, in seconds: ten years.
const MAX_SECONDS: u64 = 3_660 * 86_400;

/// A key, without its secret.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ShownKey {
    /// Also how its secret begins, behind `tandem_`.
    id: String,
    subject: String,
    roles: Vec<String>,
    /// The only workspace that exists for it.
    #[serde(skip_serializing_if = "String::is_empty")]
    workspace_id: String,
    /// The only sandbox that it acts as.
    #[serde(skip_serializing_if = "String::is_empty")]
    sandbox_id: String,
    /// RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    create_time: Option<String>,
    /// Left out: it does not expire. RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    expire_time: Option<String>,
    /// To about a minute. RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    last_use_time: Option<String>,
    /// RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    revoke_time: Option<String>,
    created_by: String,
}

impl From<Key> for ShownKey {
    fn from(key: Key) -> Self {
        Self {
            id: key.key_id,
            subject: key.subject,
            roles: key.roles,
            workspace_id: key.workspace_id,
            sandbox_id: key.sandbox_id,
            create_time: time::of(key.create_time.as_ref()),
            expire_time: time::of(key.expire_time.as_ref()),
            last_use_time: time::of(key.last_use_time.as_ref()),
            revoke_time: time::of(key.revoke_time.as_ref()),
            created_by: key.created_by,
        }
    }
}

/// A key that is wanted.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateKey {
    /// Whose it is.
    #[schema(max_length = 128)]
    subject: String,
    /// What it may do.
    roles: Vec<String>,
    /// The only workspace that exists for it.
    workspace_id: Option<String>,
    /// The only sandbox that it acts as. Needs a workspace.
    sandbox_id: Option<String>,
    /// How long it holds. Unset: until it is revoked.
    #[schema(minimum = 1, maximum = 316_224_000)]
    expires_in_seconds: Option<u64>,
}

/// A key that was made.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct NewKeyMade {
    key: ShownKey,
    /// Told this once.
    secret: String,
}

/// Some keys.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct KeyList {
    api_keys: Vec<ShownKey>,
    /// There are more than were asked for.
    truncated: bool,
}

/// Which keys are wanted.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Wanted {
    /// Bound to this workspace.
    workspace_id: Option<String>,
    /// How many at most: 1 to 1,000.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<usize>,
}

/// Lists keys, revoked and expired ones too for 30 days.
#[utoipa::path(get, path = "/api-keys", operation_id = "list_api_keys", tag = "api-keys", params(Wanted), responses(
    (status = 200, description = "Those that there are", body = KeyList),
    (status = "default", description = "Why not", body = ProblemDocument, content_type = "application/problem+json"),
))]
pub(super) async fn list(
    Extension(caller): Extension<Caller>,
    Query(wanted): Query<Wanted>,
) -> Result<JsonAnswer<KeyList>, Problem> {
    let most = some::most(wanted.limit, DEFAULT_MOST, MAX_MOST)?;
    let fits = |key: &Key| wanted.workspace_id.as_ref().is_none_or(|workspace| *workspace == key.workspace_id);
    let found = caller.broker.keys().list().try_filter(|key| future::ready(fits(key)));
    let (api_keys, next) = some::first(most, found).await?;
    Ok(JsonAnswer(KeyList { api_keys, truncated: next.is_some() }))
}

/// Makes a key. Its secret is in the answer and nowhere else, so the answer is not remembered: this takes no idempotency key.
#[utoipa::path(post, path = "/api-keys", operation_id = "create_api_key", tag = "api-keys", request_body = CreateKey, responses(
    (status = 201, description = "The key, and its secret", body = NewKeyMade),
    (status = "default", description = "Why not", body = ProblemDocument, content_type = "application/problem+json"),
))]
pub(super) async fn create(
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    Json(wanted): Json<CreateKey>,
) -> Result<Response, Problem> {
    if headers.contains_key("idempotency-key") {
        let text =
            "an answer that holds a secret is not remembered; leave it out, and revoke a key whose secret was lost";
        return Err(Failure::field("Idempotency-Key", text).into());
    }
    if let Some(seconds) = wanted.expires_in_seconds.filter(|seconds| !(1..=MAX_SECONDS).contains(seconds)) {
        return Err(Failure::field("expires_in_seconds", format!("{seconds} is not 1 to {MAX_SECONDS}")).into());
    }
    let new = NewKey {
        subject: wanted.subject,
        roles: wanted.roles,
        workspace_id: wanted.workspace_id,
        sandbox_id: wanted.sandbox_id,
        expires_in: wanted.expires_in_seconds.map(Duration::from_secs),
    };
    let (key, secret) = caller.broker.keys().create(new).await.map_err(Failure::from)?;
    let made = NewKeyMade { key: key.into(), secret };
    Ok((StatusCode::CREATED, [(header::CACHE_CONTROL, "no-store")], JsonAnswer(made)).into_response())
}

/// Revokes a key; streams that were opened with it end within a second.
#[utoipa::path(delete, path = "/api-keys/{id}", operation_id = "revoke_api_key", tag = "api-keys",
    params(("id" = String, Path, description = "Its id")), responses(
    (status = 200, description = "As it is now", body = ShownKey),
    (status = "default", description = "Why not", body = ProblemDocument, content_type = "application/problem+json"),
))]
pub(super) async fn revoke(
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<JsonAnswer<ShownKey>, Problem> {
    Ok(JsonAnswer(caller.broker.keys().revoke(id).await.map_err(Failure::from)?.into()))
}
