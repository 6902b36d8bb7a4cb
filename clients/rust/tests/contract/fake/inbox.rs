//! Hands out the inbox of the sandbox `bob`.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
};

use tandem_proto::messaging::v1::{
    Ack, AckMode, AckOutcome, AckRefusal, Delivery, DeliveryBatch, DeliveryRange, Extend, ExtendOutcome, LeasesLost,
    Message, Nack, NackOutcome, Open, Opened, SubscribeRequest, SubscribeResponse, subscribe_request,
    subscribe_response::Kind, subscribe_service_server::SubscribeService,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status, Streaming};

use super::{Answers, Service, proto_status, refusal};

#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) opens: Mutex<Vec<Open>>,
    /// Ranges of each `ack`.
    pub(crate) acks: Mutex<Vec<Vec<(u64, u64)>>>,
    pub(crate) nacks: Mutex<Vec<Nack>>,
    pub(crate) extends: Mutex<Vec<Extend>>,
    /// Messages and bytes of each `credit`.
    pub(crate) credits: Mutex<Vec<(u32, u64)>>,
    /// How each stream ended.
    pub(crate) ends: Mutex<Vec<End>>,
    /// Messages that wait. The lease of one with the content `slow` is lost at once.
    pub(crate) waiting: Mutex<Vec<Message>>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The client closed its side while it held these deliveries.
    InOrder(Vec<u64>),
    Broken,
}

#[tonic::async_trait]
impl SubscribeService for Service {
    type SubscribeStream = Answers<SubscribeResponse>;

