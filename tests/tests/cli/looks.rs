//! What looks at all of a broker, and again and again: `tandem doctor`, `top`, `man`, `--output`, `--watch`.

use std::fs;

use serde_json::{Value, json};

use crate::{
    desk::Desk,
    user::{User, documents, web_server},
};

#[tokio::test]
async fn a_doctor_finds_what_is_wrong_and_says_what_to_do() {
    let desk = Desk::with(&["alice", "bob"]).await;
    let user = User::new();
    let server = desk.server();
    let verdicts = |rows: &[Value]| -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        rows.iter().map(|row| (text(&row["check"]), text(&row["verdict"]))).collect()
    };
    let plane = web_server(0, "200 OK", r#"{"workspaces":[]}"#);
    let here = ["--server", &server, "--control-plane", &plane];
    let well = user.rows(&[], &[&here[..], &["doctor"]].concat());
    let expected = ["settings", "broker", "nodes", "shards", "caller", "workspace", "control plane"]
        .map(|check| (check.to_owned(), "ok".to_owned()));
    assert_eq!(verdicts(&well), expected, "{well:?}");
    desk.publish(&["--from", "alice", "--to", "bob", "x"]).await;
    desk.json(&["nack", "bob", "--dead-letter", "--reason", "no"]).await;
    let dead = user.rows(&[], &[&here[..], &["doctor"]].concat());
    assert_eq!((&dead[5]["verdict"], &dead[5]["next"]), (&json!("look"), &json!("tandem dlq list")), "{dead:?}");
    // One message of a million, and most of its bytes.
    desk.json(&["sandbox", "register", "carol", "--max-bytes", "2000"]).await;
    desk.publish(&["--from", "alice", "--to", "carol", &"x".repeat(1_700)]).await;
    let full = user.rows(&[], &[&here[..], &["doctor"]].concat());
    assert!(full[5]["text"].as_str().unwrap().ends_with("nearly full: carol"), "{full:?}");

    for (arguments, check) in [
        (["--server", "http://127.0.0.1:9"], "broker"),
        // Not what speaks to brokers, but to control planes.
        (["--server", plane.as_str()], "broker"),
        (["--server", "http://127.0.0.1:99999"], "broker"),
        // Not everybody has one, but who says where has.
        (["--control-plane", "http://127.0.0.1:9"], "control plane"),
        (["--control-plane", "http://127.0.0.1:bad"], "control plane"),
        (["--workspace", "nowhere"], "workspace"),
        (["--token-file", "/nonexistent/token"], "settings"),
    ] {
        let done = user.run(&[("TANDEM_SERVER", &server)], &[&["--json"][..], &arguments, &["doctor"]].concat());
        assert_eq!(done.status.code(), Some(1), "{arguments:?}");
        let rows = documents(&done);
        let found = rows.iter().find(|row| row["check"] == check).unwrap();
        assert!(found["verdict"] == "wrong" && found["next"] != "", "{found}");
    }
}

