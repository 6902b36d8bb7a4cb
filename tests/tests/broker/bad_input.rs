//! What a wrong request or a wrong start gets: a specific code, a reason for programs, and a text that says what to do.

mod bytes;
mod message;
mod places;
mod start;
mod subscribe;
