//! A server that knows just enough of the contract to test a client, and can misbehave on demand.

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use tandem_client::Client;
use tandem_proto::{
    google::rpc,
    messaging::v1::{
        self as proto, AckOutcome, AckRefusal, Delivery, DeliveryBatch, Message, Opened, PublishException,
        PublishRequest, PublishResponse, PublishStreamRequest, PublishStreamResponse, SubscribeRequest,
        SubscribeResponse, publish_exception::Outcome, publish_service_server as publish, subscribe_request,
        subscribe_response::Kind, subscribe_service_server as subscribe,
    },
};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, mpsc},
    task::JoinHandle,
};
use tokio_stream::{
    Stream,
    wrappers::{ReceiverStream, TcpListenerStream},
};
use tonic::{Code, Request, Response, Status, Streaming, transport::Server};
use tonic_types::{ErrorDetails, StatusExt as _};

/// What the server saw and how it shall behave.
#[derive(Debug)]
pub(crate) struct Seen {
    /// Unary publishes to answer with UNAVAILABLE first.
    pub(crate) unavailable: Mutex<u32>,
    /// How long a unary publish takes.
    pub(crate) delay: Mutex<Duration>,
    /// Message ids of unary publishes.
    pub(crate) unary_ids: Mutex<Vec<String>>,
    /// Stream requests: workspace, id, contents.
    pub(crate) requests: Mutex<Vec<(String, u64, Vec<String>)>>,
    /// Answers that may be given.
    pub(crate) answers: Semaphore,
    /// Ranges of each `ack`.
    pub(crate) acks: Mutex<Vec<Vec<(u64, u64)>>>,
    /// Messages and bytes of each `credit`.
    pub(crate) credits: Mutex<Vec<(u32, u64)>>,
    /// Messages that wait in the inbox of sandbox `bob`.
    pub(crate) inbox: Mutex<Vec<Message>>,
}

pub(crate) struct Fake {
    pub(crate) seen: Arc<Seen>,
    pub(crate) address: SocketAddr,
    server: JoinHandle<Result<(), tonic::transport::Error>>,
}

