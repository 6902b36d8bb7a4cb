//! A shard whose time is ahead of the clock, as after a leader whose clock somebody had set.

use std::{path::Path, sync::Arc, time::Duration};

use tandem_proto::{
    messaging::v1 as wire,
    registry::v1::{
        GetSandboxRequest, Liveness, RegisterSandboxRequest, Sandbox, registry_service_server::RegistryService as _,
    },
};
use tandem_raft::FatalSink;
use tandem_storage::{Engine, MemoryEngine};
use tokio::sync::watch;

use super::*;
use crate::{
    auth::{api_keys::KeyRing, layer::Door},
    command::{CreateWorkspace, UpdateWorkspace, create_workspace::Settings},
    config::Config,
    grpc::ServerInfo,
    machine,
    metrics::Metrics,
    query::StateReader,
    running::{Parts, Running},
};

const WORKSPACE: &str = "default";
const HEARTBEAT_TIMEOUT_MS: u64 = 200;
const HOUR_MS: u64 = 3_600_000;
/// For what takes a fraction of a second.
const PATIENCE: Duration = Duration::from_secs(20);

/// A node in memory, alone, and its edge.
async fn start(dir: &Path) -> (Running, Edge, watch::Sender<bool>) {
    let mut config = Config::default();
    config.storage.shards = 1;
    config.limits.heartbeat_timeout_ms = HEARTBEAT_TIMEOUT_MS;
    let spaces = machine::keys::SPACES.into();
    let states = move |dir: &Path| -> Result<Arc<dyn Engine>, tandem_storage::Error> {
        Ok(Arc::new(if dir.exists() { MemoryEngine::open(dir, spaces)? } else { MemoryEngine::new(spaces) }))
    };
    let parts = Parts {
        data_dir: dir.to_owned(),
        log: Arc::new(MemoryEngine::new(tandem_raft::LOG_SPACES)),
        states: Arc::new(states),
        cluster: None,
        simulation: None,
    };
    let metrics = Metrics::new();
    let running = Running::start(&config, parts, &metrics, &FatalSink::default()).await.unwrap();
    let settings = Settings::default();
    let create = CreateWorkspace { workspace: WORKSPACE.into(), max_workspaces: 10, settings };
    running.shards.of(WORKSPACE).batcher.call(Verb::CreateWorkspace(create), 64).await.unwrap();
    let info = ServerInfo { cluster_id: String::new(), node_id: 1, start_time_ms: 0, storage_engine: "memory" };
    let (stop, stopping) = watch::channel(false);
    let door = Door::new(None, None, KeyRing::new(StateReader::default()), PATIENCE);
    let edge = Edge::new(running.shards.clone(), &config, metrics, info, (None, door), stopping);
    (running, edge, stop)
}

/// As it comes from the door.
fn called<T>(body: T) -> Request<T> {
    let mut request = Request::new(body);
    request.extensions_mut().insert(Caller::anyone());
    request
}

async fn liveness(edge: &Edge, sandbox: &str) -> Liveness {
    let request = GetSandboxRequest { workspace_id: WORKSPACE.into(), sandbox_id: sandbox.into() };
    let answer = edge.get_sandbox(called(request)).await.unwrap().into_inner();
    answer.sandbox.unwrap().liveness()
}

fn request(timeout: Duration) -> Request<RequestRequest> {
    let message = wire::Message {
        from_sandbox_id: "asks".into(),
        message_id: "question".into(),
        r#type: wire::MessageType::Request.into(),
        correlation_id: "c-1".into(),
        content: "anybody there?".into(),
        destination: Some(wire::Destination { kind: Some(wire::destination::Kind::SandboxId("silent".into())) }),
        ..Default::default()
    };
    let request = wire::RequestRequest {
        workspace_id: WORKSPACE.into(),
        message: Some(message),
        timeout: Some(time::duration(timeout.as_millis() as u64)),
    };
    let bytes = prost::Message::encode_to_vec(&request);
    called(prost::Message::decode(bytes.as_slice()).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_takes_time_happens_although_time_is_ahead_of_the_clock() {
    let dir = tempfile::tempdir().unwrap();
    let (running, edge, _stop) = Box::pin(start(dir.path())).await;
    let ahead_ms = clock::unix_ms() + HOUR_MS;
    edge.shards.of(WORKSPACE).time.not_before(ahead_ms);
    for name in ["asks", "silent"] {
        let sandbox = Sandbox { sandbox_id: name.into(), ..Default::default() };
        let register = RegisterSandboxRequest { workspace_id: WORKSPACE.into(), sandbox: Some(sandbox) };
        edge.register_sandbox(called(register)).await.unwrap();
    }
    let newest_ms = edge.shards.of(WORKSPACE).reader.time_ms().unwrap();
    assert!(newest_ms >= ahead_ms, "{newest_ms}");

    let offline = async {
        while liveness(&edge, "silent").await != Liveness::Offline {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, offline).await.expect("a sandbox that says nothing goes offline");

    let asking = edge.request(request(Duration::from_millis(300)));
    let refused = tokio::time::timeout(PATIENCE, asking).await.expect("a request ends").unwrap_err();
    assert!(refused.message().contains("no response to"), "{refused:?}");

    // The question is an hour old now, and its time is ahead of the clock still.
    let settings = Settings { retention_age_ms: HOUR_MS / 2, ..Settings::default() };
    let update = UpdateWorkspace { workspace: WORKSPACE.into(), settings };
    edge.shards.of(WORKSPACE).batcher.call(Verb::UpdateWorkspace(update), 64).await.unwrap();
    edge.shards.of(WORKSPACE).time.not_before(ahead_ms + HOUR_MS);
    let cut = async {
        while edge.shards.of(WORKSPACE).reader.workspace(WORKSPACE).is_ok_and(|found| found.first_sequence <= 1) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, cut).await.expect("a history is cut by its age");
    running.tasks.iter().for_each(tokio::task::JoinHandle::abort);
}

#[test]
fn a_wait_ends_with_the_deadline_in_the_time_of_the_shard() {
    let waiting = WaitingRequest { sequence: 1, digest: 0, deadline_ms: 5_000, response: None, answered: false };
    assert_eq!(remaining(&waiting, 2_000), Duration::from_secs(3));
    assert_eq!(remaining(&waiting, 6_000), Duration::ZERO);
}
