//! Whose data a directory holds: checked before anything in it is opened.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use tandem_storage::DirectoryLock;

use crate::{clock, config::StorageConfig, error::StartError};

/// The version of everything that lies in a data directory. Raised when an older broker could not read it.
const FORMAT: u32 = 2;

/// The file `IDENTITY`, in TOML.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    format: u32,
    pub(crate) cluster_id: String,
    pub(crate) node_id: u64,
    pub(crate) shards: u32,
}

/// A data directory that this process owns.
#[derive(Debug)]
pub(crate) struct DataDir {
    pub(crate) path: PathBuf,
    pub(crate) identity: Identity,
    /// Whether this start created it.
    pub(crate) is_new: bool,
    _lock: DirectoryLock,
}

impl DataDir {
    /// Locks the directory, and checks or writes whose it is.
    pub(crate) fn open(path: &Path, node_id: u64, storage: &StorageConfig) -> Result<Self, StartError> {
        let lock = DirectoryLock::acquire(path)?;
        let file = path.join("IDENTITY");
        let wanted = Identity { format: FORMAT, cluster_id: clock::new_id(), node_id, shards: storage.shards };
        let (identity, is_new) = match fs::read_to_string(&file) {
            Ok(text) => (check(path, &text, &wanted)?, false),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                write(&file, &wanted).map_err(|error| unusable(path, format!("cannot be written: {error}")))?;
                (wanted, true)
            }
            Err(error) => return Err(unusable(path, format!("has an unreadable IDENTITY file: {error}"))),
        };
        Ok(Self { path: path.to_owned(), identity, is_new, _lock: lock })
    }
}

fn check(path: &Path, text: &str, wanted: &Identity) -> Result<Identity, StartError> {
    #[derive(Deserialize)]
    struct OnlyFormat {
        format: u32,
    }
    let broken = |error: toml::de::Error| unusable(path, format!("has a damaged IDENTITY file: {}", error.message()));
    let OnlyFormat { format } = toml::from_str(text).map_err(broken)?;
    if format != FORMAT {
        return Err(StartError::DataDirectory {
            path: path.to_owned(),
            fault: format!("has format {format}, and this version reads format {FORMAT}"),
            advice: "start the version that wrote it, or choose another directory".into(),
        });
    }
    let found: Identity = toml::from_str(text).map_err(broken)?;
    if found.node_id != wanted.node_id {
        return Err(StartError::DataDirectory {
            path: path.to_owned(),
            fault: format!("belongs to node {}, not to node {}", found.node_id, wanted.node_id),
            advice: format!("set node_id to {}, or choose another directory", found.node_id),
        });
    }
    if found.shards != wanted.shards {
        return Err(StartError::DataDirectory {
            path: path.to_owned(),
            fault: format!("was created with {} shards, not {}", found.shards, wanted.shards),
            advice: format!("set storage.shards to {}; the number cannot change", found.shards),
        });
    }
    Ok(found)
}

fn write(file: &Path, identity: &Identity) -> std::io::Result<()> {
    let text = toml::to_string(identity).map_err(std::io::Error::other)?;
    let temporary = file.with_extension("new");
    let mut out = fs::File::create(&temporary)?;
    out.write_all(text.as_bytes())?;
    out.sync_all()?;
    fs::rename(&temporary, file)?;
    file.parent().map_or(Ok(()), |dir| fs::File::open(dir)?.sync_all())
}

fn unusable(path: &Path, fault: String) -> StartError {
    let advice = "check its permissions, or choose another directory".into();
    StartError::DataDirectory { path: path.to_owned(), fault, advice }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(path: &Path, node_id: u64, shards: u32) -> Result<DataDir, StartError> {
        DataDir::open(path, node_id, &StorageConfig { shards, ..StorageConfig::default() })
    }

    #[test]
    fn a_directory_keeps_its_identity() {
        let dir = tempfile::tempdir().unwrap();
        let first = open(dir.path(), 1, 4).unwrap().identity;
        assert_eq!(open(dir.path(), 1, 4).unwrap().identity, first);
    }

    #[test]
    fn strangers_are_refused_with_advice() {
        let dir = tempfile::tempdir().unwrap();
        drop(open(dir.path(), 1, 4).unwrap());
        let text = open(dir.path(), 2, 4).unwrap_err().to_string();
        assert!(text.contains("belongs to node 1") && text.contains("set node_id to 1"), "{text}");
        let text = open(dir.path(), 1, 8).unwrap_err().to_string();
        assert!(text.contains("4 shards, not 8"), "{text}");
        fs::write(dir.path().join("IDENTITY"), "format = 99\nsomething = \"new\"\n").unwrap();
        let text = open(dir.path(), 1, 4).unwrap_err().to_string();
        assert!(text.contains("format 99") && text.contains("start the version that wrote it"), "{text}");
        fs::write(dir.path().join("IDENTITY"), "rubbish").unwrap();
        assert!(open(dir.path(), 1, 4).unwrap_err().to_string().contains("damaged IDENTITY"));
    }

    #[test]
    fn a_directory_in_use_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let _held = open(dir.path(), 1, 4).unwrap();
        assert_eq!(open(dir.path(), 1, 4).unwrap_err().code(), "STORAGE_LOCKED");
    }
}
