//! What is set up in a workspace and need not be made true elsewhere: kept, found, changed from a revision that was seen, forgotten.

use super::{
    alerts,
    caller::Caller,
    listing::Wanted,
    mcp_servers, providers,
    workspaces::{DELETING, KIND as WORKSPACE},
};
use crate::{
    clock,
    error::{Failure, Reason},
    store::{Query, Resource, Store, StoreError},
};

/// What goes with its workspace, as the database calls it.
pub(crate) const KINDS: [&str; 5] =
    [providers::KIND.name, mcp_servers::KIND.name, alerts::RULE.name, alerts::ALERT.name, alerts::PROGRESS];

/// A kind of them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kind {
    /// As the database calls it; also how its ids begin.
    pub(crate) name: &'static str,
    /// As people call it.
    pub(crate) title: &'static str,
    /// How many a workspace may have.
    pub(crate) most: u32,
    /// Why one is not found.
    pub(crate) unknown: Reason,
}

impl Kind {
    fn unknown(&self, id: &str) -> Failure {
        let text = format!("there is no {} {id:?}; look at the list of them", self.title);
        Failure::new(self.unknown, text)
    }

    /// The same of one that was named in a field.
    pub(crate) fn unknown_name(&self, field: &str, workspace: &str, name: &str) -> Failure {
        let text = format!("workspace {workspace:?} has no {} {name:?}; set it up first", self.title);
        Failure::about(self.unknown, field, text)
    }

    fn explained(&self, error: StoreError, new: &Resource) -> Failure {
        match error {
            StoreError::NoWorkspace => {
                let text = format!("there is no workspace {:?}, or it is about to be deleted", new.scope);
                Failure::about(Reason::UnknownWorkspace, "workspace_id", text)
            }
            StoreError::Full => {
                let (title, most) = (self.title, self.most);
                let text =
                    format!("workspace {:?} has {most} of the kind {title}, which is the most; delete one", new.scope);
                Failure::new(Reason::TooManyResources, text)
            }
            StoreError::NameTaken => {
                let text = format!(
                    "workspace {:?} has another {} with the name {:?}; choose another",
                    new.scope, self.title, new.name
                );
                Failure::about(Reason::NameTaken, "name", text)
            }
            error => error.into(),
        }
    }
}

/// The resources of one kind. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Scoped {
    store: Store,
    kind: Kind,
}

