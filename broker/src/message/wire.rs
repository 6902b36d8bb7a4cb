//! The protobuf wire format, read in place.

use bytes::{BufMut as _, BytesMut};

use crate::rejection::Rejection;

/// Appends a number.
pub(crate) fn put_varint(out: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

/// The fields of an encoded message, in the order in which they stand.
pub(crate) struct Fields<'a> {
    what: &'static str,
    rest: &'a [u8],
}

/// The value of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    Varint(u64),
    Fixed64,
    Bytes(&'a [u8]),
    Fixed32,
}

impl<'a> Fields<'a> {
    pub(crate) fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Self { what, rest: bytes }
    }

    /// What was not read yet.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    fn malformed(&self, how: &str) -> Rejection {
        Rejection::field(self.what, format!("{} is not valid protobuf: {how}", self.what))
    }

    fn varint(&mut self) -> Result<u64, Rejection> {
        let mut value = 0_u64;
        for (position, byte) in self.rest.iter().enumerate().take(10) {
            if position == 9 && *byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << (7 * position);
            if byte & 0x80 == 0 {
                self.rest = &self.rest[position + 1..];
                return Ok(value);
            }
        }
        Err(self.malformed("a number does not end"))
    }

    fn skip(&mut self, length: usize) -> Result<&'a [u8], Rejection> {
        match self.rest.split_at_checked(length) {
            Some((taken, rest)) => {
                self.rest = rest;
                Ok(taken)
            }
            None => Err(self.malformed("it ends too early")),
        }
    }

    fn field(&mut self) -> Result<(u64, Value<'a>), Rejection> {
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Value::Varint(self.varint()?),
            1 => self.skip(8).map(|_| Value::Fixed64)?,
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| self.malformed("a length is too large"))?;
                Value::Bytes(self.skip(length)?)
            }
            5 => self.skip(4).map(|_| Value::Fixed32)?,
            other => return Err(self.malformed(&format!("wire type {other}"))),
        };
        match tag >> 3 {
            0 => Err(self.malformed("field number 0")),
            number => Ok((number, value)),
        }
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Value<'a>), Rejection>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.rest = &[];
        }
        Some(field)
    }
}

impl<'a> Value<'a> {
    pub(crate) fn varint(&self, field: &'static str) -> Result<u64, Rejection> {
        match self {
            Self::Varint(value) => Ok(*value),
            _ => Err(wrong_type(field)),
        }
    }

    pub(crate) fn bytes(&self, field: &'static str) -> Result<&'a [u8], Rejection> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            _ => Err(wrong_type(field)),
        }
    }

    pub(crate) fn text(&self, field: &'static str) -> Result<&'a str, Rejection> {
        let bytes = self.bytes(field)?;
        std::str::from_utf8(bytes).map_err(|error| {
            Rejection::field(field, format!("{field} is not valid UTF-8 at byte {}", error.valid_up_to()))
        })
    }
}

fn wrong_type(field: &'static str) -> Rejection {
    Rejection::field(field, format!("{field} has the wrong protobuf type"))
}
