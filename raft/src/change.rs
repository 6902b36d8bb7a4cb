//! What an operator may ask of the roll, and what is refused. Every change can be asked for again: what is done already, or
//! is being done, is not done twice.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    ProposeError,
    roll::{MemberState, Roll, RollMember},
};

/// Voters of a cluster at the most: beyond, every commit waits for more disks and nothing is won.
pub const MAX_MEMBERS: usize = 7;

/// A change of the roll.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A new node joins: as a learner of every shard first, then as a voter.
    Add {
        /// Its id; one that never belonged to a member.
        node: u64,
        /// Where its peers dial it, `host:port`.
        address: String,
    },
    /// A member goes, for good.
    Remove {
        /// Its id.
        node: u64,
        /// Also where too few of the voters that stay are connected.
        force: bool,
    },
    /// A new node joins, and takes the place of a member in one step of each shard.
    Replace {
        /// Who goes, for good.
        old: u64,
        /// Who joins; an id that never belonged to a member.
        new: u64,
        /// Where its peers dial it, `host:port`.
        address: String,
        /// Also where too few of the voters that stay are connected.
        force: bool,
    },
    /// A member hands over what it leads, and is given nothing until it restarts or [`Change::Undrain`].
    Drain {
        /// Its id.
        node: u64,
    },
    /// It may lead again.
    Undrain {
        /// Its id.
        node: u64,
    },
    /// A member leads a shard from now on, for as long as it can.
    Transfer {
        /// The shard.
        shard: u32,
        /// Who shall lead it.
        to: u64,
    },
    /// Leaders are spread over the members again, whatever was transferred before.
    Rebalance,
}

/// Why a change is refused, for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeCode {
    /// No member has this id.
    UnknownNode,
    /// There is no such shard.
    UnknownShard,
    /// The id, or the address, belongs to a member.
    NodeExists,
    /// The id belonged to a node that was taken out.
    NodeIdReused,
    /// Another change is not done yet.
    InProgress,
    /// Too few of the voters that stay are connected.
    QuorumAtRisk,
    /// Nobody would be left.
    LastNode,
    /// The cluster is as large as it may be.
    TooManyNodes,
    /// The node cannot lead right now.
    NodeNotReady,
}

/// Why a change was not made.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ChangeError {
    /// It is refused.
    #[error("{text}")]
    Refused {
        /// Why, for programs.
        code: ChangeCode,
        /// Why, for people, and what to do.
        text: String,
    },
    /// Nobody could decide it now; it may have been made.
    #[error(transparent)]
    Unavailable(#[from] ProposeError),
}

/// What the node that decides sees of the others.
#[derive(Debug, Default)]
pub(crate) struct Sight {
    pub(crate) shards: u32,
    /// Connected right now, and this node.
    pub(crate) connected: BTreeSet<u64>,
    /// Data directories by node id.
    pub(crate) disks: BTreeMap<u64, String>,
}

type Changed = Result<Option<Roll>, ChangeError>;

fn refused<T>(code: ChangeCode, text: impl Into<String>) -> Result<T, ChangeError> {
    Err(ChangeError::Refused { code, text: text.into() })
}

impl Roll {
    /// The roll after a change; None where it says so already.
    pub(crate) fn changed(&self, change: &Change, sight: &Sight) -> Changed {
        let mut next = match change {
            Change::Add { node, address } => self.add(*node, address, sight)?,
            Change::Remove { node, force } => self.remove(*node, *force, sight)?,
            Change::Replace { old, new, address, force } => self.replace(*old, *new, address, *force, sight)?,
            Change::Drain { node } => self.drain(*node, sight)?,
            Change::Undrain { node } => self.undrain(*node)?,
            Change::Transfer { shard, to } => self.transfer(*shard, *to, sight)?,
            Change::Rebalance => Some(Self { pinned: BTreeMap::new(), ..self.clone() }),
        };
        if let Some(next) = &mut next {
            next.revision = self.revision + 1;
            next.remember(&sight.disks);
        }
        Ok(next)
    }

