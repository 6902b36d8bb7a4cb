//! Publishes messages and tries again until it knows what came of them.

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use prost::Message as _;
use tandem_proto::messaging::v1 as wire;
use tandem_raft::ProposeError;

use super::{
    clients::{Clients, PAUSE, SANDBOXES, WORKSPACES},
    draw::Draw,
    history::{Ended, Published},
    net::NodeId,
};
use crate::{
    batch::{Kind, Record},
    batcher::PublishRecords,
    clock,
    command::publish::Exception,
    error::RequestError,
};

/// How a publisher makes sure that nothing is there twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Once {
    /// Each message has an id.
    WithIds,
    /// The publisher is a producer, and messages have positions.
    AsProducer,
    /// It does not try again.
    Unrepeated,
}

/// One publisher.
pub(super) struct Publisher {
    pub(super) clients: Arc<Clients>,
    pub(super) number: usize,
    pub(super) draw: Draw,
    /// Waits between two requests, in milliseconds.
    pub(super) longest_pause_ms: u64,
}

/// A message of a request.
struct Draft {
    label: String,
    to: Option<&'static str>,
    key: u64,
    priority: u8,
    id: String,
    position: u64,
    ttl_ms: u64,
    not_before_ms: u64,
}

impl Publisher {
    /// Runs until it is told to finish.
    pub(super) async fn run(mut self) {
        let workspace = WORKSPACES[self.number % WORKSPACES.len()];
        let once = [Once::WithIds, Once::AsProducer, Once::Unrepeated][self.number % 3];
        let (mut next, mut node) = (1, None);
        while !self.clients.wishes().finish {
            let count = if self.draw.percent(70) { 1 } else { self.draw.between(2, 4) };
            let drafts: Vec<Draft> = (next..next + count).map(|number| self.draft(number, once)).collect();
            next += count;
            self.publish(workspace, once, &drafts, &mut node).await;
            tokio::time::sleep(Duration::from_millis(self.draw.below(self.longest_pause_ms + 1))).await;
        }
        self.clients.wishes.lock().publishing -= 1;
    }

    fn draft(&mut self, number: u64, once: Once) -> Draft {
        let label = format!("p{}-{number}", self.number);
        let to = (!self.draw.percent(10)).then(|| self.draw.one_of(&SANDBOXES));
        let key = if to.is_some() && self.draw.percent(30) { self.draw.between(1, 3) } else { 0 };
        let priority = if key > 0 { 5 } else { self.draw.between(3, 6) as u8 };
        let id = if once == Once::WithIds { label.clone() } else { String::new() };
        let position = if once == Once::AsProducer { number } else { 0 };
        let ttl_ms = if self.draw.percent(8) { self.draw.between(200, 3_000) } else { 0 };
        let waits = to.is_some() && key == 0 && self.draw.percent(8);
        let not_before_ms = if waits { clock::unix_ms() + self.draw.between(10, 2_000) } else { 0 };
        Draft { label, to, key, priority, id, position, ttl_ms, not_before_ms }
    }

    async fn publish(&mut self, workspace: &'static str, once: Once, drafts: &[Draft], node: &mut Option<NodeId>) {
        let (records, count) = (self.encode(drafts), drafts.len() as u32);
        let asked = self.clients.history.lock().now();
        let known = self.clients.history.lock().published.len();
        for draft in drafts {
            self.clients.history.lock().published.push(Published {
                workspace,
                label: draft.label.clone(),
                to: draft.to,
                key: draft.key,
                expires: draft.ttl_ms > 0,
                asked,
                answered: None,
                ended: Ended::Unknown,
            });
        }
        loop {
            let Some(to) = node.or_else(|| self.clients.some_node(&mut self.draw)) else {
                tokio::time::sleep(PAUSE).await;
                continue;
            };
            let records = PublishRecords { workspace: workspace.into(), count, records: records.clone() };
            let publishing = self
                .clients
                .ask(to, move |shards| async move { shards.of(workspace).batcher.publish_now(records).await });
            match publishing.await {
                Some(Ok(published)) => {
                    *node = Some(to);
                    let mut ended: Vec<Ended> =
                        (0..u64::from(count)).map(|at| Ended::Accepted(published.first_sequence + at)).collect();
                    for (at, exception) in published.exceptions {
                        ended[at as usize] = match exception {
                            Exception::Duplicate { sequence, .. } => {
                                self.clients.history.lock().repeated += 1;
                                Ended::Accepted(sequence)
                            }
                            Exception::Refused(rejection) => Ended::Refused(rejection.text),
                            // No policy is set here.
                            Exception::Held { approval } => Ended::Refused(format!("held as {approval}")),
                        };
                    }
                    let mut history = self.clients.history.lock();
                    let answered = history.now();
                    for (at, ended) in ended.into_iter().enumerate() {
                        history.published[known + at].answered = Some(answered);
                        history.published[known + at].ended = ended;
                    }
                    return;
                }
                // It did not get in.
                Some(Err(RequestError::Unavailable(ProposeError::NotLeader(hint)))) => {
                    *node = hint.filter(|hint| *hint != to && self.draw.percent(80));
                }
                Some(Err(RequestError::Rejected(_))) => *node = None,
                Some(Err(_)) | None => {
                    *node = None;
                    if once == Once::Unrepeated {
                        return;
                    }
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn encode(&self, drafts: &[Draft]) -> Bytes {
        let from = SANDBOXES[self.number % SANDBOXES.len()];
        let mut out = BytesMut::new();
        for draft in drafts {
            let content = Bytes::from(draft.label.clone());
            let body = wire::Message { content, ..Default::default() }.encode_to_vec();
            Record {
                kind: if draft.to.is_some() { Kind::Direct } else { Kind::Broadcast },
                priority: draft.priority,
                message_type: 3,
                from,
                to: draft.to.unwrap_or(""),
                id: &draft.id,
                digest: u64::from(!draft.id.is_empty()),
                ttl_ms: draft.ttl_ms,
                dead_letter_on_expiry: draft.to.is_some() && draft.ttl_ms % 2 == 1,
                not_before_ms: draft.not_before_ms,
                ordering: draft.key,
                producer: if draft.position > 0 { (self.number as u128 + 1, draft.position) } else { (0, 0) },
                body: &body,
                ..Record::default()
            }
            .encode(&mut out);
        }
        out.freeze()
    }
}
