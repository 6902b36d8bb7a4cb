//! Publish streams: batching, the window, outcomes.

use std::{collections::HashSet, time::Duration};

use futures_util::{FutureExt as _, future::join_all};
use tandem_client::{Batch, Client, Error, ExceptionKind, Message, PublishStreamOptions, Settings};

use crate::fake::Fake;

fn message(content: impl Into<String>) -> Message {
    Message { content: content.into().into(), ..Message::default() }
}

fn named(id: &str) -> Message {
    Message { message_id: id.to_owned(), ..message("x") }
}

const SOON: Duration = Duration::from_millis(50);

#[tokio::test]
async fn what_waits_goes_out_together_and_in_order() {
    let fake = Fake::start().await;
    let options = PublishStreamOptions { window_messages: 10_000, ..PublishStreamOptions::default() };
    let stream = fake.client().publisher("w").stream(options);
    let mut receipts = Vec::new();
    for n in 0..5000 {
        receipts.push(stream.send(message(n.to_string())).await.expect("the stream is open"));
    }
    let sequences: Vec<_> = join_all(receipts).await.into_iter().map(|r| r.expect("accepted").sequence).collect();
    assert_eq!(sequences, (1..=5000).collect::<Vec<u64>>());
    let requests = fake.seen.publishing.requests.lock().unwrap().clone();
    assert!(requests.len() <= 10, "{} requests for 5,000 messages", requests.len());
    assert!(requests.iter().all(|(_, _, contents)| contents.len() <= 1000));
    let contents: Vec<_> = requests.iter().flat_map(|(_, _, contents)| contents.clone()).collect();
    assert_eq!(contents, (0..5000).map(|n| n.to_string()).collect::<Vec<_>>());
    assert_eq!((requests[0].0.as_str(), requests[1].0.as_str()), ("w", ""));
    assert_eq!(requests.iter().map(|request| request.1).collect::<HashSet<_>>().len(), requests.len());
}

#[tokio::test]
async fn batches_are_bounded_in_bytes() {
    let fake = Fake::start().await;
    let options = PublishStreamOptions { batch_bytes: 1000, window_bytes: 5000, ..PublishStreamOptions::default() };
    let stream = fake.client().publisher("w").stream(options);
    let mut receipts = Vec::new();
    for size in [400, 400, 400, 9000, 400] {
        receipts.push(stream.send(message("x".repeat(size))).await.expect("the stream is open"));
    }
    assert!(join_all(receipts).await.iter().all(Result::is_ok));
    let requests = fake.seen.publishing.requests.lock().unwrap();
    let large = |contents: &Vec<String>| contents.iter().map(String::len).sum::<usize>() > 1000;
    let large: Vec<_> = requests.iter().filter(|(_, _, contents)| large(contents)).map(|r| r.2.len()).collect();
    assert_eq!(large, [1], "only the message that is larger than a batch goes beyond it, alone");
}

#[tokio::test]
async fn the_window_holds_senders_back() {
    let fake = Fake::start().await;
    fake.hold_answers();
    let options = PublishStreamOptions { window_messages: 3, ..PublishStreamOptions::default() };
    let stream = fake.client().publisher("w").stream(options);
    let mut receipts = Vec::new();
    for n in 0..3 {
        receipts.push(stream.send(message(n.to_string())).await.expect("there is room"));
    }
    assert!(tokio::time::timeout(SOON, stream.send(message("3"))).await.is_err(), "the window is full");
    assert!(tokio::time::timeout(SOON, stream.flush()).await.is_err(), "nothing is answered");
    fake.seen.answers.add_permits(100);
    receipts.push(stream.send(message("3")).await.expect("there is room again"));
    stream.flush().await.expect("all are answered");
    let ready: Vec<_> = receipts.into_iter().filter_map(|receipt| receipt.now_or_never()).collect();
    assert_eq!(ready.len(), 4);
}

#[tokio::test]
async fn each_message_has_its_own_outcome() {
    let fake = Fake::start().await;
    let stream = fake.client().publisher("w").stream(PublishStreamOptions::default());
    let messages = [named("a"), message("refuse"), named("b"), named("a"), message("x")];
    let mut receipts = Vec::new();
    for message in messages {
        receipts.push(stream.send(message).await.expect("the stream is open"));
    }
    let outcomes: Vec<_> = join_all(receipts)
        .await
        .into_iter()
        .map(|outcome| match outcome {
            Ok(receipt) => format!("{} {} {}", receipt.sequence, receipt.message_id, receipt.duplicate),
            Err(error) => error.reason().to_owned(),
        })
        .collect();
    assert_eq!(outcomes, ["1 a false", "CONTENT_BAD", "3 b false", "1 a true", "5 seq-5 false"]);
}

