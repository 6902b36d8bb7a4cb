//! Contexts: `tandem context`, and what counts of them, the command line and the environment.

use std::{collections::BTreeMap, fs};

use serde_json::{Value, json};

use crate::{
    desk::Desk,
    user::{User, documents, web_server},
};

/// Where nobody listens.
const NOWHERE: &str = "http://127.0.0.1:9";

/// Value and origin of a setting, and why it is withheld.
fn shown(rows: &[Value], setting: &str) -> (String, String, String) {
    let row = rows.iter().find(|row| row["setting"] == setting).unwrap();
    let text = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
    (text("value"), text("from"), text("withheld"))
}

fn triple(value: &str, from: &str, withheld: &str) -> (String, String, String) {
    (value.to_owned(), from.to_owned(), withheld.to_owned())
}

#[tokio::test]
async fn a_context_says_where_and_who_unless_somebody_says_otherwise() {
    let desk = Desk::with(&["alice"]).await;
    let user = User::new();
    let server = desk.server();
    assert_eq!(user.refused(&[], &["context", "use", "here"]), "UNKNOWN_CONTEXT");
    assert_eq!(user.refused(&[], &["context", "add", "here"]), "USAGE");
    // It would be shown nowhere.
    assert_eq!(user.refused(&[], &["context", "add", "here", "--token-file", "token"]), "USAGE");
    // Nobody could listen there.
    for url in ["http://127.0.0.1:bad", "http://127.0.0.1:99999", "http://127.0.0.1:0", "127.0.0.1:8001", "http://"] {
        for option in ["--server", "--control-plane"] {
            assert_eq!(user.refused(&[], &["context", "add", "here", option, url]), "USAGE", "{option} {url}");
        }
    }
    for format in [&["--output", "json"][..], &["--output=json"]] {
        let done = user.run(&[], &[format, &["context", "add"]].concat());
        let error: Value = serde_json::from_slice(&done.stderr).unwrap();
        assert_eq!(error["code"], "USAGE");
    }
    user.rows(&[], &["context", "add", "here", "--server", &server]);
    user.rows(&[], &["context", "add", "away", "--server", NOWHERE, "--workspace", "shop"]);
    assert_eq!(user.refused(&[], &["context", "add", "away", "--server", &server]), "CONTEXT_EXISTS");
    // The first one is used, and no address is given.
    let names: Vec<_> =
        user.rows(&[], &["context", "list"]).iter().map(|row| (row["name"].clone(), row["current"].clone())).collect();
    assert_eq!(names, [(json!("away"), json!(false)), (json!("here"), json!(true))]);
    assert_eq!(user.rows(&[], &["sandbox", "list"])[0]["sandbox_id"], "alice");

    user.rows(&[], &["context", "use", "away"]);
    let rows = user.rows(&[("TANDEM_WORKSPACE", "lab")], &["context", "show", "--server", "http://b:1"]);
    assert_eq!(shown(&rows, "server"), triple("http://b:1", "command line", ""));
    assert_eq!(shown(&rows, "workspace"), triple("lab", "environment", ""));
    assert_eq!(shown(&rows, "control_plane"), triple("http://127.0.0.1:8000", "built in", ""));
    assert_eq!(shown(&rows, "token_file"), triple("", "built in", ""));
    user.rows(&[], &["context", "remove", "away"]);
    assert_eq!(user.refused(&[], &["--context", "away", "info"]), "UNKNOWN_CONTEXT");
}

#[tokio::test]
async fn a_context_of_the_command_line_counts_before_the_environment() {
    let desk = Desk::with(&[]).await;
    let user = User::new();
    let server = desk.server();
    user.rows(&[], &["context", "add", "here", "--server", &server, "--workspace", "default"]);
    user.rows(&[], &["context", "add", "away", "--server", NOWHERE]);
    let exported = [("TANDEM_SERVER", server.as_str()), ("TANDEM_WORKSPACE", "nowhere")];
    assert_eq!(user.refused(&exported, &["--context", "away", "info"]), "UNREACHABLE");
    assert_eq!(user.refused(&exported, &["info", "--context", "away"]), "UNREACHABLE");
    user.rows(
        &[("TANDEM_SERVER", NOWHERE), ("TANDEM_WORKSPACE", "nowhere")],
        &["--context", "here", "sandbox", "list"],
    );
    user.rows(&exported, &["--context", "away", "--server", &server, "info"]);
    // One that the environment names is of the environment.
    user.rows(&[("TANDEM_CONTEXT", "away"), exported[0]], &["info"]);
    assert_eq!(user.refused(&[("TANDEM_CONTEXT", "away")], &["info"]), "UNREACHABLE");
    let rows = user.rows(&exported, &["--context", "here", "context", "show"]);
    assert_eq!(shown(&rows, "workspace"), triple("default", "context here", ""));
}