    /// The roll once the member that is being changed is what it should be in every shard.
    pub(crate) fn settled(&self, sight: &Sight) -> Option<Self> {
        let (id, member) = self.changing()?;
        let mut next = self.clone();
        next.remember(&sight.disks);
        let goes = match member.state {
            MemberState::Leaving => Some(id),
            _ => member.replaces,
        };
        if let Some(changed) = next.members.get_mut(&id) {
            (changed.state, changed.replaces) = (MemberState::Voting, None);
        }
        if let Some(goes) = goes {
            let disk_id = next.members.remove(&goes).map(|gone| gone.disk_id).unwrap_or_default();
            next.retired.insert(goes, disk_id);
            next.pinned.retain(|_, node| *node != goes);
        }
        next.revision = self.revision + 1;
        Some(next)
    }

    /// Data directories that were seen stand in the roll, so that nodes that come later know them.
    fn remember(&mut self, disks: &BTreeMap<u64, String>) {
        for (id, member) in self.members.iter_mut().filter(|(_, member)| member.disk_id.is_empty()) {
            member.disk_id = disks.get(id).cloned().unwrap_or_default();
        }
    }

    fn member(&self, id: u64) -> Result<&RollMember, ChangeError> {
        if self.retired.contains_key(&id) {
            return refused(ChangeCode::UnknownNode, format!("node {id} was removed from this cluster"));
        }
        let ids: Vec<_> = self.members.keys().map(u64::to_string).collect();
        let text = || format!("node {id} is not a member of this cluster; its members are {}", ids.join(", "));
        self.members.get(&id).ok_or_else(|| ChangeError::Refused { code: ChangeCode::UnknownNode, text: text() })
    }

    /// Refuses while another change is not done.
    fn nothing_else_changes(&self) -> Result<(), ChangeError> {
        let Some((id, member)) = self.changing() else { return Ok(()) };
        let (what, otherwise) = match (member.state, member.replaces) {
            (MemberState::Leaving, _) => (format!("node {id} is being removed"), String::new()),
            (_, Some(old)) => {
                (format!("node {id} takes the place of node {old}"), format!(", or give it up: remove node {id}"))
            }
            (_, None) => (format!("node {id} is joining"), format!(", or give it up: remove node {id}")),
        };
        let text = format!("{what}; wait until that is done{otherwise}. The status of the cluster names the next step");
        refused(ChangeCode::InProgress, text)
    }

    fn free_for_a_new_node(&self, id: u64, address: &str) -> Result<(), ChangeError> {
        if self.retired.contains_key(&id) {
            let text =
                format!("id {id} belonged to a node that was removed, and is never used again; choose another id");
            return refused(ChangeCode::NodeIdReused, text);
        }
        if let Some(member) = self.members.get(&id) {
            let text = format!("node {id} is a member already, at {}; choose another id", member.address);
            return refused(ChangeCode::NodeExists, text);
        }
        if let Some((other, _)) = self.members.iter().find(|(_, member)| member.address == address) {
            return refused(
                ChangeCode::NodeExists,
                format!("node {other} is at {address}; give the new node its own address"),
            );
        }
        Ok(())
    }

    fn joining(address: &str, replaces: Option<u64>) -> RollMember {
        RollMember { address: address.to_owned(), state: MemberState::Joining, replaces, ..RollMember::default() }
    }

    fn add(&self, id: u64, address: &str, sight: &Sight) -> Changed {
        let there = self.members.get(&id).filter(|member| member.address == address);
        match there.map(|member| (member.state, member.replaces)) {
            Some((MemberState::Voting, _) | (MemberState::Joining, None)) => return Ok(None),
            Some(_) => self.nothing_else_changes()?,
            None => {}
        }
        self.free_for_a_new_node(id, address)?;
        self.nothing_else_changes()?;
        if self.members.len() >= MAX_MEMBERS {
            let text =
                format!("the cluster has {MAX_MEMBERS} nodes, as many as it may; replace one, or remove one first");
            return refused(ChangeCode::TooManyNodes, text);
        }
        let mut next = self.clone();
        next.members.insert(id, Self::joining(address, None));
        next.keeps_a_majority(Some(id), sight, &format!("node {id} joins"))?;
        Ok(Some(next))
    }

