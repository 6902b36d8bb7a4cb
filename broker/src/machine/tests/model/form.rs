//! From a step to the verb that the edge would propose, and what the model does for it.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use prost::Message as _;
use tandem_proto::messaging::v1 as wire;

use super::{
    drive::{Run, agree},
    inbox::Chosen,
    publish::Answer,
    state::*,
    step::{Act, Address, Draft, Letters},
};
use crate::{
    batch::{self, Kind, MessageRef, Record},
    command::{self, Verb, create_workspace::Settings, register_sandbox::InboxSettings},
};

pub(super) const SANDBOXES: [&str; 5] = ["a", "b", "c", "d", "e"];
pub(super) const TOPICS: [&str; 4] = ["x.a", "x.b", "y", "x.a.b"];
const PATTERNS: [&str; 5] = ["x.*", "x.>", "y", "x.a", ">"];
pub(super) const MAIN: &str = "w";
const OTHER: &str = "v";
const CAPABILITY: &str = "build";

/// What the model does for a verb.
pub(super) type Op = Box<dyn FnOnce(&mut Model, &dyn Chosen) -> Result<Answer, String>>;

fn name(other: bool) -> &'static str {
    if other { OTHER } else { MAIN }
}

fn op(act: impl FnOnce(&mut Model) -> Answer + 'static) -> Op {
    Box::new(|model, _| Ok(act(model)))
}

fn settings(choice: usize) -> InboxSettings {
    match choice {
        0 => InboxSettings::default(),
        1 => InboxSettings { max_attempts: 2, initial_backoff_ms: 10, max_backoff_ms: 100, ..Default::default() },
        _ => InboxSettings {
            max_attempts: 3,
            initial_backoff_ms: 700,
            max_messages: 4,
            max_bytes: 400,
            ..Default::default()
        },
    }
}

