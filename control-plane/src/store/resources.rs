//! Resources one by one.

use sqlx::{
    Any, Row as _,
    any::{AnyArguments, AnyRow},
    query::Query,
};

use super::{Store, StoreError};

/// A statement with what is bound to it.
pub(super) type Statement<'q> = Query<'q, Any, AnyArguments>;

/// Something that the control plane manages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Resource {
    /// Of what kind, such as `workspace`.
    pub(crate) kind: String,
    /// Unique among those of its kind.
    pub(crate) id: String,
    /// The workspace that it is in; empty: it is in none.
    pub(crate) scope: String,
    /// Unique among those of its kind in its workspace.
    pub(crate) name: String,
    /// What is being done with it.
    pub(crate) state: String,
    /// From 1; one more with each change.
    pub(crate) revision: i64,
    /// What it is, as JSON.
    pub(crate) document: String,
    /// In milliseconds since 1970.
    pub(crate) create_ms: i64,
    /// The same, of its last change.
    pub(crate) update_ms: i64,
    /// When somebody has to look at it; 0: nobody has to.
    pub(crate) due_ms: i64,
}

impl Resource {
    pub(super) fn read(row: &AnyRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            kind: row.try_get("kind")?,
            id: row.try_get("id")?,
            scope: row.try_get("scope")?,
            name: row.try_get("name")?,
            state: row.try_get("state")?,
            revision: row.try_get("revision")?,
            document: row.try_get("document")?,
            create_ms: row.try_get("create_ms")?,
            update_ms: row.try_get("update_ms")?,
            due_ms: row.try_get("due_ms")?,
        })
    }
}

impl Store {
    /// Remembers a resource that is new.
    ///
    /// # Errors
    /// [`StoreError::IdTaken`], [`StoreError::NameTaken`].
    pub(crate) async fn insert(&self, new: &Resource) -> Result<(), StoreError> {
        let _turn = self.turn().await;
        match insertion(new).execute(&self.pool).await {
            Ok(_) => Ok(()),
            Err(error) if is_taken(&error) => Err(if self.get(&new.kind, &new.id).await?.is_some() {
                StoreError::IdTaken
            } else {
                StoreError::NameTaken
            }),
            Err(error) => Err(error.into()),
        }
    }

    /// One of a kind.
    pub(crate) async fn get(&self, kind: &str, id: &str) -> Result<Option<Resource>, StoreError> {
        let found = sqlx::query("SELECT * FROM resources WHERE kind = $1 AND id = $2")
            .bind(kind)
            .bind(id)
            .fetch_optional(&self.pool)
            .await?;
        Ok(found.as_ref().map(Resource::read).transpose()?)
    }

    /// Remembers what has become of a resource, whose revision is the one that was seen before; returns it with the next one.
    ///
    /// # Errors
    /// [`StoreError::Changed`] where it has another one by now, or is gone; [`StoreError::NameTaken`].
    pub(crate) async fn update(&self, changed: &Resource) -> Result<Resource, StoreError> {
        let _turn = self.turn().await;
        match change(changed).execute(&self.pool).await {
            Ok(done) if done.rows_affected() == 1 => Ok(Resource { revision: changed.revision + 1, ..changed.clone() }),
            Ok(_) => Err(StoreError::Changed),
            Err(error) if is_taken(&error) => Err(StoreError::NameTaken),
            Err(error) => Err(error.into()),
        }
    }

    /// Forgets a resource that has the revision that was seen before.
    ///
    /// # Errors
    /// [`StoreError::Changed`] where it has another one by now, or is gone.
    pub(crate) async fn remove(&self, seen: &Resource) -> Result<(), StoreError> {
        let _turn = self.turn().await;
        let removed = sqlx::query("DELETE FROM resources WHERE kind = $1 AND id = $2 AND revision = $3")
            .bind(&seen.kind)
            .bind(&seen.id)
            .bind(seen.revision)
            .execute(&self.pool)
            .await?;
        if removed.rows_affected() == 1 { Ok(()) } else { Err(StoreError::Changed) }
    }

    /// All of a kind, by id. Only of kinds whose number has a limit.
    pub(crate) async fn all(&self, kind: &str) -> Result<Vec<Resource>, StoreError> {
        let found =
            sqlx::query("SELECT * FROM resources WHERE kind = $1 ORDER BY id").bind(kind).fetch_all(&self.pool).await?;
        Ok(found.iter().map(Resource::read).collect::<Result<_, _>>()?)
    }

    /// Those that somebody has to look at by now, the longest due first.
    pub(crate) async fn due(&self, now_ms: i64, most: u32) -> Result<Vec<Resource>, StoreError> {
        let found =
            sqlx::query("SELECT * FROM resources WHERE due_ms > 0 AND due_ms <= $1 ORDER BY due_ms, kind, id LIMIT $2")
                .bind(now_ms)
                .bind(i64::from(most))
                .fetch_all(&self.pool)
                .await?;
        Ok(found.iter().map(Resource::read).collect::<Result<_, _>>()?)
    }
}

/// The statement that remembers a resource that is new.
pub(super) fn insertion(new: &Resource) -> Statement<'_> {
    sqlx::query(
        "INSERT INTO resources (kind, id, scope, name, state, revision, document, create_ms, update_ms, due_ms) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
    )
    .bind(&new.kind)
    .bind(&new.id)
    .bind(&new.scope)
    .bind(&new.name)
    .bind(&new.state)
    .bind(new.revision)
    .bind(&new.document)
    .bind(new.create_ms)
    .bind(new.update_ms)
    .bind(new.due_ms)
}

/// The statement that remembers what has become of a resource; it changes no row where that has another revision by now.
pub(super) fn change(changed: &Resource) -> Statement<'_> {
    sqlx::query(
        "UPDATE resources SET name = $1, state = $2, document = $3, update_ms = $4, due_ms = $5, revision = revision + 1 \
         WHERE kind = $6 AND id = $7 AND revision = $8",
    )
    .bind(&changed.name)
    .bind(&changed.state)
    .bind(&changed.document)
    .bind(changed.update_ms)
    .bind(changed.due_ms)
    .bind(&changed.kind)
    .bind(&changed.id)
    .bind(changed.revision)
}

pub(super) fn is_taken(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(sqlx::error::DatabaseError::is_unique_violation)
}
