//! The end of a connection that was abused. It is said why, and that is waited for a little: who closes while something lies
//! unread takes back what he has said last.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Sleep,
};

use super::frames::CALM_DOWN;

/// How long the end may take, and how many bytes are still taken meanwhile.
const LINGER: Duration = Duration::from_secs(1);
const MAX_UNHEARD_BYTES: usize = 1 << 20;

/// See above.
pub(super) struct Farewell {
    until: Pin<Box<Sleep>>,
    said: bool,
    unheard: usize,
}

impl Farewell {
    pub(super) fn new() -> Self {
        Self { until: Box::pin(tokio::time::sleep(LINGER)), said: false, unheard: 0 }
    }

    /// What is left to be done: first the last frame, as soon as none is half written, and then to hear nothing any more.
    /// Resolves when the connection can be closed.
    pub(super) fn poll<S>(&mut self, context: &mut Context<'_>, stream: &mut S, at_frame: bool) -> Poll<io::Error>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut stream = Pin::new(stream);
        if !self.said && at_frame {
            self.said = stream.as_mut().poll_write(context, &CALM_DOWN).is_ready();
        }
        let mut gone = false;
        if self.said {
            gone = matches!(stream.as_mut().poll_shutdown(context), Poll::Ready(Err(_)));
            let mut unheard = [0; 4 << 10];
            while !gone && self.unheard < MAX_UNHEARD_BYTES {
                let mut unheard = ReadBuf::new(&mut unheard);
                match stream.as_mut().poll_read(context, &mut unheard) {
                    Poll::Ready(read) => {
                        gone = read.is_err() || unheard.filled().is_empty();
                        self.unheard += unheard.filled().len();
                    }
                    Poll::Pending => break,
                }
            }
        }
        if !gone {
            ready!(self.until.as_mut().poll(context));
        }
        Poll::Ready(io::Error::other("the connection was abused"))
    }

    /// Whether nothing more is sent.
    pub(super) fn is_said(&self) -> bool {
        self.said
    }
}
