//! The smallest HTTP client that reads a page.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// What an HTTP server answered.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Such as 200.
    pub status: u16,
    /// The lines before the body, the first one included.
    pub head: String,
    /// The body.
    pub body: String,
}

/// Reads one page.
///
/// # Panics
/// When nobody answers, or not in HTTP.
pub async fn get(address: SocketAddr, path: &str) -> Answer {
    let mut connection = TcpStream::connect(address).await.expect("somebody listens on the metrics port");
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n");
    connection.write_all(request.as_bytes()).await.expect("the request is taken");
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.expect("the answer is text");
    let (head, body) = answer.split_once("\r\n\r\n").expect("an HTTP answer has a head");
    let status =
        head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("an HTTP answer begins with its status");
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}
