//! Messages that wait for approval.

use futures_util::Stream;
use tandem_proto::approval::v1::{
    ApproveMessageRequest, DenyMessageRequest, GetApprovalRequest, ListApprovalsRequest,
    approval_service_client::ApprovalServiceClient,
};

use crate::{Approval, ApprovalState, Client, Error, Message, again::Calls, pages};

/// The approvals of one workspace. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Approvals {
    client: Client,
    workspace_id: String,
}

/// What somebody decides on a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// It may go.
    Approve,
    /// It may not.
    Deny,
}

impl Approvals {
    pub(crate) fn new(client: Client, workspace_id: String) -> Self {
        Self { client, workspace_id }
    }

    fn service(&self) -> ApprovalServiceClient<Calls> {
        ApprovalServiceClient::new(self.client.calls())
            .max_decoding_message_size(self.client.settings().max_response_bytes)
    }

    /// Those in a state, or all, the newest first, page by page as the stream is read.
    pub fn list(&self, state: Option<ApprovalState>) -> impl Stream<Item = Result<Approval, Error>> + Send + use<> {
        let approvals = self.clone();
        pages::items(move |page_token| {
            let approvals = approvals.clone();
            async move {
                let workspace_id = approvals.workspace_id.clone();
                let state = state.unwrap_or_default().into();
                let request = ListApprovalsRequest { workspace_id, state, page_size: 1000, page_token };
                let answer = approvals.service().list_approvals(approvals.client.request(request)).await;
                let answer = answer.map_err(|status| approvals.client.error(&status))?.into_inner();
                Ok((answer.approvals, answer.next_page_token))
            }
        })
    }

    /// One of them, and its message unless that is in the log by now.
    ///
    /// # Errors
    /// [`Error::Refused`] with `UNKNOWN_APPROVAL` when there is none, or none that the caller may see.
    pub async fn get(&self, approval_id: u64) -> Result<(Approval, Option<Message>), Error> {
        let request = GetApprovalRequest { workspace_id: self.workspace_id.clone(), approval_id };
        let answer = self.service().get_approval(self.client.request(request)).await;
        let answer = answer.map_err(|status| self.client.error(&status))?.into_inner();
        Ok((required(answer.approval)?, answer.message))
    }

    /// Decides on a message; safe to repeat. The comment, of up to 4 KiB, is for its sender and whoever asks later.
    ///
    /// # Errors
    /// [`Error::Refused`] with `UNKNOWN_APPROVAL`; with `APPROVAL_ENDED` when somebody else was quicker or it is too late; with
    /// `OWN_MESSAGE` when the caller has sent it; with `INBOX_FULL` when its recipient has no room, and nothing has happened.
    pub async fn decide(
        &self,
        approval_id: u64,
        decision: Decision,
        comment: impl Into<String>,
    ) -> Result<Approval, Error> {
        let (workspace_id, comment) = (self.workspace_id.clone(), comment.into());
        let mut service = self.service();
        let approval = match decision {
            Decision::Approve => {
                let request = ApproveMessageRequest { workspace_id, approval_id, comment };
                service.approve_message(self.client.request(request)).await.map(|answer| answer.into_inner().approval)
            }
            Decision::Deny => {
                let request = DenyMessageRequest { workspace_id, approval_id, comment };
                service.deny_message(self.client.request(request)).await.map(|answer| answer.into_inner().approval)
            }
        };
        required(approval.map_err(|status| self.client.error(&status))?)
    }
}

fn required(approval: Option<Approval>) -> Result<Approval, Error> {
    approval.ok_or_else(|| Error::Contract("an answer about an approval holds no approval".to_owned()))
}
