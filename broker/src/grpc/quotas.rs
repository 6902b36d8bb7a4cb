//! Quotas: what a workspace may take, on the wire and where messages come in.

use std::sync::Arc;

use tandem_proto::workspace::v1::{Quotas as WireQuotas, Rate as WireRate};

use super::{
    Edge, StreamPlace,
    capability::{Capable, Choice},
    publish::PublishContext,
};
use crate::{
    auth::Caller,
    clock,
    command::{Outcome, SetQuotas, Verb},
    counts::{Counted, Counts},
    error::RequestError,
    machine::{keys, workspace::Workspace},
    message::{Destination, MessageView},
    policy::Recipient,
    quotas::{Owner, Quotas, Rate},
    rejection::{Reason, Rejection},
};

/// Streams of each workspace, on this node.
pub(super) type WorkspaceStreams = Arc<Counts<String>>;

/// A place among the streams of a workspace.
pub(super) type WorkspacePlace = Counted<String>;

fn used_up(text: String) -> Rejection {
    Rejection::new(Reason::QuotaExceeded, text)
}

impl Edge {
    /// A place among the streams of a workspace, if it may have one more.
    pub(super) fn workspace_place(&self, workspace: &str) -> Result<Option<WorkspacePlace>, RequestError> {
        let reader = &self.shards.of(workspace).reader;
        // A workspace that is not there is told by who looks for it.
        let Ok(found) = reader.workspace(workspace) else { return Ok(None) };
        let most = reader.quotas(found.number)?.map_or(0, |quotas| quotas.max_streams);
        let limit = if most == 0 { u32::MAX } else { most };
        let place = self.workspace_streams.enter(&workspace.to_owned(), limit).map_err(|count| {
            used_up(format!(
                "workspace {workspace:?} has {count} streams open here, and its quota is {most}; close one"
            ))
        })?;
        Ok(Some(place))
    }

    /// A place for a stream of a workspace that is known.
    pub(super) fn take_stream_place_of(&self, workspace: &str) -> Result<StreamPlace, RequestError> {
        let mut place = self.take_stream_place()?;
        place.of_workspace = self.workspace_place(workspace)?;
        Ok(place)
    }

    /// How many sandboxes a workspace may have.
    pub(super) fn max_sandboxes(&self, workspace: &str) -> Result<u32, RequestError> {
        let reader = &self.shards.of(workspace).reader;
        let own = match reader.workspace(workspace) {
            Ok(found) => reader.quotas(found.number)?.map_or(0, |quotas| quotas.max_sandboxes),
            // The machine says that there is none.
            Err(_) => 0,
        };
        let all = self.limits.max_sandboxes_per_workspace;
        Ok(if own == 0 { all } else { own.min(all) })
    }

    pub(super) async fn set_quotas_of(
        &self,
        caller: &Caller,
        workspace: &str,
        wanted: Option<WireQuotas>,
    ) -> Result<WireQuotas, RequestError> {
        if let Some(own) = &caller.identity().workspace {
            let text = format!(
                "{:?} is bound to workspace {own:?}; quotas are set by who is bound to none",
                caller.identity().subject
            );
            return Err(Rejection::new(Reason::OtherWorkspace, text).into());
        }
        let wanted = wanted.ok_or_else(|| {
            Rejection::field("quotas", "quotas is missing; send all of them, those without a limit left at 0")
        })?;
        let quotas = read(&wanted);
        let verb = caller.asks(Verb::SetQuotas(SetQuotas { workspace: workspace.to_owned(), quotas }));
        match self.shards.of(workspace).batcher.call(verb, 0).await? {
            Outcome::SetQuotas(result) => result?,
            other => return Err(RequestError::internal(format!("quotas came to {other:?}"))),
        }
        Ok(on_wire(quotas))
    }

    pub(super) async fn quotas_of(&self, workspace: &str) -> Result<WireQuotas, RequestError> {
        let shard = self.shards.of(workspace);
        shard.group.read_barrier().await?;
        let number = shard.reader.workspace(workspace)?.number;
        Ok(on_wire(shard.reader.quotas(number)?.unwrap_or_default()))
    }