impl Fake {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let seen = Arc::new(Seen {
            unavailable: Mutex::default(),
            delay: Mutex::default(),
            unary_ids: Mutex::default(),
            requests: Mutex::default(),
            answers: Semaphore::new(Semaphore::MAX_PERMITS),
            acks: Mutex::default(),
            credits: Mutex::default(),
            inbox: Mutex::default(),
        });
        let service = Service(Arc::clone(&seen));
        let server = Server::builder()
            .add_service(publish::PublishServiceServer::new(service.clone()))
            .add_service(subscribe::SubscribeServiceServer::new(service))
            .serve_with_incoming(TcpListenerStream::new(listener));
        Self { seen, address, server: tokio::spawn(server) }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(self.url()).expect("a good endpoint")
    }

    /// No answer to stream requests until permits are added.
    pub(crate) fn hold_answers(&self) {
        self.seen.answers.forget_permits(Semaphore::MAX_PERMITS);
    }

    /// Returns once so many stream requests have arrived.
    pub(crate) async fn got_requests(&self, count: usize) {
        while self.seen.requests.lock().unwrap().len() < count {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Closes its port. Connections that are open stay so.
    pub(crate) async fn stop(&mut self) {
        self.server.abort();
        assert!((&mut self.server).await.is_err(), "it was serving");
    }
}

#[derive(Clone)]
struct Service(Arc<Seen>);

/// What the broker's errors look like.
pub(crate) fn refusal(code: Code, reason: &str, text: &str) -> Status {
    let details = ErrorDetails::with_error_info(reason, "aintandem", HashMap::new());
    Status::with_error_details(code, text, details)
}

fn proto_status(status: &Status) -> rpc::Status {
    prost::Message::decode(status.details()).expect("details are a google.rpc.Status")
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl publish::PublishService for Service {
    async fn publish(&self, request: Request<PublishRequest>) -> Result<Response<PublishResponse>, Status> {
        let message = request.into_inner().message.unwrap_or_default();
        self.0.unary_ids.lock().unwrap().push(message.message_id.clone());
        let delay = *self.0.delay.lock().unwrap();
        tokio::time::sleep(delay).await;
        if message.content.is_empty() {
            return Err(refusal(Code::InvalidArgument, "CONTENT_EMPTY", "content is empty"));
        }
        let mut unavailable = self.0.unavailable.lock().unwrap();
        if *unavailable > 0 {
            *unavailable -= 1;
            return Err(refusal(Code::Unavailable, "NO_LEADER", "no leader"));
        }
        let server_time = Some(prost_types::Timestamp { seconds: 1, nanos: 0 });
        Ok(Response::new(PublishResponse {
            message_id: message.message_id,
            sequence: 1,
            server_time,
            duplicate: false,
        }))
    }

    type PublishStreamStream = Answers<PublishStreamResponse>;

    async fn publish_stream(
        &self,
        request: Request<Streaming<PublishStreamRequest>>,
    ) -> Result<Response<Self::PublishStreamStream>, Status> {
        let (answers, receiver) = mpsc::channel(1000);
        tokio::spawn(serve_publishes(Arc::clone(&self.0), request.into_inner(), answers));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

/// Contents with a meaning: `refuse` refuses the message, `break` the stream, `hang up` ends it without an answer.
async fn serve_publishes(
    seen: Arc<Seen>,
    mut requests: Streaming<PublishStreamRequest>,
    answers: mpsc::Sender<Result<PublishStreamResponse, Status>>,
) {
    let mut next_sequence = 1;
    let mut ids = HashMap::new();
    while let Ok(Some(request)) = requests.message().await {
        let contents: Vec<_> =
            request.messages.iter().map(|m| String::from_utf8_lossy(&m.content).into_owned()).collect();
        seen.requests.lock().unwrap().push((request.workspace_id, request.request_id, contents.clone()));
        seen.answers.acquire().await.expect("never closed").forget();
        if contents.iter().any(|content| content == "break") {
            answers.send(Err(refusal(Code::Unavailable, "NO_LEADER", "no leader"))).await.ok();
            return;
        }
        if contents.iter().any(|content| content == "hang up") {
            return;
        }
        let mut answer = PublishStreamResponse {
            request_id: request.request_id,
            first_sequence: next_sequence,
            ..PublishStreamResponse::default()
        };
        for (index, message) in request.messages.into_iter().enumerate() {
            let index = index as u32;
            if contents[index as usize] == "refuse" {
                let status = proto_status(&refusal(Code::InvalidArgument, "CONTENT_BAD", "bad content"));
                answer.exceptions.push(PublishException { index, outcome: Some(Outcome::Refusal(status)) });
            } else if let Some(first) = ids.get(&message.message_id).filter(|_| !message.message_id.is_empty()) {
                answer.exceptions.push(PublishException { index, outcome: Some(Outcome::DuplicateOf(*first)) });
            } else {
                ids.insert(message.message_id, answer.first_sequence + u64::from(index));
                answer.accepted += 1;
            }
        }
        if answer.accepted > 0 {
            next_sequence += contents.len() as u64;
        }
        answers.send(Ok(answer)).await.ok();
    }
}

#[tonic::async_trait]
impl subscribe::SubscribeService for Service {
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
        let (answers, receiver) = mpsc::channel(1000);
        tokio::spawn(serve_inbox(Arc::clone(&self.0), requests, answers));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

/// Delivers as far as credit goes, in batches of three; panics when a client exceeds its own window.
async fn serve_inbox(
    seen: Arc<Seen>,
    mut requests: Streaming<SubscribeRequest>,
    answers: mpsc::Sender<Result<SubscribeResponse, Status>>,
) {
    let send = async |kind| answers.send(Ok(SubscribeResponse { kind: Some(kind) })).await.ok();
    send(Kind::Opened(Opened { subscription_id: "sub-1".to_owned() })).await;
    let (mut messages, mut bytes, mut delivered) = (0, 0, 0);
    let mut done = HashSet::new();
    loop {
        let mut batch = Vec::new();
        while messages > 0 && bytes > 0 && batch.len() < 3 && !seen.inbox.lock().unwrap().is_empty() {
            let message = seen.inbox.lock().unwrap().remove(0);
            messages -= 1;
            bytes -= prost::Message::encoded_len(&message) as i64;
            delivered += 1;
            batch.push(Delivery { delivery_id: delivered, attempt: 1, message: Some(message) });
        }
        if !batch.is_empty() {
            send(Kind::DeliveryBatch(DeliveryBatch { deliveries: batch })).await;
            continue;
        }
        let Ok(Some(request)) = requests.message().await else { return };
        match request.kind {
            Some(subscribe_request::Kind::Credit(credit)) => {
                seen.credits.lock().unwrap().push((credit.messages, credit.bytes));
                messages += credit.messages;
                bytes += credit.bytes as i64;
            }
            Some(subscribe_request::Kind::Ack(ack)) => {
                send(Kind::AckOutcome(acknowledge(&seen, &ack, delivered, &mut done))).await;
            }
            _ => return,
        }
    }
}

fn acknowledge(seen: &Seen, ack: &proto::Ack, delivered: u64, done: &mut HashSet<u64>) -> AckOutcome {
    seen.acks.lock().unwrap().push(ack.ranges.iter().map(|range| (range.first, range.last)).collect());
    let mut outcome = AckOutcome::default();
    for range in &ack.ranges {
        if range.last > delivered {
            let status = proto_status(&refusal(Code::NotFound, "DELIVERY_UNKNOWN", "no such delivery"));
            outcome.refusals.push(AckRefusal { range: Some(*range), status: Some(status) });
            continue;
        }
        outcome.acknowledged += (range.first..=range.last).filter(|id| done.insert(*id)).count() as u64;
    }
    outcome
}
