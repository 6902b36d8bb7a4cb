//! Answers what other nodes ask.

use std::{collections::BTreeMap, io, sync::Arc, time::Duration};

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::StreamExt;
use openraft::raft::AppendEntriesRequest;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::JoinSet,
};

use super::{
    Accept, Wire, connection,
    frame::{self, Frame, FrameReader, kind},
    handshake::{self, Gate},
    lender::Lender,
    link::Links,
    question,
    refusal::RefusalCode,
    snapshot::Intake,
    wire,
};
use crate::{
    apply::Apply,
    council::Council,
    encoding::{DecodeError, take_u64},
    error::{FatalError, FatalSink},
    group::Group,
    metrics::PeerMetrics,
    throttle::Throttle,
    type_config::TypeConfig,
};

/// Appends of one stream that wait to be taken in. More than a peer sends at once; one that does is not of ours.
const QUEUED_APPENDS: usize = 256;
/// Connections that have not shown yet who they are, at once.
const MAX_STRANGERS: usize = 64;

/// What a node answers with.
pub(crate) struct PeerServer<A: Apply> {
    gate: Arc<Gate>,
    fatal: FatalSink,
    groups: Vec<Arc<Group<A>>>,
    intakes: Vec<Intake>,
    council: Arc<Council<A>>,
    lender: Arc<Lender>,
    throttle: Arc<Throttle>,
    metrics: PeerMetrics,
}

