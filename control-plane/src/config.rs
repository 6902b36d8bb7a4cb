//! What an operator can set: read once, from a TOML file, the environment and flags.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf};

use serde::{Deserialize, Serialize};
use tandem_client::{Settings, Token};

/// Everything. Unknown keys are errors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Address of the REST service. Default `127.0.0.1:8000`. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// TLS on that address.
    pub tls: TlsConfig,
    /// Listen beyond loopback without TLS: something in front of this service speaks it. Default false.
    pub allow_plaintext: bool,
    /// The broker that it stands before.
    pub broker: BrokerConfig,
    /// What it remembers.
    pub database: DatabaseConfig,
    /// Where sandboxes run, and with what.
    pub sandboxes: SandboxConfig,
    /// What requests may ask for.
    pub limits: Limits,
    /// Pages whose scripts may call, in a browser.
    pub cors: CorsConfig,
    /// How secrets are kept.
    pub secrets: SecretsConfig,
    /// Rules, and whom they tell.
    pub alerts: AlertsConfig,
    /// How long a deleted workspace can be restored, in seconds. Default 604,800, a week.
    pub deletion_grace_s: u64,
    /// Log filter, such as `info` or `tandem_control_plane=debug,warn`. Default `info`.
    pub log: String,
}

/// TLS on the address of the REST service.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsConfig {
    /// Certificate that clients are shown, as PEM, with those in between. With this and the next one TLS 1.3 is spoken, and
    /// nothing else. Read again when it changes. Empty: plain HTTP. Default empty.
    pub cert_file: PathBuf,
    /// The private key of that certificate, as PEM. Default empty.
    pub key_file: PathBuf,
}

impl TlsConfig {
    /// Whether TLS is spoken.
    pub(crate) fn is_on(&self) -> bool {
        !self.cert_file.as_os_str().is_empty()
    }
}

/// The broker, and who the control plane is there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BrokerConfig {
    /// Where its nodes listen. Default `http://127.0.0.1:8001`.
    pub endpoints: Vec<String>,
    /// A token or an API key with the role `admin`, bound to no workspace; read again when it changes. Empty: none, which is
    /// enough for a broker that is open. Default empty.
    pub token_file: PathBuf,
    /// Whose signature on a node's certificate counts, as PEM. Empty: what the system trusts. Default empty.
    pub ca_file: PathBuf,
}

/// Where the control plane keeps what it knows.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DatabaseConfig {
    /// `sqlite:FILE` or `postgres://USER@HOST/NAME`. Default `sqlite:data/control-plane.db`.
    #[serde(skip_serializing)]
    pub url: String,
    /// Connections at once. Default 16.
    pub connections: u32,
}

impl std::fmt::Debug for DatabaseConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The address may hold a password.
        f.debug_struct("DatabaseConfig").field("url", &"…").field("connections", &self.connections).finish()
    }
}

/// Where sandboxes run, and with what.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SandboxConfig {
    /// Docker's address, such as `unix:///var/run/docker.sock`. Empty: what `DOCKER_HOST` says, or the socket of this machine.
    /// Default empty.
    pub docker_host: String,
    /// The image of sandboxes that name none. Default `aintandem/sandbox:latest`.
    pub image: String,
    /// The broker as sandboxes reach it. Empty: through a relay that this control plane opens on the host's side of each of their
    /// networks, for which both have to be on one host. Default empty.
    pub broker_urls: Vec<String>,
    /// A /16 out of which each workspace gets a /24. Default `10.213.0.0/16`.
    pub subnets: String,
    /// The port of the relays. Default 7700.
    pub relay_port: u16,
    /// Sandboxes of all workspaces together. Default 500.
    pub max_sandboxes: usize,
    /// Containers that wait for sandboxes, by image: 0 to 64 each. A sandbox that gets one of them starts in a third of the time.
    /// Default none.
    pub warm_pool: BTreeMap<String, u32>,
}

