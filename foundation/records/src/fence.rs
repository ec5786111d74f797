//! Who may write where a service has a database in each of two data centres: one of them is the primary, under an
//! epoch, and that stands in a row of the database itself. A transaction that writes begins by reading the row.

use tokio::time::Instant;

use crate::connection::Connection;
use crate::error::RecordsError;
use crate::pool::Records;
use crate::sql::{Dialect, Sql};
use crate::transaction::Transaction;
use crate::value::Row;
use crate::{params, read};

/// Under what a process writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fence {
    /// It may write until then, as long as the row has this epoch and names this site.
    Open {
        /// The epoch in which the process knows the site to be the primary.
        epoch: u64,
        /// The site.
        site: String,
        /// How long the process may believe that.
        until: Instant,
    },
    /// It may not, for the reason that is told.
    Closed(String),
}

/// What the row says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FenceRow {
    /// The site that is the primary.
    pub site: String,
    /// Since this epoch.
    pub epoch: u64,
    /// Grows within an epoch, so that who waits for it elsewhere knows that all before has come, too.
    pub mark: u64,
}

const TABLE: &str = "CREATE TABLE IF NOT EXISTS hydrant_fence (\
    id BIGINT NOT NULL PRIMARY KEY, epoch BIGINT NOT NULL, site VARCHAR(16) NOT NULL, mark BIGINT NOT NULL)";
const IS_THERE: Sql = Sql::each(
    "SELECT COUNT(*) FROM sqlite_master WHERE name = 'hydrant_fence'",
    "SELECT COUNT(*) FROM information_schema.tables \
     WHERE table_schema = DATABASE() AND table_name = 'hydrant_fence'",
);
const ROW: &str = "SELECT epoch, site, mark FROM hydrant_fence WHERE id = 1";
/// With it, whoever raises the fence waits for this transaction, or ends it; and so nothing is committed behind a fence
/// that was raised.
const SHARED: Sql = Sql::each(
    "SELECT epoch, site, mark FROM hydrant_fence WHERE id = 1",
    "SELECT epoch, site, mark FROM hydrant_fence WHERE id = 1 LOCK IN SHARE MODE",
);

impl Fence {
    /// Until when it is open.
    ///
    /// # Errors
    ///
    /// If it is closed.
    pub(crate) fn until(&self) -> Result<Instant, RecordsError> {
        match self {
            Self::Open { until, .. } if Instant::now() < *until => Ok(*until),
            Self::Open { .. } => Err(RecordsError::fenced(
                "which database is the primary has not been confirmed for too long",
            )),
            Self::Closed(reason) => Err(RecordsError::fenced(reason.clone())),
        }
    }

    /// The first thing that a transaction does.
    pub(crate) async fn check(&self, tx: &mut Transaction) -> Result<(), RecordsError> {
        self.until()?;
        let rows = tx.query(SHARED, &[]).await?;
        let row = rows.first().map(read_row).transpose()?;
        match (self, row) {
            (Self::Open { epoch, site, .. }, Some(row))
                if row.epoch == *epoch && row.site == *site =>
            {
                Ok(())
            }
            (_, Some(row)) => Err(RecordsError::fenced(format!(
                "this database is fenced: since epoch {} the primary is {}",
                row.epoch, row.site
            ))),
            (_, None) => Err(RecordsError::fenced("this database has no fence yet")),
        }
    }
}

impl Records {
    /// The same database, to which this process writes as long as `fence` allows it; reading is free.
    #[must_use]
    pub fn fenced(&self, fence: Fence) -> Self {
        self.with_fence(fence)
    }

    /// What the row of the fence says; `None` where none was ever raised.
    ///
    /// # Errors
    ///
    /// If the database does not answer.
    pub async fn fence(&self) -> Result<Option<FenceRow>, RecordsError> {
        read!(self, |tx| {
            if tx.query(IS_THERE, &[]).await?[0].get::<i64>(0)? == 0 {
                Ok(None)
            } else {
                let rows = tx.query(ROW, &[]).await?;
                rows.first().map(read_row).transpose()
            }
        })
    }
}

fn read_row(row: &Row) -> Result<FenceRow, RecordsError> {
    Ok(FenceRow {
        epoch: row.get::<i64>(0)? as u64,
        site: row.get(1)?,
        mark: row.get::<i64>(2)? as u64,
    })
}

/// Writes the row, unless it is farther already. What is committed after this returns was begun after it.
pub(crate) async fn raise(
    connection: &mut Connection,
    row: &FenceRow,
) -> Result<FenceRow, RecordsError> {
    if connection.query(&IS_THERE, &[]).await?[0].get::<i64>(0)? == 0 {
        connection.make_table(TABLE).await?;
    }
    let (epoch, mark) = (row.epoch as i64, row.mark as i64);
    let insert = "INSERT INTO hydrant_fence (id, epoch, site, mark) VALUES (1, ?, ?, ?)";
    let insert = match connection.dialect() {
        Dialect::Sqlite => Sql::built(Dialect::Sqlite, format!("{insert} ON CONFLICT DO NOTHING")),
        Dialect::MariaDb => Sql::both(
            "INSERT IGNORE INTO hydrant_fence (id, epoch, site, mark) VALUES (1, ?, ?, ?)",
        ),
    };
    connection
        .execute(&insert, &params![epoch, &row.site, mark])
        .await?;
    let update = "UPDATE hydrant_fence SET epoch = ?, site = ?, mark = ? \
                  WHERE id = 1 AND (epoch < ? OR (epoch = ? AND mark < ?))";
    let params = params![epoch, &row.site, mark, epoch, epoch, mark];
    connection.execute(&update.into(), &params).await?;
    let rows = connection.query(&ROW.into(), &[]).await?;
    let row = rows.first().map(read_row).transpose()?;
    row.ok_or_else(|| RecordsError::broken("the row of the fence is not there"))
}
