//! A subscription under full control: every request is written by the test, every answer is seen.

mod verdicts;

use std::{collections::VecDeque, time::Duration};

use tandem_client::Delivery;
use tandem_proto::messaging::v1::{
    Ack, AckOutcome, Credit, DeliveryRange, LeasesLost, Open, Opened, SubscribeRequest, SubscribeResponse,
    subscribe_request, subscribe_response, subscribe_service_client::SubscribeServiceClient,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Streaming, transport::Channel};

use crate::Refused;

/// How long an answer may take before the test gives up.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long nothing must come for the test to say that nothing comes.
const SILENCE: Duration = Duration::from_millis(150);

/// See the module. Dropping it resets the stream, as a client does that vanishes.
#[derive(Debug)]
pub struct Subscriber {
    requests: Option<mpsc::UnboundedSender<SubscribeRequest>>,
    responses: Streaming<SubscribeResponse>,
    ready: VecDeque<Delivery>,
    /// Told while something else was waited for.
    lost: VecDeque<LeasesLost>,
    opened: Opened,
    /// Acks without an outcome.
    unanswered: usize,
}

impl Subscriber {
    /// A stream on which nothing has been said.
    ///
    /// # Panics
    /// When the broker does not take the call.
    pub async fn silent(channel: Channel) -> Self {
        let (requests, outgoing) = mpsc::unbounded_channel();
        let mut service = SubscribeServiceClient::new(channel).max_decoding_message_size(64 << 20);
        let answer = service.subscribe(UnboundedReceiverStream::new(outgoing)).await;
        let responses = answer.expect("the call is taken").into_inner();
        Self {
            requests: Some(requests),
            responses,
            ready: VecDeque::new(),
            lost: VecDeque::new(),
            opened: Opened::default(),
            unanswered: 0,
        }
    }

    /// A stream that is open, without credit.
    ///
    /// # Panics
    /// When the broker refuses.
    pub async fn open(channel: Channel, workspace: &str, sandbox: &str) -> Self {
        let open = Open { workspace_id: workspace.to_owned(), sandbox_id: sandbox.to_owned(), ..Open::default() };
        Self::open_as(channel, open).await
    }

    /// Says this, whatever it is.
    ///
    /// # Panics
    /// After [`finish`](Self::finish).
    pub fn send(&self, kind: Option<subscribe_request::Kind>) {
        let requests = self.requests.as_ref().expect("the stream is not finished");
        // Once the broker has ended the stream, the answers say why.
        requests.send(SubscribeRequest { kind }).ok();
    }

    /// Opens an inbox.
    pub fn send_open(&self, workspace: &str, sandbox: &str) {
        let open = Open { workspace_id: workspace.to_owned(), sandbox_id: sandbox.to_owned(), ..Open::default() };
        self.send(Some(subscribe_request::Kind::Open(open)));
    }

    /// Gives credit.
    pub fn credit(&self, messages: u32, bytes: u64) {
        self.send(Some(subscribe_request::Kind::Credit(Credit { messages, bytes })));
    }

    /// Acknowledges these deliveries; the outcome comes later.
    pub fn send_ack(&mut self, first: u64, last: u64) {
        self.unanswered += 1;
        self.send(Some(subscribe_request::Kind::Ack(Ack {
            ranges: vec![DeliveryRange { first, last }],
            ..Ack::default()
        })));
    }

    /// Ends the client's half of the stream.
    pub fn finish(&mut self) {
        self.requests = None;
    }

    /// The next answer; none at the end of the stream.
    ///
    /// # Errors
    /// The status with which the stream ended.
    ///
    /// # Panics
    /// When nothing comes.
    pub async fn answer(&mut self) -> Result<Option<subscribe_response::Kind>, Refused> {
        let answer = tokio::time::timeout(PATIENCE, self.responses.message()).await.unwrap_or_else(|_| {
            let (kept, unanswered) = (self.ready.len(), self.unanswered);
            panic!("nothing came for {PATIENCE:?}; {kept} deliveries are kept, {unanswered} acks have no outcome")
        });
        Ok(answer?.map(|response| response.kind.expect("an answer is of a kind known here")))
    }