/// Takes connections in until it is dropped; they end with it. Who comes when too many are not done showing who they are is let
/// go.
pub(super) async fn take_in<F: Future<Output = ()> + Send + 'static>(
    accept: &mut dyn Accept,
    welcome: impl Fn(Box<dyn Wire>, OwnedSemaphorePermit) -> F,
) {
    let mut connections = JoinSet::new();
    let strangers = Arc::new(Semaphore::new(MAX_STRANGERS));
    loop {
        while connections.try_join_next().is_some() {}
        match accept.accept().await {
            Ok(wire) => {
                let Ok(place) = Arc::clone(&strangers).try_acquire_owned() else { continue };
                connections.spawn(welcome(wire, place));
            }
            Err(error) => {
                tracing::warn!(%error, "a connection of a peer could not be taken");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

impl<A: Apply> PeerServer<A> {
    pub(crate) fn new(
        links: Arc<Links>,
        groups: Vec<Arc<Group<A>>>,
        council: Arc<Council<A>>,
        throttle: Arc<Throttle>,
        metrics: PeerMetrics,
    ) -> Arc<Self> {
        let intakes = groups.iter().map(|_| Intake::default()).collect();
        let (gate, fatal) = (Arc::clone(&links.gate), links.fatal().clone());
        let lender = Lender::new(Arc::clone(&throttle), metrics.clone(), fatal.clone());
        Arc::new(Self { gate, fatal, groups, intakes, council, lender, throttle, metrics })
    }

    /// Serves whoever comes in, until its task is aborted.
    pub(crate) async fn run(self: Arc<Self>, mut accept: Box<dyn Accept>) {
        take_in(accept.as_mut(), |wire, place| Arc::clone(&self).welcome(wire, place)).await;
    }

    async fn welcome(self: Arc<Self>, wire: Box<dyn Wire>, place: OwnedSemaphorePermit) {
        let (read, mut write) = tokio::io::split(wire);
        let mut from = FrameReader::new(read, 0);
        let accepting = handshake::accept(&self.gate, &mut from, &mut write);
        let peer = match tokio::time::timeout(handshake::TIMEOUT, accepting).await {
            Ok(Ok(peer)) => peer.node_id,
            Ok(Err(refusal)) => {
                if refusal.code.is_definite() || refusal.code == RefusalCode::Tls {
                    tracing::warn!(code = refusal.code.code(), %refusal, "a connection was refused");
                }
                return;
            }
            Err(_) => return,
        };
        drop(place);
        let (answers, queue) = mpsc::unbounded_channel();
        let mut tasks = JoinSet::new();
        tasks.spawn(connection::write_frames(write, queue));
        let mut session = Session { server: self, answers, streams: BTreeMap::new(), tasks };
        let gate = Arc::clone(&session.server.gate);
        let mut retirement = std::pin::pin!(gate.roster.retirement(peer));
        loop {
            let next = tokio::select! {
                biased;
                // The other side pings: who says nothing for so long is gone, though nobody closed the connection.
                next = tokio::time::timeout(4 * connection::SILENCE_LIMIT, from.next()) => next,
                // It hears why when it dials again.
                () = &mut retirement => return,
            };
            let Ok(next) = next else { return };
            match next {
                Ok(Some(frame)) => {
                    if session.handle(frame).is_err() {
                        tracing::warn!(peer, "a peer sent what it must not; its connection is closed");
                        return;
                    }
                }
                Ok(None) => return,
                Err(error) => {
                    tracing::debug!(peer, %error, "a connection of a peer broke");
                    return;
                }
            }
        }
    }

    fn group(&self, shard: u32) -> Option<&Arc<Group<A>>> {
        self.groups.get(shard as usize)
    }
}

/// One connection. Everything it began ends with it.
struct Session<A: Apply> {
    server: Arc<PeerServer<A>>,
    answers: mpsc::UnboundedSender<Bytes>,
    streams: BTreeMap<u64, mpsc::Sender<AppendEntriesRequest<TypeConfig>>>,
    tasks: JoinSet<()>,
}

/// The peer does not keep to the protocol.
struct Violation;

impl<A: Apply> Session<A> {
    fn handle(&mut self, frame: Frame) -> Result<(), Violation> {
        while self.tasks.try_join_next().is_some() {}
        match frame.kind {
            kind::PING => {
                self.answers.send(frame::encode(kind::ANSWER, 0, frame.call, 0, |_| ())).ok();
                Ok(())
            }
            kind::APPEND_FIRST => {
                let group = Arc::clone(self.server.group(frame.shard).ok_or(Violation)?);
                let (sender, requests) = mpsc::channel(QUEUED_APPENDS);
                self.tasks.spawn(append(group, requests, self.answers.clone(), frame.shard, frame.call));
                self.streams.insert(frame.call, sender);
                self.append(frame)
            }
            kind::APPEND_NEXT => self.append(frame),
            kind::APPEND_END => {
                self.streams.remove(&frame.call);
                Ok(())
            }
            _ => {
                let group = Arc::clone(self.server.group(frame.shard).ok_or(Violation)?);
                let (server, answers) = (Arc::clone(&self.server), self.answers.clone());
                self.tasks.spawn(async move {
                    let (shard, call) = (frame.shard, frame.call);
                    let answer = match answer(&server, &group, frame).await {
                        Ok(body) => frame::encode(kind::ANSWER, shard, call, body.len(), |out| out.put(body)),
                        Err(text) => frame::encode(kind::FAILURE, shard, call, 64, |out| out.put(text.as_bytes())),
                    };
                    answers.send(answer).ok();
                });
                Ok(())
            }
        }
    }

    fn append(&mut self, frame: Frame) -> Result<(), Violation> {
        // A stream that has ended with an error here: what was on its way is not wanted any more.
        let Some(stream) = self.streams.get(&frame.call) else { return Ok(()) };
        let request = wire::take_append(frame.body).map_err(|error| {
            // The leader proposes only what every member has announced; so this is no version that it knows of.
            if let DecodeError::Kind(kind) = error {
                let detail = format!("the log of shard {} has an entry of kind {kind}", frame.shard);
                self.server.fatal.report(FatalError::TooOld { detail });
            }
            Violation
        })?;
        match stream.try_send(request) {
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => Ok(()),
            Err(mpsc::error::TrySendError::Full(_)) => Err(Violation),
        }
    }
}

/// Takes in the appends of one stream. An answer goes out when what it is for is on disk.
async fn append<A: Apply>(
    group: Arc<Group<A>>,
    mut requests: mpsc::Receiver<AppendEntriesRequest<TypeConfig>>,
    answers: mpsc::UnboundedSender<Bytes>,
    shard: u32,
    call: u64,
) {
    let input = futures_util::stream::poll_fn(move |context| requests.poll_recv(context));
    let mut results = std::pin::pin!(group.raft().stream_append(input));
    while let Some(result) = results.next().await {
        let answer = match result {
            Ok(result) => frame::encode(kind::ANSWER, shard, call, 64, |out| wire::put_append_result(out, &result)),
            Err(error) => frame::encode(kind::FAILURE, shard, call, 64, |out| out.put(error.to_string().as_bytes())),
        };
        answers.send(answer).ok();
    }
}

/// The answer to a question that has one.
async fn answer<A: Apply>(server: &PeerServer<A>, group: &Arc<Group<A>>, frame: Frame) -> Result<Bytes, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let mut out = BytesMut::with_capacity(64);
    match frame.kind {
        kind::VOTE | kind::PRE_VOTE => {
            let request = wire::take_vote_request(frame.body).map_err(|error| text(&error))?;
            // Who is handed the leadership is asked for by the one who gives it up.
            if !group.may_vote() && !request.leadership_transfer {
                return Err("this node has just started, and gives no vote before an old lease has ended".into());
            }
            let raft = group.raft();
            let judged = if frame.kind == kind::VOTE { raft.vote(request).await } else { raft.pre_vote(request).await };
            wire::put_vote_response(&mut out, &judged.map_err(|error| text(&error))?);
        }
        kind::TRANSFER => {
            let request = wire::take_transfer(frame.body).map_err(|error| text(&error))?;
            let taken = group.raft().handle_transfer_leader(request).await.map_err(|error| text(&error))?;
            taken.map_err(|error| text(&error))?;
        }
        kind::READ_INDEX => {
            group.leader_barrier().await.map_err(|error| text(&error))?;
            out.put_u64(group.status().applied_index);
        }
        kind::STANDING => group.standing().put(&mut out),
        kind::ROLL => out.put(server.gate.roster.roll_for_a_newcomer().encode()),
        kind::CHANGE => {
            let change = question::take_change(frame.body).map_err(|error| text(&error))?;
            let changed = server.council.decide(&change).await;
            question::put_changed(&mut out, &changed);
        }
        kind::DIGEST_BEGIN => {
            out.put_u64(group.propose_digest().await.map_err(|error| text(&error))?);
        }
        kind::DIGEST => {
            let index = take_u64(&mut frame.body.clone()).map_err(|error| text(&error))?;
            group.digest_at(index).put(&mut out);
        }
        kind::LEND => {
            let at_least = take_u64(&mut frame.body.clone()).map_err(|error| text(&error))?;
            server.lender.lend(group, at_least, &mut out).await?;
        }
        kind::LEND_PIECE => out.put(server.lender.piece(frame.body).await.map_err(|error| text(&error))?),
        kind::LEND_DAMAGED => {
            let (loan, place) = wire::take_file(frame.body).map_err(|error| text(&error))?;
            server.lender.judge(loan, place, group.home()).await.map_err(|error| text(&error))?;
        }
        kind::SNAPSHOT_BEGIN | kind::SNAPSHOT_FILE | kind::SNAPSHOT_PIECE | kind::SNAPSHOT_END => {
            receive(server, group, frame, &mut out).await.map_err(|error| text(&error))?;
        }
        other => return Err(format!("questions of kind {other} are unknown to this version")),
    }
    Ok(out.freeze())
}

/// What comes of a snapshot.
async fn receive<A: Apply>(
    server: &PeerServer<A>,
    group: &Arc<Group<A>>,
    frame: Frame,
    out: &mut BytesMut,
) -> io::Result<()> {
    let intake = &server.intakes[frame.shard as usize];
    let garbled = |error: DecodeError| io::Error::new(io::ErrorKind::InvalidData, error.to_string());
    match frame.kind {
        kind::SNAPSHOT_BEGIN => {
            let (vote, contents) = wire::take_offer(frame.body).map_err(garbled)?;
            out.put_u64(crate::blocking::in_place(|| intake.begin(vote, contents, group))?);
        }
        kind::SNAPSHOT_FILE => {
            let (transfer, place) = wire::take_file(frame.body).map_err(garbled)?;
            out.put_u64(crate::blocking::in_place(|| intake.file(transfer, place))?);
        }
        kind::SNAPSHOT_PIECE => {
            let piece = wire::take_piece(frame.body).map_err(garbled)?;
            out.put_u64(crate::blocking::in_place(|| intake.piece(&piece))?);
            server.metrics.snapshot_received(piece.bytes.len());
        }
        _ => {
            let (transfer, hurried) = wire::take_end(frame.body).map_err(garbled)?;
            let pace = if hurried { None } else { server.throttle.for_verifying() };
            wire::put_installed(out, &intake.end(transfer, group, pace).await?);
        }
    }
    Ok(())
}
