//! The few shapes that commands, outcomes and stored records are made of: big-endian numbers, short texts, byte strings.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Why bytes cannot be read as what they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DecodeError {
    /// Fewer bytes than the shape needs.
    #[error("{0} ends too early")]
    Short(&'static str),
    /// A tag or version that this version does not know.
    #[error("unknown {what} {value}")]
    Unknown {
        /// What the tag stands for.
        what: &'static str,
        /// The tag.
        value: u8,
    },
    /// A text that is not UTF-8.
    #[error("{0} is not UTF-8")]
    Text(&'static str),
    /// Bytes behind the end.
    #[error("{count} bytes too many behind {what}")]
    Trailing {
        /// What was read.
        what: &'static str,
        /// How many bytes are left.
        count: usize,
    },
}

/// Appends a text of at most 255 bytes. Longer ones are refused where they enter the process.
pub(crate) fn put_text(out: &mut BytesMut, text: &str) {
    debug_assert!(text.len() <= usize::from(u8::MAX));
    out.put_u8(text.len() as u8);
    out.put_slice(text.as_bytes());
}

/// Appends a byte string of up to 4 GiB.
pub(crate) fn put_bytes(out: &mut BytesMut, bytes: &[u8]) {
    out.put_u32(bytes.len() as u32);
    out.put_slice(bytes);
}

/// Reads what the functions above wrote.
#[derive(Debug, Clone)]
pub(crate) struct Reader {
    rest: Bytes,
    what: &'static str,
}

impl Reader {
    pub(crate) fn new(bytes: Bytes, what: &'static str) -> Self {
        Self { rest: bytes, what }
    }

    pub(crate) fn u8(&mut self) -> Result<u8, DecodeError> {
        self.rest.try_get_u8().map_err(|_| DecodeError::Short(self.what))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, DecodeError> {
        self.rest.try_get_u32().map_err(|_| DecodeError::Short(self.what))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, DecodeError> {
        self.rest.try_get_u64().map_err(|_| DecodeError::Short(self.what))
    }

    pub(crate) fn take(&mut self, length: usize) -> Result<Bytes, DecodeError> {
        if self.rest.len() < length {
            return Err(DecodeError::Short(self.what));
        }
        Ok(self.rest.split_to(length))
    }

    pub(crate) fn text(&mut self) -> Result<String, DecodeError> {
        let length = usize::from(self.u8()?);
        let bytes = self.take(length)?;
        std::str::from_utf8(&bytes).map(str::to_owned).map_err(|_| DecodeError::Text(self.what))
    }

    pub(crate) fn bytes(&mut self) -> Result<Bytes, DecodeError> {
        let length = self.u32()? as usize;
        self.take(length)
    }

    pub(crate) fn rest(self) -> Bytes {
        self.rest
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Everything has been read.
    pub(crate) fn end(self) -> Result<(), DecodeError> {
        match self.rest.len() {
            0 => Ok(()),
            count => Err(DecodeError::Trailing { what: self.what, count }),
        }
    }
}
