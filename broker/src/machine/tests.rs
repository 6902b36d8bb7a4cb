//! The machine against tables, against a small slow model, and against itself.

mod found;
mod harness;
mod model;
mod retention;
mod semantics;
mod subscription;
mod table;
mod time;
mod topics;
