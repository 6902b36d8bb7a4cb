//! Who the members are, and with which disk each was seen first.
//!
//! A node that comes back with an empty disk would vote as if it had never acknowledged anything. So the first data
//! directory that a member shows is remembered, in the file `PEERS`, and no other is taken for that member.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use parking_lot::Mutex;

use super::{
    Introduction,
    refusal::{Refusal, RefusalCode},
};
use crate::FatalError;

/// Members and their disks.
pub(crate) struct Roster {
    file: PathBuf,
    /// Peer addresses by node id.
    members: BTreeMap<u64, String>,
    disks: Mutex<BTreeMap<u64, String>>,
}

impl Roster {
    /// Reads what was remembered in `dir`.
    pub(crate) fn open(dir: &Path, members: BTreeMap<u64, String>) -> Result<Self, FatalError> {
        let file = dir.join("PEERS");
        let text = match fs::read_to_string(&file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            read => read.map_err(failed("reading PEERS"))?,
        };
        let mut disks = BTreeMap::new();
        for line in text.lines() {
            let damaged = || FatalError::Record { place: "PEERS".into(), detail: format!("the line {line:?}") };
            let (node, disk) = line.split_once(' ').ok_or_else(damaged)?;
            disks.insert(node.parse().map_err(|_| damaged())?, disk.to_owned());
        }
        Ok(Self { file, members, disks: Mutex::new(disks) })
    }

    pub(crate) fn is_member(&self, node_id: u64) -> bool {
        self.members.contains_key(&node_id)
    }

    pub(crate) fn members(&self) -> &BTreeMap<u64, String> {
        &self.members
    }

    /// Whether this is the disk that the member was seen with before; remembers it when it is the first.
    pub(super) fn recognise(&self, who: &Introduction) -> Result<(), Refusal> {
        let mut disks = self.disks.lock();
        match disks.get(&who.node_id) {
            Some(known) if *known == who.disk_id => Ok(()),
            Some(_) => {
                let text = format!(
                    "node {} comes with another data directory than before; what it acknowledged is not in it. Start it \
                     with its old data directory",
                    who.node_id
                );
                Err(Refusal::new(RefusalCode::NodeIdReused, text))
            }
            None => {
                let mut next = disks.clone();
                next.insert(who.node_id, who.disk_id.clone());
                write(&self.file, &next)
                    .map_err(|error| Refusal::broken(&format!("PEERS cannot be written: {error}")))?;
                *disks = next;
                Ok(())
            }
        }
    }
}

fn write(file: &Path, disks: &BTreeMap<u64, String>) -> io::Result<()> {
    let text: String = disks.iter().map(|(node, disk)| format!("{node} {disk}\n")).collect();
    let temporary = file.with_extension("new");
    fs::write(&temporary, text)?;
    fs::File::open(&temporary)?.sync_all()?;
    fs::rename(&temporary, file)?;
    file.parent().map_or(Ok(()), |dir| fs::File::open(dir)?.sync_all())
}

fn failed(doing: &'static str) -> impl Fn(io::Error) -> FatalError {
    move |source| tandem_storage::Error::Io { doing, source }.into()
}
