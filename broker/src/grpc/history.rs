//! Reads of the log.

use tandem_proto::raw::messaging::v1::{
    GetMessageRequest, GetMessageResponse, ListMessagesRequest, ListMessagesResponse,
    history_service_server::HistoryService,
};
use tonic::{Request, Response, Status};

use super::{Edge, time};
use crate::{
    delivery::subscription::encode_message,
    error::RequestError,
    field,
    message::SEQUENCE_ID_PREFIX,
    query::history::{Filter, Span},
    rejection::{Reason, Rejection},
};

#[tonic::async_trait]
impl HistoryService for Edge {
    async fn get_message(&self, request: Request<GetMessageRequest>) -> Result<Response<GetMessageResponse>, Status> {
        let request = request.into_inner();
        let name = field::id("workspace_id", &request.workspace_id)?;
        let id = field::id("message_id", &request.message_id)?;
        let shard = self.shards.of(name);
        shard.group.read_barrier().await.map_err(RequestError::from)?;
        let workspace = shard.reader.workspace(name)?;
        let sequence = match id.strip_prefix(SEQUENCE_ID_PREFIX) {
            Some(number) => number.parse().ok(),
            None => shard
                .reader
                .known_id(workspace.number, id)
                .map_err(|error| RequestError::internal(error.to_string()))?
                .map(|known| known.sequence),
        };
        let found = match sequence {
            Some(sequence) => shard.reader.message_at(workspace.number, sequence)?,
            None => None,
        };
        // A message with an id of its own is not found under its sequence: it has one name.
        let found = found.filter(|message| message.record().id.is_empty() == id.starts_with(SEQUENCE_ID_PREFIX));
        let Some(message) = found else {
            let text = format!("message {id:?} does not exist in workspace {name:?}");
            return Err(Rejection::new(Reason::UnknownMessage, text).into());
        };
        Ok(Response::new(GetMessageResponse { message: encode_message(&message, name) }))
    }

    async fn list_messages(
        &self,
        request: Request<ListMessagesRequest>,
    ) -> Result<Response<ListMessagesResponse>, Status> {
        let request = request.into_inner();
        let name = field::id("workspace_id", &request.workspace_id)?;
        let limit = field::page_size(request.page_size)?;
        let filter = Filter {
            sandbox: field::name("sandbox_id", &request.sandbox_id)?.to_owned(),
            agent: field::name("agent", &request.agent)?.to_owned(),
            correlation_id: field::name("correlation_id", &request.correlation_id)?.to_owned(),
            start_ms: time::unix_ms("start_time", request.start_time)?,
            end_ms: time::unix_ms("end_time", request.end_time)?,
        };
        let to = if request.to_sequence == 0 { u64::MAX } else { request.to_sequence };
        let mut span = Span { from: request.from_sequence, to, descending: request.descending };
        if !request.page_token.is_empty() {
            let next = page_token(&request.page_token)?;
            if span.descending { span.to = span.to.min(next) } else { span.from = span.from.max(next) }
        }
        let shard = self.shards.of(name);
        shard.group.read_barrier().await.map_err(RequestError::from)?;
        let workspace = shard.reader.workspace(name)?;
        let page = shard.reader.history(&workspace, span, &filter, limit, &|message| encode_message(message, name))?;
        Ok(Response::new(ListMessagesResponse {
            messages: page.messages,
            next_page_token: page.next.map(|sequence| format!("m{sequence}")).unwrap_or_default(),
        }))
    }
}

fn page_token(token: &str) -> Result<u64, Rejection> {
    token.strip_prefix('m').and_then(|number| number.parse().ok()).ok_or_else(|| {
        let text = format!("page_token {:?} is not from a listing of messages", field::shown(token));
        Rejection { reason: Reason::InvalidPageToken, text, field: "page_token".into() }
    })
}
