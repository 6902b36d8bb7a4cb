//! Tools for the agents of a workspace (Model Context Protocol): how a server is started or reached, with its secrets kept sealed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    caller::Caller,
    patch::Patch,
    scoped::{self, Kind, Scoped},
    values::{self, GivenValues, Names, Values},
    web_address,
    workspace::{MAX_NAME_CHARS, text},
};
use crate::{
    error::{Failure, Reason},
    random,
    secrets::{Place, Secret, Secrets},
    store::{Resource, Store},
};

/// As the database knows them.
pub(crate) const KIND: Kind =
    Kind { name: "mcp_server", title: "MCP server", most: 100, unknown: Reason::UnknownMcpServer };
const MAX_COMMAND_BYTES: usize = 4_096;
const MAX_ARGUMENTS: usize = 100;

/// How a server is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Transport {
    /// It is started in the sandbox, and spoken to over its standard input and output.
    Stdio,
    /// It is reached over HTTP.
    Http,
}

/// What there is to say about a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Document {
    pub(crate) transport: Transport,
    /// Of `stdio`.
    pub(crate) command: String,
    pub(crate) args: Vec<String>,
    pub(crate) env: Values,
    /// Of `http`.
    pub(crate) url: String,
    pub(crate) headers: Values,
}

/// A server that is wanted.
#[derive(Debug, Clone)]
pub(crate) struct NewMcpServer {
    pub(crate) workspace: String,
    pub(crate) name: String,
    pub(crate) transport: Transport,
    pub(crate) command: String,
    pub(crate) args: Vec<String>,
    pub(crate) env: GivenValues,
    pub(crate) url: String,
    pub(crate) headers: GivenValues,
}

/// What is to change.
#[derive(Debug, Clone, Default)]
pub(crate) struct Changes {
    pub(crate) name: Option<String>,
    pub(crate) transport: Option<Transport>,
    pub(crate) command: Patch<String>,
    pub(crate) args: Patch<Vec<String>>,
    pub(crate) env: Patch<GivenValues>,
    pub(crate) url: Patch<String>,
    pub(crate) headers: Patch<GivenValues>,
}

/// How an agent starts or reaches a server. What is printed of it shows no secret.
#[derive(Debug, Clone)]
pub(crate) enum Reached {
    Stdio { command: String, args: Vec<String>, env: BTreeMap<String, Secret> },
    Http { url: String, headers: BTreeMap<String, Secret> },
}

/// A server as an agent needs it.
#[derive(Debug, Clone)]
pub(crate) struct OpenedMcpServer {
    pub(crate) name: String,
    pub(crate) reached: Reached,
}

/// The servers. Cheap to clone.
#[derive(Clone)]
pub(crate) struct McpServers {
    rows: Scoped,
    secrets: Secrets,
}

fn place<'a>(row: &'a Resource, field: &'a str) -> Place<'a> {
    Place { kind: KIND.name, workspace: &row.scope, id: &row.id, field }
}

impl Document {
    fn check(&self, name: &str) -> Result<(), Failure> {
        text("name", name, 1, MAX_NAME_CHARS)?;
        let absent = |field: &str, is_empty: bool, transport: &str| {
            let text = format!("a server of transport {transport:?} has none; leave it out");
            if is_empty { Ok(()) } else { Err(Failure::field(field, text)) }
        };
        match self.transport {
            Transport::Stdio => {
                absent("url", self.url.is_empty(), "stdio")?;
                absent("headers", self.headers.is_empty(), "stdio")?;
                argument("command", &self.command, 1)?;
                if self.args.len() > MAX_ARGUMENTS {
                    let text = format!("it has {} arguments; at most {MAX_ARGUMENTS}", self.args.len());
                    return Err(Failure::field("args", text));
                }
                self.args.iter().enumerate().try_for_each(|(at, one)| argument(&format!("args[{at}]"), one, 0))
            }
            Transport::Http => {
                absent("command", self.command.is_empty(), "http")?;
                absent("args", self.args.is_empty(), "http")?;
                absent("env", self.env.is_empty(), "http")?;
                web_address::check("url", &self.url).map(drop)
            }
        }
    }
}

/// Whether a text can be an argument of a program.
fn argument(field: &str, value: &str, least: usize) -> Result<(), Failure> {
    if !(least..=MAX_COMMAND_BYTES).contains(&value.len()) {
        let text = format!("it has {} bytes; {least} to {MAX_COMMAND_BYTES} are allowed", value.len());
        return Err(Failure::field(field, text));
    }
    if value.contains('\0') {
        return Err(Failure::field(field, "it has a NUL, which no argument can have"));
    }
    Ok(())
}

impl McpServers {
    pub(crate) fn new(store: Store, secrets: Secrets) -> Self {
        Self { rows: Scoped::new(store, KIND), secrets }
    }

