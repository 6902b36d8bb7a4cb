//! Requests: repeated while the broker is away, answered once.

use std::time::Duration;

use tandem_client::{Code, Error, MessageBuilder, Publisher, to_capability};

use crate::fake::Fake;

const LONG: Duration = Duration::from_secs(20);

fn publisher(fake: &Fake) -> Publisher {
    fake.client().publisher("w")
}

fn ask(content: &'static str) -> tandem_client::Message {
    MessageBuilder::request("alice", to_capability("review"), content).build()
}

#[tokio::test]
async fn a_request_is_repeated_with_the_same_message_until_it_is_answered() {
    let fake = Fake::start().await;
    *fake.seen.requests.unavailable.lock().unwrap() = 2;
    let response = publisher(&fake).request(ask("?"), LONG).await.expect("the third call is answered");
    assert_eq!((response.request_sequence, response.resumed), (41, true));
    let calls = fake.seen.requests.calls.lock().unwrap().clone();
    assert_eq!(calls.len(), 3);
    let first = calls[0].message.clone().expect("a message");
    assert_eq!(first.correlation_id.len(), 36, "one was made up: {:?}", first.correlation_id);
    assert_eq!(response.message.correlation_id, first.correlation_id);
    assert!(calls.iter().all(|call| call.message.as_ref() == Some(&first) && call.workspace_id == "w"));
    let timeouts: Vec<_> =
        calls.iter().map(|call| Duration::try_from(call.timeout.expect("always said")).unwrap()).collect();
    assert_eq!(timeouts[0], LONG);
    assert!(timeouts.is_sorted_by(|before, after| before > after), "only what is left: {timeouts:?}");
}

#[tokio::test]
async fn a_correlation_id_that_was_given_stays() {
    let fake = Fake::start().await;
    let message = MessageBuilder::command("alice", to_capability("review"), "!").correlation_id("talk-1").build();
    let response = publisher(&fake).request(message, LONG).await.expect("it is answered");
    assert_eq!((response.message.correlation_id.as_str(), response.resumed), ("talk-1", false));
}

#[tokio::test]
async fn repeating_ends_with_the_timeout() {
    let fake = Fake::start().await;
    *fake.seen.requests.unavailable.lock().unwrap() = u32::MAX;
    let error = publisher(&fake).request(ask("?"), Duration::from_millis(500)).await.expect_err("nobody is there");
    assert_eq!((error.code(), error.reason()), (Code::Unavailable, "NOT_LEADER"));
    // Waits of 20, 40, 80 and 160 ms fit, 320 ms more do not.
    assert_eq!(fake.seen.requests.calls.lock().unwrap().len(), 5);
}

#[tokio::test]
async fn no_response_in_time_is_the_word_of_the_broker_and_not_repeated() {
    let fake = Fake::start().await;
    let error = publisher(&fake).request(ask("silence"), Duration::from_millis(100)).await.expect_err("no response");
    assert_eq!((error.code(), error.reason()), (Code::DeadlineExceeded, "RESPONSE_TIMEOUT"));
    assert_eq!(fake.seen.requests.calls.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_request_that_died_is_an_error_of_its_own() {
    let fake = Fake::start().await;
    let error = publisher(&fake).request(ask("die"), LONG).await.expect_err("it became a dead letter");
    let Error::Undeliverable(undeliverable) = &error else { panic!("not undeliverable: {error:?}") };
    assert_eq!(
        (undeliverable.code.as_str(), undeliverable.text.as_str()),
        ("ATTEMPTS_EXHAUSTED", "all 5 attempts failed")
    );
    assert_eq!((error.reason(), error.is_retryable()), ("ATTEMPTS_EXHAUSTED", false));
}