    async fn subscribe(
        &self,
        request: Request<Streaming<SubscribeRequest>>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let mut requests = request.into_inner();
        let open = match requests.message().await?.and_then(|request| request.kind) {
            Some(subscribe_request::Kind::Open(open)) => open,
            other => return Err(Status::invalid_argument(format!("{other:?} came before open"))),
        };
        if open.sandbox_id != "bob" {
            return Err(refusal(Code::NotFound, "SANDBOX_NOT_FOUND", "no such sandbox"));
        }
        self.0.inbox.opens.lock().unwrap().push(open.clone());
        let (answers, receiver) = mpsc::channel(1000);
        let lenient = open.ack_mode() == AckMode::Lenient;
        let leases = Leases { lenient, ..Leases::default() };
        tokio::spawn(serve(Arc::clone(&self.0), open, leases, requests, answers));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

/// Deliveries of one stream, from 1.
#[derive(Debug, Default)]
struct Leases {
    delivered: u64,
    done: HashSet<u64>,
    lost: HashSet<u64>,
    lenient: bool,
}

/// Delivers as far as credit goes, in batches of three; panics when a client exceeds its own window.
async fn serve(
    seen: Arc<super::Seen>,
    open: Open,
    mut leases: Leases,
    mut requests: Streaming<SubscribeRequest>,
    answers: mpsc::Sender<Result<SubscribeResponse, Status>>,
) {
    let seen = &seen.inbox;
    let send = async |kind| answers.send(Ok(SubscribeResponse { kind: Some(kind) })).await.ok();
    send(Kind::Opened(Opened { subscription_id: "sub-1".to_owned(), ack_deadline: open.ack_deadline })).await;
    let (mut messages, mut bytes) = (0, 0);
    loop {
        let mut batch = Vec::new();
        let mut lost = Vec::new();
        while messages > 0 && bytes > 0 && batch.len() < 3 && !seen.waiting.lock().unwrap().is_empty() {
            let message = seen.waiting.lock().unwrap().remove(0);
            messages -= 1;
            bytes -= prost::Message::encoded_len(&message) as i64;
            leases.delivered += 1;
            let delivery_id = leases.delivered;
            if message.content == "slow" {
                leases.lost.insert(delivery_id);
                lost.push(DeliveryRange { first: delivery_id, last: delivery_id });
            }
            batch.push(Delivery { delivery_id, attempt: 1, message: Some(message) });
        }
        if !batch.is_empty() {
            send(Kind::DeliveryBatch(DeliveryBatch { deliveries: batch })).await;
            if !lost.is_empty() {
                let status = Some(proto_status(&lease_lost()));
                send(Kind::LeasesLost(LeasesLost { ranges: lost, status })).await;
            }
            continue;
        }
        let request = match requests.message().await {
            Ok(Some(request)) => request,
            Ok(None) => {
                let held = (1..=leases.delivered).filter(|id| !leases.is_over(*id)).collect();
                return seen.ends.lock().unwrap().push(End::InOrder(held));
            }
            Err(_) => return seen.ends.lock().unwrap().push(End::Broken),
        };
        match request.kind {
            Some(subscribe_request::Kind::Credit(credit)) => {
                seen.credits.lock().unwrap().push((credit.messages, credit.bytes));
                messages += credit.messages;
                bytes += credit.bytes as i64;
            }
            Some(subscribe_request::Kind::Ack(ack)) => {
                let outcome = leases.acknowledge(&ack);
                seen.acks.lock().unwrap().push(ack.ranges.iter().map(|range| (range.first, range.last)).collect());
                send(Kind::AckOutcome(outcome)).await;
            }
            Some(subscribe_request::Kind::Nack(nack)) => {
                let outcome = leases.give_back(&nack);
                seen.nacks.lock().unwrap().push(nack);
                send(Kind::NackOutcome(outcome)).await;
            }
            Some(subscribe_request::Kind::Extend(extend)) => {
                let outcome = leases.extend(&extend);
                seen.extends.lock().unwrap().push(extend);
                send(Kind::ExtendOutcome(outcome)).await;
            }
            _ => return,
        }
    }
}

fn lease_lost() -> Status {
    refusal(Code::FailedPrecondition, "LEASE_LOST", "the ack deadline of 30 s passed")
}

impl Leases {
    fn is_over(&self, id: u64) -> bool {
        self.done.contains(&id) || self.lost.contains(&id)
    }

    /// Ends the leases of the ranges that are in order; returns how many, and the other ranges.
    fn end(&mut self, ranges: &[DeliveryRange]) -> (u64, Vec<AckRefusal>) {
        let (mut ended, mut refusals) = (0, Vec::new());
        for &range in ranges {
            let mut ids = range.first..=range.last;
            let status = if range.last > self.delivered || ids.clone().any(|id| self.done.contains(&id)) {
                refusal(Code::NotFound, "DELIVERY_UNKNOWN", "no such delivery")
            } else if !self.lenient && ids.any(|id| self.lost.contains(&id)) {
                lease_lost()
            } else {
                ended += (range.first..=range.last).filter(|id| self.done.insert(*id)).count() as u64;
                continue;
            };
            refusals.push(AckRefusal { range: Some(range), status: Some(proto_status(&status)) });
        }
        (ended, refusals)
    }

    fn acknowledge(&mut self, ack: &Ack) -> AckOutcome {
        let (acknowledged, refusals) = self.end(&ack.ranges);
        AckOutcome { acknowledged, refusals }
    }

    fn give_back(&mut self, nack: &Nack) -> NackOutcome {
        let (ended, refusals) = self.end(&nack.ranges);
        let (deferred, dead_lettered) = if nack.dead_letter { (0, ended) } else { (ended, 0) };
        NackOutcome { deferred, dead_lettered, refusals }
    }

    fn extend(&self, extend: &Extend) -> ExtendOutcome {
        let mut outcome = ExtendOutcome::default();
        for &range in &extend.ranges {
            if range.last > self.delivered {
                let status = refusal(Code::NotFound, "DELIVERY_UNKNOWN", "no such delivery");
                outcome.refusals.push(AckRefusal { range: Some(range), status: Some(proto_status(&status)) });
            } else {
                outcome.extended += (range.first..=range.last).filter(|id| !self.is_over(*id)).count() as u64;
            }
        }
        outcome
    }
}
