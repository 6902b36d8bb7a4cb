//! Arguments of `tandem dev`.

use std::path::PathBuf;

use clap::Args;

/// `tandem dev`.
#[derive(Debug, Clone, Args)]
pub struct DevArgs {
    /// Where the broker keeps its data; with several nodes a directory in it for each
    #[arg(long, default_value = "./data", env = "TANDEM_DATA_DIR", value_name = "DIR")]
    pub data_dir: PathBuf,
    /// Port for clients, on the loopback address; 0 takes any free one. Further nodes take the ones behind it
    #[arg(long, default_value_t = 8001)]
    pub port: u16,
    /// Port for metrics, on the loopback address; 0 takes any free one. Further nodes take the ones behind it
    #[arg(long, default_value_t = 9001)]
    pub metrics_port: u16,
    /// Port for REST, on the loopback address; 0 takes any free one
    #[arg(long, default_value_t = 8000)]
    pub http_port: u16,
    /// The broker alone, without the control plane and its REST service
    #[arg(long)]
    pub no_control_plane: bool,
    /// With several nodes: port for the other nodes, on the loopback address; 0 takes any free one
    #[arg(long, default_value_t = 7001)]
    pub peer_port: u16,
    /// How many nodes: 1, or a cluster of 3 or 5 processes
    #[arg(long, default_value_t = 1, value_parser = odd_nodes)]
    pub nodes: u16,
    /// What to log on standard error, such as info or tandem_broker=debug,warn
    #[arg(long, default_value = "warn,openraft=error", env = "TANDEM_LOG", value_name = "FILTER")]
    pub log: String,
    /// As which node of a cluster this process runs; set by the process that starts them
    #[arg(long, hide = true)]
    pub node_id: Option<u64>,
    /// The nodes of that cluster
    #[arg(long, hide = true, value_delimiter = ',')]
    pub cluster: Vec<String>,
}

fn odd_nodes(text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(nodes @ (1 | 3 | 5)) => Ok(nodes),
        _ => Err("it must be 1, 3 or 5".to_owned()),
    }
}
