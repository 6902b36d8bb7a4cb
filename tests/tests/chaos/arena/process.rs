//! A broker's process, with all that can be done to it.

use std::{
    fs::{self, OpenOptions},
    path::PathBuf,
    process::{Child, Command},
};

/// How a process ended that nobody had asked to.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: String,
    /// The end of what it wrote.
    pub(crate) log: String,
}

/// Dropping it kills exactly this process.
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts it; what it writes goes to the end of `log`.
    pub(crate) fn spawn(mut command: Command, log: PathBuf) -> Self {
        let file = OpenOptions::new().create(true).append(true).open(&log).unwrap();
        command.stdout(file.try_clone().unwrap()).stderr(file);
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?} cannot be run: {error}"));
        Self { child, log }
    }

    /// Sends a signal: `STOP`, `CONT`, `TERM`.
    pub(crate) fn signal(&self, name: &str) {
        // The standard library sends no other signal than kill -9, and unsafe code is forbidden here. It may have ended
        // meanwhile, which whoever watches it will see.
        let script = format!("kill -{name} {} 2>&-", self.child.id());
        Command::new("sh").args(["-c", &script]).status().expect("a shell can be run");
    }

    /// Whether it did.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("a child can be waited for").is_some()
    }

    /// How it ended, if it did.
    pub(crate) fn ended(&mut self) -> Option<Ended> {
        let status = self.child.try_wait().expect("a child can be waited for")?;
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = text.lines().rev().take(8).collect();
        let log = lines.into_iter().rev().collect::<Vec<_>>().join("\n");
        Some(Ended { code: status.to_string(), log })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail when it has ended already, which is as good. A stopped process dies of this as well.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
