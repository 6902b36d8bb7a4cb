//! Line 15: `tandem request`.

use serde_json::json;

use crate::desk::Desk;

const ASK: [&str; 9] = ["request", "--from", "alice", "--to", "bob", "--correlation-id", "c-1", "--id", "question"];
const ANSWER: [&str; 8] = ["--from", "bob", "--to", "alice", "--type", "response", "--correlation-id", "c-1"];

#[tokio::test]
async fn line_15_request_prints_the_response() {
    let desk = Desk::with(&["alice", "bob"]).await;
    let ask = [&ASK[..], &["what is it?"]].concat();
    let answer = async {
        let asked = desk.one(&["sub", "bob", "--count", "1", "--timeout", "20s"]).await;
        assert_eq!((&asked["type"], &asked["content"]), (&json!("request"), &json!("what is it?")));
        desk.publish(&[&ANSWER[..], &["42"]].concat()).await;
        asked["sequence"].clone()
    };
    let (response, request_sequence) = tokio::join!(desk.one(&ask), answer);
    assert_eq!((&response["content"], &response["type"]), (&json!("42"), &json!("response")));
    assert_eq!((&response["request_sequence"], &response["resumed"]), (&request_sequence, &json!(false)));
    // The same command again is the same request.
    let again = desk.one(&ask).await;
    assert_eq!((&again["content"], &again["resumed"]), (&json!("42"), &json!(true)));
    assert_eq!(desk.json(&["history", "--type", "request"]).await.len(), 1);
    let text = desk.text(&ask).await;
    assert!(text.contains("response bob -> alice correlation-id=c-1") && text.ends_with("    42\n"), "{text}");
}

#[tokio::test]
async fn line_15_request_says_why_there_is_no_response() {
    let desk = Desk::with(&["alice", "bob"]).await;
    let ask = ["request", "--from", "alice", "--to", "bob", "--timeout", "300ms", "?"];
    desk.refused(&ask, 5, "RESPONSE_TIMEOUT", &["within 300 ms", "tandem sub alice"]).await;
    let rejected =
        ["request", "--command", "--from", "alice", "--to", "bob", "--timeout", "20s", "--priority", "9", "?"];
    let nack = ["nack", "bob", "--count", "1", "--timeout", "20s", "--dead-letter", "--reason", "not me"];
    // Of higher priority than what still waits from before, so it is the one that is refused.
    let (answered, nacked) = tokio::join!(desk.run(&rejected), async {
        let followed = ["history", "--follow", "--type", "command", "--limit", "1"];
        desk.json(&followed).await;
        desk.one(&nack).await
    });
    assert_eq!(nacked["type"], "command");
    assert_eq!((answered.code, answered.stdout.as_str()), (Some(4), ""), "{answered:#?}");
    assert!(answered.stderr.contains("will not be answered (REJECTED): not me"), "{answered:#?}");
    let ask = ["request", "--from", "alice", "--to", "nobody", "?"];
    desk.refused(&ask, 3, "UNKNOWN_SANDBOX", &["\"nobody\""]).await;
    desk.refused(&["request", "--from", "alice", "?"], 2, "USAGE", &["--to"]).await;
}

/// The ids that it made up itself are told when they are needed.
#[tokio::test]
async fn line_15_request_tells_the_ids_to_wait_on_with() {
    let desk = Desk::with(&["alice", "bob"]).await;
    let ask = ["request", "--from", "alice", "--to", "bob", "--timeout", "200ms", "?"];
    let timed_out = desk.run(&ask).await;
    let asked = desk.one(&["sub", "bob", "--count", "1"]).await;
    let (id, correlation_id) = (asked["message_id"].as_str().unwrap(), asked["correlation_id"].as_str().unwrap());
    let told = format!("--id {id} --correlation-id {correlation_id}; ");
    assert!(timed_out.code == Some(5) && timed_out.stderr.contains(&told), "{timed_out:#?}");
}

/// As its help says: after a timeout the command is repeated with the same ids, and waits on.
#[tokio::test]
async fn line_15_request_waits_on_when_it_is_repeated_after_its_timeout() {
    let desk = Desk::with(&["alice", "bob"]).await;
    let ask = |timeout| [&ASK[..], &["--timeout", timeout, "what is it?"]].concat();
    let timed_out = desk.run(&ask("200ms")).await;
    assert_eq!(timed_out.code, Some(5), "{timed_out:#?}");
    assert!(timed_out.stderr.contains("--id question --correlation-id c-1;"), "{timed_out:#?}");
    let answer = [&ANSWER[..], &["42"]].concat();
    assert_eq!(desk.one(&["sub", "bob", "--count", "1"]).await["message_id"], "question");
    // An answer that comes before the repeated call goes to the inbox, so there is one until the call has one.
    let repeated = ask("20s");
    let mut call = Box::pin(desk.one(&repeated));
    let response = loop {
        tokio::select! {
            response = &mut call => break response,
            _ = desk.publish(&answer) => {}
        }
    };
    assert_eq!((&response["content"], &response["resumed"]), (&json!("42"), &json!(true)));
    assert_eq!(desk.json(&["history", "--type", "request"]).await.len(), 1, "published once");
}
