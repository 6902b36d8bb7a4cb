use super::*;

/// Where nobody listens.
fn nobody() -> Client {
    let settings = tandem_client::Settings::for_endpoint("http://127.0.0.1:1");
    Client::with_settings(tandem_client::Settings { request_timeout: Duration::from_secs(1), ..settings }).unwrap()
}

async fn workspaces() -> (Workspaces, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&format!("sqlite:{}/cp.db", dir.path().display()), 2).await.unwrap();
    let (sandboxes, _) = crate::service::sandboxes::tests::with_fake(&store);
    (Workspaces::new(store, sandboxes, Duration::ZERO), dir)
}

async fn overdue(workspaces: &Workspaces, state: &str) -> Resource {
    let row = row("w", "w", &Document::default(), 1).unwrap();
    let row = Resource { state: state.to_owned(), due_ms: 1, ..row };
    workspaces.store.insert(&row).await.unwrap();
    row
}

#[tokio::test]
async fn what_is_overdue_is_claimed_before_anything_is_done() {
    let (workspaces, _dir) = workspaces().await;
    let read = overdue(&workspaces, DELETING).await;
    // Nobody answers: it is not ended, and comes again, and its end cannot be taken back.
    workspaces.go_on(&nobody(), read.clone()).await.unwrap();
    let claimed = workspaces.find("w").await.unwrap();
    assert!(claimed.revision > read.revision && claimed.due_ms > clock::unix_ms());
    assert!(Document::of(&claimed).unwrap().is_ending);
    // Who has read it before does nothing.
    workspaces.go_on(&nobody(), read).await.unwrap();
    assert_eq!(workspaces.find("w").await.unwrap(), claimed);
}

#[tokio::test]
async fn what_is_not_heard_of_is_tried_again_and_fails_never() {
    for state in [CREATING, UPDATING] {
        let (workspaces, _dir) = workspaces().await;
        let read = overdue(&workspaces, state).await;
        workspaces.go_on(&nobody(), read).await.unwrap();
        let left = workspaces.find("w").await.unwrap();
        assert_eq!((left.state.as_str(), left.due_ms > clock::unix_ms()), (state, true));
    }
}
