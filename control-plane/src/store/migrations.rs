//! The tables, from the first version of them to this one. What was released is never changed: a later file changes it.

use sqlx::{
    AnyPool, AssertSqlSafe, SqlSafeStr as _,
    migrate::{Migration, MigrationType, Migrator},
};

use super::{Dialect, StoreError};

const ALL: [(&str, &str); 4] = [
    ("resources", include_str!("../../migrations/0001_resources.sql")),
    ("answers", include_str!("../../migrations/0002_answers.sql")),
    ("leases", include_str!("../../migrations/0003_leases.sql")),
    ("alerts", include_str!("../../migrations/0004_alerts.sql")),
];

/// How often it is tried: SQLite has no lock for it, and two processes may begin at once.
const ATTEMPTS: u32 = 5;

/// Brings a database up to date.
pub(super) async fn run(pool: &AnyPool, dialect: Dialect) -> Result<(), StoreError> {
    // Texts are compared byte by byte, on every machine alike.
    let text = match dialect {
        Dialect::Sqlite => "TEXT",
        Dialect::Postgres => "TEXT COLLATE \"C\"",
    };
    let migrations = ALL.iter().zip(1..).map(|((name, sql), version)| {
        let sql = AssertSqlSafe(sql.replace("{text}", text)).into_sql_str();
        Migration::new(version, (*name).into(), MigrationType::Simple, sql, false)
    });
    let migrator = Migrator::with_migrations(migrations.collect());
    let mut attempt = 1;
    loop {
        match migrator.run(pool).await {
            Ok(()) => return Ok(()),
            Err(error) if attempt == ATTEMPTS => {
                return Err(StoreError::Unavailable(format!("its tables cannot be brought up to date: {error}")));
            }
            Err(_) => attempt += 1,
        }
    }
}
