//! What can be done with sandboxes.
//!
//! What is wanted stands in the database first. Whoever asks then makes it true, and waits for it; when he or this process is gone
//! meanwhile, the reconciler goes on. Who does something with a sandbox has claimed it before: its `due_ms` lies ahead.

pub(crate) mod decide;
mod drive;
mod reconcile;
mod warm;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tandem_client::Client;
use tokio::sync::{Notify, Semaphore};

use self::decide::{CREATING, DELETING, FAILED, RESTARTING, RUNNING, STOPPED, STOPPING};
use super::{
    alerts::Alerts,
    caller::Caller,
    listing::Wanted as WantedPage,
    mcp_servers::McpServers,
    networks::Networks,
    providers::Providers,
    sandbox::{Document, Spec, Wanted, check_name},
    workspace::Document as WorkspaceDocument,
    workspaces,
};
use crate::{
    clock,
    config::SandboxConfig,
    error::{Failure, Reason},
    random,
    sandbox::{Exec, Executed, LogLine, LogQuery, SandboxRuntime, Told, Usage},
    store::{Query, Resource, Store, StoreError},
};

pub(crate) use self::reconcile::Memory;

/// As the database calls them.
pub(crate) const KIND: &str = "sandbox";
/// Until somebody else goes on with what is under way: longer than a start or a stop may take.
const OVERDUE_MS: i64 = 60_000;
/// How long a control plane counts as there that has last said so, in milliseconds. It says so each second.
const ALIVE_MS: i64 = 5_000;
/// How long one has to be seen gone before others go on in its place, in milliseconds.
const GONE_MS: i64 = 2_500;
/// Starts at once: Docker does not get faster with more.
const STARTS: usize = 8;

/// As the database calls that a control plane is there.
fn alive(holder: &str) -> String {
    format!("alive {holder}")
}

/// A sandbox that somebody wants.
#[derive(Debug, Clone)]
pub(crate) struct NewSandbox {
    pub(crate) workspace: String,
    pub(crate) name: String,
    pub(crate) spec: Spec,
}

/// What sandboxes are given, and who is told of them.
#[derive(Clone)]
pub(crate) struct Kit {
    pub(crate) providers: Providers,
    pub(crate) mcp_servers: McpServers,
    pub(crate) alerts: Alerts,
}

/// The sandboxes. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Sandboxes(Arc<Inside>);

struct Inside {
    store: Store,
    runtime: Arc<dyn SandboxRuntime>,
    networks: Networks,
    config: SandboxConfig,
    kit: Kit,
    /// The broker, as this control plane.
    broker: Client,
    /// Whether sandboxes need tokens: the broker asks who somebody is.
    has_tokens: bool,
    starts: Semaphore,
    /// What others know this control plane by.
    holder: String,
    /// Whether this control plane looks after them, and not another one.
    has_turn: AtomicBool,
    /// Processes that were killed for want of memory and not counted yet, by sandbox.
    kills: Mutex<HashMap<String, u64>>,
    /// Between containers that wait and could not be made.
    pause: warm::Pause,
    /// Images of the pool that are not on the host.
    missing: warm::Missing,
    /// Somebody should look: something has changed.
    changed: Notify,
}

impl Sandboxes {
    pub(crate) fn new(
        (store, runtime, networks): (Store, Arc<dyn SandboxRuntime>, Networks),
        (broker, kit): (Client, Kit),
        (config, has_tokens): (SandboxConfig, bool),
    ) -> Self {
        let (starts, changed) = (Semaphore::new(STARTS), Notify::new());
        let (kills, holder) = (Mutex::default(), random::id("cp"));
        let (pause, missing) = (warm::Pause::default(), warm::Missing::default());
        let has_turn = AtomicBool::new(false);
        let inside = Inside {
            store,
            runtime,
            networks,
            config,
            kit,
            broker,
            has_tokens,
            starts,
            holder,
            has_turn,
            kills,
            pause,
            missing,
            changed,
        };
        Self(Arc::new(inside))
    }

    /// Somebody else looks after them now.
    pub(crate) fn lose_turn(&self) {
        self.0.has_turn.store(false, Ordering::Relaxed);
        self.0.kills.lock().clear();
    }

    /// Says that this control plane is there, so that what it has claimed stays its own.
    pub(crate) async fn live(&self) -> Result<(), Failure> {
        let now_ms = clock::unix_ms();
        self.0.store.lease((&alive(&self.0.holder), &self.0.holder), (now_ms, now_ms + ALIVE_MS)).await?;
        Ok(())
    }

