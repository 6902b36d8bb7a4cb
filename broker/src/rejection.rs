//! A request that is wrong or cannot be served as it is. Also a replicated outcome: reasons are numbers on disk.

use bytes::BufMut;
use bytes::BytesMut;

use crate::encoding::{DecodeError, Field, Reader};

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $code:literal;)*) => {
        /// Why a request is refused. Numbers and codes are frozen: clients and logs hold them.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Reason {
            $($(#[$doc])* $name = $number,)*
        }

        impl Reason {
            /// All reasons.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The stable code that clients see.
            pub fn code(self) -> &'static str {
                match self { $(Self::$name => $code,)* }
            }

            fn from_number(number: u8) -> Option<Self> {
                match number { $($number => Some(Self::$name),)* _ => None }
            }
        }
    };
}

reasons! {
    /// A field has a value that it cannot have.
    InvalidField = 1, "INVALID_FIELD";
    /// A field whose behaviour this version does not have.
    UnsupportedField = 2, "UNSUPPORTED_FIELD";
    /// No workspace with this id.
    UnknownWorkspace = 3, "UNKNOWN_WORKSPACE";
    /// No sandbox with this id in the workspace.
    UnknownSandbox = 4, "UNKNOWN_SANDBOX";
    /// No message with this id in the workspace.
    UnknownMessage = 5, "UNKNOWN_MESSAGE";
    /// The workspace id is taken.
    WorkspaceExists = 6, "WORKSPACE_EXISTS";
    /// The message id was used for another message.
    MessageIdReused = 7, "MESSAGE_ID_REUSED";
    /// A message is larger than the limit.
    MessageTooLarge = 8, "MESSAGE_TOO_LARGE";
    /// A batch holds more than the limit.
    BatchTooLarge = 9, "BATCH_TOO_LARGE";
    /// The inbox of the recipient holds as much as it may.
    InboxFull = 10, "INBOX_FULL";
    /// The broker has as much under way as it may.
    Overloaded = 11, "OVERLOADED";
    /// A subscription sent something else before `open`.
    StreamNotOpen = 12, "STREAM_NOT_OPEN";
    /// A subscription sent `open` twice.
    StreamOpenedTwice = 13, "STREAM_OPENED_TWICE";
    /// An ack names a delivery that was never made or is acknowledged already.
    UnknownDelivery = 14, "UNKNOWN_DELIVERY";
    /// A subscription gave no credit for too long.
    NoCredit = 15, "NO_CREDIT";
    /// More credit is outstanding than the limit.
    CreditTooLarge = 16, "CREDIT_TOO_LARGE";
    /// The workspace has as many sandboxes as it may.
    TooManySandboxes = 17, "TOO_MANY_SANDBOXES";
    /// The server has as many workspaces as it may.
    TooManyWorkspaces = 18, "TOO_MANY_WORKSPACES";
    /// The server serves as many streams as it may.
    TooManyStreams = 19, "TOO_MANY_STREAMS";
    /// The lease of a delivery is over.
    LeaseLost = 20, "LEASE_LOST";
    /// A page token is not one of this listing.
    InvalidPageToken = 21, "INVALID_PAGE_TOKEN";
    /// The request is not the message that its method takes.
    MalformedRequest = 22, "MALFORMED_REQUEST";
    /// The topic does not exist.
    UnknownTopic = 23, "UNKNOWN_TOPIC";
    /// The workspace has as many topics as it may.
    TooManyTopics = 24, "TOO_MANY_TOPICS";
    /// The sandbox follows as many patterns as it may.
    TooManyFollows = 25, "TOO_MANY_FOLLOWS";
    /// The sandbox does not follow the pattern.
    UnknownFollow = 26, "UNKNOWN_FOLLOW";
    /// No dead letter of this sandbox has this sequence.
    UnknownDeadLetter = 27, "UNKNOWN_DEAD_LETTER";
    /// Nobody there has the capability.
    NoCapableSandbox = 28, "NO_CAPABLE_SANDBOX";
    /// Messages of the producer are missing before this one.
    ProducerGap = 29, "PRODUCER_GAP";
    /// No response came in time.
    ResponseTimeout = 30, "RESPONSE_TIMEOUT";
    /// A part of the history was trimmed.
    HistoryGap = 31, "HISTORY_GAP";
    /// Events were asked for that are not kept any more.
    EventGap = 32, "EVENT_GAP";
    /// The sandbox waits for as many responses as it may.
    TooManyRequests = 33, "TOO_MANY_REQUESTS";
    /// The conversation of a broadcast went to and fro too often.
    TooManyHops = 34, "TOO_MANY_HOPS";
    /// The message at this position of the producer was refused when it came first.
    PositionRefused = 35, "POSITION_REFUSED";
    /// The policy of the workspace forbids the message.
    PolicyDenied = 36, "POLICY_DENIED";
    /// What should be a policy is none.
    InvalidPolicy = 37, "INVALID_POLICY";
    /// The policy is another one by now.
    PolicyChanged = 38, "POLICY_CHANGED";
    /// Everybody may do everything here, so nobody can be given a key.
    BrokerOpen = 39, "BROKER_OPEN";
    /// Nobody has said who makes the request.
    TokenMissing = 40, "TOKEN_MISSING";
    /// The token is no token, or none that this broker accepts.
    TokenInvalid = 41, "TOKEN_INVALID";
    /// The token does not hold any more.
    TokenExpired = 42, "TOKEN_EXPIRED";
    /// The token does not hold yet.
    TokenNotYetValid = 43, "TOKEN_NOT_YET_VALID";
    /// The caller has no role that may do this.
    RoleMissing = 44, "ROLE_MISSING";
    /// The caller is bound to another workspace.
    OtherWorkspace = 45, "OTHER_WORKSPACE";
    /// The caller is bound to another sandbox.
    OtherSandbox = 46, "OTHER_SANDBOX";
    /// No API key has this id.
    UnknownKey = 47, "UNKNOWN_KEY";
    /// There are as many API keys as there may be.
    TooManyKeys = 48, "TOO_MANY_KEYS";
    /// The API key was revoked.
    KeyRevoked = 49, "KEY_REVOKED";
    /// The broker is no member of a cluster.
    NotACluster = 50, "NOT_A_CLUSTER";
    /// No member has this id.
    UnknownNode = 51, "UNKNOWN_NODE";
    /// There is no such shard.
    UnknownShard = 52, "UNKNOWN_SHARD";
    /// The id or the address belongs to a member.
    NodeExists = 53, "NODE_EXISTS";
    /// The id belonged to a node that was taken out.
    NodeIdReused = 54, "NODE_ID_REUSED";
    /// Another change of members is not done.
    ChangeInProgress = 55, "CHANGE_IN_PROGRESS";
    /// Too few of the voters that stay are connected.
    QuorumAtRisk = 56, "QUORUM_AT_RISK";
    /// It is the only member.
    LastNode = 57, "LAST_NODE";
    /// The cluster has as many nodes as it may.
    TooManyNodes = 58, "TOO_MANY_NODES";
    /// The node cannot lead right now.
    NodeNotReady = 59, "NODE_NOT_READY";
    /// No approval has this number.
    UnknownApproval = 60, "UNKNOWN_APPROVAL";
    /// The message does not wait for approval any more.
    ApprovalEnded = 61, "APPROVAL_ENDED";
    /// Nobody decides on what he has sent himself.
    OwnMessage = 62, "OWN_MESSAGE";
    /// As many messages wait for approval as may.
    TooManyHeld = 63, "TOO_MANY_HELD";
    /// The message was held before, and not approved.
    ApprovalDenied = 64, "APPROVAL_DENIED";
    /// More comes in a second than a quota lets through.
    RateLimited = 65, "RATE_LIMITED";
    /// A quota of the workspace is used up.
    QuotaExceeded = 66, "QUOTA_EXCEEDED";
    /// The broker has nothing to sign tokens with.
    NoSigningKey = 67, "NO_SIGNING_KEY";
    /// No token has this id.
    UnknownToken = 68, "UNKNOWN_TOKEN";
    /// The token was revoked.
    TokenRevoked = 69, "TOKEN_REVOKED";
    /// There are as many tokens as there may be.
    TooManyTokens = 70, "TOO_MANY_TOKENS";
    /// What the caller has shown is no token that this broker has made.
    TokenNotRenewable = 71, "TOKEN_NOT_RENEWABLE";
    /// The content of a message is encrypted with a key that is not there, or damaged.
    ContentUnreadable = 72, "CONTENT_UNREADABLE";
    /// The server has as many connections as it may.
    TooManyConnections = 73, "TOO_MANY_CONNECTIONS";
    /// A connection did what HTTP/2 does not allow, or too much of it.
    ConnectionAbused = 74, "CONNECTION_ABUSED";
    /// A request did not come in time.
    RequestTooSlow = 75, "REQUEST_TOO_SLOW";
    /// No service has this method.
    UnknownMethod = 76, "UNKNOWN_METHOD";
    /// The request is compressed, and nothing is unpacked here.
    RequestCompressed = 77, "REQUEST_COMPRESSED";
    /// The headers of a request are larger than any that are right.
    HeadersTooLarge = 78, "HEADERS_TOO_LARGE";
}

