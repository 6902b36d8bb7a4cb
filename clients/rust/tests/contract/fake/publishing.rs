//! Takes messages, and knows ids and producers.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use tandem_proto::messaging::v1::{
    Message, ProducerPosition, PublishException, PublishRequest, PublishResponse, PublishStreamRequest,
    PublishStreamResponse, publish_exception::Outcome, publish_service_server::PublishService,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status, Streaming};

use super::{Answers, Service, proto_status, refusal};

#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Unary publishes to answer with UNAVAILABLE first.
    pub(crate) unavailable: Mutex<u32>,
    /// Who leads, as answers to unary publishes say.
    pub(crate) leader: Mutex<Option<String>>,
    /// How long a unary publish takes.
    pub(crate) delay: Mutex<Duration>,
    /// Message ids of unary publishes.
    pub(crate) unary_ids: Mutex<Vec<String>>,
    /// Stream requests: workspace, id, contents.
    pub(crate) requests: Mutex<Vec<(String, u64, Vec<String>)>>,
    /// Producers of all publishes.
    pub(crate) producers: Mutex<Vec<Option<ProducerPosition>>>,
    log: Mutex<Log>,
}

/// What was accepted: the sequences by message id, and by number of each producer.
#[derive(Debug, Default)]
struct Log {
    last_sequence: u64,
    ids: HashMap<String, u64>,
    numbers: HashMap<(String, u64), u64>,
    newest: HashMap<String, u64>,
}

impl Log {
    /// Judges a message for the place at `sequence`.
    fn judge(&mut self, message: &Message, position: Option<&ProducerPosition>, sequence: u64) -> Option<Outcome> {
        if let Some(ProducerPosition { producer_id, sequence: number }) = position {
            if let Some(first) = self.numbers.get(&(producer_id.clone(), *number)) {
                return Some(Outcome::DuplicateOf(*first));
            }
            let newest = self.newest.entry(producer_id.clone()).or_insert(number - 1);
            if *number > *newest + 1 {
                let status = refusal(Code::FailedPrecondition, "PRODUCER_GAP", "messages are missing");
                return Some(Outcome::Refusal(proto_status(&status)));
            }
            *newest = *number;
        }
        if message.content == "refuse" {
            let status = refusal(Code::InvalidArgument, "CONTENT_BAD", "bad content");
            return Some(Outcome::Refusal(proto_status(&status)));
        }
        if let Some(first) = self.ids.get(&message.message_id).filter(|_| !message.message_id.is_empty()) {
            return Some(Outcome::DuplicateOf(*first));
        }
        self.ids.insert(message.message_id.clone(), sequence);
        if let Some(ProducerPosition { producer_id, sequence: number }) = position {
            self.numbers.insert((producer_id.clone(), *number), sequence);
        }
        None
    }
}

#[tonic::async_trait]
impl PublishService for Service {
    async fn publish(&self, request: Request<PublishRequest>) -> Result<Response<PublishResponse>, Status> {
        let seen = &self.0.publishing;
        let PublishRequest { message, producer, .. } = request.into_inner();
        let message = message.unwrap_or_default();
        seen.unary_ids.lock().unwrap().push(message.message_id.clone());
        seen.producers.lock().unwrap().push(producer.clone());
        let delay = *seen.delay.lock().unwrap();
        tokio::time::sleep(delay).await;
        if message.content.is_empty() {
            return Err(refusal(Code::InvalidArgument, "CONTENT_EMPTY", "content is empty"));
        }
        // Accepted or not before the answer is lost: whoever repeats must not care.
        let mut log = seen.log.lock().unwrap();
        let sequence = log.last_sequence + 1;
        let (sequence, duplicate) = match log.judge(&message, producer.as_ref(), sequence) {
            Some(Outcome::DuplicateOf(first)) => (first, true),
            Some(Outcome::Refusal(status)) => return Err(refusal(Code::from(status.code), "REFUSED", &status.message)),
            Some(Outcome::ApprovalId(_)) => unreachable!("this log holds nothing for approval"),
            None => {
                log.last_sequence = sequence;
                (sequence, false)
            }
        };
        let mut unavailable = seen.unavailable.lock().unwrap();
        if *unavailable > 0 {
            *unavailable -= 1;
            return Err(refusal(Code::Unavailable, "NO_LEADER", "no leader"));
        }
        let server_time = Some(prost_types::Timestamp { seconds: 1, nanos: 0 });
        let answer =
            PublishResponse { message_id: message.message_id, sequence, server_time, duplicate, approval_id: 0 };
        let mut answer = Response::new(answer);
        if let Some(leader) = &*seen.leader.lock().unwrap() {
            answer.metadata_mut().insert("aintandem-leader", leader.parse().expect("fits into a header"));
        }
        Ok(answer)
    }

    type PublishStreamStream = Answers<PublishStreamResponse>;

    async fn publish_stream(
        &self,
        request: Request<Streaming<PublishStreamRequest>>,
    ) -> Result<Response<Self::PublishStreamStream>, Status> {
        let (answers, receiver) = mpsc::channel(1000);
        tokio::spawn(serve(Arc::clone(&self.0), request.into_inner(), answers));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

/// Contents with a meaning: `refuse` refuses the message, `break` the stream, `hang up` ends it without an answer, `swallow`
/// accepts and then does so.
async fn serve(
    seen: Arc<super::Seen>,
    mut requests: Streaming<PublishStreamRequest>,
    answers: mpsc::Sender<Result<PublishStreamResponse, Status>>,
) {
    while let Ok(Some(request)) = requests.message().await {
        let contents: Vec<_> =
            request.messages.iter().map(|m| String::from_utf8_lossy(&m.content).into_owned()).collect();
        let told = (request.workspace_id.clone(), request.request_id, contents.clone());
        seen.publishing.requests.lock().unwrap().push(told);
        seen.publishing.producers.lock().unwrap().push(request.producer.clone());
        seen.answers.acquire().await.expect("never closed").forget();
        let has = |what: &str| contents.iter().any(|content| content == what);
        if has("break") {
            answers.send(Err(refusal(Code::Unavailable, "NO_LEADER", "no leader"))).await.ok();
            return;
        }
        if has("hang up") {
            return;
        }
        let answer = accept(&seen, request);
        if has("swallow") {
            return;
        }
        answers.send(Ok(answer)).await.ok();
    }
}

fn accept(seen: &super::Seen, request: PublishStreamRequest) -> PublishStreamResponse {
    let mut log = seen.publishing.log.lock().unwrap();
    let mut answer = PublishStreamResponse {
        request_id: request.request_id,
        first_sequence: log.last_sequence + 1,
        ..PublishStreamResponse::default()
    };
    for (index, message) in request.messages.iter().enumerate() {
        let place = index as u64;
        let position = request.producer.clone().map(|p| ProducerPosition { sequence: p.sequence + place, ..p });
        match log.judge(message, position.as_ref(), answer.first_sequence + place) {
            None => answer.accepted += 1,
            outcome => answer.exceptions.push(PublishException { index: index as u32, outcome }),
        }
    }
    if answer.accepted > 0 {
        log.last_sequence += request.messages.len() as u64;
    }
    answer
}
