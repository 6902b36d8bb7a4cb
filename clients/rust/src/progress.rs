//! Long calls that tell how far they are.

use futures_util::{Stream, stream};
use tonic::{Response, Status, Streaming};

use crate::{Client, Error};

/// Yields what `open` streams, up to the response that says that all is done. An end before that is an error. The call is
/// made when the stream is first read; the stream ends after the first error.
pub(crate) fn until_done<T, F, Fut>(
    client: Client,
    name: &'static str,
    open: F,
    is_done: fn(&T) -> bool,
) -> impl Stream<Item = Result<T, Error>> + Send
where
    T: Send + 'static,
    F: FnOnce() -> Fut + Send,
    Fut: Future<Output = Result<Response<Streaming<T>>, Status>> + Send,
{
    enum State<F, T> {
        New(F),
        Running(Box<Streaming<T>>),
        Done,
    }
    stream::try_unfold(State::New(open), move |state| {
        let client = client.clone();
        async move {
            let mut responses = match state {
                State::New(open) => Box::new(open().await.map_err(|status| client.error(&status))?.into_inner()),
                State::Running(responses) => responses,
                State::Done => return Ok(None),
            };
            match responses.message().await.map_err(|status| client.error(&status))? {
                Some(last) if is_done(&last) => Ok(Some((last, State::Done))),
                Some(response) => Ok(Some((response, State::Running(responses)))),
                None => Err(Error::StreamEnded { stream: name, unanswered: 1 }),
            }
        }
    })
}
