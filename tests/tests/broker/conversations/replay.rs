//! Line 12: the log read again: by all filters, into an inbox, to a stream, live.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::TryStreamExt as _;
use tandem_client::{Code, HistoryQuery, Message, MessageFilter, MessageStream, MessageType, StreamQuery, to_topic};
use tandem_tests::{Refused, Relay, Subscriber, broadcast, direct, unix_nanos};

use crate::stage::{Stage, WORKSPACE, text};

fn sequences(messages: &[Message]) -> Vec<u64> {
    messages.iter().map(|message| message.sequence).collect()
}

fn time(message: &Message) -> SystemTime {
    SystemTime::try_from(message.server_time.unwrap()).unwrap()
}

async fn streamed(stage: &Stage, query: StreamQuery) -> Vec<u64> {
    let messages: Vec<Message> =
        stage.client.history(WORKSPACE).stream_messages(query).into_stream().try_collect().await.unwrap();
    sequences(&messages)
}

async fn next(stream: &mut MessageStream) -> Message {
    let next = tokio::time::timeout(Duration::from_secs(20), stream.next()).await;
    next.expect("the stream goes on").unwrap().expect("a stream that follows has no end")
}

async fn take_and_ack(subscriber: &mut Subscriber, count: usize) -> Vec<(u64, u32)> {
    let deliveries = subscriber.take(count).await;
    let (first, last) = (deliveries[0].delivery_id, deliveries[count - 1].delivery_id);
    assert_eq!(subscriber.ack(first, last).await.acknowledged, count as u64);
    deliveries.iter().map(|delivery| (delivery.message.sequence, delivery.attempt)).collect()
}