impl SandboxConfig {
    /// The first two numbers of the subnets; None: it is no /16.
    pub(crate) fn pool(&self) -> Option<[u8; 2]> {
        let network = self.subnets.strip_suffix("/16")?;
        match network.parse::<std::net::Ipv4Addr>().ok()?.octets() {
            [a, b, 0, 0] => Some([a, b]),
            _ => None,
        }
    }
}

impl Default for SandboxConfig {
    fn default() -> Self {
        Self {
            docker_host: String::new(),
            image: "aintandem/sandbox:latest".to_owned(),
            broker_urls: Vec::new(),
            subnets: "10.213.0.0/16".to_owned(),
            relay_port: 7700,
            max_sandboxes: 500,
            warm_pool: BTreeMap::new(),
        }
    }
}

/// What requests may ask for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Bytes of a body. Default 2 MiB.
    pub max_body_bytes: usize,
    /// How long a request may take, in milliseconds. Below a minute. Default 30,000.
    pub request_timeout_ms: u64,
    /// Requests of one caller in a second. Default 10,000.
    pub requests_per_second: u32,
    /// Connections that are open at once; who comes then waits. Default 4,096.
    pub max_connections: usize,
    /// How long a connection may take for the head of a request, and be without one, in milliseconds. Default 30,000.
    pub idle_timeout_ms: u64,
    /// WebSockets, and streams of events, that are open at once. Default 1,000.
    pub max_websockets: usize,
}

/// Pages whose scripts may call.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CorsConfig {
    /// Such as `https://console.example`, or `*` alone for all. Also for WebSockets. Default none.
    pub allowed_origins: Vec<String>,
    /// Names that this service goes by, without the port: a request for any other is refused, so that no page in a browser reaches
    /// it under a name of its own. Empty: any. Default empty; `tandem dev` goes by those of this machine.
    pub allowed_hosts: Vec<String>,
}

/// How secrets are kept.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SecretsConfig {
    /// Keys, one a line: `ID:KEY`, with 32 bytes in base64 or hexadecimal digits; the first one seals, and all open. Empty: secrets
    /// are refused. Default empty; `tandem dev` has one in its folder.
    pub key_file: PathBuf,
    /// Make the file, with one key, where it is not there. Default false; `tandem dev` does.
    pub create_key_file: bool,
}

/// Rules, and whom they tell.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AlertsConfig {
    /// How often a webhook is tried before it is given up: 1 to 20. Default 8.
    pub webhook_attempts: u32,
    /// How long a webhook may take to answer, in milliseconds: 100 to 60,000. Default 10,000.
    pub webhook_timeout_ms: u64,
    /// Between the first two attempts, in milliseconds; four times as long after each, up to an hour. 10 to 3,600,000. Default 5,000.
    pub webhook_backoff_ms: u64,
    /// Webhooks may be on this machine, also over plain HTTP. Default false; `tandem dev` allows it.
    pub allow_loopback: bool,
}

impl Default for AlertsConfig {
    fn default() -> Self {
        Self { webhook_attempts: 8, webhook_timeout_ms: 10_000, webhook_backoff_ms: 5_000, allow_loopback: false }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8000)),
            tls: TlsConfig::default(),
            allow_plaintext: false,
            broker: BrokerConfig::default(),
            database: DatabaseConfig::default(),
            sandboxes: SandboxConfig::default(),
            limits: Limits::default(),
            cors: CorsConfig::default(),
            secrets: SecretsConfig::default(),
            alerts: AlertsConfig::default(),
            deletion_grace_s: 7 * 86_400,
            log: "info".to_owned(),
        }
    }
}

impl Default for BrokerConfig {
    fn default() -> Self {
        let endpoints = vec!["http://127.0.0.1:8001".to_owned()];
        Self { endpoints, token_file: PathBuf::new(), ca_file: PathBuf::new() }
    }
}

