//! Sandboxes as they are shown.

use serde::Serialize;
use tandem_client::{Liveness, Sandbox as BrokerSandbox};
use utoipa::ToSchema;

use super::super::{Edge, time};
use crate::{
    error::Failure,
    service::sandbox::{Document, Spec},
    store::Resource,
};

/// A container in which agents run.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Sandbox {
    /// Stays the same.
    id: String,
    workspace_id: String,
    /// Messages to it are addressed to this.
    name: String,
    #[serde(flatten)]
    spec: Spec,
    /// What is being done with it: `creating`, `starting`, `running`, `restarting`, `stopping`, `stopped`, `failed` or `deleting`.
    state: String,
    /// Why it is not as it should be.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    connection: Connection,
    /// One more with each change; the tag (`ETag`) says the same.
    revision: i64,
    /// RFC 3339.
    #[schema(format = DateTime)]
    create_time: String,
    /// RFC 3339.
    #[schema(format = DateTime)]
    update_time: String,
}

/// How it is spoken to.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Connection {
    /// Nodes of the broker.
    broker: Vec<String>,
    workspace_id: String,
    /// As the broker knows it.
    sandbox_id: String,
    /// A WebSocket of this service that takes what is in its inbox, and sends for it.
    websocket: String,
}

/// Some sandboxes.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SandboxList {
    pub(super) sandboxes: Vec<Sandbox>,
    /// For the next page; left out on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) next_cursor: Option<String>,
}

/// What a sandbox does, and what has become of it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SandboxStatus {
    id: String,
    /// As in the sandbox itself.
    state: String,
    /// Whether the broker hears of it; left out where the broker does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    online: Option<bool>,
    /// Messages that wait in its inbox; left out where the broker does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pending_messages: Option<u64>,
    /// Messages that it could not handle; left out where the broker does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    dead_letters: Option<u64>,
    /// Of its last start. RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    start_time: Option<String>,
    /// Of its last end. RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    stop_time: Option<String>,
    /// Why it does not run: `asked`, `timed_out`, `idle`, `ended`, `disk_limit` or `failed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    stopped_because: Option<String>,
    /// Of its last end.
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<i64>,
    /// How often it was started again after it had ended by itself.
    restarts: u64,
    /// When it is started again. RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    retry_time: Option<String>,
    /// How often processes in it were killed because it had no more memory.
    out_of_memory_kills: u64,
    /// Why it is not as it should be.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

fn said(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

pub(super) fn shown(edge: &Edge, row: Resource) -> Result<Sandbox, Failure> {
    let document = Document::of(&row)?;
    let connection = Connection {
        broker: edge.broker_urls.clone(),
        workspace_id: row.scope.clone(),
        sandbox_id: row.name.clone(),
        websocket: format!("/ws/sandboxes/{}?workspace_id={}", row.name, row.scope),
    };
    Ok(Sandbox {
        id: row.id,
        workspace_id: row.scope,
        name: row.name,
        spec: document.spec,
        state: row.state,
        error: said(document.error),
        connection,
        revision: row.revision,
        create_time: time::of_ms(row.create_ms),
        update_time: time::of_ms(row.update_ms),
    })
}

pub(super) fn status_of(row: &Resource, known: Option<BrokerSandbox>) -> Result<SandboxStatus, Failure> {
    let document = Document::of(row)?;
    let at = |ms: i64| (ms > 0).then(|| time::of_ms(ms));
    Ok(SandboxStatus {
        id: row.id.clone(),
        state: row.state.clone(),
        online: known.as_ref().map(|known| known.liveness() == Liveness::Online),
        pending_messages: known.as_ref().map(|known| known.pending_messages),
        dead_letters: known.as_ref().map(|known| known.dead_letters),
        start_time: at(document.start_ms),
        stop_time: at(document.stop_ms),
        stopped_because: said(document.stopped_because),
        exit_code: document.exit_code,
        restarts: document.restarts,
        retry_time: at(document.retry_ms).filter(|_| row.state == "restarting"),
        out_of_memory_kills: document.out_of_memory_kills,
        error: said(document.error),
    })
}
