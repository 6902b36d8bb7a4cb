//! Wires between nodes: bytes in order, after a delay, as long as the way is open.
//!
//! As with TCP, a way that is cut holds bytes back until it is open again, a process that ends closes its connections, and a
//! machine that loses power says nothing.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::{Buf, Bytes};
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tandem_raft::{Accept, Dial, Wire};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::mpsc,
};

use super::draw::Draw;

/// Bytes on their way in one direction, at the most.
const WINDOW_BYTES: usize = 1 << 20;

pub(super) type NodeId = u64;

/// All wires. Shared by all nodes.
#[derive(Clone)]
pub(super) struct Net(Arc<Mutex<State>>);

struct State {
    now_us: u64,
    draw: Draw,
    /// Delays are drawn from nothing to this.
    longest_delay_us: u64,
    /// Ways on which nothing gets through, from and to.
    cut: BTreeSet<(NodeId, NodeId)>,
    doors: BTreeMap<NodeId, mpsc::UnboundedSender<Box<dyn Wire>>>,
    pipes: Vec<Arc<Mutex<Pipe>>>,
}

/// One direction of a connection.
struct Pipe {
    from: NodeId,
    to: NodeId,
    /// When each may arrive, by rising time.
    on_the_way: VecDeque<(u64, Bytes)>,
    bytes: usize,
    arrived: VecDeque<Bytes>,
    /// Its writer has gone; what is on the way still arrives.
    ended: bool,
    end_arrived: bool,
    /// The connection is broken: both sides notice.
    broken: bool,
    /// The machine of its writer has lost power: nothing more comes, and nobody is told.
    mute: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Net {
    pub(super) fn new(draw: Draw) -> Self {
        let (cut, doors) = (BTreeSet::new(), BTreeMap::new());
        Self(Arc::new(Mutex::new(State { now_us: 0, draw, longest_delay_us: 1_000, cut, doors, pipes: Vec::new() })))
    }

    /// Opens a node's door for others.
    pub(super) fn listen(&self, node: NodeId) -> Box<dyn Accept> {
        let (door, queue) = mpsc::unbounded_channel();
        self.0.lock().doors.insert(node, door);
        Box::new(Door(queue))
    }

    /// How a node reaches others.
    pub(super) fn dialer(&self, node: NodeId) -> Arc<dyn Dial> {
        Arc::new(Caller(self.clone(), node))
    }

    /// The process of a node is about to end. With `power_lost` its peers hear nothing of it.
    pub(super) fn leave(&self, node: NodeId, power_lost: bool) {
        let mut state = self.0.lock();
        state.doors.remove(&node);
        for pipe in state.pipes.iter().filter(|_| power_lost) {
            let mut pipe = pipe.lock();
            if pipe.from == node {
                pipe.mute = true;
                pipe.on_the_way.clear();
            }
        }
    }

    pub(super) fn cut(&self, from: NodeId, to: NodeId) {
        self.0.lock().cut.insert((from, to));
    }

    pub(super) fn heal(&self) {
        let mut state = self.0.lock();
        state.cut.clear();
        state.longest_delay_us = 1_000;
    }

    pub(super) fn slow_down(&self, longest_delay_us: u64) {
        self.0.lock().longest_delay_us = longest_delay_us;
    }

    /// Breaks the connections between two nodes. What was on the way is lost.
    pub(super) fn break_between(&self, one: NodeId, other: NodeId) {
        for pipe in &self.0.lock().pipes {
            let mut pipe = pipe.lock();
            if (pipe.from, pipe.to) == (one, other) || (pipe.from, pipe.to) == (other, one) {
                pipe.broken = true;
                pipe.wake();
            }
        }
    }

    /// Lets arrive what is due.
    pub(super) fn deliver(&self, now_us: u64) {
        let mut state = self.0.lock();
        state.now_us = now_us;
        let State { pipes, cut, .. } = &mut *state;
        pipes.retain(|pipe| {
            let held_elsewhere = Arc::strong_count(pipe) > 1;
            let mut pipe = pipe.lock();
            if !cut.contains(&(pipe.from, pipe.to)) {
                pipe.deliver(now_us);
            }
            held_elsewhere
        });
    }

    fn connect(&self, from: NodeId, to: NodeId) -> io::Result<Box<dyn Wire>> {
        let mut state = self.0.lock();
        let door = state.doors.get(&to).cloned().ok_or(io::ErrorKind::ConnectionRefused)?;
        let there = Arc::new(Mutex::new(Pipe::new(from, to)));
        let back = Arc::new(Mutex::new(Pipe::new(to, from)));
        state.pipes.extend([Arc::clone(&there), Arc::clone(&back)]);
        drop(state);
        let here = End { net: self.clone(), reads: Arc::clone(&back), writes: Arc::clone(&there) };
        let over_there = End { net: self.clone(), reads: there, writes: back };
        door.send(Box::new(over_there)).map_err(|_| io::ErrorKind::ConnectionRefused)?;
        Ok(Box::new(here))
    }

    fn reaches(&self, from: NodeId, to: NodeId) -> bool {
        let state = self.0.lock();
        !state.cut.contains(&(from, to)) && !state.cut.contains(&(to, from))
    }
}

impl Pipe {
    fn new(from: NodeId, to: NodeId) -> Self {
        Self {
            from,
            to,
            on_the_way: VecDeque::new(),
            bytes: 0,
            arrived: VecDeque::new(),
            ended: false,
            end_arrived: false,
            broken: false,
            mute: false,
            reader: None,
            writer: None,
        }
    }

