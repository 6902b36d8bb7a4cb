//! What a sandbox is, outside and in the database.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::{error::Failure, sandbox::Host, store::Resource};

const MAX_NAME_BYTES: usize = 63;
const MAX_TEXT_CHARS: usize = 2_000;
const MAX_PROMPT_BYTES: usize = 256 << 10;
const MAX_AGENTS: usize = 64;
const MAX_WORDS: usize = 256;
const MAX_WORD_BYTES: usize = 8 << 10;
const MAX_VARIABLES: usize = 256;
const MAX_DOCUMENT_BYTES: usize = 1 << 20;

/// What runs in a sandbox, and with how much.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Spec {
    /// For people.
    #[schema(max_length = 2000)]
    pub(crate) description: String,
    pub(crate) agent_config: AgentConfig,
    pub(crate) resources: Resources,
    /// Names of MCP servers of the workspace that agents in it may use.
    #[schema(max_items = 64)]
    pub(crate) mcp_servers: Vec<String>,
    /// Variables of what runs in it. Whoever may read the sandbox reads them: secrets belong to providers.
    pub(crate) environment: BTreeMap<String, String>,
    /// Beside the sandbox at the broker, for people and programs.
    pub(crate) labels: BTreeMap<String, String>,
    /// An image of this host that was made from `aintandem/sandbox`. Unset: that one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 255)]
    pub(crate) image: Option<String>,
    /// A program that stays, with its arguments; the sandbox ends with it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 256)]
    pub(crate) command: Vec<String>,
    /// A program for each message instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) handler: Option<Handler>,
    pub(crate) restart_policy: RestartPolicy,
    /// Stop when nothing has waited in its inbox and it has done next to nothing for so long. Unset: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 5, maximum = 2_592_000)]
    pub(crate) idle_timeout_seconds: Option<u64>,
    /// Start when it is stopped and a message waits in its inbox.
    pub(crate) wake_on_message: bool,
}

/// Who lives in a sandbox; programs in it find this as `agent.json`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct AgentConfig {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) primary_agent: Option<Agent>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 63)]
    pub(crate) sub_agents: Vec<Agent>,
}

/// One agent.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
// The description has another one: an agent that was discovered.
#[schema(as = SandboxAgent)]
pub(crate) struct Agent {
    /// Unique in its sandbox.
    #[schema(min_length = 1, max_length = 128)]
    pub(crate) name: String,
    #[schema(max_length = 128)]
    pub(crate) role: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schema(max_length = 262_144)]
    pub(crate) system_prompt: String,
    /// What others find it by.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 64)]
    pub(crate) capabilities: Vec<String>,
    /// Of its provider.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schema(max_length = 128)]
    pub(crate) model: String,
    /// A provider of the workspace. Empty: its default.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schema(max_length = 100)]
    pub(crate) llm_provider: String,
    /// Whatever else its program wants to know.
    #[serde(skip_serializing_if = "Map::is_empty")]
    #[schema(value_type = Object)]
    pub(crate) config: Map<String, Value>,
}

/// What a sandbox may take.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Resources {
    /// Memory in MiB, without swap.
    #[schema(minimum = 16, maximum = 1_048_576)]
    pub(crate) memory_mb: u64,
    /// Processors, also parts of one.
    #[schema(minimum = 0.05, maximum = 256)]
    pub(crate) cpu_cores: f64,
    /// Processes and threads.
    #[schema(minimum = 8, maximum = 32_768)]
    pub(crate) pids: u32,
    /// What it can write to `/work`, in MiB.
    #[schema(minimum = 1, maximum = 1_048_576)]
    pub(crate) disk_mb: u64,
    /// What it can write to `/tmp`, in MiB; it counts as memory.
    #[schema(minimum = 1, maximum = 65_536)]
    pub(crate) tmp_mb: u64,
    /// Stop so long after a start, in seconds. Unset: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 31_622_400)]
    pub(crate) timeout_seconds: Option<u64>,
}

impl Default for Resources {
    fn default() -> Self {
        Self { memory_mb: 512, cpu_cores: 1.0, pids: 256, disk_mb: 1_024, tmp_mb: 64, timeout_seconds: None }
    }
}

/// A program that gets a message as JSON on its standard input, and says with its exit code what has become of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Handler {
    /// The program and its arguments.
    #[schema(min_items = 1, max_items = 256)]
    pub(crate) command: Vec<String>,
    /// Messages at once.
    #[serde(default = "one")]
    #[schema(minimum = 1, maximum = 256, default = 1)]
    pub(crate) concurrency: u32,
    /// How long one may take, in seconds.
    #[serde(default = "five_minutes")]
    #[schema(minimum = 1, maximum = 86_400, default = 300)]
    pub(crate) timeout_seconds: u64,
}