#[tokio::test]
async fn a_doctor_knows_a_control_plane_when_he_sees_one() {
    let desk = Desk::with(&[]).await;
    let user = User::new();
    let server = desk.server();
    for (status, body, exit_code, verdict) in [
        ("200 OK", r#"{"workspaces":[]}"#, 0, "ok"),
        ("200 OK", "<html>It works!</html>", 1, "wrong"),
        ("200 OK", r#"{"name":"something else"}"#, 1, "wrong"),
        ("404 Not Found", "<html>Not found</html>", 1, "wrong"),
    ] {
        let plane = web_server(0, status, body);
        let done = user.run(&[], &["--json", "--server", &server, "--control-plane", &plane, "doctor"]);
        let rows = documents(&done);
        let found = rows.iter().find(|row| row["check"] == "control plane").unwrap();
        assert_eq!(
            (done.status.code(), found["verdict"].as_str()),
            (Some(exit_code), Some(verdict)),
            "{body}: {found}"
        );
    }
    let page = web_server(0, "200 OK", "<html>");
    assert_eq!(user.refused(&[], &["--control-plane", &page, "sandbox", "ls"]), "CONTROL_PLANE_ANSWER");
    let other = web_server(0, "404 Not Found", "<html>");
    let done = user.run(&[], &["--json", "--control-plane", &other, "sandbox", "ls"]);
    let error: Value = serde_json::from_slice(&done.stderr).unwrap();
    assert_eq!((done.status.code(), &error["code"]), (Some(1), &json!("CONTROL_PLANE_ANSWER")));
    assert!(error["error"].as_str().unwrap().contains(&other) && error["next"].is_string(), "{error}");
    for port in ["bad", "99999", "0"] {
        let url = format!("http://127.0.0.1:{port}");
        assert_eq!(user.refused(&[], &["--control-plane", &url, "sandbox", "ls"]), "USAGE");
    }
}

#[tokio::test]
async fn top_shows_rates_and_where_most_waits() {
    let desk = Desk::with(&["alice", "bob", "carol"]).await;
    let user = User::new();
    let server = desk.server();
    for _ in 0..3 {
        desk.publish(&["--from", "alice", "--to", "carol", "x"]).await;
    }
    // What is deferred waits too, and once.
    for _ in 0..2 {
        desk.publish(&["--from", "alice", "--to", "bob", "--delay", "1h", "x"]).await;
    }
    let looks = user.rows(&[], &["--server", &server, "top", "--count", "2", "--interval", "300ms", "--rows", "2"]);
    assert_eq!(looks.len(), 2);
    let nodes = looks[0]["nodes"].as_array().unwrap();
    assert!(nodes.len() == 1 && nodes[0]["connected"] == true, "{nodes:?}");
    assert!(
        looks[0]["shards"][0]["commands_per_second"].is_null()
            && looks[1]["shards"][0]["commands_per_second"].is_number()
    );
    let rows = looks[1]["sandboxes"].as_array().unwrap();
    let of = |name: &str| rows.iter().map(|row| row[name].clone()).collect::<Vec<_>>();
    assert_eq!(of("sandbox_id"), ["carol", "bob"]);
    assert_eq!((of("pending_messages"), of("deferred_messages")), (vec![json!(3), json!(2)], vec![json!(0), json!(2)]));
    let text = user.run(&[], &["--server", &server, "top"]);
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.contains("COMMANDS/S") && text.contains("5 messages wait") && !text.contains('\u{1b}'), "{text}");
    assert_eq!(user.refused(&[], &["--server", &server, "top", "--interval", "99ms"]), "USAGE");
}

#[tokio::test]
async fn what_only_looks_can_be_watched_and_printed_as_one_likes() {
    let desk = Desk::with(&["alice"]).await;
    let user = User::new();
    let server = desk.server();
    let as_json = user.run(&[], &["--server", &server, "--output", "json", "sandbox", "list"]);
    let row: Value = serde_json::from_slice(&as_json.stdout).unwrap();
    assert_eq!(row["sandbox_id"], "alice");
    assert_eq!(user.refused(&[], &["--server", &server, "--watch", "sandbox", "unregister", "alice"]), "USAGE");
    assert_eq!(user.refused(&[], &["--server", &server, "--watch=1ms", "sandbox", "list"]), "USAGE");
    let said = user.first_lines(&["--server", &server, "--json", "--watch=200ms", "sandbox", "list"], 3);
    assert!(said.len() == 3 && said.iter().all(|line| line.contains("alice")), "{said:?}");

    let dir = user.file("man");
    assert!(user.run(&[], &["man", "--dir", dir.to_str().unwrap()]).status.success());
    let page = fs::read_to_string(dir.join("tandem-dlq-redrive.1")).unwrap();
    assert!(page.starts_with(".ie") && page.contains("redrive"), "{page}");
    assert!(String::from_utf8(user.run(&[], &["man"]).stdout).unwrap().contains(".TH tandem"));
}

#[test]
fn who_watches_sees_it_come_back() {
    let user = User::new();
    // A control plane that is started again, for three looks.
    let plane = web_server(3, "200 OK", r#"{"sandboxes":[{"name":"worker","state":"running"}]}"#);
    let said = user.first_lines(&["--json", "--control-plane", &plane, "--watch=100ms", "sandbox", "ls"], 2);
    assert!(said.len() == 2 && said[0].contains("worker"), "{said:?}");
    // A broker that is not there: settings, broker, control plane, and the same again.
    let nowhere = ["--json", "--server", "http://127.0.0.1:9", "--control-plane", "http://127.0.0.1:9"];
    let said = user.first_lines(&[&nowhere[..], &["--watch=100ms", "doctor"]].concat(), 6);
    assert_eq!(said.iter().filter(|line| line.contains(r#""check":"broker""#)).count(), 2, "{said:?}");
    // What is wrong stays wrong.
    assert_eq!(user.refused(&[], &["--server", "nowhere", "--watch=100ms", "info"]), "INVALID_ENDPOINT");
}
