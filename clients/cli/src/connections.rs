//! Connections for many streams.

use tandem_client::Client;

use crate::{exit::Failure, run::Context};

/// Streams that share one connection. An HTTP/2 server admits a limited number of streams per connection, often 100 or
/// 200, and the others would wait for ever; 64 keeps clear of that and a thousand subscriptions on 16 sockets.
const STREAMS_PER_CONNECTION: usize = 64;

/// A connection for each 64 streams.
#[derive(Debug)]
pub(crate) struct Connections {
    clients: Vec<Client>,
}

impl Connections {
    /// Enough for so many streams; at least one.
    pub(crate) fn for_streams(context: &Context, streams: usize) -> Result<Self, Failure> {
        let count = streams.div_ceil(STREAMS_PER_CONNECTION).max(1);
        let clients = (0..count).map(|_| context.client()).collect::<Result<_, _>>()?;
        Ok(Self { clients })
    }

    pub(crate) fn count(&self) -> usize {
        self.clients.len()
    }

    /// Which connection the stream with this index uses.
    pub(crate) fn index_of(stream: usize) -> usize {
        stream / STREAMS_PER_CONNECTION
    }

    /// The connection of the stream with this index, below the number that was asked for.
    pub(crate) fn of(&self, stream: usize) -> &Client {
        &self.clients[Self::index_of(stream)]
    }

    /// Any connection, for unary calls.
    pub(crate) fn first(&self) -> &Client {
        &self.clients[0]
    }
}
