//! Sandboxes without Docker, and without a broker.

use tandem_client::Client;

use super::*;
use crate::{
    relay::Relays,
    sandbox::{Doing, RuntimeError, fake::Fake},
    service::sandbox::Resources,
};

/// Sandboxes in containers that are none, before a broker that never answers.
pub(crate) fn with_fake(store: &Store) -> (Sandboxes, Fake) {
    with_fake_and(store, |_| {})
}

fn with_fake_and(store: &Store, change: impl FnOnce(&mut SandboxConfig)) -> (Sandboxes, Fake) {
    let fake = Fake::default();
    let runtime: Arc<dyn SandboxRuntime> = Arc::new(fake.clone());
    let mut config =
        SandboxConfig { broker_urls: vec!["http://192.0.2.1:8001".to_owned()], ..SandboxConfig::default() };
    change(&mut config);
    let relays = Relays::new(&[], None).unwrap();
    let networks = Networks::new((store.clone(), Arc::clone(&runtime)), relays, config.clone(), "i".to_owned());
    let nobody = tandem_client::Settings { attempts: 1, ..tandem_client::Settings::for_endpoint("http://127.0.0.1:1") };
    let broker = Client::with_settings(nobody).unwrap();
    let secrets = crate::secrets::Secrets::for_tests();
    let kit = Kit {
        providers: Providers::new(store.clone(), secrets.clone()),
        mcp_servers: McpServers::new(store.clone(), secrets.clone()),
        alerts: Alerts::new(store.clone(), secrets, false),
    };
    (Sandboxes::new((store.clone(), runtime, networks), (broker, kit), (config, false)), fake)
}

struct Stage {
    sandboxes: Sandboxes,
    fake: Fake,
    store: Store,
    memory: Memory,
    _dir: tempfile::TempDir,
}

impl Stage {
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut SandboxConfig)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&format!("sqlite:{}/db", dir.path().display()), 2).await.unwrap();
        let (sandboxes, fake) = with_fake_and(&store, change);
        Self { sandboxes, fake, store, memory: Memory::default(), _dir: dir }
    }

    /// A sandbox that is in a state, with a container.
    async fn has(&self, id: &str, state: &str, document: Document) {
        let row = Resource {
            kind: KIND.to_owned(),
            id: id.to_owned(),
            scope: "w".to_owned(),
            name: id.to_owned(),
            state: state.to_owned(),
            revision: 1,
            document: document.encode().unwrap(),
            create_ms: 1,
            update_ms: 1,
            due_ms: 0,
        };
        self.store.insert(&row).await.unwrap();
        self.fake.stray(container(id));
    }

    /// The workspace of all of them.
    async fn has_workspace(&self, state: &str) {
        let row = crate::service::workspace::row("w", "w", &WorkspaceDocument::default(), 1).unwrap();
        self.store.insert(&Resource { state: state.to_owned(), ..row }).await.unwrap();
    }

    /// Looks, and waits until what was begun is done.
    async fn look(&mut self) -> Result<(), Failure> {
        let looked = self.sandboxes.look(&mut self.memory, 0).await;
        for _ in 0..500 {
            tokio::time::sleep(Duration::from_millis(5)).await;
            let now_ms = clock::unix_ms();
            if self.store.all(KIND).await.unwrap().iter().all(|row| row.due_ms <= now_ms + 5_000) {
                break;
            }
        }
        looked
    }

    async fn sandbox(&self, id: &str) -> (String, Document) {
        let row = self.store.get(KIND, id).await.unwrap().unwrap();
        let document = Document::of(&row).unwrap();
        (row.state, document)
    }
}

fn container(id: &str) -> crate::sandbox::Container {
    crate::sandbox::Container {
        id: id.to_owned(),
        workspace: "w".to_owned(),
        name: id.to_owned(),
        image: "aintandem/sandbox".to_owned(),
        network: "n".to_owned(),
        memory_bytes: 1,
        cpus: 1.0,
        pids: 1,
        disk_bytes: 1,
        tmp_bytes: 1,
        hosts: Vec::new(),
    }
}

fn started() -> Document {
    Document { start_ms: clock::unix_ms() - 1_000, register_ms: clock::unix_ms() - 900, ..Document::default() }
}

