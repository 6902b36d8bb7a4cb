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
