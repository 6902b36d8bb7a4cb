//! The memory of an engine's first fatal error.

use std::{io, sync::OnceLock};

use crate::Error;

/// Refuses writes after the first fatal error. Going on would be a guess: a failed fsync may have dropped pages, and a
/// later one that succeeds says nothing about them.
#[derive(Debug, Default)]
pub(crate) struct Poison(OnceLock<Cause>);

/// A fatal error in a form that can be handed out again, which [`Error`] is not because of its `io::Error`.
#[derive(Debug)]
enum Cause {
    Full { doing: &'static str },
    Corrupt { doing: &'static str, detail: String },
    Io { doing: &'static str, kind: io::ErrorKind, text: String },
}

impl Poison {
    /// Fails with the first fatal error, if there was one.
    pub(crate) fn check(&self) -> Result<(), Error> {
        match self.0.get() {
            None => Ok(()),
            Some(Cause::Full { doing }) => Err(Error::Full { doing }),
            Some(Cause::Corrupt { doing, detail }) => Err(Error::Corrupt { doing, detail: detail.clone() }),
            Some(Cause::Io { doing, kind, text }) => {
                Err(Error::Io { doing, source: io::Error::new(*kind, text.clone()) })
            }
        }
    }

    /// Remembers the error if it is fatal and the first, and hands it back.
    pub(crate) fn remember(&self, error: Error) -> Error {
        let cause = match &error {
            Error::Locked(_) | Error::Unusable { .. } => return error,
            Error::Full { doing } => Cause::Full { doing },
            Error::Corrupt { doing, detail } => Cause::Corrupt { doing, detail: detail.clone() },
            Error::Io { doing, source } => Cause::Io { doing, kind: source.kind(), text: source.to_string() },
        };
        self.0.get_or_init(|| cause);
        error
    }
}
