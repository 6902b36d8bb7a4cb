//! Acks, nacks and extensions that have no answer yet: the next leader gets them again.

use std::collections::VecDeque;

use tandem_proto::raw::messaging::v1::{
    SubscribeRequest, subscribe_request::Kind as Ask, subscribe_response::Kind as Answer,
};

/// Beyond, the client is not read.
const MAX_UNANSWERED: usize = 1_024;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Unanswered(VecDeque<SubscribeRequest>);

impl Unanswered {
    pub(super) fn has_room(&self) -> bool {
        self.0.len() < MAX_UNANSWERED
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// In the order in which they came.
    pub(super) fn requests(&self) -> impl Iterator<Item = SubscribeRequest> + '_ {
        self.0.iter().cloned()
    }

    /// Remembers what will have an answer.
    pub(super) fn asked(&mut self, request: &SubscribeRequest) {
        if matches!(request.kind, Some(Ask::Ack(_) | Ask::Nack(_) | Ask::Extend(_))) {
            self.0.push_back(request.clone());
        }
    }

    /// Forgets what this answers. Extensions are answered at once, acks and nacks when they are durable, each in order.
    pub(super) fn answered(&mut self, answer: &Answer) {
        let extends = match answer {
            Answer::ExtendOutcome(_) => true,
            Answer::AckOutcome(_) | Answer::NackOutcome(_) => false,
            Answer::Opened(_) | Answer::DeliveryBatch(_) | Answer::LeasesLost(_) => return,
        };
        let is_it = |request: &SubscribeRequest| matches!(request.kind, Some(Ask::Extend(_))) == extends;
        if let Some(at) = self.0.iter().position(is_it) {
            self.0.remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use tandem_proto::raw::messaging::v1::{Ack, AckOutcome, Credit, Extend, ExtendOutcome, Nack, NackOutcome};

    use super::*;

    #[test]
    fn an_extension_that_overtakes_an_ack_leaves_it_unanswered() {
        let mut unanswered = Unanswered::default();
        let asks = [
            Ask::Ack(Ack::default()),
            Ask::Credit(Credit::default()),
            Ask::Extend(Extend::default()),
            Ask::Nack(Nack::default()),
            Ask::Extend(Extend::default()),
        ];
        asks.into_iter().for_each(|kind| unanswered.asked(&SubscribeRequest { kind: Some(kind) }));
        let left = |unanswered: &Unanswered| -> String {
            let name = |request: SubscribeRequest| match request.kind {
                Some(Ask::Ack(_)) => 'a',
                Some(Ask::Nack(_)) => 'n',
                Some(Ask::Extend(_)) => 'e',
                other => panic!("{other:?} has no answer"),
            };
            unanswered.requests().map(name).collect()
        };
        assert_eq!(left(&unanswered), "aene");
        unanswered.answered(&Answer::ExtendOutcome(ExtendOutcome::default()));
        assert_eq!(left(&unanswered), "ane");
        unanswered.answered(&Answer::AckOutcome(AckOutcome::default()));
        assert_eq!(left(&unanswered), "ne");
        unanswered.answered(&Answer::ExtendOutcome(ExtendOutcome::default()));
        unanswered.answered(&Answer::NackOutcome(NackOutcome::default()));
        assert!(unanswered.is_empty());
    }
}