impl Scoped {
    pub(crate) fn new(store: Store, kind: Kind) -> Self {
        Self { store, kind }
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// A workspace that is there, for what is to come into it. What can be made there is for the one who may be there.
    pub(crate) async fn workspace(&self, caller: &Caller, workspace: &str) -> Result<Resource, Failure> {
        caller.in_workspace(workspace)?;
        match self.find(WORKSPACE, workspace).await? {
            Some(row) if row.state != DELETING => Ok(row),
            _ => {
                let text = format!("there is no workspace {workspace:?}, or it is about to be deleted");
                Err(Failure::about(Reason::UnknownWorkspace, "workspace_id", text))
            }
        }
    }

    async fn find(&self, kind: &str, id: &str) -> Result<Option<Resource>, Failure> {
        // PostgreSQL takes no NUL in a text, and nothing has one in its id.
        if id.contains('\0') { Ok(None) } else { Ok(self.store.get(kind, id).await?) }
    }

    /// A row of one that is new, which is nowhere yet.
    pub(crate) fn row(&self, id: String, workspace: &str, name: String, document: String) -> Resource {
        let now_ms = clock::unix_ms();
        Resource {
            kind: self.kind.name.to_owned(),
            id,
            scope: workspace.to_owned(),
            name,
            state: "active".to_owned(),
            revision: 1,
            document,
            create_ms: now_ms,
            update_ms: now_ms,
            due_ms: 0,
        }
    }

    /// Keeps one that is new.
    pub(crate) async fn insert(&self, new: Resource) -> Result<Resource, Failure> {
        match self.store.insert_within(&new, self.kind.most).await {
            Ok(()) => Ok(new),
            Err(error) => Err(self.kind.explained(error, &new)),
        }
    }

    /// One that the caller may see.
    pub(crate) async fn get(&self, caller: &Caller, id: &str) -> Result<Resource, Failure> {
        let found = self.find(self.kind.name, id).await?.ok_or_else(|| self.kind.unknown(id))?;
        // What is in another workspace is not there for him.
        caller.in_workspace(&found.scope).map_err(|_| self.kind.unknown(id))?;
        Ok(found)
    }

    /// The same, as it was when the caller has seen it.
    pub(crate) async fn seen(&self, caller: &Caller, id: &str, seen: Option<i64>) -> Result<Resource, Failure> {
        let found = self.get(caller, id).await?;
        if seen.is_some_and(|seen| seen != found.revision) {
            return Err(StoreError::Changed.into());
        }
        Ok(found)
    }

    /// A page of those that the caller may see, and the cursor of the next one.
    pub(crate) async fn list(
        &self,
        caller: &Caller,
        workspace: Option<&str>,
        wanted: &Wanted,
    ) -> Result<(Vec<Resource>, Option<String>), Failure> {
        let scope = workspace.or(caller.workspace());
        if let Some(scope) = scope {
            caller.in_workspace(scope)?;
            if workspace.is_some() && self.store.get(WORKSPACE, scope).await?.is_none() {
                let text = format!("there is no workspace {scope:?}");
                return Err(Failure::about(Reason::UnknownWorkspace, "workspace_id", text));
            }
        }
        let query = Query {
            kind: self.kind.name,
            scope,
            id: None,
            name_prefix: &wanted.name_prefix,
            state: &wanted.state,
            order: wanted.order,
            after: wanted.after.as_ref().map(|(by, id)| (by.as_str(), id.as_str())),
            most: wanted.most,
        };
        let page = self.store.list(&query).await?;
        Ok((page.resources, page.next.map(|place| wanted.cursor(&place))))
    }

    /// Keeps one that has changed.
    pub(crate) async fn update(&self, changed: Resource) -> Result<Resource, Failure> {
        let changed = Resource { update_ms: clock::unix_ms(), ..changed };
        self.store.update(&changed).await.map_err(|error| self.kind.explained(error, &changed))
    }

    /// Forgets one.
    pub(crate) async fn remove(&self, seen: &Resource) -> Result<(), Failure> {
        Ok(self.store.remove(seen).await?)
    }

    /// One by its name in its workspace.
    pub(crate) async fn named(&self, workspace: &str, name: &str) -> Result<Option<Resource>, Failure> {
        if name.contains('\0') { Ok(None) } else { Ok(self.store.named(self.kind.name, workspace, name).await?) }
    }

    /// All of a workspace, by name.
    pub(crate) async fn all(&self, workspace: &str) -> Result<Vec<Resource>, Failure> {
        Ok(self.store.all_within(self.kind.name, workspace, self.kind.most).await?)
    }
}

/// What a resource says, from the database.
pub(crate) fn document<T: serde::de::DeserializeOwned>(row: &Resource) -> Result<T, Failure> {
    serde_json::from_str(&row.document).map_err(|error| {
        // What is there may be a secret in an odd form: it is not said.
        let (line, column) = (error.line(), error.column());
        Failure::internal(format!("the record of {} {:?} cannot be read at {line}:{column}", row.kind, row.id))
    })
}

/// What a resource says, for the database.
pub(crate) fn encode<T: serde::Serialize>(document: &T) -> Result<String, Failure> {
    serde_json::to_string(document).map_err(|error| Failure::internal(format!("a record cannot be written: {error}")))
}

/// A store with a workspace `w` in it.
#[cfg(test)]
pub(crate) async fn for_tests() -> (Store, tempfile::TempDir) {
    let dir = tempfile::tempdir().expect("a folder");
    let store = Store::open(&format!("sqlite:{}/cp.db", dir.path().display()), 4).await.expect("a database");
    let document = super::workspace::Document::default();
    let row = super::workspace::row("w", "w", &document, 1).expect("a row");
    store.insert(&Resource { state: "active".to_owned(), ..row }).await.expect("a workspace");
    (store, dir)
}
