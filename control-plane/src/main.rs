//! `tandem-control-plane`: the control plane as a service.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command speaks to its user")]

use std::{io::IsTerminal as _, net::SocketAddr, path::PathBuf, process::ExitCode};

use clap::Parser;
use tandem_control_plane::{Config, ControlPlane};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Workspaces and their sandboxes, over REST.
///
/// Settings come from defaults, then the file, then the environment, then flags; the later wins.
#[derive(Debug, Parser)]
#[command(name = "tandem-control-plane", version)]
struct Args {
    /// TOML file with settings; `--print-config` shows every key.
    #[arg(long, env = "TANDEM_CONTROL_PLANE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Address of the REST service.
    #[arg(long, env = "TANDEM_CONTROL_PLANE_LISTEN", value_name = "IP:PORT")]
    listen: Option<SocketAddr>,
    /// `sqlite:FILE` or `postgres://USER@HOST/NAME`. May hold a password: better in the environment than in a flag.
    #[arg(long, env = "TANDEM_DATABASE_URL", value_name = "URL", hide_env_values = true)]
    database_url: Option<String>,
    /// Where the broker's nodes listen.
    #[arg(long, env = "TANDEM_BROKER", value_name = "URL", value_delimiter = ',')]
    broker: Vec<String>,
    /// File with a token or an API key of the broker, with the role admin.
    #[arg(long, env = "TANDEM_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Log filter, such as `info` or `tandem_control_plane=debug,warn`.
    #[arg(long, env = "TANDEM_LOG", value_name = "FILTER")]
    log: Option<String>,
    /// Print the settings in force as TOML, without the address of the database, and exit.
    #[arg(long)]
    print_config: bool,
}

/// Exit codes: 0 stopped in order, 1 could not start, 2 wrong usage or settings.
const EXIT_START: u8 = 1;
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    // A task that is gone in silence would leave a service that looks well and does nothing; what was wanted is in the database.
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::abort();
    }));
    let args = Args::parse();
    let print = args.print_config;
    let refused = |text: String, code: &str, exit| {
        eprintln!("error: {text}\ncode: {code}");
        ExitCode::from(exit)
    };
    let config = match settings(args) {
        Ok(config) => config,
        Err(text) => return refused(text, "INVALID_CONFIG", EXIT_USAGE),
    };
    if print {
        return match toml::to_string_pretty(&config) {
            Ok(text) => {
                print!("{text}");
                ExitCode::SUCCESS
            }
            Err(error) => refused(error.to_string(), "INTERNAL", EXIT_START),
        };
    }
    match EnvFilter::try_new(&config.log) {
        Ok(filter) => {
            let coloured = std::io::stderr().is_terminal();
            tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(coloured).init();
        }
        Err(error) => return refused(format!("setting log: {error}"), "INVALID_CONFIG", EXIT_USAGE),
    }
    match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(run(config)),
        Err(error) => refused(format!("no threads can be started: {error}"), "START_FAILED", EXIT_START),
    }
}

fn settings(args: Args) -> Result<Config, String> {
    let mut config = match args.config {
        Some(file) => Config::read(file).map_err(|error| error.to_string())?,
        None => Config::default(),
    };
    config.listen = args.listen.unwrap_or(config.listen);
    config.database.url = args.database_url.unwrap_or(config.database.url);
    if !args.broker.is_empty() {
        config.broker.endpoints = args.broker;
    }
    config.broker.token_file = args.token_file.unwrap_or(config.broker.token_file);
    config.log = args.log.unwrap_or(config.log);
    config.validate().map_err(|error| error.to_string())?;
    Ok(config)
}

async fn run(config: Config) -> ExitCode {
    match Box::pin(ControlPlane::start(config)).await {
        Ok(control_plane) => {
            asked_to_stop().await;
            control_plane.shutdown().await;
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}\ncode: {}", error.code());
            ExitCode::from(if error.code() == "INVALID_CONFIG" { EXIT_USAGE } else { EXIT_START })
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
