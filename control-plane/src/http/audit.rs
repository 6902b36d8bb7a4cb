//! `/audit`: what was done, and by whom.

use axum::{Extension, Json as JsonAnswer};
use serde::{Deserialize, Serialize};
use tandem_client::{AuditChain, AuditKind, AuditQuery, AuditRecord};
use utoipa::{IntoParams, ToSchema};

use super::{
    body::Query,
    problem::{Problem, ProblemDocument},
    time,
};
use crate::{error::Failure, hex, service::caller::Caller};

const DEFAULT_MOST: u32 = 100;
const MAX_MOST: u32 = 1_000;

/// A record of the chain.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ShownRecord {
    /// Counts the records of the chain, from 1.
    number: u64,
    /// As the contract of the broker calls it, such as `policy_set`.
    kind: String,
    /// RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    time: Option<String>,
    /// Who.
    by: String,
    /// From where, as the broker saw it: of what came through here, this control plane.
    address: String,
    /// Of the request.
    request_id: String,
    /// What it is about.
    about: String,
    first: u64,
    last: u64,
    count: u64,
    text: String,
    /// In hexadecimal digits; empty where the kind has none.
    digest: String,
    /// Of the record and the one before, in hexadecimal digits.
    hash: String,
}

impl From<AuditRecord> for ShownRecord {
    fn from(record: AuditRecord) -> Self {
        let kind = record.kind().as_str_name().trim_start_matches("AUDIT_KIND_").to_lowercase();
        Self {
            number: record.number,
            kind,
            time: time::of(record.time.as_ref()),
            by: record.by,
            address: record.address,
            request_id: record.request_id,
            about: record.about,
            first: record.first,
            last: record.last,
            count: record.count,
            text: record.text,
            digest: hex::of(&record.digest),
            hash: hex::of(&record.hash),
        }
    }
}

/// Some records.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AuditList {
    records: Vec<ShownRecord>,
    /// `from_record` of the next page; left out on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_record: Option<u64>,
}

/// Which records are wanted.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Wanted {
    /// The chain of this workspace.
    #[param(max_length = 128)]
    workspace_id: Option<String>,
    /// Without a workspace: the chain of this shard, for what belongs to none.
    shard: Option<u32>,
    /// The first one. Unset: the oldest that is kept.
    from_record: Option<u64>,
    /// Of this kind, such as `policy_set`.
    kind: Option<String>,
    /// What this one has done.
    by: Option<String>,
    /// What is about this.
    about: Option<String>,
    /// From then on. RFC 3339.
    #[param(format = DateTime)]
    start_time: Option<String>,
    /// Before then. RFC 3339.
    #[param(format = DateTime)]
    end_time: Option<String>,
    /// How many at most: 1 to 1,000. A page may hold fewer, and have a successor.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<u32>,
}

/// Lists records of the audit by their numbers. `tandem audit export` and `verify` prove them.
#[utoipa::path(get, path = "/audit", operation_id = "list_audit_records", tag = "audit", params(Wanted), responses(
    (status = 200, description = "A page of them", body = AuditList),
    (status = "default", description = "Why not", body = ProblemDocument, content_type = "application/problem+json"),
))]
pub(super) async fn list(
    Extension(caller): Extension<Caller>,
    Query(wanted): Query<Wanted>,
) -> Result<JsonAnswer<AuditList>, Problem> {
    let chain = match (wanted.workspace_id, wanted.shard) {
        (Some(workspace), None) => AuditChain::Workspace(workspace),
        (None, Some(shard)) => AuditChain::Shard(shard),
        _ => return Err(Failure::field("workspace_id", "say which chain: workspace_id, or shard").into()),
    };
    let most = wanted.limit.unwrap_or(DEFAULT_MOST);
    if !(1..=MAX_MOST).contains(&most) {
        return Err(Failure::field("limit", format!("{most} is not 1 to {MAX_MOST}")).into());
    }
    let kind = wanted.kind.map(|kind| {
        let found = AuditKind::from_str_name(&format!("AUDIT_KIND_{}", kind.to_uppercase()));
        found.ok_or_else(|| Failure::field("kind", format!("{kind:?} is no kind of records, such as policy_set")))
    });
    let query = AuditQuery {
        from_record: wanted.from_record.unwrap_or(0),
        kinds: kind.transpose()?.into_iter().collect(),
        by: wanted.by,
        about: wanted.about,
        start_time: time::read("start_time", wanted.start_time.as_deref())?,
        end_time: time::read("end_time", wanted.end_time.as_deref())?,
    };
    let page = caller.broker.audit(chain).page(&query, most).await.map_err(Failure::of_question)?;
    let next_record = Some(page.next_record).filter(|next| *next > 0);
    Ok(JsonAnswer(AuditList { records: page.records.into_iter().map(Into::into).collect(), next_record }))
}
