//! Containers that wait for sandboxes, in real ones.

use serde_json::json;
use tandem_control_plane::ControlPlane;

use crate::{
    docker::{Dock, docker},
    stage::{self, until},
};

const IMAGE: &str = "aintandem/sandbox:latest";

/// Names of the containers of an installation that wait: in one network that is no workspace's.
pub(crate) fn waiting(installation: &str) -> Vec<String> {
    let label = format!("label=aintandem.installation={installation}");
    let shown = docker(&[
        "ps",
        "--filter",
        &label,
        "--filter",
        "label=aintandem.sandbox",
        "--format",
        "{{.Names}},{{.Networks}}",
    ]);
    let room = docker(&[
        "network",
        "ls",
        "--filter",
        &format!("label=aintandem.installation={installation}"),
        "--filter",
        "label=aintandem.workspace=waiting room",
        "--format",
        "{{.Name}}",
    ]);
    let mut waiting: Vec<_> = shown
        .lines()
        .filter_map(|line| line.split_once(',').filter(|(_, networks)| *networks == room))
        .map(|(name, _)| name.to_owned())
        .collect();
    waiting.sort();
    waiting
}

/// Whose a sandbox's container is.
pub(crate) fn installation(sandbox: &str) -> String {
    let label = "{{index .Config.Labels \"aintandem.installation\"}}";
    docker(&["inspect", "--format", label, &format!("tandem-{sandbox}")])
}

/// Starts the control plane again without a pool: nobody waits any more.
pub(crate) async fn without_a_pool(dock: &mut Dock, installation: &str) {
    let mut config = stage::config(&dock.stage.home, dock.stage.broker.as_ref().unwrap().grpc_address());
    config.sandboxes.subnets = format!("10.{}.0.0/16", 64 + std::process::id() % 140);
    let next = ControlPlane::start(config).await.unwrap();
    std::mem::replace(&mut dock.stage.control_plane, next).shutdown().await;
    until("nobody waits", async || waiting(installation).is_empty()).await;
}

#[tokio::test]
async fn a_sandbox_gets_a_container_that_waits_and_is_like_any_other() {
    let mut dock = Dock::with(json!({}), |config| config.sandboxes.warm_pool = [(IMAGE.to_owned(), 2)].into()).await;
    // Of another disk than they have, so it gets one of its own.
    let other = dock.sandbox("other", json!({})).await;
    let installation = installation(&other);
    until("two wait", async || waiting(&installation).len() == 2).await;
    let before = waiting(&installation);
    // Who waits reaches nobody: not the host, not the relay to the broker, and not the other one.
    let room = docker(&[
        "inspect",
        "--format",
        "{{range .NetworkSettings.Networks}}{{.Gateway}} {{.IPAddress}}{{end}}",
        &before[1],
    ]);
    let address = room.split_whitespace().next_back().unwrap().to_owned();
    let host = format!("{}.1", address.rsplit_once('.').unwrap().0);
    for (address, port) in [(&host, 22), (&host, 8001), (&host, 7700), (&address, 9)] {
        let probe = format!("import socket; socket.create_connection(('{address}', {port}), 1)");
        let said = docker(&["exec", &before[0], "sh", "-c", &format!("python3 -c \"{probe}\" 2>&1 || true")]);
        assert!(said.contains("timed out") || said.contains("unreachable"), "{address}:{port} {said}");
    }

    let quick = dock.sandbox("quick", json!({"resources": {"memory_mb": 64, "cpu_cores": 0.5}})).await;
    assert!(before.contains(&format!("tandem-{quick}")), "{quick} is none of {before:?}");
    let inspect = |what: &str| docker(&["inspect", "--format", what, &format!("tandem-{quick}")]);
    assert_eq!(
        inspect("{{.HostConfig.Memory}} {{.HostConfig.MemorySwap}} {{.HostConfig.NanoCpus}}"),
        "67108864 67108864 500000000"
    );
    assert_eq!(inspect("{{.HostConfig.ReadonlyRootfs}} {{.HostConfig.CapDrop}}"), "true [ALL]");
    until("it has left where it waited", async || inspect("{{len .NetworkSettings.Networks}}") == "1").await;
    let interfaces = dock.shell(&quick, "ls /sys/class/net").await;
    assert_eq!(interfaces.1.split_whitespace().count(), 2, "lo, and that of its workspace: {interfaces:?}");
    let (code, said) = dock.shell(&quick, "echo $TANDEM_SANDBOX; cat /sys/fs/cgroup/memory/memory.limit_in_bytes || cat /sys/fs/cgroup/memory.max; echo kept > /work/file").await;
    assert_eq!(code, 0, "{said}");
    assert!(said.starts_with("quick\n67108864"), "{said}");
    // Its walls are those of its workspace: the other one is not there for it.
    let address = docker(&[
        "inspect",
        "--format",
        "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}",
        &format!("tandem-{other}"),
    ]);
    let probe = format!("python3 -c \"import socket; socket.create_connection(('{address}', 9), 1)\"");
    let (code, said) = dock.shell(&quick, &probe).await;
    assert!(code == 1 && said.contains("timed out"), "{code} {said}");
    until("another one waits in its place", async || waiting(&installation).len() == 2).await;

    // Stopped and started, it is a container of its own, with the same volume.
    assert_eq!(dock.post(&quick, "stop", "").await.status, 200);
    let started = dock.post(&quick, "start", "").await;
    assert_eq!((started.status, &started.json()["state"]), (200, &json!("running")), "{started:?}");
    assert_eq!(dock.shell(&quick, "cat /work/file").await, (0, "kept\n".to_owned()));

    // Three at once, of whom two find one.
    let body = |name: &str| dock.body(name, &json!({"resources": {"memory_mb": 64, "cpu_cores": 0.5}}));
    let (a, b, c) = (body("a"), body("b"), body("c"));
    let ask = |body| dock.stage.ask("POST", "/api/v1/sandboxes", body);
    let (a, b, c) = tokio::join!(ask(&a), ask(&b), ask(&c));
    for made in [&a, &b, &c] {
        assert_eq!((made.status, &made.json()["state"]), (201, &json!("running")), "{made:?}");
    }
    until("the pool is full again", async || waiting(&installation).len() == 2).await;

    // One more than there may be costs none of those that wait.
    let left = waiting(&installation);
    let (path, limit) = (format!("/api/v1/workspaces/{}", dock.workspace), json!({"settings": {"max_sandboxes": 5}}));
    let limited = dock.stage.ask("PATCH", &path, &limit.to_string()).await;
    assert_eq!(limited.status, 200, "{limited:?}");
    let refused = dock.create("sixth", json!({})).await;
    assert_eq!((refused.status, &refused.json()["code"]), (429, &json!("TOO_MANY_SANDBOXES")), "{refused:?}");
    assert_eq!(waiting(&installation), left);

    without_a_pool(&mut dock, &installation).await;
    let label = format!("label=aintandem.installation={installation}");
    let networks = || docker(&["network", "ls", "-q", "--filter", &label]).lines().count();
    until("there is no network for those who wait", async || networks() == 1).await;
    assert_eq!(dock.until_state(&quick, "running").await["restarts"], 0);
    let gone = dock.stage.ask("DELETE", &format!("/api/v1/sandboxes/{quick}"), "").await;
    assert_eq!(gone.status, 204, "{gone:?}");
    assert_eq!(docker(&["volume", "ls", "-q", "--filter", &format!("name=tandem-{quick}")]), "");
}
