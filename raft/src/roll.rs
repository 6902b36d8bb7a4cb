//! The roll: who the members of the cluster are, and who was one. Replicated with shard 0, beside the state of that shard.
//!
//! It says what should be; the memberships of the shards are brought there step by step (`conform`). So a change that was
//! half done when a leader died goes on under the next one.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::{
    encoding::{DecodeError, seal, take_u8, take_u32, take_u64, unsealed},
    level::FIRST_LEVEL,
};

/// Under this key a state engine keeps the roll, in the space of the position.
pub(crate) const ROLL_KEY: &[u8] = b"roll";

/// What a member should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MemberState {
    /// It votes.
    #[default]
    Voting,
    /// It learns, and becomes a voter of each shard once it has what the others have.
    Joining,
    /// It is taken out of each shard, and is then retired.
    Leaving,
}

/// One member.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RollMember {
    /// Where its peers dial it, `host:port`.
    pub address: String,
    /// What it should be.
    pub state: MemberState,
    /// Whether it should lead nothing.
    pub drained: bool,
    /// The member whose place it takes once it has joined; that one is then retired.
    pub replaces: Option<u64>,
    /// Its data directory, as soon as one was seen; empty before.
    pub disk_id: String,
}

/// Who the members are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Roll {
    /// Counts changes. 0: nobody has changed anything since the cluster was bootstrapped.
    pub revision: u64,
    /// By node id.
    pub members: BTreeMap<u64, RollMember>,
    /// Ids that were taken out, with their data directories where those were seen. Neither comes back, ever.
    pub retired: BTreeMap<u64, String>,
    /// Who should lead a shard, where an operator said so.
    pub pinned: BTreeMap<u32, u64>,
    /// What every member can apply; 0 where nobody has raised it. See [`Roll::level`].
    pub level: u32,
}

impl Roll {
    /// The roll of a cluster that was only bootstrapped.
    pub(crate) fn bootstrapped(members: &BTreeMap<u64, String>) -> Self {
        let member = |address: &String| RollMember { address: address.clone(), ..RollMember::default() };
        let members = members.iter().map(|(id, address)| (*id, member(address))).collect();
        Self { members, ..Self::default() }
    }

    /// The member that is being changed; there is one at most. A member that is being replaced is not it, the new one is.
    pub fn changing(&self) -> Option<(u64, &RollMember)> {
        self.members.iter().find(|(_, member)| member.state != MemberState::Voting).map(|(id, member)| (*id, member))
    }

    /// The member that `id` gives its place to.
    pub fn replaced_by(&self, id: u64) -> Option<u64> {
        self.members.iter().find(|(_, member)| member.replaces == Some(id)).map(|(new, _)| *new)
    }

    /// Whether a member is to go: it is taken out, or another one takes its place.
    pub fn is_leaving(&self, id: u64) -> bool {
        let leaves = self.members.get(&id).is_some_and(|member| member.state == MemberState::Leaving);
        leaves || self.replaced_by(id).is_some()
    }

    /// Whether a node may be given leaderships: it stays, and is not drained.
    pub(crate) fn may_lead(&self, id: u64) -> bool {
        self.members.get(&id).is_some_and(|member| !member.drained) && !self.is_leaving(id)
    }

    /// Commands of this level and of those below may be proposed: every member can apply them.
    pub fn level(&self) -> u32 {
        self.level.max(FIRST_LEVEL)
    }

    pub(crate) fn encode(&self) -> Bytes {
        let format = if self.level() > FIRST_LEVEL { FORMAT_WITH_LEVEL } else { FORMAT };
        seal(|out| {
            out.put_u8(format);
            out.put_u64(self.revision);
            out.put_u32(self.members.len() as u32);
            for (id, member) in &self.members {
                out.put_u64(*id);
                put_text(out, &member.address);
                out.put_u8(member.state.number());
                out.put_u8(u8::from(member.drained));
                out.put_u64(member.replaces.unwrap_or(0));
                put_text(out, &member.disk_id);
            }
            out.put_u32(self.retired.len() as u32);
            for (id, disk_id) in &self.retired {
                out.put_u64(*id);
                put_text(out, disk_id);
            }
            out.put_u32(self.pinned.len() as u32);
            for (shard, node) in &self.pinned {
                out.put_u32(*shard);
                out.put_u64(*node);
            }
            if format == FORMAT_WITH_LEVEL {
                out.put_u32(self.level);
            }
        })
    }

    pub(crate) fn decode(record: &Bytes) -> Result<Self, DecodeError> {
        let mut body = unsealed(record)?;
        let format = take_u8(&mut body)?;
        if format != FORMAT && format != FORMAT_WITH_LEVEL {
            return Err(DecodeError::Kind(format));
        }
        let mut roll = Self { revision: take_u64(&mut body)?, ..Self::default() };
        for _ in 0..take_u32(&mut body)? {
            let id = take_u64(&mut body)?;
            let address = take_text(&mut body)?;
            let state = MemberState::from_number(take_u8(&mut body)?)?;
            let drained = take_u8(&mut body)? == 1;
            let replaces = Some(take_u64(&mut body)?).filter(|id| *id > 0);
            let disk_id = take_text(&mut body)?;
            roll.members.insert(id, RollMember { address, state, drained, replaces, disk_id });
        }
        for _ in 0..take_u32(&mut body)? {
            let id = take_u64(&mut body)?;
            roll.retired.insert(id, take_text(&mut body)?);
        }
        for _ in 0..take_u32(&mut body)? {
            let shard = take_u32(&mut body)?;
            roll.pinned.insert(shard, take_u64(&mut body)?);
        }
        if format == FORMAT_WITH_LEVEL {
            roll.level = take_u32(&mut body)?;
        }
        Ok(roll)
    }
}