impl Run {
    /// The verb of an act that clients cause; none for one that has none now.
    pub(super) fn form(&self, act: &Act) -> Option<(Verb, Op)> {
        let workspace = MAIN.to_owned();
        let named = |sandbox: usize| SANDBOXES[sandbox].to_owned();
        Some(match *act {
            Act::CreateWorkspace { other } | Act::UpdateWorkspace { other, .. } | Act::DeleteWorkspace { other } => {
                workspaces(act, name(other))
            }
            Act::Register { other, sandbox, settings: choice, capable } => {
                register(name(other), SANDBOXES[sandbox], settings(choice), capable)
            }
            Act::Unregister { other, sandbox } => {
                let (workspace, sandbox) = (name(other), SANDBOXES[sandbox]);
                let verb = command::UnregisterSandbox { workspace: workspace.into(), sandbox: sandbox.into() };
                let op = op(move |model| model.within(workspace, |there, now| there.unregister(now, sandbox)));
                (Verb::UnregisterSandbox(verb), op)
            }
            Act::Heartbeat { sandbox } => {
                let name = SANDBOXES[sandbox];
                let op = op(move |model| model.within(MAIN, |there, now| there.hear(now, there.number_of(name))));
                (Verb::Heartbeat(command::Heartbeat { workspace, sandbox: name.into() }), op)
            }
            Act::Alive { sandbox } => {
                let (workspace, number) = self.numbers(SANDBOXES[sandbox])?;
                let op = op(move |model| {
                    let now = model.now;
                    model.numbered(workspace).map(|there| there.hear(now, Some(number)));
                    Answer::Done
                });
                (Verb::Alive(command::Alive { sandboxes: vec![(workspace, number)] }), op)
            }
            Act::Publish { other, ref drafts } => self.publish(name(other), drafts),
            Act::CreateTopic { topic } => {
                let verb = command::CreateTopic { workspace, topic: TOPICS[topic].into(), max_topics: MAX_TOPICS };
                let op = op(move |model| model.within(MAIN, |there, now| there.create_topic(now, TOPICS[topic])));
                (Verb::CreateTopic(verb), op)
            }
            Act::DeleteTopic { topic } => {
                let op = op(move |model| model.within(MAIN, |there, _| there.delete_topic(TOPICS[topic])));
                (Verb::DeleteTopic(command::DeleteTopic { workspace, topic: TOPICS[topic].into() }), op)
            }
            Act::Follow { sandbox, pattern, back } => {
                let last = self.model.workspaces.get(MAIN).map_or(0, |workspace| workspace.last);
                // Back from a little in the future.
                let from_sequence = back.map(|back| (last + 3).saturating_sub(back));
                let (name, pattern) = (SANDBOXES[sandbox], PATTERNS[pattern]);
                let verb = command::FollowTopics {
                    workspace,
                    sandbox: name.into(),
                    pattern: pattern.into(),
                    from_sequence,
                    max_follows: MAX_FOLLOWS,
                };
                let op = op(move |model| model.within(MAIN, |there, _| there.follow(name, pattern, from_sequence)));
                (Verb::FollowTopics(verb), op)
            }
            Act::Unfollow { sandbox, pattern } => {
                let (name, pattern) = (SANDBOXES[sandbox], PATTERNS[pattern]);
                let verb = command::UnfollowTopics { workspace, sandbox: name.into(), pattern: pattern.into() };
                let op = op(move |model| model.within(MAIN, |there, _| there.unfollow(name, pattern)));
                (Verb::UnfollowTopics(verb), op)
            }
            Act::Redrive { ref letters, to } => {
                let dead_letters = self.letters(letters);
                let to_sandbox = to.map(named).unwrap_or_default();
                let (places, to) = (dead_letters.clone(), to_sandbox.clone());
                let op = op(move |model| model.within(MAIN, |there, now| there.redrive(now, &places, &to)));
                (Verb::Redrive(command::Redrive { workspace, dead_letters, to_sandbox }), op)
            }
            Act::Purge { ref letters } => {
                let dead_letters = self.letters(letters);
                let places = dead_letters.clone();
                let op = op(move |model| model.within(MAIN, |there, _| there.purge(&places)));
                (Verb::Purge(command::Purge { workspace, dead_letters }), op)
            }
            Act::Replay { sandbox, back, count } => self.replay(SANDBOXES[sandbox], back, count)?,
            Act::Answered { at } => self.answered(at)?,
            _ => return None,
        })
    }

    /// The numbers of a sandbox of the main workspace.
    pub(super) fn numbers(&self, sandbox: &str) -> Option<(u32, u32)> {
        let workspace = self.model.workspaces.get(MAIN)?;
        Some((workspace.number, workspace.number_of(sandbox)?))
    }

    fn letters(&self, which: &Letters) -> Vec<(u32, u64)> {
        let Some(workspace) = self.model.workspaces.get(MAIN) else { return Vec::new() };
        let all = workspace.dead.iter();
        match which {
            Letters::All => all.map(|(place, _)| *place).collect(),
            Letters::One(at) => all.map(|(place, _)| *place).cycle().nth(*at).into_iter().collect(),
            Letters::Of(at) => {
                all.filter(|(_, letter)| letter.sandbox == SANDBOXES[*at]).map(|(place, _)| *place).collect()
            }
            Letters::Nobodys => vec![(99, 1), (1, 10_000)],
        }
    }

