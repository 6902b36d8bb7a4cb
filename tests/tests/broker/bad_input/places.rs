//! Workspaces, sandboxes, messages and pages that are not there.

use futures_util::TryStreamExt as _;
use tandem_client::{Agent, Code, Error, HistoryQuery, Sandbox};
use tandem_proto::{
    messaging::v1::{ListMessagesRequest, history_service_client::HistoryServiceClient},
    registry::v1::{DiscoverAgentsRequest, ListSandboxesRequest, registry_service_client::RegistryServiceClient},
};
use tandem_tests::{Refused, Subscriber, direct};
use tonic::Status;

use crate::stage::{Stage, WORKSPACE};

#[tokio::test]
async fn an_unknown_workspace_is_named_by_every_call() {
    let stage = Stage::with(&["alice", "bob"]).await;
    let (client, nowhere) = (&stage.client, "nowhere");
    let registry = client.registry(nowhere);
    let mut errors: Vec<Error> = vec![
        client.publisher(nowhere).publish(direct("alice", "bob", "x")).await.unwrap_err(),
        client.subscribe(nowhere, "bob", Default::default()).await.unwrap_err(),
        client.history(nowhere).get("m").await.unwrap_err(),
        client.history(nowhere).list(HistoryQuery::default()).try_collect::<Vec<_>>().await.unwrap_err(),
        registry.register_with_agents("carol", Vec::new()).await.unwrap_err(),
        registry.heartbeat("alice").await.unwrap_err(),
        registry.get("alice").await.unwrap_err(),
        registry.list().try_collect::<Vec<_>>().await.unwrap_err(),
        registry.discover(Default::default()).try_collect::<Vec<_>>().await.unwrap_err(),
        registry.unregister("alice").await.unwrap_err(),
        client.workspaces().get(nowhere).await.unwrap_err(),
        client.workspaces().delete(nowhere).await.unwrap_err(),
    ];
    let stream = client.publisher(nowhere).stream(Default::default());
    errors.push(stream.send(direct("alice", "bob", "x")).await.unwrap().await.unwrap_err());
    for error in errors {
        let says = ["workspace \"nowhere\" does not exist", "create it, or list those there are"];
        Refused::from(error).expect(Code::NotFound, "UNKNOWN_WORKSPACE", &says);
    }
}

#[tokio::test]
async fn an_unknown_sandbox_is_named_by_every_call() {
    let stage = Stage::with(&["alice"]).await;
    let registry = stage.client.registry(WORKSPACE);
    let errors: Vec<Error> = vec![
        stage.try_publish(direct("alice", "nobody", "x")).await.unwrap_err(),
        stage.try_publish(direct("nobody", "alice", "x")).await.unwrap_err(),
        stage.client.subscribe(WORKSPACE, "nobody", Default::default()).await.unwrap_err(),
        registry.heartbeat("nobody").await.unwrap_err(),
        registry.get("nobody").await.unwrap_err(),
        registry.unregister("nobody").await.unwrap_err(),
    ];
    for error in errors {
        let says = ["sandbox \"nobody\" is not registered", "register it first"];
        Refused::from(error).expect(Code::NotFound, "UNKNOWN_SANDBOX", &says);
    }
    assert_eq!(stage.client.workspaces().get(WORKSPACE).await.unwrap().last_sequence, 0, "nothing was published");
}

#[tokio::test]
async fn an_unknown_message_is_named() {
    let stage = Stage::with(&["alice", "bob"]).await;
    stage.publish(direct("alice", "bob", "x")).await;
    for id in ["never", "seq-99", "seq-0", "seq-x", "seq-18446744073709551615"] {
        let error = stage.client.history(WORKSPACE).get(id).await.unwrap_err();
        Refused::from(error).expect(
            Code::NotFound,
            "UNKNOWN_MESSAGE",
            &[id, "does not exist in workspace \"default\""],
        );
    }
}

#[tokio::test]
async fn ids_that_are_none_are_refused_before_anything_is_looked_up() {
    let stage = Stage::with(&["alice"]).await;
    for id in ["", " ", "../etc", "-x", "é", &"x".repeat(129)] {
        let errors = [
            stage.client.workspaces().create(id).await.unwrap_err(),
            stage.client.registry(WORKSPACE).register_with_agents(id, Vec::new()).await.unwrap_err(),
            stage.client.registry(id).get("alice").await.unwrap_err(),
            stage.client.subscribe(WORKSPACE, id, Default::default()).await.unwrap_err(),
        ];
        for error in errors {
            let refused = Refused::from(error);
            refused.expect(Code::InvalidArgument, "INVALID_FIELD", &["_id"]);
            assert_eq!(refused.fields.len(), 1, "{refused:?}");
        }
    }
    let error = stage.client.workspaces().create(WORKSPACE).await.unwrap_err();
    Refused::from(error).expect(Code::AlreadyExists, "WORKSPACE_EXISTS", &["\"default\""]);
}