    fn wake(&mut self) {
        for waker in [self.reader.take(), self.writer.take()].into_iter().flatten() {
            waker.wake();
        }
    }

    fn deliver(&mut self, now_us: u64) {
        let mut news = false;
        while let Some((_, bytes)) = self.on_the_way.pop_front_if(|(due, _)| *due <= now_us) {
            self.arrived.push_back(bytes);
            news = true;
        }
        if self.ended && !self.mute && self.on_the_way.is_empty() && !self.end_arrived {
            self.end_arrived = true;
            news = true;
        }
        if news && let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}

/// One end of a connection.
struct End {
    net: Net,
    reads: Arc<Mutex<Pipe>>,
    writes: Arc<Mutex<Pipe>>,
}

impl Drop for End {
    fn drop(&mut self) {
        self.writes.lock().ended = true;
        // Who still writes to it hears that nobody reads any more, unless the power is gone.
        let silent = self.writes.lock().mute;
        let mut reads = self.reads.lock();
        if !silent {
            reads.broken = true;
            reads.wake();
        }
    }
}

impl AsyncRead for End {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut pipe = self.reads.lock();
        if pipe.broken {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let Some(first) = pipe.arrived.front_mut() else {
            if pipe.end_arrived {
                return Poll::Ready(Ok(()));
            }
            pipe.reader = Some(context.waker().clone());
            return Poll::Pending;
        };
        let count = first.len().min(buf.remaining());
        buf.put_slice(&first[..count]);
        first.advance(count);
        if first.is_empty() {
            pipe.arrived.pop_front();
        }
        pipe.bytes -= count;
        if let Some(writer) = pipe.writer.take() {
            writer.wake();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for End {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let due_us = {
            let mut state = self.net.0.lock();
            let longest = state.longest_delay_us;
            state.now_us + state.draw.below(longest.max(1))
        };
        let mut pipe = self.writes.lock();
        if pipe.broken {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let room = WINDOW_BYTES.saturating_sub(pipe.bytes);
        if room == 0 {
            pipe.writer = Some(context.waker().clone());
            return Poll::Pending;
        }
        let count = bytes.len().min(room);
        if !pipe.mute {
            let after = pipe.on_the_way.back().map_or(0, |(due, _)| *due);
            pipe.on_the_way.push_back((due_us.max(after), Bytes::copy_from_slice(&bytes[..count])));
            pipe.bytes += count;
        }
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.writes.lock().ended = true;
        Poll::Ready(Ok(()))
    }
}

struct Door(mpsc::UnboundedReceiver<Box<dyn Wire>>);

impl Accept for Door {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Box<dyn Wire>>> {
        Box::pin(async {
            match self.0.recv().await {
                Some(wire) => Ok(wire),
                // The node is being stopped: nobody comes any more.
                None => std::future::pending().await,
            }
        })
    }
}

struct Caller(Net, NodeId);

impl Dial for Caller {
    fn dial<'a>(&'a self, node_id: u64, _address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Wire>>> {
        Box::pin(async move {
            if !self.0.reaches(self.1, node_id) {
                tokio::time::sleep(Duration::from_secs(1)).await;
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.0.connect(self.1, node_id)
        })
    }
}