    fn replay(&self, sandbox: &'static str, back: u64, count: u64) -> Option<(Verb, Op)> {
        let workspace = self.model.workspaces.get(MAIN)?;
        let from = workspace.last.saturating_sub(back);
        let record = self.shard.reader.workspace(MAIN).ok()?;
        let lanes = self.shard.reader.lanes(&record, sandbox).ok();
        let there = workspace.sandboxes.values().find(|there| there.name == sandbox);
        let (mut told, mut expected, mut sequences, mut messages) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for sequence in workspace.log.range(from..).map(|(at, _)| *at).take(count as usize) {
            let batch = Arc::new(self.shard.reader.batch_holding(workspace.number, sequence).unwrap().unwrap());
            let message = MessageRef { index: (sequence - batch.first_sequence) as u16, batch };
            told.push(lanes.as_ref().is_some_and(|lanes| lanes.hold(&message).unwrap()));
            let waiting = there.iter().flat_map(|there| &there.inbox).filter(|one| one.message.sequence == sequence);
            expected.push(waiting.filter(|one| one.in_lane(sandbox)).count() > 0);
            if expected.last() == Some(&false) {
                messages.push((sequence, message.batch.alone(usize::from(message.index))));
                sequences.push(sequence);
            }
        }
        let verb = command::Replay { workspace: MAIN.into(), sandbox: sandbox.into(), messages };
        let op: Op = Box::new(move |model, _| {
            agree("what waits already", told, expected)?;
            Ok(model.within(MAIN, |there, now| there.replay(now, sandbox, &sequences)))
        });
        Some((Verb::Replay(verb), op))
    }

    /// A response has reached the caller that waited for it.
    fn answered(&self, at: usize) -> Option<(Verb, Op)> {
        let workspace = self.model.workspaces.get(MAIN)?;
        let all = workspace.sandboxes.values().flat_map(|sandbox| {
            let there = sandbox.requests.iter().filter(|(_, request)| request.response.is_some());
            there.map(|(correlation, _)| (sandbox.number, *correlation))
        });
        let (sandbox, correlation) = all.collect::<Vec<_>>().get(at).copied()?;
        let number = workspace.number;
        let verb = command::Answered { workspace: number, sandbox, correlation };
        let op = op(move |model| {
            let sandbox = model.numbered(number).and_then(|there| there.sandboxes.get_mut(&sandbox));
            if let Some(request) = sandbox.and_then(|sandbox| sandbox.requests.get_mut(&correlation)) {
                request.answered = true;
            }
            Answer::Done
        });
        Some((Verb::Answered(verb), op))
    }

    fn publish(&self, workspace: &'static str, drafts: &[Draft]) -> (Verb, Op) {
        let mut messages = Vec::new();
        for draft in drafts {
            let message = self.message(workspace, draft);
            messages.push(message);
        }
        let mut batch = BytesMut::new();
        batch::encode_header(self.time, messages.len() as u32, &mut batch);
        messages.iter().for_each(|message| encode(message, &mut batch));
        let verb = command::Publish { workspace: workspace.into(), batch: batch.freeze() };
        (Verb::Publish(verb), op(move |model| model.publish(workspace, messages)))
    }

    /// What the edge makes of a draft.
    fn message(&self, workspace: &str, draft: &Draft) -> Message {
        let there = self.model.workspaces.get(workspace);
        let to = match draft.to {
            Address::Sandbox(at) => To::Sandbox(SANDBOXES[at].into()),
            Address::Broadcast => To::Broadcast,
            Address::Topic(at) => To::Topic(TOPICS[at].into()),
            Address::Capable => {
                let able = there
                    .iter()
                    .flat_map(|there| there.sandboxes.values())
                    .filter(|sandbox| !sandbox.capabilities.is_empty() && sandbox.name != SANDBOXES[draft.from]);
                To::Several(able.map(|sandbox| sandbox.number).collect())
            }
        };
        let addressed = matches!(to, To::Sandbox(_) | To::Several(_));
        let asks = matches!(draft.kind, 1 | 4);
        let can_wait = asks && matches!(to, To::Sandbox(_)) && draft.correlation.is_some();
        let reply_timeout = draft.reply_timeout_s.filter(|_| can_wait).map_or(0, |seconds| seconds * 1_000);
        let producer = draft.producer.map_or((0, 0), |(producer, offset)| {
            let hash = u128::from(producer) + 1;
            let last = there.and_then(|there| there.producers.get(&hash)).map_or(0, |known| known.value.last);
            (hash, (last + 1).saturating_add_signed(offset))
        });
        let id = draft.id.map(|id| format!("m{id}")).unwrap_or_default();
        let digest = if id.is_empty() && reply_timeout == 0 { 0 } else { u64::from(draft.size / 4) + 1 };
        let body = wire::Message {
            correlation_id: draft.correlation.map(|id| format!("c{id}")).unwrap_or_default(),
            content: Bytes::from(vec![b'x'; usize::from(draft.size) * 8 + 1]),
            ..Default::default()
        };
        Message {
            from: SANDBOXES[draft.from].into(),
            // Priorities do not mix within a key: which of them would be first is nowhere promised.
            priority: draft.key.map_or(draft.priority, |key| 2 + key),
            kind: draft.kind,
            id,
            digest,
            ttl: draft.ttl_s.map_or(0, |seconds| seconds * 1_000),
            not_before: draft.delay_ms.filter(|_| addressed).map_or(0, |delay| self.time + delay),
            key: draft.key.map_or(0, |key| u64::from(key) + 1),
            correlation: draft.correlation.map_or(0, |id| u128::from(id) + 1),
            producer,
            requires_response: (draft.requires_response && asks) || reply_timeout > 0,
            dead_letter_on_expiry: draft.dead_letter_on_expiry && addressed,
            reply_timeout,
            body: body.encode_to_vec().into(),
            to,
            ..Message::default()
        }
    }
}