#[tokio::test]
async fn a_broken_stream_fails_every_message_that_has_no_answer() {
    for (last, reason) in [("break", "NO_LEADER"), ("hang up", "STREAM_ENDED")] {
        let fake = Fake::start().await;
        // It does not go on by itself.
        let settings = Settings { resume_attempts: 0, ..Settings::for_endpoint(fake.url()) };
        let client = Client::with_settings(settings).expect("a good endpoint");
        let stream = client.publisher("w").stream(PublishStreamOptions::default());
        let good = stream.send(message("x")).await.expect("the stream is open");
        assert!(good.await.is_ok());
        fake.hold_answers();
        let mut receipts = vec![stream.send(message("x")).await.expect("the stream is open")];
        // Two requests, so that one is answered and one is not.
        fake.got_requests(2).await;
        receipts.push(stream.send(message(last)).await.expect("the stream is open"));
        fake.seen.answers.add_permits(1);
        assert!(receipts.remove(0).await.is_ok());
        fake.seen.answers.add_permits(1);
        let error = receipts.remove(0).await.expect_err("the stream broke");
        assert_eq!(error.reason(), reason, "{error}");
        assert_eq!(stream.send(message("x")).await.expect_err("it stays broken").reason(), reason);
        assert_eq!(stream.flush().await.expect_err("it stays broken").reason(), reason);
    }
}

#[tokio::test]
async fn what_no_request_has_room_for_is_refused_and_breaks_nothing() {
    let fake = Fake::start().await;
    let settings = Settings { max_request_bytes: 10_000, ..Settings::for_endpoint(fake.url()) };
    let client = Client::with_settings(settings).expect("a good endpoint");
    let publisher = client.publisher("w");
    let stream = publisher.stream(PublishStreamOptions::default());
    let large = || message("x".repeat(10_000));
    let refused = [
        stream.send(large()).await.err(),
        publisher.publish(large()).await.err(),
        publisher.request(large(), Duration::from_secs(1)).await.err(),
    ];
    for error in refused {
        let error = error.expect("it does not fit");
        assert_eq!((error.reason(), error.is_retryable()), ("MESSAGE_TOO_LARGE", false), "{error}");
        assert!(error.to_string().contains("10000"), "{error}");
    }
    let fits = stream.send(message("x".repeat(8_900))).await.expect("the stream is open");
    assert_eq!(fits.await.expect("accepted").sequence, 1);
}

#[tokio::test]
async fn a_dropped_stream_sends_what_waits() {
    let fake = Fake::start().await;
    let stream = fake.client().publisher("w").stream(PublishStreamOptions::default());
    let receipt = stream.send(message("x")).await.expect("the stream is open");
    drop(stream);
    assert_eq!(receipt.await.expect("it is sent").sequence, 1);
}

#[tokio::test]
async fn batches_are_pipelined_and_answered_in_order() {
    let fake = Fake::start().await;
    let mut stream = fake.client().publisher("w").batch_stream();
    for round in 0..20 {
        let messages: Vec<_> = (0..=round).map(|n| message(n.to_string())).collect();
        assert_eq!(stream.send(messages.iter().collect::<Batch>()).expect("there is room"), round + 1);
    }
    assert_eq!(stream.unanswered(), 20);
    let mut next_sequence = 1;
    for round in 0..20u32 {
        let receipt = stream.next().await.expect("no error").expect("an answer");
        assert_eq!((receipt.request_id, receipt.accepted), (u64::from(round) + 1, round + 1));
        assert_eq!(receipt.first_sequence, next_sequence);
        next_sequence += u64::from(receipt.messages);
    }
    let refused = [message("x"), message("refuse")];
    stream.send(refused.iter().collect()).expect("there is room");
    let receipt = stream.next().await.expect("no error").expect("an answer");
    assert!(matches!(&receipt.exceptions[..], [e] if e.index == 1 && matches!(e.kind, ExceptionKind::Refused(_))));
    stream.finish();
    assert!(matches!(stream.send(Batch::new()), Err(Error::Closed { .. })));
    assert!(stream.next().await.expect("no error").is_none());
}

#[tokio::test]
async fn a_batch_stream_is_bounded_and_tells_of_its_end() {
    let mut fake = Fake::start().await;
    fake.hold_answers();
    let mut stream = fake.client().publisher("w").batch_stream();
    let batch = || [message("x")].iter().collect::<Batch>();
    while stream.send(batch()).is_ok() {}
    assert_eq!(stream.unanswered(), tandem_client::BatchStream::MAX_UNANSWERED);
    assert!(matches!(stream.send(batch()), Err(Error::TooManyUnanswered { .. })));
    assert!(tokio::time::timeout(SOON, stream.next()).await.is_err(), "answers are held back");
    fake.stop().await;
    fake.seen.answers.add_permits(1);
    // The connection outlives its listener: the answer still comes, and the stream goes on.
    assert!(stream.next().await.expect("no error").is_some());
    stream.send(batch()).expect("there is room");
}
