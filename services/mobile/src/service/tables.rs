//! Where the documents are kept: the service's own tables, where it has a database.

use std::time::Duration;

use hydrant_records::{Config, Migration, Records, RecordsError, Sql};
use hydrant_sdk::{Code, Error};
use tokio::sync::OnceCell;

/// How long the tables may take to be made, or brought up, before a call gives up.
const PATIENCE: Duration = Duration::from_secs(10);

const MIGRATIONS: &[Migration] = &[Migration {
    version: 1,
    statements: &[
        Sql::both(
            "CREATE TABLE IF NOT EXISTS mobile_head (\
             id BIGINT PRIMARY KEY, revision BIGINT NOT NULL)",
        ),
        Sql::each(
            "INSERT OR IGNORE INTO mobile_head (id, revision) VALUES (1, 0)",
            "INSERT IGNORE INTO mobile_head (id, revision) VALUES (1, 0)",
        ),
        Sql::both(
            "CREATE TABLE IF NOT EXISTS mobile_revisions (\
             number BIGINT PRIMARY KEY, author LONGTEXT NOT NULL, reason LONGTEXT NOT NULL, \
             at_unix_ms BIGINT NOT NULL, reverts_to BIGINT)",
        ),
        Sql::both(
            "CREATE TABLE IF NOT EXISTS mobile_changes (\
             kind VARCHAR(32) NOT NULL, name VARCHAR(100) NOT NULL, revision BIGINT NOT NULL, \
             before_text LONGTEXT, after_text LONGTEXT, PRIMARY KEY (kind, name, revision))",
        ),
        Sql::both(
            "CREATE INDEX IF NOT EXISTS mobile_changes_by_revision ON mobile_changes (revision)",
        ),
        Sql::both(
            "CREATE TABLE IF NOT EXISTS mobile_documents (\
             kind VARCHAR(32) NOT NULL, name VARCHAR(100) NOT NULL, revision BIGINT NOT NULL, \
             body LONGTEXT NOT NULL, PRIMARY KEY (kind, name))",
        ),
    ],
}];

/// Makes the tables of documents, or brings them up.
pub(crate) async fn make_tables(records: &Records) -> Result<(), RecordsError> {
    records.migrate("mobile", MIGRATIONS).await
}

/// The service's tables; a server of a fleet without a common database has none.
pub(crate) struct Tables {
    records: Option<Records>,
    made: OnceCell<()>,
}

impl Tables {
    /// The tables of the database that the environment names. Nothing is connected yet.
    ///
    /// # Errors
    ///
    /// If its URL can't be read.
    pub(crate) fn from_env() -> Result<Self, Error> {
        let config = Config::from_env().map_err(|error| {
            let message = format!("HYDRANT_RECORDS: {error}");
            Error::new(Code::InvalidArgument, "bad_configuration", message)
        })?;
        Ok(Self::of(config.map(Records::open)))
    }

    pub(crate) fn of(records: Option<Records>) -> Self {
        Self {
            records,
            made: OnceCell::new(),
        }
    }

    /// Whether there is a database at all.
    pub(crate) fn are_there(&self) -> bool {
        self.records.is_some()
    }

    /// The database for who can't wait long, whether its tables are made or not.
    ///
    /// # Errors
    ///
    /// If there is none.
    pub(crate) fn within(&self, deadline: Duration) -> Result<Records, Error> {
        let records = self.records.as_ref().ok_or_else(no_tables)?;
        Ok(records.within(deadline))
    }

    /// The database, its tables made. Who owns tables besides those of the documents brings them up
    /// by migrations of its own.
    ///
    /// # Errors
    ///
    /// If there is none, or it does not answer.
    pub(crate) async fn ready(&self) -> Result<&Records, Error> {
        let records = self.records.as_ref().ok_or_else(no_tables)?;
        let make = async { Ok(make_tables(records).await?) };
        let made = tokio::time::timeout(PATIENCE, self.made.get_or_try_init(|| make));
        made.await.unwrap_or_else(|_| Err(away()))?;
        Ok(records)
    }
}

fn no_tables() -> Error {
    let message = "nothing can be changed: this fleet has no database in which changes are kept";
    Error::new(Code::FailedPrecondition, "no_records", message).mend(
        "write into the configuration file of each server:\n\
         [records]\n\
         url = \"mysql://hydrant@db.example.com:3306/hydrant\"\n\
         password_file = \"/etc/hydrant/records.password\"",
    )
}

fn away() -> Error {
    let message = "the database does not answer";
    Error::new(Code::Unavailable, "records_unavailable", message)
        .mend("try again later; apps are answered as before")
}
