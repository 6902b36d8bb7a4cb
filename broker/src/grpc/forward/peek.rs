//! Reads the beginning of a request, until it is known for which workspace it is, and gives it back as it was.

use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf, Bytes};
use http_body::Frame;
use http_body_util::BodyExt as _;
use tonic::{Status, body::Body};

/// Compression flag and length before each message.
const MESSAGE_PREFIX: usize = 5;

/// How much is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    /// All there is: one message.
    All,
    /// Until the workspace is known.
    Workspace,
}

/// A request of which some is read.
pub(super) struct Peeked {
    frames: VecDeque<Bytes>,
    workspace: Option<String>,
    /// What was not read; None when all was.
    rest: Option<Body>,
}

impl Peeked {
    /// The workspace, where the request names one.
    pub(super) fn workspace(&self) -> Option<&str> {
        self.workspace.as_deref()
    }

    /// Whether all of it was read, so that it can be sent more than once.
    pub(super) fn is_complete(&self) -> bool {
        self.rest.is_none()
    }

    /// What was read, as a body of its own.
    pub(super) fn replay(&self) -> Body {
        Body::new(Replay { frames: self.frames.clone(), rest: None })
    }

    /// The whole request.
    pub(super) fn into_body(self) -> Body {
        Body::new(Replay { frames: self.frames, rest: self.rest })
    }
}

/// Reads `body`; what is larger than `limit` is not read to its end.
pub(super) async fn read(mut body: Body, reading: Reading, limit: usize) -> Result<Peeked, Status> {
    let mut frames = VecDeque::new();
    let (mut bytes, mut workspace, mut found, mut enough) = (0, None, false, 0);
    while bytes <= limit && !(found && reading == Reading::Workspace) {
        let Some(frame) = body.frame().await else {
            return Ok(Peeked { frames, workspace, rest: None });
        };
        let Ok(data) = frame?.into_data() else { continue };
        bytes += data.len();
        frames.push_back(data);
        if !found && bytes >= enough {
            match first_field(&frames) {
                Ok(first) => (workspace, found) = (first, true),
                Err(bytes) => enough = bytes,
            }
        }
    }
    Ok(Peeked { frames, workspace, rest: Some(body) })
}

/// The text in field 1 of the first message; Ok(None) when it has none. While it cannot be told: with how many bytes to try
/// again, twice as many or the whole message, so that one that comes in small pieces is not read over and over.
fn first_field(frames: &VecDeque<Bytes>) -> Result<Option<String>, usize> {
    // Requests name their workspace within the first bytes; joined only until that is found.
    let joined: Bytes = match frames.len() {
        1 => frames[0].clone(),
        _ => frames.iter().flat_map(|frame| frame.iter().copied()).collect(),
    };
    let Some(prefix) = joined.first_chunk::<MESSAGE_PREFIX>() else { return Err(MESSAGE_PREFIX) };
    let length = (&prefix[1..]).get_u32() as usize;
    if prefix[0] != 0 {
        return Ok(None);
    }
    let message = &joined[MESSAGE_PREFIX..];
    let whole = message.len() >= length;
    match scan(&message[..message.len().min(length)]) {
        Scan::Found(text) => Ok(String::from_utf8(text.to_vec()).ok()),
        Scan::Short if !whole => Err((2 * joined.len()).min(MESSAGE_PREFIX + length)),
        _ => Ok(None),
    }
}

enum Scan<'a> {
    Found(&'a [u8]),
    /// It ends before the field, or within it.
    Short,
    Malformed,
}

fn scan(mut message: &[u8]) -> Scan<'_> {
    while !message.is_empty() {
        let Some(key) = varint(&mut message) else { return Scan::Short };
        let skipped = match key & 7 {
            0 => match varint(&mut message) {
                Some(_) => 0,
                None => return Scan::Short,
            },
            1 => 8,
            5 => 4,
            2 => {
                let Some(length) = varint(&mut message) else { return Scan::Short };
                let Ok(length) = usize::try_from(length) else { return Scan::Malformed };
                if key >> 3 == 1 {
                    return message.get(..length).map_or(Scan::Short, Scan::Found);
                }
                length
            }
            _ => return Scan::Malformed,
        };
        let Some(left) = message.get(skipped..) else { return Scan::Short };
        message = left;
    }
    Scan::Short
}

