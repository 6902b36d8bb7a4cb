//! `tandem info`.

use serde_json::{Value, json};
use tandem_client::ServerInfo;

use crate::{
    exit::Failure,
    output::{table, time},
    run::Context,
};

pub(crate) async fn run(context: &Context) -> Result<(), Failure> {
    let info = context.client()?.server_info().await?;
    context.output.result(|| json(&info), || text(context, &info))
}

fn json(info: &ServerInfo) -> Value {
    let shards: Vec<_> = info
        .shards
        .iter()
        .map(|shard| {
            json!({
                "shard_id": shard.shard_id, "leader_node_id": shard.leader_node_id, "term": shard.term,
                "last_log_index": shard.last_log_index, "applied_index": shard.applied_index,
            })
        })
        .collect();
    let limits = info.limits.as_ref().map(|limits| {
        json!({
            "max_message_bytes": limits.max_message_bytes,
            "max_batch_messages": limits.max_batch_messages,
            "max_batch_bytes": limits.max_batch_bytes,
            "max_credit_messages": limits.max_credit_messages,
            "max_credit_bytes": limits.max_credit_bytes,
            "max_sandboxes_per_workspace": limits.max_sandboxes_per_workspace,
            "max_inbox_messages": limits.max_inbox_messages,
            "heartbeat_timeout_seconds": heartbeat_timeout(info).map(|timeout| timeout.as_secs_f64()),
        })
    });
    json!({
        "version": info.version, "cluster_id": info.cluster_id, "node_id": info.node_id,
        "start_time": time(info.start_time), "storage_engine": info.storage_engine,
        "shards": shards, "limits": limits,
    })
}

fn heartbeat_timeout(info: &ServerInfo) -> Option<std::time::Duration> {
    info.limits.as_ref()?.heartbeat_timeout?.try_into().ok()
}

fn text(context: &Context, info: &ServerInfo) -> String {
    let mut facts = vec![
        ("server", context.server.clone()),
        ("version", info.version.clone()),
        ("cluster", info.cluster_id.clone()),
        ("node", info.node_id.to_string()),
        ("started", time(info.start_time)),
        ("storage", info.storage_engine.clone()),
    ];
    if let Some(limits) = &info.limits {
        facts.extend([
            ("message", format!("{} bytes at most", limits.max_message_bytes)),
            ("batch", format!("{} messages, {} bytes at most", limits.max_batch_messages, limits.max_batch_bytes)),
            ("credit", format!("{} messages, {} bytes at most", limits.max_credit_messages, limits.max_credit_bytes)),
            ("sandboxes", format!("{} in a workspace at most", limits.max_sandboxes_per_workspace)),
            ("inbox", format!("{} messages at most", limits.max_inbox_messages)),
        ]);
    }
    if let Some(timeout) = heartbeat_timeout(info) {
        facts.push(("heartbeat", format!("within {}", humantime::format_duration(timeout))));
    }
    let facts: Vec<_> = facts.iter().map(|(name, fact)| format!("{name:<10}{fact}")).collect();
    let shards = info.shards.iter().map(|shard| {
        let leader = if shard.leader_node_id == 0 { "none".to_owned() } else { shard.leader_node_id.to_string() };
        [shard.shard_id.to_string(), leader]
            .into_iter()
            .chain([shard.term, shard.last_log_index, shard.applied_index].map(|number| number.to_string()))
            .collect()
    });
    format!("{}\n\n{}", facts.join("\n"), table(&["SHARD", "LEADER", "TERM", "LAST LOG", "APPLIED"], shards))
}