    /// How the stream ends, when nothing but that is to come.
    ///
    /// # Panics
    /// When something else comes.
    pub async fn end(&mut self) -> Refused {
        match self.answer().await {
            Err(refused) => refused,
            Ok(other) => panic!("the stream goes on with {other:?}"),
        }
    }

    /// The next deliveries, exactly so many.
    ///
    /// # Panics
    /// When something else comes, or nothing.
    pub async fn take(&mut self, count: usize) -> Vec<Delivery> {
        while self.ready.len() < count {
            match self.answer().await {
                Ok(Some(subscribe_response::Kind::DeliveryBatch(batch))) => self.keep(batch.deliveries),
                Ok(Some(subscribe_response::Kind::LeasesLost(lost))) => self.lost.push_back(lost),
                other => panic!("{} of {count} deliveries came, then {other:?}", self.ready.len()),
            }
        }
        self.ready.drain(..count).collect()
    }

    /// The deliveries that come, at most so many; fewer, when nothing more comes for a while. For where nobody can know how
    /// many come: on a busy machine the next may just take longer. Where the number is known, [`take`](Self::take).
    ///
    /// # Panics
    /// When the stream ends or something else comes.
    pub async fn take_up_to(&mut self, count: usize) -> Vec<Delivery> {
        self.take_up_to_within(count, SILENCE).await
    }

    /// The same, where silence that is only a slow machine's would be taken for something else.
    ///
    /// # Panics
    /// When the stream ends or something else comes.
    pub async fn take_up_to_within(&mut self, count: usize, silence: Duration) -> Vec<Delivery> {
        while self.ready.len() < count {
            match tokio::time::timeout(silence, self.answer()).await {
                Ok(Ok(Some(subscribe_response::Kind::DeliveryBatch(batch)))) => self.keep(batch.deliveries),
                Ok(Ok(Some(subscribe_response::Kind::LeasesLost(lost)))) => self.lost.push_back(lost),
                Ok(other) => panic!("deliveries were expected, and this came: {other:?}"),
                Err(_) => break,
            }
        }
        self.ready.drain(..count.min(self.ready.len())).collect()
    }

    /// Checks that nothing comes for a while.
    ///
    /// # Panics
    /// When something comes.
    pub async fn expect_silence(&mut self) {
        assert!(self.ready.is_empty(), "more came than was taken: {:?}", self.ready);
        if let Ok(answer) = tokio::time::timeout(SILENCE, self.responses.message()).await {
            panic!("nothing was expected, and this came: {answer:?}");
        }
    }

    /// Acknowledges, and waits for the outcomes of this and all earlier acks. Returns the outcome of this one. Deliveries
    /// that come before it are kept, and so is news of leases that were lost.
    ///
    /// # Panics
    /// When the stream ends.
    pub async fn ack(&mut self, first: u64, last: u64) -> AckOutcome {
        self.send_ack(first, last);
        loop {
            match self.answer().await {
                Ok(Some(subscribe_response::Kind::AckOutcome(outcome))) => {
                    self.unanswered -= 1;
                    if self.unanswered == 0 {
                        return outcome;
                    }
                }
                Ok(Some(subscribe_response::Kind::DeliveryBatch(batch))) => self.keep(batch.deliveries),
                Ok(Some(subscribe_response::Kind::LeasesLost(lost))) => self.lost.push_back(lost),
                other => panic!("an ack was to be answered, and this came: {other:?}"),
            }
        }
    }

    fn keep(&mut self, deliveries: Vec<tandem_proto::messaging::v1::Delivery>) {
        self.ready.extend(deliveries.into_iter().map(|delivery| Delivery {
            delivery_id: delivery.delivery_id,
            attempt: delivery.attempt,
            message: delivery.message.expect("a delivery carries a message"),
        }));
    }
}
