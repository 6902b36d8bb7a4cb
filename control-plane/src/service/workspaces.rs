//! What can be done with workspaces.
//!
//! What is wanted stands in the database first, and is then made true at the broker: at once, by whoever asked, or later by the
//! reconciler, when the broker did not answer or this process ended in between.

use std::{pin::pin, time::Duration};

use futures_util::TryStreamExt as _;
use tandem_client::{Client, Code, Error as BrokerError, Workspace};

use super::{
    caller::Caller,
    listing::Wanted,
    providers,
    sandboxes::Sandboxes,
    scoped,
    workspace::{Document, WorkspaceSettings, check_id, row},
};
use crate::{
    clock,
    error::{Failure, Reason},
    random,
    store::{Query, Resource, Store, StoreError},
};

/// As the database calls them.
pub(crate) const KIND: &str = "workspace";
/// Their states.
pub(crate) const CREATING: &str = "creating";
pub(crate) const ACTIVE: &str = "active";
pub(crate) const UPDATING: &str = "updating";
pub(crate) const DELETING: &str = "deleting";
pub(crate) const FAILED: &str = "failed";
/// Until somebody else goes on with what is under way: longer than any request may take.
const OVERDUE_MS: i64 = 60_000;

/// A workspace that somebody wants.
#[derive(Debug, Clone)]
pub(crate) struct NewWorkspace {
    /// None: one is made up.
    pub(crate) id: Option<String>,
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) settings: WorkspaceSettings,
}

/// What is to be changed; None: it stays.
#[derive(Debug, Clone, Default)]
pub(crate) struct Changes {
    pub(crate) name: Option<String>,
    pub(crate) description: Option<String>,
    pub(crate) settings: Option<WorkspaceSettings>,
}

/// What came of trying to make something true at the broker.
pub(crate) enum Settled {
    Done,
    /// The broker did not say; it is tried again.
    Later,
    /// It cannot be.
    Refused(Failure),
}

impl Settled {
    fn of(result: Result<(), BrokerError>, who: Who) -> Self {
        match result {
            Ok(()) => Self::Done,
            Err(error) if is_unclear(&error, who) => {
                tracing::warn!(%error, "the broker does not say; it is tried again");
                Self::Later
            }
            Err(error) => Self::Refused(error.into()),
        }
    }
}

/// In whose name the broker is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Who {
    Caller,
    /// What this control plane may not now it may when its token is another one.
    ControlPlane,
}

/// Whether another try may have another end.
fn is_unclear(error: &BrokerError, who: Who) -> bool {
    let BrokerError::Refused(refusal) = error else { return true };
    match refusal.code {
        Code::Unauthenticated | Code::PermissionDenied => who == Who::ControlPlane,
        Code::Unavailable | Code::DeadlineExceeded | Code::Internal | Code::Unknown | Code::Aborted => true,
        Code::Cancelled => true,
        _ => error.is_retryable(),
    }
}

fn is(result: &Result<(), BrokerError>, reason: &str) -> bool {
    result.as_ref().is_err_and(|error| error.reason() == reason)
}

/// The workspaces. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Workspaces {
    store: Store,
    sandboxes: Sandboxes,
    /// How long one that is deleted can still be taken back.
    grace: Duration,
}

impl Workspaces {
    pub(crate) fn new(store: Store, sandboxes: Sandboxes, grace: Duration) -> Self {
        Self { store, sandboxes, grace }
    }

