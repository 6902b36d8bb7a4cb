//! `tandem top`: what goes on, live.

use std::{
    collections::HashMap,
    io::IsTerminal as _,
    time::{Duration, SystemTime},
};

use futures_util::TryStreamExt as _;
use serde_json::json;
use tandem_client::{Client, Liveness, Sandbox, ServerInfo};

use crate::{
    args::TopArgs,
    clock,
    exit::Failure,
    output::{CLEAR, table},
    run::{Context, check_pause},
};

/// What was seen before: when, and how far each shard was.
type Seen = (SystemTime, HashMap<u32, u64>);

pub(crate) async fn run(context: &Context, args: TopArgs) -> Result<(), Failure> {
    check_pause("--interval", args.interval)?;
    let client = context.client()?;
    let is_live = std::io::stdout().is_terminal() && !context.output.json && !args.once;
    let mut before: Option<Seen> = None;
    let mut left = args.count;
    loop {
        let screen = look(context, &client, &args, &mut before).await;
        match screen {
            Ok(screen) if is_live => context.output.line(&format!("{CLEAR}{screen}"))?,
            Ok(screen) => context.output.line(&screen)?,
            // A leader that changes, or a node that is started again: the next look may show it.
            Err(failure) if is_live => context.output.line(&format!("{CLEAR}{failure}"))?,
            Err(failure) => return Err(failure),
        }
        left = left.map(|left| left.saturating_sub(1));
        if left == Some(0) || (!is_live && args.count.is_none()) {
            return Ok(());
        }
        tokio::time::sleep(args.interval).await;
    }
}

async fn look(
    context: &Context,
    client: &Client,
    args: &TopArgs,
    before: &mut Option<Seen>,
) -> Result<String, Failure> {
    let info = client.server_info().await?;
    let mut sandboxes: Vec<Sandbox> = client.registry(context.workspace.as_str()).list().try_collect().await?;
    let now = clock::now();
    let rates = rates(&info, now, before.as_ref());
    *before = Some((now, info.shards.iter().map(|shard| (shard.shard_id, shard.last_log_index)).collect()));
    let (online, waiting, dead) = (
        sandboxes.iter().filter(|one| one.liveness() == Liveness::Online).count(),
        sandboxes.iter().map(|one| one.pending_messages).sum::<u64>(),
        sandboxes.iter().map(|one| one.dead_letters).sum::<u64>(),
    );
    // Where most waits is where somebody should look. What is deferred is pending too.
    sandboxes.sort_by_key(|one| std::cmp::Reverse((one.pending_messages, one.dead_letters)));
    let all = sandboxes.len();
    sandboxes.truncate(args.rows.into());
    if context.output.json {
        return Ok(json(&info, &rates, &sandboxes).to_string());
    }
    let connected = info.members.iter().filter(|member| member.connected).count();
    let nodes = if info.members.is_empty() {
        "1 node".to_owned()
    } else {
        format!("{connected} of {} nodes", info.members.len())
    };
    let shards = info.shards.iter().map(|shard| {
        let leader = if shard.leader_node_id == 0 { "none".to_owned() } else { shard.leader_node_id.to_string() };
        let rate = rates.get(&shard.shard_id).map_or_else(|| "-".to_owned(), |rate| format!("{rate:.0}"));
        let behind = shard.committed_index.saturating_sub(shard.applied_index);
        vec![
            shard.shard_id.to_string(),
            leader,
            shard.term.to_string(),
            shard.last_log_index.to_string(),
            rate,
            behind.to_string(),
        ]
    });
    let inboxes = sandboxes.iter().map(|one| {
        let state = if one.liveness() == Liveness::Online { "online" } else { "offline" };
        let numbers = [one.pending_messages, one.deferred_messages, one.dead_letters, one.pending_bytes];
        [one.sandbox_id.clone(), state.to_owned()].into_iter().chain(numbers.map(|number| number.to_string())).collect()
    });
    Ok(format!(
        "{}   {nodes}   workspace {}: {online} of {all} sandboxes online, {waiting} messages wait, {dead} dead letters\n\n{}\n\n{}",
        context.server,
        context.workspace,
        table(&["SHARD", "LEADER", "TERM", "LAST LOG", "COMMANDS/S", "BEHIND"], shards),
        table(&["SANDBOX", "STATE", "WAITING", "DEFERRED", "DEAD", "BYTES"], inboxes),
    ))
}

/// Commands a second, by shard, since the last look.
fn rates(info: &ServerInfo, now: SystemTime, before: Option<&Seen>) -> HashMap<u32, f64> {
    let Some((then, seen)) = before else { return HashMap::new() };
    let passed = now.duration_since(*then).unwrap_or_default().max(Duration::from_millis(1)).as_secs_f64();
    let rate = |shard: &tandem_client::Shard| {
        let before = seen.get(&shard.shard_id)?;
        #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
        let commands = shard.last_log_index.saturating_sub(*before) as f64;
        Some((shard.shard_id, commands / passed))
    };
    info.shards.iter().filter_map(rate).collect()
}

fn json(info: &ServerInfo, rates: &HashMap<u32, f64>, sandboxes: &[Sandbox]) -> serde_json::Value {
    let shards: Vec<_> = info
        .shards
        .iter()
        .map(|shard| {
            json!({"shard_id": shard.shard_id, "leader_node_id": shard.leader_node_id, "term": shard.term,
                "last_log_index": shard.last_log_index, "commands_per_second": rates.get(&shard.shard_id)})
        })
        .collect();
    let inboxes: Vec<_> = sandboxes
        .iter()
        .map(|one| {
            json!({"sandbox_id": one.sandbox_id, "online": one.liveness() == Liveness::Online,
                "pending_messages": one.pending_messages, "deferred_messages": one.deferred_messages,
                "dead_letters": one.dead_letters, "pending_bytes": one.pending_bytes})
        })
        .collect();
    let mut nodes: Vec<_> =
        info.members.iter().map(|member| json!({"node_id": member.node_id, "connected": member.connected})).collect();
    if nodes.is_empty() {
        // One that is alone lists no members, and has answered.
        nodes.push(json!({"node_id": info.node_id, "connected": true}));
    }
    json!({"nodes": nodes, "shards": shards, "sandboxes": inboxes})
}
