//! `tandem cluster status`.

use serde_json::{Value, json};
use tandem_client::{Client, ClusterState, Member, ServerInfo, Settings};

use super::change;
use crate::{exit::Failure, output::table, run::Context};

/// How long a node may take to be reached.
const CONNECT_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(2);

/// A node, as the one that was asked sees it and as it sees itself.
struct Node {
    member: Member,
    info: Result<ServerInfo, String>,
}

pub(super) async fn run(context: &Context) -> Result<(), Failure> {
    let asked = context.client()?.server_info().await?;
    if asked.members.is_empty() {
        let text = format!("the broker at {} is alone, not a member of a cluster", context.server);
        return Err(Failure::failed("NOT_A_CLUSTER", text));
    }
    let state = context.client()?.cluster().get().await?;
    let mut nodes = Vec::new();
    for member in &asked.members {
        let info = if member.node_id == asked.node_id { Ok(asked.clone()) } else { ask(context, member).await };
        nodes.push(Node { member: member.clone(), info });
    }
    nodes.sort_by_key(|node| node.member.node_id);
    context.output.result(|| json(&asked, &nodes, &state), || text(&asked, &nodes, &state))
}

async fn ask(context: &Context, member: &Member) -> Result<ServerInfo, String> {
    if member.service_address.is_empty() {
        return Err("its address is not known".to_owned());
    }
    let settings = Settings {
        connect_timeout: CONNECT_TIMEOUT,
        request_timeout: CONNECT_TIMEOUT * 2,
        endpoints: vec![context.url(&member.service_address)],
        ..context.settings.clone()
    };
    let client = Client::with_settings(settings).map_err(|error| error.to_string())?;
    client.server_info().await.map_err(|error| error.to_string())
}

fn json(asked: &ServerInfo, nodes: &[Node], state: &ClusterState) -> Value {
    let nodes: Vec<_> = nodes
        .iter()
        .map(|node| {
            let shards: Vec<_> = node
                .info
                .iter()
                .flat_map(|info| &info.shards)
                .map(|shard| {
                    json!({
                        "shard_id": shard.shard_id, "leader_node_id": shard.leader_node_id, "term": shard.term,
                        "last_log_index": shard.last_log_index, "committed_index": shard.committed_index,
                        "applied_index": shard.applied_index, "snapshot_index": shard.snapshot_index,
                    })
                })
                .collect();
            json!({
                "node_id": node.member.node_id, "peer_address": node.member.peer_address,
                "service_address": node.member.service_address, "connected": node.member.connected,
                "reason": node.member.reason, "detail": node.member.detail,
                "answers": node.info.is_ok(), "shards": shards,
            })
        })
        .collect();
    json!({
        "cluster_id": asked.cluster_id, "asked_node_id": asked.node_id, "nodes": nodes, "members": change::json(state),
    })
}

fn text(asked: &ServerInfo, nodes: &[Node], cluster: &ClusterState) -> String {
    let rows = nodes.iter().map(|node| {
        let state = match (&node.info, node.member.connected) {
            (Ok(_), true) => "up".to_owned(),
            (Err(error), true) => format!("connected, but does not answer: {error}"),
            (_, false) => format!("{}: {}", node.member.reason, node.member.detail),
        };
        let led = node.info.iter().flat_map(|info| &info.shards);
        let led = led.filter(|shard| shard.leader_node_id == node.member.node_id).count();
        vec![
            node.member.node_id.to_string(),
            node.member.service_address.clone(),
            node.member.peer_address.clone(),
            led.to_string(),
            role(node.member.node_id, cluster),
            state,
        ]
    });
    let shards = asked.shards.iter().map(|shard| {
        let leader = if shard.leader_node_id == 0 { "none".to_owned() } else { shard.leader_node_id.to_string() };
        let applied = nodes.iter().map(|node| {
            let here = node.info.iter().flat_map(|info| &info.shards).find(|here| here.shard_id == shard.shard_id);
            here.map_or_else(|| "-".to_owned(), |here| format!("{}/{}", here.applied_index, here.last_log_index))
        });
        [shard.shard_id.to_string(), leader, shard.term.to_string()].into_iter().chain(applied).collect()
    });
    let applied: Vec<_> = nodes.iter().map(|node| format!("NODE {}", node.member.node_id)).collect();
    let headings: Vec<&str> =
        ["SHARD", "LEADER", "TERM"].into_iter().chain(applied.iter().map(String::as_str)).collect();
    format!(
        "cluster   {}\n{}\n{}\n\nFor each node: entries applied / in its log.\n\n{}",
        asked.cluster_id,
        under_way(cluster),
        table(&["NODE", "CLIENTS", "PEERS", "LEADS", "ROLE", "STATE"], rows),
        table(&headings, shards)
    )
}

/// What a node is, such as `voting, drained`.
fn role(node_id: u64, cluster: &ClusterState) -> String {
    let Some(node) = cluster.nodes.iter().find(|node| node.node_id == node_id) else { return "not listed".to_owned() };
    let mut role = change::word(node.state());
    if node.replaces_node_id > 0 {
        role.push_str(&format!(" for node {}", node.replaces_node_id));
    }
    if node.drained {
        role.push_str(", drained");
    }
    role
}

/// The newest level that any node can apply.
fn newest(cluster: &ClusterState) -> u32 {
    cluster.nodes.iter().map(|node| node.newest_level).max().unwrap_or(0)
}

/// Lines about what changes, and what was transferred; each ends with a line break.
fn under_way(cluster: &ClusterState) -> String {
    let mut lines = String::new();
    if let Some(change) = &cluster.change {
        let done = format!("{} of {} shards done", change.done_shards, cluster.shards.len());
        let state = change::word(change.state());
        lines.push_str(&format!("change    node {} is {state}, {done}; next: {}\n", change.node_id, change.next_step));
    }
    for shard in &cluster.shards {
        for one in &shard.snapshots {
            let (there, all) = (one.received_bytes >> 20, one.total_bytes.div_ceil(1 << 20));
            let (node, shard) = (one.node_id, shard.shard_id);
            lines.push_str(&format!("snapshot  node {node} has {there} of {all} MiB of a snapshot of shard {shard}\n"));
        }
    }
    for shard in cluster.shards.iter().filter(|shard| shard.transferred_to_node_id > 0) {
        let to = shard.transferred_to_node_id;
        lines.push_str(&format!("transfer  node {to} leads shard {} whenever it can\n", shard.shard_id));
    }
    if !cluster.retired_nodes.is_empty() {
        let ids: Vec<_> = cluster.retired_nodes.iter().map(|node| node.node_id.to_string()).collect();
        lines.push_str(&format!("removed   node {}\n", ids.join(", ")));
    }
    let older: Vec<_> = cluster.nodes.iter().filter(|node| (1..newest(cluster)).contains(&node.newest_level)).collect();
    if !older.is_empty() {
        let ids: Vec<_> = older.iter().map(|node| node.node_id.to_string()).collect();
        lines.push_str(&format!(
            "upgrade   the cluster is at level {}; level {} is used once node {} can apply it, too\n",
            cluster.level,
            newest(cluster),
            ids.join(", ")
        ));
    }
    if !cluster.current {
        lines.push_str("No majority answers; this is what the node that was asked knows.\n");
    }
    lines
}
