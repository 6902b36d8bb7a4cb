//! The smallest HTTP client that reads a page, or sends one.

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

impl Answer {
    /// A line of the head; its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(": ")?;
            found.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    /// The body, in JSON.
    ///
    /// # Panics
    /// When it is none.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// Reads one page.
///
/// # Panics
/// When nobody answers, or not in HTTP.
pub async fn get(address: SocketAddr, path: &str) -> Answer {
    ask(address, ("GET", path), &[], "").await
}

/// Sends a request with these lines in its head, and with a body.
///
/// # Panics
/// When nobody answers, or not in HTTP.
pub async fn ask(
    address: SocketAddr,
    (method, path): (&str, &str),
    lines: &[(&str, &str)],
    body: impl AsRef<[u8]>,
) -> Answer {
    send(address, (method, path, "1.0"), lines, body.as_ref()).await
}

/// The same in HTTP/1.1, which some things need, for an answer after which the connection ends.
///
/// # Panics
/// When nobody answers, or not in HTTP.
pub async fn ask_1_1(address: SocketAddr, (method, path): (&str, &str), lines: &[(&str, &str)]) -> Answer {
    let last = [("Connection", "close")];
    let lines: Vec<_> = lines.iter().chain(&last).copied().collect();
    send(address, (method, path, "1.1"), &lines, &[]).await
}

async fn send(
    address: SocketAddr,
    (method, path, version): (&str, &str, &str),
    lines: &[(&str, &str)],
    body: &[u8],
) -> Answer {
    let mut connection = TcpStream::connect(address).await.expect("somebody listens on the port");
    let lines: String = lines.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    let head = format!("{method} {path} HTTP/{version}\r\nHost: {address}\r\n{lines}{length}\r\n");
    connection.write_all(head.as_bytes()).await.expect("the request is taken");
    // Whoever refuses a body does not read it to its end.
    connection.write_all(body).await.ok();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.expect("the answer is text");
    let (head, body) = answer.split_once("\r\n\r\n").expect("an HTTP answer has a head");
    let status =
        head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("an HTTP answer begins with its status");
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}
