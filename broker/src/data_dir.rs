//! Whose data a directory holds: checked before anything in it is opened.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Write as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use tandem_storage::DirectoryLock;

use crate::{
    clock,
    config::{Config, EngineKind},
    error::StartError,
};

/// The version of everything that lies in a data directory. Raised when an older broker could not read it.
const FORMAT: u32 = 3;

/// The file `IDENTITY`, in TOML.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    format: u32,
    pub(crate) cluster_id: String,
    pub(crate) node_id: u64,
    pub(crate) shards: u32,
    /// Drawn when the directory was created: tells it from another one of a node with the same id.
    #[serde(default)]
    pub(crate) disk_id: String,
    /// The nodes that its cluster had when it became one of them, as `n1=host:port`; none for a node that is alone.
    #[serde(default)]
    pub(crate) members: Vec<String>,
    /// Whether it joined a cluster that was there, and so never makes one.
    #[serde(default)]
    pub(crate) joined: bool,
    /// Whether it still waits for that.
    #[serde(default)]
    pub(crate) waits: bool,
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
    /// Locks the directory, and checks or writes whose it is. The members of the cluster come from the settings, and where
    /// those are silent from the directory.
    pub(crate) fn open(config: &Config) -> Result<Self, StartError> {
        let path = &config.data_dir;
        let lock = DirectoryLock::acquire(path)?;
        let file = path.join("IDENTITY");
        let cluster = &config.cluster;
        let wanted = Identity {
            format: FORMAT,
            cluster_id: if cluster.id.is_empty() { clock::new_id() } else { cluster.id.clone() },
            node_id: config.node_id,
            shards: config.storage.shards,
            disk_id: clock::new_id(),
            members: cluster.members.clone(),
            joined: cluster.join,
            waits: cluster.join,
        };
        let (mut identity, is_new) = match fs::read_to_string(&file) {
            Ok(text) => (check(path, &text, &wanted, &cluster.id)?, false),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let mut identity = wanted;
                if cluster.join {
                    identity.cluster_id.clone_from(&cluster.id);
                } else {
                    cluster.validate_bootstrap()?;
                }
                if cluster.id.is_empty() && !identity.members.is_empty() && !cluster.join {
                    identity.cluster_id = derived_id(&cluster.addresses()?);
                }
                write(&file, &identity).map_err(|error| unusable(path, format!("cannot be written: {error}")))?;
                (identity, true)
            }
            Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                return Err(damaged(path, "it is not a text"));
            }
            Err(error) => return Err(unusable(path, format!("has an unreadable IDENTITY file: {error}"))),
        };
        if config.storage.engine == EngineKind::Memory {
            // What a node in memory acknowledged is gone with its process, so it is another one for its peers.
            identity.disk_id = clock::new_id();
        }
        Ok(Self { path: path.clone(), identity, is_new, _lock: lock })
    }

    /// Notes that a cluster has taken this node in, and who its members are.
    pub(crate) fn admit(&mut self, cluster_id: String, members: &BTreeMap<u64, String>) -> Result<(), StartError> {
        let members = members.iter().map(|(id, address)| format!("n{id}={address}")).collect();
        let identity = Identity { cluster_id, members, waits: false, ..self.identity.clone() };
        let file = self.path.join("IDENTITY");
        write(&file, &identity).map_err(|error| unusable(&self.path, format!("cannot be written: {error}")))?;
        self.identity = identity;
        Ok(())
    }
}

/// The name of a cluster that was given none: the same on every node that was told the same members.
fn derived_id(members: &BTreeMap<u64, String>) -> String {
    let text: String = members.iter().map(|(id, address)| format!("{id}={address}\n")).collect();
    format!("{:032x}", xxhash_rust::xxh3::xxh3_128(text.as_bytes()))
}

