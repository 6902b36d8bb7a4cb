//! How openraft asks other nodes.

use std::{collections::VecDeque, io, sync::Arc, time::Duration};

use futures_util::{Stream, StreamExt};
use openraft::{
    OptionalSend, RaftNetworkFactory, RaftNetworkV2,
    base::{BoxFuture, BoxStream},
    entry::RaftEntry,
    errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable},
    impls::BasicNode,
    network::{Backoff, RPCOption},
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendError, StreamAppendResult,
        TransferLeaderRequest, VoteRequest, VoteResponse,
    },
};

use super::{
    connection::{CallError, Connection, Exchange},
    frame::kind,
    link::Links,
    snapshot, wire,
};
use crate::{
    clock,
    lease::Contacts,
    metrics::PeerMetrics,
    simulation::Planted,
    snapshot::{Snapshot, SnapshotDir},
    state_home::StateHome,
    throttle::Throttle,
    transfers::Transfers,
    type_config::{TypeConfig, Vote},
};

type TransferLeaderResponse = openraft::raft::TransferLeaderResponse<TypeConfig>;

/// Appends of one stream that wait for their answer.
const WINDOW_APPENDS: usize = 64;
/// The same in bytes.
const WINDOW_BYTES: usize = 16 << 20;
/// A stream of appends without an answer for this long is begun anew. Far beyond a heartbeat: a follower may write for
/// seconds, and a bound derived from heartbeats has wedged others' followers for good.
const STALL_LIMIT: Duration = Duration::from_secs(10);
/// Waits before a peer is asked again that could not be reached; its connection is dialed independently of this.
const BACKOFF_MS: [u64; 4] = [20, 50, 100, 200];

/// The way of one shard to other nodes.
#[derive(Clone)]
pub(crate) struct PeerNetwork {
    pub(crate) shard: u32,
    /// None on a node that is alone.
    pub(crate) links: Option<Arc<Links>>,
    pub(crate) metrics: PeerMetrics,
    /// Who follows, and when it was asked what it said so to.
    pub(crate) contacts: Arc<Contacts>,
    /// Snapshots that are being sent, and what is kept for their receivers.
    pub(crate) transfers: Transfers,
    /// Where they lie.
    pub(crate) home: StateHome,
    /// Limits how fast; shared by all shards.
    pub(crate) throttle: Arc<Throttle>,
    /// Only in a simulation.
    pub(crate) planted: Option<Planted>,
}

/// The way of one shard to one node.
pub(crate) struct Peer {
    network: PeerNetwork,
    node_id: u64,
}

impl RaftNetworkFactory<TypeConfig> for PeerNetwork {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, _node: &BasicNode) -> Peer {
        Peer { network: self.clone(), node_id: target }
    }
}

impl Peer {
    fn connection(&self) -> Result<Arc<Connection>, Unreachable<TypeConfig>> {
        let connection = self.network.links.as_ref().and_then(|links| links.connection(self.node_id));
        connection.ok_or_else(|| {
            let text = format!("node {} is not connected", self.node_id);
            Unreachable::new(&io::Error::new(io::ErrorKind::NotConnected, text))
        })
    }
}

fn failed(error: &CallError) -> RPCError<TypeConfig> {
    match error {
        CallError::Closed => RPCError::Unreachable(Unreachable::new(error)),
        _ => RPCError::Network(NetworkError::new(error)),
    }
}

fn garbled<E>(_: E) -> RPCError<TypeConfig> {
    failed(&CallError::Garbled)
}

