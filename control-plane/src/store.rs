//! What the control plane remembers, in SQLite or PostgreSQL: the only module that speaks SQL.
//!
//! Everything is a [`Resource`]: what a kind of them means stands in its document, which only `service` reads. A resource changes
//! as a whole and only from the revision that whoever changes it has seen, so that nobody overwrites what he does not know.
//! Both databases run the same statements and the same migrations, and pass the same suite (`conformance.rs`).

mod alerts;
mod answers;
#[cfg(test)]
mod conformance;
mod leases;
mod migrations;
mod pages;
mod resources;
mod scoped;

use std::{str::FromStr as _, sync::Arc, time::Duration};

use sqlx::{Any, AnyPool, Transaction, any::AnyPoolOptions, sqlite::SqliteConnectOptions};
use tokio::sync::{Mutex, MutexGuard};

use crate::{clock, random};

pub(crate) use self::{
    alerts::{Delivery, Happening, Judged},
    answers::{Answer, Known},
    pages::{Order, Query, SortBy},
    resources::Resource,
};

/// How long a statement waits for others that write, in milliseconds; SQLite has one writer at a time.
const BUSY: &str = "PRAGMA busy_timeout = 5000";
/// How long a request waits for a connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// Why something could not be remembered, or recalled.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A resource of this kind has the id.
    #[error("the id is taken")]
    IdTaken,
    /// A resource of this kind in the same workspace has the name.
    #[error("the name is taken")]
    NameTaken,
    /// It is another one by now, or gone.
    #[error("somebody else has changed it meanwhile")]
    Changed,
    /// The workspace is not there, or about to go.
    #[error("there is no such workspace any more")]
    NoWorkspace,
    /// There are as many of them as there may be.
    #[error("there are as many of them as there may be")]
    Full,
    /// The database does not answer, is locked, or is full.
    #[error("the database cannot be used: {0}")]
    Unavailable(String),
    /// The database holds what this version cannot have written.
    #[error("the database holds what cannot be read: {0}")]
    Damaged(String),
    /// The address is none.
    #[error("{0:?} is no database; write it like sqlite:data/control-plane.db or postgres://user@host/name")]
    Address(String),
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => Self::Damaged(error.to_string()),
            error => Self::Unavailable(error.to_string()),
        }
    }
}

/// The database. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    pool: AnyPool,
    dialect: Dialect,
    /// Of those of this process that want to write to SQLite.
    turns: Arc<Mutex<()>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dialect {
    Sqlite,
    Postgres,
}

impl Dialect {
    fn of(url: &str) -> Option<Self> {
        match url.split_once(':')?.0 {
            "sqlite" => Some(Self::Sqlite),
            "postgres" | "postgresql" => Some(Self::Postgres),
            _ => None,
        }
    }
}

impl Store {
    /// Opens the database at an address, which is made where it is a file that is not there, and brings its tables up to date.
    ///
    /// # Errors
    /// [`StoreError::Address`] where it is no address, [`StoreError::Unavailable`] where nobody answers there.
    pub(crate) async fn open(url: &str, connections: u32) -> Result<Self, StoreError> {
        sqlx::any::install_default_drivers();
        // The address may hold a password.
        let wrong = || StoreError::Address(url.split(':').next().unwrap_or_default().to_owned());
        let dialect = Dialect::of(url).ok_or_else(wrong)?;
        let mut options = AnyPoolOptions::new().max_connections(connections).acquire_timeout(ACQUIRE_TIMEOUT);
        let mut url = url.to_owned();
        if dialect == Dialect::Sqlite {
            let file = SqliteConnectOptions::from_str(&url).map_err(|_| wrong())?;
            if let Some(folder) = file.get_filename().parent() {
                std::fs::create_dir_all(folder).map_err(|error| {
                    StoreError::Unavailable(format!("the folder {} cannot be made: {error}", folder.display()))
                })?;
            }
            if !url.contains('?') {
                url.push_str("?mode=rwc");
            }
            options = options.after_connect(|connection, _| {
                Box::pin(async move {
                    // Beside readers there is one writer; only FULL syncs its log at each commit.
                    for statement in [BUSY, "PRAGMA journal_mode = WAL", "PRAGMA synchronous = FULL"] {
                        sqlx::query(statement).fetch_all(&mut *connection).await?;
                    }
                    Ok(())
                })
            });
        }
        let pool = options.connect(&url).await?;
        migrations::run(&pool, dialect).await?;
        Ok(Self { pool, dialect, turns: Arc::default() })
    }

    /// The turn to write. SQLite has one writer: who waits for it here is woken when it is his turn, and who waits there sleeps,
    /// looks, and sleeps longer. PostgreSQL has many.
    async fn turn(&self) -> Option<MutexGuard<'_, ()>> {
        match self.dialect {
            Dialect::Sqlite => Some(self.turns.lock().await),
            Dialect::Postgres => None,
        }
    }

    /// What tells what was made for this database from what was made for others.
    pub(crate) async fn installation(&self) -> Result<String, StoreError> {
        loop {
            if let Some(known) = self.get("installation", "self").await? {
                return Ok(known.name);
            }
            let now_ms = clock::unix_ms();
            let new = Resource {
                kind: "installation".to_owned(),
                id: "self".to_owned(),
                scope: String::new(),
                name: random::id("in"),
                state: String::new(),
                revision: 1,
                document: "{}".to_owned(),
                create_ms: now_ms,
                update_ms: now_ms,
                due_ms: 0,
            };
            match self.insert(&new).await {
                // Of two who come at once one is first.
                Ok(()) | Err(StoreError::IdTaken) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Ends a step of several statements: all of it is remembered, or nothing. Nobody waits for what was begun and dropped.
    async fn end<T>(step: Transaction<'_, Any>, done: Result<T, StoreError>) -> Result<T, StoreError> {
        match done {
            Ok(done) => step.commit().await.map(|()| done).map_err(StoreError::from),
            Err(error) => {
                step.rollback().await?;
                Err(error)
            }
        }
    }

    /// Whether the database answers.
    pub(crate) async fn ping(&self) -> Result<(), StoreError> {
        sqlx::query("SELECT 1").fetch_one(&self.pool).await?;
        Ok(())
    }

    /// `sqlite` or `postgres`.
    pub(crate) fn engine(&self) -> &'static str {
        match self.dialect {
            Dialect::Sqlite => "sqlite",
            Dialect::Postgres => "postgres",
        }
    }

    /// Lets go of the database, after what is under way.
    pub(crate) async fn close(&self) {
        self.pool.close().await;
    }
}