#[tokio::test]
async fn containers_of_nobody_are_removed_and_others_left_alone() {
    let mut stage = Stage::new().await;
    stage.has("sb-1", RUNNING, started()).await;
    stage.fake.stray(container("sb-lost"));
    stage.look().await.unwrap();
    assert_eq!(stage.fake.asked(), ["remove all"]);
    assert_eq!(stage.sandbox("sb-1").await.0, RUNNING);
    stage.look().await.unwrap();
    assert!(stage.fake.asked().is_empty());
}

#[tokio::test]
async fn what_ends_by_itself_waits_for_its_next_start() {
    let mut stage = Stage::new().await;
    stage.has("sb-1", RUNNING, started()).await;
    stage.fake.does("sb-1", Doing::Ended { exit_code: 137, out_of_memory: true });
    stage.look().await.unwrap();
    let (state, document) = stage.sandbox("sb-1").await;
    assert_eq!((state.as_str(), document.restarts, document.exit_code), (RESTARTING, 1, Some(137)));
    assert!(document.error.contains("no more memory"), "{}", document.error);
    assert!(document.retry_ms > 0);
}

#[tokio::test]
async fn who_holds_too_much_is_stopped() {
    let mut stage = Stage::new().await;
    let spec = Spec { resources: Resources { disk_mb: 1, ..Resources::default() }, ..Spec::default() };
    stage.has("sb-1", RUNNING, Document { spec, ..started() }).await;
    stage.fake.holds("sb-1", 2 << 20);
    stage.look().await.unwrap();
    let (state, document) = stage.sandbox("sb-1").await;
    assert_eq!((state.as_str(), document.stopped_because.as_str()), (STOPPED, "disk_limit"));
    assert_eq!(stage.fake.asked(), ["stop"]);
    stage.look().await.unwrap();
    assert!(stage.fake.asked().is_empty(), "it is left as it is");
}

#[tokio::test]
async fn nothing_is_taken_for_gone_while_docker_is_silent() {
    let mut stage = Stage::new().await;
    stage.has("sb-1", RUNNING, started()).await;
    stage.fake.fail(Some(RuntimeError::Unavailable("no socket".to_owned())));
    assert_eq!(stage.look().await.unwrap_err().code(), "DOCKER_UNAVAILABLE");
    assert_eq!(stage.sandbox("sb-1").await.0, RUNNING);
    stage.fake.fail(None);
    stage.look().await.unwrap();
    assert_eq!(stage.sandbox("sb-1").await.0, RUNNING);
}

#[tokio::test]
async fn a_stop_that_docker_does_not_answer_is_no_error_and_comes_later() {
    let mut stage = Stage::new().await;
    stage.has("sb-1", RUNNING, started()).await;
    stage.fake.fail(Some(RuntimeError::Unavailable("no socket".to_owned())));
    let row = stage.sandboxes.stop(&Caller::for_tests(), "sb-1").await.unwrap();
    assert_eq!((row.state.as_str(), stage.sandbox("sb-1").await.0.as_str()), (STOPPING, STOPPING));
    stage.fake.fail(None);
    // As if a while had passed.
    stage.store.update(&Resource { due_ms: 0, ..row }).await.unwrap();
    stage.look().await.unwrap();
    assert_eq!(stage.sandbox("sb-1").await.0, STOPPED);
}

#[tokio::test]
async fn a_restart_that_docker_does_not_answer_changes_nothing() {
    let stage = Stage::new().await;
    stage.has_workspace(workspaces::ACTIVE).await;
    stage.has("sb-1", RUNNING, started()).await;
    let before = stage.sandbox("sb-1").await;
    stage.fake.fail(Some(RuntimeError::Unavailable("no socket".to_owned())));
    let why = stage.sandboxes.restart(&Caller::for_tests(), "sb-1").await.unwrap_err();
    assert_eq!(why.code(), "DOCKER_UNAVAILABLE");
    assert_eq!(stage.sandbox("sb-1").await, before);
}