#[tokio::test]
async fn a_sandbox_that_cannot_be_is_refused() {
    let stage = Stage::with(&[]).await;
    let agent = |name: &str| Agent { name: name.into(), ..Agent::default() };
    let sandbox = |agents| Sandbox { sandbox_id: "s".into(), agents, ..Sandbox::default() };
    let long_capability = Agent { capabilities: vec!["c".repeat(129)], ..agent("a") };
    let wrong = [
        (sandbox(vec![agent("a"), agent("a")]), "two agents have the name \"a\""),
        (sandbox(vec![agent("any")]), "\"any\" cannot be used"),
        (sandbox(vec![agent("")]), "\"\" cannot be used"),
        (sandbox((0..257).map(|n| agent(&n.to_string())).collect()), "257 agents; at most 256"),
        (sandbox(vec![long_capability]), "longer than 128 bytes"),
        (Sandbox { pending_messages: 1, ..sandbox(Vec::new()) }, "set by the broker; leave them empty"),
    ];
    for (sandbox, says) in wrong {
        let error = stage.client.registry(WORKSPACE).register(sandbox).await.unwrap_err();
        Refused::from(error).expect(Code::InvalidArgument, "INVALID_FIELD", &[says]);
    }
}

#[tokio::test]
async fn page_sizes_tokens_and_filters_are_checked() {
    let stage = Stage::with(&[]).await;
    let workspace_id = WORKSPACE.to_owned();
    let list = ListMessagesRequest { workspace_id: workspace_id.clone(), ..Default::default() };
    let sandboxes = ListSandboxesRequest { workspace_id: workspace_id.clone(), ..Default::default() };
    let discover = DiscoverAgentsRequest { workspace_id, ..Default::default() };
    let mut history = HistoryServiceClient::new(stage.broker.channel());
    let mut registry = RegistryServiceClient::new(stage.broker.channel());
    let refusals: [(Status, &str, &str); 6] = [
        (
            history.list_messages(ListMessagesRequest { page_size: -1, ..list.clone() }).await.unwrap_err(),
            "page_size is -1",
            "0 to 1000",
        ),
        (
            history.list_messages(ListMessagesRequest { page_size: 1001, ..list.clone() }).await.unwrap_err(),
            "page_size is 1001",
            "0 to 1000",
        ),
        (
            registry.list_sandboxes(ListSandboxesRequest { page_size: 1001, ..sandboxes.clone() }).await.unwrap_err(),
            "page_size is 1001",
            "0 to 1000",
        ),
        (
            registry.discover_agents(DiscoverAgentsRequest { liveness: 9, ..discover.clone() }).await.unwrap_err(),
            "liveness 9",
            "0, 1 or 2",
        ),
        (
            registry.discover_agents(DiscoverAgentsRequest { role: "r".repeat(129), ..discover }).await.unwrap_err(),
            "role",
            "longer than 128",
        ),
        (
            registry.list_sandboxes(ListSandboxesRequest { page_token: "?".into(), ..sandboxes }).await.unwrap_err(),
            "page_token",
            "\"?\"",
        ),
    ];
    for (status, value, advice) in refusals {
        Refused::from(status).expect(Code::InvalidArgument, "INVALID_FIELD", &[value, advice]);
    }
    let status = history.list_messages(ListMessagesRequest { page_token: "zzz".into(), ..list }).await.unwrap_err();
    Refused::from(status).expect(Code::InvalidArgument, "INVALID_PAGE_TOKEN", &["\"zzz\" is not from a listing"]);
}

#[tokio::test]
async fn a_subscription_to_nowhere_ends_with_the_reason() {
    let stage = Stage::with(&["bob"]).await;
    for (workspace, sandbox, reason) in
        [("nowhere", "bob", "UNKNOWN_WORKSPACE"), (WORKSPACE, "nobody", "UNKNOWN_SANDBOX")]
    {
        let mut subscriber = Subscriber::silent(stage.broker.channel()).await;
        subscriber.send_open(workspace, sandbox);
        subscriber.end().await.expect(Code::NotFound, reason, &[]);
    }
}
