//! What happened to sandboxes and was not looked at yet, and what has to be told to webhooks: two queues.

use sqlx::{AnyConnection, Row as _, any::AnyRow};

use super::{
    Resource, Store, StoreError,
    resources::{change, insertion, is_taken},
};

/// Something that the control plane has seen happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Happening {
    /// Later ones sort behind earlier ones.
    pub(crate) id: String,
    pub(crate) workspace: String,
    /// What, such as `out_of_memory`.
    pub(crate) kind: String,
    /// To which sandbox.
    pub(crate) sandbox: String,
    /// For people.
    pub(crate) detail: String,
    /// In milliseconds since 1970.
    pub(crate) happen_ms: i64,
}

/// An alert that a webhook has to hear of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Delivery {
    /// The same for all attempts; the receiver sees it.
    pub(crate) id: String,
    pub(crate) workspace: String,
    /// Whose webhook.
    pub(crate) rule_id: String,
    pub(crate) alert_id: String,
    /// What it hears, the same each time.
    pub(crate) body: String,
    /// That have begun.
    pub(crate) attempts: i64,
    /// When the next one is due, in milliseconds since 1970.
    pub(crate) due_ms: i64,
}

/// What came of looking at what happened in a workspace.
#[derive(Debug)]
pub(crate) struct Judged {
    /// How far was looked, with the revision that was read; revision 0: it is new.
    pub(crate) progress: Resource,
    /// Alerts that fired.
    pub(crate) fired: Vec<Resource>,
    /// Alerts that are about more by now.
    pub(crate) grown: Vec<Resource>,
    pub(crate) deliveries: Vec<Delivery>,
    /// Ids of happenings that were looked at.
    pub(crate) seen: Vec<String>,
}

impl Happening {
    fn read(row: &AnyRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            id: row.try_get("id")?,
            workspace: row.try_get("workspace")?,
            kind: row.try_get("kind")?,
            sandbox: row.try_get("sandbox")?,
            detail: row.try_get("detail")?,
            happen_ms: row.try_get("happen_ms")?,
        })
    }
}

impl Delivery {
    fn read(row: &AnyRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            id: row.try_get("id")?,
            workspace: row.try_get("workspace")?,
            rule_id: row.try_get("rule_id")?,
            alert_id: row.try_get("alert_id")?,
            body: row.try_get("body")?,
            attempts: row.try_get("attempts")?,
            due_ms: row.try_get("due_ms")?,
        })
    }
}

