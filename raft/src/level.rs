//! What versions of this software can do together: a rolling upgrade runs two of them side by side.
//!
//! A *level* counts the kinds of commands. What a level brings is proposed only while the roll of the cluster says so, and
//! the roll is raised to a level only when every member has announced that it can apply it; it is never lowered. So no
//! node ever meets a command that it does not know. One that is started with an older version all the same is refused by
//! the others, and stops.
//!
//! ```text
//! level 1   everything but what follows
//! level 2   policies, API keys, tokens, quotas, what the audit and events are told
//! ```

use crate::peers::{Refusal, RefusalCode};

/// The level of a cluster that nobody has raised.
pub const FIRST_LEVEL: u32 = 1;
/// The newest level that this version can apply. Raise it with what it brings, and say that above.
pub const NEWEST_LEVEL: u32 = 2;
/// The newest version of the protocol between nodes that this version speaks.
pub(crate) const NEWEST_PROTOCOL: u16 = 4;
/// From this one on a node that dials shows its roll.
pub(crate) const PROTOCOL_WITH_ROLL: u16 = 4;
/// The oldest one. Older nodes are refused; so a version that changes frames speaks those of the version before, too.
pub(crate) const OLDEST_PROTOCOL: u16 = 3;

/// What a node can speak and apply; announced in its handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Versions {
    /// The oldest protocol between nodes that it speaks.
    pub oldest_protocol: u16,
    /// The newest one.
    pub newest_protocol: u16,
    /// The oldest level of a cluster in which it can take part.
    pub oldest_level: u32,
    /// The newest level that it can apply.
    pub newest_level: u32,
}

impl Default for Versions {
    /// What this version can do.
    fn default() -> Self {
        Self {
            oldest_protocol: OLDEST_PROTOCOL,
            newest_protocol: NEWEST_PROTOCOL,
            oldest_level: FIRST_LEVEL,
            newest_level: NEWEST_LEVEL,
        }
    }
}

impl Versions {
    /// The newest protocol that both sides speak.
    pub(crate) fn agree(&self, other: &Self) -> Result<u16, Refusal> {
        let both = self.newest_protocol.min(other.newest_protocol);
        if both >= self.oldest_protocol.max(other.oldest_protocol) {
            return Ok(both);
        }
        let text = format!(
            "versions {} to {} of the protocol between nodes meet versions {} to {}; upgrade the older node, one version \
             after the other",
            other.oldest_protocol, other.newest_protocol, self.oldest_protocol, self.newest_protocol
        );
        Err(Refusal::new(RefusalCode::Protocol, text))
    }

    /// Whether a node can take part in a cluster of this level.
    pub(crate) fn fits(&self, node_id: u64, level: u32) -> Result<(), Refusal> {
        if self.newest_level < level {
            let text = format!(
                "node {node_id} can apply commands up to level {}, and the cluster is at level {level}; start node {node_id} \
                 with the version of the others",
                self.newest_level
            );
            return Err(Refusal::new(RefusalCode::TooOld, text));
        }
        if self.oldest_level > level {
            let text = format!(
                "node {node_id} needs a cluster of level {}, and this one is at level {level}; upgrade all nodes to the version \
                 before it first",
                self.oldest_level
            );
            return Err(Refusal::new(RefusalCode::TooNew, text));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn speaks(oldest_protocol: u16, newest_protocol: u16) -> Versions {
        Versions { oldest_protocol, newest_protocol, ..Versions::default() }
    }

    #[test]
    fn neighbouring_versions_agree_on_the_older_protocol() {
        assert_eq!(speaks(3, 3).agree(&speaks(3, 4)), Ok(3));
        assert_eq!(speaks(3, 4).agree(&speaks(3, 3)), Ok(3));
        assert_eq!(speaks(3, 5).agree(&speaks(4, 9)), Ok(5));
        let refusal = speaks(3, 3).agree(&speaks(4, 5)).unwrap_err();
        assert!(refusal.code == RefusalCode::Protocol && refusal.text.contains("versions 4 to 5"), "{refusal}");
        assert!(speaks(4, 5).agree(&speaks(3, 3)).is_err());
    }

    #[test]
    fn a_node_takes_part_where_it_can_apply_what_is_there() {
        let node = Versions { oldest_level: 2, newest_level: 3, ..Versions::default() };
        assert!(node.fits(1, 2).is_ok() && node.fits(1, 3).is_ok());
        assert_eq!(node.fits(1, 4).unwrap_err().code, RefusalCode::TooOld);
        assert_eq!(node.fits(1, 1).unwrap_err().code, RefusalCode::TooNew);
    }
}
