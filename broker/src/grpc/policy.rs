//! The policy of a workspace.

use bytes::Bytes;
use tandem_proto::policy::v1::{
    GetPolicyRequest, GetPolicyResponse, Policy, RemovePolicyRequest, RemovePolicyResponse, SetPolicyRequest,
    SetPolicyResponse, policy_service_server::PolicyService,
};
use tonic::{Request, Response, Status};

use super::{Edge, time::timestamp};
use crate::{
    auth::Caller,
    command::{Outcome, SetPolicy, Verb},
    error::RequestError,
    machine::policy::{self, PolicyRecord},
    rejection::Rejection,
    shard::Shard,
};

#[tonic::async_trait]
impl PolicyService for Edge {
    async fn set_policy(&self, request: Request<SetPolicyRequest>) -> Result<Response<SetPolicyResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let workspace = caller.workspace(&request.workspace_id)?;
        if request.json.is_empty() {
            let text = "json is empty; send a policy, or remove the one there is";
            return Err(Rejection::field("json", text).into());
        }
        let json = Bytes::from(request.json);
        policy::check(&json)?;
        let policy = self.change_policy(&caller, workspace, json, request.if_revision).await?;
        Ok(Response::new(SetPolicyResponse { policy: Some(policy) }))
    }

    async fn get_policy(&self, request: Request<GetPolicyRequest>) -> Result<Response<GetPolicyResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let workspace = caller.workspace(&request.workspace_id)?;
        let shard = self.shards.of(workspace);
        shard.group.read_barrier().await.map_err(RequestError::from)?;
        Ok(Response::new(GetPolicyResponse { policy: Some(read(shard, workspace)?) }))
    }

    async fn remove_policy(
        &self,
        request: Request<RemovePolicyRequest>,
    ) -> Result<Response<RemovePolicyResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let workspace = caller.workspace(&request.workspace_id)?;
        let policy = self.change_policy(&caller, workspace, Bytes::new(), request.if_revision).await?;
        Ok(Response::new(RemovePolicyResponse { policy: Some(policy) }))
    }
}

impl Edge {
    async fn change_policy(
        &self,
        caller: &Caller,
        workspace: &str,
        json: Bytes,
        if_revision: Option<u64>,
    ) -> Result<Policy, RequestError> {
        let by = caller.identity().subject.clone();
        let verb = SetPolicy { workspace: workspace.to_owned(), json: json.clone(), if_revision, by: by.clone() };
        // What it takes in the log counts, like the bytes of messages.
        let call = self.shards.of(workspace).batcher.call(caller.asks(Verb::SetPolicy(verb)), json.len());
        let set = match call.await? {
            Outcome::SetPolicy(result) => result?,
            other => return Err(RequestError::internal(format!("a policy came to {other:?}"))),
        };
        Ok(on_wire(PolicyRecord { revision: set.revision, time_ms: set.time_ms, by, json }))
    }
}

fn read(shard: &Shard, workspace: &str) -> Result<Policy, RequestError> {
    let number = shard.reader.workspace(workspace)?.number;
    Ok(shard.reader.policy(number)?.map(on_wire).unwrap_or_default())
}

fn on_wire(record: PolicyRecord) -> Policy {
    Policy {
        revision: record.revision,
        json: String::from_utf8_lossy(&record.json).into_owned(),
        update_time: Some(timestamp(record.time_ms)),
        updated_by: record.by,
    }
}
