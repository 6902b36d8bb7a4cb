//! Producers: every message has a number, and what is sent again is published once.

use futures_util::future::join_all;
use tandem_client::{
    Batch, Client, ExceptionKind, Message, Producer, ProducerPosition, PublishStreamOptions, Settings,
};

use crate::fake::Fake;

fn message(content: &str) -> Message {
    Message { content: content.to_owned().into(), ..Message::default() }
}

fn position(sequence: u64) -> ProducerPosition {
    ProducerPosition { producer_id: "mine".to_owned(), sequence }
}

#[tokio::test]
async fn a_stream_numbers_every_message_also_the_refused() {
    let fake = Fake::start().await;
    let options = PublishStreamOptions { batch_messages: 2, ..PublishStreamOptions::default() };
    let stream = fake.client().publisher("w").stream(options);
    let producer_id = stream.producer_id().expect("on by default").to_owned();
    let mut receipts = Vec::new();
    for content in ["1", "refuse", "3", "refuse", "5"] {
        receipts.push(stream.send(message(content)).await.expect("the stream is open"));
    }
    let numbers: Vec<_> = receipts.iter().map(|receipt| receipt.producer_sequence()).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5].map(Some));
    let good = join_all(receipts).await.iter().filter(|outcome| outcome.is_ok()).count();
    assert_eq!(good, 3);
    // Each request says the number of its first message.
    let requests = fake.seen.publishing.requests.lock().unwrap().clone();
    let producers = fake.seen.publishing.producers.lock().unwrap().clone();
    let mut next = 1;
    for ((_, _, contents), producer) in requests.iter().zip(producers) {
        assert_eq!(producer, Some(ProducerPosition { producer_id: producer_id.clone(), sequence: next }));
        next += contents.len() as u64;
    }
    assert_eq!((next, requests.len() >= 3), (6, true));
}

#[tokio::test]
async fn what_had_no_answer_is_sent_again_and_published_once() {
    let fake = Fake::start().await;
    // As another process would go on, not this stream by itself.
    let settings = Settings { resume_attempts: 0, ..Settings::for_endpoint(fake.url()) };
    let publisher = Client::with_settings(settings).expect("a good endpoint").publisher("w");
    let stream = publisher.stream(PublishStreamOptions::default());
    let producer_id = stream.producer_id().expect("on by default").to_owned();
    let first = stream.send(message("1")).await.expect("the stream is open").await.expect("it is accepted");
    assert_eq!((first.sequence, first.duplicate), (1, false));
    let lost = stream.send(message("swallow")).await.expect("the stream is open");
    let number = lost.producer_sequence().expect("a producer");
    assert_eq!((number, lost.await.expect_err("its answer is lost").reason()), (2, "STREAM_ENDED"));

    let producer = Producer::Resume(ProducerPosition { producer_id, sequence: number });
    let stream = publisher.stream(PublishStreamOptions { producer, ..PublishStreamOptions::default() });
    let mut receipts = Vec::new();
    for content in ["again", "3"] {
        receipts.push(stream.send(message(content)).await.expect("the stream is open"));
    }
    let outcomes = join_all(receipts).await;
    let seen: Vec<_> = outcomes.into_iter().map(|r| r.expect("accepted")).map(|r| (r.sequence, r.duplicate)).collect();
    assert_eq!(seen[0], (2, true), "it had been accepted");
    assert!(!seen[1].1 && seen[1].0 > 2, "{seen:?}");
}

#[tokio::test]
async fn a_stream_without_a_producer_says_nothing_of_one() {
    let fake = Fake::start().await;
    let options = PublishStreamOptions { producer: Producer::Off, ..PublishStreamOptions::default() };
    let stream = fake.client().publisher("w").stream(options);
    let receipt = stream.send(message("x")).await.expect("the stream is open");
    assert_eq!((stream.producer_id(), receipt.producer_sequence()), (None, None));
    receipt.await.expect("it is accepted");
    assert_eq!(*fake.seen.publishing.producers.lock().unwrap(), [None]);
}

#[tokio::test]
async fn batches_are_numbered_on_request() {
    let fake = Fake::start().await;
    let mut stream = fake.client().publisher("w").batch_stream_as(position(11));
    let messages = ["a", "b", "refuse"].map(message);
    stream.send(messages.iter().collect::<Batch>()).expect("there is room");
    stream.send(messages[..1].iter().collect()).expect("there is room");
    assert_eq!(stream.next().await.expect("no error").expect("an answer").accepted, 2);
    assert_eq!(stream.next().await.expect("no error").expect("an answer").accepted, 1);
    let producers = fake.seen.publishing.producers.lock().unwrap().clone();
    assert_eq!(producers, [Some(position(11)), Some(position(14))]);

    let mut again = fake.client().publisher("w").batch_stream_as(position(12));
    again.send(messages[1..].iter().collect()).expect("there is room");
    let receipt = again.next().await.expect("no error").expect("an answer");
    assert!(matches!(receipt.exceptions[0].kind, ExceptionKind::DuplicateOf(2)), "{receipt:?}");
    assert!(matches!(receipt.exceptions[1].kind, ExceptionKind::Refused(_)), "{receipt:?}");
}

#[tokio::test]
async fn a_single_publish_is_safe_by_its_position_alone() {
    let fake = Fake::start().await;
    let publisher = fake.client().publisher("w");
    *fake.seen.publishing.unavailable.lock().unwrap() = 1;
    let receipt = publisher.publish_as(message("x"), position(1)).await.expect("the second attempt succeeds");
    assert_eq!((receipt.sequence, receipt.duplicate), (1, true), "the answer to the first was lost");
    assert_eq!(*fake.seen.publishing.unary_ids.lock().unwrap(), ["", ""]);
    let producers = fake.seen.publishing.producers.lock().unwrap().clone();
    assert_eq!(producers, [Some(position(1)), Some(position(1))]);
    publisher.publish_as(message("y"), position(3)).await.expect_err("number 2 is missing");
}
