//! The `tandem` command against a broker, both processes of their own: what a user types, and what programs read.

#![allow(clippy::unwrap_used, reason = "these are tests")]

mod approval;
mod audit;
mod contexts;
mod desk;
mod dlq;
mod events;
mod history;
mod inbox;
mod looks;
mod policy;
mod quotas;
mod request;
mod topic;
mod user;