fn one() -> u32 {
    1
}

fn five_minutes() -> u64 {
    300
}

/// What is done when a sandbox ends by itself.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RestartPolicy {
    pub(crate) condition: RestartCondition,
    /// How often in a row. Unset: again and again, at longer and longer intervals.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(maximum = 1_000_000)]
    pub(crate) max_retries: Option<u32>,
}

/// When it is started again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RestartCondition {
    /// Whenever it ends.
    Always,
    /// When it was killed, or its exit code is not 0.
    #[default]
    OnFailure,
    Never,
}

impl Spec {
    /// All agents.
    pub(crate) fn agents(&self) -> impl Iterator<Item = &Agent> {
        self.agent_config.primary_agent.iter().chain(&self.agent_config.sub_agents)
    }

    /// Whether it can be, on this host.
    pub(crate) fn check(&self, host: Host) -> Result<(), Failure> {
        self.resources.check(host)?;
        text("description", &self.description, MAX_TEXT_CHARS)?;
        self.check_agents()?;
        self.check_programs()?;
        for (field, pairs) in [("environment", &self.environment), ("labels", &self.labels)] {
            check_pairs(field, pairs)?;
        }
        if self.labels.len() > 60 {
            return Err(Failure::field("labels", format!("{} labels; at most 60", self.labels.len())));
        }
        if let Some(seconds) = self.idle_timeout_seconds {
            between("idle_timeout_seconds", seconds, 5, 30 * 86_400)?;
        }
        if self.mcp_servers.len() > 64 {
            return Err(Failure::field("mcp_servers", format!("{} servers; at most 64", self.mcp_servers.len())));
        }
        let image = self.image.as_deref().unwrap_or("x");
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/:@".contains(&byte);
        if image.is_empty() || image.len() > 255 || !image.bytes().all(plain) {
            return Err(Failure::field("image", format!("{image:?} is no name of an image, such as team/agent:1")));
        }
        let bytes = serde_json::to_string(self).map_or(usize::MAX, |text| text.len());
        if bytes > MAX_DOCUMENT_BYTES {
            let text = format!("all of it has {bytes} bytes as JSON; at most {MAX_DOCUMENT_BYTES}");
            return Err(Failure::field("agent_config", text));
        }
        Ok(())
    }

    fn check_agents(&self) -> Result<(), Failure> {
        let mut names = std::collections::HashSet::new();
        if self.agents().count() > MAX_AGENTS {
            return Err(Failure::field("agent_config", format!("more than {MAX_AGENTS} agents")));
        }
        for (number, agent) in self.agents().enumerate() {
            let is_primary = self.agent_config.primary_agent.is_some() && number == 0;
            let number = number - usize::from(self.agent_config.primary_agent.is_some() && !is_primary);
            let place = if is_primary {
                "agent_config.primary_agent".to_owned()
            } else {
                format!("agent_config.sub_agents[{number}]")
            };
            if agent.name.is_empty() {
                return Err(Failure::field(&format!("{place}.name"), "it is empty; agents are told apart by name"));
            }
            if !names.insert(agent.name.as_str()) {
                let text = format!("another agent is called {:?} too", agent.name);
                return Err(Failure::field(&format!("{place}.name"), text));
            }
            for (field, value) in [
                ("name", &agent.name),
                ("role", &agent.role),
                ("model", &agent.model),
                ("llm_provider", &agent.llm_provider),
            ] {
                text(&format!("{place}.{field}"), value, 128)?;
            }
            if agent.system_prompt.len() > MAX_PROMPT_BYTES {
                let text = format!("it has {} bytes; at most {MAX_PROMPT_BYTES}", agent.system_prompt.len());
                return Err(Failure::field(&format!("{place}.system_prompt"), text));
            }
            if agent.capabilities.len() > 64 {
                return Err(Failure::field(&format!("{place}.capabilities"), "more than 64"));
            }
        }
        Ok(())
    }

    fn check_programs(&self) -> Result<(), Failure> {
        if !self.command.is_empty() && self.handler.is_some() {
            return Err(Failure::field("handler", "there is a command, too; a sandbox has one of them"));
        }
        words("command", &self.command)?;
        let Some(handler) = &self.handler else { return Ok(()) };
        if handler.command.is_empty() {
            return Err(Failure::field("handler.command", "it is empty; name a program"));
        }
        words("handler.command", &handler.command)?;
        between("handler.concurrency", u64::from(handler.concurrency), 1, 256)?;
        between("handler.timeout_seconds", handler.timeout_seconds, 1, 86_400)
    }
}