    /// Makes a sandbox and starts it. In state `starting`: it runs, and the broker has not heard of it yet.
    pub(crate) async fn create(&self, caller: &Caller, new: NewSandbox) -> Result<Resource, Failure> {
        caller.in_workspace(&new.workspace)?;
        check_name(&new.name)?;
        let host = self.0.runtime.host().await?;
        new.spec.check(host)?;
        let workspace = self.workspace(&new.workspace).await?;
        self.0.kit.mcp_servers.check(&new.workspace, &new.spec.mcp_servers).await?;
        let image = new.spec.image.as_deref().unwrap_or(&self.0.config.image);
        let no_image = || crate::sandbox::RuntimeError::NoImage(image.to_owned());
        let image_id = self.0.runtime.image_id(image).await?.ok_or_else(no_image)?;
        // It may not be there; and what the broker does not answer now it would not answer later.
        caller.broker.workspaces().get(new.workspace.as_str()).await.map_err(Failure::of_question)?;
        let waiting = self.waiting_for((&new.spec, &workspace), (image, &image_id)).await?;
        let now_ms = clock::unix_ms();
        let row = Resource {
            kind: KIND.to_owned(),
            id: random::id("sb"),
            scope: new.workspace.clone(),
            name: new.name.clone(),
            state: CREATING.to_owned(),
            revision: 1,
            document: Document { spec: new.spec, claimant: self.0.holder.clone(), ..Document::default() }.encode()?,
            create_ms: now_ms,
            update_ms: now_ms,
            due_ms: now_ms + OVERDUE_MS,
        };
        let (row, taken) = self.take(row, waiting).await?;
        if let Err(why) = self.check_number(&row, &workspace).await {
            self.0.store.remove(&row).await?;
            return Err(why);
        }
        let is_warm = taken.is_some();
        if let Some(taken) = taken {
            self.forget_later(taken);
        }
        let made = self.by_itself(row, |this, row| async move { this.first_start(row).await }).await;
        if is_warm {
            // Another one is made in its place, now that nobody waits for this one.
            self.0.changed.notify_one();
        }
        made
    }

    /// Whether there are as many as there may be, with the one that was just added: of two who come at once both count.
    async fn check_number(&self, row: &Resource, workspace: &WorkspaceDocument) -> Result<(), Failure> {
        let all = self.0.store.all(KIND).await?;
        let most = self.0.config.max_sandboxes;
        if all.len() > most {
            let text =
                format!("there are {most} sandboxes, as many as there may be (sandboxes.max_sandboxes); delete one");
            return Err(Failure::new(Reason::TooManySandboxes, text));
        }
        let of_workspace = all.iter().filter(|other| other.scope == row.scope).count();
        match workspace.settings.max_sandboxes {
            Some(most) if of_workspace > most as usize => {
                let text = format!(
                    "workspace {:?} has {most} sandboxes, as many as it may have (settings.max_sandboxes); delete one",
                    row.scope
                );
                Err(Failure::new(Reason::TooManySandboxes, text))
            }
            _ => Ok(()),
        }
    }

    /// A workspace in which something can be started.
    async fn workspace(&self, id: &str) -> Result<WorkspaceDocument, Failure> {
        let found = if id.contains('\0') { None } else { self.0.store.get(workspaces::KIND, id).await? };
        let row = found.ok_or_else(|| {
            Failure::new(Reason::UnknownWorkspace, format!("there is no workspace {id:?}; look at the list of them"))
        })?;
        if row.state == workspaces::DELETING {
            return Err(Failure::new(
                Reason::BeingDeleted,
                format!("workspace {id:?} is to be deleted; restore it first"),
            ));
        }
        WorkspaceDocument::of(&row)
    }

    /// One sandbox.
    pub(crate) async fn get(&self, caller: &Caller, id: &str) -> Result<Resource, Failure> {
        let found = if id.contains('\0') { None } else { self.0.store.get(KIND, id).await? };
        let unknown =
            || Failure::new(Reason::UnknownSandbox, format!("there is no sandbox {id:?}; look at the list of them"));
        let row = found.ok_or_else(unknown)?;
        // Of other workspaces nobody learns what there is.
        caller.in_workspace(&row.scope).map_err(|_| unknown())?;
        Ok(row)
    }

    /// Those that the caller may see.
    pub(crate) async fn list(
        &self,
        caller: &Caller,
        workspace: Option<&str>,
        wanted: &WantedPage,
    ) -> Result<(Vec<Resource>, Option<String>), Failure> {
        if let Some(workspace) = workspace {
            caller.in_workspace(workspace)?;
            // One that is being deleted is still there.
            if workspace.contains('\0') || self.0.store.get(workspaces::KIND, workspace).await?.is_none() {
                let text = format!("there is no workspace {workspace:?}");
                return Err(Failure::about(Reason::UnknownWorkspace, "workspace_id", text));
            }
        }
        let query = Query {
            kind: KIND,
            scope: workspace.or(caller.workspace()),
            id: None,
            name_prefix: &wanted.name_prefix,
            state: &wanted.state,
            order: wanted.order,
            after: wanted.after.as_ref().map(|(by, id)| (by.as_str(), id.as_str())),
            most: wanted.most,
        };
        let page = self.0.store.list(&query).await?;
        Ok((page.resources, page.next.map(|place| wanted.cursor(&place))))
    }

