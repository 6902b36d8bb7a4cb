//! What every database has to do: one suite, run on each of them.

mod alerts;
mod postgres;
mod scoped;

use futures_util::{FutureExt as _, future::BoxFuture};

use super::{pages::Page, *};

type Case = fn(Store) -> BoxFuture<'static, ()>;

macro_rules! cases {
    ($($name:path),* $(,)?) => { [$((stringify!($name), (|store| $name(store).boxed()) as Case)),*] };
}

/// All cases, each on a database of its own.
fn cases() -> impl IntoIterator<Item = (&'static str, Case)> {
    cases![
        what_is_remembered_is_recalled,
        ids_and_names_are_taken_once,
        nobody_overwrites_what_he_has_not_seen,
        no_update_is_lost_among_many_writers,
        pages_hold_each_once_in_order,
        listings_are_narrowed_byte_by_byte,
        what_is_due_comes_in_its_order,
        a_key_is_reserved_by_one_and_answered_the_same,
        a_lease_has_one_holder,
        odd_texts_come_back_as_they_were,
        scoped::what_comes_into_a_workspace_has_room_and_goes_with_it,
        scoped::no_more_come_in_than_there_is_room_for,
        alerts::a_look_is_written_as_a_whole_or_not_at_all,
        alerts::an_attempt_is_made_by_one,
        alerts::only_so_many_wait_and_only_the_newest_are_kept,
    ]
}

#[tokio::test]
async fn sqlite_conforms() {
    for (name, case) in cases() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&format!("sqlite:{}/a/b/cp.db", dir.path().display()), 8).await.unwrap();
        eprintln!("{name}");
        case(store.clone()).await;
        store.close().await;
        // Everything is there again, and the tables are up to date already.
        let again = Store::open(&format!("sqlite:{}/a/b/cp.db", dir.path().display()), 8).await.unwrap();
        again.ping().await.unwrap();
        assert_eq!(again.engine(), "sqlite");
    }
}

#[tokio::test]
async fn postgres_conforms() {
    let server = postgres::Server::start().await;
    for (name, case) in cases() {
        let url = server.database(&name.replace([':', ' '], ""));
        let store = Store::open(&url, 8).await.unwrap();
        eprintln!("{name}");
        case(store.clone()).await;
        store.close().await;
        let again = Store::open(&url, 8).await.unwrap();
        again.ping().await.unwrap();
        assert_eq!(again.engine(), "postgres");
    }
}

#[tokio::test]
async fn two_begin_on_a_new_database_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}/cp.db", dir.path().display());
    let opened = futures_util::future::join_all((0..4).map(|_| Store::open(&url, 2))).await;
    for store in opened {
        store.unwrap().ping().await.unwrap();
    }
}

#[tokio::test]
async fn what_is_no_database_is_said_without_its_password() {
    for url in ["", "mysql://root:secret@h/d", "nonsense", "postgres://u:secret@127.0.0.1:1/d", "sqlite:/proc/no/db"] {
        let error = Store::open(url, 1).await.expect_err(url).to_string();
        assert!(!error.contains("secret"), "{error}");
    }
}

fn resource(id: &str, name: &str) -> Resource {
    Resource {
        kind: "thing".to_owned(),
        id: id.to_owned(),
        scope: "w".to_owned(),
        name: name.to_owned(),
        state: "active".to_owned(),
        revision: 1,
        document: "{}".to_owned(),
        create_ms: 1,
        update_ms: 1,
        due_ms: 0,
    }
}

fn query<'a>(by: SortBy, descending: bool) -> Query<'a> {
    Query {
        kind: "thing",
        scope: None,
        id: None,
        name_prefix: "",
        state: "",
        order: Order { by, descending },
        after: None,
        most: 100,
    }
}

fn ids(page: &Page) -> Vec<&str> {
    page.resources.iter().map(|resource| resource.id.as_str()).collect()
}

async fn what_is_remembered_is_recalled(store: Store) {
    let one = Resource { due_ms: i64::MAX, document: "{\"a\": 1}".to_owned(), ..resource("1", "one") };
    store.insert(&one).await.unwrap();
    assert_eq!(store.get("thing", "1").await.unwrap().unwrap(), one);
    assert!(store.get("thing", "2").await.unwrap().is_none() && store.get("other", "1").await.unwrap().is_none());
    store.remove(&one).await.unwrap();
    assert!(store.get("thing", "1").await.unwrap().is_none());
    assert!(matches!(store.remove(&one).await, Err(StoreError::Changed)));
}

