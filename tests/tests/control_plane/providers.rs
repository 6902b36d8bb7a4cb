//! LLM providers and MCP servers: set up per workspace, with secrets that nobody sees again.

use std::fs;

use serde_json::{Value, json};
use tandem_control_plane::SecretsConfig;

use crate::stage::{Stage, refused};

const PROVIDERS: &str = "/api/v1/llm-providers";
const SERVERS: &str = "/api/v1/mcp-servers";
const KEY: &str = "sk-abcdefghijklmnop-hidden-1234";

async fn stage() -> Stage {
    let stage = Stage::keeping_secrets(|_| {}).await;
    for id in ["shop", "other"] {
        let made = stage.ask("POST", "/api/v1/workspaces", &json!({"id": id, "name": id}).to_string()).await;
        assert_eq!(made.status, 201, "{made:?}");
    }
    stage
}

fn provider(more: Value) -> String {
    let mut body = json!({"workspace_id": "shop", "name": "main", "kind": "openai", "api_key": KEY});
    for (key, value) in more.as_object().unwrap() {
        body[key] = value.clone();
    }
    body.to_string()
}

#[tokio::test]
async fn a_provider_is_set_up_changed_and_deleted_and_its_key_is_never_shown() {
    let stage = stage().await;
    let lines = [("Idempotency-Key", "k1")];
    let wanted = provider(json!({"headers": {"X-Org": {"secret": "hidden-org"}, "X-Team": "a"}}));
    let made = stage.as_who(&stage.admin, ("POST", PROVIDERS), &lines, &wanted).await;
    assert_eq!(made.status, 201, "{made:?}");
    let again = stage.as_who(&stage.admin, ("POST", PROVIDERS), &lines, &wanted).await;
    assert_eq!((again.status, again.header("idempotent-replayed")), (201, Some("true")), "{again:?}");
    let shown = made.json();
    assert_eq!((&shown["has_api_key"], &shown["api_key_last_four"]), (&json!(true), &json!("1234")));
    assert_eq!(shown["headers"], json!({"X-Org": {"has_secret": true}, "X-Team": "a"}));
    assert_eq!(shown["base_url"], "https://api.openai.com/v1");
    let place = made.header("location").unwrap().to_owned();
    assert_eq!(place, format!("{PROVIDERS}/{}", shown["id"].as_str().unwrap()));
    refused(&stage.ask("POST", PROVIDERS, &provider(json!({}))).await, 409, "NAME_TAKEN");
    // The same name in another workspace is another one.
    let other = stage.ask("POST", PROVIDERS, &provider(json!({"workspace_id": "other"}))).await;
    assert_eq!(other.status, 201, "{other:?}");
    let tag = made.header("etag").unwrap().to_owned();
    let known = stage.as_who(&stage.admin, ("GET", &place), &[("If-None-Match", &tag)], "").await;
    assert_eq!((known.status, known.body.as_str()), (304, ""));
    let patch = r#"{"models":["a","b"],"default_model":"b","headers":{"X-Team":null,"X-Org":{"has_secret":true}}}"#;
    let changed = stage.as_who(&stage.admin, ("PATCH", &place), &[("If-Match", &tag)], patch).await;
    assert_eq!(changed.status, 200, "{changed:?}");
    assert_eq!(
        (&changed.json()["has_api_key"], &changed.json()["headers"]),
        (&json!(true), &json!({"X-Org": {"has_secret": true}}))
    );
    refused(
        &stage.as_who(&stage.admin, ("PATCH", &place), &[("If-Match", &tag)], patch).await,
        412,
        "REVISION_CHANGED",
    );
    let without = stage.ask("PATCH", &place, r#"{"api_key":null}"#).await.json();
    assert_eq!(without["has_api_key"], false);
    stage.ask("PATCH", &place, &json!({"api_key": KEY}).to_string()).await;
    let list = stage.ask("GET", &format!("{PROVIDERS}?workspace_id=shop"), "").await;
    assert_eq!(list.json()["llm_providers"].as_array().unwrap().len(), 1);
    for answer in [&made, &again, &changed, &list] {
        assert!(!answer.body.contains("hidden") && !answer.head.contains("hidden"), "{answer:?}");
    }
    // Nor is it in the database, its log included.
    for entry in fs::read_dir(stage.home.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() && path.file_name().unwrap().to_string_lossy().starts_with("control-plane.db") {
            let bytes = fs::read(&path).unwrap();
            assert!(!bytes.windows(6).any(|part| part == b"hidden"), "{}", path.display());
        }
    }
    assert_eq!(stage.ask("DELETE", &place, "").await.status, 204);
    refused(&stage.ask("GET", &place, "").await, 404, "UNKNOWN_LLM_PROVIDER");
}

#[tokio::test]
async fn the_default_of_a_workspace_is_there_before_it_is_named_and_goes_only_knowingly() {
    let stage = stage().await;
    let settings = r#"{"settings":{"default_llm_provider":"main"}}"#;
    let unknown = refused(&stage.ask("PATCH", "/api/v1/workspaces/shop", settings).await, 404, "UNKNOWN_LLM_PROVIDER");
    assert_eq!(unknown["errors"][0]["field"], "settings.default_llm_provider");
    let place = stage.ask("POST", PROVIDERS, &provider(json!({}))).await.header("location").unwrap().to_owned();
    assert_eq!(stage.ask("PATCH", "/api/v1/workspaces/shop", settings).await.status, 200);
    refused(&stage.ask("PATCH", "/api/v1/workspaces/other", settings).await, 404, "UNKNOWN_LLM_PROVIDER");
    refused(&stage.ask("DELETE", &place, "").await, 409, "LLM_PROVIDER_IS_DEFAULT");
    refused(&stage.ask("PATCH", &place, r#"{"name":"x"}"#).await, 409, "LLM_PROVIDER_IS_DEFAULT");
    assert_eq!(stage.ask("DELETE", &format!("{place}?unset_default=true"), "").await.status, 204);
    let workspace = stage.ask("GET", "/api/v1/workspaces/shop", "").await.json();
    assert_eq!(workspace["settings"].get("default_llm_provider"), None, "{workspace}");
    // What was set up in a workspace goes with it.
    stage.ask("POST", PROVIDERS, &provider(json!({}))).await;
    assert_eq!(stage.ask("DELETE", "/api/v1/workspaces/shop?force=true", "").await.status, 204);
    refused(&stage.ask("GET", &format!("{PROVIDERS}?workspace_id=shop"), "").await, 404, "UNKNOWN_WORKSPACE");
    let left = stage.ask("GET", PROVIDERS, "").await.json();
    assert!(left["llm_providers"].as_array().unwrap().is_empty(), "{left}");
}

#[tokio::test]
async fn tools_are_set_up_for_both_transports() {
    let stage = stage().await;
    let stdio = json!({"workspace_id": "shop", "name": "filesystem", "transport": "stdio", "command": "npx",
        "args": ["-y", "fs"], "env": {"TOKEN": {"secret": "hidden"}, "LOG": "warn"}});
    let made = stage.ask("POST", SERVERS, &stdio.to_string()).await;
    assert_eq!((made.status, &made.json()["env"]["TOKEN"]), (201, &json!({"has_secret": true})), "{made:?}");
    let http = json!({"workspace_id": "shop", "name": "web", "transport": "http", "url": "https://mcp.example/x"});
    assert_eq!(stage.ask("POST", SERVERS, &http.to_string()).await.status, 201);
    let list = stage.ask("GET", &format!("{SERVERS}?workspace_id=shop&sort=name&limit=1"), "").await.json();
    assert_eq!(list["mcp_servers"][0]["name"], "filesystem");
    let cursor = list["next_cursor"].as_str().unwrap();
    let next = stage.ask("GET", &format!("{SERVERS}?workspace_id=shop&sort=name&limit=1&cursor={cursor}"), "").await;
    assert_eq!(next.json()["mcp_servers"][0]["name"], "web", "{next:?}");
    refused(
        &stage.ask("GET", &format!("{SERVERS}?sort=name&limit=1&cursor={cursor}"), "").await,
        400,
        "INVALID_CURSOR",
    );
    let place = made.header("location").unwrap().to_owned();
    let wrong = refused(&stage.ask("PATCH", &place, r#"{"transport":"http"}"#).await, 400, "INVALID_FIELD");
    assert_eq!(wrong["errors"][0]["field"], "url");
    let patch = r#"{"env":{"LOG":null,"MODE":"fast"}}"#;
    let changed = stage.ask("PATCH", &place, patch).await.json();
    assert_eq!(changed["env"], json!({"MODE": "fast", "TOKEN": {"has_secret": true}}));
    assert_eq!(stage.ask("DELETE", &place, "").await.status, 204);
    refused(&stage.ask("DELETE", &place, "").await, 404, "UNKNOWN_MCP_SERVER");
}

#[tokio::test]
async fn what_is_wrong_is_named_and_leaves_nothing() {
    let stage = stage().await;
    for (body, field) in [
        (provider(json!({"name": ""})), "name"),
        (provider(json!({"kind": "nonsense"})), "kind"),
        (provider(json!({"kind": "custom"})), "base_url"),
        (provider(json!({"base_url": "https://me:hidden@a"})), "base_url"),
        (provider(json!({"api_key": "hidden\nline"})), "api_key"),
        (provider(json!({"api_key": 77_777_777})), "api_key"),
        (provider(json!({"headers": {"a b": "c"}})), "headers"),
        (provider(json!({"headers": {"X": {"has_secret": true}}})), "headers.X"),
        (provider(json!({"default_model": "a", "models": ["b"]})), "default_model"),
        (provider(json!({"nonsense": 1})), "nonsense"),
    ] {
        let answer = stage.ask("POST", PROVIDERS, &body).await;
        let problem = refused(&answer, 400, "INVALID_FIELD");
        assert_eq!(problem["errors"][0]["field"], field, "{problem}");
        assert!(!answer.body.contains("hidden") && !answer.body.contains("77777777"), "{answer:?}");
    }
    refused(
        &stage.ask("POST", PROVIDERS, &provider(json!({"workspace_id": "nowhere"}))).await,
        404,
        "UNKNOWN_WORKSPACE",
    );
    refused(&stage.ask("GET", &format!("{PROVIDERS}/nothing%00"), "").await, 404, "UNKNOWN_LLM_PROVIDER");
    let bound = stage.token(&["--role", "developer", "--bind-workspace", "other"]).await;
    let elsewhere = stage.as_who(&bound, ("POST", PROVIDERS), &[], &provider(json!({}))).await;
    refused(&elsewhere, 403, "OTHER_WORKSPACE");
    let auditor = stage.token(&["--role", "auditor"]).await;
    refused(&stage.as_who(&auditor, ("POST", PROVIDERS), &[], &provider(json!({}))).await, 403, "ROLE_MISSING");
    assert!(stage.ask("GET", PROVIDERS, "").await.json()["llm_providers"].as_array().unwrap().is_empty());
    // What is in another workspace is not there for who is bound to one.
    let place = stage.ask("POST", PROVIDERS, &provider(json!({}))).await.header("location").unwrap().to_owned();
    refused(&stage.as_who(&bound, ("GET", &place), &[], "").await, 404, "UNKNOWN_LLM_PROVIDER");
    let own = stage.as_who(&bound, ("GET", PROVIDERS), &[], "").await.json();
    assert!(own["llm_providers"].as_array().unwrap().is_empty(), "{own}");
}

#[tokio::test]
async fn without_a_key_no_secret_is_taken_and_all_else_goes_on() {
    let stage = Stage::with(|config| config.secrets = SecretsConfig::default()).await;
    let made = stage.ask("POST", "/api/v1/workspaces", r#"{"id":"shop","name":"shop"}"#).await;
    assert_eq!(made.status, 201);
    refused(&stage.ask("POST", PROVIDERS, &provider(json!({}))).await, 409, "SECRETS_NOT_CONFIGURED");
    let without = json!({"workspace_id": "shop", "name": "local", "kind": "ollama"}).to_string();
    let made = stage.ask("POST", PROVIDERS, &without).await;
    assert_eq!((made.status, &made.json()["has_api_key"]), (201, &json!(false)), "{made:?}");
}