impl Resources {
    fn check(&self, host: Host) -> Result<(), Failure> {
        between("resources.memory_mb", self.memory_mb, 16, 1 << 20)?;
        between("resources.pids", u64::from(self.pids), 8, 32_768)?;
        between("resources.disk_mb", self.disk_mb, 1, 1 << 20)?;
        between("resources.tmp_mb", self.tmp_mb, 1, 65_536)?;
        if let Some(seconds) = self.timeout_seconds {
            between("resources.timeout_seconds", seconds, 1, 366 * 86_400)?;
        }
        if !(0.05..=256.0).contains(&self.cpu_cores) {
            return Err(Failure::field("resources.cpu_cores", format!("{} is not 0.05 to 256", self.cpu_cores)));
        }
        let memory_mb = host.memory_bytes >> 20;
        if self.memory_mb > memory_mb {
            let text = format!("{} MiB is more than the host's {memory_mb} MiB", self.memory_mb);
            return Err(Failure::field("resources.memory_mb", text));
        }
        if self.cpu_cores > f64::from(host.cpus) {
            let text = format!("{} is more than the host's {} processors", self.cpu_cores, host.cpus);
            return Err(Failure::field("resources.cpu_cores", text));
        }
        if let Some(disk_mb) = host.disk_bytes.map(|bytes| bytes >> 20).filter(|most| self.disk_mb > *most) {
            let text = format!("{} MiB is more than the host's {disk_mb} MiB", self.disk_mb);
            return Err(Failure::field("resources.disk_mb", text));
        }
        Ok(())
    }
}

/// A name that is also the sandbox's at the broker, and its host's: what can stand in all of them.
pub(crate) fn check_name(name: &str) -> Result<(), Failure> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let fits = (1..=MAX_NAME_BYTES).contains(&name.len())
        && name.bytes().all(plain)
        && !name.starts_with('-')
        && !name.ends_with('-');
    if fits {
        return Ok(());
    }
    let text =
        format!("{name:?} is no name; take 1 to {MAX_NAME_BYTES} small letters, digits and hyphens, none at its ends");
    Err(Failure::field("name", text))
}

fn between(field: &str, number: u64, least: u64, most: u64) -> Result<(), Failure> {
    if (least..=most).contains(&number) {
        return Ok(());
    }
    Err(Failure::field(field, format!("{number} is not {least} to {most}")))
}

fn text(field: &str, text: &str, most: usize) -> Result<(), Failure> {
    if text.chars().count() > most || text.contains('\0') {
        return Err(Failure::field(
            field,
            format!("it has {} characters, or a NUL; at most {most}", text.chars().count()),
        ));
    }
    Ok(())
}

fn words(field: &str, words: &[String]) -> Result<(), Failure> {
    if words.len() > MAX_WORDS {
        return Err(Failure::field(field, format!("{} words; at most {MAX_WORDS}", words.len())));
    }
    if words.first().is_some_and(String::is_empty) {
        return Err(Failure::field(field, "its first word is empty; name a program"));
    }
    if words.iter().any(|word| word.len() > MAX_WORD_BYTES || word.contains('\0')) {
        return Err(Failure::field(field, format!("a word has more than {MAX_WORD_BYTES} bytes, or a NUL")));
    }
    Ok(())
}

fn check_pairs(field: &str, pairs: &BTreeMap<String, String>) -> Result<(), Failure> {
    if pairs.len() > MAX_VARIABLES {
        return Err(Failure::field(field, format!("{} of them; at most {MAX_VARIABLES}", pairs.len())));
    }
    for (name, value) in pairs {
        let place = format!("{field}.{name}");
        if name.is_empty() || name.len() > 128 || name.contains(['=', '\0']) {
            return Err(Failure::field(&place, "the name has 1 to 128 bytes, and neither = nor a NUL"));
        }
        if field == "environment" && name.starts_with("TANDEM_") {
            return Err(Failure::field(&place, "names that begin with TANDEM_ are set by the sandbox"));
        }
        if value.len() > 4_096 || value.contains('\0') {
            return Err(Failure::field(&place, format!("it has {} bytes, or a NUL; at most 4,096", value.len())));
        }
    }
    Ok(())
}

/// What is to become of a sandbox.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Wanted {
    #[default]
    Running,
    Stopped,
    Gone,
}