async fn ids_and_names_are_taken_once(store: Store) {
    store.insert(&resource("1", "one")).await.unwrap();
    assert!(matches!(store.insert(&resource("1", "two")).await, Err(StoreError::IdTaken)));
    assert!(matches!(store.insert(&resource("2", "one")).await, Err(StoreError::NameTaken)));
    store.insert(&resource("2", "One")).await.unwrap();
    store.insert(&Resource { scope: "v".to_owned(), ..resource("3", "one") }).await.unwrap();
    store.insert(&Resource { kind: "other".to_owned(), ..resource("1", "one") }).await.unwrap();
    let renamed = Resource { name: "one".to_owned(), ..resource("2", "One") };
    assert!(matches!(store.update(&renamed).await, Err(StoreError::NameTaken)));
    // Of many at once one gets it.
    let many = (0..20).map(|number| {
        let store = store.clone();
        async move { store.insert(&resource(&format!("n{number}"), "wanted")).await.is_ok() }
    });
    let won = futures_util::future::join_all(many).await;
    assert_eq!(won.into_iter().filter(|won| *won).count(), 1);
}

async fn nobody_overwrites_what_he_has_not_seen(store: Store) {
    let first = resource("1", "one");
    store.insert(&first).await.unwrap();
    let second = store.update(&Resource { state: "b".to_owned(), ..first.clone() }).await.unwrap();
    assert_eq!(second.revision, 2);
    assert_eq!(store.get("thing", "1").await.unwrap().unwrap(), second);
    assert!(matches!(store.update(&first).await, Err(StoreError::Changed)));
    assert!(matches!(store.remove(&first).await, Err(StoreError::Changed)));
    assert!(matches!(store.update(&resource("2", "two")).await, Err(StoreError::Changed)));
    assert_eq!(store.get("thing", "1").await.unwrap().unwrap().state, "b");
}

