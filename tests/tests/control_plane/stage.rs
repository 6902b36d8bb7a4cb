//! A broker that is closed, and a control plane before it.

use std::{fs, net::SocketAddr, path::Path, time::Duration};

use serde_json::Value;
use tandem_control_plane::{BrokerConfig, Config, ControlPlane, DatabaseConfig};
use tandem_tests::{Answer, BrokerProcess, Home, ask, run_to_exit, tandem_command};

pub(crate) const JSON: (&str, &str) = ("Content-Type", "application/json");

pub(crate) struct Stage {
    pub(crate) home: Home,
    /// None: it was killed.
    pub(crate) broker: Option<BrokerProcess>,
    pub(crate) control_plane: ControlPlane,
    pub(crate) admin: String,
}

impl Stage {
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut Config)) -> Self {
        Self::made(|config, _| change(config)).await
    }

    async fn made(change: impl FnOnce(&mut Config, &Home)) -> Self {
        let home = Home::new();
        let broker = broker(&home).await;
        let admin = token(&home, &["--role", "admin"]).await;
        fs::write(home.path().join("token"), &admin).unwrap();
        let mut config = config(&home, broker.grpc_address());
        change(&mut config, &home);
        let control_plane = ControlPlane::start(config).await.unwrap();
        Self { home, broker: Some(broker), control_plane, admin }
    }

    /// The same, with a key for secrets.
    pub(crate) async fn keeping_secrets(change: impl FnOnce(&mut Config)) -> Self {
        // Its folder is known when it is there.
        Self::made(|config, home| {
            (config.secrets.key_file, config.secrets.create_key_file) = (home.path().join("secrets.key"), true);
            change(config);
        })
        .await
    }

    pub(crate) async fn token(&self, arguments: &[&str]) -> String {
        token(&self.home, arguments).await
    }

    /// A request of somebody.
    pub(crate) async fn as_who(&self, token: &str, what: (&str, &str), lines: &[(&str, &str)], body: &str) -> Answer {
        let bearer = format!("Bearer {token}");
        let lines: Vec<_> = [JSON, ("Authorization", bearer.as_str())].iter().chain(lines).copied().collect();
        ask(self.control_plane.address(), what, &lines, body).await
    }

    /// A request of the administrator.
    pub(crate) async fn ask(&self, method: &str, path: &str, body: &str) -> Answer {
        self.as_who(&self.admin, (method, path), &[], body).await
    }

    /// The ids that a list holds.
    pub(crate) async fn ids(&self, token: &str, parameters: &str) -> Vec<String> {
        let answer = self.as_who(token, ("GET", &format!("/api/v1/workspaces{parameters}")), &[], "").await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let list = answer.json();
        let workspaces = list["workspaces"].as_array().unwrap();
        workspaces.iter().map(|workspace| workspace["id"].as_str().unwrap().to_owned()).collect()
    }
}

pub(crate) async fn broker(home: &Home) -> BrokerProcess {
    let key = home.path().join("key");
    fs::write(&key, "a secret that is long enough for it").unwrap();
    let mut config = home.config();
    config.auth.open = false;
    config.auth.keys = vec![format!("k1=HS256:{}", key.display())];
    // Tokens of sandboxes are the broker's own.
    config.auth.signing_key = format!("k1=HS256:{}", key.display());
    BrokerProcess::start(home, &config).await
}

pub(crate) fn config(home: &Home, broker: SocketAddr) -> Config {
    Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        broker: BrokerConfig {
            endpoints: vec![format!("http://{broker}")],
            token_file: home.path().join("token"),
            ..BrokerConfig::default()
        },
        database: DatabaseConfig { url: database(home.path()), ..DatabaseConfig::default() },
        ..Config::default()
    }
}

pub(crate) fn database(home: &Path) -> String {
    format!("sqlite:{}/control-plane.db", home.display())
}

pub(crate) async fn token(home: &Home, arguments: &[&str]) -> String {
    let mut command = tandem_command();
    command.args(["token", "create", "--key-id", "k1", "--subject", "zoe", "--key-file"]);
    command.arg(home.path().join("key")).args(arguments);
    let exit = run_to_exit(home, command).await;
    assert_eq!(exit.code, Some(0), "{exit:?}");
    exit.stdout.trim().to_owned()
}

/// A refusal, with all that one has.
#[track_caller]
pub(crate) fn refused(answer: &Answer, status: u16, code: &str) -> Value {
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{answer:?}");
    let problem = answer.json();
    assert_eq!((&problem["code"], &problem["status"]), (&code.into(), &status.into()), "{problem}");
    assert!(problem["detail"].as_str().is_some_and(|text| !text.is_empty()) && problem["title"].is_string());
    assert!(answer.header("x-request-id").is_some() && answer.header("server-timing").is_some());
    problem
}

/// Waits until something holds.
pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..600 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("in 60 s it has not come true: {what}");
}
