//! An answer from another node ends when this node stops, as its own answers do.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http_body::Frame;
use tokio::sync::watch;
use tonic::{Status, body::Body, codegen::http::header};

use crate::grpc::status;

/// What comes from the leader, until this node stops.
pub(super) struct Ending {
    from_leader: Body,
    stopped: BoxFuture<'static, ()>,
    done: bool,
}

impl Ending {
    pub(super) fn body(from_leader: Body, mut stopping: watch::Receiver<bool>) -> Body {
        let stopped = Box::pin(async move {
            while !*stopping.borrow_and_update() {
                if stopping.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        });
        Body::new(Self { from_leader, stopped, done: false })
    }
}

impl http_body::Body for Ending {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.done {
            return Poll::Ready(None);
        }
        let Poll::Ready(frame) = Pin::new(&mut self.from_leader).poll_frame(context) else {
            if self.stopped.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
            self.done = true;
            return Poll::Ready(Some(Ok(trailers(status::shutting_down()))));
        };
        match frame {
            // The connection to the leader broke in the middle of an answer.
            Some(Err(broken)) => {
                self.done = true;
                Poll::Ready(Some(Ok(trailers(status::leader_unreachable(&broken.message())))))
            }
            frame => {
                self.done = frame.is_none();
                Poll::Ready(frame)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.done || self.from_leader.is_end_stream()
    }
}

fn trailers(status: Status) -> Frame<Bytes> {
    let mut headers = status.into_http::<Body>().into_parts().0.headers;
    headers.remove(header::CONTENT_TYPE);
    Frame::trailers(headers)
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    #[tokio::test]
    async fn an_answer_under_way_ends_with_a_reason_when_the_node_stops() {
        let (stop, stopping) = watch::channel(false);
        let endless = futures_util::stream::pending::<Result<Frame<Bytes>, Status>>();
        let body = Ending::body(Body::new(http_body_util::StreamBody::new(endless)), stopping);
        stop.send_replace(true);
        let trailers = body.collect().await.unwrap().trailers().cloned().unwrap();
        assert_eq!(trailers.get("grpc-status").unwrap(), "14");
        assert_eq!(trailers.get(super::super::REASON).unwrap(), "SHUTTING_DOWN");
    }
}
