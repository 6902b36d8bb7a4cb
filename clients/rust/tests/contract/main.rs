//! The client against a server that plays the contract in this process.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod fake;
mod publish;
mod subscribe;
mod unary;