/// A token that cannot be read tells whether somebody would be shown it.
#[tokio::test]
async fn a_token_of_a_context_goes_where_the_context_says_and_nowhere_else() {
    let desk = Desk::with(&[]).await;
    let user = User::new();
    let server = desk.server();
    let token = "/nonexistent/token";
    user.rows(&[], &["context", "add", "prod", "--server", &server, "--token-file", token]);
    let slash = format!("{server}/");
    let exported = [("TANDEM_CONTROL_PLANE", NOWHERE)];
    assert_eq!(user.refused(&[], &["info"]), "FILE_UNREADABLE");
    assert_eq!(user.refused(&[], &["--server", &slash, "info"]), "FILE_UNREADABLE");
    assert_eq!(user.refused(&exported, &["info"]), "FILE_UNREADABLE");
    assert_eq!(user.refused(&exported, &["sandbox", "ls"]), "CONTROL_PLANE_UNREACHABLE");
    assert_eq!(user.refused(&[], &["--server", NOWHERE, "info"]), "UNREACHABLE");
    // Who gives one means it.
    assert_eq!(user.refused(&exported, &["--token-file", token, "sandbox", "ls"]), "FILE_UNREADABLE");

    let rows = user.rows(&[], &["context", "show"]);
    let why = "not shown to the control plane: the context keeps no address of one";
    assert_eq!(shown(&rows, "token_file"), triple(token, "context prod", why));
    let rows = user.rows(&[], &["context", "show", "--server", NOWHERE]);
    let (.., why) = shown(&rows, "token_file");
    let expected = format!("not shown to the broker: the context keeps {server}, and this is {NOWHERE}; ");
    assert!(why.starts_with(&expected), "{why}");

    let looked = user.run(&[], &["--json", "doctor"]);
    let plane = documents(&looked).into_iter().find(|row| row["check"] == "control plane").unwrap();
    assert!(plane["verdict"] == "skipped" && plane["text"].as_str().unwrap().starts_with("not configured"), "{plane}");

    // A context of a control plane: the broker that is built in is none of its.
    user.rows(&[], &["context", "add", "plane", "--control-plane", NOWHERE, "--token-file", token]);
    assert_eq!(user.refused(&[], &["--context", "plane", "sandbox", "ls"]), "FILE_UNREADABLE");
    user.rows(&[], &["--context", "plane", "--server", &server, "info"]);
}

#[tokio::test]
async fn contexts_that_cannot_be_read_are_in_the_way_of_who_may_need_them() {
    let desk = Desk::with(&[]).await;
    let user = User::new();
    let server = desk.server();
    for broken in ["[[[", "[contexts.prod]\nserver = \"https://b:8001\"\nof_later_versions = true\n"] {
        fs::write(user.file("contexts.toml"), broken).unwrap();
        for arguments in [
            &["info"][..],
            &["--quiet", "info"],
            &["--context", "here", "info"],
            &["sandbox", "ls"],
            &["--server", &server, "sandbox", "ls"],
            &["context", "show"],
        ] {
            assert_eq!(user.refused(&[], arguments), "CONTEXTS_UNREADABLE", "{arguments:?}");
        }
        let looked = looks(&user, &["--server", &server]);
        assert_eq!((looked["settings"].as_str(), looked["broker"].as_str()), ("wrong", "ok"), "{looked:?}");
        assert_eq!(looked["control plane"], "skipped", "{looked:?}");
        assert_eq!(looks(&user, &[])["broker"], "skipped");
        let everywhere = ["--server", &server, "--control-plane", NOWHERE];
        assert_eq!(looks(&user, &everywhere)["settings"], "wrong");
        assert_eq!(user.refused(&[], &["--control-plane", NOWHERE, "sandbox", "ls"]), "CONTROL_PLANE_UNREACHABLE");
        user.rows(&[], &["--server", &server, "info"]);
        user.rows(&[("TANDEM_SERVER", &server)], &["info"]);
        // They speak to nobody.
        assert!(user.run(&[], &["roles"]).status.success());
        assert!(user.run(&[], &["completions", "bash"]).status.success());
    }
}

