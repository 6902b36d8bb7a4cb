//! Why two nodes do not talk to each other.

use std::fmt;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::{frame, handshake};

/// Why, for programs. Numbers are frozen: they cross the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalCode {
    /// The connection broke or took too long: try again.
    Broken = 0,
    /// What came is not the protocol.
    Garbled = 1,
    /// Another version of the protocol.
    Protocol = 2,
    /// The secret is another one.
    WrongSecret = 3,
    /// The cluster is another one.
    WrongCluster = 4,
    /// Another node lives at this address.
    WrongNode = 5,
    /// The node is not a member of the cluster.
    NotAMember = 6,
    /// The id belongs to another data directory.
    NodeIdReused = 7,
    /// The clusters have different numbers of shards.
    ShardCount = 8,
    /// The node was a member, and was taken out.
    Removed = 9,
    /// The data directory belongs to another node.
    DiskReused = 10,
    /// The node cannot apply what the cluster already does.
    TooOld = 11,
    /// The node cannot apply any more what the cluster still does.
    TooNew = 12,
    /// One side speaks TLS and the other does not, or they do not accept each other's certificates.
    Tls = 13,
}

impl RefusalCode {
    const ALL: [Self; 14] = [
        Self::Broken,
        Self::Garbled,
        Self::Protocol,
        Self::WrongSecret,
        Self::WrongCluster,
        Self::WrongNode,
        Self::NotAMember,
        Self::NodeIdReused,
        Self::ShardCount,
        Self::Removed,
        Self::DiskReused,
        Self::TooOld,
        Self::TooNew,
        Self::Tls,
    ];

    /// A stable code for logs and scripts.
    pub fn code(self) -> &'static str {
        match self {
            Self::Broken => "PEER_UNREACHABLE",
            Self::Garbled => "PEER_PROTOCOL_ERROR",
            Self::Protocol => "PEER_VERSION_MISMATCH",
            Self::WrongSecret => "CLUSTER_SECRET_MISMATCH",
            Self::WrongCluster => "CLUSTER_ID_MISMATCH",
            Self::WrongNode => "NODE_ID_MISMATCH",
            Self::NotAMember => "NOT_A_MEMBER",
            Self::NodeIdReused => "NODE_ID_REUSED",
            Self::ShardCount => "SHARD_COUNT_MISMATCH",
            Self::Removed => "NODE_REMOVED",
            Self::DiskReused => "DISK_ID_REUSED",
            Self::TooOld => "NODE_TOO_OLD",
            Self::TooNew => "NODE_TOO_NEW",
            Self::Tls => "PEER_TLS_FAILED",
        }
    }

    /// Whether it stays so until somebody changes a setting.
    pub(crate) fn is_definite(self) -> bool {
        !matches!(self, Self::Broken | Self::Garbled | Self::Tls)
    }
}

/// A refusal with its reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Why, for programs.
    pub code: RefusalCode,
    /// Why, for people.
    pub text: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Refusal {
    /// A refusal for this reason.
    pub fn new(code: RefusalCode, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }

    /// As a node hears it that has said its first word: for whoever turns it away before this crate sees it.
    pub fn on_wire(&self) -> Bytes {
        let body = self.encode();
        frame::encode(handshake::REFUSED, 0, 0, body.len(), |out| out.put_slice(&body))
    }

    /// Why a node could not be dialed. `InvalidData` is what the layer below says when it is there and not accepted.
    pub(super) fn undialed(error: &std::io::Error) -> Self {
        let code = if error.kind() == std::io::ErrorKind::InvalidData { RefusalCode::Tls } else { RefusalCode::Broken };
        Self::new(code, error.to_string())
    }

    pub(super) fn broken(error: &dyn fmt::Display) -> Self {
        Self::new(RefusalCode::Broken, error.to_string())
    }

    pub(super) fn garbled() -> Self {
        Self::new(RefusalCode::Garbled, "the other side does not speak the protocol between nodes")
    }

    pub(super) fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(1 + self.text.len());
        out.put_u8(self.code as u8);
        out.put_slice(self.text.as_bytes());
        out.freeze()
    }

    pub(super) fn decode(mut body: Bytes) -> Self {
        let number = body.try_get_u8().unwrap_or(RefusalCode::Garbled as u8);
        let code = RefusalCode::ALL.into_iter().find(|code| *code as u8 == number).unwrap_or(RefusalCode::Garbled);
        Self::new(code, String::from_utf8_lossy(&body).into_owned())
    }
}
