//! What the broker says about published messages.

use std::time::SystemTime;

use tandem_proto::messaging::v1::{PublishResponse, PublishStreamResponse, publish_exception};

use crate::{Error, Refusal, wire};

/// Proof that a message is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// The message's position in the log of its workspace; 0 while it is held.
    pub sequence: u64,
    /// The message's id: the one it came with, or `seq-<sequence>`; empty while a message without one is held.
    pub message_id: String,
    /// When the broker committed the message; for a duplicate inside a batch, when it answered.
    pub server_time: SystemTime,
    /// The message had been accepted before, with this sequence.
    pub duplicate: bool,
    /// The message is durable and not in the log yet: a policy holds it for this approval. Its sender gets a message when that has
    /// ended.
    pub approval_id: Option<u64>,
}

impl Receipt {
    pub(super) fn from_response(response: PublishResponse) -> Self {
        Self {
            sequence: response.sequence,
            message_id: response.message_id,
            server_time: wire::from_timestamp(response.server_time),
            duplicate: response.duplicate,
            approval_id: (response.approval_id > 0).then_some(response.approval_id),
        }
    }
}

/// What became of one batch: most messages are accepted as new, the others are listed.
#[derive(Debug, Clone)]
pub struct BatchReceipt {
    /// The number that [`BatchStream::send`](super::BatchStream::send) gave the batch.
    pub request_id: u64,
    /// How many messages the batch held.
    pub messages: u32,
    /// How many of them were accepted as new. The message at index `i` has the sequence `first_sequence + i`, unless it is
    /// among the exceptions.
    pub accepted: u32,
    /// 0 when no message was accepted as new.
    pub first_sequence: u64,
    /// When the broker committed the batch.
    pub server_time: SystemTime,
    /// The messages that were not accepted as new, by index.
    pub exceptions: Vec<PublishException>,
}

/// A message of a batch that was not accepted as new.
#[derive(Debug, Clone)]
pub struct PublishException {
    /// Position in the batch, from 0.
    pub index: u32,
    /// Why.
    pub kind: ExceptionKind,
}

/// Why a message of a batch was not accepted as new.
#[derive(Debug, Clone)]
pub enum ExceptionKind {
    /// It had been accepted before, with this sequence.
    DuplicateOf(u64),
    /// It is durable, and a policy holds it for this approval.
    Held {
        /// Names the approval in its workspace.
        approval_id: u64,
    },
    /// The broker does not accept it.
    Refused(Error),
}

/// Where a message of a batch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placed {
    /// In the log, with this sequence.
    New(u64),
    /// In the log since before, with this sequence.
    DuplicateOf(u64),
    /// Held for approval, and not in the log yet.
    Held {
        /// Names the approval in its workspace.
        approval_id: u64,
    },
}

impl BatchReceipt {
    /// Checks an answer against the request it must belong to.
    pub(super) fn from_response(
        response: PublishStreamResponse,
        request_id: u64,
        messages: u32,
    ) -> Result<Self, Error> {
        let wrong = |what: String| Err(Error::Contract(format!("the answer to request {request_id} {what}")));
        if response.request_id != request_id {
            return wrong(format!("names request {}", response.request_id));
        }
        if response.accepted as usize + response.exceptions.len() != messages as usize {
            return wrong(format!(
                "tells of {} accepted messages and {} others, but {messages} were sent",
                response.accepted,
                response.exceptions.len()
            ));
        }
        let mut exceptions: Vec<PublishException> = Vec::with_capacity(response.exceptions.len());
        for exception in response.exceptions {
            let index = exception.index;
            if index >= messages || exceptions.last().is_some_and(|last| last.index >= index) {
                return wrong(format!("lists message {index} out of order"));
            }
            let kind = match exception.outcome {
                Some(publish_exception::Outcome::DuplicateOf(sequence)) => ExceptionKind::DuplicateOf(sequence),
                Some(publish_exception::Outcome::ApprovalId(approval_id)) => ExceptionKind::Held { approval_id },
                Some(publish_exception::Outcome::Refusal(status)) => {
                    ExceptionKind::Refused(Error::Refused(Box::new(Refusal::from_proto(&status))))
                }
                None => return wrong(format!("does not say why message {index} is an exception")),
            };
            exceptions.push(PublishException { index, kind });
        }
        Ok(Self {
            request_id,
            messages,
            accepted: response.accepted,
            first_sequence: response.first_sequence,
            server_time: wire::from_timestamp(response.server_time),
            exceptions,
        })
    }

    /// Where the message at `index` is.
    ///
    /// # Errors
    /// The broker's refusal of this message.
    ///
    /// # Panics
    /// When `index` is not below [`messages`](Self::messages).
    pub fn placed(&self, index: u32) -> Result<Placed, Error> {
        assert!(index < self.messages, "the batch has {} messages, there is no index {index}", self.messages);
        let before = self.exceptions.partition_point(|exception| exception.index < index);
        match self.exceptions.get(before) {
            Some(exception) if exception.index == index => match &exception.kind {
                ExceptionKind::DuplicateOf(sequence) => Ok(Placed::DuplicateOf(*sequence)),
                ExceptionKind::Held { approval_id } => Ok(Placed::Held { approval_id: *approval_id }),
                ExceptionKind::Refused(error) => Err(error.clone()),
            },
            _ => Ok(Placed::New(self.first_sequence + u64::from(index))),
        }
    }
}

#[cfg(test)]
mod tests {
    use tandem_proto::{google::rpc, messaging::v1 as proto};
    use tonic::Code;

    use super::*;

    fn exception(index: u32, outcome: publish_exception::Outcome) -> proto::PublishException {
        proto::PublishException { index, outcome: Some(outcome) }
    }

    fn response() -> PublishStreamResponse {
        let refusal =
            rpc::Status { code: Code::InvalidArgument as i32, message: "empty".to_owned(), details: Vec::new() };
        PublishStreamResponse {
            request_id: 4,
            first_sequence: 100,
            accepted: 2,
            server_time: None,
            exceptions: vec![
                exception(1, publish_exception::Outcome::DuplicateOf(42)),
                exception(2, publish_exception::Outcome::ApprovalId(9)),
                exception(3, publish_exception::Outcome::Refusal(refusal)),
            ],
        }
    }

    #[test]
    fn sequences_follow_positions() {
        let receipt = BatchReceipt::from_response(response(), 4, 5).expect("a good answer");
        let seen: Vec<_> = (0..5).map(|index| receipt.placed(index).map_err(|error| error.to_string())).collect();
        assert_eq!(
            seen,
            [
                Ok(Placed::New(100)),
                Ok(Placed::DuplicateOf(42)),
                Ok(Placed::Held { approval_id: 9 }),
                Err("empty".to_owned()),
                Ok(Placed::New(104))
            ]
        );
    }

    #[test]
    fn answers_that_do_not_fit_are_told() {
        let mut twice = response();
        twice.exceptions[1].index = 1;
        let mut silent = response();
        silent.exceptions[0].outcome = None;
        for (response, request_id, messages) in [(response(), 5, 5), (response(), 4, 6), (twice, 4, 5), (silent, 4, 5)]
        {
            let error = BatchReceipt::from_response(response, request_id, messages).expect_err("must not pass");
            assert_eq!(error.reason(), "CONTRACT_BROKEN");
        }
    }
}
