//! Reading the log: all filters, both directions, page by page.

use std::time::{Duration, SystemTime};

use tandem_client::{Code, HistoryQuery, Message, MessageType};
use tandem_proto::messaging::v1::{ListMessagesRequest, history_service_client::HistoryServiceClient};
use tandem_tests::{Random, Refused, broadcast, direct, named};

use crate::stage::{Stage, WORKSPACE, text};

async fn sequences(stage: &Stage, query: HistoryQuery) -> Vec<u64> {
    stage.history(query).await.iter().map(|message| message.sequence).collect()
}

#[tokio::test]
async fn a_message_comes_back_as_it_was_sent() {
    let stage = Stage::with(&["alice", "bob"]).await;
    let sent = Message {
        from_agent: "planner".into(),
        to_agent: "coder".into(),
        r#type: MessageType::Command.into(),
        content_type: "text/plain; charset=utf-8".into(),
        priority: Some(0),
        requires_response: true,
        correlation_id: "überall".into(),
        metadata: [("k".into(), "v".into()), ("empty".into(), String::new())].into(),
        traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into(),
        ..named("m/1:a@b.c_d-e", direct("alice", "bob", "grüße \u{0}\u{1}"))
    };
    let receipt = stage.publish(sent.clone()).await;
    let stored = stage.client.history(WORKSPACE).get("m/1:a@b.c_d-e").await.unwrap();
    assert_eq!((stored.sequence, stored.workspace_id.as_str()), (receipt.sequence, WORKSPACE));
    let time = SystemTime::try_from(stored.server_time.unwrap()).unwrap();
    assert_eq!(time, receipt.server_time);
    let as_sent = Message { sequence: 0, workspace_id: String::new(), server_time: None, ..stored.clone() };
    assert_eq!(as_sent, sent);
    assert_eq!(stage.history(HistoryQuery::default()).await, std::slice::from_ref(&stored));
    assert_eq!(stage.subscribe("bob").await.take(1).await[0].message, stored, "delivered as it stands in the log");
}

#[tokio::test]
async fn a_message_without_an_id_is_found_by_its_sequence_and_only_then() {
    let stage = Stage::with(&["alice", "bob"]).await;
    let receipts =
        stage.publish_all([direct("alice", "bob", "unnamed"), named("mine", direct("alice", "bob", "named"))]).await;
    assert_eq!([receipts[0].message_id.as_str(), receipts[1].message_id.as_str()], ["seq-1", "mine"]);
    let unnamed = stage.client.history(WORKSPACE).get("seq-1").await.unwrap();
    assert_eq!((unnamed.message_id.as_str(), text(&unnamed)), ("seq-1", "unnamed"));
    assert_eq!(text(&stage.client.history(WORKSPACE).get("mine").await.unwrap()), "named");
    let error = stage.client.history(WORKSPACE).get("seq-2").await.unwrap_err();
    Refused::from(error).expect(Code::NotFound, "UNKNOWN_MESSAGE", &["\"seq-2\""]);
}