fn workspaces(act: &Act, name: &'static str) -> (Verb, Op) {
    let workspace = name.to_owned();
    let hops = |max_hops: u8| Settings { max_hops, ..Settings::default() };
    match *act {
        Act::UpdateWorkspace { max_hops, .. } => (
            Verb::UpdateWorkspace(command::UpdateWorkspace { workspace, settings: hops(max_hops) }),
            op(move |model| model.update(name, hops(max_hops))),
        ),
        Act::DeleteWorkspace { .. } => {
            (Verb::DeleteWorkspace(command::DeleteWorkspace { workspace }), op(move |model| model.delete(name)))
        }
        _ => {
            let settings = hops(2);
            let verb = command::CreateWorkspace { workspace, max_workspaces: MAX_WORKSPACES, settings };
            (Verb::CreateWorkspace(verb), op(move |model| model.create(name, settings)))
        }
    }
}

fn register(workspace: &'static str, sandbox: &'static str, settings: InboxSettings, capable: bool) -> (Verb, Op) {
    let capabilities: Vec<String> = if capable { vec![CAPABILITY.into()] } else { Vec::new() };
    let verb = command::RegisterSandbox {
        workspace: workspace.into(),
        sandbox: sandbox.into(),
        description: Bytes::from_static(b"d"),
        max_sandboxes: MAX_SANDBOXES,
        settings,
        capabilities: capabilities.clone(),
        heartbeat_timeout_ms: HEARTBEAT_MS,
    };
    let op =
        op(move |model| model.within(workspace, |there, now| there.register(now, sandbox, settings, &capabilities)));
    (Verb::RegisterSandbox(verb), op)
}

/// As the edge writes it into a batch.
fn encode(message: &Message, out: &mut BytesMut) {
    let mut recipients = Vec::new();
    let (kind, to) = match &message.to {
        To::Sandbox(name) => (Kind::Direct, name.as_str()),
        To::Topic(name) => (Kind::Topic, name.as_str()),
        To::Broadcast => (Kind::Broadcast, ""),
        To::Several(numbers) => {
            recipients.extend(numbers.iter().flat_map(|number| number.to_be_bytes()));
            (Kind::Several, "")
        }
    };
    Record {
        kind,
        priority: message.priority,
        message_type: message.kind,
        hops: 0,
        requires_response: message.requires_response,
        dead_letter_on_expiry: message.dead_letter_on_expiry,
        from: &message.from,
        to,
        id: &message.id,
        digest: message.digest,
        ttl_ms: message.ttl,
        not_before_ms: message.not_before,
        ordering: message.key,
        correlation: message.correlation,
        producer: message.producer,
        reply_timeout_ms: message.reply_timeout,
        recipients: &recipients,
        body: &message.body,
    }
    .encode(out);
}
