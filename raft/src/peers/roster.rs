//! Who the members are, who was one, and with which disk each was seen first.
//!
//! A node that comes back with an empty disk would vote as if it had never acknowledged anything. So the first data
//! directory that a member shows is remembered, in the file `PEERS` and with the next change in the roll, and no other is
//! taken for that member.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use parking_lot::Mutex;
use tokio::sync::watch;

use super::{
    Introduction,
    refusal::{Refusal, RefusalCode},
};
use crate::{
    FatalError,
    damage::{self, Part},
    roll::{Roll, RollFile},
};

/// Members and their disks.
pub(crate) struct Roster {
    file: PathBuf,
    /// Peer addresses as the settings of this node say; the bootstrapped members, as long as there is no roll.
    settings: BTreeMap<u64, String>,
    roll: watch::Sender<Roll>,
    disks: Mutex<BTreeMap<u64, String>>,
}

impl Roster {
    /// Reads what was remembered in `dir`.
    pub(crate) fn open(dir: &Path, settings: BTreeMap<u64, String>) -> Result<Self, FatalError> {
        let file = dir.join("PEERS");
        let disks = match fs::read(&file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            read => match disks_in(&read.map_err(failed("reading PEERS"))?) {
                Some(disks) => disks,
                None => return Err(damage::fatal(Part::Peers, format!("{} is not what was written", file.display()))),
            },
        };
        let roll = RollFile::in_dir(dir).read().map_err(failed("reading ROLL"))?;
        Ok(Self { file, settings, roll: watch::Sender::new(roll), disks: Mutex::new(disks) })
    }

    /// Takes over a newer roll that a member of it has shown. A majority has agreed to that one: this node was away meanwhile,
    /// and the shards will tell it the same.
    pub(super) fn learn(&self, shown: Roll, from: u64, own: u64) {
        let knows = |id| shown.members.contains_key(&id);
        if !knows(from) || !knows(own) {
            return;
        }
        self.roll.send_if_modified(|seen| {
            let news = shown.revision > seen.revision;
            if news {
                tracing::info!(from, revision = shown.revision, "another node has shown who the members are by now");
                *seen = shown;
            }
            news
        });
    }

    /// Where the newest roll goes and comes from.
    pub(crate) fn rolls(&self) -> watch::Sender<Roll> {
        self.roll.clone()
    }

    /// The newest roll; made from the settings where nobody has changed anything.
    pub(crate) fn roll(&self) -> Roll {
        let roll = self.roll.borrow();
        if roll.revision == 0 { Roll::bootstrapped(&self.settings) } else { roll.clone() }
    }

    /// The same with the addresses that this node uses: what it tells a node that joins.
    pub(super) fn roll_for_a_newcomer(&self) -> Roll {
        let mut roll = self.roll();
        for (id, address) in self.members() {
            if let Some(member) = roll.members.get_mut(&id) {
                member.address = address;
            }
        }
        roll
    }

    pub(crate) fn is_member(&self, node_id: u64) -> bool {
        let roll = self.roll.borrow();
        let members = &roll.members;
        if roll.revision == 0 { self.settings.contains_key(&node_id) } else { members.contains_key(&node_id) }
    }

    pub(crate) fn is_retired(&self, node_id: u64) -> bool {
        self.roll.borrow().retired.contains_key(&node_id)
    }

