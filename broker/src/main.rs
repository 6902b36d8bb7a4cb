//! `tandem-broker`: the broker as a service.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command speaks to its user")]

use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

use clap::Parser;
use tandem_broker::{Broker, Config, LogFormat, StartError, core_dumps, logging};
use tokio::signal::unix::{SignalKind, signal};

/// Message broker for AI agents: durable inboxes over a replicated log.
///
/// Settings come from defaults, then the file, then the environment, then flags; the later wins.
#[derive(Debug, Parser)]
#[command(name = "tandem-broker", version)]
struct Args {
    /// TOML file with settings; `--print-config` shows every key.
    #[arg(long, env = "TANDEM_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where the data lies; created when absent.
    #[arg(long, env = "TANDEM_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Address of the gRPC service.
    #[arg(long, env = "TANDEM_LISTEN", value_name = "IP:PORT")]
    listen: Option<SocketAddr>,
    /// Address of /metrics, /health and /ready.
    #[arg(long, env = "TANDEM_METRICS_LISTEN", value_name = "IP:PORT")]
    metrics_listen: Option<SocketAddr>,
    /// Id of this node within its cluster.
    #[arg(long, env = "TANDEM_NODE_ID", value_name = "N")]
    node_id: Option<u64>,
    /// All nodes of the cluster with their peer addresses, as n1=host:port,n2=host:port,n3=host:port. Needed once, when the
    /// data directory is new.
    #[arg(long, env = "TANDEM_CLUSTER", value_name = "MEMBERS", value_delimiter = ',')]
    cluster: Vec<String>,
    /// Join the cluster of these nodes instead of making a new one: this node waits until `tandem cluster add` or `replace`
    /// names it. --cluster then names members to ask, and this node. Needed once, when the data directory is new.
    #[arg(long, env = "TANDEM_JOIN", value_parser = clap::builder::BoolishValueParser::new())]
    join: bool,
    /// File with the secret that the nodes share.
    #[arg(long, env = "TANDEM_CLUSTER_SECRET_FILE", value_name = "FILE")]
    cluster_secret_file: Option<PathBuf>,
    /// Certificate that this node shows its peers; with the next two the peer port speaks TLS only.
    #[arg(long, env = "TANDEM_CLUSTER_TLS_CERT_FILE", value_name = "FILE")]
    cluster_tls_cert_file: Option<PathBuf>,
    /// The private key of that certificate.
    #[arg(long, env = "TANDEM_CLUSTER_TLS_KEY_FILE", value_name = "FILE")]
    cluster_tls_key_file: Option<PathBuf>,
    /// Certificates of the authority that has signed those of all nodes.
    #[arg(long, env = "TANDEM_CLUSTER_TLS_CA_FILE", value_name = "FILE")]
    cluster_tls_ca_file: Option<PathBuf>,
    /// Log filter, such as `info` or `tandem_broker=debug,warn`.
    #[arg(long, env = "TANDEM_LOG", value_name = "FILTER")]
    log: Option<String>,
    /// Any single setting, such as `limits.max_streams=100`; may be given several times. In the environment:
    /// `TANDEM_SET_LIMITS__MAX_STREAMS=100`.
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_value)]
    settings: Vec<(String, String)>,
    /// Log lines as JSON objects.
    #[arg(long, env = "TANDEM_LOG_JSON", value_parser = clap::builder::BoolishValueParser::new())]
    log_json: bool,
    /// Print the settings in force as TOML and exit.
    #[arg(long)]
    print_config: bool,
}

/// Exit codes: 0 stopped in order, 1 could not start, 2 wrong usage or settings, 70 had to stop.
const EXIT_START: u8 = 1;
const EXIT_USAGE: u8 = 2;
const EXIT_FATAL: u8 = 70;

fn main() -> ExitCode {
    logging::end_on_panic();
    if let Err(error) = core_dumps::forbid() {
        eprintln!("warning: core dumps of this process may hold secrets: {error}");
    }
    let args = Args::parse();
    let print = args.print_config;
    let config = match settings(args) {
        Ok(config) => config,
        Err(text) => {
            eprintln!("error: {text}\ncode: INVALID_CONFIG");
            return ExitCode::from(EXIT_USAGE);
        }
    };
    if print {
        return match toml::to_string_pretty(&config) {
            Ok(text) => {
                print!("{text}");
                ExitCode::SUCCESS
            }
            Err(error) => {
                eprintln!("error: the settings cannot be printed: {error}");
                ExitCode::from(EXIT_START)
            }
        };
    }
    let checked = config.validate().map_err(|error| error.to_string());
    if let Err(text) = checked.and_then(|()| logging::init(&config.log).map_err(|error| error.to_string())) {
        eprintln!("error: {text}\ncode: INVALID_CONFIG");
        return ExitCode::from(EXIT_USAGE);
    }
    match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(run(config)),
        Err(error) => {
            eprintln!("error: no threads can be started: {error}");
            ExitCode::from(EXIT_START)
        }
    }
}

fn settings(args: Args) -> Result<Config, String> {
    let mut settings = Config::environment(std::env::vars());
    settings.extend(args.settings);
    let mut config = Config::layered(args.config.as_deref(), &settings).map_err(|error| error.to_string())?;
    config.data_dir = args.data_dir.unwrap_or(config.data_dir);
    config.listen = args.listen.unwrap_or(config.listen);
    config.metrics_listen = args.metrics_listen.unwrap_or(config.metrics_listen);
    config.node_id = args.node_id.unwrap_or(config.node_id);
    if !args.cluster.is_empty() {
        config.cluster.members = args.cluster;
    }
    config.cluster.join |= args.join;
    config.cluster.secret_file = args.cluster_secret_file.unwrap_or(config.cluster.secret_file);
    let cluster = &mut config.cluster;
    for (file, given) in [
        (&mut cluster.tls_cert_file, args.cluster_tls_cert_file),
        (&mut cluster.tls_key_file, args.cluster_tls_key_file),
        (&mut cluster.tls_ca_file, args.cluster_tls_ca_file),
    ] {
        if let Some(given) = given {
            *file = given;
        }
    }
    config.log.filter = args.log.unwrap_or(config.log.filter);
    if args.log_json {
        config.log.format = LogFormat::Json;
    }
    Ok(config)
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or_else(|| format!("{text:?} is not KEY=VALUE"))?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}

async fn run(config: Config) -> ExitCode {
    let broker = match Box::pin(Broker::start(config)).await {
        Ok(broker) => broker,
        Err(error) => {
            eprintln!("error: {error}\ncode: {}", error.code());
            // Also where the file is at fault that a setting names.
            let exit = if matches!(error, StartError::Config(_)) { EXIT_USAGE } else { EXIT_START };
            return ExitCode::from(exit);
        }
    };
    let fatal = broker.stopped();
    let failure = tokio::select! {
        error = fatal => Some(error),
        () = asked_to_stop() => None,
    };
    // Also after a failure: threads must end before the process does. What is durable then is what was durable before.
    let ended = broker.shutdown().await;
    match failure.or(ended.err()) {
        None => ExitCode::SUCCESS,
        Some(error) => {
            eprintln!("error: {error}\ncode: {}", error.code());
            ExitCode::from(EXIT_FATAL)
        }
    }
}

async fn asked_to_stop() {
    let (interrupt, terminate) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()));
    match (interrupt, terminate) {
        (Ok(mut interrupt), Ok(mut terminate)) => {
            tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
        }
        _ => std::future::pending().await,
    }
}