fn check(path: &Path, text: &str, wanted: &Identity, cluster_id: &str) -> Result<Identity, StartError> {
    #[derive(Deserialize)]
    struct OnlyFormat {
        format: u32,
    }
    let broken = |error: toml::de::Error| damaged(path, error.message());
    if !is_as_written(text) {
        return Err(damaged(path, "its checksum does not match"));
    }
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
    if !cluster_id.is_empty() && found.cluster_id != cluster_id {
        return Err(StartError::DataDirectory {
            path: path.to_owned(),
            fault: format!("belongs to cluster {}, not to cluster {cluster_id}", found.cluster_id),
            advice: format!("set cluster.id to {}, or choose another directory", found.cluster_id),
        });
    }
    check_members(path, &found, wanted)?;
    if found.shards != wanted.shards {
        return Err(StartError::DataDirectory {
            path: path.to_owned(),
            fault: format!("was created with {} shards, not {}", found.shards, wanted.shards),
            advice: format!("set storage.shards to {}; the number cannot change", found.shards),
        });
    }
    if wanted.members.is_empty() {
        return Ok(found);
    }
    Ok(Identity { members: with_new_addresses(&found, &wanted.members), ..found })
}

/// Addresses may change by a setting; who the members are is what the cluster says.
fn with_new_addresses(found: &Identity, wanted: &[String]) -> Vec<String> {
    let newer = |member: &String| wanted.iter().find(|wanted| id_of(wanted) == id_of(member)).unwrap_or(member).clone();
    if found.waits { wanted.to_vec() } else { found.members.iter().map(newer).collect() }
}

fn id_of(member: &str) -> Option<String> {
    member.split_once('=').map(|(name, _)| name.trim().trim_start_matches('n').to_owned())
}

fn check_members(path: &Path, found: &Identity, wanted: &Identity) -> Result<(), StartError> {
    let ids = |members: &[String]| members.iter().filter_map(|member| id_of(member)).collect::<BTreeSet<_>>();
    let (has, asked) = (ids(&found.members), ids(&wanted.members));
    // Members come and go, so the settings may be older or newer than the directory.
    if asked.is_empty() || has.iter().any(|id| asked.contains(id) && *id != found.node_id.to_string()) {
        return Ok(());
    }
    let list = |ids: &BTreeSet<String>| ids.iter().cloned().collect::<Vec<_>>().join(", ");
    let (fault, advice) = if has.is_empty() {
        (
            "was created for a node that is alone".to_owned(),
            "leave cluster.members out, or choose another directory".to_owned(),
        )
    } else {
        let fault = format!("was created for the nodes {}, not for {}", list(&has), list(&asked));
        (fault, "name nodes of its cluster in cluster.members, or choose another directory".to_owned())
    };
    Err(StartError::DataDirectory { path: path.to_owned(), fault, advice })
}

fn write(file: &Path, identity: &Identity) -> std::io::Result<()> {
    let text = with_checksum(&toml::to_string(identity).map_err(std::io::Error::other)?);
    let temporary = file.with_extension("new");
    let mut out = fs::File::create(&temporary)?;
    out.write_all(text.as_bytes())?;
    out.sync_all()?;
    fs::rename(&temporary, file)?;
    file.parent().map_or(Ok(()), |dir| fs::File::open(dir)?.sync_all())
}

/// Begins the last line of the file, for TOML a comment.
const CHECKSUM: &str = "# crc32c of the lines above: ";

fn with_checksum(text: &str) -> String {
    format!("{text}{CHECKSUM}{:08x}\n", crc32c::crc32c(text.as_bytes()))
}

/// Whether a file is what was written. One without any comment is from before there were checksums.
fn is_as_written(text: &str) -> bool {
    match text.rfind('#') {
        Some(place) => with_checksum(&text[..place]) == text,
        None => text.contains("format = ") && !text.contains("crc32c"),
    }
}

fn damaged(path: &Path, fault: &str) -> StartError {
    StartError::DataDirectory {
        path: path.to_owned(),
        fault: format!("has a damaged IDENTITY file: {fault}"),
        advice: "in a cluster replace this node by one with a new id and an empty directory (tandem cluster replace), \
                 otherwise restore the file from a backup or choose another directory"
            .into(),
    }
}

