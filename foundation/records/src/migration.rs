use hydrant_runtime::{Backoff, Clock};
use tokio::time::{Duration, Instant, sleep, timeout_at};

use crate::connection::{Connection, Purpose};
use crate::error::RecordsError;
use crate::params;
use crate::pool::Records;
use crate::sql::{Dialect, Sql};

/// What a new version of a service does to its tables.
#[derive(Clone, Copy, Debug)]
pub struct Migration {
    /// Its number: 1 for the first, and each one more.
    pub version: u32,
    /// What is done, in order. MariaDB can't take back changes of tables, so a statement has to
    /// bear being run again after a crash in the middle: `CREATE TABLE IF NOT EXISTS`.
    pub statements: &'static [Sql],
}

/// How long the migrations of a service may take, with the wait for another process that does them.
const PATIENCE: Duration = Duration::from_secs(120);

/// Which migrations were done.
const TABLE: &str = "CREATE TABLE IF NOT EXISTS hydrant_migrations (\
    service VARCHAR(100) NOT NULL, version BIGINT NOT NULL, done_ms BIGINT NOT NULL, \
    PRIMARY KEY (service, version))";
const NEWEST: Sql = Sql::both("SELECT MAX(version) FROM hydrant_migrations WHERE service = ?");
const DONE: Sql =
    Sql::both("INSERT INTO hydrant_migrations (service, version, done_ms) VALUES (?, ?, ?)");

/// What tables of MariaDB are: texts compare by their bytes, as in SQLite.
const TABLE_OPTIONS: &str =
    " ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_nopad_bin";

impl Records {
    /// Brings the tables of `service` to the newest of `migrations`. Of several processes that do
    /// this at the same time one does it, and the others wait; each migration is done once.
    ///
    /// # Errors
    ///
    /// [`Broken`](crate::Kind::Broken), if the tables are of a newer version than the program
    /// knows, or a statement is refused; else if the database does not answer.
    pub async fn migrate(
        &self,
        service: &str,
        migrations: &[Migration],
    ) -> Result<(), RecordsError> {
        check_numbers(migrations)?;
        let deadline = Instant::now() + PATIENCE;
        let mut waits = Backoff::new(Duration::from_millis(20), Duration::from_secs(1));
        loop {
            let error = match self.try_migrate(service, migrations, deadline).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            let wait = waits.next_wait();
            if !error.is_passing() || Instant::now() + wait >= deadline {
                return Err(error);
            }
            sleep(wait).await;
        }
    }

    async fn try_migrate(
        &self,
        service: &str,
        migrations: &[Migration],
        deadline: Instant,
    ) -> Result<(), RecordsError> {
        let _turn = self.turn(deadline).await?;
        let mut borrowed = self.borrow(deadline).await?;
        let work = locked(borrowed.connection(), service, migrations);
        // The connection is closed in any case: with it goes the lock.
        let done = timeout_at(deadline, work).await;
        done.unwrap_or_else(|_| Err(RecordsError::late()))
    }
}

fn check_numbers(migrations: &[Migration]) -> Result<(), RecordsError> {
    let numbers = migrations.iter().map(|migration| migration.version);
    if numbers.eq(1..=migrations.len() as u32) {
        return Ok(());
    }
    let message = "the migrations of a service have the numbers 1, 2, 3 and so on";
    Err(RecordsError::broken(message))
}

/// Takes the lock, and does what is missing.
async fn locked(
    connection: &mut Connection,
    service: &str,
    migrations: &[Migration],
) -> Result<(), RecordsError> {
    match connection.dialect() {
        Dialect::Sqlite => {
            connection.begin(Purpose::Write).await?;
            bring_up(connection, service, migrations).await?;
            connection.command("COMMIT").await
        }
        Dialect::MariaDb => {
            connection
                .command("SET SESSION max_statement_time = 0")
                .await?;
            take_lock(connection, service).await?;
            bring_up(connection, service, migrations).await?;
            // The lock ends with the connection, but that may take the server a moment.
            let release = Sql::both(
                "SELECT RELEASE_LOCK(CONCAT('hydrant ', MD5(CONCAT(DATABASE(), '/', ?))))",
            );
            connection
                .query(&release, &params![service])
                .await
                .map(drop)
        }
    }
}

async fn take_lock(connection: &mut Connection, service: &str) -> Result<(), RecordsError> {
    // Locks are of the whole server, and their names have 64 characters at most.
    let lock =
        Sql::both("SELECT GET_LOCK(CONCAT('hydrant ', MD5(CONCAT(DATABASE(), '/', ?))), 10)");
    let rows = connection.query(&lock, &params![service]).await?;
    let got = rows
        .first()
        .map(|row| row.get::<Option<i64>>(0))
        .transpose()?;
    if got.flatten() == Some(1) {
        return Ok(());
    }
    let message = "another process has been changing the tables for long";
    Err(RecordsError::unavailable(message))
}

async fn bring_up(
    connection: &mut Connection,
    service: &str,
    migrations: &[Migration],
) -> Result<(), RecordsError> {
    change(connection, &Sql::both(TABLE)).await?;
    let rows = connection.query(&NEWEST, &params![service]).await?;
    let newest = rows
        .first()
        .map(|row| row.get::<Option<i64>>(0))
        .transpose()?;
    let newest = newest.flatten().unwrap_or(0);
    let known = migrations.len() as i64;
    if newest > known {
        return Err(RecordsError::broken(format!(
            "the tables of {} have version {newest}, and this program knows {known}: \
             start the version of the program that made them, or a newer one",
            service.escape_debug()
        )));
    }
    for migration in &migrations[newest as usize..] {
        for statement in migration.statements {
            change(connection, statement).await?;
        }
        let done_ms = Clock::system().unix_ms();
        let done = params![service, migration.version, done_ms];
        connection.execute(&DONE, &done).await?;
    }
    Ok(())
}

/// Runs a statement of a migration.
pub(crate) async fn change(
    connection: &mut Connection,
    statement: &Sql,
) -> Result<(), RecordsError> {
    let dialect = connection.dialect();
    let mut text = statement.text(dialect).trim().to_owned();
    if dialect == Dialect::MariaDb && text.to_ascii_uppercase().starts_with("CREATE TABLE") {
        text.push_str(TABLE_OPTIONS);
    }
    if text.is_empty() {
        return Ok(());
    }
    connection.built_command(text).await
}