/// Version of the encoding. Frozen: it stands on disk and in the log.
const FORMAT: u8 = 1;
/// The same and the level of the cluster; written once that is above the first.
const FORMAT_WITH_LEVEL: u8 = 2;

impl MemberState {
    fn number(self) -> u8 {
        match self {
            Self::Voting => 0,
            Self::Joining => 1,
            Self::Leaving => 2,
        }
    }

    fn from_number(number: u8) -> Result<Self, DecodeError> {
        let all = [Self::Voting, Self::Joining, Self::Leaving];
        all.into_iter().find(|state| state.number() == number).ok_or(DecodeError::Kind(number))
    }
}

pub(crate) fn put_text(out: &mut BytesMut, text: &str) {
    out.put_u32(text.len() as u32);
    out.put_slice(text.as_bytes());
}

pub(crate) fn take_text(body: &mut Bytes) -> Result<String, DecodeError> {
    let length = take_u32(body)? as usize;
    if body.remaining() < length {
        return Err(DecodeError::Short);
    }
    std::str::from_utf8(&body.split_to(length)).map(str::to_owned).map_err(|_| DecodeError::Text)
}

/// The newest roll that a node has seen, in the file `ROLL`: a node that starts must know whom to dial before it has
/// applied its log.
#[derive(Debug, Clone)]
pub(crate) struct RollFile(PathBuf);

impl RollFile {
    pub(crate) fn in_dir(dir: &Path) -> Self {
        Self(dir.join("ROLL"))
    }

    /// What is there; the empty roll where nothing is. A damaged one is set aside: the state of shard 0 holds the roll, too.
    pub(crate) fn read(&self) -> io::Result<Roll> {
        match fs::read(&self.0) {
            Ok(bytes) => match Roll::decode(&bytes.into()) {
                Ok(roll) => Ok(roll),
                Err(error) => {
                    tracing::error!(code = "FILE_DAMAGED", %error, "the file ROLL is damaged; it is made anew from the state");
                    fs::rename(&self.0, self.0.with_extension("damaged"))?;
                    Ok(Roll::default())
                }
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Roll::default()),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn write(&self, roll: &Roll) -> io::Result<()> {
        let temporary = self.0.with_extension("new");
        fs::write(&temporary, roll.encode())?;
        fs::File::open(&temporary)?.sync_all()?;
        fs::rename(&temporary, &self.0)?;
        self.0.parent().map_or(Ok(()), |dir| fs::File::open(dir)?.sync_all())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roll() -> Roll {
        let mut roll = Roll::bootstrapped(&BTreeMap::from([(1, "a:1".into()), (2, "b:2".into())]));
        roll.revision = 7;
        roll.members.insert(
            4,
            RollMember {
                address: "d:4".into(),
                state: MemberState::Joining,
                drained: true,
                replaces: Some(2),
                disk_id: "disk".into(),
            },
        );
        roll.retired.insert(3, "old".into());
        roll.pinned.insert(1, 2);
        roll
    }

    #[test]
    fn a_roll_comes_back_and_every_flipped_byte_is_found() {
        let record = roll().encode();
        assert_eq!(Roll::decode(&record).unwrap(), roll());
        for place in 0..record.len() {
            let mut damaged = record.to_vec();
            damaged[place] ^= 4;
            assert!(Roll::decode(&damaged.into()).is_err(), "byte {place}");
        }
    }

    #[test]
    fn a_raised_level_comes_back_and_a_first_one_is_what_older_versions_wrote() {
        let raised = Roll { level: 2, ..roll() };
        assert_eq!(Roll::decode(&raised.encode()).unwrap(), raised);
        assert_eq!(Roll { level: FIRST_LEVEL, ..roll() }.encode(), roll().encode());
        assert_eq!(roll().level(), FIRST_LEVEL);
    }

    #[test]
    fn a_small_roll_has_these_bytes() {
        let roll = Roll { revision: 1, pinned: BTreeMap::from([(2, 3)]), ..Roll::default() };
        let expected = [
            1, 0, 0, 0, 0, 0, 0, 0, 1, // format, revision
            0, 0, 0, 0, // no members
            0, 0, 0, 0, // nobody retired
            0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 3, // shard 2: node 3
        ];
        assert_eq!(roll.encode()[4..], expected);
    }

    #[test]
    fn who_leaves_is_replaced_or_drained_does_not_lead() {
        let roll = roll();
        assert!(roll.may_lead(1));
        assert!(!roll.may_lead(2), "node 4 takes its place");
        assert!(!roll.may_lead(4) && !roll.may_lead(3));
        assert_eq!(roll.changing().map(|(id, _)| id), Some(4));
    }

    #[test]
    fn the_file_keeps_the_roll() {
        let dir = tempfile::tempdir().unwrap();
        let file = RollFile::in_dir(dir.path());
        assert_eq!(file.read().unwrap(), Roll::default());
        file.write(&roll()).unwrap();
        assert_eq!(file.read().unwrap(), roll());
        let mut damaged = fs::read(dir.path().join("ROLL")).unwrap();
        damaged[9] ^= 1;
        fs::write(dir.path().join("ROLL"), damaged).unwrap();
        assert_eq!(file.read().unwrap(), Roll::default(), "the state knows it");
        assert!(dir.path().join("ROLL.damaged").exists());
    }
}