/// What there is to say about a sandbox.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Document {
    pub(crate) spec: Spec,
    pub(crate) wanted: Wanted,
    /// At the broker; empty: it has none.
    pub(crate) token_id: String,
    /// Of the last start, in milliseconds since 1970; 0: never.
    pub(crate) start_ms: i64,
    /// When the broker had last heard of it before that, by its clock; 0: never.
    pub(crate) heard_ms: i64,
    /// When it was first seen alive after that; 0: it was not.
    pub(crate) register_ms: i64,
    /// Of the last end.
    pub(crate) stop_ms: i64,
    /// Why it does not run: `asked`, `timed_out`, `idle`, `ended`, `disk_limit` or `failed`.
    pub(crate) stopped_because: String,
    /// How often it was started again in a row.
    pub(crate) retries: u32,
    /// How often in all.
    pub(crate) restarts: u64,
    /// When it is started again; 0: nothing is waited for.
    pub(crate) retry_ms: i64,
    /// How often processes were killed because it had no more memory.
    pub(crate) out_of_memory_kills: u64,
    /// Of the last end.
    pub(crate) exit_code: Option<i64>,
    /// Why it is not as it should be; empty: it is.
    pub(crate) error: String,
    /// Which control plane has claimed it last: one that is gone claims nothing.
    pub(crate) claimant: String,
}

impl Document {
    /// As it is in the database.
    pub(crate) fn of(row: &Resource) -> Result<Self, Failure> {
        serde_json::from_str(&row.document).map_err(|error| {
            Failure::internal(format!("the record of {} {:?} cannot be read: {error}", row.kind, row.id))
        })
    }

    pub(crate) fn encode(&self) -> Result<String, Failure> {
        serde_json::to_string(self).map_err(|error| Failure::internal(format!("a record cannot be written: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: Host = Host { memory_bytes: 4 << 30, cpus: 2, disk_bytes: Some(10 << 30) };

    fn spec(text: &str) -> Result<Spec, String> {
        let spec: Spec = serde_json::from_str(text).map_err(|error| error.to_string())?;
        spec.check(HOST).map_err(|why| why.to_string()).map(|()| spec)
    }

    #[test]
    fn the_example_of_the_guide_is_one() {
        let text = r#"{"agent_config":{"primary_agent":{"name":"lead","role":"frontend","system_prompt":"Build."},
            "sub_agents":[{"name":"css","role":"styling"}]},
            "resources":{"memory_mb":512,"cpu_cores":1,"timeout_seconds":300},"mcp_servers":["filesystem"]}"#;
        let spec = spec(text).unwrap();
        assert_eq!((spec.resources.pids, spec.resources.timeout_seconds, spec.agents().count()), (256, Some(300), 2));
        assert_eq!(serde_json::from_str::<Spec>(&serde_json::to_string(&spec).unwrap()).unwrap(), spec);
    }

    #[test]
    fn what_cannot_be_is_named() {
        for (text, place) in [
            (r#"{"resources":{"memory_mb":8}}"#, "resources.memory_mb"),
            (r#"{"resources":{"memory_mb":8192}}"#, "resources.memory_mb"),
            (r#"{"resources":{"cpu_cores":3}}"#, "resources.cpu_cores"),
            (r#"{"resources":{"cpu_cores":-1}}"#, "resources.cpu_cores"),
            (r#"{"resources":{"pids":1}}"#, "resources.pids"),
            (r#"{"resources":{"disk_mb":10241}}"#, "resources.disk_mb"),
            (r#"{"agent_config":{"sub_agents":[{"name":"a"},{"name":"a"}]}}"#, "agent_config.sub_agents[1].name"),
            (
                r#"{"agent_config":{"primary_agent":{"name":"a"},"sub_agents":[{"name":""}]}}"#,
                "agent_config.sub_agents[0].name",
            ),
            (r#"{"command":["a"],"handler":{"command":["b"]}}"#, "handler"),
            (r#"{"handler":{"command":[]}}"#, "handler.command"),
            (r#"{"environment":{"TANDEM_BROKER":"x"}}"#, "environment.TANDEM_BROKER"),
            (r#"{"environment":{"a=b":"x"}}"#, "environment.a=b"),
            (r#"{"image":"no image"}"#, "image"),
            (r#"{"idle_timeout_seconds":1}"#, "idle_timeout_seconds"),
        ] {
            let why = spec(text).unwrap_err();
            assert!(why.starts_with(&format!("{place}: ")), "{text}: {why}");
        }
        assert!(spec(r#"{"privileged":true}"#).is_err());
    }

    #[test]
    fn names_are_those_of_hosts() {
        for name in ["a", "frontend-team", "0"] {
            check_name(name).unwrap();
        }
        for name in ["", "-a", "a-", "A", "ä", "a b", "a/b", "a.b", &"a".repeat(64), "a\n"] {
            assert!(check_name(name).is_err(), "{name:?}");
        }
    }
}