#[tokio::test]
async fn a_list_is_of_a_workspace_that_there_is() {
    let stage = Stage::new().await;
    stage.has_workspace(workspaces::DELETING).await;
    stage.has("sb-1", RUNNING, started()).await;
    let (caller, wanted) = (Caller::for_tests(), crate::service::listing::Listing::default().read().unwrap());
    assert_eq!(stage.sandboxes.list(&caller, Some("w"), &wanted).await.unwrap().0.len(), 1);
    for unknown in ["nope", "", "\0"] {
        let why = stage.sandboxes.list(&caller, Some(unknown), &wanted).await.unwrap_err();
        assert_eq!(why.code(), "UNKNOWN_WORKSPACE", "{unknown:?}");
    }
}

#[tokio::test]
async fn a_start_that_nobody_answers_is_tried_again_and_is_not_the_sandbox_s_fault() {
    let mut stage = Stage::new().await;
    let spec = serde_json::from_value(serde_json::json!({ "restart_policy": { "max_retries": 0 } })).unwrap();
    stage.has("sb-1", RESTARTING, Document { spec, retry_ms: 1, ..started() }).await;
    stage.fake.does("sb-1", Doing::Ended { exit_code: 1, out_of_memory: false });
    stage.has_workspace(workspaces::ACTIVE).await;
    stage.look().await.unwrap();
    let (state, document) = stage.sandbox("sb-1").await;
    assert_eq!((state.as_str(), document.wanted), (RESTARTING, Wanted::Running), "{}", document.error);
    assert!(document.error.contains("BROKER_UNAVAILABLE"), "{}", document.error);
}

#[tokio::test]
async fn who_does_next_to_nothing_is_idle_and_who_computes_is_not() {
    let mut stage = Stage::new().await;
    let spec = Spec { idle_timeout_seconds: Some(5), ..Spec::default() };
    let old = Document { start_ms: 1, register_ms: 1, ..started() };
    for id in ["sb-busy", "sb-idle"] {
        stage.has(id, RUNNING, Document { spec: spec.clone(), ..old.clone() }).await;
    }
    stage.look().await.unwrap();
    let busy = Usage { cpu_ns: 3_600_000_000_000, ..Usage::default() };
    stage.fake.takes("sb-busy", busy);
    for id in ["sb-busy", "sb-idle"] {
        // It was counted a while ago.
        stage.memory.age(id, 10_000);
    }
    stage.look().await.unwrap();
    assert_eq!(stage.sandbox("sb-busy").await.0, RUNNING);
    let (state, document) = stage.sandbox("sb-idle").await;
    assert_eq!((state.as_str(), document.stopped_because.as_str()), (STOPPED, "idle"));
}

