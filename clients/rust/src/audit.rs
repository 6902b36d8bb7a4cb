//! What was done, and by whom.

use std::time::SystemTime;

use futures_util::Stream;
use tandem_proto::audit::v1::{
    GetAuditHeadRequest, GetAuditHeadResponse, ListAuditRecordsRequest, ListAuditRecordsResponse,
    audit_service_client::AuditServiceClient,
};

use crate::{AuditKind, AuditRecord, Client, Error, again::Calls, pages, wire_time};

/// Whose chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuditChain {
    /// That of a workspace.
    Workspace(String),
    /// That of a shard, for what belongs to no workspace.
    Shard(u32),
}

/// Which records. All that is set must hold.
#[derive(Debug, Clone, Default)]
pub struct AuditQuery {
    /// The first record; 0: the oldest that is kept.
    pub from_record: u64,
    /// None: all.
    pub kinds: Vec<AuditKind>,
    /// Only what this one has done.
    pub by: Option<String>,
    /// Only what is about this.
    pub about: Option<String>,
    /// Only what was done at this time or later.
    pub start_time: Option<SystemTime>,
    /// Only what was done before this time.
    pub end_time: Option<SystemTime>,
}

/// A chain of the audit. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Audit {
    client: Client,
    chain: AuditChain,
}

impl Audit {
    pub(crate) fn new(client: Client, chain: AuditChain) -> Self {
        Self { client, chain }
    }

    fn service(&self) -> AuditServiceClient<Calls> {
        AuditServiceClient::new(self.client.calls())
            .max_decoding_message_size(self.client.settings().max_response_bytes)
    }

    fn place(&self) -> (String, u32) {
        match &self.chain {
            AuditChain::Workspace(name) => (name.clone(), 0),
            AuditChain::Shard(shard) => (String::new(), *shard),
        }
    }

    /// Where the chain ends.
    ///
    /// # Errors
    /// [`Error::Refused`] when there is no such chain, or the caller may not see it.
    pub async fn head(&self) -> Result<GetAuditHeadResponse, Error> {
        let (workspace_id, shard_id) = self.place();
        let request = GetAuditHeadRequest { workspace_id, shard_id };
        let answer = self.service().get_audit_head(self.client.request(request)).await;
        Ok(answer.map_err(|status| self.client.error(&status))?.into_inner())
    }

    /// One page of records, with the hash before the first of them.
    ///
    /// # Errors
    /// As [`Audit::head`].
    pub async fn page(&self, query: &AuditQuery, page_size: u32) -> Result<ListAuditRecordsResponse, Error> {
        let (workspace_id, shard_id) = self.place();
        let request = ListAuditRecordsRequest {
            workspace_id,
            shard_id,
            from_record: query.from_record,
            page_size: i32::try_from(page_size).unwrap_or(i32::MAX),
            kinds: query.kinds.iter().map(|kind| *kind as i32).collect(),
            by: query.by.clone().unwrap_or_default(),
            about: query.about.clone().unwrap_or_default(),
            start_time: query.start_time.map(wire_time),
            end_time: query.end_time.map(wire_time),
        };
        let answer = self.service().list_audit_records(self.client.request(request)).await;
        Ok(answer.map_err(|status| self.client.error(&status))?.into_inner())
    }

    /// Records by their numbers, page by page as the stream is read.
    pub fn list(&self, query: AuditQuery) -> impl Stream<Item = Result<AuditRecord, Error>> + Send + use<> {
        let audit = self.clone();
        pages::items(move |page_token: String| {
            let (audit, mut query) = (audit.clone(), query.clone());
            async move {
                if !page_token.is_empty() {
                    query.from_record = page_token.parse().unwrap_or(0);
                }
                let page = audit.page(&query, 1_000).await?;
                let next = if page.next_record == 0 { String::new() } else { page.next_record.to_string() };
                Ok((page.records, next))
            }
        })
    }
}
