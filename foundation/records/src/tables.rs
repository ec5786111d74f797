use std::sync::Arc;

use hydrant_contracts::{Code, Error};
use tokio::sync::OnceCell;
use tokio::time::{Duration, timeout};

use crate::config::Config;
use crate::error::RecordsError;
use crate::migration::Migration;
use crate::pool::Records;
use crate::sql::Dialect;

/// How long tables may take to be made, or brought up, before a call gives up.
const PATIENCE: Duration = Duration::from_secs(10);

/// Which tables a service owns, and what it says when it can't have them.
#[derive(Clone, Copy, Debug)]
pub struct Schema {
    /// The name under which its migrations are counted.
    pub service: &'static str,
    /// What makes the tables, and brings them up.
    pub migrations: &'static [Migration],
    /// What can't be done without a database, as a sentence: "nothing can be changed".
    pub without: &'static str,
    /// What the caller does while the database does not answer.
    pub while_away: &'static str,
}

/// The tables of a service; a server of a fleet without a common database has none. They are made when
/// they are first needed, so that a service starts while its database is away. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Tables(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    schema: &'static Schema,
    records: Option<Records>,
    made: OnceCell<()>,
}

impl Schema {
    /// Makes the tables in a database, or brings them up.
    ///
    /// # Errors
    ///
    /// As [`Records::migrate`].
    pub async fn make(&self, records: &Records) -> Result<(), RecordsError> {
        records.migrate(self.service, self.migrations).await
    }
}

impl Tables {
    /// The tables in the database that the environment names. Nothing is connected yet.
    ///
    /// # Errors
    ///
    /// If its URL can't be read.
    pub fn from_env(schema: &'static Schema) -> Result<Self, Error> {
        let config = Config::from_env().map_err(|error| {
            let message = format!("HYDRANT_RECORDS: {error}");
            Error::new(Code::InvalidArgument, "bad_configuration", message)
        })?;
        Ok(Self::of(schema, config.map(Records::open)))
    }

    /// The tables in `records`, or none.
    pub fn of(schema: &'static Schema, records: Option<Records>) -> Self {
        Self(Arc::new(Inner {
            schema,
            records,
            made: OnceCell::new(),
        }))
    }

    /// Whether there is a database at all.
    pub fn are_there(&self) -> bool {
        self.0.records.is_some()
    }

    /// Which SQL is spoken, where there is a database.
    pub fn dialect(&self) -> Option<Dialect> {
        self.0.records.as_ref().map(Records::dialect)
    }

    /// The database for who can't wait long, whether its tables are made or not.
    ///
    /// # Errors
    ///
    /// If there is none.
    pub fn within(&self, deadline: Duration) -> Result<Records, Error> {
        Ok(self.records()?.within(deadline))
    }

    /// The database, its tables made. Who owns more tables than those of the schema brings them up by
    /// migrations of its own.
    ///
    /// # Errors
    ///
    /// If there is none, or it does not answer.
    pub async fn ready(&self) -> Result<&Records, Error> {
        let records = self.records()?;
        let make = async { Ok(self.0.schema.make(records).await?) };
        let made = timeout(PATIENCE, self.0.made.get_or_try_init(|| make));
        made.await.unwrap_or_else(|_| Err(self.away()))?;
        Ok(records)
    }

    fn records(&self) -> Result<&Records, Error> {
        self.0.records.as_ref().ok_or_else(|| self.missing())
    }

    fn missing(&self) -> Error {
        let message = format!("{}: this fleet has no database", self.0.schema.without);
        Error::new(Code::FailedPrecondition, "no_records", message).mend(
            "write into the configuration file of each server:\n\
             [records]\n\
             url = \"mysql://hydrant@db.example.com:3306/hydrant\"\n\
             password_file = \"/etc/hydrant/records.password\"",
        )
    }

    fn away(&self) -> Error {
        let message = "the database does not answer";
        Error::new(Code::Unavailable, "records_unavailable", message).mend(self.0.schema.while_away)
    }
}
