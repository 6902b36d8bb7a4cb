//! Who may say what to whom.

use tandem_proto::policy::v1::{
    GetPolicyRequest, RemovePolicyRequest, SetPolicyRequest, policy_service_client::PolicyServiceClient,
};

use crate::{Client, Error, Policy, again::Calls};

/// The policy of one workspace. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Policies {
    client: Client,
    workspace_id: String,
}

impl Policies {
    pub(crate) fn new(client: Client, workspace_id: String) -> Self {
        Self { client, workspace_id }
    }

    fn service(&self) -> PolicyServiceClient<Calls> {
        PolicyServiceClient::new(self.client.calls())
            .max_decoding_message_size(self.client.settings().max_response_bytes)
    }

    /// Gives the workspace a policy, as JSON of up to 1 MiB. What is committed after this is judged by it. With `if_revision` only
    /// if the policy has that revision.
    ///
    /// # Errors
    /// [`Error::Refused`] with `INVALID_POLICY` when it is none, with `POLICY_CHANGED` when it has another revision.
    pub async fn set(&self, json: impl Into<String>, if_revision: Option<u64>) -> Result<Policy, Error> {
        let request = SetPolicyRequest { workspace_id: self.workspace_id.clone(), json: json.into(), if_revision };
        let answer = self.service().set_policy(self.client.request(request)).await;
        required(answer.map_err(|status| self.client.error(&status))?.into_inner().policy)
    }

    /// The policy in force; its JSON is empty when there is none.
    ///
    /// # Errors
    /// [`Error::Refused`] when the workspace is unknown.
    pub async fn get(&self) -> Result<Policy, Error> {
        let request = GetPolicyRequest { workspace_id: self.workspace_id.clone() };
        let answer = self.service().get_policy(self.client.request(request)).await;
        required(answer.map_err(|status| self.client.error(&status))?.into_inner().policy)
    }

    /// Takes the policy away: everybody may talk to everybody.
    ///
    /// # Errors
    /// As [`Policies::set`].
    pub async fn remove(&self, if_revision: Option<u64>) -> Result<Policy, Error> {
        let request = RemovePolicyRequest { workspace_id: self.workspace_id.clone(), if_revision };
        let answer = self.service().remove_policy(self.client.request(request)).await;
        required(answer.map_err(|status| self.client.error(&status))?.into_inner().policy)
    }
}

fn required(policy: Option<Policy>) -> Result<Policy, Error> {
    policy.ok_or_else(|| Error::Contract("an answer about a policy holds no policy".to_owned()))
}
