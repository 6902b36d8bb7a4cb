//! One run: subscribers first, then senders, then the sum.

use std::sync::Arc;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tandem_client::{SubscribeOptions, Subscription, broadcast, to_sandbox};
use tokio::{
    sync::watch,
    task::{JoinError, JoinSet},
};

use super::{
    arena::{self, Arena},
    live::{Live, SharedHistogram},
    order::InboxOrder,
    pace::Pace,
    payload::Template,
    plan::Plan,
    publisher::{Sent, StreamSender, Targets},
    report::{Latencies, Report},
    subscriber::{Followed, Follower},
    unary::UnarySender,
};
use crate::{clock, connections::Connections, exit::Failure, run::Context};

/// Subscriptions that are opened at the same time.
const OPENING: usize = 64;

/// The load of a plan, beside its backlog.
pub(super) async fn measure(context: &Context, arena: &Arena, plan: &Plan) -> Result<Report, Failure> {
    let Some(backlog) = &plan.backlog else { return run(context, arena, plan, &Arc::default()).await };
    run(context, arena, backlog, &Arc::default()).await?;
    let report = run(context, arena, plan, &Arc::default()).await?;
    still_waits(arena, backlog).await?;
    Ok(report)
}

/// The load of a plan and nothing else. Ends before its time when `live` is stopped.
pub(super) async fn run(context: &Context, arena: &Arena, plan: &Plan, live: &Arc<Live>) -> Result<Report, Failure> {
    let (done, is_done) = watch::channel(false);
    let inboxes = if plan.subscribed { plan.inboxes } else { 0 };
    let connections = Connections::for_streams(context, inboxes + plan.idle_subscribers)?;
    let latencies = Latencies {
        publish: (0..plan.publishers).map(|_| SharedHistogram::new()).collect(),
        end_to_end: (0..connections.count()).map(|_| SharedHistogram::new()).collect(),
    };

    let ids = (0..inboxes).map(|index| plan.inbox_id(index));
    let idle_ids = (0..plan.idle_subscribers).map(arena::idle_id);
    let mut open = subscribe(arena, &connections, ids.chain(idle_ids).collect()).await?;
    // Held open, and never read: nothing comes there.
    let idle = open.split_off(inboxes);
    let followers = spawn_followers(plan, open, live, &latencies.end_to_end, &is_done);

    let start_nanos = clock::nanos();
    let senders = spawn_senders(context, arena, plan, live, &latencies, start_nanos)?;
    let work = Box::pin(finish(plan, senders, followers, live, done));
    let (sent, followed) = tokio::select! {
        outcome = work => outcome?,
        stalled = Arc::clone(live).watch(plan.clone(), context.output) => return Err(stalled),
    };
    drop(idle);
    Ok(Report::new(plan, start_nanos, sent, followed, &latencies))
}

/// Reads what was sent by a plan that had no subscribers.
pub(super) async fn drain(context: &Context, arena: &Arena, plan: &Plan, silent: Report) -> Result<Report, Failure> {
    let live: Arc<Live> = Arc::default();
    let (done, is_done) = watch::channel(false);
    let connections = Connections::for_streams(context, plan.inboxes)?;
    let latencies = Latencies {
        publish: Vec::new(),
        end_to_end: (0..connections.count()).map(|_| SharedHistogram::new()).collect(),
    };
    let start_nanos = clock::nanos();
    let mut followers = JoinSet::new();
    for index in 0..plan.inboxes {
        let opening = open(arena, &connections, plan, index);
        let (order, live, done) = (order_of(plan, index), Arc::clone(&live), is_done.clone());
        let latency = latencies.end_to_end[Connections::index_of(index)].clone();
        followers.spawn(async move { Follower { inbox: opening.await?, order, live, latency, done }.run().await });
    }
    let mut followed = Vec::new();
    let work = deliver(&mut followers, &mut followed, &live, silent.acked(), done);
    tokio::select! {
        outcome = Box::pin(work) => outcome?,
        stalled = Arc::clone(&live).watch(plan.clone(), context.output) => return Err(stalled),
    }
    let read = Plan { subscribed: true, ..plan.clone() };
    Ok(Report::new(&read, start_nanos, silent.into_sent(), followed, &latencies))
}

/// Fails unless the messages of a plan without subscribers still wait.
async fn still_waits(arena: &Arena, plan: &Plan) -> Result<(), Failure> {
    let expected = plan.messages.unwrap_or(0);
    let (mut pending, mut deferred) = (0, 0);
    let mut sandboxes = Box::pin(arena.client.registry(arena.workspace_id.as_str()).list());
    while let Some(sandbox) = sandboxes.try_next().await? {
        if sandbox.sandbox_id.starts_with(plan.inbox_prefix) {
            pending += sandbox.pending_messages;
            deferred += sandbox.deferred_messages;
        }
    }
    if pending != expected || plan.delay.is_some() && deferred != expected {
        let text = format!(
            "of {expected} messages {pending} wait at the end, {deferred} of them for their time; give them longer times"
        );
        return Err(Failure::failed("BACKLOG_GONE", text));
    }
    Ok(())
}

fn spawn_followers(
    plan: &Plan,
    open: Vec<Subscription>,
    live: &Arc<Live>,
    latencies: &[SharedHistogram],
    done: &watch::Receiver<bool>,
) -> JoinSet<Result<Followed, Failure>> {
    let mut followers = JoinSet::new();
    for (index, inbox) in open.into_iter().enumerate() {
        let order = order_of(plan, index);
        let latency = latencies[Connections::index_of(index)].clone();
        followers.spawn(Follower { inbox, order, live: Arc::clone(live), latency, done: done.clone() }.run());
    }
    followers
}

