//! The audit: what was done, and by whom. What the edge itself sees goes there through the leader of its shard.

use std::time::Duration;

use bytes::Bytes;
use tandem_proto::audit::v1::{
    AuditKind, AuditRecord, GetAuditHeadRequest, GetAuditHeadResponse, ListAuditRecordsRequest,
    ListAuditRecordsResponse, ReportAuditRequest, ReportAuditResponse, audit_service_client::AuditServiceClient,
    audit_service_server::AuditService,
};
use tonic::{Request, Response, Status};

use super::{
    Edge,
    time::{self, timestamp},
};
use crate::{
    audit::{Hash, Kind, Record},
    auth::{Caller, Identity, Role, Roles},
    cluster::Place,
    command::{Note, Noted, Origin, Outcome, Verb},
    error::RequestError,
    field,
    machine::keys::NO_WORKSPACE,
    query::audit::{AuditFilter, oldest},
    rejection::{Reason, Rejection},
    shard::Shard,
};

/// How often a node tells what it has seen.
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// Records in one report.
const MAX_REPORTED: usize = 1_000;
/// Bytes of a text in a report.
const MAX_TEXT_BYTES: usize = 4 << 10;

#[tonic::async_trait]
impl AuditService for Edge {
    async fn list_audit_records(
        &self,
        request: Request<ListAuditRecordsRequest>,
    ) -> Result<Response<ListAuditRecordsResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let limit = field::page_size(request.page_size)?;
        let filter = filter(&request)?;
        let (shard, workspace) = self.chain(&caller, &request.workspace_id, request.shard_id).await?;
        let page = shard.reader.audit_records(workspace, request.from_record, &filter, limit)?;
        Ok(Response::new(ListAuditRecordsResponse {
            records: page.records.into_iter().map(|(number, hash, record)| on_wire(number, hash, record)).collect(),
            next_record: page.next.unwrap_or(0),
            previous_hash: Bytes::copy_from_slice(&page.previous.0),
            first_record: page.first,
        }))
    }

    async fn get_audit_head(
        &self,
        request: Request<GetAuditHeadRequest>,
    ) -> Result<Response<GetAuditHeadResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let (shard, workspace) = self.chain(&caller, &request.workspace_id, request.shard_id).await?;
        let head = shard.reader.audit_head(workspace)?;
        Ok(Response::new(GetAuditHeadResponse {
            number: head.number,
            hash: Bytes::copy_from_slice(&head.hash.0),
            first_record: oldest(&head),
            batches_since: head.folded,
        }))
    }

    async fn report_audit(
        &self,
        request: Request<ReportAuditRequest>,
    ) -> Result<Response<ReportAuditResponse>, Status> {
        let caller = Caller::of(&request)?;
        if caller.identity().workspace.is_some() {
            let text = "this is for those who are bound to no workspace";
            return Err(Rejection::new(Reason::OtherWorkspace, text).into());
        }
        let ReportAuditRequest { workspace_id, records } = request.into_inner();
        if !workspace_id.is_empty() {
            field::id("workspace_id", &workspace_id)?;
        }
        if records.len() > MAX_REPORTED {
            let text = format!("there are {} records; at most {MAX_REPORTED} are taken", records.len());
            return Err(Rejection::field("records", text).into());
        }
        let entries: Result<Vec<_>, Rejection> = records.into_iter().map(noted).collect();
        self.note(&workspace_id, entries?).await?;
        Ok(Response::new(ReportAuditResponse {}))
    }
}

impl Edge {
    /// A chain, if the caller may see it: his workspace's, or, where he is bound to none, that of a shard.
    async fn chain(&self, caller: &Caller, workspace: &str, shard_id: u32) -> Result<(&Shard, u32), RequestError> {
        if !workspace.is_empty() {
            let name = caller.workspace(workspace)?;
            let shard = self.shards.of(name);
            shard.group.read_barrier().await?;
            return Ok((shard, shard.reader.workspace(name)?.number));
        }
        if let Some(own) = &caller.identity().workspace {
            let text = format!("{:?} is bound to workspace {own:?}; name it", caller.identity().subject);
            return Err(
                Rejection { reason: Reason::OtherWorkspace, text, field: "workspace_id".into(), retry_ms: 0 }.into()
            );
        }
        let found = self.shards.iter().find(|shard| shard.group.shard() == shard_id);
        let missing = || Rejection::new(Reason::UnknownShard, format!("there is no shard {shard_id}"));
        let shard = found.ok_or_else(missing)?;
        shard.group.read_barrier().await?;
        Ok((shard, NO_WORKSPACE))
    }

    /// Where something is noted about a workspace; without one, where the nodes themselves are.
    fn shard_to_note(&self, workspace: &str) -> Result<&Shard, RequestError> {
        if workspace.is_empty() { self.first_shard() } else { Ok(self.shards.of(workspace)) }
    }

