//! The frames of HTTP/2 as they go by, both ways. What a client may send at any time, and what the library that speaks HTTP/2
//! answers by itself, reaches nothing else of this program: here it is counted, and told to the audit.

use std::time::Instant;

use crate::clock;

/// Bytes before the payload of a frame, and how many of the payload are looked at.
const HEADER: usize = 9;
const START: usize = 8;
/// Types of frames and their flags (RFC 9113).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const NO_ERROR: u32 = 0;
const ENHANCE_YOUR_CALM: u32 = 11;
/// How `:status` begins that is none of the usual ones (RFC 7541): its name stands in the static table, its value does not.
const UNUSUAL_STATUS: [u8; 3] = [0x48, 0x08, 0x18];
/// Bytes of an answer of nothing but such a status, at most.
const MAX_BARE_STATUS: usize = 5;

/// The frame with which a connection ends that was abused; the stream is the last that may have been served: any.
pub(super) const CALM_DOWN: [u8; HEADER + 8] =
    [0, 0, 8, GOAWAY, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, ENHANCE_YOUR_CALM as u8];

/// A frame, as far as it is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frame {
    kind: u8,
    flags: u8,
    /// Bytes of its payload, and what it begins with.
    length: usize,
    start: [u8; START],
}

impl Frame {
    /// Whether it asks for work and carries nothing: a peer may send it at any time, and as often as it likes.
    fn is_idle_talk(&self) -> bool {
        match self.kind {
            DATA => self.length == 0 && self.flags & END_STREAM == 0,
            SETTINGS | PING => self.flags & ACK == 0,
            PRIORITY | WINDOW_UPDATE => true,
            kind => kind > CONTINUATION,
        }
    }

    /// Whether it carries something of an answer.
    fn is_answer(&self) -> bool {
        [DATA, HEADERS].contains(&self.kind)
    }

    /// The error with which it ends the connection.
    pub(super) fn ends_with(&self) -> Option<u32> {
        let error = *self.start.last_chunk()?;
        let error = u32::from_be_bytes(error);
        (self.kind == GOAWAY && self.length >= START && error != NO_ERROR).then_some(error)
    }

    /// Whether it is the answer of the library that the headers of a request are too large: a status, and nothing else. What
    /// comes after the first one of a connection is put shorter, and not found.
    pub(super) fn refuses_headers(&self) -> bool {
        let bare = (2..=MAX_BARE_STATUS).contains(&self.length) && self.flags & END_STREAM != 0;
        self.kind == HEADERS && bare && UNUSUAL_STATUS.contains(&self.start[0])
    }
}

/// Takes apart what goes one way.
pub(super) struct Frames {
    /// Bytes that are of no interest, before the next frame begins.
    skip: usize,
    head: [u8; HEADER + START],
    have: usize,
}

impl Frames {
    /// `skip`: bytes before the first frame.
    pub(super) fn after(skip: usize) -> Self {
        Self { skip, head: [0; HEADER + START], have: 0 }
    }

    /// Whether a frame begins with the next byte.
    pub(super) fn at_frame(&self) -> bool {
        self.skip == 0 && self.have == 0
    }

    /// Goes through some bytes, and shows each frame once as much has come of it as is looked at.
    pub(super) fn read(&mut self, mut bytes: &[u8], mut found: impl FnMut(Frame)) {
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            let wanted = if self.have < HEADER { HEADER } else { HEADER + self.length().min(START) };
            let taken = (wanted - self.have).min(bytes.len());
            self.head[self.have..self.have + taken].copy_from_slice(&bytes[..taken]);
            self.have += taken;
            bytes = &bytes[taken..];
            let length = self.length();
            if self.have >= HEADER && self.have == HEADER + length.min(START) {
                let mut start = [0; START];
                let seen = self.have - HEADER;
                start[..seen].copy_from_slice(&self.head[HEADER..self.have]);
                (self.skip, self.have) = (length - seen, 0);
                found(Frame { kind: self.head[3], flags: self.head[4], length, start });
            }
        }
    }

    fn length(&self) -> usize {
        let [high, middle, low, ..] = self.head;
        usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low)
    }
}

/// How much idle talk a connection may still make: some at once, some each second, and more by what it was answered. Clients
/// that measure the line send pings, and give back windows, as fast as answers come.
pub(super) struct Patience {
    left: u64,
    looked: Instant,
}

impl Patience {
    const MOST: u64 = 10_000;
    const PER_SECOND: u64 = 1_000;
    const PER_ANSWER: u64 = 4;

    pub(super) fn new() -> Self {
        Self { left: Self::MOST, looked: clock::now() }
    }

    /// A frame was sent to the peer.
    pub(super) fn sent(&mut self, frame: &Frame) {
        if frame.is_answer() {
            self.left = Self::MOST.min(self.left + Self::PER_ANSWER);
        }
    }

