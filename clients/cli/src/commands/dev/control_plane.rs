//! The control plane of `tandem dev`: in this process, on SQLite.

use std::net::{Ipv4Addr, SocketAddr};

use tandem_control_plane::{
    AlertsConfig, BrokerConfig, Config, ControlPlane, CorsConfig, DatabaseConfig, SecretsConfig,
};

use crate::{args::DevArgs, exit::Failure};

/// What this machine calls itself.
const HOSTS: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];

/// Before the broker at these endpoints; None: nobody wants one, or this process is one node of several.
pub(super) async fn start(args: &DevArgs, endpoints: Vec<String>) -> Result<Option<ControlPlane>, Failure> {
    if args.no_control_plane || args.node_id.is_some() {
        return Ok(None);
    }
    // As a part of a URL.
    let file = args
        .data_dir
        .join("control-plane.db")
        .display()
        .to_string()
        .replace('%', "%25")
        .replace('?', "%3F")
        .replace('#', "%23");
    let config = Config {
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, args.http_port)),
        broker: BrokerConfig { endpoints, ..BrokerConfig::default() },
        // It asks nobody who he is: no page in a browser on this machine may reach it under a name of its own.
        cors: CorsConfig { allowed_hosts: HOSTS.map(str::to_owned).to_vec(), ..CorsConfig::default() },
        // It is the file of who runs this, beside what it opens: enough for a machine that somebody develops on.
        secrets: SecretsConfig { key_file: args.data_dir.join("secrets.key"), create_key_file: true },
        alerts: AlertsConfig { allow_loopback: true, ..AlertsConfig::default() },
        database: DatabaseConfig { url: format!("sqlite:{file}"), ..DatabaseConfig::default() },
        ..Config::default()
    };
    let started = Box::pin(ControlPlane::start(config)).await;
    started.map(Some).map_err(|error| Failure::Failed {
        code: error.code(),
        text: error.to_string(),
        next: (error.code() == "ADDRESS_IN_USE")
            .then(|| "stop what listens there, or choose another: --http-port 0 takes any free one".to_owned()),
    })
}

/// Where it is found.
pub(super) fn url(control_plane: &ControlPlane) -> String {
    format!("http://{}", control_plane.address())
}