/// A refusal: a reason for programs, a text for people, and the field at fault where there is one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Rejection {
    /// Why.
    pub reason: Reason,
    /// What was wrong, with the value, and what to do.
    pub text: String,
    /// The path of the field at fault, empty when it is not about one.
    pub field: String,
    /// When another try may go through, in milliseconds; 0: as its reason has it. Not kept in the log.
    pub retry_ms: u32,
}

impl Rejection {
    /// A refusal that is not about one field.
    pub fn new(reason: Reason, text: impl Into<String>) -> Self {
        Self { reason, text: text.into(), field: String::new(), retry_ms: 0 }
    }

    /// The same, with the message that it is about.
    pub(crate) fn of_message(self, sequence: u64) -> Self {
        Self { text: format!("message {sequence}: {}", self.text), ..self }
    }

    /// A refusal of the value of a field.
    pub fn field(field: impl Into<String>, text: impl Into<String>) -> Self {
        Self { reason: Reason::InvalidField, text: text.into(), field: field.into(), retry_ms: 0 }
    }

    /// A field that this version cannot honour.
    pub fn unsupported(field: &'static str, text: impl Into<String>) -> Self {
        Self { reason: Reason::UnsupportedField, text: text.into(), field: field.into(), retry_ms: 0 }
    }

