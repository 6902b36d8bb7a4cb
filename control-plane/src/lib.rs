//! The control plane: workspaces and their sandboxes, over REST.
//!
//! Owns what is wanted (a database), and makes it true at the broker and at Docker. It deliberately does not know how the broker keeps messages
//! or decides who somebody is: it speaks to it as any client does, and lets it say who is who.
//!
//! Read first: `service::workspaces` (what is wanted stands in the database before anything is done), `store` (the only
//! module that speaks SQL), `sandbox` (the seam to Docker), `http` (the edge).
//!
//! Invariants:
//! - What was begun is ended: by who has asked, or by the reconciler, of which one runs on a database at a time.
//! - Nobody overwrites what he has not seen: every change names the revision that it is for.
//! - A request is answered with what it asked for, or with a problem that has a stable code.
//! - Every body, page, rate and time has a limit.
//! - A secret is kept sealed, and shown to nobody but whom it was given for.
//!
//! Tested by unit tests, one suite for both databases, and from outside by the crate `tests`.

mod app;
mod clock;
mod config;
mod error;
mod hex;
mod http;
mod metrics;
mod random;
mod relay;
mod sandbox;
mod secrets;
mod service;
mod store;
mod tls;

pub use app::{ControlPlane, StartError};
pub use config::{
    AlertsConfig, BrokerConfig, Config, ConfigError, CorsConfig, DatabaseConfig, Limits, SandboxConfig, SecretsConfig,
    TlsConfig,
};
pub use error::error_codes;
pub use store::StoreError;
