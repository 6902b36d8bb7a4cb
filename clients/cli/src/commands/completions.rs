//! `tandem completions`.

use std::io::{self, Write as _};

use clap::CommandFactory as _;

use crate::{
    args::{Cli, CompletionsArgs},
    exit::Failure,
};

pub(crate) fn run(args: CompletionsArgs) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "tandem", &mut script);
    io::stdout().write_all(&script).map_err(|error| Failure::output(&error))
}
