//! What happened, and who is told.

use super::*;

fn happening(id: &str) -> Happening {
    let word = |text: &str| text.to_owned();
    Happening {
        id: word(id),
        workspace: word("w"),
        kind: word("failed"),
        sandbox: word("a"),
        detail: word("ä'\"$1"),
        happen_ms: 7,
    }
}

fn delivery(id: &str, due_ms: i64) -> Delivery {
    let word = |text: &str| text.to_owned();
    Delivery {
        id: word(id),
        workspace: word("w"),
        rule_id: word("r"),
        alert_id: word("x"),
        body: word("{}"),
        attempts: 0,
        due_ms,
    }
}

fn judged(progress: Resource) -> Judged {
    Judged { progress, fired: Vec::new(), grown: Vec::new(), deliveries: Vec::new(), seen: Vec::new() }
}

pub(super) async fn a_look_is_written_as_a_whole_or_not_at_all(store: Store) {
    let progress = |revision, document: &str| Resource {
        kind: "progress".to_owned(),
        revision,
        document: document.to_owned(),
        ..resource("w", "w")
    };
    store.happened(&happening("1"), 9).await.unwrap();
    store.happened(&happening("2"), 9).await.unwrap();
    assert_eq!(store.happenings("w", 9).await.unwrap(), [happening("1"), happening("2")]);
    assert_eq!(store.happenings("w", 1).await.unwrap(), [happening("1")]);
    let first = Judged {
        fired: vec![resource("a1", "r/a1")],
        deliveries: vec![delivery("d1", 5)],
        seen: vec!["1".to_owned()],
        ..judged(progress(0, "one"))
    };
    store.judge(&first).await.unwrap();
    assert!(matches!(store.judge(&first).await, Err(StoreError::Changed)), "somebody else has begun");
    assert_eq!(store.get("progress", "w").await.unwrap().unwrap(), progress(1, "one"));
    assert_eq!(
        (store.happenings("w", 9).await.unwrap(), store.waiting_deliveries("w").await.unwrap()),
        (vec![happening("2")], 1)
    );
    // Somebody has changed an alert that grows: nothing of the look is there.
    let grown = Resource { revision: 7, ..resource("a1", "r/a1") };
    let late = Judged {
        grown: vec![grown],
        fired: vec![resource("a2", "r/a2")],
        deliveries: vec![delivery("d2", 5)],
        seen: vec!["2".to_owned()],
        ..judged(progress(1, "two"))
    };
    assert!(matches!(store.judge(&late).await, Err(StoreError::Changed)));
    assert_eq!(store.get("progress", "w").await.unwrap().unwrap(), progress(1, "one"));
    assert!(store.get("thing", "a2").await.unwrap().is_none());
    assert_eq!((store.happenings("w", 9).await.unwrap().len(), store.waiting_deliveries("w").await.unwrap()), (1, 1));
    store.judge(&Judged { grown: vec![resource("a1", "r/a1")], ..late }).await.unwrap();
    assert_eq!(store.get("thing", "a1").await.unwrap().unwrap().revision, 2);
    assert_eq!(store.get("progress", "w").await.unwrap().unwrap(), progress(2, "two"));
    store.forget_within("w", &[]).await.unwrap();
    assert_eq!(store.waiting_deliveries("w").await.unwrap(), 0, "both queues go with the workspace");
}

pub(super) async fn an_attempt_is_made_by_one(store: Store) {
    let progress = Resource { revision: 0, ..resource("w", "w") };
    let deliveries = vec![delivery("d1", 10), delivery("d2", 5), delivery("d3", 99)];
    store.judge(&Judged { deliveries, ..judged(progress) }).await.unwrap();
    let ids = |taken: Vec<Delivery>| taken.into_iter().map(|one| one.id).collect::<Vec<_>>();
    assert_eq!(ids(store.take_deliveries((5, 60), 9).await.unwrap()), ["d2"]);
    let many = (0..8).map(|_| store.take_deliveries((20, 70), 9));
    let taken: Vec<_> =
        futures_util::future::join_all(many).await.into_iter().flat_map(|taken| taken.unwrap()).collect();
    assert_eq!(taken, [Delivery { attempts: 1, due_ms: 70, ..delivery("d1", 0) }]);
    // Whoever has taken it has gone: it is due again.
    let again = store.take_deliveries((60, 200), 1).await.unwrap();
    assert_eq!((again[0].id.as_str(), again[0].attempts), ("d2", 2));
    // It is put off by who has the last attempt alone.
    store.put_off(&Delivery { attempts: 1, ..again[0].clone() }, 61).await.unwrap();
    assert_eq!(ids(store.take_deliveries((61, 200), 9).await.unwrap()), Vec::<String>::new());
    store.put_off(&again[0], 62).await.unwrap();
    assert_eq!(ids(store.take_deliveries((62, 200), 9).await.unwrap()), ["d2"]);
    store.forget_delivery("d2").await.unwrap();
    assert_eq!(ids(store.take_deliveries((999, 1_000), 9).await.unwrap()), ["d1", "d3"]);
}

pub(super) async fn only_so_many_wait_and_only_the_newest_are_kept(store: Store) {
    for id in ["1", "2"] {
        store.happened(&happening(id), 2).await.unwrap();
    }
    assert!(matches!(store.happened(&happening("3"), 2).await, Err(StoreError::Full)));
    store.happened(&Happening { workspace: "v".to_owned(), ..happening("4") }, 2).await.unwrap();
    for (id, create_ms) in [("a", 3), ("b", 1), ("c", 2), ("d", 2)] {
        store.insert(&Resource { create_ms, ..resource(id, id) }).await.unwrap();
    }
    store.insert(&Resource { scope: "v".to_owned(), create_ms: 0, ..resource("e", "e") }).await.unwrap();
    assert_eq!(store.forget_oldest(("thing", "w"), 2).await.unwrap(), 2);
    let kept = store.list(&query(SortBy::Name, false)).await.unwrap();
    assert_eq!(ids(&kept), ["a", "d", "e"]);
    assert_eq!(store.forget_oldest(("thing", "w"), 2).await.unwrap(), 0);
}