async fn write(step: &mut AnyConnection, judged: &Judged) -> Result<(), StoreError> {
    if judged.progress.revision == 0 {
        let first = Resource { revision: 1, ..judged.progress.clone() };
        match insertion(&first).execute(&mut *step).await {
            Err(error) if is_taken(&error) => return Err(StoreError::Changed),
            done => done?,
        };
    }
    let before = (judged.progress.revision > 0).then_some(&judged.progress);
    for changed in before.into_iter().chain(&judged.grown) {
        if change(changed).execute(&mut *step).await?.rows_affected() == 0 {
            return Err(StoreError::Changed);
        }
    }
    for fired in &judged.fired {
        insertion(fired).execute(&mut *step).await?;
    }
    for delivery in &judged.deliveries {
        sqlx::query(
            "INSERT INTO deliveries (id, workspace, rule_id, alert_id, body, attempts, due_ms) \
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(&delivery.id)
        .bind(&delivery.workspace)
        .bind(&delivery.rule_id)
        .bind(&delivery.alert_id)
        .bind(&delivery.body)
        .bind(delivery.attempts)
        .bind(delivery.due_ms)
        .execute(&mut *step)
        .await?;
    }
    for seen in &judged.seen {
        sqlx::query("DELETE FROM happenings WHERE id = $1").bind(seen).execute(&mut *step).await?;
    }
    Ok(())
}

impl Store {
    /// Remembers that something happened, as long as fewer than `most` wait in its workspace.
    ///
    /// # Errors
    /// [`StoreError::Full`].
    pub(crate) async fn happened(&self, new: &Happening, most: u32) -> Result<(), StoreError> {
        let _turn = self.turn().await;
        let done = sqlx::query(
            "INSERT INTO happenings (id, workspace, kind, sandbox, detail, happen_ms) \
             SELECT $1, $2, $3, $4, $5, CAST($6 AS BIGINT) \
             WHERE (SELECT COUNT(*) FROM happenings WHERE workspace = $2) < $7",
        )
        .bind(&new.id)
        .bind(&new.workspace)
        .bind(&new.kind)
        .bind(&new.sandbox)
        .bind(&new.detail)
        .bind(new.happen_ms)
        .bind(i64::from(most))
        .execute(&self.pool)
        .await?;
        if done.rows_affected() == 1 { Ok(()) } else { Err(StoreError::Full) }
    }

    /// What happened in a workspace and was not looked at, the first ones.
    pub(crate) async fn happenings(&self, workspace: &str, most: u32) -> Result<Vec<Happening>, StoreError> {
        let found = sqlx::query("SELECT * FROM happenings WHERE workspace = $1 ORDER BY id LIMIT $2")
            .bind(workspace)
            .bind(i64::from(most))
            .fetch_all(&self.pool)
            .await?;
        Ok(found.iter().map(Happening::read).collect::<Result<_, _>>()?)
    }

    /// Remembers all that came of a look, or nothing.
    ///
    /// # Errors
    /// [`StoreError::Changed`] where somebody else has looked further, or has changed one of the alerts.
    pub(crate) async fn judge(&self, judged: &Judged) -> Result<(), StoreError> {
        let _turn = self.turn().await;
        let mut step = self.pool.begin().await?;
        let done = write(&mut step, judged).await;
        Self::end(step, done).await
    }

    /// How many deliveries wait in a workspace.
    pub(crate) async fn waiting_deliveries(&self, workspace: &str) -> Result<u64, StoreError> {
        let row = sqlx::query("SELECT COUNT(*) AS held FROM deliveries WHERE workspace = $1")
            .bind(workspace)
            .fetch_one(&self.pool)
            .await?;
        Ok(u64::try_from(row.try_get::<i64, _>("held")?).unwrap_or(0))
    }

    /// Takes deliveries that are due: an attempt of each begins, and the next one is due at `next_ms` should nobody say more.
    pub(crate) async fn take_deliveries(
        &self,
        (now_ms, next_ms): (i64, i64),
        most: u32,
    ) -> Result<Vec<Delivery>, StoreError> {
        let _turn = self.turn().await;
        let due = sqlx::query("SELECT * FROM deliveries WHERE due_ms <= $1 ORDER BY due_ms, id LIMIT $2")
            .bind(now_ms)
            .bind(i64::from(most))
            .fetch_all(&self.pool)
            .await?;
        let mut taken = Vec::new();
        for row in &due {
            let found = Delivery::read(row)?;
            let claimed = sqlx::query(
                "UPDATE deliveries SET attempts = attempts + 1, due_ms = $1 WHERE id = $2 AND attempts = $3 AND due_ms = $4",
            )
            .bind(next_ms)
            .bind(&found.id)
            .bind(found.attempts)
            .bind(found.due_ms)
            .execute(&self.pool)
            .await?;
            // Somebody else may have it.
            if claimed.rows_affected() == 1 {
                taken.push(Delivery { attempts: found.attempts + 1, due_ms: next_ms, ..found });
            }
        }
        Ok(taken)
    }

    /// Says when the next attempt of a delivery is due.
    pub(crate) async fn put_off(&self, delivery: &Delivery, due_ms: i64) -> Result<(), StoreError> {
        let _turn = self.turn().await;
        sqlx::query("UPDATE deliveries SET due_ms = $1 WHERE id = $2 AND attempts = $3")
            .bind(due_ms)
            .bind(&delivery.id)
            .bind(delivery.attempts)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Forgets a delivery that has come to its end.
    pub(crate) async fn forget_delivery(&self, id: &str) -> Result<(), StoreError> {
        let _turn = self.turn().await;
        sqlx::query("DELETE FROM deliveries WHERE id = $1").bind(id).execute(&self.pool).await?;
        Ok(())
    }

    /// Forgets the oldest of a kind in a workspace but for so many; returns how many.
    pub(crate) async fn forget_oldest(&self, (kind, scope): (&str, &str), keep: u32) -> Result<u64, StoreError> {
        let _turn = self.turn().await;
        let gone = sqlx::query(
            "DELETE FROM resources WHERE kind = $1 AND scope = $2 AND id NOT IN \
             (SELECT id FROM resources WHERE kind = $1 AND scope = $2 ORDER BY create_ms DESC, id DESC LIMIT $3)",
        )
        .bind(kind)
        .bind(scope)
        .bind(i64::from(keep))
        .execute(&self.pool)
        .await?;
        Ok(gone.rows_affected())
    }
}
