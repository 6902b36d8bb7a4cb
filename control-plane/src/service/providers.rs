//! Where the agents of a workspace reach language models: configuration, with keys that are kept sealed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    caller::Caller,
    patch::Patch,
    scoped::{self, Kind, Scoped},
    values::{self, GivenValues, Names, Sealed, Values},
    web_address,
    workspace::{self, MAX_NAME_CHARS, text},
    workspaces::{CREATING, UPDATING},
};
use crate::{
    clock,
    error::{Failure, Reason},
    random,
    secrets::{Place, Secret, Secrets},
    store::{Resource, Store, StoreError},
};

/// As the database knows them.
pub(crate) const KIND: Kind =
    Kind { name: "llm_provider", title: "LLM provider", most: 50, unknown: Reason::UnknownLlmProvider };
const MAX_MODELS: usize = 200;
const MAX_MODEL_CHARS: usize = 200;
/// How often a change that others come between is tried.
const ATTEMPTS: u32 = 5;

/// Whose interface a provider speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ProviderKind {
    /// And whoever speaks like it: then with a `base_url`.
    #[serde(rename = "openai")]
    OpenAi,
    Anthropic,
    /// Needs a `base_url`.
    #[serde(rename = "azure_openai")]
    AzureOpenAi,
    Google,
    Mistral,
    /// Needs no key. Its own address is on the machine of the agent.
    Ollama,
    /// Needs a `base_url`.
    Custom,
}

impl ProviderKind {
    /// Where it is reached unless something else is said; None: it has to be said.
    fn home(self) -> Option<&'static str> {
        match self {
            Self::OpenAi => Some("https://api.openai.com/v1"),
            Self::Anthropic => Some("https://api.anthropic.com"),
            Self::Google => Some("https://generativelanguage.googleapis.com"),
            Self::Mistral => Some("https://api.mistral.ai/v1"),
            Self::Ollama => Some("http://127.0.0.1:11434"),
            Self::AzureOpenAi | Self::Custom => None,
        }
    }
}

/// What there is to say about a provider.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Document {
    pub(crate) kind: ProviderKind,
    pub(crate) base_url: String,
    pub(crate) default_model: String,
    pub(crate) models: Vec<String>,
    pub(crate) headers: Values,
    pub(crate) api_key: Option<Sealed>,
}

/// A provider that is wanted.
#[derive(Debug, Clone)]
pub(crate) struct NewProvider {
    pub(crate) workspace: String,
    pub(crate) name: String,
    pub(crate) kind: ProviderKind,
    /// None: that of its kind.
    pub(crate) base_url: Option<String>,
    pub(crate) default_model: String,
    pub(crate) models: Vec<String>,
    pub(crate) headers: GivenValues,
    pub(crate) api_key: Option<Secret>,
}

/// What is to change.
#[derive(Debug, Clone, Default)]
pub(crate) struct Changes {
    pub(crate) name: Option<String>,
    pub(crate) kind: Option<ProviderKind>,
    pub(crate) base_url: Patch<String>,
    pub(crate) default_model: Patch<String>,
    pub(crate) models: Patch<Vec<String>>,
    pub(crate) headers: Patch<GivenValues>,
    pub(crate) api_key: Patch<Secret>,
}

/// A provider as an agent needs it. What is printed of it shows no secret.
#[derive(Debug, Clone)]
pub(crate) struct OpenedProvider {
    pub(crate) name: String,
    pub(crate) kind: ProviderKind,
    pub(crate) base_url: String,
    /// Empty: none is preferred.
    pub(crate) default_model: String,
    pub(crate) models: Vec<String>,
    /// Sent with each request.
    pub(crate) headers: BTreeMap<String, Secret>,
    /// None: it needs none.
    pub(crate) api_key: Option<Secret>,
    /// Agents that name none use this one.
    pub(crate) is_default: bool,
}

/// The providers. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Providers {
    rows: Scoped,
    secrets: Secrets,
}

fn place<'a>(row: &'a Resource, field: &'a str) -> Place<'a> {
    Place { kind: KIND.name, workspace: &row.scope, id: &row.id, field }
}

