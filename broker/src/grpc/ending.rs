//! An answer that goes on until something else happens: this node stops, or what its caller has proven does not hold any
//! more. It ends with the reason then, as an answer of the service itself would.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http_body::Frame;
use tonic::{Status, body::Body, codegen::http::header};

use crate::grpc::status;

/// What comes from elsewhere, until it is to end.
pub(crate) struct Ending {
    inner: Body,
    end: BoxFuture<'static, Status>,
    when: When,
    done: bool,
}

/// How an answer ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    /// Whatever is there to be said.
    AtOnce,
    /// Once nothing is there to be said right now.
    Idle,
}

impl Ending {
    /// `end` resolves with the reason.
    pub(crate) fn body(inner: Body, end: BoxFuture<'static, Status>, when: When) -> Body {
        Body::new(Self { inner, end, when, done: false })
    }
}

impl http_body::Body for Ending {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.done {
            return Poll::Ready(None);
        }
        if self.when == When::AtOnce
            && let Poll::Ready(status) = self.end.as_mut().poll(context)
        {
            self.done = true;
            return Poll::Ready(Some(Ok(trailers(status))));
        }
        let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(context) else {
            // The other kind has been asked above.
            let ends = self.when == When::Idle;
            let Poll::Ready(status) = (if ends { self.end.as_mut().poll(context) } else { Poll::Pending }) else {
                return Poll::Pending;
            };
            self.done = true;
            return Poll::Ready(Some(Ok(trailers(status))));
        };
        match frame {
            // The connection to the leader broke in the middle of an answer; what is made here does not break.
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
        self.done || self.inner.is_end_stream()
    }
}

fn trailers(status: Status) -> Frame<Bytes> {
    let mut headers = status.into_http::<Body>().into_parts().0.headers;
    headers.remove(header::CONTENT_TYPE);
    Frame::trailers(headers)
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;
    use http_body_util::BodyExt as _;

    use super::*;

    #[tokio::test]
    async fn an_answer_ends_with_a_reason_when_it_is_idle_or_at_once() {
        let word = || Ok::<_, Status>(Frame::data(Bytes::from_static(b"word")));
        for (when, words) in [(When::Idle, 3), (When::AtOnce, 0)] {
            let stream = futures_util::stream::iter((0..3).map(move |_| word())).chain(futures_util::stream::pending());
            let end = Box::pin(async { status::shutting_down() });
            let body = Ending::body(Body::new(http_body_util::StreamBody::new(stream)), end, when);
            let collected = body.collect().await.unwrap();
            let trailers = collected.trailers().cloned().unwrap();
            assert_eq!(trailers.get("grpc-status").unwrap(), "14");
            assert_eq!(trailers.get(crate::grpc::forward::REASON).unwrap(), "SHUTTING_DOWN");
            assert_eq!(collected.to_bytes().len(), words * 4, "{when:?}");
        }
    }
}
