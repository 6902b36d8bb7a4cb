//! HTTP/2 as somebody speaks it who does as he likes: frames by hand, and calls with any header and body.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::SOON;

pub(super) const GREETING: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Types of frames, and errors that end a connection (RFC 9113).
pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const PRIORITY: u8 = 2;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;
/// None of RFC 9113, which has them ignored.
pub(super) const UNHEARD_OF: u8 = 0xba;
pub(super) const FLOW_CONTROL_ERROR: u32 = 3;
pub(super) const FRAME_SIZE_ERROR: u32 = 6;
pub(super) const ENHANCE_YOUR_CALM: u32 = 11;
pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A field of a header, neither indexed nor compressed.
pub(super) fn field(name: &str, value: &str) -> Vec<u8> {
    let text = |text: &str| {
        let mut length = Vec::new();
        match text.len() {
            small if small < 127 => length.push(small as u8),
            large => {
                length.push(127);
                let mut rest = large - 127;
                while rest >= 128 {
                    length.push(rest as u8 | 128);
                    rest >>= 7;
                }
                length.push(rest as u8);
            }
        }
        [length, text.as_bytes().to_vec()].concat()
    };
    [vec![0], text(name), text(value)].concat()
}

pub(super) fn call(path: &str) -> Vec<u8> {
    [
        field(":method", "POST"),
        field(":scheme", "http"),
        field(":path", path),
        field(":authority", "x"),
        field("content-type", "application/grpc"),
        field("te", "trailers"),
    ]
    .concat()
}

pub(super) const INFO: &str = "/aintandem.server.v1.ServerService/GetServerInfo";

/// A connection of somebody who speaks HTTP/2 as he likes.
pub(super) struct Raw(pub(super) TcpStream);

impl Raw {
    pub(super) async fn connect(address: SocketAddr) -> Self {
        let mut raw = Self(TcpStream::connect(address).await.unwrap());
        raw.0.write_all(&[GREETING, &frame(SETTINGS, 0, 0, &[])].concat()).await.unwrap();
        raw
    }

    /// Sends for as long as the other side takes it, and returns the error with which it ends the connection; None: it does
    /// not, or says nothing.
    pub(super) async fn flood(self, frames: impl Iterator<Item = Vec<u8>> + Send + 'static) -> Option<u32> {
        let (mut reading, mut writing) = self.0.into_split();
        let sending = tokio::spawn(async move {
            for frame in frames {
                if writing.write_all(&frame).await.is_err() {
                    return;
                }
            }
            // What was said last is answered before this end goes.
            tokio::time::sleep(Duration::from_secs(2)).await;
        });
        let ending = async {
            loop {
                let mut header = [0; 9];
                reading.read_exact(&mut header).await.ok()?;
                let length = u32::from_be_bytes([0, header[0], header[1], header[2]]);
                let mut payload = vec![0; length as usize];
                reading.read_exact(&mut payload).await.ok()?;
                if header[3] == GOAWAY {
                    return payload.get(4..8).map(|error| u32::from_be_bytes(error.try_into().unwrap()));
                }
            }
        };
        let ended = timeout(SOON, ending).await.ok().flatten();
        sending.abort();
        ended
    }
}

pub(super) fn request(path: &str, token: &str) -> http::request::Builder {
    http::Request::post(format!("http://x{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("authorization", format!("Bearer {token}"))
}

/// The status of a call with these headers and this body.
pub(super) async fn status(
    address: SocketAddr,
    request: http::request::Builder,
    body: Vec<u8>,
) -> Option<(String, String)> {
    let (send, connection) = h2::client::handshake(TcpStream::connect(address).await.unwrap()).await.unwrap();
    tokio::spawn(connection);
    let mut send = send.ready().await.unwrap();
    let (answer, mut sending) = send.send_request(request.body(()).unwrap(), false).ok()?;
    sending.send_data(Bytes::from(body), true).ok();
    let answer = timeout(SOON, answer).await.unwrap().ok()?;
    let read =
        |headers: &http::HeaderMap, name: &str| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    if let Some(status) = read(answer.headers(), "grpc-status") {
        return Some((status, read(answer.headers(), "grpc-message").unwrap_or_default()));
    }
    if answer.status() != 200 {
        return Some((answer.status().to_string(), String::new()));
    }
    let mut body = answer.into_body();
    while let Some(part) = body.data().await {
        let part = part.ok()?;
        body.flow_control().release_capacity(part.len()).unwrap();
    }
    let trailers = body.trailers().await.ok()??;
    Some((read(&trailers, "grpc-status")?, read(&trailers, "grpc-message").unwrap_or_default()))
}

/// A message of gRPC, and whether it is said to be compressed.
pub(super) fn message(compressed: bool, body: &[u8]) -> Vec<u8> {
    [&[u8::from(compressed)][..], &(body.len() as u32).to_be_bytes(), body].concat()
}
