//! Promise 2: a retried publish returns the first sequence.

use std::collections::HashMap;

use tandem_client::{Message, MessageType};
use tandem_tests::{Random, broadcast, direct, named};

use crate::stage::{Stage, WORKSPACE};

/// A message with something in every field that a publisher fills.
fn full(id: &str) -> Message {
    Message {
        from_agent: "planner".into(),
        to_agent: "any".into(),
        r#type: MessageType::Request.into(),
        content_type: "text/plain".into(),
        priority: Some(7),
        requires_response: true,
        correlation_id: "c-1".into(),
        metadata: HashMap::from([("one".into(), "1".into())]),
        traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into(),
        ..named(id, direct("alice", "bob", "do it"))
    }
}

#[tokio::test]
async fn promise_2_a_retry_gets_the_first_answer() {
    let stage = Stage::with(&["alice", "bob"]).await;
    let first = stage.publish(full("m1")).await;
    stage.publish(direct("alice", "bob", "between")).await;
    assert!(!first.duplicate);
    for _ in 0..3 {
        let again = stage.publish(full("m1")).await;
        assert!(again.duplicate);
        assert_eq!(
            (again.sequence, &again.message_id, again.server_time),
            (first.sequence, &first.message_id, first.server_time)
        );
    }
    assert_eq!(stage.pending("bob").await, 2);
    assert_eq!(stage.history(Default::default()).await.len(), 2);
}

/// Protobuf leaves the order of a map open, and other languages write fields in other orders: a retry from a process that
/// has forgotten everything but the message must be known all the same.
#[tokio::test]
async fn promise_2_a_retry_is_known_whatever_the_order_of_its_metadata() {
    let stage = Stage::with(&["alice", "bob"]).await;
    let with_metadata = |reversed: bool| {
        let mut pairs: Vec<_> = (0..20).map(|number| (format!("key-{number}"), number.to_string())).collect();
        if reversed {
            pairs.reverse();
        }
        // Each map has hash keys of its own, so that each is written in an order of its own.
        Message { metadata: pairs.into_iter().collect(), ..full("m1") }
    };
    let first = stage.publish(with_metadata(false)).await;
    for round in 0..5 {
        let again = stage.publish(with_metadata(round % 2 == 0)).await;
        assert_eq!((again.sequence, again.duplicate), (first.sequence, true));
    }
    assert_eq!(stage.pending("bob").await, 1);
}

#[tokio::test]
async fn promise_2_retries_in_batches_also_within_one() {
    let stage = Stage::with(&["alice", "bob"]).await;
    let message = |number: u64| named(format!("m{number}"), direct("alice", "bob", number.to_string()));
    let first = stage.publish_all((0..10).map(message)).await;
    // Some new, some known, some twice in the same batch.
    let second = stage.publish_all([5, 20, 3, 20, 21, 9, 21, 22].into_iter().map(message)).await;
    let outcomes: Vec<(u64, bool)> = second.iter().map(|receipt| (receipt.sequence, receipt.duplicate)).collect();
    let sequence_of = |index: usize| second[index].sequence;
    assert_eq!([outcomes[0], outcomes[2], outcomes[5]], [5, 3, 9].map(|number| (first[number].sequence, true)));
    assert_eq!([outcomes[3], outcomes[6]], [(sequence_of(1), true), (sequence_of(4), true)]);
    assert!([1, 4, 7].iter().all(|index| !outcomes[*index].1));
    assert_eq!(stage.pending("bob").await, 13);
    let log: Vec<u64> = stage.history(Default::default()).await.iter().map(|message| message.sequence).collect();
    assert!(log.is_sorted_by(|one, next| one < next) && log.len() == 13);
}

#[tokio::test]
async fn promise_2_a_retry_is_known_after_kill_9_and_after_a_stop() {
    let mut stage = Stage::with(&["alice", "bob"]).await;
    let mut random = Random::from_environment();
    let message = |number: u64| match number % 3 {
        0 => named(format!("m{number}"), broadcast("alice", number.to_string())),
        _ => named(format!("m{number}"), direct("alice", "bob", number.to_string())),
    };
    let first = stage.publish_all((0..500).map(message)).await;
    for round in 0..4 {
        stage = if round % 2 == 0 { stage.crash_and_start().await } else { stage.stop_and_start().await };
        for number in (0..20).map(|_| random.between(0, 499)) {
            let again = stage.publish(message(number)).await;
            assert_eq!((again.sequence, again.duplicate), (first[number as usize].sequence, true), "round {round}");
        }
    }
    assert_eq!(stage.client.workspaces().get(WORKSPACE).await.unwrap().last_sequence, first[499].sequence);
    assert_eq!(stage.pending("bob").await, 500);
}

/// An id is taken when its message is accepted, not when it is refused.
#[tokio::test]
async fn a_refused_message_does_not_use_up_its_id() {
    let stage = Stage::with(&["alice"]).await;
    let message = || named("m1", direct("alice", "bob", "x"));
    stage.try_publish(message()).await.unwrap_err();
    stage.register("bob").await;
    assert!(!stage.publish(message()).await.duplicate);
}

/// Ids belong to a workspace.
#[tokio::test]
async fn the_same_id_may_be_used_in_another_workspace() {
    let stage = Stage::with(&["alice", "bob"]).await;
    for workspace in ["one", "two", "three"] {
        stage.client.workspaces().create(workspace).await.unwrap();
        for sandbox in ["alice", "bob"] {
            stage.client.registry(workspace).register_with_agents(sandbox, Vec::new()).await.unwrap();
        }
        let receipt = stage.client.publisher(workspace).publish(full("m1")).await.unwrap();
        assert_eq!((receipt.sequence, receipt.duplicate), (1, false));
    }
}
