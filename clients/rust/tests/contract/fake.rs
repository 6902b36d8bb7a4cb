//! A server that knows just enough of the contract to test a client, and can misbehave on demand.

mod administration;
mod feeds;
mod inbox;
mod publishing;
mod requests;

use std::{collections::HashMap, net::SocketAddr, pin::Pin, sync::Arc, time::Duration};

use tandem_client::Client;
use tandem_proto::{
    google::rpc,
    messaging::v1::{
        dead_letter_service_server::DeadLetterServiceServer, event_service_server::EventServiceServer,
        history_service_server::HistoryServiceServer, publish_service_server::PublishServiceServer,
        request_service_server::RequestServiceServer, subscribe_service_server::SubscribeServiceServer,
        topic_service_server::TopicServiceServer,
    },
    registry::v1::registry_service_server::RegistryServiceServer,
    workspace::v1::workspace_service_server::WorkspaceServiceServer,
};
use tokio::{net::TcpListener, sync::Semaphore, task::JoinHandle};
use tokio_stream::{Stream, wrappers::TcpListenerStream};
use tonic::{Code, Status, transport::Server};
use tonic_types::{ErrorDetails, StatusExt as _};

pub(crate) use self::inbox::End;

/// What the server saw and how it shall behave.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) publishing: publishing::Seen,
    /// Answers to publish streams that may be given.
    pub(crate) answers: Semaphore,
    pub(crate) inbox: inbox::Seen,
    pub(crate) requests: requests::Seen,
    pub(crate) feeds: feeds::Seen,
    pub(crate) administration: administration::Seen,
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
            publishing: publishing::Seen::default(),
            answers: Semaphore::new(Semaphore::MAX_PERMITS),
            inbox: inbox::Seen::default(),
            requests: requests::Seen::default(),
            feeds: feeds::Seen::default(),
            administration: administration::Seen::default(),
        });
        let service = Service(Arc::clone(&seen));
        let server = Server::builder()
            .add_service(PublishServiceServer::new(service.clone()))
            .add_service(SubscribeServiceServer::new(service.clone()))
            .add_service(RequestServiceServer::new(service.clone()))
            .add_service(HistoryServiceServer::new(service.clone()))
            .add_service(EventServiceServer::new(service.clone()))
            .add_service(TopicServiceServer::new(service.clone()))
            .add_service(DeadLetterServiceServer::new(service.clone()))
            .add_service(WorkspaceServiceServer::new(service.clone()))
            .add_service(RegistryServiceServer::new(service))
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
        while self.seen.publishing.requests.lock().unwrap().len() < count {
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
    let details = ErrorDetails::with_error_info(reason, "aintandem.dev", HashMap::new());
    Status::with_error_details(code, text, details)
}

/// What the broker says when it cannot serve for a while.
pub(crate) fn unavailable() -> Status {
    refusal(Code::Unavailable, "NOT_LEADER", "another node leads")
}

fn proto_status(status: &Status) -> rpc::Status {
    prost::Message::decode(status.details()).expect("details are a google.rpc.Status")
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;
