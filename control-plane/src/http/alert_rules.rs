//! `/alerts/rules`: what makes an alert fire, and whom it tells.

use axum::{
    Extension, Json as JsonAnswer,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse as _, Response},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    Edge,
    body::{Json, Path, Query},
    precondition,
    problem::{Problem, ProblemDocument},
    tagged, time,
};
use crate::{
    error::Failure,
    secrets::Secret,
    service::{
        alert::{AlertEvent, Condition, RuleDocument, Severity},
        alerts::{ConditionChanges, NewRule, RuleChanges, WebhookChanges},
        caller::Caller,
        listing::ListingWithin,
        patch::Patch,
        scoped,
    },
    store::Resource,
};

/// What makes an alert fire.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AlertRule {
    id: String,
    workspace_id: String,
    name: String,
    enabled: bool,
    condition: Condition,
    severity: Severity,
    /// For so long after it has fired, what fits is counted in the same alert.
    quiet_seconds: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    webhook: Option<ShownWebhook>,
    /// One more with each change; the tag (`ETag`) says the same.
    revision: i64,
    /// RFC 3339.
    #[schema(format = DateTime)]
    create_time: String,
    /// RFC 3339.
    #[schema(format = DateTime)]
    update_time: String,
}

/// Whom a rule tells.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ShownWebhook {
    url: String,
    /// Always true; the secret itself is never shown.
    has_secret: bool,
}

/// Some rules.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AlertRuleList {
    rules: Vec<AlertRule>,
    /// For the next page; left out on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// Where a webhook is, and what signs what it hears.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateWebhook {
    /// `https`; on the machine of the control plane, where that is allowed, also `http`.
    #[schema(max_length = 2048)]
    url: String,
    /// `whsec_` and base64 of 24 to 64 bytes. Kept sealed, and never shown.
    #[schema(value_type = String, write_only)]
    secret: Secret,
}

fn yes() -> bool {
    true
}

const QUIET_SECONDS: u64 = 300;

fn quiet_seconds() -> u64 {
    QUIET_SECONDS
}

/// A rule that is wanted.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateAlertRule {
    #[schema(max_length = 128)]
    workspace_id: String,
    /// No two of a workspace have the same.
    #[schema(min_length = 1, max_length = 100)]
    name: String,
    #[serde(default = "yes")]
    #[schema(default = true)]
    enabled: bool,
    condition: Condition,
    /// Unset: `warning`.
    #[serde(default)]
    severity: Severity,
    /// For so long after it has fired, what fits is counted in the same alert.
    #[serde(default = "quiet_seconds")]
    #[schema(maximum = 86_400, default = 300)]
    quiet_seconds: u64,
    webhook: Option<CreateWebhook>,
}

/// What is to change of a condition.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct UpdateCondition {
    event: Option<AlertEvent>,
    /// Null: about any.
    #[serde(default)]
    #[schema(value_type = Option<String>, max_length = 128)]
    sandbox_id: Patch<String>,
    #[schema(minimum = 1, maximum = 10_000)]
    count: Option<u64>,
    #[schema(minimum = 1, maximum = 86_400)]
    window_seconds: Option<u64>,
}

/// What is to change of a webhook.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct UpdateWebhook {
    #[schema(max_length = 2048)]
    url: Option<String>,
    #[schema(value_type = Option<String>, write_only)]
    secret: Option<Secret>,
}

/// What is to change (JSON Merge Patch, RFC 7396): what is not there stays. A rule with another condition, or one that is enabled again,
/// begins with what happens from now on.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct UpdateAlertRule {
    #[schema(min_length = 1, max_length = 100)]
    name: Option<String>,
    enabled: Option<bool>,
    #[serde(default)]
    condition: UpdateCondition,
    severity: Option<Severity>,
    #[schema(maximum = 86_400)]
    quiet_seconds: Option<u64>,
    /// Null takes it away.
    #[serde(default)]
    #[schema(value_type = Option<UpdateWebhook>)]
    webhook: Patch<UpdateWebhook>,
}

fn shown(row: Resource) -> Result<AlertRule, Failure> {
    let document: RuleDocument = scoped::document(&row)?;
    Ok(AlertRule {
        id: row.id,
        workspace_id: row.scope,
        name: row.name,
        enabled: document.enabled,
        condition: document.condition,
        severity: document.severity,
        quiet_seconds: document.quiet_seconds,
        webhook: document.webhook.map(|webhook| ShownWebhook { url: webhook.url, has_secret: true }),
        revision: row.revision,
        create_time: time::of_ms(row.create_ms),
        update_time: time::of_ms(row.update_ms),
    })
}