    /// Resolves once a node is no member any more.
    pub(crate) async fn retirement(&self, node_id: u64) {
        let mut rolls = self.roll.subscribe();
        while !rolls.borrow_and_update().retired.contains_key(&node_id) {
            if rolls.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Peer addresses by node id. What the settings of this node say of a member counts more than the roll: addresses change.
    pub(crate) fn members(&self) -> BTreeMap<u64, String> {
        let roll = self.roll.borrow();
        if roll.revision == 0 {
            return self.settings.clone();
        }
        let address = |id: &u64, said: &String| self.settings.get(id).unwrap_or(said).clone();
        roll.members.iter().map(|(id, member)| (*id, address(id, &member.address))).collect()
    }

    pub(crate) fn address(&self, node_id: u64) -> Option<String> {
        let said = self.settings.get(&node_id).cloned();
        said.or_else(|| self.roll.borrow().members.get(&node_id).map(|member| member.address.clone()))
    }

    /// The disk of each member that was seen.
    pub(crate) fn disks(&self) -> BTreeMap<u64, String> {
        self.disks.lock().clone()
    }

    /// Whether this is the disk that the member was seen with before; remembers it when it is the first.
    pub(super) fn recognise(&self, who: &Introduction) -> Result<(), Refusal> {
        self.check_against_roll(who)?;
        let mut disks = self.disks.lock();
        if let Some((other, _)) = disks.iter().find(|(id, disk)| **id != who.node_id && **disk == who.disk_id) {
            return Err(disk_reused(who.node_id, *other));
        }
        match disks.get(&who.node_id) {
            Some(known) if *known == who.disk_id => Ok(()),
            Some(_) => Err(another_disk(who.node_id)),
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

    fn check_against_roll(&self, who: &Introduction) -> Result<(), Refusal> {
        let roll = self.roll.borrow();
        if let Some((other, _)) = roll.retired.iter().find(|(_, disk)| **disk == who.disk_id) {
            return Err(disk_reused(who.node_id, *other));
        }
        match roll.members.get(&who.node_id) {
            Some(member) if !member.disk_id.is_empty() && member.disk_id != who.disk_id => {
                Err(another_disk(who.node_id))
            }
            _ => Ok(()),
        }
    }
}

fn another_disk(node_id: u64) -> Refusal {
    let text = format!(
        "node {node_id} comes with another data directory than before; what it acknowledged is not in it. Start it with its \
         old data directory, or replace it by a node with a new id"
    );
    Refusal::new(RefusalCode::NodeIdReused, text)
}

fn disk_reused(node_id: u64, other: u64) -> Refusal {
    let text = format!("node {node_id} comes with the data directory of node {other}; give it an empty one");
    Refusal::new(RefusalCode::DiskReused, text)
}

/// What the file holds: a line for each node, and a checksum of these.
fn text_of(disks: &BTreeMap<u64, String>) -> String {
    let lines: String = disks.iter().map(|(node, disk)| format!("{node} {disk}\n")).collect();
    format!("{lines}crc32c {:08x}\n", crc32c::crc32c(lines.as_bytes()))
}

/// None when it is not what was written. A file from before there were checksums has none.
fn disks_in(bytes: &[u8]) -> Option<BTreeMap<u64, String>> {
    let text = std::str::from_utf8(bytes).ok()?;
    let mut disks = BTreeMap::new();
    for line in text.lines() {
        let (node, disk) = line.split_once(' ')?;
        if node != "crc32c" {
            disks.insert(node.parse().ok()?, disk.to_owned());
        }
    }
    let as_written = if text.contains("crc32c") { text_of(&disks) == text } else { !disks.is_empty() };
    as_written.then_some(disks)
}

fn write(file: &Path, disks: &BTreeMap<u64, String>) -> io::Result<()> {
    let temporary = file.with_extension("new");
    fs::write(&temporary, text_of(disks))?;
    fs::File::open(&temporary)?.sync_all()?;
    fs::rename(&temporary, file)?;
    file.parent().map_or(Ok(()), |dir| fs::File::open(dir)?.sync_all())
}

fn failed(doing: &'static str) -> impl Fn(io::Error) -> FatalError {
    move |source| tandem_storage::Error::Io { doing, source }.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_come_back_and_every_flipped_byte_is_found() {
        let disks = BTreeMap::from([(1, "disk-1".to_owned()), (2, "disk-2".to_owned())]);
        let text = text_of(&disks).into_bytes();
        assert_eq!(disks_in(&text), Some(disks));
        assert_eq!(disks_in(text_of(&BTreeMap::new()).as_bytes()), Some(BTreeMap::new()));
        for place in 0..text.len() {
            let mut damaged = text.clone();
            damaged[place] ^= 1;
            assert_eq!(disks_in(&damaged), None, "byte {place}");
        }
        assert_eq!(disks_in(b"1 disk-1\n").map(|disks| disks.len()), Some(1), "from before there were checksums");
        assert_eq!(disks_in(b""), None);
    }
}
