//! Measurements that need more than one run of `tandem bench`.
//!
//! Owns the programs in `src/bin` and what they share: today the cost of a message as the log grows. It deliberately knows
//! nothing of the broker's inside: it starts one and speaks to it through the client, as users do. Read first:
//! [`Sample`], [`Process`], and the program `growth`.

mod clock;
mod process;

pub use process::{Process, Sample};