/// A log in which each filter finds something else. Sequences 1 to 8.
async fn write_log(stage: &Stage) -> Vec<Message> {
    let agents = |from_agent: &str, to_agent: &str, message| Message {
        from_agent: from_agent.into(),
        to_agent: to_agent.into(),
        ..message
    };
    let talk = |id: &str, message| Message { correlation_id: id.into(), ..message };
    let kind = |kind: MessageType, message| Message { r#type: kind.into(), ..message };
    let log = [
        kind(MessageType::Request, talk("t-1", agents("planner", "coder", direct("alice", "bob", "1")))),
        kind(MessageType::Response, talk("t-1", agents("coder", "planner", direct("bob", "alice", "2")))),
        agents("planner", "", broadcast("alice", "3")),
        kind(MessageType::Command, talk("t-2", direct("carol", "bob", "4"))),
        talk("t-2", direct("bob", "carol", "5")),
        direct("alice", "alice", "6"),
        kind(MessageType::Request, agents("", "coder", direct("carol", "alice", "7"))),
        broadcast("bob", "8"),
    ];
    for message in log {
        stage.publish(message).await;
        // The next message has a later millisecond.
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    stage.history(HistoryQuery::default()).await
}

/// Listing, streaming and replaying are three ways to the same messages, so each filter is asked of all three.
#[tokio::test]
async fn line_12_every_filter_finds_the_same_in_a_list_in_a_stream_and_in_an_inbox() {
    let stage = Stage::with(&["alice", "bob", "carol"]).await;
    let log = write_log(&stage).await;
    assert_eq!(sequences(&log), [1, 2, 3, 4, 5, 6, 7, 8]);
    stage.register("reader").await;
    let mut reader = stage.subscribe("reader").await;
    let all = MessageFilter::default();
    let cases: [(u64, u64, MessageFilter, &[u64]); 9] = [
        (1, 8, all.clone(), &[1, 2, 3, 4, 5, 6, 7, 8]),
        (3, 5, all.clone(), &[3, 4, 5]),
        (
            1,
            8,
            MessageFilter { start_time: Some(time(&log[2])), end_time: Some(time(&log[5])), ..all.clone() },
            &[3, 4, 5],
        ),
        (1, 8, MessageFilter { sandbox_id: Some("carol".into()), ..all.clone() }, &[4, 5, 7]),
        (1, 8, MessageFilter { agent: Some("coder".into()), ..all.clone() }, &[1, 2, 7]),
        (1, 8, MessageFilter { correlation_id: Some("t-2".into()), ..all.clone() }, &[4, 5]),
        (1, 8, MessageFilter { message_type: Some(MessageType::Request), ..all.clone() }, &[1, 7]),
        (
            2,
            8,
            MessageFilter { agent: Some("coder".into()), message_type: Some(MessageType::Request), ..all.clone() },
            &[7],
        ),
        (1, 8, MessageFilter { correlation_id: Some("t-3".into()), ..all }, &[]),
    ];
    for (from_sequence, to_sequence, filter, expected) in cases {
        let query = HistoryQuery {
            from_sequence,
            to_sequence,
            start_time: filter.start_time,
            end_time: filter.end_time,
            sandbox_id: filter.sandbox_id.clone(),
            agent: filter.agent.clone(),
            correlation_id: filter.correlation_id.clone(),
            message_type: filter.message_type,
            ..Default::default()
        };
        assert_eq!(sequences(&stage.history(query).await), expected, "{filter:?}");
        let query = StreamQuery { from_sequence, to_sequence, filter: filter.clone(), follow: false };
        assert_eq!(streamed(&stage, query).await, expected, "{filter:?}");
        let history = stage.client.history(WORKSPACE);
        let replayed = history.replay_messages("reader", from_sequence, to_sequence, filter.clone()).await.unwrap();
        assert_eq!(replayed, expected.len() as u64, "{filter:?}");
        if !expected.is_empty() {
            let inbox = take_and_ack(&mut reader, expected.len()).await;
            assert_eq!(inbox.iter().map(|(sequence, _)| *sequence).collect::<Vec<_>>(), expected, "{filter:?}");
        }
    }
    reader.expect_silence().await;
    // Nobody else has noticed.
    let waiting = [stage.pending("alice").await, stage.pending("bob").await, stage.pending("carol").await];
    assert_eq!(waiting, [4, 3, 3]);
}

#[tokio::test]
async fn line_12_a_replay_brings_acknowledged_messages_again_and_leaves_acks_as_they_are() {
    let mut stage = Stage::with(&["alice", "bob", "carol"]).await;
    stage.publish_all((1..=6).map(|number| direct("alice", "bob", number.to_string()))).await;
    let mut bob = stage.subscribe("bob").await;
    bob.take(6).await;
    bob.ack(1, 3).await;
    drop(bob);
    stage = stage.stop_and_start().await;
    let history = stage.client.history(WORKSPACE);
    // Three are done and come once more; three wait there anyhow.
    assert_eq!(history.replay_messages("bob", 1, 6, Default::default()).await.unwrap(), 3);
    assert_eq!(
        history.replay_messages("bob", 1, 6, Default::default()).await.unwrap(),
        0,
        "a repeated call is harmless"
    );
    assert_eq!(history.replay_messages("carol", 5, 6, Default::default()).await.unwrap(), 2);
    stage = stage.crash_and_start().await;
    assert_eq!((stage.pending("bob").await, stage.pending("carol").await), (6, 2));
    let mut bob = stage.subscribe("bob").await;
    let mut seen = take_and_ack(&mut bob, 6).await;
    seen.sort_unstable();
    assert_eq!(seen.iter().map(|(sequence, _)| *sequence).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6]);
    assert!(seen[..3].iter().all(|(_, attempt)| *attempt == 1), "replayed messages are first attempts: {seen:?}");
    bob.expect_silence().await;
    let mut carol = stage.subscribe("carol").await;
    assert_eq!(take_and_ack(&mut carol, 2).await, [(5, 1), (6, 1)]);
    assert_eq!(stage.history(Default::default()).await.len(), 6, "a replay writes nothing into the log");
    // What was replayed and acknowledged is gone for good.
    let stage = stage.crash_and_start().await;
    assert_eq!((stage.pending("bob").await, stage.pending("carol").await), (0, 0));
}

/// A message waits for a sandbox in many ways: for it alone, among broadcasts and topics, on its own for a time, on loan.
#[tokio::test]
async fn line_12_what_waits_already_is_passed_over_wherever_it_waits() {
    let stage = Stage::with(&["alice", "bob"]).await;
    let topics = stage.client.topics(WORKSPACE);
    topics.create("news").await.unwrap();
    topics.follow("bob", "news", Default::default()).await.unwrap();
    let later = UNIX_EPOCH + Duration::from_nanos(unix_nanos()) + Duration::from_secs(3600);
    stage
        .publish_all([
            direct("alice", "bob", "direct"),
            broadcast("alice", "broadcast"),
            Message { destination: Some(to_topic("news")), ..direct("alice", "", "topic") },
            Message { not_before: Some(tandem_client::wire_time(later)), ..direct("alice", "bob", "delayed") },
        ])
        .await;
    let history = stage.client.history(WORKSPACE);
    assert_eq!(stage.pending("bob").await, 4);
    assert_eq!(history.replay_messages("bob", 1, 4, Default::default()).await.unwrap(), 0);
    let mut bob = stage.subscribe("bob").await;
    let seen: Vec<u64> = bob.take(3).await.iter().map(|delivery| delivery.message.sequence).collect();
    assert_eq!(seen, [1, 2, 3]);
    assert_eq!(
        history.replay_messages("bob", 1, 4, Default::default()).await.unwrap(),
        0,
        "what is on loan waits, too"
    );
    bob.expect_silence().await;
    assert_eq!(stage.pending("bob").await, 4);
    bob.ack(1, 3).await;
    assert_eq!(history.replay_messages("bob", 1, 4, Default::default()).await.unwrap(), 3);
    assert_eq!(bob.take(3).await.len(), 3);
    bob.expect_silence().await;
}

#[tokio::test]
async fn line_12_a_replay_that_cannot_be_is_refused() {
    let stage = Stage::set_up(&["alice", "bob", "small"], |config| config.limits.max_inbox_messages = 10).await;
    stage.publish_all((0..9).map(|number| direct("alice", "bob", number.to_string()))).await;
    let history = stage.client.history(WORKSPACE);
    for (sandbox, from, to, code, reason) in [
        ("bob", 0, 5, Code::InvalidArgument, "INVALID_FIELD"),
        ("bob", 6, 5, Code::InvalidArgument, "INVALID_FIELD"),
        ("nobody", 1, 5, Code::NotFound, "UNKNOWN_SANDBOX"),
    ] {
        let refused = history.replay_messages(sandbox, from, to, Default::default()).await.unwrap_err();
        Refused::from(refused).expect(code, reason, &[]);
    }
    stage.publish_all((0..5).map(|number| direct("alice", "small", number.to_string()))).await;
    let refused = Refused::from(history.replay_messages("small", 1, 9, Default::default()).await.unwrap_err());
    refused.expect(Code::ResourceExhausted, "INBOX_FULL", &["\"small\"", "after 5 messages"]);
    assert!(refused.retry_delay.is_some());
    assert_eq!(stage.pending("small").await, 10, "what was put there before stays");
    let both = StreamQuery { follow: true, to_sequence: 5, ..Default::default() };
    let refused = history.stream_messages(both).next().await.unwrap_err();
    Refused::from(refused).expect(Code::InvalidArgument, "INVALID_FIELD", &["has no end"]).at("follow");
}

/// From a cursor on, over a cut and a kill: everything once, in order.
#[tokio::test]
async fn promise_7_a_live_reader_of_the_log_goes_on_over_cuts_and_restarts_without_a_gap() {
    const MESSAGES: u64 = 60;
    let mut stage = Stage::with(&["alice", "bob"]).await;
    let relay = Relay::to(stage.broker.grpc_address()).await;
    let query = StreamQuery { from_sequence: 5, follow: true, ..Default::default() };
    let mut live = relay.client().history(WORKSPACE).stream_messages(query);
    // A filter that matches little: its cursor moves all the same.
    let tens = MessageFilter { correlation_id: Some("ten".into()), ..Default::default() };
    let query = StreamQuery { filter: tens.clone(), follow: true, ..Default::default() };
    let mut filtered = relay.client().history(WORKSPACE).stream_messages(query);
    for number in 1..=MESSAGES {
        let correlation_id = if number % 10 == 0 { "ten".to_owned() } else { String::new() };
        stage.publish(Message { correlation_id, ..direct("alice", "bob", number.to_string()) }).await;
        if number == 15 || number == 35 {
            relay.cut();
        }
        if number == 25 || number == 45 {
            stage = stage.crash_and_start().await;
            relay.lead_to(stage.broker.grpc_address());
        }
        if number >= 5 {
            let message = next(&mut live).await;
            assert_eq!((message.sequence, text(&message)), (number, number.to_string().as_str()));
            assert_eq!(live.cursor(), number + 1);
        }
        if number % 10 == 0 {
            assert_eq!(next(&mut filtered).await.sequence, number);
        }
    }
    assert_eq!(stage.pending("bob").await, MESSAGES, "reading the log takes nothing out of an inbox");
    // Another process goes on where this one stood.
    let (cursor, filtered_cursor) = (live.cursor(), filtered.cursor());
    drop((live, filtered));
    stage.publish(direct("alice", "bob", "more")).await;
    let more = StreamQuery { from_sequence: cursor, ..Default::default() };
    assert_eq!(streamed(&stage, more).await, [MESSAGES + 1]);
    let more = StreamQuery { from_sequence: filtered_cursor, filter: tens, ..Default::default() };
    assert_eq!(streamed(&stage, more).await, [0; 0]);
}
