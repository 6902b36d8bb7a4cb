//! Containers that wait for a sandbox, so that it need not wait for a container.
//!
//! Each has the id that its sandbox will have. Whoever makes a sandbox of that id has taken it, of all control planes on the
//! database; its row among those that wait is removed after that, so that no container is nobody's in between.

use std::{
    collections::{HashMap, HashSet},
    sync::atomic::{AtomicI64, Ordering},
};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::{
    super::{
        sandbox::{Resources, Spec},
        workspace::Document as WorkspaceDocument,
    },
    KIND as SANDBOX, Sandboxes,
};
use crate::{
    clock,
    error::Failure,
    random,
    sandbox::{Container, Doing, RuntimeError},
    store::{Resource, StoreError},
};

/// As the database calls them.
pub(super) const KIND: &str = "warm";
const MAKING: &str = "making";
const READY: &str = "ready";
/// How long one may take to be made, in milliseconds.
const MAKING_LIMIT_MS: i64 = 60_000;
/// After one that could not be made.
const PAUSE_MS: i64 = 15_000;

/// What is known of one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Waiting {
    image: String,
    /// What the name of the image stood for.
    image_id: String,
}

/// When the next one may be made, in milliseconds since 1970.
#[derive(Debug, Default)]
pub(super) struct Pause(AtomicI64);

impl Pause {
    fn is_over(&self) -> bool {
        self.0.load(Ordering::Relaxed) <= clock::unix_ms()
    }

    fn begin(&self) {
        self.0.store(clock::unix_ms() + PAUSE_MS, Ordering::Relaxed);
    }
}

/// Images that were not there when they were last looked for.
#[derive(Debug, Default)]
pub(super) struct Missing(Mutex<HashSet<String>>);

impl Missing {
    /// Notes whether an image is there; whether it was seen missing for the first time, or again after it was there.
    pub(super) fn is_new(&self, image: &str, is_there: bool) -> bool {
        let mut missing = self.0.lock();
        if is_there {
            missing.remove(image);
            return false;
        }
        missing.insert(image.to_owned())
    }
}

/// What waits has the disk and the temporary memory of sandboxes that say nothing of it: neither can be changed later.
fn fits(resources: &Resources) -> bool {
    let usual = Resources::default();
    (resources.disk_mb, resources.tmp_mb) == (usual.disk_mb, usual.tmp_mb)
}

impl Sandboxes {
    /// Ids of containers that a sandbox can have, if it is quick.
    pub(super) async fn waiting_for(
        &self,
        (spec, workspace): (&Spec, &WorkspaceDocument),
        (image, image_id): (&str, &str),
    ) -> Result<Vec<Resource>, Failure> {
        if !self.0.config.warm_pool.contains_key(image)
            || !fits(&spec.resources)
            || self.0.networks.has_names(&workspace.settings.network)
        {
            return Ok(Vec::new());
        }
        let wanted = Waiting { image: image.to_owned(), image_id: image_id.to_owned() };
        let mut rows = self.0.store.all(KIND).await?;
        rows.retain(|row| row.state == READY && waiting(row).as_ref() == Some(&wanted));
        Ok(rows)
    }

