//! What requests with an idempotency key were answered.

use sqlx::Row as _;

use super::{Store, StoreError, resources::is_taken};

/// What was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    /// Of HTTP.
    pub(crate) status: u16,
    /// Where what was made can be found; empty: nothing was made.
    pub(crate) location: String,
    pub(crate) body: String,
}

/// What is known of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Known {
    /// It is new, and reserved now.
    Reserved,
    /// Another request with it is under way.
    UnderWay,
    /// A request that was another one has had it.
    OfAnother,
    /// The same request was answered.
    Answered(Answer),
}

impl Store {
    /// Reserves a key of a caller for a request, whose fingerprint tells it from others, unless there is one that has it.
    pub(crate) async fn reserve_answer(
        &self,
        (caller, key, fingerprint): (&str, &str, &str),
        (now_ms, expire_ms): (i64, i64),
    ) -> Result<Known, StoreError> {
        let _turn = self.turn().await;
        sqlx::query("DELETE FROM answers WHERE caller = $1 AND idempotency_key = $2 AND expire_ms <= $3")
            .bind(caller)
            .bind(key)
            .bind(now_ms)
            .execute(&self.pool)
            .await?;
        let reserved = sqlx::query(
            "INSERT INTO answers (caller, idempotency_key, fingerprint, status, location, body, expire_ms) \
             VALUES ($1, $2, $3, 0, '', '', $4)",
        )
        .bind(caller)
        .bind(key)
        .bind(fingerprint)
        .bind(expire_ms)
        .execute(&self.pool)
        .await;
        match reserved {
            Ok(_) => return Ok(Known::Reserved),
            Err(error) if is_taken(&error) => {}
            Err(error) => return Err(error.into()),
        }
        let found = sqlx::query("SELECT * FROM answers WHERE caller = $1 AND idempotency_key = $2")
            .bind(caller)
            .bind(key)
            .fetch_optional(&self.pool)
            .await?;
        // Whoever had it has given it up in this moment.
        let Some(row) = found else { return Ok(Known::UnderWay) };
        let status: i64 = row.try_get("status")?;
        Ok(match row.try_get::<String, _>("fingerprint")? {
            other if other != fingerprint => Known::OfAnother,
            _ if status == 0 => Known::UnderWay,
            _ => Known::Answered(Answer {
                status: u16::try_from(status).map_err(|_| StoreError::Damaged(format!("an answer {status}")))?,
                location: row.try_get("location")?,
                body: row.try_get("body")?,
            }),
        })
    }

    /// Remembers the answer of a request that has reserved its key.
    pub(crate) async fn keep_answer(
        &self,
        (caller, key): (&str, &str),
        answer: &Answer,
        expire_ms: i64,
    ) -> Result<(), StoreError> {
        let _turn = self.turn().await;
        sqlx::query(
            "UPDATE answers SET status = $1, location = $2, body = $3, expire_ms = $4 \
             WHERE caller = $5 AND idempotency_key = $6",
        )
        .bind(i64::from(answer.status))
        .bind(&answer.location)
        .bind(&answer.body)
        .bind(expire_ms)
        .bind(caller)
        .bind(key)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Gives a key up: its request came to nothing, and may be tried again.
    pub(crate) async fn forget_answer(&self, (caller, key): (&str, &str)) -> Result<(), StoreError> {
        let _turn = self.turn().await;
        sqlx::query("DELETE FROM answers WHERE caller = $1 AND idempotency_key = $2 AND status = 0")
            .bind(caller)
            .bind(key)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Forgets answers whose time is over.
    pub(crate) async fn forget_old_answers(&self, now_ms: i64) -> Result<u64, StoreError> {
        let _turn = self.turn().await;
        let gone = sqlx::query("DELETE FROM answers WHERE expire_ms <= $1").bind(now_ms).execute(&self.pool).await?;
        Ok(gone.rows_affected())
    }
}