    /// Makes a workspace. In state `creating`: the broker did not say whether it has it, and it is made when it does.
    pub(crate) async fn create(&self, caller: &Caller, new: NewWorkspace) -> Result<Resource, Failure> {
        caller.in_all()?;
        let id = new.id.unwrap_or_else(|| random::id("ws"));
        check_id(&id)?;
        let document = Document { description: new.description, settings: new.settings, ..Document::default() };
        document.check(&new.name)?;
        self.check_default(&id, &document.settings, None).await?;
        match caller.broker.workspaces().get(id.as_str()).await {
            // It is taken, so it is to be seen.
            Ok(there) => {
                self.take_in_one(&caller.broker, there).await?;
                let text = format!("the broker has a workspace {id:?} already; choose another id");
                return Err(Failure::new(Reason::WorkspaceExists, text));
            }
            Err(error) if error.reason() == "UNKNOWN_WORKSPACE" => {}
            Err(error) => return Err(Failure::of_question(error)),
        }
        let now_ms = clock::unix_ms();
        let row = Resource {
            state: CREATING.to_owned(),
            due_ms: now_ms + OVERDUE_MS,
            ..row(&id, &new.name, &document, now_ms)?
        };
        self.store.insert(&row).await?;
        let created = caller.broker.workspaces().create(id.as_str()).await.map(drop);
        if let Err(error @ BrokerError::Unreachable { .. }) = created {
            // Nothing was sent.
            self.store.remove(&row).await?;
            return Err(error.into());
        }
        let settled = match Settled::of(created, Who::Caller) {
            Settled::Done => match self.apply(&caller.broker, &row, Who::Caller).await {
                Settled::Refused(why) => {
                    // It was made a moment ago, and nobody knows of it yet.
                    self.take_back(&caller.broker, row).await?;
                    return Err(why);
                }
                settled => settled,
            },
            settled => settled,
        };
        match settled {
            Settled::Done => self.settle(row, ACTIVE).await,
            Settled::Later => Ok(row),
            Settled::Refused(why) => {
                self.store.remove(&row).await?;
                Err(why)
            }
        }
    }

    /// Deletes what was made a moment ago, now or as soon as it can be.
    async fn take_back(&self, broker: &Client, row: Resource) -> Result<(), Failure> {
        let document = Document { is_ending: true, ..Document::of(&row)? }.encode()?;
        let (state, due_ms) = (DELETING.to_owned(), clock::unix_ms() + OVERDUE_MS);
        let row = self.store.update(&Resource { state, document, due_ms, ..row }).await?;
        self.end(broker, &row, Who::Caller).await.map(drop)
    }

    /// One workspace.
    pub(crate) async fn get(&self, caller: &Caller, id: &str) -> Result<Resource, Failure> {
        caller.in_workspace(id)?;
        self.find(id).await
    }

    async fn find(&self, id: &str) -> Result<Resource, Failure> {
        // No id has a NUL, which PostgreSQL cannot even look for.
        let found = if id.contains('\0') { None } else { self.store.get(KIND, id).await? };
        found.ok_or_else(|| {
            Failure::new(Reason::UnknownWorkspace, format!("there is no workspace {id:?}; look at the list of them"))
        })
    }

    /// Those that the caller may see.
    pub(crate) async fn list(
        &self,
        caller: &Caller,
        wanted: &Wanted,
    ) -> Result<(Vec<Resource>, Option<String>), Failure> {
        let query = Query {
            kind: KIND,
            scope: None,
            id: caller.workspace(),
            name_prefix: &wanted.name_prefix,
            state: &wanted.state,
            order: wanted.order,
            after: wanted.after.as_ref().map(|(by, id)| (by.as_str(), id.as_str())),
            most: wanted.most,
        };
        let page = self.store.list(&query).await?;
        Ok((page.resources, page.next.map(|place| wanted.cursor(&place))))
    }

