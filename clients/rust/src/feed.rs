//! Streams that are read from a cursor, and go on by themselves when the broker was away.

use std::collections::VecDeque;

use futures_util::{Stream, stream};
use tonic::{Code, Status, Streaming};

use crate::{Client, Error, clock};

/// What is streamed, and from where.
pub(crate) trait Source {
    /// What the broker sends.
    type Response: Send + 'static;
    /// What the caller takes.
    type Item: Send;

    /// As errors name the stream.
    const NAME: &'static str;

    /// Opens a stream that begins at the cursor.
    fn open(&self, cursor: u64) -> impl Future<Output = Result<Streaming<Self::Response>, Status>> + Send;

    /// The items of a response, and the cursor behind them.
    fn unpack(response: Self::Response) -> (Vec<Self::Item>, u64);

    /// Where an item stands; the cursor behind it is one more.
    fn position(item: &Self::Item) -> u64;

    /// Whether only the caller ends the stream.
    fn follows(&self) -> bool;

    /// The last position wanted; 0 for no limit.
    fn last(&self) -> u64;
}

/// Reads a [`Source`]. After a break it is opened again at the cursor, `resume_attempts` times in a row; a first opening
/// that fails is an error at once.
pub(crate) struct Feed<S: Source> {
    client: Client,
    source: S,
    streaming: Option<Box<Streaming<S::Response>>>,
    /// Came together, and are handed out one by one. Bounded by one response.
    ready: VecDeque<S::Item>,
    /// Behind what was handed out.
    cursor: u64,
    /// Behind what was received.
    received: u64,
    began: bool,
    ended: bool,
    /// Attempts to go on since the last response.
    attempts: u32,
}

impl<S: Source> Feed<S> {
    pub(crate) fn new(client: Client, source: S, from: u64) -> Self {
        Self {
            client,
            source,
            streaming: None,
            ready: VecDeque::new(),
            cursor: from,
            received: from,
            began: false,
            ended: false,
            attempts: 0,
        }
    }

    /// Returns once the first response is here. From then on the cursor is a place, also when "from now on" was asked for: who
    /// keeps it from the beginning misses nothing.
    pub(crate) async fn begin(&mut self) -> Result<(), Error> {
        self.read().await?;
        self.cursor = self.ready.front().map_or(self.received, S::position);
        Ok(())
    }

    /// Where to go on behind what was handed out.
    pub(crate) fn cursor(&self) -> u64 {
        self.cursor
    }

    /// The next item; None at the end. Safe to cancel. After an error the next call tries again from the cursor.
    pub(crate) async fn next(&mut self) -> Result<Option<S::Item>, Error> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                let last = self.ready.is_empty();
                self.cursor = if last { self.received } else { S::position(&item).saturating_add(1) };
                return Ok(Some(item));
            }
            self.cursor = self.received;
            if self.ended {
                return Ok(None);
            }
            self.read().await?;
        }
    }

    /// All items; ends after the first error.
    pub(crate) fn into_stream(self) -> impl Stream<Item = Result<S::Item, Error>> + Send
    where
        S: Send + Sync,
    {
        stream::try_unfold(self, async |mut feed: Self| Ok(feed.next().await?.map(|item| (item, feed))))
    }

    /// Takes in one response, or arranges for a new stream.
    async fn read(&mut self) -> Result<(), Error> {
        match self.response().await {
            Ok(Some(response)) => self.take(response),
            Ok(None) if !self.source.follows() => {
                self.ended = true;
                Ok(())
            }
            Ok(None) => self.go_on_after(self.client.stream_broke_off()).await,
            Err(error) => self.go_on_after(error).await,
        }
    }

    async fn response(&mut self) -> Result<Option<S::Response>, Error> {
        let streaming = loop {
            match &mut self.streaming {
                Some(streaming) => break streaming,
                None if self.began && self.source.last() > 0 && self.received > self.source.last() => return Ok(None),
                None => {
                    let opened = self.source.open(self.received).await;
                    self.streaming = Some(Box::new(opened.map_err(|status| self.client.error(&status))?));
                }
            }
        };
        streaming.message().await.map_err(|status| self.client.error(&status))
    }

    fn take(&mut self, response: S::Response) -> Result<(), Error> {
        let (items, next) = S::unpack(response);
        let positions = || items.iter().map(S::position);
        let is_sorted = positions().is_sorted_by(|before, after| before < after);
        let starts_late = positions().next().is_none_or(|first| first >= self.received);
        let ends_early = positions().next_back().is_none_or(|last| last < next);
        if next == 0 || next < self.received || !is_sorted || !starts_late || !ends_early {
            self.streaming = None;
            let (name, count, received) = (S::NAME, items.len(), self.received);
            return Err(Error::Contract(format!(
                "the {name} stream goes on at {next} after {count} items out of place; it was at {received}"
            )));
        }
        self.ready = items.into();
        self.received = next;
        self.began = true;
        self.attempts = 0;
        Ok(())
    }

    async fn go_on_after(&mut self, error: Error) -> Result<(), Error> {
        self.streaming = None;
        let may_go_on = self.began && error.code() == Code::Unavailable;
        if !may_go_on || self.attempts >= self.client.settings().resume_attempts {
            self.attempts = 0;
            return Err(error);
        }
        self.attempts += 1;
        let wait = clock::pause(error.retry_delay(), self.attempts);
        tracing::debug!(%error, attempt = self.attempts, ?wait, cursor = self.received, "the {} stream goes on", S::NAME);
        tokio::time::sleep(wait).await;
        Ok(())
    }
}
