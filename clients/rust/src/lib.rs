//! The Rust client of the AInTandem broker.
//!
//! Owns: connections and their settings; batching, numbering and the window of unacknowledged messages when publishing;
//! credit and the merging of verdicts when subscribing; requests that survive a break, feeds that go on by themselves,
//! paging; and one [`Error`] that says what was wrong and whether a retry can help. It deliberately does not know which
//! values the broker accepts: limits and rules are judged there.
//!
//! Read first: [`Client`], [`PublishStream`], [`Inbox`], and [`Subscription`] below it.
//!
//! ```no_run
//! # async fn first() -> Result<(), tandem_client::Error> {
//! use tandem_client::{Client, MessageBuilder, SubscribeOptions, to_sandbox};
//!
//! let client = Client::connect("http://127.0.0.1:8001")?;
//! let message = MessageBuilder::notification("alice", to_sandbox("bob"), r#"{"hello":"bob"}"#).build();
//! let receipt = client.publisher("default").publish(message).await?;
//! let mut inbox = client.inbox("default", "bob", SubscribeOptions::default()).await?;
//! while let Some(delivery) = inbox.next().await? {
//!     println!("{} (after {})", delivery.message().sequence, receipt.sequence);
//!     delivery.ack().await?;
//! }
//! # Ok(()) }
//! ```
//!
//! Invariants: a receipt is only given for what the broker acknowledged; every sent message gets exactly one outcome,
//! also when its stream breaks; no lock is held across an await; every queue is bounded by the window or the credit.
//!
//! Tested by unit tests beside the code, in `tests/` against a server that plays the contract in this process, and by the
//! scenarios of `clients/conformance` against real brokers, in the crate `tests`.

mod again;
mod approvals;
mod audit;
mod client;
mod clock;
mod cluster;
mod dead_letters;
mod error;
mod events;
mod feed;
mod history;
mod keys;
mod leaders;
mod message;
mod pages;
mod policies;
mod progress;
mod publish;
mod registry;
mod server;
mod settings;
mod subscribe;
mod token;
mod tokens;
mod topics;
mod trace;
mod wire;
mod workspaces;

pub use approvals::{Approvals, Decision};
pub use audit::{Audit, AuditChain, AuditQuery};
pub use client::Client;
pub use cluster::Cluster;
pub use dead_letters::{DeadLetterQuery, DeadLetters, RedriveOptions};
pub use error::{Error, FieldViolation, Refusal, Undeliverable};
pub use events::{EventQuery, EventStream};
pub use history::{History, HistoryQuery, MessageFilter, MessageStream, StreamQuery};
pub use keys::{Keys, NewKey};
pub use message::{
    MessageBuilder, broadcast, to_capability, to_capability_all, to_capability_or_wait, to_sandbox, to_topic,
};
pub use policies::Policies;
pub use publish::{
    Batch, BatchReceipt, BatchStream, ExceptionKind, PendingReceipt, Placed, Producer, PublishException, PublishStream,
    PublishStreamOptions, Publisher, Receipt, Response,
};
pub use registry::{AgentQuery, Registry};
pub use settings::Settings;
pub use subscribe::{
    AckCounts, Acker, Delivery, Inbox, InboxDelivery, Incoming, LeaseCounts, LeasesLost, Nack, NackCounts, RawDelivery,
    SubscribeOptions, Subscription,
};
pub use tandem_proto::{
    approval::v1::{Approval, ApprovalState, ApprovalVote},
    audit::v1::{AuditKind, AuditRecord, GetAuditHeadResponse as AuditHead, ListAuditRecordsResponse as AuditPage},
    cluster::v1::{
        Change as ClusterChange, Cluster as ClusterState, Node as ClusterNode, NodeDigest, NodeState, ShardDigests,
        ShardMembers, VerifyClusterResponse,
    },
    key::v1::Key,
    messaging::v1::{
        AckMode, AttemptError, CapabilityDestination, DeadLetter, DeadLetterReason, Destination, Event, EventType,
        FailedAttempt, Follow, Message, MessageType, ProducerPosition, PurgeDeadLettersResponse as PurgeProgress,
        RedriveDeadLettersResponse as RedriveProgress, ReportedEvent, Topic, destination,
    },
    policy::v1::Policy,
    registry::v1::{Agent, DiscoveredAgent, InboxLimits, Liveness, RetryPolicy, Sandbox},
    server::v1::{GetCallerResponse as KnownCaller, GetServerInfoResponse as ServerInfo, Limits, Member, Shard},
    token::v1::Token as KnownToken,
    workspace::v1::{Quotas, Rate, Workspace, WorkspaceSettings},
};
pub use token::Token;
pub use tokens::{NewToken, Renewed, Tokens};
pub use tonic::Code;
pub use topics::{FollowFrom, Topics};
pub use wire::{wire_duration, wire_time};
pub use workspaces::Workspaces;
