//! A request that must have come by a time: who begins many and ends none holds nothing for long.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::time::Sleep;
use tonic::{Status, body::Body};

use crate::rejection::{Reason, Rejection};

/// A body that ends with an error when it is late.
pub(crate) struct Hurried {
    inner: Body,
    limit: Duration,
    /// Made when something is waited for: mostly all is there at once.
    late: Option<Pin<Box<Sleep>>>,
}

impl Hurried {
    /// With so much time, from when something is missing.
    pub(crate) fn body(inner: Body, limit: Duration) -> Body {
        Body::new(Self { inner, limit, late: None })
    }
}

impl http_body::Body for Hurried {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(context) {
            return Poll::Ready(frame);
        }
        let limit = self.limit;
        let late = self.late.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        ready!(late.as_mut().poll(context));
        Poll::Ready(Some(Err(too_slow(limit).into())))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// What somebody is told who takes too long.
pub(crate) fn too_slow(limit: Duration) -> Rejection {
    let text = format!("the request did not come within {} ms; send smaller ones", limit.as_millis());
    Rejection::new(Reason::RequestTooSlow, text)
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt as _, StreamBody};
    use tokio_stream::StreamExt as _;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    fn frames(every: Duration, count: usize) -> Body {
        let frames = tokio_stream::iter(0..count).then(move |_| async move {
            tokio::time::sleep(every).await;
            Ok::<_, Status>(Frame::data(Bytes::from_static(b"x")))
        });
        Hurried::body(Body::new(StreamBody::new(frames)), LIMIT)
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_in_time_is_taken_and_what_does_not_ends() {
        let in_time = frames(Duration::from_secs(5), 11).collect().await.unwrap();
        assert_eq!(in_time.to_bytes().len(), 11);
        let late = frames(Duration::from_secs(5), 13).collect().await.unwrap_err();
        assert_eq!(late.code(), tonic::Code::DeadlineExceeded);
        let never = StreamBody::new(tokio_stream::pending::<Result<Frame<Bytes>, Status>>());
        let never = Hurried::body(Body::new(never), LIMIT);
        assert!(never.collect().await.is_err());
    }
}
