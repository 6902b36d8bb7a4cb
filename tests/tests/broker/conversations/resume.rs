//! Line 9: a call survives its connection, and the broker itself.

use std::time::Duration;

use tandem_client::{Client, Response};
use tandem_proto::messaging::v1::{RequestRequest, RequestResponse, request_service_client::RequestServiceClient};
use tandem_tests::Relay;
use tokio::task::JoinHandle;
use tonic::transport::Channel;

use super::{question, reply};
use crate::stage::{Stage, WORKSPACE, text};

/// Longer than a restart takes, shorter than the patience of the harness.
const LONG: Duration = Duration::from_secs(25);

/// The call that every test here makes again and again: always the same.
fn call(client: &Client) -> JoinHandle<Result<Response, tandem_client::Error>> {
    let publisher = client.publisher(WORKSPACE);
    tokio::spawn(async move { publisher.request(question("alice", "bob", "c"), LONG).await })
}

/// The same on the wire, once: nothing is repeated by itself.
async fn call_once(channel: Channel) -> RequestResponse {
    let request =
        RequestRequest { workspace_id: WORKSPACE.into(), message: Some(question("alice", "bob", "c")), timeout: None };
    RequestServiceClient::new(channel).request(request).await.unwrap().into_inner()
}

async fn expect_one_question(stage: &Stage) {
    let log = stage.history(Default::default()).await;
    let questions = log.iter().filter(|message| message.r#type() == tandem_client::MessageType::Request).count();
    assert_eq!((questions, stage.pending("alice").await), (1, 0), "published once, and nothing went to the inbox");
}

#[tokio::test]
async fn line_9_a_call_goes_on_when_its_connection_is_cut() {
    let stage = Stage::with(&["alice", "bob"]).await;
    let relay = Relay::to(stage.broker.grpc_address()).await;
    let mut bob = stage.subscribe("bob").await;
    let waiting = call(&relay.client());
    let asked = bob.take(1).await.remove(0).message;
    relay.cut();
    stage.publish(reply(&asked, "42")).await;
    let response = waiting.await.unwrap().unwrap();
    assert_eq!((text(&response.message), response.request_sequence, response.resumed), ("42", asked.sequence, true));
    bob.expect_silence().await;
    expect_one_question(&stage).await;
}

/// With nothing but the broker's own connections: the first call is dropped, the second one is the same.
#[tokio::test]
async fn line_9_a_repeated_call_gets_the_response_that_came_meanwhile_as_often_as_it_asks() {
    let stage = Stage::with(&["alice", "bob"]).await;
    let mut bob = stage.subscribe("bob").await;
    let first = tokio::spawn(call_once(stage.broker.channel()));
    let asked = bob.take(1).await.remove(0).message;
    first.abort();
    stage.publish(reply(&asked, "42")).await;
    for _ in 0..3 {
        let again = call_once(stage.broker.channel()).await;
        assert_eq!(
            (text(&again.message.unwrap()), again.request_sequence, again.resumed),
            ("42", asked.sequence, true)
        );
    }
    let stage = stage.crash_and_start().await;
    let again = call_once(stage.broker.channel()).await;
    assert_eq!((text(&again.message.unwrap()), again.request_sequence, again.resumed), ("42", asked.sequence, true));
    expect_one_question(&stage).await;
}

#[tokio::test]
async fn line_9_a_call_goes_on_when_the_broker_is_killed_before_the_response() {
    let stage = Stage::with(&["alice", "bob"]).await;
    let relay = Relay::to(stage.broker.grpc_address()).await;
    let waiting = call(&relay.client());
    let asked = stage.subscribe("bob").await.take(1).await.remove(0).message;
    let stage = stage.crash_and_start().await;
    relay.lead_to(stage.broker.grpc_address());
    let mut bob = stage.subscribe("bob").await;
    let again = bob.take(1).await.remove(0).message;
    assert_eq!(again.sequence, asked.sequence, "the request that was never acknowledged is delivered again");
    stage.publish(reply(&again, "42")).await;
    let response = waiting.await.unwrap().unwrap();
    assert_eq!((text(&response.message), response.request_sequence, response.resumed), ("42", asked.sequence, true));
    bob.expect_silence().await;
    expect_one_question(&stage).await;
}

#[tokio::test]
async fn line_9_a_call_gets_the_response_that_came_before_the_broker_was_killed() {
    let stage = Stage::with(&["alice", "bob"]).await;
    let relay = Relay::to(stage.broker.grpc_address()).await;
    let waiting = call(&relay.client());
    let mut bob = stage.subscribe("bob").await;
    let asked = bob.take(1).await.remove(0).message;
    relay.lead_to_nobody();
    stage.publish(reply(&asked, "42")).await;
    let mut stage = stage.crash_and_start().await;
    stage = stage.stop_and_start().await;
    relay.lead_to(stage.broker.grpc_address());
    let response = waiting.await.unwrap().unwrap();
    assert_eq!((text(&response.message), response.request_sequence, response.resumed), ("42", asked.sequence, true));
    expect_one_question(&stage).await;
}