    /// No such workspace.
    pub fn unknown_workspace(workspace: &str) -> Self {
        let text = format!("workspace {workspace:?} does not exist; create it, or list those there are");
        Self::new(Reason::UnknownWorkspace, text)
    }

    /// No such sandbox.
    pub fn unknown_sandbox(sandbox: &str) -> Self {
        Self::new(Reason::UnknownSandbox, format!("sandbox {sandbox:?} is not registered; register it first"))
    }

    /// No such topic.
    pub fn unknown_topic(topic: &str) -> Self {
        Self::new(Reason::UnknownTopic, format!("topic {topic:?} does not exist; create it first"))
    }

    /// No API key has this id, or none that the caller may see.
    pub fn unknown_key(id: u64) -> Self {
        Self::new(Reason::UnknownKey, format!("there is no key {id:016x}"))
    }

    /// No token has this id, or none that the caller may see.
    pub fn unknown_token(token_id: &str) -> Self {
        let text =
            format!("this broker has made no token {token_id}; for one that was made elsewhere say when it ends");
        Self::new(Reason::UnknownToken, text)
    }

    /// No message was held under this number, or it is forgotten.
    pub fn unknown_approval(number: u64) -> Self {
        Self::new(Reason::UnknownApproval, format!("there is no approval {number}; list those there are"))
    }

    /// Nobody there has a capability.
    pub fn no_capable_sandbox(capability: &str) -> Self {
        let text =
            format!("no sandbox with the capability {capability:?} is there; try again later, or let the message wait");
        Self::new(Reason::NoCapableSandbox, text)
    }
}

impl Field for Rejection {
    fn put(&self, out: &mut BytesMut) {
        out.put_u8(self.reason as u8);
        crate::encoding::put_bytes(out, self.text.as_bytes());
        crate::encoding::put_bytes(out, self.field.as_bytes());
    }

    fn get(reader: &mut Reader) -> Result<Self, DecodeError> {
        let number = reader.u8()?;
        let reason = Reason::from_number(number).ok_or(DecodeError::Unknown { what: "reason", value: number })?;
        let mut text = || -> Result<String, DecodeError> {
            String::from_utf8(reader.bytes()?.to_vec()).map_err(|_| DecodeError::Text("rejection"))
        };
        Ok(Self { reason, text: text()?, field: text()?, retry_ms: 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_have_different_codes_and_come_back() {
        let codes: std::collections::BTreeSet<_> = Reason::ALL.iter().map(|reason| reason.code()).collect();
        assert_eq!(codes.len(), Reason::ALL.len());
        for reason in Reason::ALL {
            let rejection = Rejection { reason: *reason, text: "t".into(), field: "f".into(), retry_ms: 0 };
            let mut out = BytesMut::new();
            rejection.put(&mut out);
            assert_eq!(Rejection::from_bytes(out.freeze(), "rejection").unwrap(), rejection);
        }
    }
}