    async fn note(&self, workspace: &str, mut entries: Vec<Noted>) -> Result<(), RequestError> {
        entries.iter_mut().for_each(bound);
        let bytes = entries.iter().map(|entry| entry.text.len() + 128).sum();
        let verb = Verb::Note(Note { workspace: workspace.to_owned(), entries });
        match self.shard_to_note(workspace)?.batcher.call(verb, bytes).await? {
            Outcome::Note(result) => Ok(result?),
            other => Err(RequestError::internal(format!("a note came to {other:?}"))),
        }
    }

    /// Tells the audit now and then who was turned away here, for as long as the node runs.
    pub(crate) async fn report_refusals(self) {
        loop {
            let stopping = tokio::select! {
                () = tokio::time::sleep(REPORT_EVERY) => false,
                () = self.stopped() => true,
            };
            for (workspace, notes) in self.door.refusals().take() {
                if !self.report_notes(&workspace, notes.clone()).await {
                    self.door.refusals().put_back(&workspace, notes);
                }
            }
            if stopping {
                return;
            }
        }
    }

    async fn report_notes(&self, workspace: &str, notes: Vec<Noted>) -> bool {
        let Some(routing) = &self.routing else { return self.note(workspace, notes).await.is_ok() };
        let Ok(shard) = self.shard_to_note(workspace) else { return false };
        match routing.place(shard.group.shard()).await {
            Ok(Place::Here) => self.note(workspace, notes).await.is_ok(),
            Ok(Place::There { channel, .. }) => {
                let subject = format!("node {}", self.info.node_id);
                let roles = Roles::of(Role::Admin);
                let node = Caller::new(Identity { subject, roles, workspace: None, sandbox: None, ends_s: None });
                let records = notes.into_iter().map(told).collect();
                let mut request = Request::new(ReportAuditRequest { workspace_id: workspace.to_owned(), records });
                self.vouch(&node, request.metadata_mut());
                AuditServiceClient::new(channel).report_audit(request).await.is_ok()
            }
            Err(_) => false,
        }
    }
}

/// What came from outside is not longer than a record may hold.
fn bound(note: &mut Noted) {
    let Origin { by, address, request_id } = &mut note.origin;
    for text in [by, address, request_id, &mut note.about] {
        text.truncate(text.floor_char_boundary(field::MAX_NAME_BYTES));
    }
    if note.text.len() > MAX_TEXT_BYTES {
        let text = String::from_utf8_lossy(&note.text).into_owned();
        note.text = Bytes::copy_from_slice(&text.as_bytes()[..text.floor_char_boundary(MAX_TEXT_BYTES)]);
    }
}

fn told(mut note: Noted) -> AuditRecord {
    bound(&mut note);
    let Noted { kind, origin: Origin { by, address, request_id }, about, count, text } = note;
    let text = String::from_utf8_lossy(&text).into_owned();
    AuditRecord { kind: kind as i32, by, address, request_id, about, count, text, ..AuditRecord::default() }
}

fn noted(record: AuditRecord) -> Result<Noted, Rejection> {
    let AuditRecord { by, address, request_id, about, count, text, .. } = record;
    for (field, value) in [("by", &by), ("address", &address), ("request_id", &request_id), ("about", &about)] {
        field::name(field, value)?;
    }
    let kind = kind(record.kind)?;
    if !matches!(kind, Kind::CallRefused | Kind::AuthenticationFailed | Kind::ClusterChanged) {
        return Err(Rejection::field("kind", format!("{} is noted by the command that does it", kind.name())));
    }
    if text.len() > MAX_TEXT_BYTES {
        return Err(Rejection::field(
            "text",
            format!("text has {} bytes; at most {MAX_TEXT_BYTES} are kept", text.len()),
        ));
    }
    Ok(Noted { kind, origin: Origin { by, address, request_id }, about, count, text: text.into() })
}

fn kind(number: i32) -> Result<Kind, Rejection> {
    Kind::ALL.iter().copied().find(|kind| *kind as i32 == number).ok_or_else(|| {
        Rejection::field("kinds", format!("kind {number} does not exist; it must be 1 to {}", Kind::ALL.len()))
    })
}

fn filter(request: &ListAuditRecordsRequest) -> Result<AuditFilter, Rejection> {
    let kinds: Result<Vec<_>, _> = request.kinds.iter().map(|number| kind(*number)).collect();
    Ok(AuditFilter {
        kinds: kinds?,
        by: field::name("by", &request.by)?.to_owned(),
        about: field::name("about", &request.about)?.to_owned(),
        start_ms: time::unix_ms("start_time", request.start_time)?,
        end_ms: time::unix_ms("end_time", request.end_time)?,
    })
}

fn on_wire(number: u64, hash: Hash, record: Record) -> AuditRecord {
    debug_assert!(AuditKind::try_from(record.kind as i32).is_ok());
    AuditRecord {
        number,
        time: Some(timestamp(record.time_ms)),
        kind: record.kind as i32,
        by: record.by,
        address: record.address,
        request_id: record.request_id,
        about: record.about,
        first: record.first,
        last: record.last,
        count: record.count,
        digest: record.digest,
        text: String::from_utf8_lossy(&record.text).into_owned(),
        hash: Bytes::copy_from_slice(&hash.0),
    }
}
