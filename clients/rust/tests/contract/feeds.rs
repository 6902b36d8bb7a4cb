//! History and events: cursors, and going on after a break.

use std::time::Duration;

use futures_util::TryStreamExt as _;
use tandem_client::{
    Client, Code, Event, EventQuery, EventType, HistoryQuery, Message, MessageFilter, MessageType, Settings,
    StreamQuery,
};
use tandem_proto::messaging::v1::{StreamEventsResponse, StreamMessagesResponse};
use tonic::Status;

use crate::fake::{Fake, refusal, unavailable};

fn messages(sequences: &[u64], next_sequence: u64) -> Result<StreamMessagesResponse, Status> {
    let messages = sequences.iter().map(|&sequence| Message { sequence, ..Message::default() }).collect();
    Ok(StreamMessagesResponse { messages, next_sequence })
}

fn events(ids: &[u64], next_event: u64) -> Result<StreamEventsResponse, Status> {
    let events = ids.iter().map(|&event_id| Event { event_id, ..Event::default() }).collect();
    Ok(StreamEventsResponse { events, next_event })
}

fn opened_at(fake: &Fake) -> Vec<u64> {
    fake.seen.feeds.message_streams.lock().unwrap().iter().map(|request| request.from_sequence).collect()
}

#[tokio::test]
async fn history_goes_on_where_it_broke() {
    let fake = Fake::start().await;
    *fake.seen.feeds.messages.lock().unwrap() = [
        vec![messages(&[3, 5], 8), messages(&[], 20), Err(unavailable())],
        vec![],
        // Ends although it shall go on: that is a break as well.
        vec![messages(&[22], 23)],
        vec![messages(&[23, 24], 25)],
    ]
    .into();
    let filter = MessageFilter { message_type: Some(MessageType::Command), ..MessageFilter::default() };
    let query = StreamQuery { from_sequence: 2, filter, follow: true, ..StreamQuery::default() };
    let mut stream = fake.client().history("w").stream_messages(query);
    let mut seen = Vec::new();
    for _ in 0..5 {
        let message = stream.next().await.expect("breaks are healed").expect("it goes on");
        seen.push((message.sequence, stream.cursor()));
    }
    assert_eq!(seen, [(3, 4), (5, 8), (22, 23), (23, 24), (24, 25)]);
    assert_eq!(opened_at(&fake), [2, 20, 20, 23]);
    let requests = fake.seen.feeds.message_streams.lock().unwrap().clone();
    let is_same = |request: &tandem_proto::messaging::v1::StreamMessagesRequest| {
        let filter = request.filter.clone().unwrap_or_default();
        (request.workspace_id.as_str(), request.follow, filter.r#type()) == ("w", true, MessageType::Command)
    };
    assert!(requests.iter().all(is_same), "{requests:?}");
}

#[tokio::test]
async fn a_range_of_history_ends() {
    let fake = Fake::start().await;
    // The break comes when all is there: nothing is left to ask for.
    *fake.seen.feeds.messages.lock().unwrap() =
        [vec![messages(&[1, 2], 3), messages(&[], 10), Err(unavailable())]].into();
    let query = StreamQuery { to_sequence: 9, ..StreamQuery::default() };
    let stream = fake.client().history("w").stream_messages(query);
    let seen: Vec<_> = stream.into_stream().map_ok(|message| message.sequence).try_collect().await.expect("no error");
    assert_eq!((seen, opened_at(&fake)), (vec![1, 2], vec![0]));
}

#[tokio::test]
async fn a_gap_is_told_and_not_passed_over() {
    let fake = Fake::start().await;
    let gap = || refusal(Code::OutOfRange, "HISTORY_GAP", "1 to 99 were trimmed");
    *fake.seen.feeds.messages.lock().unwrap() = [vec![Err(gap())], vec![messages(&[100], 101)]].into();
    let mut stream = fake.client().history("w").stream_messages(StreamQuery { from_sequence: 1, ..Default::default() });
    let error = stream.next().await.expect_err("it was trimmed");
    assert_eq!((error.code(), error.reason(), stream.cursor()), (Code::OutOfRange, "HISTORY_GAP", 1));
    // The next call tries again.
    assert_eq!(stream.next().await.expect("no error").expect("a message").sequence, 100);
    assert_eq!(stream.next().await.expect("no error"), None);
}

#[tokio::test]
async fn what_is_out_of_place_breaks_the_contract() {
    for (sequences, next) in [(vec![4, 4], 5), (vec![3], 5), (vec![4, 5], 5), (vec![], 3), (vec![], 0)] {
        let fake = Fake::start().await;
        *fake.seen.feeds.messages.lock().unwrap() = [vec![messages(&sequences, next)]].into();
        let query = StreamQuery { from_sequence: 4, ..StreamQuery::default() };
        let error = fake.client().history("w").stream_messages(query).next().await.expect_err("out of place");
        assert_eq!(error.reason(), "CONTRACT_BROKEN", "{sequences:?} {next}: {error}");
    }
}

#[tokio::test]
async fn going_on_has_a_limit_and_the_first_opening_is_not_repeated() {
    let fake = Fake::start().await;
    let settings = Settings { resume_attempts: 2, ..Settings::for_endpoint(fake.url()) };
    let client = Client::with_settings(settings).expect("a good endpoint");
    *fake.seen.feeds.messages.lock().unwrap() = [vec![]].into();
    let query = StreamQuery { follow: true, ..StreamQuery::default() };
    let mut stream = client.history("w").stream_messages(query);
    assert_eq!(stream.next().await.expect_err("never opened").reason(), "NOT_LEADER");
    assert_eq!(opened_at(&fake), [0]);
    *fake.seen.feeds.messages.lock().unwrap() =
        [vec![messages(&[1], 2), Err(unavailable())], vec![], vec![], vec![messages(&[2], 3)]].into();
    assert_eq!(stream.next().await.expect("no error").expect("a message").sequence, 1);
    assert_eq!(stream.next().await.expect_err("two attempts failed").reason(), "NOT_LEADER");
    assert_eq!(stream.next().await.expect("no error").expect("a message").sequence, 2);
    assert_eq!(opened_at(&fake), [0, 0, 2, 2, 2]);
}

#[tokio::test]
async fn events_are_not_missed_over_a_break() {
    let fake = Fake::start().await;
    *fake.seen.feeds.events.lock().unwrap() =
        [vec![events(&[], 7), Err(unavailable())], vec![events(&[7, 9], 12), Err(unavailable())]].into();
    let query = EventQuery { types: vec![EventType::InboxFull], sandbox_id: Some("bob".into()), ..Default::default() };
    let mut stream = fake.client().events("w", query).await.expect("the broker says where it begins");
    assert_eq!(stream.cursor(), 7, "who keeps the cursor from the beginning misses nothing");
    for (event_id, cursor) in [(7, 8), (9, 12)] {
        assert_eq!(stream.next().await.expect("no error").expect("an event").event_id, event_id);
        assert_eq!(stream.cursor(), cursor);
    }
    assert!(tokio::time::timeout(Duration::from_millis(300), stream.next()).await.is_err(), "nothing happens");
    let requests = fake.seen.feeds.event_streams.lock().unwrap().clone();
    assert_eq!(requests.iter().map(|request| request.from_event).collect::<Vec<_>>(), [0, 7, 12]);
    let all = [i32::from(EventType::InboxFull)];
    assert!(requests.iter().all(|request| request.follow && request.types == all && request.sandbox_id == "bob"));
}

#[tokio::test]
async fn events_that_are_no_longer_kept_are_told_at_once() {
    let fake = Fake::start().await;
    let gap = refusal(Code::OutOfRange, "EVENT_GAP", "1 to 99 are no longer kept");
    *fake.seen.feeds.events.lock().unwrap() = [vec![Err(gap)]].into();
    let error = fake.client().events("w", EventQuery { from_event: 1, ..EventQuery::default() }).await;
    assert_eq!(error.expect_err("the cursor is old").reason(), "EVENT_GAP");
}

#[tokio::test]
async fn a_replay_goes_on_until_all_is_done() {
    let fake = Fake::start().await;
    let filter = MessageFilter { agent: Some("coder".into()), ..MessageFilter::default() };
    let replayed = fake.client().history("w").replay_messages("bob", 5, 29, filter).await.expect("no error");
    assert_eq!(replayed, 25);
    let calls = fake.seen.feeds.replays.lock().unwrap().clone();
    let told: Vec<_> = calls.iter().map(|call| (call.from_sequence, call.to_sequence)).collect();
    assert_eq!(told, [(5, 29), (15, 29), (25, 29)]);
    assert!(calls.iter().all(|c| c.sandbox_id == "bob" && c.filter.clone().unwrap_or_default().agent == "coder"));
}

#[tokio::test]
async fn history_lists_one_type() {
    let fake = Fake::start().await;
    let query = HistoryQuery { message_type: Some(MessageType::Response), ..HistoryQuery::default() };
    let list: Vec<_> = fake.client().history("w").list(query).try_collect().await.expect("no error");
    assert_eq!(list, []);
    assert_eq!(fake.seen.feeds.lists.lock().unwrap()[0].r#type(), MessageType::Response);
}
