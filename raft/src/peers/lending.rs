//! What a node answers before its shards have started: it lends snapshots, to nodes that wait for them as it does itself. Of two
//! nodes that lost one shard each, both would wait for ever for the other to be done.

use std::{io, sync::Arc};

use bytes::{BufMut, Bytes, BytesMut};
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc},
    task::JoinSet,
};

use super::{
    Accept, Wire, connection,
    frame::{self, Frame, FrameReader, kind},
    handshake::{self, Gate},
    lender::Lender,
    server::take_in,
    wire,
};
use crate::{
    encoding::{DecodeError, take_u64},
    state_home::StateHome,
};

/// Answers to everything else.
const NOT_YET: &str = "this node makes a damaged shard anew, and takes part in nothing before that is done";

/// What is lent, by shard.
pub(crate) struct Lending {
    gate: Arc<Gate>,
    homes: Vec<StateHome>,
    lender: Arc<Lender>,
}

impl Lending {
    pub(crate) fn new(gate: Arc<Gate>, homes: Vec<StateHome>, lender: Arc<Lender>) -> Arc<Self> {
        Arc::new(Self { gate, homes, lender })
    }

    /// Serves whoever comes in, until it is dropped; its connections end with it.
    pub(crate) async fn run(self: Arc<Self>, accept: &mut dyn Accept) {
        take_in(accept, |wire, place| Arc::clone(&self).welcome(wire, place)).await;
    }

    async fn welcome(self: Arc<Self>, wire: Box<dyn Wire>, place: OwnedSemaphorePermit) {
        let (read, mut write) = tokio::io::split(wire);
        let mut from = FrameReader::new(read, 0);
        let accepting = handshake::accept(&self.gate, &mut from, &mut write);
        let Ok(Ok(peer)) = tokio::time::timeout(handshake::TIMEOUT, accepting).await else { return };
        drop(place);
        let (answers, queue) = mpsc::unbounded_channel();
        let mut tasks = JoinSet::new();
        tasks.spawn(connection::write_frames(write, queue));
        let mut retirement = std::pin::pin!(self.gate.roster.retirement(peer.node_id));
        loop {
            let next = tokio::select! {
                biased;
                next = tokio::time::timeout(4 * connection::SILENCE_LIMIT, from.next()) => next,
                () = &mut retirement => return,
            };
            let Ok(Ok(Some(frame))) = next else { return };
            while tasks.try_join_next().is_some() {}
            match frame.kind {
                // A leader that hears no would ask again at once, with entries each time.
                kind::APPEND_FIRST | kind::APPEND_NEXT | kind::APPEND_END => {}
                kind::LEND | kind::LEND_PIECE | kind::LEND_DAMAGED => {
                    let (lending, answers) = (Arc::clone(&self), answers.clone());
                    tasks.spawn(async move { lending.lend(frame, &answers).await });
                }
                kind::PING => drop(answers.send(frame::encode(kind::ANSWER, 0, frame.call, 0, |_| ()))),
                _ => drop(answers.send(failure(frame.shard, frame.call, NOT_YET))),
            }
        }
    }

    async fn lend(self: Arc<Self>, frame: Frame, answers: &mpsc::UnboundedSender<Bytes>) {
        let (shard, call) = (frame.shard, frame.call);
        let answer = match self.answer(frame).await {
            Ok(body) => frame::encode(kind::ANSWER, shard, call, body.len(), |out| out.put(body)),
            Err(error) => failure(shard, call, &error.to_string()),
        };
        answers.send(answer).ok();
    }

    async fn answer(&self, mut frame: Frame) -> io::Result<Bytes> {
        let garbled = |error: DecodeError| io::Error::other(error.to_string());
        let home = self.homes.get(frame.shard as usize).ok_or_else(|| io::Error::other("no such shard"))?;
        let mut out = BytesMut::new();
        match frame.kind {
            kind::LEND_PIECE => return self.lender.piece(frame.body).await,
            kind::LEND_DAMAGED => {
                let (loan, place) = wire::take_file(frame.body).map_err(garbled)?;
                self.lender.judge(loan, place, home).await?;
            }
            _ => {
                let at_least = take_u64(&mut frame.body).map_err(garbled)?;
                let home = home.clone();
                let found = crate::blocking::run(move || home.lendable(at_least)).await;
                match found.map_err(io::Error::other)?? {
                    Some(snapshot) => self.lender.offer(snapshot, &mut out).map_err(io::Error::other)?,
                    None => out.put_u8(0),
                }
            }
        }
        Ok(out.freeze())
    }
}

fn failure(shard: u32, call: u64, text: &str) -> Bytes {
    frame::encode(kind::FAILURE, shard, call, text.len(), |out| out.put(text.as_bytes()))
}
