//! What a sandbox is for: one line of JSON.

use std::{collections::BTreeMap, fmt};

use serde::Deserialize;
use serde_json::Value;

/// All that this process is told.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Assignment {
    /// Where the broker is reached from here, such as `http://10.213.1.1:7700`.
    pub(crate) broker: Vec<String>,
    /// The workspace.
    pub(crate) workspace_id: String,
    /// As the broker knows the sandbox.
    pub(crate) sandbox_id: String,
    /// Who the sandbox is; None: the broker asks nobody.
    #[serde(default)]
    pub(crate) token: Option<String>,
    /// What is told to the broker about the sandbox.
    #[serde(default)]
    pub(crate) labels: BTreeMap<String, String>,
    /// Who lives in it.
    #[serde(default)]
    pub(crate) agents: Vec<Agent>,
    /// Variables of commands and handlers.
    #[serde(default)]
    pub(crate) environment: BTreeMap<String, String>,
    /// Files for them alone, by name.
    #[serde(default)]
    pub(crate) secrets: BTreeMap<String, String>,
    /// For programs in the sandbox, as it is: `agent.json`.
    #[serde(default)]
    pub(crate) agent_config: Value,
    /// What to run.
    #[serde(default)]
    pub(crate) work: Work,
}

impl fmt::Debug for Assignment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Assignment").field("sandbox_id", &self.sandbox_id).finish_non_exhaustive()
    }
}

/// As the broker's registry has them.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Agent {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) role: String,
    #[serde(default)]
    pub(crate) capabilities: Vec<String>,
}

/// What a sandbox runs.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Work {
    /// Nothing: it is there, and what it does is started from outside.
    #[default]
    Idle,
    /// A program that stays, and speaks to the broker itself. The sandbox ends with it.
    Command(Vec<String>),
    /// A program for each message.
    Handler(Handler),
}

/// A program that gets a message on its standard input and says with its exit code what has become of it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Handler {
    /// The program and its arguments.
    pub(crate) command: Vec<String>,
    /// Messages that are handled at once. Default 1.
    #[serde(default = "one")]
    pub(crate) concurrency: u32,
    /// How long one may take, in seconds; then it is killed and the message given back. Default 300.
    #[serde(default = "five_minutes")]
    pub(crate) timeout_seconds: u64,
}

fn one() -> u32 {
    1
}

fn five_minutes() -> u64 {
    300
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_assignment_is_read_and_hides_its_secrets() {
        let text = r#"{"broker":["http://10.0.0.1:7700"],"workspace_id":"w","sandbox_id":"s","token":"t0p-secret",
            "secrets":{"llm/openai":"k3y"},"work":{"handler":{"command":["/bin/cat"]}}}"#;
        let assignment: Assignment = serde_json::from_str(text).unwrap();
        let Work::Handler(handler) = &assignment.work else { panic!("{:?}", assignment.work) };
        assert_eq!((handler.concurrency, handler.timeout_seconds), (1, 300));
        let shown = format!("{assignment:?}");
        assert!(!shown.contains("secret") && !shown.contains("k3y"), "{shown}");
        for wrong in [r#"{"broker":[]}"#, r#"{"broker":[],"workspace_id":"w","sandbox_id":"s","tokn":"x"}"#, "{"] {
            assert!(serde_json::from_str::<Assignment>(wrong).is_err(), "{wrong}");
        }
    }
}