/// Lists the rules of a workspace, or of all that the caller may see.
#[utoipa::path(get, path = "/alerts/rules", operation_id = "list_alert_rules", tag = "alerts", params(ListingWithin), responses(
    (status = 200, description = "A page of them", body = AlertRuleList),
    (status = "default", description = "Why not", body = ProblemDocument, content_type = "application/problem+json"),
))]
pub(super) async fn list(
    State(edge): State<Edge>,
    Extension(caller): Extension<Caller>,
    Query(listing): Query<ListingWithin>,
) -> Result<JsonAnswer<AlertRuleList>, Problem> {
    let (workspace, wanted) = listing.read()?;
    let (rows, next_cursor) = edge.alerts.rules().list(&caller, workspace.as_deref(), &wanted).await?;
    let rules = rows.into_iter().map(shown).collect::<Result<_, _>>()?;
    Ok(JsonAnswer(AlertRuleList { rules, next_cursor }))
}

/// Sets a rule up. What happens from now on counts.
#[utoipa::path(post, path = "/alerts/rules", operation_id = "create_alert_rule", tag = "alerts",
    params(("Idempotency-Key" = Option<String>, Header, description = "A request that is sent again with it does nothing, and is answered as the first time, for a day")),
    request_body = CreateAlertRule, responses(
    (status = 201, description = "It is there", body = AlertRule),
    (status = "default", description = "Why not", body = ProblemDocument, content_type = "application/problem+json"),
))]
pub(super) async fn create(
    State(edge): State<Edge>,
    Extension(caller): Extension<Caller>,
    Json(wanted): Json<CreateAlertRule>,
) -> Result<Response, Problem> {
    let CreateAlertRule { workspace_id: workspace, name, enabled, condition, severity, quiet_seconds, webhook } =
        wanted;
    let webhook = webhook.map(|webhook| (webhook.url, webhook.secret));
    let new = NewRule { workspace, name, enabled, condition, severity, quiet_seconds, webhook };
    let row = edge.alerts.create_rule(&caller, new).await?;
    tagged::created("alerts/rules", row.id.clone(), row.revision, shown(row)?)
}

/// Returns a rule.
#[utoipa::path(get, path = "/alerts/rules/{id}", operation_id = "get_alert_rule", tag = "alerts",
    params(("id" = String, Path, description = "Its id"),
        ("If-None-Match" = Option<String>, Header, description = "The tag of what is known already")), responses(
    (status = 200, description = "It", body = AlertRule),
    (status = 304, description = "It is what is known already"),
    (status = "default", description = "Why not", body = ProblemDocument, content_type = "application/problem+json"),
))]
pub(super) async fn get(
    State(edge): State<Edge>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let row = edge.alerts.rules().get(&caller, &id).await?;
    tagged::read(&headers, row.revision, shown(row)?)
}

/// Changes parts of a rule.
#[utoipa::path(patch, path = "/alerts/rules/{id}", operation_id = "update_alert_rule", tag = "alerts",
    params(("id" = String, Path, description = "Its id"),
        ("If-Match" = Option<String>, Header, description = "The tag of what was seen; it is not changed if it is another one by now")),
    request_body(content((UpdateAlertRule = "application/merge-patch+json"), (UpdateAlertRule = "application/json"))), responses(
    (status = 200, description = "As it is now", body = AlertRule),
    (status = "default", description = "Why not", body = ProblemDocument, content_type = "application/problem+json"),
))]
pub(super) async fn patch(
    State(edge): State<Edge>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    headers: HeaderMap,
    Json(wanted): Json<UpdateAlertRule>,
) -> Result<Response, Problem> {
    let UpdateCondition { event, sandbox_id, count, window_seconds } = wanted.condition;
    let changes = RuleChanges {
        name: wanted.name,
        enabled: wanted.enabled,
        condition: ConditionChanges { event, sandbox_id, count, window_seconds },
        severity: wanted.severity,
        quiet_seconds: wanted.quiet_seconds,
        webhook: match wanted.webhook {
            Patch::Keep => Patch::Keep,
            Patch::Clear => Patch::Clear,
            Patch::Set(UpdateWebhook { url, secret }) => Patch::Set(WebhookChanges { url, secret }),
        },
    };
    let seen = precondition::wanted(&headers)?;
    let row = edge.alerts.change_rule(&caller, (&id, seen), changes).await?;
    tagged::now(row.revision, shown(row)?)
}

/// Deletes a rule. What it has fired stays; what its webhook did not hear of yet is not told any more.
#[utoipa::path(delete, path = "/alerts/rules/{id}", operation_id = "delete_alert_rule", tag = "alerts",
    params(("id" = String, Path, description = "Its id"),
        ("If-Match" = Option<String>, Header, description = "The tag of what was seen; it is not deleted if it is another one by now")),
    responses(
    (status = 204, description = "It is gone"),
    (status = "default", description = "Why not", body = ProblemDocument, content_type = "application/problem+json"),
))]
pub(super) async fn delete(
    State(edge): State<Edge>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let seen = precondition::wanted(&headers)?;
    edge.alerts.delete_rule(&caller, &id, seen).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
