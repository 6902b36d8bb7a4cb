//! The Rust client of the AInTandem broker.
//!
//! Owns: connections and their settings, batching and the window of unacknowledged messages when publishing, credit and
//! the merging of acknowledgements when subscribing, paging, and one [`Error`] that says what was wrong and whether a
//! retry can help. It deliberately does not know which values the broker accepts: limits and rules are judged there.
//!
//! Read first: [`Client`], [`PublishStream`], [`Subscription`].
//!
//! ```no_run
//! # async fn first() -> Result<(), tandem_client::Error> {
//! use tandem_client::{Client, Message, MessageType, SubscribeOptions, to_sandbox};
//!
//! let client = Client::connect("http://127.0.0.1:8001")?;
//! let message = Message {
//!     from_sandbox_id: "alice".into(),
//!     destination: Some(to_sandbox("bob")),
//!     r#type: MessageType::Notification.into(),
//!     content: r#"{"hello":"bob"}"#.into(),
//!     ..Message::default()
//! };
//! let receipt = client.publisher("default").publish(message).await?;
//! let mut inbox = client.subscribe("default", "bob", SubscribeOptions::default()).await?;
//! while let Some(delivery) = inbox.next().await? {
//!     println!("{} (after {})", delivery.message.sequence, receipt.sequence);
//!     inbox.ack(&delivery);
//! }
//! # Ok(()) }
//! ```
//!
//! Invariants: a receipt is only given for what the broker acknowledged; every sent message gets exactly one outcome,
//! also when its stream breaks; no lock is held across an await; every queue is bounded by the window or the credit. Not
//! here yet: reconnecting streams, leader hints and producer sequences.
//!
//! Tested by unit tests beside the code and, in `tests/`, against a server that plays the contract in this process.

mod client;
mod clock;
mod error;
mod history;
mod message;
mod pages;
mod publish;
mod registry;
mod server;
mod settings;
mod subscribe;
mod workspaces;

pub use client::Client;
pub use error::{Error, FieldViolation, Refusal};
pub use history::{History, HistoryQuery};
pub use message::{broadcast, to_sandbox};
pub use publish::{
    Batch, BatchReceipt, BatchStream, ExceptionKind, PendingReceipt, PublishException, PublishStream,
    PublishStreamOptions, Publisher, Receipt,
};
pub use registry::{AgentQuery, Registry};
pub use settings::Settings;
pub use subscribe::{AckCounts, Acker, Delivery, RawDelivery, SubscribeOptions, Subscription};
pub use tandem_proto::{
    messaging::v1::{Destination, Message, MessageType, destination},
    registry::v1::{Agent, DiscoveredAgent, Liveness, Sandbox},
    server::v1::GetServerInfoResponse as ServerInfo,
    workspace::v1::Workspace,
};
pub use tonic::Code;
pub use workspaces::Workspaces;