impl Default for DatabaseConfig {
    fn default() -> Self {
        Self { url: "sqlite:data/control-plane.db".to_owned(), connections: 16 }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_body_bytes: 2 << 20,
            request_timeout_ms: 30_000,
            requests_per_second: 10_000,
            max_connections: 4_096,
            idle_timeout_ms: 30_000,
            max_websockets: 1_000,
        }
    }
}

/// A setting that cannot be.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("configuration file {path}: {reason}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A value is out of its range.
    #[error("setting {key} is {value}; it must be {expected}")]
    Value {
        /// The key in the file.
        key: &'static str,
        /// What it is.
        value: String,
        /// What it may be.
        expected: &'static str,
    },
}

impl Config {
    /// The settings in a file.
    ///
    /// # Errors
    /// Where it cannot be read, is no TOML, or has a key that there is not.
    pub fn read(path: PathBuf) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(&path).map_err(|error| error.to_string());
        let read = text.and_then(|text| toml::from_str(&text).map_err(|error| error.to_string()));
        read.map_err(|reason| ConfigError::File { path, reason })
    }

    /// Whether all values are ones that they can have.
    ///
    /// # Errors
    /// [`ConfigError::Value`] for the first that is not.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let check = |key, value: String, holds: bool, expected| {
            if holds { Ok(()) } else { Err(ConfigError::Value { key, value, expected }) }
        };
        let limits = &self.limits;
        let may_be_plain = self.tls.is_on() || self.listen.ip().is_loopback() || self.allow_plaintext;
        check(
            "listen",
            self.listen.to_string(),
            may_be_plain,
            "on loopback; or set tls.cert_file and tls.key_file, or allow_plaintext where something in front of it speaks TLS",
        )?;
        let has_key = !self.tls.key_file.as_os_str().is_empty();
        check(
            "tls.key_file",
            if has_key { "set" } else { "empty" }.to_owned(),
            has_key == self.tls.is_on(),
            "set with tls.cert_file, and not without it",
        )?;
        check("broker.endpoints", "empty".to_owned(), !self.broker.endpoints.is_empty(), "one or more URLs")?;
        let connections = self.database.connections;
        check("database.connections", connections.to_string(), (1..=1_000).contains(&connections), "1 to 1,000")?;
        let subnets = &self.sandboxes.subnets;
        check("sandboxes.subnets", subnets.clone(), self.sandboxes.pool().is_some(), "such as 10.213.0.0/16")?;
        let sandboxes = self.sandboxes.max_sandboxes;
        check("sandboxes.max_sandboxes", sandboxes.to_string(), (1..=10_000).contains(&sandboxes), "1 to 10,000")?;
        for (image, most) in &self.sandboxes.warm_pool {
            check("sandboxes.warm_pool", format!("{most} of {image:?}"), *most <= 64, "0 to 64 of each image")?;
        }
        check("sandboxes.relay_port", "0".to_owned(), self.sandboxes.relay_port > 0, "1 to 65,535")?;
        let body = limits.max_body_bytes;
        check("limits.max_body_bytes", body.to_string(), (1_024..=64 << 20).contains(&body), "1 KiB to 64 MiB")?;
        let time = limits.request_timeout_ms;
        check("limits.request_timeout_ms", time.to_string(), (100..=50_000).contains(&time), "100 to 50,000")?;
        let rate = limits.requests_per_second;
        check("limits.requests_per_second", rate.to_string(), rate > 0, "1 or more")?;
        let connections = limits.max_connections;
        check("limits.max_connections", connections.to_string(), (1..=100_000).contains(&connections), "1 to 100,000")?;
        let idle = limits.idle_timeout_ms;
        check("limits.idle_timeout_ms", idle.to_string(), (100..=3_600_000).contains(&idle), "100 to 3,600,000")?;
        let sockets = limits.max_websockets;
        check("limits.max_websockets", sockets.to_string(), (1..=100_000).contains(&sockets), "1 to 100,000")?;
        let alerts = &self.alerts;
        let attempts = alerts.webhook_attempts;
        check("alerts.webhook_attempts", attempts.to_string(), (1..=20).contains(&attempts), "1 to 20")?;
        let time = alerts.webhook_timeout_ms;
        check("alerts.webhook_timeout_ms", time.to_string(), (100..=60_000).contains(&time), "100 to 60,000")?;
        let pause = alerts.webhook_backoff_ms;
        check("alerts.webhook_backoff_ms", pause.to_string(), (10..=3_600_000).contains(&pause), "10 to 3,600,000")?;
        for origin in &self.cors.allowed_origins {
            let fits = origin == "*" && self.cors.allowed_origins.len() == 1
                || ["http://", "https://"].iter().any(|scheme| origin.starts_with(scheme));
            check("cors.allowed_origins", origin.clone(), fits, "origins such as https://console.example, or * alone")?;
        }
        Ok(())
    }

    /// How the broker is spoken to.
    pub(crate) fn client(&self) -> Settings {
        let named = |file: &PathBuf| Some(file.clone()).filter(|file| !file.as_os_str().is_empty());
        Settings {
            endpoints: self.broker.endpoints.clone(),
            token: named(&self.broker.token_file).map(Token::from_file),
            tls_ca_file: named(&self.broker.ca_file),
            request_timeout: std::time::Duration::from_millis(self.limits.request_timeout_ms.min(10_000)),
            // Long enough for another node to lead, and no longer: what cannot be done is told, and the reconciler goes on.
            attempts: 6,
            user_agent: concat!("tandem-control-plane/", env!("CARGO_PKG_VERSION")).to_owned(),
            ..Settings::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_hold_and_passwords_are_not_shown() {
        let database = DatabaseConfig { url: "postgres://u:hunter2@h/d".to_owned(), ..DatabaseConfig::default() };
        let config = Config { database, ..Config::default() };
        config.validate().unwrap();
        assert!(!format!("{config:?}").contains("hunter2"));
        let printed = toml::to_string_pretty(&config).unwrap();
        assert!(!printed.contains("hunter2"), "{printed}");
        assert_eq!(toml::from_str::<Config>(&printed).unwrap(), Config::default());
    }

    #[test]
    fn what_cannot_be_is_named() {
        let anywhere = Config { listen: SocketAddr::from(([0, 0, 0, 0], 8000)), ..Config::default() };
        assert!(anywhere.validate().unwrap_err().to_string().contains("listen"));
        let tls = TlsConfig { cert_file: PathBuf::from("c"), key_file: PathBuf::from("k") };
        Config { tls: tls.clone(), ..anywhere.clone() }.validate().unwrap();
        for half in
            [TlsConfig { key_file: PathBuf::new(), ..tls.clone() }, TlsConfig { cert_file: PathBuf::new(), ..tls }]
        {
            let refused = Config { tls: half, ..Config::default() }.validate().unwrap_err();
            assert!(refused.to_string().contains("tls.key_file"), "{refused}");
        }
        Config { allow_plaintext: true, ..anywhere }.validate().unwrap();
        let slow = Limits { request_timeout_ms: 60_000, ..Limits::default() };
        assert!(Config { limits: slow, ..Config::default() }.validate().is_err());
        let allowed_origins = vec!["*".to_owned(), "https://a".to_owned()];
        let cors = CorsConfig { allowed_origins, ..CorsConfig::default() };
        assert!(Config { cors, ..Config::default() }.validate().is_err());
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("c.toml"), "lisen = 1").unwrap();
        assert!(Config::read(dir.path().join("c.toml")).unwrap_err().to_string().contains("lisen"));
        assert!(Config::read(dir.path().join("d.toml")).unwrap_err().to_string().contains("d.toml"));
    }
}
