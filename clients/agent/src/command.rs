//! A program that stays: the sandbox ends with it.

use std::{os::unix::process::ExitStatusExt as _, path::Path, process::ExitStatus, time::Duration};

use tokio::{
    process::{Child, Command},
    sync::watch,
};

use crate::{assignment::Assignment, files};

/// The command cannot be run, or is not there: as shells have it.
const EXIT_CANNOT_RUN: u8 = 126;
const EXIT_NOT_FOUND: u8 = 127;
/// How long a program has to end once it was asked to; whoever stops the container waits longer.
const GRACE: Duration = Duration::from_secs(8);

/// A command that knows what a program of this sandbox may know.
pub(crate) fn prepared(argv: &[String], assignment: &Assignment, run_dir: &Path) -> Option<Command> {
    let (program, arguments) = argv.split_first()?;
    let mut command = Command::new(program);
    command.args(arguments).envs(files::environment(run_dir, assignment)).kill_on_drop(true);
    Some(command)
}

/// Runs it to its end, and returns its exit code.
pub(crate) async fn run(
    argv: &[String],
    assignment: &Assignment,
    run_dir: &Path,
    mut stopping: watch::Receiver<bool>,
) -> u8 {
    let Some(mut command) = prepared(argv, assignment, run_dir) else {
        eprintln!("tandem-agent: the command is empty");
        return EXIT_NOT_FOUND;
    };
    let mut child = match command.stdin(std::process::Stdio::null()).spawn() {
        Ok(child) => child,
        Err(error) => {
            eprintln!("tandem-agent: {:?} cannot be run: {error}", argv[0]);
            return if error.kind() == std::io::ErrorKind::NotFound { EXIT_NOT_FOUND } else { EXIT_CANNOT_RUN };
        }
    };
    tokio::select! {
        status = child.wait() => return exit_code(status.ok()),
        _ = stopping.wait_for(|stopping| *stopping) => {}
    }
    ask_to_stop(&child);
    match tokio::time::timeout(GRACE, child.wait()).await {
        Ok(status) => exit_code(status.ok()),
        Err(_) => {
            eprintln!("tandem-agent: {:?} does not end when asked to, and is killed", argv[0]);
            drop(child.kill().await);
            exit_code(None)
        }
    }
}

fn ask_to_stop(child: &Child) {
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw);
    if let Some(pid) = pid
        && let Err(error) = rustix::process::kill_process(pid, rustix::process::Signal::TERM)
    {
        eprintln!("tandem-agent: the command cannot be asked to stop: {error}");
    }
}

/// As shells have it: 128 and the signal of one that was killed.
pub(crate) fn exit_code(status: Option<ExitStatus>) -> u8 {
    let Some(status) = status else { return 128 + 9 };
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    u8::try_from(code).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn ran(argv: &[&str], stop: bool) -> u8 {
        let text = r#"{"broker":["http://b"],"workspace_id":"w","sandbox_id":"s","environment":{"CODE":"7"}}"#;
        let assignment: Assignment = serde_json::from_str(text).unwrap();
        let argv: Vec<String> = argv.iter().map(|word| (*word).to_owned()).collect();
        let (stopper, stopping) = watch::channel(false);
        let dir = tempfile::tempdir().unwrap();
        let running = run(&argv, &assignment, dir.path(), stopping);
        let stopped = async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            stopper.send_replace(stop);
            std::future::pending::<()>().await;
        };
        tokio::select! { code = running => code, () = stopped => unreachable!() }
    }

    #[tokio::test]
    async fn a_command_says_how_it_ended() {
        assert_eq!(ran(&["/bin/sh", "-c", "exit $CODE"], false).await, 7);
        assert_eq!(ran(&["/bin/sh", "-c", "kill -9 $$"], false).await, 137);
        assert_eq!(ran(&["/nowhere"], false).await, 127);
        assert_eq!(ran(&["/etc/passwd"], false).await, 126);
        assert_eq!(ran(&[], false).await, 127);
        let polite = ["/bin/sh", "-c", "trap 'exit 3' TERM; while true; do sleep 0.05; done"];
        assert_eq!(ran(&polite, true).await, 3);
    }
}
