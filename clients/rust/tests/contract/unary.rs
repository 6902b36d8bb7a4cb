//! Single calls: retries, time limits, errors of the way.

use std::time::{Duration, UNIX_EPOCH};

use tandem_client::{Client, Code, Error, Message, Settings};

use crate::fake::Fake;

fn message(content: &str) -> Message {
    Message { content: content.to_owned().into(), ..Message::default() }
}

#[tokio::test]
async fn a_message_without_an_id_gets_one_and_keeps_it_through_retries() {
    let fake = Fake::start().await;
    *fake.seen.publishing.unavailable.lock().unwrap() = 2;
    let receipt = fake.client().publisher("w").publish(message("x")).await.expect("the third attempt succeeds");
    let ids = fake.seen.publishing.unary_ids.lock().unwrap().clone();
    assert_eq!(ids.len(), 3);
    assert!(ids.iter().all(|id| *id == receipt.message_id && id.len() == 36), "{ids:?}");
    assert_eq!((receipt.sequence, receipt.server_time), (1, UNIX_EPOCH + Duration::from_secs(1)));
    assert!(receipt.duplicate, "the first attempt had been accepted, its answer was lost");
}

#[tokio::test]
async fn attempts_have_a_limit() {
    let fake = Fake::start().await;
    *fake.seen.publishing.unavailable.lock().unwrap() = 99;
    let named = Message { message_id: "mine".into(), ..message("x") };
    let settings = Settings { attempts: 3, ..Settings::for_endpoint(fake.url()) };
    let client = Client::with_settings(settings).expect("a good endpoint");
    let error = client.publisher("w").publish(named).await.expect_err("it stays unavailable");
    assert_eq!((error.reason(), error.code(), error.is_retryable()), ("NO_LEADER", Code::Unavailable, true));
    assert_eq!(*fake.seen.publishing.unary_ids.lock().unwrap(), ["mine", "mine", "mine"]);
}

#[tokio::test]
async fn a_refusal_is_not_retried() {
    let fake = Fake::start().await;
    let error = fake.client().publisher("w").publish(message("")).await.expect_err("empty content is refused");
    assert_eq!((error.reason(), error.is_retryable()), ("CONTENT_EMPTY", false));
    assert_eq!(error.to_string(), "content is empty");
    assert_eq!(fake.seen.publishing.unary_ids.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_call_ends_at_its_time_limit() {
    let fake = Fake::start().await;
    *fake.seen.publishing.delay.lock().unwrap() = Duration::from_secs(60);
    let settings = Settings { request_timeout: Duration::from_millis(50), ..Settings::for_endpoint(fake.url()) };
    let client = Client::with_settings(settings).expect("a good endpoint");
    let error = client.publisher("w").publish(message("x")).await.expect_err("it takes too long");
    assert!(matches!(&error, Error::Timeout { after, .. } if after.as_millis() == 50), "{error:?}");
    assert_eq!(error.code(), Code::DeadlineExceeded);
}

#[tokio::test]
async fn a_broker_that_is_not_there_is_unreachable() {
    let mut fake = Fake::start().await;
    fake.stop().await;
    let url = fake.url();
    let settings = Settings { attempts: 1, ..Settings::for_endpoint(url.as_str()) };
    let client = Client::with_settings(settings).expect("a good endpoint");
    let error = client.publisher("w").publish(message("x")).await.expect_err("nobody listens");
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
    assert!(error.to_string().starts_with(&format!("cannot connect to {url}: ")), "{error}");
    let error = client.server_info().await.expect_err("nobody listens");
    assert_eq!(error.reason(), "UNREACHABLE");
}

/// A client of one broker, after that has named another one as the leader and the client has found it.
async fn led(asked: &Fake, leads: &Fake) -> Client {
    *asked.seen.publishing.leader.lock().unwrap() = Some(format!("n2={}", leads.address));
    let client = asked.client();
    let found = async {
        while leads.seen.publishing.unary_ids.lock().unwrap().is_empty() {
            client.publisher("w").publish(message("x")).await.expect("one of them takes it");
        }
    };
    tokio::time::timeout(Duration::from_secs(20), found).await.expect("publishes go to the leader");
    asked.seen.publishing.unary_ids.lock().unwrap().clear();
    leads.seen.publishing.unary_ids.lock().unwrap().clear();
    client
}

fn published(fake: &Fake) -> usize {
    fake.seen.publishing.unary_ids.lock().unwrap().len()
}

#[tokio::test]
async fn publishes_go_to_the_leader_and_back_where_it_fails() {
    let (asked, leads) = (Fake::start().await, Fake::start().await);
    let client = led(&asked, &leads).await;
    let publish = async |workspace: &str| client.publisher(workspace).publish(message("x")).await;
    publish("w").await.expect("it leads");
    assert_eq!((published(&asked), published(&leads)), (0, 1));
    publish("another").await.expect("nobody has said who leads this one");
    assert_eq!((published(&asked), published(&leads)), (1, 1));
    *leads.seen.publishing.unavailable.lock().unwrap() = 1;
    for _ in 0..3 {
        publish("w").await.expect("the other one takes it");
    }
    assert_eq!((published(&asked), published(&leads)), (4, 2), "and it is left alone for a while");
}

#[tokio::test]
async fn a_leader_that_does_not_answer_holds_a_publish_up_for_a_second() {
    let (asked, leads) = (Fake::start().await, Fake::start().await);
    let client = led(&asked, &leads).await;
    *leads.seen.publishing.delay.lock().unwrap() = Duration::from_secs(60);
    let publisher = client.publisher("w");
    let publish = publisher.publish(message("x"));
    tokio::time::timeout(Duration::from_secs(20), publish).await.expect("in time").expect("the other one takes it");
    assert_eq!((published(&asked), published(&leads)), (1, 1));
}

#[tokio::test]
async fn who_does_not_want_it_stays_where_it_is() {
    let (asked, leads) = (Fake::start().await, Fake::start().await);
    *asked.seen.publishing.leader.lock().unwrap() = Some(format!("n2={}", leads.address));
    let settings = Settings { follow_leader: false, ..Settings::for_endpoint(asked.url()) };
    let client = Client::with_settings(settings).expect("a good endpoint");
    for _ in 0..50 {
        client.publisher("w").publish(message("x")).await.expect("it takes it");
    }
    assert_eq!((published(&asked), published(&leads)), (50, 0));
}