    fn remove(&self, id: u64, force: bool, sight: &Sight) -> Changed {
        if self.retired.contains_key(&id) {
            return Ok(None);
        }
        let member = self.member(id)?;
        match member.state {
            MemberState::Leaving => return Ok(None),
            MemberState::Joining => {}
            MemberState::Voting => self.nothing_else_changes()?,
        }
        if self.members.len() == 1 {
            return refused(
                ChangeCode::LastNode,
                format!("node {id} is the only member; stop it instead of removing it"),
            );
        }
        let mut next = self.clone();
        if let Some(member) = next.members.get_mut(&id) {
            (member.state, member.replaces) = (MemberState::Leaving, None);
        }
        if !force {
            next.keeps_a_majority(None, sight, &format!("node {id} is removed"))?;
        }
        Ok(Some(next))
    }

    fn replace(&self, old: u64, new: u64, address: &str, force: bool, sight: &Sight) -> Changed {
        let there = self.members.get(&new).filter(|member| member.address == address);
        if there.is_some_and(|member| {
            member.replaces == Some(old) || (member.state == MemberState::Voting && self.retired.contains_key(&old))
        }) {
            return Ok(None);
        }
        self.member(old)?;
        if old == new {
            let text =
                format!("a node with a new data directory needs a new id; {old} belongs to the one that it replaces");
            return refused(ChangeCode::NodeIdReused, text);
        }
        self.free_for_a_new_node(new, address)?;
        self.nothing_else_changes()?;
        let mut next = self.clone();
        next.members.insert(new, Self::joining(address, Some(old)));
        if !force {
            next.keeps_a_majority(Some(new), sight, &format!("node {new} takes the place of node {old}"))?;
        }
        Ok(Some(next))
    }

    /// Whether enough of those who will vote are connected. `arriving` counts as connected: it becomes a voter only once it has
    /// what the others have.
    fn keeps_a_majority(&self, arriving: Option<u64>, sight: &Sight, once: &str) -> Result<(), ChangeError> {
        let voters: BTreeSet<u64> = self.members.keys().copied().filter(|id| !self.is_leaving(*id)).collect();
        let connected = |id: &u64| sight.connected.contains(id) || Some(*id) == arriving;
        let (there, needed) = (voters.iter().filter(|id| connected(id)).count(), voters.len() / 2 + 1);
        if there >= needed {
            return Ok(());
        }
        let missing: Vec<_> = voters.iter().filter(|id| !connected(id)).map(u64::to_string).collect();
        let text = format!(
            "once {once}, {} nodes vote and {needed} are needed, but node {} is not connected; bring it back first, or \
             say --force to have the change made once a majority is there",
            voters.len(),
            missing.join(" and node ")
        );
        refused(ChangeCode::QuorumAtRisk, text)
    }

    fn drain(&self, id: u64, sight: &Sight) -> Changed {
        if self.member(id)?.drained {
            return Ok(None);
        }
        let mut next = self.clone();
        if let Some(member) = next.members.get_mut(&id) {
            member.drained = true;
        }
        next.pinned.retain(|_, node| *node != id);
        if !next.members.keys().any(|other| next.may_lead(*other) && sight.connected.contains(other)) {
            let text = format!("no other node could lead in the place of node {id}: bring one back, or undrain one");
            return refused(ChangeCode::NodeNotReady, text);
        }
        Ok(Some(next))
    }

    fn undrain(&self, id: u64) -> Changed {
        if !self.member(id)?.drained {
            return Ok(None);
        }
        let mut next = self.clone();
        if let Some(member) = next.members.get_mut(&id) {
            member.drained = false;
        }
        Ok(Some(next))
    }

    fn transfer(&self, shard: u32, to: u64, sight: &Sight) -> Changed {
        if shard >= sight.shards {
            let text = format!("there is no shard {shard}; there are {}, from 0", sight.shards);
            return refused(ChangeCode::UnknownShard, text);
        }
        let member = self.member(to)?;
        let not_ready = |why: &str| refused(ChangeCode::NodeNotReady, format!("node {to} cannot lead: {why}"));
        if member.drained {
            return not_ready("it is drained; undrain it first");
        }
        if member.state != MemberState::Voting || self.is_leaving(to) {
            return not_ready("it joins or leaves the cluster");
        }
        if !sight.connected.contains(&to) {
            return not_ready("it is not connected");
        }
        if self.pinned.get(&shard) == Some(&to) {
            return Ok(None);
        }
        let mut next = self.clone();
        next.pinned.insert(shard, to);
        Ok(Some(next))
    }
}

#[cfg(test)]
#[path = "change_tests.rs"]
mod tests;
