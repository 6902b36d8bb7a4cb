//! What can go wrong with bytes on disk.

use std::{io, path::PathBuf};

/// An error of the storage layer. None of them is cured by trying the same call again on the same engine. After
/// [`Error::Full`], make room and open the engine again; what was durable is still there.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process holds the directory.
    #[error("data directory {0} is in use by another process; stop that process or choose another directory")]
    Locked(PathBuf),
    /// The directory cannot be used as it is.
    #[error("data directory {path} cannot be opened: {reason}")]
    Unusable {
        /// The directory.
        path: PathBuf,
        /// What is wrong and what to do.
        reason: String,
    },
    /// The disk is full; the batch is not durable.
    #[error("disk full while {doing}; free space and start the node again")]
    Full {
        /// The operation that failed.
        doing: &'static str,
    },
    /// Bytes read are not the bytes written.
    #[error(
        "corrupt data while {doing}: {detail}; restore the data directory from a backup, or in a cluster replace the node (tandem cluster replace)"
    )]
    Corrupt {
        /// The operation that failed.
        doing: &'static str,
        /// What was found.
        detail: String,
    },
    /// The disk refused an operation, so what is durable is unknown.
    #[error("storage failed while {doing}: {source}; the node must stop, because it cannot know what is durable")]
    Io {
        /// The operation that failed.
        doing: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl Error {
    /// Whether the process must stop rather than go on with this engine. A failed fsync must never be tried again: the
    /// kernel may have dropped the pages.
    pub fn is_fatal(&self) -> bool {
        !matches!(self, Self::Locked(_) | Self::Unusable { .. })
    }

    /// A stable code for logs and clients.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Locked(_) => "STORAGE_LOCKED",
            Self::Unusable { .. } => "STORAGE_UNUSABLE",
            Self::Full { .. } => "STORAGE_FULL",
            Self::Corrupt { .. } => "STORAGE_CORRUPT",
            Self::Io { .. } => "STORAGE_FAILED",
        }
    }

    /// An error of the operating system: a full disk or quota is `Full`, everything else `Io`.
    pub(crate) fn from_io(doing: &'static str, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full { doing },
            _ => Self::Io { doing, source },
        }
    }

    /// The answer to a space that the engine was not opened with. A mistake of the caller, so nothing is applied and the
    /// engine stays usable.
    pub(crate) fn unknown_space(path: impl Into<PathBuf>, space: crate::Space, known: usize) -> Self {
        let reason = format!("space {} was asked for, but the engine was opened with {known} spaces", space.0);
        Self::Unusable { path: path.into(), reason }
    }
}