/// What has to be in order in the inbox with this place.
fn order_of(plan: &Plan, index: usize) -> InboxOrder {
    if plan.is_broadcast() {
        // One recipient: everyone.
        InboxOrder::new(0, plan.senders())
    } else if plan.keys > 0 {
        let keys = (plan.keys - index).div_ceil(plan.inboxes);
        InboxOrder::with_keys(index as u32, plan.inboxes as u32, keys, plan.senders())
    } else {
        InboxOrder::new(index as u32, plan.senders())
    }
}

/// Opens one inbox in which messages wait. To be read by the task that opens it: what comes to streams that nobody reads yet
/// would fill the connection, and the next one could not be opened.
pub(super) fn open(
    arena: &Arena,
    connections: &Connections,
    plan: &Plan,
    index: usize,
) -> impl Future<Output = Result<Subscription, Failure>> + Send + use<> {
    let (client, workspace_id) = (connections.of(index).clone(), arena.workspace_id.clone());
    let sandbox_id = plan.inbox_id(index);
    async move { Ok(client.subscribe(workspace_id, sandbox_id, SubscribeOptions::default()).await?) }
}

/// Opens inboxes that are empty.
async fn subscribe(arena: &Arena, connections: &Connections, ids: Vec<String>) -> Result<Vec<Subscription>, Failure> {
    let workspace_id = arena.workspace_id.as_str();
    let opening = ids.into_iter().enumerate();
    let opening =
        opening.map(|(index, id)| connections.of(index).subscribe(workspace_id, id, SubscribeOptions::default()));
    Ok(stream::iter(opening).buffered(OPENING).try_collect().await?)
}

fn spawn_senders(
    context: &Context,
    arena: &Arena,
    plan: &Plan,
    live: &Arc<Live>,
    latencies: &Latencies,
    start_nanos: u64,
) -> Result<JoinSet<Result<Sent, Failure>>, Failure> {
    let mut senders = JoinSet::new();
    for index in 0..plan.publishers {
        let publisher = context.client()?.publisher(arena.workspace_id.as_str());
        let templates: Vec<_> = destinations(plan)
            .enumerate()
            .map(|(inbox, destination)| Template::new(arena::sender_id(index), destination, &plan.shape_of(inbox)))
            .collect();
        let latency = latencies.publish[index].clone();
        if !plan.unary {
            let targets = Targets::new(index as u32, templates, plan.recipients());
            let pace = Pace::new(plan, index, start_nanos);
            let (window, live) = (plan.window as u64, Arc::clone(live));
            senders.spawn(StreamSender { publisher, targets, window, pace, live, latency }.run());
            continue;
        }
        for call in 0..plan.window {
            let sender = index * plan.window + call;
            let targets = Targets::new(sender as u32, templates.clone(), plan.recipients());
            let (pace, live) = (Pace::new(plan, sender, start_nanos), Arc::clone(live));
            let (publisher, latency) = (publisher.clone(), latency.clone());
            senders.spawn(UnarySender { publisher, targets, pace, live, latency }.run());
        }
    }
    Ok(senders)
}

fn destinations(plan: &Plan) -> impl Iterator<Item = tandem_client::Destination> {
    let inboxes = if plan.is_broadcast() { 0 } else { plan.inboxes };
    let everyone = plan.is_broadcast().then(broadcast);
    (0..inboxes).map(|index| to_sandbox(plan.inbox_id(index))).chain(everyone)
}

/// Waits for the senders, then for the deliveries, then for the confirmations. A failure anywhere ends the run.
async fn finish(
    plan: &Plan,
    mut senders: JoinSet<Result<Sent, Failure>>,
    mut followers: JoinSet<Result<Followed, Failure>>,
    live: &Live,
    done: watch::Sender<bool>,
) -> Result<(Vec<Sent>, Vec<Followed>), Failure> {
    let (mut sent, mut followed) = (Vec::new(), Vec::new());
    loop {
        tokio::select! {
            Some(joined) = senders.join_next() => sent.push(outcome(joined)?),
            // None ends before `done`, unless it fails.
            Some(joined) = followers.join_next() => followed.push(outcome(joined)?),
            else => break,
        }
        if senders.is_empty() {
            break;
        }
    }
    let acked: u64 = sent.iter().map(|sent| sent.acked).sum();
    deliver(&mut followers, &mut followed, live, acked * plan.deliveries_per_message(), done).await?;
    Ok((sent, followed))
}

/// Waits for so many deliveries, then for the confirmations.
async fn deliver(
    followers: &mut JoinSet<Result<Followed, Failure>>,
    followed: &mut Vec<Followed>,
    live: &Live,
    expected: u64,
    done: watch::Sender<bool>,
) -> Result<(), Failure> {
    const LOOK_AGAIN: std::time::Duration = std::time::Duration::from_millis(1);
    while live.delivered() < expected {
        tokio::select! {
            Some(joined) = followers.join_next() => followed.push(outcome(joined)?),
            () = tokio::time::sleep(LOOK_AGAIN) => {}
        }
    }
    done.send_replace(true);
    while let Some(joined) = followers.join_next().await {
        followed.push(outcome(joined)?);
    }
    Ok(())
}

pub(super) fn outcome<T>(joined: Result<Result<T, Failure>, JoinError>) -> Result<T, Failure> {
    joined.map_err(|error| Failure::failed("TASK_FAILED", format!("a task of the benchmark failed: {error}")))?
}
