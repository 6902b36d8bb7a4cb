//! Structured logs on standard error.

use std::io::IsTerminal as _;

use tracing_subscriber::{EnvFilter, fmt};

use crate::config::{ConfigError, LogConfig, LogFormat};

/// Sets up logging for the process. To be called once, by `main`.
pub fn init(config: &LogConfig) -> Result<(), ConfigError> {
    let wrong = |_| ConfigError::Value {
        key: "log.filter",
        value: config.filter.clone(),
        expected: "a filter such as info or tandem_broker=debug,warn",
    };
    let filter = EnvFilter::try_new(&config.filter).map_err(wrong)?;
    let builder = fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
    let set = match config.format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    if let Err(error) = set {
        tracing::warn!(%error, "logging was set up before");
    }
    Ok(())
}

/// Makes a panic anywhere end the process, after it has been reported: a task that is gone in silence would leave a node
/// that neither serves nor fails over. What was acknowledged is durable, so a restart loses nothing.
pub fn end_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::abort();
    }));
}
