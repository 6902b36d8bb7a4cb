//! What the process leaves when it dies: its memory holds tokens, keys, and what messages say.

use std::io;

#[cfg(unix)]
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// From now on this process leaves no core dump.
///
/// # Errors
/// When the system does not allow it.
#[cfg(unix)]
pub fn forbid() -> io::Result<()> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    // A system that hands dumps to a program does not ask for the limit, but for this.
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}

/// From now on this process leaves no core dump.
///
/// # Errors
/// Never: elsewhere nothing is left.
#[cfg(not(unix))]
pub fn forbid() -> io::Result<()> {
    Ok(())
}
