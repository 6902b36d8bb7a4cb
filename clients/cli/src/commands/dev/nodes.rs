//! `tandem dev --nodes 3`: a process for each node, on this machine.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use serde_json::json;
use tandem_client::Client;

use crate::{args::DevArgs, exit::Failure, run::Context};

/// How long the nodes may take to serve together.
const READY_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a node may take to end.
const END_TIMEOUT: Duration = Duration::from_secs(15);
/// How often is looked whether one has ended.
const GLANCE: Duration = Duration::from_millis(50);

/// Where one node lives.
struct Place {
    node_id: u64,
    port: u16,
    metrics_port: u16,
    peer_port: u16,
    data_dir: PathBuf,
}

/// Runs the nodes until the user stops them or one ends.
pub(super) async fn run(context: &Context, args: &DevArgs) -> Result<(), Failure> {
    let places = places(args)?;
    let cluster = places.iter().map(|place| format!("n{}=127.0.0.1:{}", place.node_id, place.peer_port));
    let cluster = cluster.collect::<Vec<_>>().join(",");
    let mut children = Vec::new();
    for place in &places {
        children.push(start(args, place, &cluster)?);
    }
    let ready = tokio::select! {
        ready = wait_until_ready(&places[0]) => ready,
        ended = first_end(&mut children) => Err(ended),
        () = super::asked_to_stop() => Ok(false),
    };
    let outcome = match ready {
        Ok(true) => {
            welcome(context, &places)?;
            tokio::select! {
                ended = first_end(&mut children) => {
                    // The others go on: this is how to see what a cluster does without a node.
                    context.output.note(&format!("{ended}; the others go on"));
                    super::asked_to_stop().await;
                }
                () = super::asked_to_stop() => {}
            }
            Ok(())
        }
        Ok(false) => Ok(()),
        Err(failure) => Err(failure),
    };
    context.output.note("stopping");
    end(children).await;
    outcome
}

fn places(args: &DevArgs) -> Result<Vec<Place>, Failure> {
    let behind = |first: u16, node: u16| {
        if first == 0 { free_port() } else { Ok(first.saturating_add(node)) }
    };
    (0..args.nodes)
        .map(|node| {
            Ok(Place {
                node_id: u64::from(node) + 1,
                port: behind(args.port, node)?,
                metrics_port: behind(args.metrics_port, node)?,
                peer_port: behind(args.peer_port, node)?,
                data_dir: args.data_dir.join(format!("n{}", node + 1)),
            })
        })
        .collect()
}

/// Others must know a node's port before it has it.
fn free_port() -> Result<u16, Failure> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
    listener.map(|address| address.port()).map_err(|error| Failure::failed("START_FAILED", error.to_string()))
}

fn start(args: &DevArgs, place: &Place, cluster: &str) -> Result<Child, Failure> {
    let failed = |error: std::io::Error| Failure::failed("START_FAILED", format!("node {}: {error}", place.node_id));
    let program = std::env::current_exe().map_err(failed)?;
    let mut command = Command::new(program);
    command.args(["--json", "dev"]).arg("--data-dir").arg(&place.data_dir);
    command.args(["--log", &args.log, "--cluster", cluster]);
    command.arg("--node-id").arg(place.node_id.to_string());
    command.arg("--port").arg(place.port.to_string());
    command.arg("--metrics-port").arg(place.metrics_port.to_string());
    // A node ends when its standard input does: also when this process is killed.
    command.stdin(Stdio::piped()).stdout(Stdio::null());
    command.spawn().map_err(failed)
}

/// True once the default workspace, and so a leader, is there.
async fn wait_until_ready(place: &Place) -> Result<bool, Failure> {
    let client = Client::connect(format!("http://127.0.0.1:{}", place.port))?;
    let ready = async {
        while client.workspaces().get("default").await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let late =
        |_| Failure::failed("START_FAILED", format!("the nodes do not serve after {} s", READY_TIMEOUT.as_secs()));
    tokio::time::timeout(READY_TIMEOUT, ready).await.map_err(late).map(|()| true)
}

async fn first_end(children: &mut [Child]) -> Failure {
    loop {
        for (node, child) in children.iter_mut().enumerate() {
            if let Some(how) = end_of(child) {
                return Failure::failed("NODE_ENDED", format!("node {} has ended ({how})", node + 1));
            }
        }
        tokio::time::sleep(GLANCE).await;
    }
}

/// How a node ended, once it has.
fn end_of(child: &mut Child) -> Option<String> {
    match child.try_wait() {
        Ok(status) => status.as_ref().map(ExitStatus::to_string),
        Err(error) => Some(error.to_string()),
    }
}

async fn end(mut children: Vec<Child>) {
    for child in &mut children {
        drop(child.stdin.take());
    }
    for child in &mut children {
        let ended = async {
            while end_of(child).is_none() {
                tokio::time::sleep(GLANCE).await;
            }
        };
        if tokio::time::timeout(END_TIMEOUT, ended).await.is_err() {
            child.kill().ok();
        }
    }
}

fn welcome(context: &Context, places: &[Place]) -> Result<(), Failure> {
    let address = |port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let nodes: Vec<_> = places
        .iter()
        .map(|place| {
            json!({
                "node_id": place.node_id, "server": format!("http://{}", address(place.port)),
                "metrics": format!("http://{}/metrics", address(place.metrics_port)), "data_dir": place.data_dir,
            })
        })
        .collect();
    context.output.result(
        || json!({ "nodes": nodes }),
        || {
            let rows: Vec<_> = places
                .iter()
                .map(|place| {
                    format!(
                        "  node {}   clients http://{}   metrics http://{}/metrics   data {}",
                        place.node_id,
                        address(place.port),
                        address(place.metrics_port),
                        place.data_dir.display()
                    )
                })
                .collect();
            let first = address(places[0].port);
            format!(
                "{} brokers are ready, one cluster. Ctrl-C stops them.\n\n{}\n\nAny of them serves every client:\n\n  \
                 tandem --server http://{first} cluster status\n",
                places.len(),
                rows.join("\n")
            )
        },
    )
}