    /// Whether a workspace, the sandbox that sends, the caller, and the rules of the policy by which it goes have room for one more
    /// message. What one of them has no room for takes from none.
    pub(super) fn within_quotas(
        &self,
        context: &PublishContext<'_>,
        (view, body): (&MessageView<'_>, &[u8]),
        choice: &Choice,
    ) -> Result<(), Rejection> {
        let (from, bytes) = (view.from_sandbox_id, body.len());
        let mut owners = by_rules(context, (view, body), choice);
        if let Some((quotas, workspace)) = context.quotas.as_ref().zip(context.workspace.as_ref()) {
            within_size(quotas, workspace, bytes)?;
            let own = context.name_hash;
            let subject = &context.caller.identity().subject;
            owners.extend([
                (Owner::Workspace(own), quotas.workspace),
                (Owner::Sandbox(own, keys::text_hash(from)), quotas.sandbox),
                (Owner::Caller(own, keys::text_hash(subject)), quotas.caller),
            ]);
        }
        if owners.iter().all(|(_, rate)| *rate == Rate::default()) {
            return Ok(());
        }
        self.buckets.take(context.name_hash, &owners, bytes as u64, clock::now())
    }
}

/// What has no rate.
fn within_size(quotas: &Quotas, workspace: &Workspace, bytes: usize) -> Result<(), Rejection> {
    if quotas.max_message_bytes > 0 && bytes as u64 > quotas.max_message_bytes {
        let text = format!(
            "the message has {bytes} bytes; the quota of the workspace is {}: send a reference to the content instead",
            quotas.max_message_bytes
        );
        return Err(Rejection { field: "message".into(), ..used_up(text) });
    }
    let stored = workspace.committed_bytes - workspace.trimmed_bytes;
    if quotas.max_stored_bytes > 0 && stored >= quotas.max_stored_bytes {
        let text = format!(
            "the history of the workspace has {stored} bytes; its quota is {}: shorten its retention, or raise the quota",
            quotas.max_stored_bytes
        );
        return Err(used_up(text));
    }
    Ok(())
}

/// The rates of the rules that let a message through, one for each that gets it. The machine judges it again; what it refuses or holds
/// has been counted.
fn by_rules(
    context: &PublishContext<'_>,
    (view, body): (&MessageView<'_>, &[u8]),
    choice: &Choice,
) -> Vec<(Owner, Rate)> {
    let Some(in_force) = context.rated.clone() else { return Vec::new() };
    let mut recipients = Vec::new();
    match (view.to, choice) {
        (_, Choice::One(chosen)) => recipients.push(Recipient::Sandbox(chosen)),
        (Destination::Sandbox(to), _) => recipients.push(Recipient::Sandbox(to)),
        (Destination::Topic(topic), _) => recipients.push(Recipient::Topic(topic)),
        (Destination::Capability(wanted), Choice::Several(_)) => {
            let all = context.capable.get(wanted.name).map(Capable::everybody).unwrap_or_default();
            let others = all.iter().filter(|candidate| candidate.name != view.from_sandbox_id);
            recipients.extend(others.map(|candidate| Recipient::Sandbox(&candidate.name)));
        }
        (Destination::Capability(wanted), _) => recipients.push(Recipient::Capability(wanted.name)),
        (Destination::Broadcast | Destination::Missing, _) => recipients.push(Recipient::Broadcast),
    }
    let judging = in_force.judging(view.from_sandbox_id, view.message_type as u8, body, context.now_ms);
    let (shard, from) = (context.shard.group.shard(), keys::text_hash(view.from_sandbox_id));
    let workspace = context.workspace_number();
    let rated = recipients.into_iter().filter_map(|to| judging.rate_on(to));
    rated.map(|(revision, rule, rate)| (Owner::Rule { shard, workspace, revision, rule, from }, rate)).collect()
}

fn read(quotas: &WireQuotas) -> Quotas {
    let rate = |rate: Option<WireRate>| {
        let WireRate { messages_per_second: messages, bytes_per_second: bytes } = rate.unwrap_or_default();
        Rate { messages, bytes }
    };
    Quotas {
        workspace: rate(quotas.workspace),
        sandbox: rate(quotas.sandbox),
        caller: rate(quotas.caller),
        max_stored_bytes: quotas.max_stored_bytes,
        max_message_bytes: quotas.max_message_bytes,
        max_sandboxes: quotas.max_sandboxes,
        max_streams: quotas.max_streams,
        max_connections: quotas.max_connections,
    }
}

fn on_wire(quotas: Quotas) -> WireQuotas {
    let rate = |rate: Rate| Some(WireRate { messages_per_second: rate.messages, bytes_per_second: rate.bytes });
    WireQuotas {
        workspace: rate(quotas.workspace),
        sandbox: rate(quotas.sandbox),
        caller: rate(quotas.caller),
        max_stored_bytes: quotas.max_stored_bytes,
        max_message_bytes: quotas.max_message_bytes,
        max_sandboxes: quotas.max_sandboxes,
        max_streams: quotas.max_streams,
        max_connections: quotas.max_connections,
    }
}