/// What a doctor finds who finds something wrong.
fn looks(user: &User, arguments: &[&str]) -> BTreeMap<String, String> {
    let done = user.run(&[], &[&["--json"][..], arguments, &["doctor"]].concat());
    assert_eq!(done.status.code(), Some(1), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    documents(&done).iter().map(|row| (text(&row["check"]), text(&row["verdict"]))).collect()
}

#[test]
fn a_current_context_that_is_not_there_is_told_of() {
    let user = User::new();
    fs::write(user.file("contexts.toml"), "current = \"locl\"\n[contexts.local]\nserver = \"http://b:1\"\n").unwrap();
    let done = user.run(&[], &["--json", "info"]);
    let error: Value = serde_json::from_slice(&done.stderr).unwrap();
    assert_eq!(error["code"], "UNKNOWN_CONTEXT");
    assert!(error["next"].as_str().unwrap().contains("tandem context use"), "{error}");
    assert_eq!(looks(&user, &[])["settings"], "wrong");
}

#[test]
fn files_of_a_context_that_are_not_there_are_told_of() {
    let user = User::new();
    let ca_file = user.file("absent.pem");
    let ca_file = ca_file.to_str().unwrap();
    let place = ["--server", "https://127.0.0.1:9", "--control-plane", "https://127.0.0.1:9"];
    let done = user.run(&[], &[&["context", "add", "here", "--ca-file", ca_file][..], &place].concat());
    assert!(done.status.success());
    let said = String::from_utf8(done.stderr).unwrap();
    assert!(said.contains(ca_file) && said.contains("is not there"), "{said}");
    let looked = looks(&user, &[]);
    assert_eq!((looked["settings"].as_str(), looked["broker"].as_str()), ("wrong", "skipped"), "{looked:?}");
}

#[test]
fn who_misses_a_token_hears_that_it_is_withheld() {
    let user = User::new();
    let token = user.file("token");
    fs::write(&token, "x").unwrap();
    let token = token.to_str().unwrap();
    user.rows(&[], &["context", "add", "prod", "--server", "http://b:1", "--token-file", token]);
    let plane = web_server(0, "401 Unauthorized", r#"{"code":"TOKEN_MISSING","detail":"who are you?"}"#);
    let done = user.run(&[], &["--json", "--control-plane", &plane, "sandbox", "ls"]);
    let error: Value = serde_json::from_slice(&done.stderr).unwrap();
    assert_eq!((done.status.code(), &error["code"]), (Some(4), &json!("TOKEN_MISSING")));
    let next = error["next"].as_str().unwrap();
    assert!(next.contains("withheld") && next.contains("tandem context show"), "{next}");
    let looked = user.run(&[], &["--json", "--server", NOWHERE, "doctor"]);
    let settings = documents(&looked).remove(0);
    assert!(settings["verdict"] == "look" && settings["text"].as_str().unwrap().contains("withheld"), "{settings}");
}

#[test]
fn contexts_that_are_added_at_the_same_time_are_all_kept() {
    let user = User::new();
    let names: Vec<_> = (10..26).map(|index| format!("c{index}")).collect();
    let add = |name: &String| user.command(&[], &["context", "add", name, "--server", NOWHERE]).spawn().unwrap();
    let adding: Vec<_> = names.iter().map(add).collect();
    for mut command in adding {
        assert!(command.wait().unwrap().success());
    }
    let kept: Vec<_> = user.rows(&[], &["context", "list"]).iter().map(|row| row["name"].clone()).collect();
    assert_eq!(kept, names);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = fs::metadata(user.file("contexts.toml")).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{mode:o}");
    }
}
