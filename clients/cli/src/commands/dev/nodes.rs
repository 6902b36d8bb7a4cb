//! `tandem dev --nodes 3`: a process for each node, on this machine.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use serde_json::json;
use tandem_client::{Client, ServerInfo};

use super::control_plane;
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

/// Runs the nodes until the user stops them or all have ended; while they start, until one has.
pub(super) async fn run(context: &Context, args: &DevArgs) -> Result<(), Failure> {
    let places = places(args)?;
    let cluster = places.iter().map(|place| format!("n{}=127.0.0.1:{}", place.node_id, place.peer_port));
    let cluster = cluster.collect::<Vec<_>>().join(",");
    let mut children = Vec::new();
    for place in &places {
        children.push(start(context, args, place, &cluster)?);
    }
    let ready = tokio::select! {
        ready = wait_until_ready(&places) => ready,
        ended = first_end(&mut children) => Err(ended),
        () = super::asked_to_stop() => Ok(false),
    };
    let outcome = match ready {
        Ok(true) => serve(context, args, &places, &mut children).await,
        Ok(false) => Ok(()),
        Err(failure) => Err(failure),
    };
    context.output.note("stopping");
    end(children).await;
    outcome
}

/// The nodes serve, and the control plane before them.
async fn serve(context: &Context, args: &DevArgs, places: &[Place], children: &mut [Child]) -> Result<(), Failure> {
    let endpoints = places.iter().map(|place| format!("http://127.0.0.1:{}", place.port)).collect();
    let control_plane = control_plane::start(args, endpoints).await?;
    let outcome = match welcome(context, places, control_plane.as_ref().map(control_plane::url).as_deref()) {
        Ok(()) => tokio::select! {
            ended = last_end(context, children) => Err(ended),
            () = super::asked_to_stop() => Ok(()),
        },
        Err(failure) => Err(failure),
    };
    if let Some(control_plane) = control_plane {
        control_plane.shutdown().await;
    }
    outcome
}

/// All ports are held together and let go only then, so that none is given out twice and one in use is found now: a broker
/// that answers there already must not be taken for a node of this cluster.
fn places(args: &DevArgs) -> Result<Vec<Place>, Failure> {
    let mut held = Vec::new();
    let mut port = |option: &str, first: u16, node: u16| -> Result<u16, Failure> {
        let wanted = if first == 0 { 0 } else { first.saturating_add(node) };
        let in_use = |error: std::io::Error| in_use(option, wanted, &error);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, wanted)).map_err(in_use)?;
        let port = listener.local_addr().map_err(in_use)?.port();
        held.push(listener);
        Ok(port)
    };
    (0..args.nodes)
        .map(|node| {
            Ok(Place {
                node_id: u64::from(node) + 1,
                port: port("--port", args.port, node)?,
                metrics_port: port("--metrics-port", args.metrics_port, node)?,
                peer_port: port("--peer-port", args.peer_port, node)?,
                data_dir: args.data_dir.join(format!("n{}", node + 1)),
            })
        })
        .collect()
}

fn in_use(option: &str, port: u16, error: &std::io::Error) -> Failure {
    Failure::Failed {
        code: "ADDRESS_IN_USE",
        text: format!("cannot listen on {}: {error}", SocketAddr::from((Ipv4Addr::LOCALHOST, port))),
        next: Some(format!("stop what listens there, or choose others: {option} 0 takes any free ones")),
    }
}

fn start(context: &Context, args: &DevArgs, place: &Place, cluster: &str) -> Result<Child, Failure> {
    let failed = |error: std::io::Error| Failure::failed("START_FAILED", format!("node {}: {error}", place.node_id));
    let program = std::env::current_exe().map_err(failed)?;
    let mut command = Command::new(program);
    if context.output.json {
        command.arg("--json");
    }
    command.args(["--quiet", "dev"]).arg("--data-dir").arg(&place.data_dir);
    command.args(["--log", &args.log, "--cluster", cluster]);
    command.arg("--node-id").arg(place.node_id.to_string());
    command.arg("--port").arg(place.port.to_string());
    command.arg("--metrics-port").arg(place.metrics_port.to_string());
    // A node ends when its standard input does: also when this process is killed.
    command.stdin(Stdio::piped()).stdout(Stdio::null());
    command.spawn().map_err(failed)
}

/// True once the first node knows all of them, and the default workspace, and so a leader, is there.
async fn wait_until_ready(places: &[Place]) -> Result<bool, Failure> {
    let client = Client::connect(format!("http://127.0.0.1:{}", places[0].port))?;
    let is_ours = |info: ServerInfo| info.node_id == places[0].node_id && info.members.len() == places.len();
    let ready = async {
        while !client.server_info().await.is_ok_and(is_ours) || client.workspaces().get("default").await.is_err() {
            tokio::time::sleep(GLANCE).await;
        }
    };
    let late =
        |_| Failure::failed("START_FAILED", format!("the nodes do not serve after {} s", READY_TIMEOUT.as_secs()));
    tokio::time::timeout(READY_TIMEOUT, ready).await.map_err(late).map(|()| true)
}

/// The end of the first node that ends.
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

/// Tells of each node that ends. The others go on: this is how to see what a cluster does without a node. Returns once none
/// is left.
async fn last_end(context: &Context, children: &mut [Child]) -> Failure {
    let mut running: Vec<_> = children.iter_mut().enumerate().collect();
    loop {
        running.retain_mut(|(node, child)| {
            let Some(how) = end_of(child) else { return true };
            context.output.note(&format!("node {} has ended ({how})", *node + 1));
            false
        });
        if running.is_empty() {
            return Failure::failed("NODE_ENDED", "all nodes have ended");
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

fn welcome(context: &Context, places: &[Place], rest: Option<&str>) -> Result<(), Failure> {
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
        || json!({ "nodes": nodes, "rest": rest }),
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
                "{} brokers are ready, one cluster. Ctrl-C stops them.\n\n{}\n{}\nAny of them serves every client:\n\n  \
                 tandem --server http://{first} cluster status\n",
                places.len(),
                rows.join("\n"),
                rest.map_or(String::new(), |rest| format!("  REST     {rest}/docs\n"))
            )
        },
    )
}
