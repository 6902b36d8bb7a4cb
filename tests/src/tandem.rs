//! The `tandem` command.

use std::process::Command;

use crate::process::{clean_command, under_test};

/// A command that runs `tandem`, with nothing of this process's environment that would change what it does.
///
/// # Panics
/// When cargo has not built it.
pub fn tandem_command() -> Command {
    clean_command(under_test("tandem-under-test"))
}
