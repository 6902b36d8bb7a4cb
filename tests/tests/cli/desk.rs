//! A broker, and a user who types commands.

use std::process::Command;

use serde_json::Value;
use tandem_tests::{BrokerProcess, Exit, Home, run_to_exit, tandem_command};

/// See the module.
pub(crate) struct Desk {
    home: Home,
    broker: BrokerProcess,
}

impl Desk {
    /// A fresh broker with these sandboxes.
    pub(crate) async fn with(sandboxes: &[&str]) -> Self {
        let home = Home::new();
        let broker = BrokerProcess::start(&home, &home.config()).await;
        let desk = Self { home, broker };
        for sandbox in sandboxes {
            desk.json(&["sandbox", "register", sandbox]).await;
        }
        desk
    }

    /// Where files may lie.
    pub(crate) fn home(&self) -> &Home {
        &self.home
    }

    /// Where the broker listens.
    pub(crate) fn server(&self) -> String {
        format!("http://{}", self.broker.grpc_address())
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = tandem_command();
        command.args(["--server", &self.server()]).args(arguments);
        command
    }

    /// Runs a command to its end, whatever that is.
    pub(crate) async fn run(&self, arguments: &[&str]) -> Exit {
        run_to_exit(&self.home, self.command(arguments)).await
    }

    /// Runs a command that must succeed, and returns what it says to people.
    pub(crate) async fn text(&self, arguments: &[&str]) -> String {
        let exit = self.run(arguments).await;
        assert_eq!(exit.code, Some(0), "{arguments:?}: {exit:#?}");
        exit.stdout
    }

    /// Runs a command that must succeed, and returns what it says to programs: a document a line.
    pub(crate) async fn json(&self, arguments: &[&str]) -> Vec<Value> {
        let exit = self.run(&[arguments, &["--json"]].concat()).await;
        assert_eq!((exit.code, exit.stderr.as_str()), (Some(0), ""), "{arguments:?}: {exit:#?}");
        exit.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The same for a command with one result.
    pub(crate) async fn one(&self, arguments: &[&str]) -> Value {
        let mut lines = self.json(arguments).await;
        assert_eq!(lines.len(), 1, "{arguments:?}: {lines:#?}");
        lines.remove(0)
    }

    /// Publishes and returns the sequence.
    pub(crate) async fn publish(&self, arguments: &[&str]) -> u64 {
        self.one(&[&["pub"], arguments].concat()).await["sequence"].as_u64().unwrap()
    }

    /// Runs a command that must fail so, told to people and to programs alike, and must say each of these. Nothing is left on
    /// standard output.
    pub(crate) async fn refused(&self, arguments: &[&str], exit_code: i32, code: &str, says: &[&str]) {
        let plain = self.run(arguments).await;
        assert_eq!((plain.code, plain.stdout.as_str()), (Some(exit_code), ""), "{arguments:?}: {plain:#?}");
        let json = self.run(&[arguments, &["--json"]].concat()).await;
        assert_eq!((json.code, json.stdout.as_str()), (Some(exit_code), ""), "{arguments:?}: {json:#?}");
        let error: Value = serde_json::from_str(&json.stderr).unwrap();
        assert_eq!((error["code"].as_str(), error["exit_code"].as_i64()), (Some(code), Some(exit_code.into())));
        let told = format!("{} {}", error["error"].as_str().unwrap(), error["next"].as_str().unwrap_or_default());
        for part in says {
            assert!(plain.stderr.contains(part), "{arguments:?} does not say {part:?}: {}", plain.stderr);
            assert!(told.contains(part), "{arguments:?} does not say {part:?} to programs: {told}");
        }
    }
}

/// A field of each document.
pub(crate) fn column<'a>(documents: &'a [Value], field: &str) -> Vec<&'a Value> {
    documents.iter().map(|document| document.pointer(field).unwrap_or(&Value::Null)).collect()
}