    /// Sets one up.
    pub(crate) async fn create(&self, caller: &Caller, new: NewMcpServer) -> Result<Resource, Failure> {
        self.rows.workspace(caller, &new.workspace).await?;
        let row = self.rows.row(random::id("mcp"), &new.workspace, new.name, String::new());
        let NewMcpServer { transport, command, args, url, .. } = new;
        let document = Document { transport, command, args, env: Values::new(), url, headers: Values::new() };
        let document = self.with_values(document, &row, Patch::Set(new.env), Patch::Set(new.headers))?;
        document.check(&row.name)?;
        self.rows.insert(Resource { document: scoped::encode(&document)?, ..row }).await
    }

    fn with_values(
        &self,
        document: Document,
        row: &Resource,
        env: Patch<GivenValues>,
        headers: Patch<GivenValues>,
    ) -> Result<Document, Failure> {
        let change = |before, given, names, field| match given {
            Patch::Keep => Ok(before),
            Patch::Clear => Ok(Values::new()),
            Patch::Set(given) => values::changed(before, given, names, (&self.secrets, place(row, field))),
        };
        Ok(Document {
            env: change(document.env, env, Names::Variables, "env")?,
            headers: change(document.headers, headers, Names::Headers, "headers")?,
            ..document
        })
    }

    pub(crate) async fn get(&self, caller: &Caller, id: &str) -> Result<Resource, Failure> {
        self.rows.get(caller, id).await
    }

    /// See [`Scoped::list`].
    pub(crate) fn rows(&self) -> &Scoped {
        &self.rows
    }

    /// Changes one. Another transport takes with it what only the one before had.
    pub(crate) async fn change(
        &self,
        caller: &Caller,
        (id, seen): (&str, Option<i64>),
        changes: Changes,
    ) -> Result<Resource, Failure> {
        let row = self.rows.seen(caller, id, seen).await?;
        let mut document: Document = scoped::document(&row)?;
        let transport = changes.transport.unwrap_or(document.transport);
        if transport != document.transport {
            let (none, empty) = (Values::new, String::new);
            document =
                Document { transport, command: empty(), args: Vec::new(), env: none(), url: empty(), headers: none() };
        }
        document.command = changes.command.apply(document.command);
        document.args = changes.args.apply(document.args);
        document.url = changes.url.apply(document.url);
        let document = self.with_values(document, &row, changes.env, changes.headers)?;
        let name = changes.name.unwrap_or_else(|| row.name.clone());
        document.check(&name)?;
        self.rows.update(Resource { name, document: scoped::encode(&document)?, ..row }).await
    }

    /// Forgets one. Sandboxes that run keep what they were given.
    pub(crate) async fn delete(&self, caller: &Caller, id: &str, seen: Option<i64>) -> Result<(), Failure> {
        let row = self.rows.seen(caller, id, seen).await?;
        self.rows.remove(&row).await
    }

    /// Whether a workspace has the servers that a sandbox names.
    ///
    /// # Errors
    /// `UNKNOWN_MCP_SERVER`, about `mcp_servers[N]`.
    pub(crate) async fn check(&self, workspace: &str, names: &[String]) -> Result<(), Failure> {
        for (at, name) in names.iter().enumerate() {
            self.find(workspace, at, name).await?;
        }
        Ok(())
    }

    async fn find(&self, workspace: &str, at: usize, name: &str) -> Result<Resource, Failure> {
        let found = self.rows.named(workspace, name).await?;
        found.ok_or_else(|| KIND.unknown_name(&format!("mcp_servers[{at}]"), workspace, name))
    }