impl RaftNetworkV2<TypeConfig> for Peer {
    type SnapshotData = SnapshotDir;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        let input = Box::pin(futures_util::stream::once(async move { rpc }));
        let mut answers = self.stream_append(input, option).await?;
        match answers.next().await {
            Some(answer) => answer.map(AppendEntriesResponse::from),
            None => Err(failed(&CallError::Closed)),
        }
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        _option: RPCOption,
    ) -> BoxFuture<
        's,
        Result<BoxStream<'s, Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>>, RPCError<TypeConfig>>,
    >
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        Box::pin(async move {
            let mut input = input;
            // openraft waits out its backoff where requests are asked for, and only there: without asking, a leader would try
            // a peer that is away again and again without a pause.
            let first = match self.connection() {
                Ok(_) => None,
                Err(_) => input.next().await,
            };
            let input = futures_util::stream::iter(first).chain(input);
            let exchange = self.connection()?.open(self.network.shard).map_err(|error| failed(&error))?;
            let (node_id, network) = (self.node_id, self.network.clone());
            let waiting = VecDeque::new();
            let pipeline = Pipeline { node_id, network, input, exchange, waiting, bytes: 0, drained: false };
            let answers = futures_util::stream::unfold(Some(pipeline), |pipeline| async {
                let mut pipeline = pipeline?;
                let answer = pipeline.next().await?;
                let goes_on = matches!(answer, Ok(Ok(_)));
                Some((answer, goes_on.then_some(pipeline)))
            });
            Ok(Box::pin(answers) as BoxStream<'s, _>)
        })
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.ask_for_vote(kind::VOTE, &rpc, &option).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.ask_for_vote(kind::PRE_VOTE, &rpc, &option).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let connection = self.connection()?;
        let Some(links) = &self.network.links else { return Err(Unreachable::new(&CallError::Closed).into()) };
        let ticket = self.network.transfers.begin(self.node_id, &snapshot);
        let sending = snapshot::Sending {
            connection: &connection,
            shard: self.network.shard,
            snapshot: &snapshot,
            ticket: &ticket,
            throttle: &self.network.throttle,
            metrics: &self.network.metrics,
            home: &self.network.home,
            fatal: links.fatal(),
        };
        tokio::select! {
            biased;
            closed = cancel => Err(closed.into()),
            () = ticket.overtaken() => Err(Unreachable::new(&CallError::Failed("overtaken by the log".into())).into()),
            sent = sending.run(&vote) => match sent {
                Ok(vote) => Ok(SnapshotResponse::new(vote)),
                Err(CallError::Closed) => Err(Unreachable::new(&CallError::Closed).into()),
                Err(error) => {
                    tracing::warn!(shard = self.network.shard, node = self.node_id, %error, "a snapshot was not sent");
                    Err(Unreachable::new(&error).into())
                }
            },
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse, RPCError<TypeConfig>> {
        let connection = self.connection()?;
        let put = |out: &mut bytes::BytesMut| wire::put_transfer(out, &request);
        let asked = connection.call(kind::TRANSFER, self.network.shard, option.soft_ttl(), put).await;
        asked.map(|_| Ok(())).map_err(|error| failed(&error))
    }

    fn backoff(&self) -> Option<Backoff> {
        let last = BACKOFF_MS[BACKOFF_MS.len() - 1];
        Some(Backoff::new(BACKOFF_MS.into_iter().chain(std::iter::repeat(last)).map(Duration::from_millis)))
    }
}

impl Peer {
    async fn ask_for_vote(
        &self,
        kind: u8,
        request: &VoteRequest<TypeConfig>,
        option: &RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let connection = self.connection()?;
        let put = |out: &mut bytes::BytesMut| wire::put_vote_request(out, request);
        let answer = connection.call(kind, self.network.shard, option.soft_ttl(), put).await;
        wire::take_vote_response(answer.map_err(|error| failed(&error))?).map_err(garbled)
    }
}

/// Appends under way: sent as they come, answered in order.
struct Pipeline<S> {
    node_id: u64,
    network: PeerNetwork,
    input: S,
    exchange: Exchange,
    waiting: VecDeque<Sent>,
    bytes: usize,
    /// No more come.
    drained: bool,
}

/// An append that waits for its answer.
struct Sent {
    at: tokio::time::Instant,
    bytes: usize,
    /// In which its sender leads.
    term: u64,
}

impl<S> Pipeline<S>
where
    S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Unpin,
{
    /// The next answer; None after the last.
    async fn next(&mut self) -> Option<Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>> {
        loop {
            if self.drained && self.waiting.is_empty() {
                return None;
            }
            let room = !self.drained && self.waiting.len() < WINDOW_APPENDS && self.bytes < WINDOW_BYTES;
            tokio::select! {
                biased;
                answer = self.exchange.answer(), if !self.waiting.is_empty() => return Some(self.answered(answer)),
                request = self.input.next(), if room => match request {
                    Some(request) => {
                        let capacity = wire::append_capacity(&request);
                        // Before it goes: a follower's promise counts from when it was asked for.
                        let at = clock::timer_now();
                        let bytes = self.exchange.ask(capacity, |out| wire::put_append(out, &request));
                        if self.network.planted == Some(Planted::AcknowledgedBeforeQuorum) {
                            let last = request.entries.last().map(RaftEntry::log_id);
                            return Some(Ok(Ok(last.or(request.prev_log_id))));
                        }
                        self.network.metrics.sent(bytes);
                        self.waiting.push_back(Sent { at, bytes, term: request.vote.leader_id.term });
                        self.bytes += bytes;
                    }
                    None => self.drained = true,
                },
                () = tokio::time::sleep(STALL_LIMIT), if !self.waiting.is_empty() => {
                    return Some(Err(failed(&CallError::Timeout(STALL_LIMIT))));
                }
            }
        }
    }

    fn answered(
        &mut self,
        answer: Result<bytes::Bytes, CallError>,
    ) -> Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>> {
        let sent = self.waiting.pop_front();
        let result = wire::take_append_result(answer.map_err(|error| failed(&error))?).map_err(garbled)?;
        if let Some(sent) = sent {
            self.network.metrics.answered(sent.at.elapsed());
            self.bytes -= sent.bytes;
            // Who has another log follows all the same.
            if !matches!(result, Err(StreamAppendError::HigherVote(_))) {
                self.network.contacts.answered(self.node_id, sent.term, sent.at);
            }
        }
        Ok(result)
    }
}
