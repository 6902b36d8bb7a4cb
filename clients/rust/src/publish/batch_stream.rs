//! A publish stream for callers that form batches themselves: no task, no lock, one buffer per batch.

use std::{collections::VecDeque, fmt, sync::Arc};

use futures_util::{FutureExt as _, future::BoxFuture};
use tandem_proto::messaging::v1::PublishStreamResponse;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Status, Streaming};

use super::{
    codec::{self, EncodedRequest},
    producer::Numbering,
    receipt::BatchReceipt,
};
use crate::{Batch, Client, Error};

/// Sends batches over one stream and takes the answers in the same order. The caller decides how many to have under way,
/// at most [`MAX_UNANSWERED`](Self::MAX_UNANSWERED).
///
/// The stream opens, and batches go out, once [`next`](Self::next) is awaited for the first time. Dropping it gives up
/// on the answers, not on the messages: what the broker got may still commit.
pub struct BatchStream {
    client: Client,
    outgoing: Option<mpsc::UnboundedSender<EncodedRequest>>,
    answers: Answers,
    /// Request id and number of messages, oldest first.
    unanswered: VecDeque<(u64, u32)>,
    next_request_id: u64,
    /// Taken by the first request.
    workspace_id: String,
    numbering: Numbering,
}

enum Answers {
    Opening(BoxFuture<'static, Result<Streaming<PublishStreamResponse>, Status>>),
    Open(Box<Streaming<PublishStreamResponse>>),
    Failed(Error),
}

impl BatchStream {
    /// Batches that may wait for their answer; bounds what the stream holds in memory.
    pub const MAX_UNANSWERED: usize = 1024;

    pub(super) fn open(client: &Client, workspace_id: &Arc<str>, numbering: Numbering) -> Self {
        // Never holds more than MAX_UNANSWERED requests: `send` counts them.
        let (outgoing, requests) = mpsc::unbounded_channel();
        let opener = client.clone();
        let opening = async move { codec::open(&opener, UnboundedReceiverStream::new(requests)).await }.boxed();
        Self {
            client: client.clone(),
            outgoing: Some(outgoing),
            answers: Answers::Opening(opening),
            unanswered: VecDeque::new(),
            next_request_id: 1,
            workspace_id: workspace_id.to_string(),
            numbering,
        }
    }

    /// Hands a batch to the connection and returns its request id. Does not wait.
    ///
    /// # Errors
    /// [`Error::TooManyUnanswered`] at the limit; [`Error::Closed`] after [`finish`](Self::finish); the error of the
    /// stream once it has broken.
    pub fn send(&mut self, batch: Batch) -> Result<u64, Error> {
        if let Answers::Failed(error) = &self.answers {
            return Err(error.clone());
        }
        if self.unanswered.len() >= Self::MAX_UNANSWERED {
            return Err(Error::TooManyUnanswered { limit: Self::MAX_UNANSWERED });
        }
        let Some(outgoing) = &self.outgoing else { return Err(Error::Closed { stream: "publish" }) };
        let request_id = self.next_request_id;
        self.next_request_id += 1;
        // u32 because a request cannot hold more: its size is limited far below.
        let messages = batch.len().try_into().unwrap_or(u32::MAX);
        self.unanswered.push_back((request_id, messages));
        let request = EncodedRequest {
            workspace_id: std::mem::take(&mut self.workspace_id),
            request_id,
            producer: self.numbering.take(messages),
            body: batch.into_body().freeze(),
        };
        // The other half is gone when the connection broke: `next` tells why.
        outgoing.send(request).ok();
        Ok(request_id)
    }

    /// Batches without an answer.
    pub fn unanswered(&self) -> usize {
        self.unanswered.len()
    }

    /// No more batches follow: the broker ends the stream after the last answer.
    pub fn finish(&mut self) {
        self.outgoing = None;
    }

    /// The next answer, in the order of sending; None when the stream has ended with nothing left to answer. Safe to cancel.
    ///
    /// # Errors
    /// When the stream breaks: every batch without an answer may or may not have committed. The error stays.
    pub async fn next(&mut self) -> Result<Option<BatchReceipt>, Error> {
        match self.take_answer().await {
            Ok(receipt) => Ok(receipt),
            Err(error) => {
                self.outgoing = None;
                self.answers = Answers::Failed(error.clone());
                Err(error)
            }
        }
    }

    async fn take_answer(&mut self) -> Result<Option<BatchReceipt>, Error> {
        let streaming = loop {
            match &mut self.answers {
                Answers::Open(streaming) => break streaming,
                Answers::Failed(error) => return Err(error.clone()),
                Answers::Opening(opening) => {
                    let streaming = opening.await.map_err(|status| self.client.error(&status))?;
                    self.answers = Answers::Open(Box::new(streaming));
                }
            }
        };
        let answer = streaming.message().await.map_err(|status| self.client.error(&status))?;
        match (answer, self.unanswered.pop_front()) {
            (Some(answer), Some((request_id, messages))) => {
                BatchReceipt::from_response(answer, request_id, messages).map(Some)
            }
            (Some(answer), None) => {
                Err(Error::Contract(format!("an answer to request {} came, which is answered", answer.request_id)))
            }
            (None, None) => Ok(None),
            (None, Some(_)) => {
                Err(Error::StreamEnded { stream: "publish", unanswered: self.unanswered.len() as u64 + 1 })
            }
        }
    }
}

impl fmt::Debug for BatchStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchStream").field("unanswered", &self.unanswered.len()).finish_non_exhaustive()
    }
}
