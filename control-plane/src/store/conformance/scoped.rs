//! What is set up in a workspace.

use super::*;

fn workspace(state: &str) -> Resource {
    Resource { kind: "workspace".to_owned(), scope: String::new(), state: state.to_owned(), ..resource("w", "w") }
}

pub(super) async fn what_comes_into_a_workspace_has_room_and_goes_with_it(store: Store) {
    assert!(matches!(store.insert_within(&resource("1", "one"), 9).await, Err(StoreError::NoWorkspace)));
    store.insert(&workspace("active")).await.unwrap();
    store.insert_within(&resource("1", "one"), 2).await.unwrap();
    assert!(matches!(store.insert_within(&resource("2", "one"), 2).await, Err(StoreError::NameTaken)));
    assert!(matches!(store.insert_within(&resource("1", "two"), 2).await, Err(StoreError::IdTaken)));
    store.insert_within(&resource("2", "two"), 2).await.unwrap();
    assert!(matches!(store.insert_within(&resource("3", "three"), 2).await, Err(StoreError::Full)));
    let other = Resource { kind: "other".to_owned(), ..resource("3", "three") };
    store.insert_within(&other, 2).await.unwrap();
    assert_eq!(store.get("workspace", "w").await.unwrap().unwrap(), workspace("active"), "it has not changed");
    assert_eq!(store.named("thing", "w", "two").await.unwrap().unwrap(), resource("2", "two"));
    assert!(store.named("thing", "w", "Two").await.unwrap().is_none());
    assert!(store.named("thing", "v", "two").await.unwrap().is_none());
    let names = |rows: Vec<Resource>| rows.into_iter().map(|row| row.name).collect::<Vec<_>>();
    assert_eq!(names(store.all_within("thing", "w", 9).await.unwrap()), ["one", "two"]);
    assert_eq!(names(store.all_within("thing", "w", 1).await.unwrap()), ["one"]);
    store.insert(&Resource { scope: "v".to_owned(), ..resource("4", "four") }).await.unwrap();
    assert_eq!(store.scopes("thing", "", 9).await.unwrap(), ["v", "w"]);
    assert_eq!(store.scopes("thing", "v", 9).await.unwrap(), ["w"]);
    assert_eq!(store.scopes("thing", "", 1).await.unwrap(), ["v"]);
    store.forget_within("w", &["thing"]).await.unwrap();
    assert_eq!(store.scopes("thing", "", 9).await.unwrap(), ["v"], "what is elsewhere stays");
    assert!(store.get("other", "3").await.unwrap().is_some(), "and what is of another kind");
    let going = Resource { state: "deleting".to_owned(), ..workspace("active") };
    store.update(&going).await.unwrap();
    assert!(matches!(store.insert_within(&resource("5", "five"), 9).await, Err(StoreError::NoWorkspace)));
}

pub(super) async fn no_more_come_in_than_there_is_room_for(store: Store) {
    store.insert(&workspace("active")).await.unwrap();
    let many = (0..20).map(|number| {
        let store = store.clone();
        let new = resource(&format!("n{number}"), &format!("name {number}"));
        async move { store.insert_within(&new, 7).await.is_ok() }
    });
    let came = futures_util::future::join_all(many).await;
    assert_eq!(came.into_iter().filter(|came| *came).count(), 7);
    assert_eq!(store.all_within("thing", "w", 99).await.unwrap().len(), 7);
}