async fn no_update_is_lost_among_many_writers(store: Store) {
    store.insert(&Resource { document: "0".to_owned(), ..resource("1", "one") }).await.unwrap();
    let writers = (0..8).map(|_| {
        let store = store.clone();
        tokio::spawn(async move {
            let mut done = 0;
            while done < 25 {
                let seen = store.get("thing", "1").await.unwrap().unwrap();
                let next = seen.document.parse::<u64>().unwrap() + 1;
                match store.update(&Resource { document: next.to_string(), ..seen }).await {
                    Ok(_) => done += 1,
                    Err(StoreError::Changed) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        })
    });
    for writer in futures_util::future::join_all(writers).await {
        writer.unwrap();
    }
    let last = store.get("thing", "1").await.unwrap().unwrap();
    assert_eq!((last.document.as_str(), last.revision), ("200", 201));
}

async fn pages_hold_each_once_in_order(store: Store) {
    for number in 0..25_i64 {
        // Some are made in the same millisecond.
        let one = Resource {
            create_ms: number / 3,
            update_ms: 100 - number,
            ..resource(&format!("id-{number:02}"), &format!("name-{:02}", (number * 7) % 25))
        };
        store.insert(&one).await.unwrap();
    }
    for by in [SortBy::Name, SortBy::CreateTime, SortBy::UpdateTime] {
        for descending in [false, true] {
            let whole = store.list(&query(by, descending)).await.unwrap();
            assert_eq!((whole.resources.len(), &whole.next), (25, &None));
            let mut places: Vec<_> = whole
                .resources
                .iter()
                .map(|one| match by {
                    SortBy::Name => (one.name.clone(), one.id.clone()),
                    SortBy::CreateTime => (format!("{:03}", one.create_ms), one.id.clone()),
                    SortBy::UpdateTime => (format!("{:03}", one.update_ms), one.id.clone()),
                })
                .collect();
            if descending {
                places.reverse();
            }
            assert!(places.is_sorted(), "{by:?} {descending}: {places:?}");
            let (mut seen, mut after) = (Vec::new(), None);
            loop {
                let place = after.as_ref().map(|(by, id): &(String, String)| (by.as_str(), id.as_str()));
                let page = store.list(&Query { most: 4, after: place, ..query(by, descending) }).await.unwrap();
                assert!(page.resources.len() <= 4);
                seen.extend(page.resources);
                match page.next {
                    Some(next) => after = Some(next),
                    None => break,
                }
            }
            assert_eq!(seen, whole.resources, "{by:?} {descending}");
        }
    }
}

async fn listings_are_narrowed_byte_by_byte(store: Store) {
    for (id, name, state, scope) in [
        ("1", "ab", "a", "w"),
        ("2", "aB", "b", "w"),
        ("3", "a%b", "a", "v"),
        ("4", "äb", "a", "v"),
        ("5", "a_", "a", "w"),
    ] {
        let one = Resource { state: state.to_owned(), scope: scope.to_owned(), ..resource(id, name) };
        store.insert(&one).await.unwrap();
    }
    let plain = || query(SortBy::Name, false);
    let of = |query| {
        let store = store.clone();
        async move { ids(&store.list(&query).await.unwrap()).join(" ") }
    };
    // By their bytes: '%' < 'B' < '_' < 'b' < 'ä'.
    assert_eq!(of(plain()).await, "3 2 5 1 4");
    assert_eq!(of(Query { name_prefix: "ab", ..plain() }).await, "1");
    assert_eq!(of(Query { name_prefix: "a%", ..plain() }).await, "3");
    assert_eq!(of(Query { name_prefix: "a_", ..plain() }).await, "5");
    assert_eq!(of(Query { name_prefix: "ä", ..plain() }).await, "4");
    assert_eq!(of(Query { state: "b", ..plain() }).await, "2");
    assert_eq!(of(Query { scope: Some("v"), state: "a", ..plain() }).await, "3 4");
    assert_eq!(of(Query { id: Some("4"), ..plain() }).await, "4");
    assert_eq!(of(Query { kind: "other", ..plain() }).await, "");
}

async fn what_is_due_comes_in_its_order(store: Store) {
    for (id, due_ms) in [("1", 30), ("2", 0), ("3", 10), ("4", 99)] {
        store.insert(&Resource { due_ms, ..resource(id, id) }).await.unwrap();
    }
    let due = |now_ms, most| {
        let store = store.clone();
        async move { store.due(now_ms, most).await.unwrap().into_iter().map(|one| one.id).collect::<Vec<_>>() }
    };
    assert_eq!(due(50, 10).await, ["3", "1"]);
    assert_eq!(due(50, 1).await, ["3"]);
    assert!(due(9, 10).await.is_empty());
    assert_eq!(due(99, 10).await, ["3", "1", "4"]);
}

async fn a_key_is_reserved_by_one_and_answered_the_same(store: Store) {
    let reserve = |caller: &'static str, print: &'static str, now_ms| {
        let store = store.clone();
        async move { store.reserve_answer((caller, "k", print), (now_ms, now_ms + 10)).await.unwrap() }
    };
    assert_eq!(reserve("a", "p", 100).await, Known::Reserved);
    assert_eq!(reserve("a", "p", 101).await, Known::UnderWay);
    assert_eq!(reserve("a", "q", 101).await, Known::OfAnother);
    assert_eq!(reserve("b", "q", 101).await, Known::Reserved, "another caller");
    store.forget_answer(("b", "k")).await.unwrap();
    assert_eq!(reserve("b", "p", 101).await, Known::Reserved);
    let answer = Answer { status: 201, location: "/x".to_owned(), body: "{\"ä\": 1}".to_owned() };
    store.keep_answer(("a", "k"), &answer, 200).await.unwrap();
    assert_eq!(reserve("a", "p", 150).await, Known::Answered(answer.clone()));
    assert_eq!(reserve("a", "q", 150).await, Known::OfAnother);
    // What is answered is not given up.
    store.forget_answer(("a", "k")).await.unwrap();
    assert_eq!(reserve("a", "p", 150).await, Known::Answered(answer));
    assert_eq!(reserve("a", "q", 200).await, Known::Reserved, "its time is over");
    assert_eq!(store.forget_old_answers(150).await.unwrap(), 1, "that of b, whose process has gone");
    let many = (0..10).map(|_| {
        let store = store.clone();
        async move { store.reserve_answer(("c", "k", "p"), (0, 10)).await.unwrap() == Known::Reserved }
    });
    let won = futures_util::future::join_all(many).await;
    assert_eq!(won.into_iter().filter(|won| *won).count(), 1);
}

async fn a_lease_has_one_holder(store: Store) {
    let lease = |holder: &'static str, now_ms| {
        let store = store.clone();
        async move { store.lease(("turn", holder), (now_ms, now_ms + 10)).await.unwrap() }
    };
    assert!(lease("a", 100).await && lease("a", 105).await, "who has it keeps it");
    assert!(!lease("b", 110).await);
    assert!(lease("b", 115).await, "its time is over");
    assert!(!lease("a", 116).await);
    store.give_back(("turn", "a")).await.unwrap();
    assert!(!lease("a", 116).await, "nobody gives back what another has");
    store.give_back(("turn", "b")).await.unwrap();
    assert!(lease("a", 116).await);
    let many = (0..10).map(|number| {
        let store = store.clone();
        async move { store.lease(("other", &format!("h{number}")), (0, 10)).await.unwrap() }
    });
    let won = futures_util::future::join_all(many).await;
    assert_eq!(won.into_iter().filter(|won| *won).count(), 1);
}

async fn odd_texts_come_back_as_they_were(store: Store) {
    for (at, text) in
        ["'; DROP TABLE resources; --", "$1 ? :a @b", "ä\u{1f600}\u{202e}", "line\nline\t\"", " "].iter().enumerate()
    {
        let odd = Resource { document: (*text).to_owned(), ..resource(&format!("{at}{text}"), text) };
        store.insert(&odd).await.unwrap();
        assert_eq!(store.get("thing", &odd.id).await.unwrap().unwrap(), odd);
        let found = store.list(&Query { name_prefix: text, ..query(SortBy::Name, false) }).await.unwrap();
        assert_eq!(found.resources, [odd]);
    }
}