    /// Changes what a sandbox is from its next start on.
    pub(crate) async fn change(
        &self,
        caller: &Caller,
        (id, seen): (&str, Option<i64>),
        change: impl FnOnce(&Spec) -> Result<Spec, Failure>,
    ) -> Result<Resource, Failure> {
        let before = self.get(caller, id).await?;
        at_rest(&before, seen)?;
        let document = Document::of(&before)?;
        let spec = change(&document.spec)?;
        spec.check(self.0.runtime.host().await?)?;
        self.0.kit.mcp_servers.check(&before.scope, &spec.mcp_servers).await?;
        if let Some(image) = spec.image.as_deref().filter(|_| spec.image != document.spec.image)
            && self.0.runtime.image_id(image).await?.is_none()
        {
            return Err(Failure::from(crate::sandbox::RuntimeError::NoImage(image.to_owned())));
        }
        let document = Document { spec, ..document }.encode()?;
        Ok(self.0.store.update(&Resource { document, update_ms: clock::unix_ms(), ..before }).await?)
    }

    /// Starts a sandbox; one that runs is left alone.
    pub(crate) async fn start(&self, caller: &Caller, id: &str) -> Result<Resource, Failure> {
        let before = self.get(caller, id).await?;
        self.workspace(&before.scope).await?;
        if before.state == RUNNING {
            return Ok(before);
        }
        at_rest(&before, None)?;
        let row = self.claim_as(before, Wanted::Running, CREATING).await?;
        self.by_itself(row, |this, row| async move { this.start_again(row).await }).await
    }

    /// Stops a sandbox; one that is stopped is left alone. In state `stopping`: it goes on by itself.
    pub(crate) async fn stop(&self, caller: &Caller, id: &str) -> Result<Resource, Failure> {
        let before = self.get(caller, id).await?;
        if [STOPPED, FAILED].contains(&before.state.as_str()) {
            return Ok(before);
        }
        at_rest(&before, None)?;
        let row = self.claim_as(before, Wanted::Stopped, STOPPING).await?;
        let left = row.clone();
        match self.by_itself(row, |this, row| async move { this.bring_down(row, "asked").await }).await {
            // What is wanted is known: an error would say that nothing comes of it.
            Err(why) if why.retry().is_some() => {
                tracing::warn!(sandbox = id, code = why.code(), %why, "a sandbox is stopped later");
                Ok(left)
            }
            done => done,
        }
    }

    /// Stops a sandbox and starts it.
    pub(crate) async fn restart(&self, caller: &Caller, id: &str) -> Result<Resource, Failure> {
        let before = self.get(caller, id).await?;
        self.workspace(&before.scope).await?;
        at_rest(&before, None)?;
        let (state, document) = (before.state.clone(), Document::of(&before)?);
        let row = self.claim_as(before, Wanted::Running, CREATING).await?;
        let again = |this: Self, row: Resource| async move {
            if let Err(error) = this.0.runtime.stop(&row.id, drive::GRACE).await {
                // Nothing was done, and nothing is to come of it later.
                this.settle(row, &state, &document).await?;
                return Err(Failure::from(error));
            }
            this.start_again(row).await
        };
        self.by_itself(row, again).await
    }

    /// Deletes a sandbox with its volume and its inbox; None: it is gone.
    pub(crate) async fn delete(
        &self,
        caller: &Caller,
        id: &str,
        seen: Option<i64>,
    ) -> Result<Option<Resource>, Failure> {
        let before = self.get(caller, id).await?;
        if before.state == DELETING {
            return Ok(Some(before));
        }
        at_rest(&before, seen)?;
        let row = self.claim_as(before, Wanted::Gone, DELETING).await?;
        let left = row.clone();
        match self.by_itself(row, |this, row| async move { this.end(row).await.map(|()| None) }).await {
            Ok(gone) => Ok(gone),
            // It goes on by itself.
            Err(why) => {
                tracing::warn!(sandbox = id, code = why.code(), %why, "a sandbox is deleted later");
                Ok(Some(left))
            }
        }
    }

