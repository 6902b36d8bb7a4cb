//! Messages that left their inbox without being acknowledged.

use std::time::SystemTime;

use futures_util::Stream;
use tandem_proto::messaging::v1::{
    DeadLetterFilter, GetDeadLetterRequest, ListDeadLettersRequest, PurgeDeadLettersRequest, RedriveDeadLettersRequest,
    dead_letter_service_client::DeadLetterServiceClient,
};

use crate::{
    Client, DeadLetter, DeadLetterReason, Error, MessageType, PurgeProgress, RedriveProgress, again::Calls, pages,
    progress, wire_time,
};

/// The dead letters of one workspace. Cheap to clone.
#[derive(Debug, Clone)]
pub struct DeadLetters {
    client: Client,
    workspace_id: String,
}

/// Which dead letters: all fields that are set must hold. The default is all.
#[derive(Debug, Clone, Default)]
pub struct DeadLetterQuery {
    /// Whose inbox they left.
    pub sandbox_id: Option<String>,
    /// Why they left it.
    pub reason: Option<DeadLetterReason>,
    /// Who sent them.
    pub from_sandbox_id: Option<String>,
    /// Of this conversation.
    pub correlation_id: Option<String>,
    /// Of this type.
    pub message_type: Option<MessageType>,
    /// Dead at this time or later.
    pub start_time: Option<SystemTime>,
    /// Dead before this time.
    pub end_time: Option<SystemTime>,
    /// Only the message with this sequence. Needs `sandbox_id`.
    pub sequence: Option<u64>,
}

/// Where dead letters go, and how fast.
#[derive(Debug, Clone, Default)]
pub struct RedriveOptions {
    /// The sandbox whose inbox gets them. Default: None, the inbox that each left.
    pub to_sandbox_id: Option<String>,
    /// Messages a second at the most. Default: 0, as fast as live traffic leaves room.
    pub max_per_second: u32,
}

impl DeadLetters {
    pub(crate) fn new(client: Client, workspace_id: String) -> Self {
        Self { client, workspace_id }
    }

    fn service(&self) -> DeadLetterServiceClient<Calls> {
        DeadLetterServiceClient::new(self.client.calls())
            .max_decoding_message_size(self.client.settings().max_response_bytes)
    }

    /// The dead letters that fit, by recipient and sequence, page by page as the stream is read.
    pub fn list(&self, query: DeadLetterQuery) -> impl Stream<Item = Result<DeadLetter, Error>> + Send + use<> {
        let letters = self.clone();
        let filter = query.filter();
        pages::items(move |page_token| {
            let letters = letters.clone();
            let request = ListDeadLettersRequest {
                workspace_id: letters.workspace_id.clone(),
                filter: Some(filter.clone()),
                // The broker's choice, because a dead letter may be large.
                page_size: 0,
                page_token,
            };
            async move {
                let answer = letters.service().list_dead_letters(letters.client.request(request)).await;
                let answer = answer.map_err(|status| letters.client.error(&status))?.into_inner();
                Ok((answer.dead_letters, answer.next_page_token))
            }
        })
    }

    /// Returns one dead letter, by the sandbox whose inbox it left and the sequence of the message.
    ///
    /// # Errors
    /// [`Error::Refused`] with `NOT_FOUND` when there is none.
    pub async fn get(&self, sandbox_id: impl Into<String>, sequence: u64) -> Result<DeadLetter, Error> {
        let request =
            GetDeadLetterRequest { workspace_id: self.workspace_id.clone(), sandbox_id: sandbox_id.into(), sequence };
        let answer = self.service().get_dead_letter(self.client.request(request)).await;
        let letter = answer.map_err(|status| self.client.error(&status))?.into_inner().dead_letter;
        letter.ok_or_else(|| Error::Contract("an answer about a dead letter holds none".to_owned()))
    }

    /// Puts the dead letters that fit back into an inbox, as first attempts with their old sequence and priority, and tells
    /// how far it is, at least once a second; `done` in the last. Begins when the stream is read and stops when it is
    /// dropped. Each message moves in one step, so a call that breaks is simply repeated; counts then begin anew.
    pub fn redrive(
        &self,
        query: DeadLetterQuery,
        options: RedriveOptions,
    ) -> impl Stream<Item = Result<RedriveProgress, Error>> + Send + use<> {
        let request = RedriveDeadLettersRequest {
            workspace_id: self.workspace_id.clone(),
            filter: Some(query.filter()),
            to_sandbox_id: options.to_sandbox_id.unwrap_or_default(),
            max_per_second: options.max_per_second,
        };
        let (mut service, request) = (self.service(), self.client.stream_request(request));
        let open = move || async move { service.redrive_dead_letters(request).await };
        progress::until_done(self.client.clone(), "redrive", open, |progress: &RedriveProgress| progress.done)
    }

    /// Removes the dead letters that fit for good, and tells how far it is, at least once a second; `done` in the last. Begins
    /// when the stream is read and stops when it is dropped. The default query removes all of the workspace.
    pub fn purge(&self, query: DeadLetterQuery) -> impl Stream<Item = Result<PurgeProgress, Error>> + Send + use<> {
        let request = PurgeDeadLettersRequest { workspace_id: self.workspace_id.clone(), filter: Some(query.filter()) };
        let (mut service, request) = (self.service(), self.client.stream_request(request));
        let open = move || async move { service.purge_dead_letters(request).await };
        progress::until_done(self.client.clone(), "purge", open, |progress: &PurgeProgress| progress.done)
    }
}

impl DeadLetterQuery {
    fn filter(&self) -> DeadLetterFilter {
        DeadLetterFilter {
            sandbox_id: self.sandbox_id.clone().unwrap_or_default(),
            reason: self.reason.unwrap_or_default().into(),
            from_sandbox_id: self.from_sandbox_id.clone().unwrap_or_default(),
            correlation_id: self.correlation_id.clone().unwrap_or_default(),
            r#type: self.message_type.unwrap_or_default().into(),
            start_time: self.start_time.map(wire_time),
            end_time: self.end_time.map(wire_time),
            sequence: self.sequence.unwrap_or_default(),
        }
    }
}
