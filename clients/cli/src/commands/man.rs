//! `tandem man`.

use std::{fs, path::Path};

use clap::CommandFactory as _;
use clap_mangen::Man;

use crate::{
    args::{Cli, ManArgs},
    exit::Failure,
    output::Output,
};

pub(crate) fn run(args: ManArgs, output: Output) -> Result<(), Failure> {
    let mut command = Cli::command();
    command.build();
    let Some(dir) = args.dir else {
        let page = page(command, "tandem")?;
        return output.line(String::from_utf8_lossy(&page).trim_end());
    };
    fs::create_dir_all(&dir).map_err(|error| unwritable(&dir, &error))?;
    let pages = write_all(&command, "tandem", &dir)?;
    output.note(&format!("{pages} pages are in {}; man -l {}", dir.display(), dir.join("tandem.1").display()));
    Ok(())
}

fn page(command: clap::Command, name: &str) -> Result<Vec<u8>, Failure> {
    let mut page = Vec::new();
    Man::new(command).title(name).render(&mut page).map_err(|error| Failure::failed("INTERNAL", error.to_string()))?;
    Ok(page)
}

fn unwritable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::failed("FILE_UNWRITABLE", format!("cannot write {}: {error}", path.display()))
}

/// A page for a command and each below it, named as man names them: `tandem-dlq-list.1`.
fn write_all(command: &clap::Command, name: &str, dir: &Path) -> Result<usize, Failure> {
    let file = dir.join(format!("{name}.1"));
    fs::write(&file, page(command.clone(), name)?).map_err(|error| unwritable(&file, &error))?;
    let mut pages = 1;
    for below in command.get_subcommands().filter(|below| below.get_name() != "help") {
        pages += write_all(below, &format!("{name}-{}", below.get_name()), dir)?;
    }
    Ok(pages)
}