fn unusable(path: &Path, fault: String) -> StartError {
    let advice = "check its permissions, or choose another directory".into();
    StartError::DataDirectory { path: path.to_owned(), fault, advice }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(path: &Path, node_id: u64, shards: u32) -> Config {
        let mut config = Config { data_dir: path.to_owned(), node_id, ..Config::default() };
        config.storage.shards = shards;
        config
    }

    fn open(path: &Path, node_id: u64, shards: u32) -> Result<DataDir, StartError> {
        DataDir::open(&config(path, node_id, shards))
    }

    #[test]
    fn a_member_stays_what_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let mut member = config(dir.path(), 1, 4);
        member.cluster.members = ["n1=a:1", "n2=a:2", "n3=a:3"].map(str::to_owned).to_vec();
        let first = DataDir::open(&member).unwrap().identity;
        assert_eq!(first.cluster_id.len(), 32);
        assert_eq!(open(dir.path(), 1, 4).unwrap().identity, first, "the flags may be left out");
        member.cluster.members[2] = "n3=b:9".into();
        let moved = DataDir::open(&member).unwrap().identity;
        assert_eq!((moved.members[2].as_str(), moved.cluster_id), ("n3=b:9", first.cluster_id.clone()));
        member.cluster.members[2] = "n4=a:4".into();
        assert_eq!(DataDir::open(&member).unwrap().identity, first, "who the members are is what the cluster says");
        member.cluster.members = ["n1=a:1", "n8=a:2", "n9=a:3"].map(str::to_owned).to_vec();
        let text = DataDir::open(&member).unwrap_err().to_string();
        assert!(text.contains("created for the nodes 1, 2, 3, not for 1, 8, 9"), "{text}");
        member.cluster = crate::config::ClusterConfig { id: "another".into(), ..Default::default() };
        assert!(DataDir::open(&member).unwrap_err().to_string().contains("not to cluster another"));
    }

    #[test]
    fn a_node_that_joins_waits_once_and_never_makes_a_cluster() {
        let dir = tempfile::tempdir().unwrap();
        let mut joining = config(dir.path(), 4, 4);
        joining.cluster.members = ["n1=a:1", "n4=a:4"].map(str::to_owned).to_vec();
        assert!(DataDir::open(&joining).unwrap_err().to_string().contains("cluster.join"), "two are no new cluster");
        joining.cluster.join = true;
        let waiting = DataDir::open(&joining).unwrap().identity;
        assert_eq!((waiting.joined, waiting.waits, waiting.cluster_id.as_str()), (true, true, ""));
        let mut again = DataDir::open(&joining).unwrap();
        assert_eq!(again.identity, waiting, "the same disk after a restart");
        let members = (1..=4).map(|id| (id, format!("a:{id}"))).collect();
        again.admit("blue".into(), &members).unwrap();
        drop(again);
        joining.cluster = Default::default();
        let member = DataDir::open(&joining).unwrap().identity;
        assert_eq!((member.joined, member.waits, member.cluster_id.as_str()), (true, false, "blue"));
        assert_eq!((member.members.len(), member.disk_id), (4, waiting.disk_id));
    }

    #[test]
    fn a_lone_node_does_not_become_a_member_by_a_flag() {
        let dir = tempfile::tempdir().unwrap();
        drop(open(dir.path(), 1, 4).unwrap());
        let mut member = config(dir.path(), 1, 4);
        member.cluster.members = ["n1=a:1", "n2=a:2", "n3=a:3"].map(str::to_owned).to_vec();
        assert!(DataDir::open(&member).unwrap_err().to_string().contains("a node that is alone"));
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
    fn every_flipped_byte_of_the_identity_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let identity = open(dir.path(), 1, 4).unwrap().identity;
        let file = dir.path().join("IDENTITY");
        let intact = fs::read(&file).unwrap();
        for place in 0..intact.len() {
            let mut bytes = intact.clone();
            bytes[place] ^= 1;
            fs::write(&file, bytes).unwrap();
            let text = open(dir.path(), 1, 4).map(|found| found.identity).unwrap_err().to_string();
            assert!(text.contains("damaged IDENTITY") && text.contains("replace"), "byte {place}: {text}");
        }
        fs::write(&file, intact).unwrap();
        assert_eq!(open(dir.path(), 1, 4).unwrap().identity, identity);
    }

    #[test]
    fn a_directory_in_use_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let _held = open(dir.path(), 1, 4).unwrap();
        assert_eq!(open(dir.path(), 1, 4).unwrap_err().code(), "STORAGE_LOCKED");
    }
}
