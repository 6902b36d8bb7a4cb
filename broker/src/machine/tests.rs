//! The machine against tables, against a small slow model, and against itself.

mod harness;
mod model;
mod semantics;
mod table;