    /// The servers that a sandbox names, in its order, with their secrets opened.
    ///
    /// # Errors
    /// `UNKNOWN_MCP_SERVER`, about `mcp_servers[N]`; `SECRET_UNREADABLE` and `SECRETS_NOT_CONFIGURED`, where a secret's key is gone.
    pub(crate) async fn opened(&self, workspace: &str, names: &[String]) -> Result<Vec<OpenedMcpServer>, Failure> {
        let mut all = Vec::new();
        for (at, name) in names.iter().enumerate() {
            let row = self.find(workspace, at, name).await?;
            let Document { transport, command, args, env, url, headers } = scoped::document(&row)?;
            let reached = match transport {
                Transport::Stdio => {
                    let env = values::opened(&env, &self.secrets, place(&row, "env"))?;
                    Reached::Stdio { command, args, env }
                }
                Transport::Http => {
                    let headers = values::opened(&headers, &self.secrets, place(&row, "headers"))?;
                    Reached::Http { url, headers }
                }
            };
            all.push(OpenedMcpServer { name: row.name, reached });
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn servers() -> (McpServers, Caller, tempfile::TempDir) {
        let (store, dir) = scoped::for_tests().await;
        (McpServers::new(store, Secrets::for_tests()), Caller::for_tests(), dir)
    }

    fn new(text: &str) -> NewMcpServer {
        let given: serde_json::Value = serde_json::from_str(text).unwrap();
        let of = |name: &str| given.get(name).cloned().unwrap_or_default();
        let word = |name: &str| of(name).as_str().unwrap_or_default().to_owned();
        NewMcpServer {
            workspace: "w".to_owned(),
            name: word("name"),
            transport: serde_json::from_value(of("transport")).unwrap(),
            command: word("command"),
            args: serde_json::from_value(of("args")).unwrap_or_default(),
            env: serde_json::from_value(of("env")).unwrap_or_default(),
            url: word("url"),
            headers: serde_json::from_value(of("headers")).unwrap_or_default(),
        }
    }

    #[tokio::test]
    async fn what_a_sandbox_names_is_opened_in_its_order() {
        let (servers, caller, _dir) = servers().await;
        let files = r#"{"name":"filesystem","transport":"stdio","command":"npx","args":["-y","fs"],"env":{"TOKEN":{"secret":"hidden"}}}"#;
        let row = servers.create(&caller, new(files)).await.unwrap();
        assert!(!row.document.contains("hidden"), "{}", row.document);
        let web = r#"{"name":"web","transport":"http","url":"https://mcp.example/","headers":{"X-Team":"a"}}"#;
        servers.create(&caller, new(web)).await.unwrap();
        let names = ["web".to_owned(), "filesystem".to_owned()];
        let opened = servers.opened("w", &names).await.unwrap();
        assert!(
            matches!(&opened[0].reached, Reached::Http { url, headers } if url == "https://mcp.example/" && headers["X-Team"].expose() == "a")
        );
        let Reached::Stdio { command, args, env } = &opened[1].reached else { panic!("{opened:?}") };
        assert_eq!((command.as_str(), args.len(), env["TOKEN"].expose()), ("npx", 2, "hidden"));
        assert!(!format!("{opened:?}").contains("hidden"));
        for unknown in ["Filesystem", "", "a\0b"] {
            let why = servers.opened("w", &["web".to_owned(), unknown.to_owned()]).await.unwrap_err();
            let Failure::Refused { reason, fields, .. } = why else { panic!("{why}") };
            assert_eq!((reason, fields[0].field.as_str()), (Reason::UnknownMcpServer, "mcp_servers[1]"));
            assert!(servers.check("w", &[unknown.to_owned()]).await.is_err());
        }
        servers.check("w", &names).await.unwrap();
        assert!(servers.opened("other", &names).await.is_err(), "of another workspace");
    }

    #[tokio::test]
    async fn another_transport_takes_with_it_what_only_the_one_before_had() {
        let (servers, caller, _dir) = servers().await;
        let stdio = r#"{"name":"a","transport":"stdio","command":"x","env":{"A":"b"}}"#;
        let row = servers.create(&caller, new(stdio)).await.unwrap();
        let to_http = || Changes { transport: Some(Transport::Http), ..Changes::default() };
        let why = servers.change(&caller, (&row.id, None), to_http()).await.unwrap_err().to_string();
        assert!(why.starts_with("url: "), "{why}");
        let changes = Changes { url: Patch::Set("http://10.0.0.1/mcp".to_owned()), ..to_http() };
        let changed = servers.change(&caller, (&row.id, Some(row.revision)), changes).await.unwrap();
        let document: Document = scoped::document(&changed).unwrap();
        assert!(document.command.is_empty() && document.env.is_empty() && document.transport == Transport::Http);
        let late = servers.change(&caller, (&row.id, Some(row.revision)), Changes::default()).await;
        assert_eq!(late.unwrap_err().code(), "REVISION_CHANGED");
        for (wrong, field) in [
            (r#"{"name":"b","transport":"stdio"}"#, "command: "),
            (r#"{"name":"b","transport":"stdio","command":"x","url":"https://a"}"#, "url: "),
            (r#"{"name":"b","transport":"http","url":"https://a","env":{"A":"b"}}"#, "env: "),
            (r#"{"name":"b","transport":"http","url":"ftp://a"}"#, "url: "),
            (r#"{"name":"b","transport":"stdio","command":"x","args":["a\u0000"]}"#, "args[0]: "),
            (r#"{"name":"","transport":"stdio","command":"x"}"#, "name: "),
        ] {
            let why = servers.create(&caller, new(wrong)).await.unwrap_err().to_string();
            assert!(why.starts_with(field), "{why}");
        }
        let taken = servers.create(&caller, new(stdio)).await.unwrap_err();
        assert_eq!(taken.code(), "NAME_TAKEN");
    }
}