impl Document {
    fn check(&self, name: &str) -> Result<(), Failure> {
        text("name", name, 1, MAX_NAME_CHARS)?;
        web_address::check("base_url", &self.base_url)?;
        if self.models.len() > MAX_MODELS {
            let text = format!("it has {} models; at most {MAX_MODELS}", self.models.len());
            return Err(Failure::field("models", text));
        }
        for (at, model) in self.models.iter().enumerate() {
            text(&format!("models[{at}]"), model, 1, MAX_MODEL_CHARS)?;
        }
        text("default_model", &self.default_model, 0, MAX_MODEL_CHARS)?;
        let is_known =
            self.models.is_empty() || self.default_model.is_empty() || self.models.contains(&self.default_model);
        if is_known {
            return Ok(());
        }
        Err(Failure::field("default_model", format!("{:?} is none of models; add it there", self.default_model)))
    }

    fn key(&mut self, secrets: &Secrets, row: &Resource, key: Patch<Secret>) -> Result<(), Failure> {
        match key {
            Patch::Keep => {}
            Patch::Clear => self.api_key = None,
            Patch::Set(key) => {
                values::check_value("api_key", key.expose())?;
                self.api_key = Some(Sealed::new(secrets, place(row, "api_key"), &key)?);
            }
        }
        Ok(())
    }
}

fn address(kind: ProviderKind, given: Option<String>) -> Result<String, Failure> {
    given.or_else(|| kind.home().map(str::to_owned)).ok_or_else(|| {
        Failure::field("base_url", "this kind of provider has no address of its own; say where it is reached")
    })
}

impl Providers {
    pub(crate) fn new(store: Store, secrets: Secrets) -> Self {
        Self { rows: Scoped::new(store, KIND), secrets }
    }

    /// Sets one up.
    pub(crate) async fn create(&self, caller: &Caller, new: NewProvider) -> Result<Resource, Failure> {
        self.rows.workspace(caller, &new.workspace).await?;
        let row = self.rows.row(random::id("llm"), &new.workspace, new.name, String::new());
        let mut document = Document {
            kind: new.kind,
            base_url: address(new.kind, new.base_url)?,
            default_model: new.default_model,
            models: new.models,
            headers: Values::new(),
            api_key: None,
        };
        document.check(&row.name)?;
        let sealing = (&self.secrets, place(&row, "headers"));
        document.headers = values::changed(Values::new(), new.headers, Names::Headers, sealing)?;
        document.key(&self.secrets, &row, new.api_key.map_or(Patch::Keep, Patch::Set))?;
        self.rows.insert(Resource { document: scoped::encode(&document)?, ..row }).await
    }

    pub(crate) async fn get(&self, caller: &Caller, id: &str) -> Result<Resource, Failure> {
        self.rows.get(caller, id).await
    }

    /// See [`Scoped::list`].
    pub(crate) fn rows(&self) -> &Scoped {
        &self.rows
    }

    /// Changes one. The one that is the default of its workspace keeps its name.
    pub(crate) async fn change(
        &self,
        caller: &Caller,
        (id, seen): (&str, Option<i64>),
        changes: Changes,
    ) -> Result<Resource, Failure> {
        let row = self.rows.seen(caller, id, seen).await?;
        let mut document: Document = scoped::document(&row)?;
        let name = changes.name.unwrap_or_else(|| row.name.clone());
        document.kind = changes.kind.unwrap_or(document.kind);
        document.base_url = match changes.base_url {
            Patch::Keep => document.base_url,
            Patch::Clear => address(document.kind, None)?,
            Patch::Set(url) => url,
        };
        document.default_model = changes.default_model.apply(document.default_model);
        document.models = changes.models.apply(document.models);
        document.check(&name)?;
        document.headers = match changes.headers {
            Patch::Keep => document.headers,
            Patch::Clear => Values::new(),
            Patch::Set(given) => {
                values::changed(document.headers, given, Names::Headers, (&self.secrets, place(&row, "headers")))?
            }
        };
        document.key(&self.secrets, &row, changes.api_key)?;
        if name != row.name && self.default_of(&row.scope).await?.1.as_ref() == Some(&row.name) {
            let text = "workspaces know their default by its name; change settings.default_llm_provider first";
            return Err(is_default(&row, text));
        }
        self.rows.update(Resource { name, document: scoped::encode(&document)?, ..row }).await
    }