fn varint(from: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for (place, byte) in from.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * place).min(63);
        if byte & 0x80 == 0 {
            *from = &from[place + 1..];
            return Some(value);
        }
    }
    None
}

/// What was read, then the rest.
struct Replay {
    frames: VecDeque<Bytes>,
    rest: Option<Body>,
}

impl http_body::Body for Replay {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Some(frame) = self.frames.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(frame))));
        }
        match &mut self.rest {
            Some(rest) => Pin::new(rest).poll_frame(context),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.frames.is_empty() && self.rest.as_ref().is_none_or(|rest| rest.is_end_stream())
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use tandem_proto::raw::messaging::v1::PublishRequest;

    use super::*;

    fn request(workspace_id: &str) -> Vec<u8> {
        let message =
            PublishRequest { workspace_id: workspace_id.into(), message: vec![7; 300].into(), producer: None };
        let encoded = message.encode_to_vec();
        [&[0][..], &(encoded.len() as u32).to_be_bytes(), &encoded].concat()
    }

    async fn all(body: Body) -> Vec<u8> {
        body.collect().await.unwrap().to_bytes().to_vec()
    }

    #[tokio::test]
    async fn the_workspace_is_found_however_the_request_is_cut() {
        let wire = request("team/blue");
        for cut in 1..wire.len() {
            let frames = VecDeque::from([wire[..cut].to_vec().into(), wire[cut..].to_vec().into()]);
            let body = Body::new(Replay { frames: frames.clone(), rest: None });
            let peeked = read(body, Reading::Workspace, 1 << 20).await.unwrap();
            assert_eq!(peeked.workspace(), Some("team/blue"), "cut at {cut}");
            assert_eq!(all(peeked.into_body()).await, wire);
            let peeked = read(Body::new(Replay { frames, rest: None }), Reading::All, 1 << 20).await.unwrap();
            assert!(peeked.is_complete());
            assert_eq!((all(peeked.replay()).await, all(peeked.replay()).await), (wire.clone(), wire.clone()));
        }
    }

    #[tokio::test]
    async fn a_request_in_small_pieces_is_looked_at_a_few_times() {
        // The workspace is its last field.
        let blue = b"\x0a\x04blue";
        let message = [&[0x12, 0x80, 0x80, 0x04][..], &vec![7; 1 << 16], blue].concat();
        let wire = [&[0][..], &(message.len() as u32).to_be_bytes(), &message].concat();
        let (mut frames, mut looks, mut enough) = (VecDeque::new(), 0, 0);
        for (at, byte) in wire.iter().enumerate() {
            frames.push_back(Bytes::copy_from_slice(&[*byte]));
            if at + 1 >= enough {
                looks += 1;
                match first_field(&frames) {
                    Ok(found) => assert_eq!((found.as_deref(), at + 1), (Some("blue"), wire.len())),
                    Err(bytes) => enough = bytes,
                }
            }
        }
        assert!(looks < 20, "{looks} looks");
        let frames: VecDeque<Bytes> = wire.chunks(100).map(Bytes::copy_from_slice).collect();
        let peeked = read(Body::new(Replay { frames, rest: None }), Reading::Workspace, 1 << 20).await.unwrap();
        assert_eq!(peeked.workspace(), Some("blue"));
    }

    #[tokio::test]
    async fn what_names_no_workspace_is_passed_on_as_it_is() {
        for wire in [vec![], vec![0, 0], request(""), vec![1, 0, 0, 0, 1, 9], vec![0, 0, 0, 0, 2, 0xff, 0xff]] {
            let body = Body::new(Replay { frames: VecDeque::from([wire.clone().into()]), rest: None });
            let peeked = read(body, Reading::Workspace, 1 << 20).await.unwrap();
            assert_eq!(peeked.workspace(), None, "{wire:?}");
            assert_eq!(all(peeked.into_body()).await, wire);
        }
    }

    #[tokio::test]
    async fn a_request_that_is_too_large_is_not_kept() {
        let frames = VecDeque::from(vec![Bytes::from(vec![0; 1_000]); 10]);
        let peeked = read(Body::new(Replay { frames, rest: None }), Reading::All, 2_000).await.unwrap();
        assert!(!peeked.is_complete());
        assert_eq!(all(peeked.into_body()).await.len(), 10_000);
    }
}
