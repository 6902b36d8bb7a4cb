//! `/collaboration`: who takes part, and ending that somebody does.

use serde_json::json;
use tandem_client::{MessageBuilder, NewKey, Sandbox, SubscribeOptions, to_sandbox};

use crate::{
    collaboration::client,
    stage::{Stage, refused, until},
};

const W: &str = "workspace_id=default";
const DISCONNECT: &str = "/api/v1/collaboration/disconnect";

/// With sandboxes a and b, of which b has a message that waits, and a key of b's.
async fn stage() -> (Stage, String) {
    let stage = Stage::start().await;
    let admin = client(&stage, &stage.admin);
    for id in ["a", "b"] {
        let sandbox = Sandbox { sandbox_id: id.into(), ..Sandbox::default() };
        admin.registry("default").register(sandbox).await.unwrap();
    }
    let message = MessageBuilder::notification("a", to_sandbox("b"), "{}").build();
    admin.publisher("default").publish(message).await.unwrap();
    let key = NewKey {
        subject: "b".to_owned(),
        roles: vec!["sandbox".to_owned()],
        workspace_id: Some("default".to_owned()),
        sandbox_id: Some("b".to_owned()),
        expires_in: None,
    };
    let (_, secret) = admin.keys().create(key).await.unwrap();
    (stage, secret)
}

#[tokio::test]
async fn who_is_there_and_what_waits_is_shown() {
    let (stage, _) = stage().await;
    let status = stage.ask("GET", &format!("/api/v1/collaboration/status?{W}"), "").await.json();
    assert_eq!((&status["sandboxes"], &status["pending_messages"]), (&json!(2), &json!(1)), "{status}");
    let list = stage.ask("GET", &format!("/api/v1/collaboration/sandboxes?{W}"), "").await.json();
    assert_eq!(
        (&list["sandboxes"][1]["sandbox_id"], &list["sandboxes"][1]["pending_messages"]),
        (&json!("b"), &json!(1))
    );
    let some = stage.ask("GET", &format!("/api/v1/collaboration/sandboxes?{W}&limit=1"), "").await.json();
    assert_eq!((some["sandboxes"].as_array().unwrap().len(), &some["truncated"]), (1, &json!(true)));
    for path in ["status", "sandboxes"] {
        let answer = stage.ask("GET", &format!("/api/v1/collaboration/{path}?workspace_id=nowhere"), "").await;
        refused(&answer, 404, "UNKNOWN_WORKSPACE");
        refused(&stage.ask("GET", &format!("/api/v1/collaboration/{path}"), "").await, 400, "INVALID_FIELD");
    }
}

#[tokio::test]
async fn who_is_disconnected_hears_no_more() {
    let (stage, secret) = stage().await;
    let own = client(&stage, &secret);
    let mut inbox = own.subscribe("default", "b", SubscribeOptions::default()).await.unwrap();
    inbox.next().await.unwrap().unwrap();
    let wanted = json!({"workspace_id": "default", "sandbox_id": "b", "reason": "it runs wild"}).to_string();
    let done = stage.ask("POST", DISCONNECT, &wanted).await;
    assert_eq!(done.status, 200, "{done:?}");
    let done = done.json();
    assert_eq!(
        (done["revoked_api_keys"].as_array().unwrap().len(), &done["unregistered"]),
        (1, &json!(false)),
        "{done}"
    );
    let ended = tokio::time::timeout(std::time::Duration::from_secs(5), inbox.next()).await.unwrap();
    assert!(ended.is_err(), "its stream ends: {ended:?}");
    until("its key is refused", async || own.registry("default").get("b").await.is_err()).await;
    // The inbox is kept, until it is to go, too.
    let admin = client(&stage, &stage.admin);
    assert_eq!(admin.registry("default").get("b").await.unwrap().pending_messages, 1);
    let wanted = json!({"workspace_id": "default", "sandbox_id": "b", "unregister": true}).to_string();
    let done = stage.ask("POST", DISCONNECT, &wanted).await.json();
    assert_eq!((&done["unregistered"], &done["abandoned_messages"]), (&json!(true), &json!(1)), "{done}");
    refused(&stage.ask("POST", DISCONNECT, &wanted).await, 404, "UNKNOWN_SANDBOX");
    let developer = stage.token(&["--role", "developer"]).await;
    refused(&stage.as_who(&developer, ("POST", DISCONNECT), &[], &wanted).await, 403, "ROLE_MISSING");
    let long = json!({"workspace_id": "default", "sandbox_id": "a", "reason": "x".repeat(501)}).to_string();
    refused(&stage.ask("POST", DISCONNECT, &long).await, 400, "INVALID_FIELD");
}
