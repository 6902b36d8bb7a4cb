//! Resources of a workspace: they come into one that is there, are found by their name, and go with it.

use sqlx::{AnyConnection, Row as _};

use super::{
    Resource, Store, StoreError,
    resources::{insertion, is_taken},
};

/// As the database calls workspaces, and those that are about to go.
const WORKSPACE: (&str, &str) = ("workspace", "deleting");

/// Takes the workspace, counts what it holds, and adds to it.
async fn enter(step: &mut AnyConnection, new: &Resource, most: u32) -> Result<(), StoreError> {
    // A statement that writes, and changes nothing: it takes the workspace for this step, on both databases.
    let (workspace, going) = WORKSPACE;
    let there = sqlx::query("UPDATE resources SET revision = revision WHERE kind = $1 AND id = $2 AND state <> $3")
        .bind(workspace)
        .bind(&new.scope)
        .bind(going)
        .execute(&mut *step)
        .await?;
    if there.rows_affected() == 0 {
        return Err(StoreError::NoWorkspace);
    }
    let row = sqlx::query("SELECT COUNT(*) AS held FROM resources WHERE kind = $1 AND scope = $2")
        .bind(&new.kind)
        .bind(&new.scope)
        .fetch_one(&mut *step)
        .await?;
    if row.try_get::<i64, _>("held")? >= i64::from(most) {
        return Err(StoreError::Full);
    }
    match insertion(new).execute(&mut *step).await {
        Ok(_) => Ok(()),
        Err(error) if is_taken(&error) => Err(StoreError::NameTaken),
        Err(error) => Err(error.into()),
    }
}

/// Forgets these kinds of a workspace, and both queues.
async fn leave(step: &mut AnyConnection, scope: &str, kinds: &[&str]) -> Result<(), StoreError> {
    for kind in kinds {
        sqlx::query("DELETE FROM resources WHERE kind = $1 AND scope = $2")
            .bind(*kind)
            .bind(scope)
            .execute(&mut *step)
            .await?;
    }
    for statement in ["DELETE FROM happenings WHERE workspace = $1", "DELETE FROM deliveries WHERE workspace = $1"] {
        sqlx::query(statement).bind(scope).execute(&mut *step).await?;
    }
    Ok(())
}

impl Store {
    /// Remembers a resource that is new in its workspace, which has fewer than `most` of its kind. All of it in one step: of many at
    /// once no more come in than there is room for, and none into a workspace that goes in this moment.
    ///
    /// # Errors
    /// [`StoreError::NoWorkspace`], [`StoreError::Full`], [`StoreError::NameTaken`], [`StoreError::IdTaken`].
    pub(crate) async fn insert_within(&self, new: &Resource, most: u32) -> Result<(), StoreError> {
        let _turn = self.turn().await;
        let mut step = self.pool.begin().await?;
        let done = enter(&mut step, new, most).await;
        match Self::end(step, done).await {
            Err(StoreError::NameTaken) if self.get(&new.kind, &new.id).await?.is_some() => Err(StoreError::IdTaken),
            done => done,
        }
    }

    /// One of a kind by its name in its workspace.
    pub(crate) async fn named(&self, kind: &str, scope: &str, name: &str) -> Result<Option<Resource>, StoreError> {
        let found = sqlx::query("SELECT * FROM resources WHERE kind = $1 AND scope = $2 AND name = $3")
            .bind(kind)
            .bind(scope)
            .bind(name)
            .fetch_optional(&self.pool)
            .await?;
        Ok(found.as_ref().map(Resource::read).transpose()?)
    }

    /// All of a kind in a workspace by name, `most` at most.
    pub(crate) async fn all_within(&self, kind: &str, scope: &str, most: u32) -> Result<Vec<Resource>, StoreError> {
        let found = sqlx::query("SELECT * FROM resources WHERE kind = $1 AND scope = $2 ORDER BY name, id LIMIT $3")
            .bind(kind)
            .bind(scope)
            .bind(i64::from(most))
            .fetch_all(&self.pool)
            .await?;
        Ok(found.iter().map(Resource::read).collect::<Result<_, _>>()?)
    }

    /// The workspaces that have any of a kind, by id, behind one of them.
    pub(crate) async fn scopes(&self, kind: &str, after: &str, most: u32) -> Result<Vec<String>, StoreError> {
        let found =
            sqlx::query("SELECT DISTINCT scope FROM resources WHERE kind = $1 AND scope > $2 ORDER BY scope LIMIT $3")
                .bind(kind)
                .bind(after)
                .bind(i64::from(most))
                .fetch_all(&self.pool)
                .await?;
        Ok(found.iter().map(|row| row.try_get("scope")).collect::<Result<_, _>>()?)
    }

    /// Forgets what was set up in a workspace: its resources of these kinds, and what waits to be told about it.
    pub(crate) async fn forget_within(&self, scope: &str, kinds: &[&str]) -> Result<(), StoreError> {
        let _turn = self.turn().await;
        let mut step = self.pool.begin().await?;
        let done = leave(&mut step, scope, kinds).await;
        Self::end(step, done).await
    }
}
