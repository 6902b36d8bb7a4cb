//! A connection that this node dialed: questions go out, answers come back, in any order of questions.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    sync::{mpsc, oneshot, watch},
};

use super::{
    Introduction,
    frame::{self, Frame, FrameReader, kind},
};

/// Time between two pings.
const PING_INTERVAL: Duration = Duration::from_millis(500);
/// A connection on which nothing came for this long is given up: a cut network says nothing, and the next one that is dialed
/// does not wait for the resends of the old.
pub(super) const SILENCE_LIMIT: Duration = Duration::from_secs(3);
/// Frames are gathered up to this size before they are written.
const WRITE_BYTES: usize = 256 << 10;

/// Why a question has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CallError {
    /// The connection ended before the answer.
    #[error("the connection ended")]
    Closed,
    /// The other side answered with an error.
    #[error("{0}")]
    Failed(String),
    /// The answer is not what it should be.
    #[error("an answer that cannot be read")]
    Garbled,
    /// No answer in time.
    #[error("no answer within {} ms", .0.as_millis())]
    Timeout(Duration),
}

/// Who waits for answers.
enum Waiting {
    Once(oneshot::Sender<Frame>),
    Many(mpsc::UnboundedSender<Frame>),
}

/// An open connection to a peer. Frames of one caller are sent in the order of its calls.
pub(crate) struct Connection {
    pub(crate) peer: Introduction,
    frames: mpsc::UnboundedSender<Bytes>,
    /// None once the connection has ended.
    waiting: Mutex<Option<BTreeMap<u64, Waiting>>>,
    next_call: AtomicU64,
    closed: watch::Sender<bool>,
}

impl Connection {
    /// Takes over a connection after its handshake. It ends when either side closes it, or says nothing for too long.
    pub(super) fn start<R, W>(peer: Introduction, from: FrameReader<R>, to: W) -> Arc<Self>
    where
        R: AsyncRead + Send + Unpin + 'static,
        W: AsyncWrite + Send + Unpin + 'static,
    {
        let (frames, queue) = mpsc::unbounded_channel();
        let connection = Arc::new(Self {
            peer,
            frames,
            waiting: Mutex::new(Some(BTreeMap::new())),
            next_call: AtomicU64::new(1),
            closed: watch::Sender::new(false),
        });
        tokio::spawn(run(Arc::clone(&connection), from, to, queue));
        connection
    }

    /// Asks, and waits for the answer.
    pub(crate) async fn call(
        &self,
        kind: u8,
        shard: u32,
        timeout: Duration,
        body: impl FnOnce(&mut BytesMut),
    ) -> Result<Bytes, CallError> {
        let call = self.next_call.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = oneshot::channel();
        self.expect(call, Waiting::Once(sender))?;
        let forget = Forget { connection: self, call };
        self.send(frame::encode(kind, shard, call, 256, body));
        let answer = tokio::time::timeout(timeout, answer).await.map_err(|_| CallError::Timeout(timeout))?;
        drop(forget);
        answer.map_err(|_| CallError::Closed).and_then(checked)
    }

    /// Opens a stream of questions with answers in their order.
    pub(crate) fn open(self: &Arc<Self>, shard: u32) -> Result<Exchange, CallError> {
        let call = self.next_call.fetch_add(1, Ordering::Relaxed);
        let (sender, answers) = mpsc::unbounded_channel();
        self.expect(call, Waiting::Many(sender))?;
        Ok(Exchange { connection: Arc::clone(self), shard, call, answers, begun: false })
    }

    /// Resolves when the connection has ended.
    pub(crate) async fn closed(&self) {
        let mut closed = self.closed.subscribe();
        while !*closed.borrow_and_update() && closed.changed().await.is_ok() {}
    }

    /// Ends the connection.
    pub(crate) fn close(&self) {
        self.closed.send_replace(true);
    }

    fn expect(&self, call: u64, waiting: Waiting) -> Result<(), CallError> {
        let mut table = self.waiting.lock();
        table.as_mut().ok_or(CallError::Closed)?.insert(call, waiting);
        Ok(())
    }

    /// What cannot be sent any more has nobody to wait for its answer either.
    fn send(&self, frame: Bytes) {
        self.frames.send(frame).ok();
    }

