//! Sandboxes, their agents, and whether they are alive.

use std::time::Duration;

use futures_util::TryStreamExt as _;
use tandem_client::{Agent, AgentQuery, DiscoveredAgent, Liveness, Sandbox};
use tandem_proto::registry::v1::{
    DiscoverAgentsRequest, ListSandboxesRequest, registry_service_client::RegistryServiceClient,
};

use crate::stage::{Stage, WORKSPACE};

/// Short, so that a test can wait for it.
const HEARTBEAT_TIMEOUT_MS: u64 = 2_000;

fn agent(name: &str, role: &str, capabilities: &[&str]) -> Agent {
    Agent {
        name: name.into(),
        role: role.into(),
        capabilities: capabilities.iter().map(|&capability| capability.into()).collect(),
    }
}

async fn liveness(stage: &Stage, sandbox: &str) -> Liveness {
    stage.client.registry(WORKSPACE).get(sandbox).await.unwrap().liveness()
}

async fn wait_past_the_timeout() {
    tokio::time::sleep(Duration::from_millis(HEARTBEAT_TIMEOUT_MS + 200)).await;
}

#[tokio::test]
async fn a_sandbox_is_online_by_heartbeat_or_by_stream() {
    let stage = Stage::set_up(&["beats", "listens", "silent"], |config| {
        config.limits.heartbeat_timeout_ms = HEARTBEAT_TIMEOUT_MS;
    })
    .await;
    assert_eq!(liveness(&stage, "silent").await, Liveness::Online, "registering counts as a heartbeat");
    let stream = stage.subscribe("listens").await;
    wait_past_the_timeout().await;
    let before = stage.client.registry(WORKSPACE).get("beats").await.unwrap().last_heartbeat_time;
    stage.client.registry(WORKSPACE).heartbeat("beats").await.unwrap();
    assert_eq!(liveness(&stage, "beats").await, Liveness::Online);
    assert_eq!(liveness(&stage, "listens").await, Liveness::Online);
    assert_eq!(liveness(&stage, "silent").await, Liveness::Offline);
    let after = stage.client.registry(WORKSPACE).get("beats").await.unwrap().last_heartbeat_time;
    assert!(
        after.unwrap().seconds * 1_000 + i64::from(after.unwrap().nanos) / 1_000_000
            >= before.unwrap().seconds * 1_000
                + i64::from(before.unwrap().nanos) / 1_000_000
                + HEARTBEAT_TIMEOUT_MS as i64
    );
    let alive = AgentQuery { liveness: Some(Liveness::Online), ..AgentQuery::default() };
    assert!(found(&stage, alive).await.is_empty(), "these sandboxes have no agents");
    drop(stream);
    wait_past_the_timeout().await;
    assert_eq!(liveness(&stage, "listens").await, Liveness::Offline);
}

/// `sandbox/agent`, sorted.
async fn found(stage: &Stage, query: AgentQuery) -> Vec<String> {
    let agents: Vec<DiscoveredAgent> = stage.client.registry(WORKSPACE).discover(query).try_collect().await.unwrap();
    agents.into_iter().map(|found| format!("{}/{}", found.sandbox_id, found.agent.unwrap().name)).collect()
}

#[tokio::test]
async fn agents_are_found_by_role_capability_name_and_liveness() {
    let stage = Stage::set_up(&[], |config| config.limits.heartbeat_timeout_ms = HEARTBEAT_TIMEOUT_MS).await;
    let registry = stage.client.registry(WORKSPACE);
    let coder = agent("cody", "coder", &["rust", "python"]);
    let tester = agent("tess", "tester", &["python"]);
    registry.register_with_agents("one", vec![coder, tester]).await.unwrap();
    registry.register_with_agents("two", vec![agent("cody", "coder", &["go"])]).await.unwrap();
    registry.register_with_agents("three", Vec::new()).await.unwrap();

    let text = |value: &str| Some(value.to_owned());
    let query = AgentQuery::default;
    let all = ["one/cody", "one/tess", "two/cody"];
    assert_eq!(found(&stage, query()).await, all);
    assert_eq!(found(&stage, AgentQuery { role: text("coder"), ..query() }).await, ["one/cody", "two/cody"]);
    assert_eq!(found(&stage, AgentQuery { capability: text("python"), ..query() }).await, ["one/cody", "one/tess"]);
    assert_eq!(found(&stage, AgentQuery { agent_name: text("cody"), ..query() }).await, ["one/cody", "two/cody"]);
    let both = AgentQuery { role: text("coder"), capability: text("python"), ..query() };
    assert_eq!(found(&stage, both).await, ["one/cody"], "all must hold for the same agent");
    assert!(found(&stage, AgentQuery { role: text("tester"), capability: text("rust"), ..query() }).await.is_empty());

    wait_past_the_timeout().await;
    registry.heartbeat("two").await.unwrap();
    let with = |liveness| AgentQuery { liveness: Some(liveness), ..query() };
    assert_eq!(found(&stage, with(Liveness::Online)).await, ["two/cody"]);
    assert_eq!(found(&stage, with(Liveness::Offline)).await, ["one/cody", "one/tess"]);
    registry.unregister("one").await.unwrap();
    assert_eq!(found(&stage, query()).await, ["two/cody"]);
}