/// A log in which every filter matches some and not others.
async fn write_log(stage: &Stage) -> Vec<Message> {
    let mut random = Random::from_environment();
    let sandboxes = ["alice", "bob", "carol"];
    let mut messages = Vec::new();
    for number in 0..600 {
        let from = sandboxes[random.between(0, 2) as usize];
        let to = sandboxes[random.between(0, 2) as usize];
        let content = format!("{number}");
        let message = if random.percent(20) { broadcast(from, content) } else { direct(from, to, content) };
        messages.push(Message {
            from_agent: format!("agent-{}", random.between(0, 3)),
            to_agent: format!("agent-{}", random.between(0, 3)),
            correlation_id: format!("talk-{}", random.between(0, 4)),
            ..message
        });
    }
    // In parts, so that the log has many batches and times.
    for part in messages.chunks(40) {
        stage.publish_all(part.iter().cloned()).await;
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    let log = stage.history(HistoryQuery::default()).await;
    assert_eq!(log.iter().map(|message| message.sequence).collect::<Vec<_>>(), (1..=600).collect::<Vec<_>>());
    log
}

fn time(message: &Message) -> SystemTime {
    SystemTime::try_from(message.server_time.unwrap()).unwrap()
}

fn destination(message: &Message) -> &str {
    match message.destination.as_ref().unwrap().kind.as_ref().unwrap() {
        tandem_client::destination::Kind::SandboxId(sandbox) => sandbox,
        _ => "",
    }
}

/// The filters, by a reader too simple to be wrong.
fn fits(query: &HistoryQuery, message: &Message) -> bool {
    let either = |wanted: &Option<String>, one: &str, other: &str| {
        wanted.as_deref().is_none_or(|wanted| wanted == one || wanted == other)
    };
    message.sequence >= query.from_sequence
        && (query.to_sequence == 0 || message.sequence <= query.to_sequence)
        && query.start_time.is_none_or(|start| time(message) >= start)
        && query.end_time.is_none_or(|end| time(message) < end)
        && either(&query.sandbox_id, &message.from_sandbox_id, destination(message))
        && either(&query.agent, &message.from_agent, &message.to_agent)
        && either(&query.correlation_id, &message.correlation_id, &message.correlation_id)
}

#[tokio::test]
async fn every_combination_of_filters_lists_what_fits_in_both_directions() {
    let stage = Stage::with(&["alice", "bob", "carol"]).await;
    // The random talk goes to and fro more often than agents should.
    let settings = tandem_client::WorkspaceSettings { max_hops: 255, ..Default::default() };
    stage.client.workspaces().update(WORKSPACE, settings).await.unwrap();
    let log = write_log(&stage).await;
    let mut random = Random::from_environment();
    for _ in 0..150 {
        let mut maybe = |value: String| random.percent(40).then_some(value);
        let (sandbox_id, agent) = (maybe("bob".into()), maybe("agent-2".into()));
        let correlation_id = maybe("talk-3".into());
        let mut moment = || {
            let at = time(&log[random.between(0, 599) as usize]);
            random.percent(50).then(|| at - Duration::from_millis(random.between(0, 1)))
        };
        let (start_time, end_time) = (moment(), moment());
        let query = HistoryQuery {
            from_sequence: if random.percent(50) { random.between(0, 620) } else { 0 },
            to_sequence: if random.percent(50) { random.between(0, 620) } else { 0 },
            start_time,
            end_time,
            sandbox_id,
            agent,
            correlation_id,
            message_type: None,
            descending: random.percent(50),
            page_size: random.between(1, 90) as u16,
        };
        let mut expected: Vec<u64> = log.iter().filter(|message| fits(&query, message)).map(|m| m.sequence).collect();
        if query.descending {
            expected.reverse();
        }
        assert_eq!(sequences(&stage, query.clone()).await, expected, "{query:?}");
    }
}

#[tokio::test]
async fn pages_are_as_long_as_asked_for_and_stay_right_while_the_log_grows() {
    let stage = Stage::with(&["alice", "bob"]).await;
    stage.publish_all((0..100).map(|number| direct("alice", "bob", number.to_string()))).await;
    let mut service = HistoryServiceClient::new(stage.broker.channel());
    for descending in [false, true] {
        let (mut seen, mut page_token) = (Vec::new(), String::new());
        loop {
            let workspace_id = WORKSPACE.to_owned();
            let request = ListMessagesRequest {
                workspace_id,
                page_size: 30,
                page_token,
                descending,
                to_sequence: 100,
                ..Default::default()
            };
            let page = service.list_messages(request).await.unwrap().into_inner();
            assert!(page.messages.len() == 30 || page.next_page_token.is_empty(), "{} messages", page.messages.len());
            seen.extend(page.messages.iter().map(|message| message.sequence));
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
            stage.publish(direct("alice", "bob", "meanwhile")).await;
        }
        if descending {
            seen.reverse();
        }
        assert_eq!(seen, (1..=100).collect::<Vec<_>>());
    }
}

/// An answer is bounded in bytes as well: pages get shorter, and nothing is left out.
#[tokio::test]
async fn large_messages_make_short_pages() {
    let stage = Stage::with(&["alice", "bob"]).await;
    stage.publish_all(vec![direct("alice", "bob", "x".repeat(500_000)); 12]).await;
    let mut service = HistoryServiceClient::new(stage.broker.channel()).max_decoding_message_size(4 << 20);
    let request = ListMessagesRequest { workspace_id: WORKSPACE.into(), page_size: 12, ..Default::default() };
    let page = service.list_messages(request).await.unwrap().into_inner();
    assert!(page.messages.len() < 12 && !page.next_page_token.is_empty());
    assert_eq!(sequences(&stage, HistoryQuery::default()).await, (1..=12).collect::<Vec<_>>());
}
