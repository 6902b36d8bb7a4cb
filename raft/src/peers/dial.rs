//! How nodes reach each other: TCP, or whatever a test puts in its place.

use std::{io, time::Duration};

use futures_util::future::BoxFuture;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
};

/// A connection, as bytes in both directions.
pub trait Wire: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Wire for T {}

/// Reaches other nodes.
pub trait Dial: Send + Sync + 'static {
    /// A new connection to a node, at its address in the member list.
    ///
    /// # Errors
    /// When the node cannot be reached; it is tried again.
    fn dial<'a>(&'a self, node_id: u64, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Wire>>>;
}

/// Lets other nodes in.
pub trait Accept: Send + 'static {
    /// The next connection that comes in.
    ///
    /// # Errors
    /// When none can be taken right now.
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Box<dyn Wire>>>;
}

/// Reaches nodes by TCP, at `host:port`. Names are looked up each time.
#[derive(Debug)]
pub struct TcpDial;

/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

impl Dial for TcpDial {
    fn dial<'a>(&'a self, _node_id: u64, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Wire>>> {
        Box::pin(async move {
            let connecting = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address));
            let stream = connecting.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as Box<dyn Wire>)
        })
    }
}

impl Accept for TcpListener {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Box<dyn Wire>>> {
        Box::pin(async move {
            let (stream, _) = TcpListener::accept(self).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as Box<dyn Wire>)
        })
    }
}