    /// What it has printed.
    pub(crate) async fn logs(&self, caller: &Caller, id: &str, wanted: &LogQuery) -> Result<Told<LogLine>, Failure> {
        let row = self.get(caller, id).await?;
        Ok(self.0.runtime.logs(&row.id, wanted).await?)
    }

    /// What it takes, and of its volume how much where that is known.
    pub(crate) async fn stats(&self, caller: &Caller, id: &str) -> Result<(Usage, Option<u64>), Failure> {
        let row = self.running(caller, id).await?;
        let usage = self.0.runtime.usage(&row.id).await?;
        let disk = self.0.runtime.disk(std::slice::from_ref(&row.id)).await?;
        Ok((usage, disk.get(&row.id).copied()))
    }

    /// Runs a command in it.
    pub(crate) async fn exec(&self, caller: &Caller, id: &str, wanted: Exec) -> Result<Executed, Failure> {
        let row = self.running(caller, id).await?;
        let document = Document::of(&row)?;
        let mut environment: Vec<_> = document.spec.environment.into_iter().collect();
        let way = self.way(&row).await?;
        environment.extend(drive::known(&row, &way.broker, self.0.has_tokens));
        environment.extend(wanted.environment);
        Ok(self.0.runtime.exec(&row.id, &Exec { environment, ..wanted }).await?)
    }

    async fn running(&self, caller: &Caller, id: &str) -> Result<Resource, Failure> {
        let row = self.get(caller, id).await?;
        if row.state == RUNNING || row.state == decide::STARTING {
            return Ok(row);
        }
        let text = format!("sandbox {id:?} is {}; start it first", row.state);
        Err(Failure::new(Reason::SandboxNotRunning, text))
    }

    /// Says what is to become of a sandbox, and that whoever says it does it.
    async fn claim_as(&self, before: Resource, wanted: Wanted, state: &str) -> Result<Resource, Failure> {
        let document = Document::of(&before)?;
        let claimant = self.0.holder.clone();
        let document =
            Document { wanted, retry_ms: 0, retries: 0, error: String::new(), claimant, ..document }.encode()?;
        let now_ms = clock::unix_ms();
        let row =
            Resource { state: state.to_owned(), document, update_ms: now_ms, due_ms: now_ms + OVERDUE_MS, ..before };
        Ok(self.0.store.update(&row).await?)
    }

    /// Goes on when whoever asked does not wait for it.
    async fn by_itself<T, F>(&self, row: Resource, what: impl FnOnce(Self, Resource) -> F) -> Result<T, Failure>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Failure>> + Send + 'static,
    {
        let done = tokio::spawn(what(self.clone(), row)).await;
        done.unwrap_or_else(|error| Err(Failure::internal(error.to_string())))
    }

    /// Whether anything of a workspace runs or may run. What does begins to go.
    pub(crate) async fn are_left_of(&self, workspace: &str) -> bool {
        self.end_all_of(workspace).await.unwrap_or_else(|why| {
            tracing::warn!(workspace, code = why.code(), %why, "its sandboxes are not gone yet");
            true
        })
    }

    async fn end_all_of(&self, workspace: &str) -> Result<bool, Failure> {
        let rows = self.0.store.all(KIND).await?;
        let mut left = false;
        for row in rows.into_iter().filter(|row| row.scope == workspace) {
            left = true;
            if row.state != DELETING && row.due_ms <= clock::unix_ms() {
                match self.claim_as(row, Wanted::Gone, DELETING).await {
                    Ok(row) => self.end(row).await?,
                    Err(why) if why.code() == Reason::RevisionChanged.code() => {}
                    Err(why) => return Err(why),
                }
            }
        }
        if left {
            left = self.0.store.all(KIND).await?.iter().any(|row| row.scope == workspace);
        }
        if !left {
            self.0.networks.remove(workspace).await?;
        }
        Ok(left)
    }
}

/// Whether nobody does something with it, and it is the one that was seen.
fn at_rest(row: &Resource, seen: Option<i64>) -> Result<(), Failure> {
    if seen.is_some_and(|seen| seen != row.revision) {
        return Err(StoreError::Changed.into());
    }
    if row.state == DELETING {
        let text = format!("sandbox {:?} is being deleted", row.id);
        return Err(Failure::new(Reason::BeingDeleted, text));
    }
    let resting = [RUNNING, STOPPED, FAILED, RESTARTING, decide::STARTING].contains(&row.state.as_str());
    if resting && row.due_ms <= clock::unix_ms() {
        return Ok(());
    }
    let text = format!("sandbox {:?} is {} just now; try again", row.id, row.state);
    Err(Failure::new(Reason::Busy, text).after(Duration::from_secs(1)))
}

#[cfg(test)]
#[path = "sandboxes_tests.rs"]
pub(crate) mod tests;
