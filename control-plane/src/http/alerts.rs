//! `/alerts`: alerts that have fired.

use axum::{Extension, Json as JsonAnswer, extract::State, http::HeaderMap, response::Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    Edge,
    body::{Path, Query},
    precondition,
    problem::{Problem, ProblemDocument},
    tagged, time,
};
use crate::{
    error::Failure,
    service::{
        alert::{AlertDocument, DeliveryState, Severity},
        caller::Caller,
        listing::Listing,
        scoped,
    },
    store::Resource,
};

/// Something that a rule has found.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Alert {
    id: String,
    workspace_id: String,
    /// The rule may be gone by now.
    rule_id: String,
    /// As it was called when it fired.
    rule_name: String,
    severity: Severity,
    /// What happened, as the rule calls it; or `events_missed`: events were gone before the rule could look at them.
    event: String,
    /// For which it fired; those of the quiet time behind it may be others.
    #[serde(skip_serializing_if = "String::is_empty")]
    sandbox_id: String,
    text: String,
    /// How many, those of the quiet time behind it included.
    count: u64,
    state: AlertState,
    #[serde(skip_serializing_if = "String::is_empty")]
    acknowledged_by: String,
    /// RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    acknowledge_time: Option<String>,
    /// Whether the webhook of the rule has heard of it.
    delivery: Delivery,
    /// When it fired. RFC 3339.
    #[schema(format = DateTime)]
    create_time: String,
    /// When it happened last. RFC 3339.
    #[schema(format = DateTime)]
    last_time: String,
    /// One more with each change; the tag (`ETag`) says the same.
    revision: i64,
}

/// Whether somebody has seen an alert.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum AlertState {
    Open,
    Acknowledged,
}

/// Whether a webhook has heard of an alert.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Delivery {
    state: DeliveryState,
    /// That were made.
    attempts: i64,
    /// Why the last one failed.
    #[serde(skip_serializing_if = "String::is_empty")]
    error: String,
}

/// Some alerts.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AlertList {
    alerts: Vec<Alert>,
    /// For the next page; left out on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// Which alerts are wanted.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Wanted {
    /// The workspace. Unset: all that the caller may see.
    #[param(max_length = 128)]
    workspace_id: Option<String>,
    /// Of this rule.
    #[param(max_length = 128)]
    rule_id: Option<String>,
    state: Option<AlertState>,
    /// How many at most: 1 to 500.
    #[param(minimum = 1, maximum = 500, default = 50)]
    limit: Option<u32>,
    /// `next_cursor` of the page before, whose other parameters must be the same.
    #[param(max_length = 2048)]
    cursor: Option<String>,
    /// `create_time` or `update_time`; behind `-` the other way round.
    #[param(pattern = "^-?(create_time|update_time)$", default = "-create_time")]
    sort: Option<String>,
}

fn shown(row: Resource) -> Result<Alert, Failure> {
    let said: AlertDocument = scoped::document(&row)?;
    let state = if said.acknowledge_ms > 0 { AlertState::Acknowledged } else { AlertState::Open };
    Ok(Alert {
        id: row.id,
        workspace_id: row.scope,
        rule_id: said.rule_id,
        rule_name: said.rule_name,
        severity: said.severity,
        event: said.event,
        sandbox_id: said.sandbox_id,
        text: said.text,
        count: said.count,
        state,
        acknowledged_by: said.acknowledged_by,
        acknowledge_time: (said.acknowledge_ms > 0).then(|| time::of_ms(said.acknowledge_ms)),
        delivery: Delivery { state: said.delivery, attempts: said.attempts, error: said.delivery_error },
        create_time: time::of_ms(row.create_ms),
        last_time: time::of_ms(said.last_ms),
        revision: row.revision,
    })
}

/// Lists alerts, the newest first; a workspace keeps the newest 1,000.
#[utoipa::path(get, path = "/alerts", operation_id = "list_alerts", tag = "alerts", params(Wanted), responses(
    (status = 200, description = "A page of them", body = AlertList),
    (status = "default", description = "Why not", body = ProblemDocument, content_type = "application/problem+json"),
))]
pub(super) async fn list(
    State(edge): State<Edge>,
    Extension(caller): Extension<Caller>,
    Query(wanted): Query<Wanted>,
) -> Result<JsonAnswer<AlertList>, Problem> {
    let sort = wanted.sort.unwrap_or_else(|| "-create_time".to_owned());
    if sort.ends_with("name") {
        return Err(Failure::field("sort", format!("{sort:?} is not create_time or update_time")).into());
    }
    let state = wanted.state.map(|state| match state {
        AlertState::Open => crate::service::alerts::OPEN.to_owned(),
        AlertState::Acknowledged => crate::service::alerts::ACKNOWLEDGED.to_owned(),
    });
    // Alerts are named after their rule.
    let name_prefix = wanted.rule_id.map(|rule| format!("{rule}/"));
    let listing = Listing { limit: wanted.limit, cursor: wanted.cursor, sort: Some(sort), state, name_prefix };
    let workspace = wanted.workspace_id.as_deref();
    let wanted = listing.read_within(workspace)?;
    let (rows, next_cursor) = edge.alerts.fired().list(&caller, workspace, &wanted).await?;
    let alerts = rows.into_iter().map(shown).collect::<Result<_, _>>()?;
    Ok(JsonAnswer(AlertList { alerts, next_cursor }))
}

/// Says that somebody has seen an alert; who says so second changes nothing.
#[utoipa::path(post, path = "/alerts/{id}/acknowledge", operation_id = "acknowledge_alert", tag = "alerts",
    params(("id" = String, Path, description = "Its id"),
        ("If-Match" = Option<String>, Header, description = "The tag of what was seen; it is not acknowledged if it is another one by now")),
    responses(
    (status = 200, description = "As it is now", body = Alert),
    (status = "default", description = "Why not", body = ProblemDocument, content_type = "application/problem+json"),
))]
pub(super) async fn acknowledge(
    State(edge): State<Edge>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let seen = precondition::wanted(&headers)?;
    let row = edge.alerts.acknowledge(&caller, (&id, seen)).await?;
    tagged::now(row.revision, shown(row)?)
}
