//! Answers requests in everybody's place.

use std::{sync::Mutex, time::Duration};

use tandem_proto::messaging::v1::{
    Message, MessageType, RequestRequest, RequestResponse, request_service_server::RequestService,
};
use tonic::{Code, Request, Response, Status};

use super::{Service, refusal, unavailable};

#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) calls: Mutex<Vec<RequestRequest>>,
    /// Calls to answer with UNAVAILABLE first.
    pub(crate) unavailable: Mutex<u32>,
}

/// Contents with a meaning: `die` has the request become a dead letter, `silence` gets no response.
#[tonic::async_trait]
impl RequestService for Service {
    async fn request(&self, request: Request<RequestRequest>) -> Result<Response<RequestResponse>, Status> {
        let seen = &self.0.requests;
        let call = request.into_inner();
        let asked = call.message.clone().unwrap_or_default();
        let resumed = {
            let mut calls = seen.calls.lock().unwrap();
            calls.push(call.clone());
            calls.len() > 1
        };
        {
            let mut left = seen.unavailable.lock().unwrap();
            if *left > 0 {
                *left -= 1;
                return Err(unavailable());
            }
        }
        let mut message = Message {
            r#type: MessageType::Response.into(),
            from_sandbox_id: "bob".to_owned(),
            correlation_id: asked.correlation_id,
            content: "done".into(),
            ..Message::default()
        };
        if asked.content == "silence" {
            let timeout = call.timeout.unwrap_or_default();
            tokio::time::sleep(Duration::try_from(timeout).unwrap_or_default()).await;
            return Err(refusal(Code::DeadlineExceeded, "RESPONSE_TIMEOUT", "no response came in time"));
        }
        if asked.content == "die" {
            message.metadata.insert("aintandem-error".to_owned(), "ATTEMPTS_EXHAUSTED".to_owned());
            message.content = r#"{"error":"ATTEMPTS_EXHAUSTED","text":"all 5 attempts failed","sequence":41}"#.into();
        }
        Ok(Response::new(RequestResponse { message: Some(message), request_sequence: 41, resumed }))
    }
}
