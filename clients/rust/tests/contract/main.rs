//! The client against a server that plays the contract in this process.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod administration;
mod fake;
mod feeds;
mod producer;
mod publish;
mod request;
mod subscribe;
mod unary;
mod verdicts;
