//! A control plane with Docker behind it. `make test` starts a daemon where none runs, and builds the image.

use std::process::Command;

use serde_json::{Value, json};
use tandem_control_plane::Config;
use tandem_tests::Answer;

use crate::stage::{Stage, until};

/// What the `docker` command says.
pub(crate) fn docker(arguments: &[&str]) -> String {
    let done = Command::new("docker").args(arguments).output().expect("docker is installed: make image");
    let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    format!("{out}{err}").trim().to_owned()
}

/// A stage whose sandboxes are in one workspace, and gone when it is.
pub(crate) struct Dock {
    pub(crate) stage: Stage,
    pub(crate) workspace: String,
}

impl Dock {
    pub(crate) async fn start() -> Self {
        Self::with(json!({}), |_| {}).await
    }

    pub(crate) async fn with(settings: Value, change: impl FnOnce(&mut Config)) -> Self {
        let version = docker(&["version", "--format", "{{.Server.Version}}"]);
        assert!(
            version.starts_with(|first: char| first.is_ascii_digit()),
            "no Docker daemon (tools/docker.sh): {version}"
        );
        let images = docker(&["images", "-q", "aintandem/sandbox:latest"]);
        assert!(!images.is_empty(), "the image is missing: make image");
        // Of tests that run at once each has its own.
        let pid = std::process::id();
        let workspace = format!("w-{pid}");
        let stage = Stage::with(|config| {
            config.sandboxes.subnets = format!("10.{}.0.0/16", 64 + pid % 140);
            change(config);
        })
        .await;
        let wanted = json!({"id": workspace, "name": workspace, "settings": settings}).to_string();
        let made = stage.ask("POST", "/api/v1/workspaces", &wanted).await;
        assert_eq!(made.status, 201, "{made:?}");
        Self { stage, workspace }
    }

    pub(crate) fn body(&self, name: &str, more: &Value) -> String {
        let mut body = json!({"workspace_id": self.workspace, "name": name,
            "resources": {"memory_mb": 64, "cpu_cores": 0.5, "disk_mb": 64, "tmp_mb": 8}});
        for (key, value) in more.as_object().unwrap() {
            body[key] = value.clone();
        }
        body.to_string()
    }

    pub(crate) async fn create(&self, name: &str, more: Value) -> Answer {
        self.stage.ask("POST", "/api/v1/sandboxes", &self.body(name, &more)).await
    }

    /// Makes a sandbox that runs, and returns its id.
    pub(crate) async fn sandbox(&self, name: &str, more: Value) -> String {
        let made = self.create(name, more).await;
        assert_eq!((made.status, &made.json()["state"]), (201, &json!("running")), "{made:?}");
        made.json()["id"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn post(&self, id: &str, verb: &str, body: &str) -> Answer {
        self.stage.ask("POST", &format!("/api/v1/sandboxes/{id}/{verb}"), body).await
    }

    pub(crate) async fn status(&self, id: &str) -> Value {
        self.stage.ask("GET", &format!("/api/v1/sandboxes/{id}/status"), "").await.json()
    }

    pub(crate) async fn until_state(&self, id: &str, state: &str) -> Value {
        until(&format!("{id} is {state}"), async || self.status(id).await["state"] == state).await;
        self.status(id).await
    }

    /// What a shell in a sandbox says: its exit code and all it printed.
    pub(crate) async fn shell(&self, id: &str, script: &str) -> (i64, String) {
        let body = json!({"command": ["sh", "-c", script], "timeout_seconds": 20}).to_string();
        let answer = self.post(id, "exec", &body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let done = answer.json();
        let text = format!("{}{}", done["stdout"].as_str().unwrap(), done["stderr"].as_str().unwrap());
        (done["exit_code"].as_i64().unwrap_or(-1), text)
    }

    /// Containers of the workspace, running or not.
    pub(crate) fn containers(&self) -> Vec<String> {
        let label = format!("label=aintandem.workspace={}", self.workspace);
        docker(&["ps", "-aq", "--no-trunc", "--filter", &label]).lines().map(str::to_owned).collect()
    }

    pub(crate) fn volumes(&self) -> String {
        docker(&["volume", "ls", "-q", "--filter", &format!("label=aintandem.workspace={}", self.workspace)])
    }

    pub(crate) fn networks(&self) -> String {
        docker(&["network", "ls", "-q", "--filter", &format!("label=aintandem.workspace={}", self.workspace)])
    }
}

impl Drop for Dock {
    fn drop(&mut self) {
        let label = || format!("label=aintandem.workspace={}", self.workspace);
        let format = "{{index .Config.Labels \"aintandem.installation\"}}";
        let whose = self.containers().first().map(|first| docker(&["inspect", "--format", format, first]));
        // Those that wait for a sandbox are of no workspace.
        let all = whose.map_or_else(label, |whose| format!("label=aintandem.installation={whose}"));
        for container in docker(&["ps", "-aq", "--filter", &all]).lines() {
            docker(&["rm", "-fv", container]);
        }
        for volume in docker(&["volume", "ls", "-q", "--filter", &all]).lines() {
            docker(&["volume", "rm", "-f", volume]);
        }
        for network in docker(&["network", "ls", "--format", "{{.Name}}", "--filter", &all]).lines() {
            docker(&["network", "rm", network]);
            let table = network.replace('-', "_");
            // As root, as the daemon's starter is; elsewhere it stays, and drops what comes from a bridge that is gone.
            drop(Command::new("nft").args(["delete", "table", "inet", &table]).output());
        }
    }
}