#[tokio::test]
async fn registering_again_replaces_agents_and_labels_and_keeps_the_inbox() {
    let stage = Stage::with(&["alice"]).await;
    let registry = stage.client.registry(WORKSPACE);
    let sandbox = |label: &str, agents| Sandbox {
        sandbox_id: "bob".into(),
        agents,
        labels: [("team".to_owned(), label.to_owned())].into(),
        ..Sandbox::default()
    };
    let (first, created) = registry.register(sandbox("red", vec![agent("a", "", &[])])).await.unwrap();
    assert!(created && first.workspace_id == WORKSPACE && first.create_time.is_some());
    stage.publish(tandem_tests::direct("alice", "bob", "waits")).await;
    let (second, created) = registry.register(sandbox("blue", vec![agent("b", "", &[])])).await.unwrap();
    assert!(!created);
    assert_eq!((second.labels["team"].as_str(), second.agents[0].name.as_str()), ("blue", "b"));
    assert_eq!((second.create_time, second.pending_messages), (first.create_time, 1));
    let stage = stage.crash_and_start().await;
    let kept = stage.client.registry(WORKSPACE).get("bob").await.unwrap();
    assert_eq!((kept.labels["team"].as_str(), kept.agents.len(), kept.pending_messages), ("blue", 1, 1));
}

#[tokio::test]
async fn sandboxes_and_agents_are_listed_page_by_page() {
    let stage = Stage::with(&[]).await;
    let registry = stage.client.registry(WORKSPACE);
    let ids: Vec<String> = (0..25).map(|number| format!("s{number:02}")).collect();
    for id in &ids {
        registry.register_with_agents(id, vec![agent("a", "r", &[]), agent("b", "r", &[])]).await.unwrap();
    }
    let mut service = RegistryServiceClient::new(stage.broker.channel());
    let (mut listed, mut sizes, mut token) = (Vec::new(), Vec::new(), String::new());
    loop {
        let request = ListSandboxesRequest { workspace_id: WORKSPACE.into(), page_size: 10, page_token: token };
        let page = service.list_sandboxes(request).await.unwrap().into_inner();
        sizes.push(page.sandboxes.len());
        listed.extend(page.sandboxes.into_iter().map(|sandbox| sandbox.sandbox_id));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!((listed, sizes), (ids.clone(), vec![10, 10, 5]));
    let (mut agents, mut token) = (Vec::new(), String::new());
    loop {
        let workspace_id = WORKSPACE.to_owned();
        let request = DiscoverAgentsRequest { workspace_id, page_size: 7, page_token: token, ..Default::default() };
        let page = service.discover_agents(request).await.unwrap().into_inner();
        agents.extend(page.agents.into_iter().map(|found| (found.sandbox_id, found.agent.unwrap().name)));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    let expected: Vec<_> = ids.iter().flat_map(|id| ["a", "b"].map(|name| (id.clone(), name.to_owned()))).collect();
    assert_eq!(agents, expected);
}

#[tokio::test]
async fn workspaces_are_listed_over_all_shards_page_by_page() {
    let stage = Stage::set_up(&[], |config| config.storage.shards = 4).await;
    let workspaces = stage.client.workspaces();
    let mut ids: Vec<String> = (0..21).map(|number| format!("w{number:02}")).collect();
    for id in &ids {
        workspaces.create(id).await.unwrap();
    }
    ids.insert(0, WORKSPACE.to_owned());
    let all: Vec<_> = workspaces.list().try_collect().await.unwrap();
    let shards: std::collections::BTreeSet<u32> = all.iter().map(|workspace| workspace.shard_id).collect();
    assert_eq!(shards.into_iter().collect::<Vec<_>>(), [0, 1, 2, 3]);
    let mut service =
        tandem_proto::workspace::v1::workspace_service_client::WorkspaceServiceClient::new(stage.broker.channel());
    let (mut listed, mut token) = (Vec::new(), String::new());
    loop {
        let request = tandem_proto::workspace::v1::ListWorkspacesRequest { page_size: 5, page_token: token };
        let page = service.list_workspaces(request).await.unwrap().into_inner();
        assert!(page.workspaces.len() <= 5);
        listed.extend(page.workspaces.into_iter().map(|workspace| workspace.workspace_id));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(listed, ids);
    workspaces.delete("w05").await.unwrap();
    let left: Vec<_> = workspaces.list().try_collect().await.unwrap();
    assert_eq!(left.len(), 21);
}

#[tokio::test]
async fn the_server_says_what_it_is() {
    let stage = Stage::set_up(&[], |config| config.limits.max_batch_messages = 77).await;
    let info = stage.client.server_info().await.unwrap();
    assert_eq!(
        (info.version.as_str(), info.node_id, info.storage_engine.as_str()),
        (env!("CARGO_PKG_VERSION"), 1, "rocksdb")
    );
    assert_eq!(
        info.shards.iter().map(|shard| (shard.shard_id, shard.leader_node_id)).collect::<Vec<_>>(),
        [(0, 1), (1, 1)]
    );
    assert!(info.shards.iter().all(|shard| shard.applied_index <= shard.last_log_index && shard.term > 0));
    assert_eq!(info.limits.unwrap().max_batch_messages, 77);
    let stage = stage.crash_and_start().await;
    let again = stage.client.server_info().await.unwrap();
    assert_eq!(again.cluster_id, info.cluster_id, "the cluster is the same after a restart");
    assert!(again.start_time.unwrap().seconds >= info.start_time.unwrap().seconds);
}
