//! A user with contexts of his own, and what he may find where he looks.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    thread,
};

use serde_json::Value;
use tandem_tests::tandem_command;

/// Of the environment.
pub(crate) type Variables<'a> = &'a [(&'a str, &'a str)];

/// A user with a folder for settings.
pub(crate) struct User(tempfile::TempDir);

impl User {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// A file of his folder.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn command(&self, environment: Variables<'_>, arguments: &[&str]) -> Command {
        let mut command = tandem_command();
        command.env("TANDEM_CONTEXTS", self.file("contexts.toml")).args(arguments);
        command.envs(environment.iter().copied());
        command
    }

    pub(crate) fn run(&self, environment: Variables<'_>, arguments: &[&str]) -> Output {
        self.command(environment, arguments).output().unwrap()
    }

    /// What a command says that must succeed.
    pub(crate) fn rows(&self, environment: Variables<'_>, arguments: &[&str]) -> Vec<Value> {
        let done = self.run(environment, &[&["--json"], arguments].concat());
        assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
        documents(&done)
    }

    /// The code with which a command fails that must fail.
    pub(crate) fn refused(&self, environment: Variables<'_>, arguments: &[&str]) -> String {
        let done = self.run(environment, &[&["--json"], arguments].concat());
        assert!(!done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stdout));
        let error: Value = serde_json::from_slice(&done.stderr).unwrap();
        error["code"].as_str().unwrap().to_owned()
    }

    /// The first lines that a command prints that goes on.
    pub(crate) fn first_lines(&self, arguments: &[&str], count: usize) -> Vec<String> {
        let mut command = self.command(&[], arguments);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut running = Running(child);
        let printed = BufReader::new(running.0.stdout.take().unwrap());
        printed.lines().take(count).map(|line| line.unwrap()).collect()
    }
}

/// Ends with its test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// What a command has printed, a document a line.
pub(crate) fn documents(done: &Output) -> Vec<Value> {
    let text = String::from_utf8(done.stdout.clone()).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// What listens where a control plane could: hangs up on so many connections, then answers everything with the same.
pub(crate) fn web_server(hangs_up: usize, status: &'static str, body: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    // It ends with the process.
    thread::spawn(move || {
        for stream in listener.incoming().skip(hangs_up) {
            let Ok(stream) = stream else { continue };
            let mut head = BufReader::new(&stream).lines();
            while head.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
            let length = body.len();
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}");
            (&stream).write_all(answer.as_bytes()).ok();
        }
    });
    url
}
