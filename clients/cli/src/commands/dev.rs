//! `tandem dev`.

mod control_plane;
mod nodes;

use std::net::{Ipv4Addr, SocketAddr};

use serde_json::json;
use tandem_broker::{AuthConfig, Broker, ClusterConfig, Config, LogConfig, logging};

use crate::{args::DevArgs, exit::Failure, run::Context};

pub(crate) async fn run(context: &Context, args: DevArgs) -> Result<(), Failure> {
    if args.nodes > 1 {
        return nodes::run(context, &args).await;
    }
    let config = config(&args);
    let failed = |text: String| Failure::failed("START_FAILED", text);
    logging::end_on_panic();
    logging::init(&config.log).map_err(|error| failed(error.to_string()))?;
    let started = Box::pin(Broker::start(config)).await;
    let broker = started.map_err(|error| Failure::failed(error.code(), error.to_string()))?;
    let (server, metrics) = (broker.grpc_address(), broker.metrics_address());
    let control_plane = match control_plane::start(&args, vec![format!("http://{server}")]).await {
        Ok(control_plane) => control_plane,
        Err(failure) => {
            Box::pin(broker.shutdown()).await.ok();
            return Err(failure);
        }
    };
    let rest = control_plane.as_ref().map(control_plane::url);
    context.output.result(
        || {
            json!({
                "server": format!("http://{server}"), "metrics": format!("http://{metrics}/metrics"),
                "rest": rest, "data_dir": args.data_dir,
            })
        },
        || welcome(server, metrics, rest.as_deref(), &args),
    )?;
    let fatal = tokio::select! {
        error = broker.stopped() => Some(error),
        () = asked_to_stop() => None,
        () = parent_ended(&args) => None,
    };
    context.output.note("stopping");
    if let Some(control_plane) = control_plane {
        control_plane.shutdown().await;
    }
    let ended = Box::pin(broker.shutdown()).await;
    match fatal.or(ended.err()) {
        None => Ok(()),
        Some(error) => Err(Failure::failed(error.code(), error.to_string())),
    }
}

/// The broker's defaults, but for what was asked for, and quiet.
fn config(args: &DevArgs) -> Config {
    let defaults = Config::default();
    let cluster = ClusterConfig { members: args.cluster.clone(), ..defaults.cluster };
    Config {
        // On one machine, behind its loopback address.
        auth: AuthConfig { open: true, ..defaults.auth },
        cluster,
        node_id: args.node_id.unwrap_or(defaults.node_id),
        data_dir: args.data_dir.clone(),
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, args.port)),
        metrics_listen: SocketAddr::from((Ipv4Addr::LOCALHOST, args.metrics_port)),
        log: LogConfig { filter: args.log.clone(), ..defaults.log },
        ..defaults
    }
}

fn welcome(server: SocketAddr, metrics: SocketAddr, rest: Option<&str>, args: &DevArgs) -> String {
    // The port is part of what to type only where it is not the one that commands look for.
    let option = if server.port() == 8001 { String::new() } else { format!(" --server http://{server}") };
    format!(
        "\
{ready}. Ctrl-C stops {them}.

  clients   http://{server}
{rest}  metrics   http://{metrics}/metrics
  data      {data}

In another terminal:

  tandem{option} sandbox register alice
  tandem{option} sandbox register bob --agent reviewer:review:rust,docs
  tandem{option} sub bob

and in a third one:

  tandem{option} pub --from alice --to bob 'Hello, Bob'
  tandem{option} history
",
        data = args.data_dir.display(),
        ready = if rest.is_some() { "The broker and the control plane are ready" } else { "The broker is ready" },
        them = if rest.is_some() { "them" } else { "it" },
        rest = rest.map_or(String::new(), |rest| format!("  REST      {rest}/docs\n")),
    )
}

/// The process that started this one as a node of its cluster has gone, or closed its input.
async fn parent_ended(args: &DevArgs) {
    if args.node_id.is_none() {
        std::future::pending::<()>().await;
    }
    let (sender, ended) = tokio::sync::oneshot::channel();
    // A thread of its own, which the end of the process does not wait for.
    std::thread::spawn(move || {
        std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink()).ok();
        sender.send(()).ok();
    });
    ended.await.ok();
}

/// Ctrl-C, or SIGTERM where there is one.
async fn asked_to_stop() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
            return;
        }
    }
    tokio::signal::ctrl_c().await.ok();
}
