//! `tandem cluster add`, `remove` and the others that change something: asked for once, then watched until it is done.

use std::time::Duration;

use serde_json::{Value, json};
use tandem_client::{Client, ClusterState, Error, NodeState, Settings};

use crate::{
    args::{ClusterCommand, Wait},
    clock,
    exit::Failure,
    run::Context,
};

/// Between two looks.
const GLANCE: Duration = Duration::from_millis(200);
/// Between two lines of progress, unless something else is waited for.
const QUIET: Duration = Duration::from_secs(2);

/// What is waited for, and what is said then.
struct Goal<'a> {
    done: Box<dyn Fn(&ClusterState) -> bool + 'a>,
    said: String,
    /// A node that stops by it, and cannot be asked.
    leaves: Option<u64>,
}

pub(super) async fn run(context: &Context, command: ClusterCommand) -> Result<(), Failure> {
    let cluster = context.client()?.cluster();
    match command {
        ClusterCommand::Status => super::status::run(context).await,
        ClusterCommand::Verify { timeout } => super::verify::run(context, timeout).await,
        ClusterCommand::Add { node, peer, wait } => {
            let begun = cluster.add_node(node, peer).await?;
            let goal = Goal { done: Box::new(no_change), said: format!("node {node} is a member"), leaves: None };
            watch(context, begun, wait, goal).await
        }
        ClusterCommand::Remove { node, force, wait } => {
            let begun = cluster.remove_node(node, force).await?;
            let said = format!("node {node} is taken out");
            watch(context, begun, wait, Goal { done: Box::new(no_change), said, leaves: Some(node) }).await
        }
        ClusterCommand::Replace { old, new, peer, force, wait } => {
            let begun = cluster.replace_node(old, new, peer, force).await?;
            let said = format!("node {new} has taken the place of node {old}");
            watch(context, begun, wait, Goal { done: Box::new(no_change), said, leaves: Some(old) }).await
        }
        ClusterCommand::Transfer { shard, to, wait } => {
            let begun = cluster.transfer_leader(shard, to).await?;
            let leads = move |seen: &ClusterState| {
                seen.shards.iter().any(|seen| seen.shard_id == shard && seen.leader_node_id == to)
            };
            let said = format!("node {to} leads shard {shard}");
            watch(context, begun, wait, Goal { done: Box::new(leads), said, leaves: None }).await
        }
        ClusterCommand::Rebalance => {
            let state = cluster.rebalance_leaders().await?;
            report(context, &state, "leaders are being spread over the nodes; see tandem cluster status")
        }
        ClusterCommand::Drain { node, wait } => {
            let begun = cluster.drain_node(node).await?;
            let drained = move |seen: &ClusterState| {
                seen.shards.iter().all(|shard| shard.leader_node_id != node && shard.leader_node_id > 0)
            };
            let said = format!("node {node} leads nothing; it may be stopped");
            watch(context, begun, wait, Goal { done: Box::new(drained), said, leaves: None }).await
        }
        ClusterCommand::Undrain { node } => {
            let state = cluster.undrain_node(node).await?;
            report(context, &state, &format!("node {node} may lead again"))
        }
    }
}

fn no_change(seen: &ClusterState) -> bool {
    seen.current && seen.change.is_none()
}