    /// Changes a workspace, as long as it has the revision that the caller has seen. In state `updating`: the broker did not say
    /// whether it knows of that; it is told until it does.
    pub(crate) async fn change(
        &self,
        caller: &Caller,
        id: &str,
        seen: Option<i64>,
        change: impl FnOnce(&Document, &str) -> Result<Changes, Failure>,
    ) -> Result<Resource, Failure> {
        let before = self.get(caller, id).await?;
        caller.in_all()?;
        at_rest(&before, seen)?;
        let document = Document::of(&before)?;
        let changes = change(&document, &before.name)?;
        let name = changes.name.unwrap_or_else(|| before.name.clone());
        let changed = Document {
            description: changes.description.unwrap_or_else(|| document.description.clone()),
            settings: changes.settings.unwrap_or_else(|| document.settings.clone()),
            error: String::new(),
            ..document.clone()
        };
        changed.check_change(&name, &before.name, &document)?;
        self.check_default(id, &changed.settings, document.settings.default_llm_provider.as_deref()).await?;
        let now_ms = clock::unix_ms();
        let row = Resource { name, document: changed.encode()?, update_ms: now_ms, ..before.clone() };
        if document.settings == changed.settings && before.state == ACTIVE {
            return Ok(self.store.update(&row).await?);
        }
        // One that failed may not be there at all.
        let state = if before.state == FAILED { CREATING } else { UPDATING }.to_owned();
        let row = self.store.update(&Resource { state, due_ms: now_ms + OVERDUE_MS, ..row }).await?;
        match self.make_true(&caller.broker, &row, Who::Caller).await? {
            Settled::Done => self.settle(row, ACTIVE).await,
            Settled::Later => Ok(row),
            Settled::Refused(why) => {
                // A part of it may be true by now: the broker is told what was, too.
                let again = if before.state == FAILED {
                    before
                } else {
                    Resource { state: row.state, due_ms: now_ms, ..before }
                };
                self.store.update(&Resource { revision: row.revision, ..again }).await?;
                Err(why)
            }
        }
    }

    /// Deletes a workspace after its time of grace, or at once; None: it is gone.
    pub(crate) async fn delete(
        &self,
        caller: &Caller,
        id: &str,
        seen: Option<i64>,
        force: bool,
    ) -> Result<Option<Resource>, Failure> {
        let before = self.get(caller, id).await?;
        caller.in_all()?;
        let (document, now_ms) = (Document::of(&before)?, clock::unix_ms());
        if before.state != DELETING {
            at_rest(&before, seen)?;
        } else if seen.is_some_and(|seen| seen != before.revision) {
            return Err(StoreError::Changed.into());
        } else if !force || document.is_ending {
            return Ok(Some(before));
        }
        let grace_ms = if force { 0 } else { i64::try_from(self.grace.as_millis()).unwrap_or(i64::MAX) };
        let delete_ms = now_ms.saturating_add(grace_ms);
        let state_before = if before.state == DELETING { document.before.clone() } else { before.state.clone() };
        let document = Document { delete_ms, is_ending: force, before: state_before, ..document };
        let due_ms = if force { now_ms + OVERDUE_MS } else { delete_ms };
        let (state, document) = (DELETING.to_owned(), document.encode()?);
        let row = Resource { state, document, due_ms, update_ms: now_ms, ..before.clone() };
        let row = self.store.update(&row).await?;
        if !force {
            return Ok(Some(row));
        }
        match self.end(&caller.broker, &row, Who::Caller).await {
            Ok(true) => Ok(None),
            Ok(false) => Ok(Some(row)),
            Err(why) => {
                // It is not going to be deleted, then.
                self.store.update(&Resource { revision: row.revision, ..before }).await?;
                Err(why)
            }
        }
    }

    /// Takes a deletion back for which it is not too late.
    pub(crate) async fn restore(&self, caller: &Caller, id: &str) -> Result<Resource, Failure> {
        let before = self.get(caller, id).await?;
        caller.in_all()?;
        let document = Document::of(&before)?;
        let now_ms = clock::unix_ms();
        if before.state != DELETING {
            return Ok(before);
        }
        if document.is_ending || document.delete_ms <= now_ms {
            return Err(Failure::new(
                Reason::BeingDeleted,
                format!("it is too late: workspace {id:?} is being deleted"),
            ));
        }
        let state = if document.before == FAILED { FAILED } else { ACTIVE }.to_owned();
        let document = Document { delete_ms: 0, before: String::new(), ..document }.encode()?;
        let row = Resource { state, document, due_ms: 0, update_ms: now_ms, ..before };
        Ok(self.store.update(&row).await?)
    }