    fn answered(&self, frame: Frame) {
        let mut table = self.waiting.lock();
        let Some(table) = table.as_mut() else { return };
        match table.get(&frame.call) {
            Some(Waiting::Many(sender)) => drop(sender.send(frame)),
            Some(Waiting::Once(_)) => {
                if let Some(Waiting::Once(sender)) = table.remove(&frame.call) {
                    sender.send(frame).ok();
                }
            }
            None => {}
        }
    }
}

fn checked(frame: Frame) -> Result<Bytes, CallError> {
    match frame.kind {
        kind::ANSWER => Ok(frame.body),
        kind::FAILURE => Err(CallError::Failed(String::from_utf8_lossy(&frame.body).into_owned())),
        _ => Err(CallError::Garbled),
    }
}

struct Forget<'a> {
    connection: &'a Connection,
    call: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        if let Some(table) = self.connection.waiting.lock().as_mut() {
            table.remove(&self.call);
        }
    }
}

/// A stream of questions. Dropping it ends it on both sides.
pub(crate) struct Exchange {
    connection: Arc<Connection>,
    shard: u32,
    call: u64,
    answers: mpsc::UnboundedReceiver<Frame>,
    begun: bool,
}

impl Exchange {
    /// Sends the next question. Returns how many bytes that took.
    pub(crate) fn ask(&mut self, capacity: usize, body: impl FnOnce(&mut BytesMut)) -> usize {
        let kind = if self.begun { kind::APPEND_NEXT } else { kind::APPEND_FIRST };
        self.begun = true;
        let frame = frame::encode(kind, self.shard, self.call, capacity, body);
        let bytes = frame.len();
        self.connection.send(frame);
        bytes
    }

    /// The next answer. Safe to cancel.
    pub(crate) async fn answer(&mut self) -> Result<Bytes, CallError> {
        self.answers.recv().await.ok_or(CallError::Closed).and_then(checked)
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        drop(Forget { connection: &self.connection, call: self.call });
        if self.begun {
            self.connection.send(frame::encode(kind::APPEND_END, self.shard, self.call, 0, |_| ()));
        }
    }
}

async fn run<R, W>(connection: Arc<Connection>, from: FrameReader<R>, to: W, queue: mpsc::UnboundedReceiver<Bytes>)
where
    R: AsyncRead + Send + Unpin + 'static,
    W: AsyncWrite + Send + Unpin + 'static,
{
    let writer = tokio::spawn(write_frames(to, queue));
    tokio::select! {
        biased;
        () = read_answers(&connection, from) => {}
        () = connection.closed() => {}
    }
    writer.abort();
    // Whoever waits for an answer hears that none will come.
    connection.waiting.lock().take();
    connection.closed.send_replace(true);
}

async fn read_answers<R: AsyncRead + Unpin>(connection: &Connection, mut from: FrameReader<R>) {
    let mut pings = tokio::time::interval(PING_INTERVAL);
    pings.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut silent_for = Duration::ZERO;
    loop {
        tokio::select! {
            biased;
            frame = from.next() => match frame {
                Ok(Some(frame)) => {
                    silent_for = Duration::ZERO;
                    connection.answered(frame);
                }
                Ok(None) => return,
                Err(error) => {
                    tracing::debug!(node = connection.peer.node_id, %error, "a connection to a peer broke");
                    return;
                }
            },
            _ = pings.tick() => {
                if silent_for >= SILENCE_LIMIT {
                    tracing::info!(node = connection.peer.node_id, "a peer says nothing; its connection is given up");
                    return;
                }
                silent_for += PING_INTERVAL;
                connection.send(frame::encode(kind::PING, 0, 0, 0, |_| ()));
            }
        }
    }
}

/// Writes what is queued, as much as there is at once.
pub(super) async fn write_frames<W: AsyncWrite + Unpin>(mut to: W, mut queue: mpsc::UnboundedReceiver<Bytes>) {
    let mut gathered = BytesMut::new();
    while let Some(first) = queue.recv().await {
        if first.len() >= WRITE_BYTES {
            if to.write_all(&first).await.is_err() || to.flush().await.is_err() {
                return;
            }
            continue;
        }
        gathered.clear();
        gathered.extend_from_slice(&first);
        while gathered.len() < WRITE_BYTES
            && let Ok(next) = queue.try_recv()
        {
            gathered.extend_from_slice(&next);
        }
        // The reader of the connection notices, too, and ends it.
        if to.write_all(&gathered).await.is_err() || to.flush().await.is_err() {
            return;
        }
        if gathered.capacity() > 4 * WRITE_BYTES {
            gathered = BytesMut::new();
        }
    }
}