    /// A frame has come of the peer; false: it was one too many.
    pub(super) fn bears(&mut self, frame: &Frame) -> bool {
        if !frame.is_idle_talk() {
            return true;
        }
        if self.left == 0 {
            let passed = clock::now().saturating_duration_since(self.looked);
            let earned = (passed.as_millis() as u64).saturating_mul(Self::PER_SECOND) / 1_000;
            if earned > 0 {
                self.looked = clock::now();
                self.left = Self::MOST.min(earned);
            }
        }
        self.left = match self.left.checked_sub(1) {
            Some(left) => left,
            None => return false,
        };
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = (payload.len() as u32).to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, 0], payload].concat()
    }

    fn all(frames: &mut Frames, bytes: &[u8]) -> Vec<Frame> {
        let mut found = Vec::new();
        frames.read(bytes, |frame| found.push(frame));
        found
    }

    #[test]
    fn frames_are_the_same_however_they_are_cut() {
        let sent = [
            vec![7; 24],
            frame(SETTINGS, 0, &[1; 12]),
            frame(SETTINGS, ACK, &[]),
            frame(DATA, 0, &[9; 70_000]),
            frame(PING, 0, &[3; 8]),
            frame(HEADERS, 5, &[0x48, 1, 2]),
        ]
        .concat();
        let whole = all(&mut Frames::after(24), &sent);
        let kinds: Vec<_> = whole.iter().map(|frame| (frame.kind, frame.length)).collect();
        assert_eq!(kinds, [(SETTINGS, 12), (SETTINGS, 0), (DATA, 70_000), (PING, 8), (HEADERS, 3)]);
        assert_eq!(whole[4].start[..4], [0x48, 1, 2, 0]);
        for size in [1, 2, 5, 9, 16, 17, 1_000] {
            let mut frames = Frames::after(24);
            let cut: Vec<_> = sent.chunks(size).flat_map(|part| all(&mut frames, part)).collect();
            assert_eq!(cut, whole, "in parts of {size}");
            assert!(frames.at_frame());
        }
        let mut frames = Frames::after(0);
        all(&mut frames, &sent[24..30]);
        assert!(!frames.at_frame(), "in a header");
    }

    #[test]
    fn the_frames_that_refuse_are_found() {
        let of = |bytes: Vec<u8>| all(&mut Frames::after(0), &bytes)[0];
        assert_eq!(of(frame(GOAWAY, 0, &[0, 0, 0, 1, 0, 0, 0, 11, b'x'])).ends_with(), Some(11));
        assert_eq!(of(CALM_DOWN.to_vec()).ends_with(), Some(ENHANCE_YOUR_CALM));
        assert_eq!(of(frame(GOAWAY, 0, &[0; 8])).ends_with(), None, "an end in order");
        assert_eq!(of(frame(PING, 0, &[1; 8])).ends_with(), None);
        assert!(of(frame(HEADERS, 5, &[0x48, 0x83, 1, 2, 3])).refuses_headers());
        assert!(!of(frame(HEADERS, 4, &[0x48, 0x83, 1, 2, 3])).refuses_headers(), "more comes");
        assert!(!of(frame(HEADERS, 5, &[0x88, 1, 2])).refuses_headers(), "200");
        assert!(!of(frame(HEADERS, 5, &[0xbe])).refuses_headers(), "trailers");
    }

    #[test]
    fn patience_has_an_end_and_comes_back_with_time_and_answers() {
        let of = |kind, flags, payload: &[u8]| all(&mut Frames::after(0), &frame(kind, flags, payload))[0];
        let (ping, answer) = (of(PING, 0, &[0; 8]), of(DATA, 0, &[1]));
        let mut patience = Patience::new();
        let borne = |patience: &mut Patience| (0..20_000).take_while(|_| patience.bears(&ping)).count() as u64;
        assert!(borne(&mut patience) >= Patience::MOST);
        for quiet in [of(PING, ACK, &[0; 8]), of(SETTINGS, ACK, &[]), of(DATA, 0, &[1]), of(DATA, END_STREAM, &[])] {
            assert!((0..20_000).all(|_| patience.bears(&quiet)), "{quiet:?}");
        }
        for idle in [of(SETTINGS, 0, &[]), of(DATA, 0, &[]), of(WINDOW_UPDATE, 0, &[1; 4]), of(0xee, 0, &[])] {
            let mut patience = Patience::new();
            assert!(!(0..20_000).all(|_| patience.bears(&idle)), "{idle:?}");
        }
        patience.sent(&answer);
        assert!(borne(&mut patience) >= Patience::PER_ANSWER);
        patience.sent(&ping);
        // As if the last one had come a second ago.
        patience.looked -= Duration::from_secs(1);
        let borne = borne(&mut patience);
        assert!((Patience::PER_SECOND..2 * Patience::PER_SECOND).contains(&borne), "{borne}");
    }
}
