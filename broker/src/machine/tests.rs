//! The machine against tables, against a small slow model, and against itself.

mod api_keys;
mod approval;
mod audit;
mod found;
mod harness;
mod model;
mod policy;
mod retention;
mod semantics;
mod subscription;
mod table;
mod time;
mod tokens;
mod topics;
