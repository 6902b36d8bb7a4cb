//! A connection that was dialed. With TLS 1.3 it is there before the other side has judged this node's certificate: a refusal comes
//! in place of the first bytes.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;

/// See the module.
pub(super) struct Dialed {
    stream: TlsStream<TcpStream>,
    /// The other side has said something, so it accepts this node.
    is_accepted: bool,
}

impl Dialed {
    pub(super) fn new(stream: TlsStream<TcpStream>) -> Self {
        Self { stream, is_accepted: false }
    }
}

impl AsyncRead for Dialed {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = ready!(Pin::new(&mut self.stream).poll_read(cx, buf));
        if buf.filled().len() > before {
            self.is_accepted = true;
        }
        Poll::Ready(read.map_err(|error| if self.is_accepted { error } else { explained(error) }))
    }
}

/// An alert comes as `InvalidData`. `Unsupported` is how replication hears that this is about TLS.
fn explained(error: io::Error) -> io::Error {
    if error.kind() != io::ErrorKind::InvalidData {
        return error;
    }
    let text = format!(
        "the other side did not accept this node's certificate: {error}. It must be signed by an authority in cluster.tls_ca_file \
         over there; where it has an extended key usage, it needs clientAuth and serverAuth"
    );
    io::Error::new(io::ErrorKind::Unsupported, text)
}

impl AsyncWrite for Dialed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
