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
    /// A text that does not say what it should.
    #[error("{0} cannot be read by this version")]
    Unreadable(&'static str),
    /// Numbers that should rise and do not.
    #[error("the numbers of {0} are out of order")]
    Disorder(&'static str),
    /// Bytes behind the end.
    #[error("{count} bytes too many behind {what}")]
    Trailing {
        /// What was read.
        what: &'static str,
        /// How many bytes are left.
        count: usize,
    },
}

/// Appends a text of at most 255 bytes. Longer ones are refused where they enter the process; one that comes here all the same is cut,
/// because a length that is wrong would make what follows unreadable.
pub(crate) fn put_text(out: &mut BytesMut, text: &str) {
    debug_assert!(text.len() <= usize::from(u8::MAX));
    let text = &text[..text.floor_char_boundary(usize::from(u8::MAX))];
    out.put_u8(text.len() as u8);
    out.put_slice(text.as_bytes());
}

/// Appends a byte string of up to 4 GiB.
pub(crate) fn put_bytes(out: &mut BytesMut, bytes: &[u8]) {
    out.put_u32(bytes.len() as u32);
    out.put_slice(bytes);
}

/// A value with one encoding, for commands, outcomes and stored records.
pub(crate) trait Field: Sized {
    /// Appends the value.
    fn put(&self, out: &mut BytesMut);

    /// Reads what `put` wrote.
    fn get(reader: &mut Reader) -> Result<Self, DecodeError>;

    /// The value alone.
    fn to_bytes(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(64);
        self.put(&mut out);
        out.freeze()
    }

    /// Reads a value that is all there is.
    fn from_bytes(bytes: Bytes, what: &'static str) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes, what);
        let value = Self::get(&mut reader)?;
        reader.end()?;
        Ok(value)
    }
}

/// Declares a structure that is encoded as its fields, one after the other.
macro_rules! encoded {
    ($(#[$meta:meta])* $visibility:vis struct $name:ident {
        $($(#[$field_meta:meta])* $field_visibility:vis $field:ident: $type:ty,)*
    }) => {
        $(#[$meta])*
        $visibility struct $name { $($(#[$field_meta])* $field_visibility $field: $type,)* }

        impl $crate::encoding::Field for $name {
            fn put(&self, out: &mut bytes::BytesMut) {
                let _ = &out;
                $($crate::encoding::Field::put(&self.$field, out);)*
            }

            fn get(reader: &mut $crate::encoding::Reader) -> Result<Self, $crate::encoding::DecodeError> {
                let _ = &reader;
                Ok(Self { $($field: $crate::encoding::Field::get(reader)?,)* })
            }
        }
    };
}
pub(crate) use encoded;

macro_rules! number_fields {
    ($($type:ty: $put:ident, $get:ident;)*) => {
        $(impl Field for $type {
            fn put(&self, out: &mut BytesMut) {
                out.$put(*self);
            }

            fn get(reader: &mut Reader) -> Result<Self, DecodeError> {
                reader.rest.$get().map_err(|_| DecodeError::Short(reader.what))
            }
        })*
    };
}

number_fields! {
    u8: put_u8, try_get_u8;
    u16: put_u16, try_get_u16;
    u32: put_u32, try_get_u32;
    u64: put_u64, try_get_u64;
    u128: put_u128, try_get_u128;
}

impl Field for () {
    fn put(&self, _: &mut BytesMut) {}

    fn get(_: &mut Reader) -> Result<Self, DecodeError> {
        Ok(())
    }
}

impl Field for bool {
    fn put(&self, out: &mut BytesMut) {
        out.put_u8(u8::from(*self));
    }

    fn get(reader: &mut Reader) -> Result<Self, DecodeError> {
        match reader.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            value => Err(DecodeError::Unknown { what: "truth value", value }),
        }
    }
}

/// Up to 255 bytes, as `put_text` writes it.
impl Field for String {
    fn put(&self, out: &mut BytesMut) {
        put_text(out, self);
    }

    fn get(reader: &mut Reader) -> Result<Self, DecodeError> {
        reader.text()
    }
}

impl Field for Bytes {
    fn put(&self, out: &mut BytesMut) {
        put_bytes(out, self);
    }

    fn get(reader: &mut Reader) -> Result<Self, DecodeError> {
        reader.bytes()
    }
}

impl<T: Field> Field for Option<T> {
    fn put(&self, out: &mut BytesMut) {
        self.is_some().put(out);
        if let Some(value) = self {
            value.put(out);
        }
    }

    fn get(reader: &mut Reader) -> Result<Self, DecodeError> {
        if bool::get(reader)? { T::get(reader).map(Some) } else { Ok(None) }
    }
}

impl<T: Field> Field for Vec<T> {
    fn put(&self, out: &mut BytesMut) {
        out.put_u32(self.len() as u32);
        self.iter().for_each(|value| value.put(out));
    }

    fn get(reader: &mut Reader) -> Result<Self, DecodeError> {
        // Not reserved beforehand: the count may be anything.
        let mut values = Vec::new();
        for _ in 0..reader.u32()? {
            values.push(T::get(reader)?);
        }
        Ok(values)
    }
}

impl<A: Field, B: Field> Field for (A, B) {
    fn put(&self, out: &mut BytesMut) {
        self.0.put(out);
        self.1.put(out);
    }

    fn get(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok((A::get(reader)?, B::get(reader)?))
    }
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

    pub(crate) fn take_rest(&mut self) -> Bytes {
        self.rest.split_off(0)
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