    /// Makes a sandbox of the first of these ids that nobody else has taken, or else of a new one; returns it, and what waits for
    /// it. That one is to be forgotten, once the sandbox stays.
    pub(super) async fn take(
        &self,
        new: Resource,
        waiting: Vec<Resource>,
    ) -> Result<(Resource, Option<Resource>), Failure> {
        for row in waiting {
            let new = Resource { id: row.id.clone(), ..new.clone() };
            match self.0.store.insert(&new).await {
                Ok(()) => return Ok((new, Some(row))),
                Err(StoreError::IdTaken) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.0.store.insert(&new).await?;
        Ok((new, None))
    }

    /// Nobody waits for it; what fails is done at the next look.
    pub(super) fn forget_later(&self, taken: Resource) {
        let this = self.clone();
        tokio::spawn(async move {
            if let Err(why) = this.forget(&taken).await {
                tracing::debug!(sandbox = taken.id, code = why.code(), %why, "a container that was taken is forgotten later");
            }
        });
    }

    /// Whether somebody else was quicker does not matter.
    async fn forget(&self, row: &Resource) -> Result<(), Failure> {
        match self.0.store.remove(row).await {
            Ok(()) | Err(StoreError::Changed) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Sees to it that as many wait as are wanted, and no others. `doing`: containers as they were after `rows` were read.
    pub(super) async fn keep_warm(
        &self,
        rows: Vec<Resource>,
        doing: &HashMap<String, Doing>,
        taken: &HashSet<&str>,
    ) -> Result<(), Failure> {
        let wanted = &self.0.config.warm_pool;
        if wanted.is_empty() && rows.is_empty() {
            return self.0.networks.close_waiting_room().await;
        }
        let mut image_ids = HashMap::new();
        for image in wanted.keys() {
            let id = self.0.runtime.image_id(image).await?;
            if self.0.missing.is_new(image, id.is_some()) {
                let why = Failure::from(RuntimeError::NoImage(image.clone()));
                tracing::warn!(code = why.code(), %why, "no containers wait for sandboxes (sandboxes.warm_pool)");
            }
            if let Some(id) = id {
                image_ids.insert(image.as_str(), id);
            }
        }
        let now_ms = clock::unix_ms();
        let mut have: HashMap<String, u32> = HashMap::new();
        for row in rows {
            let known = waiting(&row);
            let most = known.as_ref().and_then(|known| wanted.get(&known.image)).copied().unwrap_or(0);
            let is_fresh =
                known.as_ref().is_some_and(|known| image_ids.get(known.image.as_str()) == Some(&known.image_id));
            let stands = match row.state.as_str() {
                MAKING => now_ms - row.create_ms < MAKING_LIMIT_MS,
                _ => doing.get(&row.id) == Some(&Doing::Running),
            };
            let number = have.entry(known.map(|known| known.image).unwrap_or_default()).or_default();
            if stands && is_fresh && *number < most && !taken.contains(row.id.as_str()) {
                *number += 1;
                continue;
            }
            self.let_go(row).await?;
        }
        for (image, most) in wanted {
            let Some(image_id) = image_ids.get(image.as_str()).filter(|_| self.0.pause.is_over()) else { continue };
            for _ in have.get(image).copied().unwrap_or(0)..*most {
                self.begin(Waiting { image: image.clone(), image_id: image_id.clone() }).await?;
            }
        }
        Ok(())
    }

    /// Removes one that nobody has taken.
    async fn let_go(&self, row: Resource) -> Result<(), Failure> {
        self.forget(&row).await?;
        if self.0.store.get(SANDBOX, &row.id).await?.is_none() {
            self.0.runtime.remove(&row.id, true).await?;
        }
        Ok(())
    }

    /// Makes one more, beside what else there is to do.
    async fn begin(&self, waiting: Waiting) -> Result<(), Failure> {
        let now_ms = clock::unix_ms();
        let id = random::id("sb");
        let row = Resource {
            kind: KIND.to_owned(),
            scope: String::new(),
            name: id.clone(),
            state: MAKING.to_owned(),
            revision: 1,
            document: serde_json::to_string(&waiting).map_err(|error| Failure::internal(error.to_string()))?,
            create_ms: now_ms,
            update_ms: now_ms,
            due_ms: 0,
            id,
        };
        self.0.store.insert(&row).await?;
        let this = self.clone();
        tokio::spawn(async move {
            if let Err(why) = this.warm_up(row.clone(), waiting.image).await {
                tracing::warn!(code = why.code(), %why, "no container is made that waits for a sandbox");
                this.0.pause.begin();
                if let Err(why) = this.let_go(row).await {
                    tracing::warn!(code = why.code(), %why, "what is left of it is removed later");
                }
            }
        });
        Ok(())
    }

    async fn warm_up(&self, row: Resource, image: String) -> Result<(), Failure> {
        let _permit = self.0.starts.acquire().await.map_err(|_| Failure::internal("there are no more starts"))?;
        let usual = Resources::default();
        let room = self.0.networks.waiting_room().await?;
        let container = Container {
            id: row.id.clone(),
            workspace: String::new(),
            name: String::new(),
            image,
            network: room.key,
            memory_bytes: usual.memory_mb << 20,
            cpus: usual.cpu_cores,
            pids: usual.pids,
            disk_bytes: usual.disk_mb << 20,
            tmp_bytes: usual.tmp_mb << 20,
            hosts: Vec::new(),
        };
        self.0.runtime.warm_up(&container).await?;
        let ready = Resource { state: READY.to_owned(), update_ms: clock::unix_ms(), ..row };
        match self.0.store.update(&ready).await {
            Ok(_) => Ok(()),
            Err(StoreError::Changed) => self.let_go(ready).await,
            Err(error) => Err(error.into()),
        }
    }
}

fn waiting(row: &Resource) -> Option<Waiting> {
    serde_json::from_str(&row.document).ok()
}