async fn watch(context: &Context, begun: ClusterState, wait: Wait, goal: Goal<'_>) -> Result<(), Failure> {
    if wait.no_wait {
        return report(context, &begun, "accepted; see tandem cluster status for how far it is");
    }
    let client = watcher(context, &begun, goal.leaves)?;
    let started = clock::nanos();
    let since = |then: u64| Duration::from_nanos(clock::nanos().saturating_sub(then));
    let (mut said, mut said_at, mut state) = (String::new(), started, begun);
    while !(goal.done)(&state) {
        let step = state.change.as_ref().map_or_else(String::new, |change| change.next_step.clone());
        if !step.is_empty() && (said.is_empty() || (step != said && since(said_at) >= QUIET)) {
            context.output.note(&step);
            (said, said_at) = (step, clock::nanos());
        }
        if since(started) >= wait.timeout {
            let waits = if said.is_empty() { String::new() } else { format!(": {said}") };
            let text = format!(
                "not done within {}{waits}. It goes on; see tandem cluster status",
                humantime::format_duration(wait.timeout)
            );
            return Err(Failure::TimedOut(text));
        }
        tokio::time::sleep(GLANCE).await;
        match client.cluster().get().await {
            Ok(seen) => state = seen,
            // A node that goes, or a moment without a leader.
            Err(error) if error.is_retryable() || matches!(error, Error::Unreachable { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    report(context, &state, &goal.said)
}

/// A connection to nodes that stay: the one that was asked may be the one that goes.
fn watcher(context: &Context, state: &ClusterState, leaves: Option<u64>) -> Result<Client, Failure> {
    let Some(leaves) = leaves else { return context.client() };
    let stays =
        state.nodes.iter().filter(|node| node.node_id != leaves && node.connected && !node.service_address.is_empty());
    let endpoints: Vec<_> = stays.map(|node| context.url(&node.service_address)).collect();
    if endpoints.is_empty() {
        return context.client();
    }
    Ok(Client::with_settings(Settings { endpoints, ..context.settings.clone() })?)
}

fn report(context: &Context, state: &ClusterState, said: &str) -> Result<(), Failure> {
    let voting = |node: &&tandem_client::ClusterNode| node.state() == NodeState::Voting;
    let voters = state.nodes.iter().filter(voting).count();
    let text = || format!("{said}; {voters} nodes vote, {} are needed", voters / 2 + 1);
    context.output.result(|| json(state), text)?;
    if voters > 0 && voters % 2 == 0 {
        context
            .output
            .note(&format!("{voters} nodes stand as few failures as {}; an odd number is better", voters - 1));
    }
    Ok(())
}

/// A node's state, as the command line writes it.
pub(super) fn word(state: NodeState) -> String {
    crate::output::word(state.as_str_name(), "NODE_STATE_")
}

pub(super) fn json(state: &ClusterState) -> Value {
    let nodes: Vec<_> = state
        .nodes
        .iter()
        .map(|node| {
            json!({
                "node_id": node.node_id, "peer_address": node.peer_address, "service_address": node.service_address,
                "state": word(node.state()), "drained": node.drained, "replaces_node_id": node.replaces_node_id,
                "connected": node.connected, "newest_level": node.newest_level,
            })
        })
        .collect();
    let shards: Vec<_> = state
        .shards
        .iter()
        .map(|shard| {
            let snapshots = shard.snapshots.iter().map(|one| {
                json!({
                    "node_id": one.node_id, "received_bytes": one.received_bytes, "total_bytes": one.total_bytes,
                })
            });
            json!({
                "shard_id": shard.shard_id, "leader_node_id": shard.leader_node_id,
                "snapshots": snapshots.collect::<Vec<_>>(), "voter_node_ids": shard.voter_node_ids, "next_voter_node_ids": shard.next_voter_node_ids,
                "learner_node_ids": shard.learner_node_ids, "transferred_to_node_id": shard.transferred_to_node_id,
            })
        })
        .collect();
    let retired: Vec<_> = state.retired_nodes.iter().map(|node| node.node_id).collect();
    let change = state.change.as_ref().map(|change| {
        json!({
            "node_id": change.node_id, "state": word(change.state()), "replaces_node_id": change.replaces_node_id,
            "done_shards": change.done_shards, "next_step": change.next_step,
        })
    });
    json!({
        "cluster_id": state.cluster_id, "revision": state.revision, "current": state.current, "nodes": nodes,
        "level": state.level, "retired_node_ids": retired, "shards": shards, "change": change,
    })
}
