//! Who does what only one may do at a time: control planes on one database take turns.

use super::{Store, StoreError, resources::is_taken};

impl Store {
    /// Takes a lease, or keeps it, until a time; false: somebody else has it.
    pub(crate) async fn lease(
        &self,
        (name, holder): (&str, &str),
        (now_ms, expire_ms): (i64, i64),
    ) -> Result<bool, StoreError> {
        let _turn = self.turn().await;
        let kept = sqlx::query(
            "UPDATE leases SET holder = $1, expire_ms = $2 WHERE name = $3 AND (holder = $1 OR expire_ms <= $4)",
        )
        .bind(holder)
        .bind(expire_ms)
        .bind(name)
        .bind(now_ms)
        .execute(&self.pool)
        .await?;
        if kept.rows_affected() == 1 {
            return Ok(true);
        }
        let taken = sqlx::query("INSERT INTO leases (name, holder, expire_ms) VALUES ($1, $2, $3)")
            .bind(name)
            .bind(holder)
            .bind(expire_ms)
            .execute(&self.pool)
            .await;
        match taken {
            Ok(_) => Ok(true),
            Err(error) if is_taken(&error) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether somebody has a lease.
    pub(crate) async fn is_leased(&self, name: &str, now_ms: i64) -> Result<bool, StoreError> {
        let found = sqlx::query("SELECT 1 FROM leases WHERE name = $1 AND expire_ms > $2")
            .bind(name)
            .bind(now_ms)
            .fetch_optional(&self.pool)
            .await?;
        Ok(found.is_some())
    }

    /// Forgets leases that ended long ago: of those whose holders have names of their own.
    pub(crate) async fn forget_leases(&self, ended_before_ms: i64) -> Result<(), StoreError> {
        let _turn = self.turn().await;
        sqlx::query("DELETE FROM leases WHERE expire_ms < $1").bind(ended_before_ms).execute(&self.pool).await?;
        Ok(())
    }

    /// Gives a lease back, so that nobody has to wait for its end.
    pub(crate) async fn give_back(&self, (name, holder): (&str, &str)) -> Result<(), StoreError> {
        let _turn = self.turn().await;
        sqlx::query("DELETE FROM leases WHERE name = $1 AND holder = $2")
            .bind(name)
            .bind(holder)
            .execute(&self.pool)
            .await?;
        Ok(())
    }
}