    /// Forgets one. The default of its workspace goes only where the caller says so: then the workspace has none.
    pub(crate) async fn delete(
        &self,
        caller: &Caller,
        (id, seen): (&str, Option<i64>),
        unset_default: bool,
    ) -> Result<(), Failure> {
        let row = self.rows.seen(caller, id, seen).await?;
        for _ in 0..ATTEMPTS {
            let (workspace, default) = self.default_of(&row.scope).await?;
            let Some(workspace) = workspace.filter(|_| default.as_ref() == Some(&row.name)) else { break };
            if !unset_default {
                let text = "choose another default first, or delete it with unset_default=true";
                return Err(is_default(&row, text));
            }
            match self.unset_default(workspace).await {
                Err(Failure::Refused { reason: Reason::RevisionChanged, .. }) => {}
                done => done?,
            }
        }
        self.rows.remove(&row).await
    }

    /// The workspace, and the name of its default provider.
    async fn default_of(&self, workspace: &str) -> Result<(Option<Resource>, Option<String>), Failure> {
        let row = self.rows.store().get(super::workspaces::KIND, workspace).await?;
        let document = row.as_ref().map(workspace::Document::of).transpose()?;
        Ok((row, document.and_then(|document| document.settings.default_llm_provider)))
    }

    /// The broker does not know of it: nothing has to be made true there.
    async fn unset_default(&self, row: Resource) -> Result<(), Failure> {
        if [CREATING, UPDATING].contains(&row.state.as_str()) {
            let text = format!("workspace {:?} is {} just now; try again", row.id, row.state);
            return Err(Failure::new(Reason::Busy, text).after(std::time::Duration::from_secs(1)));
        }
        let mut document = workspace::Document::of(&row)?;
        document.settings.default_llm_provider = None;
        let row = Resource { document: document.encode()?, update_ms: clock::unix_ms(), ..row };
        Ok(self.rows.store().update(&row).await.map(drop)?)
    }

    /// All providers of a workspace by name, with their secrets opened, for the sandboxes in it.
    ///
    /// # Errors
    /// `SECRET_UNREADABLE` and `SECRETS_NOT_CONFIGURED`, where one has a secret whose key is gone.
    pub(crate) async fn opened(&self, workspace: &str) -> Result<Vec<OpenedProvider>, Failure> {
        let (_, default) = self.default_of(workspace).await?;
        let open = |row: Resource| {
            let document: Document = scoped::document(&row)?;
            let key = document.api_key.as_ref().map(|key| key.open(&self.secrets, place(&row, "api_key")));
            Ok(OpenedProvider {
                kind: document.kind,
                base_url: document.base_url,
                default_model: document.default_model,
                models: document.models,
                headers: values::opened(&document.headers, &self.secrets, place(&row, "headers"))?,
                api_key: key.transpose()?,
                is_default: default.as_ref() == Some(&row.name),
                name: row.name,
            })
        };
        self.rows.all(workspace).await?.into_iter().map(open).collect()
    }
}

fn is_default(row: &Resource, next: &str) -> Failure {
    let text = format!("{:?} is the default LLM provider of workspace {:?}; {next}", row.name, row.scope);
    Failure::new(Reason::LlmProviderIsDefault, text)
}

/// Whether a workspace has the provider that is to be its default.
///
/// # Errors
/// `UNKNOWN_LLM_PROVIDER`.
pub(crate) async fn check_default(store: &Store, workspace: &str, name: &str) -> Result<(), Failure> {
    let found: Result<_, StoreError> = store.named(KIND.name, workspace, name).await;
    match found? {
        Some(_) => Ok(()),
        None => Err(KIND.unknown_name("settings.default_llm_provider", workspace, name)),
    }
}

#[cfg(test)]
#[path = "providers_tests.rs"]
mod tests;