    /// Goes on with what is overdue, as far as it goes. Whoever has changed it since it was read goes on with it himself.
    pub(crate) async fn go_on(&self, broker: &Client, row: Resource) -> Result<(), Failure> {
        let now_ms = clock::unix_ms();
        let is_ending = row.state == DELETING;
        let document =
            if is_ending { Document { is_ending, ..Document::of(&row)? }.encode()? } else { row.document.clone() };
        // It is ours from here: what is done at the broker cannot be taken back.
        let row = match self.store.update(&Resource { document, due_ms: now_ms + OVERDUE_MS, ..row }).await {
            Ok(row) => row,
            Err(StoreError::Changed) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        if is_ending {
            return self.end(broker, &row, Who::ControlPlane).await.map(drop);
        }
        match self.make_true(broker, &row, Who::ControlPlane).await? {
            Settled::Done => self.settle(row, ACTIVE).await.map(drop),
            Settled::Later => Ok(()),
            Settled::Refused(why) => self.fail(row, &why).await,
        }
    }

    /// Makes a workspace that is to be made, and tells the broker what it does and may take.
    async fn make_true(&self, broker: &Client, row: &Resource, who: Who) -> Result<Settled, Failure> {
        if row.state == CREATING {
            let created = broker.workspaces().create(row.id.as_str()).await.map(drop);
            if is(&created, "WORKSPACE_EXISTS") {
                let there = broker.workspaces().get(row.id.as_str()).await?;
                if created_ms(&there) + OVERDUE_MS < row.create_ms {
                    // It is somebody else's: nothing of it is changed.
                    self.store.remove(row).await?;
                    self.take_in_one(broker, there).await?;
                    let text = format!("the broker has had a workspace {:?} before; choose another id", row.id);
                    return Ok(Settled::Refused(Failure::new(Reason::WorkspaceExists, text)));
                }
            } else {
                match Settled::of(created, who) {
                    Settled::Done => {}
                    settled => return Ok(settled),
                }
            }
        }
        Ok(self.apply(broker, row, who).await)
    }

    /// Takes in workspaces that the broker has and this control plane does not know.
    pub(crate) async fn take_in(&self, broker: &Client) -> Result<(), Failure> {
        let mut known = pin!(broker.workspaces().list());
        while let Some(workspace) = known.try_next().await? {
            if self.store.get(KIND, &workspace.workspace_id).await?.is_none() {
                self.take_in_one(broker, workspace).await?;
            }
        }
        Ok(())
    }

    async fn take_in_one(&self, broker: &Client, workspace: Workspace) -> Result<(), Failure> {
        let created_ms = created_ms(&workspace);
        let id = workspace.workspace_id;
        let quotas = broker.workspaces().quotas(id.as_str()).await?;
        let settings = WorkspaceSettings::of_broker(workspace.settings, quotas);
        let document = Document { settings, ..Document::default() };
        let now_ms = clock::unix_ms();
        let create_ms = created_ms;
        let row = Resource { state: ACTIVE.to_owned(), create_ms, ..row(&id, &id, &document, now_ms)? };
        match self.store.insert(&row).await {
            Ok(()) => tracing::info!(workspace = id, "a workspace of the broker is taken in"),
            Err(StoreError::NameTaken) => {
                tracing::warn!(
                    workspace = id,
                    "a workspace of the broker is not taken in: another has its id as a name"
                );
            }
            // Somebody else was quicker.
            Err(StoreError::IdTaken) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Tells the broker what a workspace does and may take.
    async fn apply(&self, broker: &Client, row: &Resource, who: Who) -> Settled {
        let document = match Document::of(row) {
            Ok(document) => document,
            Err(why) => return Settled::Refused(why),
        };
        let (settings, quotas) = document.settings.for_broker();
        let updated = broker.workspaces().update(row.id.as_str(), settings).await.map(drop);
        match Settled::of(updated, who) {
            Settled::Done => Settled::of(broker.workspaces().set_quotas(row.id.as_str(), quotas).await.map(drop), who),
            settled => settled,
        }
    }

    /// Ends a workspace for good: its keys, its tokens, its data; false: not yet.
    async fn end(&self, broker: &Client, row: &Resource, who: Who) -> Result<bool, Failure> {
        // What runs in it goes first; what Docker does not answer goes later.
        if self.sandboxes.are_left_of(&row.id).await {
            return Ok(false);
        }
        match Settled::of(self.end_at_broker(broker, &row.id).await, who) {
            Settled::Done => match self.forget(row).await {
                // Gone is gone, whoever has done it.
                Ok(()) | Err(StoreError::Changed) => Ok(true),
                Err(error) => Err(error.into()),
            },
            Settled::Later => Ok(false),
            Settled::Refused(why) => Err(why),
        }
    }

    /// What was set up in it goes first: while the workspace is there somebody goes on with its end.
    async fn forget(&self, row: &Resource) -> Result<(), StoreError> {
        self.store.forget_within(&row.id, &scoped::KINDS).await?;
        self.store.remove(row).await
    }

    async fn check_default(&self, id: &str, to: &WorkspaceSettings, from: Option<&str>) -> Result<(), Failure> {
        match to.default_llm_provider.as_deref().filter(|name| from != Some(*name)) {
            Some(name) => providers::check_default(&self.store, id, name).await,
            None => Ok(()),
        }
    }

    async fn end_at_broker(&self, broker: &Client, id: &str) -> Result<(), BrokerError> {
        // Keys first: while one holds somebody may still come in.
        let keys: Vec<_> = broker.keys().list().try_collect().await?;
        for key in keys.into_iter().filter(|key| key.workspace_id == id) {
            broker.keys().revoke(key.key_id).await?;
        }
        let tokens: Vec<_> = broker.tokens().list().try_collect().await?;
        for token in tokens.into_iter().filter(|token| token.workspace_id == id && token.revoke_time.is_none()) {
            broker.tokens().revoke(token.token_id, "", None).await?;
        }
        let deleted = broker.workspaces().delete(id).await;
        if is(&deleted, "UNKNOWN_WORKSPACE") { Ok(()) } else { deleted }
    }

    /// What was under way is done. Where somebody else was quicker it is as he has left it.
    async fn settle(&self, row: Resource, state: &str) -> Result<Resource, Failure> {
        match self.store.update(&Resource { state: state.to_owned(), due_ms: 0, ..row.clone() }).await {
            Ok(settled) => Ok(settled),
            Err(StoreError::Changed) => self.find(&row.id).await,
            Err(error) => Err(error.into()),
        }
    }

    async fn fail(&self, row: Resource, why: &Failure) -> Result<(), Failure> {
        tracing::warn!(workspace = row.id, code = why.code(), %why, "a workspace cannot be as it should");
        let document = Document { error: format!("{}: {why}", why.code()), ..Document::of(&row)? }.encode()?;
        self.settle(Resource { document, ..row }, FAILED).await.map(drop)
    }
}

/// When the broker has made a workspace, in milliseconds since 1970.
fn created_ms(workspace: &Workspace) -> i64 {
    workspace
        .create_time
        .as_ref()
        .map_or(0, |time| time.seconds.saturating_mul(1_000) + i64::from(time.nanos) / 1_000_000)
}

/// Whether nothing is under way with a workspace, and it is the one that was seen.
fn at_rest(row: &Resource, seen: Option<i64>) -> Result<(), Failure> {
    if seen.is_some_and(|seen| seen != row.revision) {
        return Err(StoreError::Changed.into());
    }
    match row.state.as_str() {
        DELETING => {
            let text = format!("workspace {:?} is to be deleted; restore it first", row.id);
            Err(Failure::new(Reason::BeingDeleted, text))
        }
        CREATING | UPDATING => {
            let text = format!("workspace {:?} is {} just now; try again", row.id, row.state);
            Err(Failure::new(Reason::Busy, text).after(Duration::from_secs(1)))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
#[path = "workspaces_tests.rs"]
mod tests;