/// What waits in the pool, once nothing of it is being made.
async fn pool(stage: &Stage) -> Vec<Resource> {
    for _ in 0..500 {
        let rows = stage.store.all(warm::KIND).await.unwrap();
        if rows.iter().all(|row| row.state == "ready") {
            return rows;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("the pool is never ready");
}

#[tokio::test]
async fn a_pool_is_kept_full_and_fresh_and_each_of_it_is_taken_once() {
    const IMAGE: &str = "aintandem/sandbox";
    let mut stage = Stage::with(|config| config.warm_pool = [(IMAGE.to_owned(), 2)].into()).await;
    stage.look().await.unwrap();
    let first = pool(&stage).await;
    assert_eq!(first.len(), 2);
    assert_eq!(stage.fake.asked(), ["wall in waiting room", "warm up", "warm up"]);
    stage.look().await.unwrap();
    assert_eq!(pool(&stage).await, first, "as many as are wanted are left alone, and are nobody's strays");

    let workspace = WorkspaceDocument::default();
    let spec = Spec::default();
    let waiting = stage.sandboxes.waiting_for((&spec, &workspace), (IMAGE, "sha256:0")).await.unwrap();
    assert_eq!(waiting, first);
    let large = Spec { resources: Resources { disk_mb: 5, ..Resources::default() }, ..Spec::default() };
    let none = stage.sandboxes.waiting_for((&large, &workspace), (IMAGE, "sha256:0")).await.unwrap();
    assert!(none.is_empty(), "a disk cannot be changed");
    assert!(stage.sandboxes.waiting_for((&spec, &workspace), (IMAGE, "sha256:9")).await.unwrap().is_empty());
    let mut taken = std::collections::HashSet::new();
    for name in ["one", "two", "three"] {
        let new = Resource {
            kind: KIND.to_owned(),
            id: random::id("sb"),
            scope: "w".to_owned(),
            name: name.to_owned(),
            state: STOPPED.to_owned(),
            document: Document { wanted: Wanted::Stopped, ..Document::default() }.encode().unwrap(),
            ..first[0].clone()
        };
        // All know the same two.
        let (row, waited) = stage.sandboxes.take(new, waiting.clone()).await.unwrap();
        assert_eq!(waited.is_some(), name != "three");
        assert!(taken.insert(row.id));
    }
    assert!(first.iter().all(|row| taken.contains(&row.id)));
    stage.fake.asked();
    stage.look().await.unwrap();
    let second = pool(&stage).await;
    assert!(second.len() == 2 && second.iter().all(|row| !taken.contains(&row.id)));

    // One dies, and one is of an image that was built anew.
    stage.fake.does(&second[0].id, Doing::Ended { exit_code: 137, out_of_memory: false });
    stage.look().await.unwrap();
    let third = pool(&stage).await;
    assert!(third.len() == 2 && third.contains(&second[1]) && !third.contains(&second[0]));
    stage.fake.builds();
    stage.look().await.unwrap();
    assert!(pool(&stage).await.iter().all(|row| !third.contains(row)));
    // One that was half made is left behind by whoever made it.
    let left = Resource {
        id: "sb-left".to_owned(),
        name: "sb-left".to_owned(),
        state: "making".to_owned(),
        ..third[0].clone()
    };
    stage.store.insert(&Resource { create_ms: 1, ..left }).await.unwrap();
    stage.fake.fail(Some(RuntimeError::Full("of no space".to_owned())));
    stage.look().await.unwrap_err();
    stage.fake.fail(None);
    stage.look().await.unwrap();
    assert!(pool(&stage).await.iter().all(|row| row.id != "sb-left"));
}

#[tokio::test]
async fn an_image_of_the_pool_that_is_not_there_is_told_of_once() {
    let mut stage = Stage::with(|config| config.warm_pool = [("no/such".to_owned(), 1)].into()).await;
    stage.look().await.unwrap();
    let missing = &stage.sandboxes.0.missing;
    assert!(!missing.is_new("no/such", false), "it was told of");
    assert!(!missing.is_new("no/such", true));
    assert!(missing.is_new("no/such", false), "it was there meanwhile");
    assert!(stage.store.all(warm::KIND).await.unwrap().is_empty());
}

#[tokio::test]
async fn what_a_control_plane_has_claimed_that_is_gone_is_taken_up_at_once() {
    let mut stage = Stage::new().await;
    let claimed = async |id: &str, claimant: &str| {
        let document = Document { wanted: Wanted::Stopped, claimant: claimant.to_owned(), ..started() };
        stage.has(id, STOPPING, document).await;
        let row = stage.store.get(KIND, id).await.unwrap().unwrap();
        stage.store.update(&Resource { due_ms: clock::unix_ms() + OVERDUE_MS, ..row }).await.unwrap();
    };
    claimed("sb-1", "cp-gone").await;
    claimed("sb-2", "cp-there").await;
    claimed("sb-3", &stage.sandboxes.0.holder).await;
    let now_ms = clock::unix_ms();
    assert!(stage.store.lease((&alive("cp-there"), "cp-there"), (now_ms, now_ms + 60_000)).await.unwrap());
    stage.sandboxes.live().await.unwrap();
    stage.sandboxes.look(&mut stage.memory, 1).await.unwrap();
    assert!(stage.fake.asked().is_empty(), "one look does not tell");
    tokio::time::sleep(Duration::from_millis(GONE_MS.unsigned_abs() + 100)).await;
    stage.sandboxes.look(&mut stage.memory, 1).await.unwrap();
    until_state(&stage, "sb-1", STOPPED).await;
    assert_eq!(stage.fake.asked(), ["stop"]);
    for id in ["sb-2", "sb-3"] {
        assert_eq!(stage.sandbox(id).await.0, STOPPING, "{id} is somebody's");
    }
}

async fn until_state(stage: &Stage, id: &str, state: &str) {
    for _ in 0..500 {
        if stage.sandbox(id).await.0 == state {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{id} is never {state}");
}
