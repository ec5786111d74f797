use tokio::time::{Instant, timeout_at};

use crate::connection::Purpose;
use crate::error::{Kind, RecordsError};
use crate::pool::{Borrowed, Records};
use crate::sql::{Dialect, Sql};
use crate::value::{Row, Value};

/// Work that happens as a whole or not at all.
pub struct Transaction {
    borrowed: Borrowed,
    purpose: Purpose,
    /// After it, whatever the work says, the transaction can't be committed.
    failed: Option<RecordsError>,
}

impl Transaction {
    pub(crate) async fn begin(
        records: &Records,
        purpose: Purpose,
        deadline: Instant,
    ) -> Result<Self, RecordsError> {
        let mut borrowed = records.borrow(deadline).await?;
        // A connection that was well may end at a server that is frozen now: another one is asked.
        let patience = match records.is_cluster() && borrowed.is_used() {
            true => deadline.min(Instant::now() + records.config().connect_timeout),
            false => deadline,
        };
        let begun = timeout_at(patience, borrowed.connection().begin(purpose)).await;
        if let Err(error) = begun.unwrap_or_else(|_| Err(RecordsError::late())) {
            if borrowed.is_used() && error.kind() == Kind::Unavailable {
                records.forget_idle();
            }
            return Err(error);
        }
        Ok(Self {
            borrowed,
            purpose,
            failed: None,
        })
    }

    /// Which SQL is spoken here.
    pub fn dialect(&self) -> Dialect {
        self.borrowed.connection_ref().dialect()
    }

    /// Runs a statement; tells how many rows it changed, counting those that it found as they
    /// should be.
    ///
    /// # Errors
    ///
    /// A [`Constraint`](Kind::Constraint) leaves the transaction as it was before the statement;
    /// after any other failure it can't be committed.
    pub async fn execute(
        &mut self,
        sql: impl Into<Sql>,
        params: &[Value],
    ) -> Result<u64, RecordsError> {
        if self.purpose == Purpose::Read {
            let message = "a statement that changes something in a transaction that only reads";
            return Err(self.note(RecordsError::broken(message)));
        }
        let done = self
            .borrowed
            .connection()
            .execute(&sql.into(), params)
            .await;
        done.map_err(|error| self.note(error))
    }

    /// Asks for rows.
    ///
    /// # Errors
    ///
    /// As [`execute`](Self::execute); also when there are more than [`MAX_ROWS`](crate::MAX_ROWS)
    /// rows or [`MAX_ANSWER`](crate::MAX_ANSWER) bytes: ask for pages.
    pub async fn query(
        &mut self,
        sql: impl Into<Sql>,
        params: &[Value],
    ) -> Result<Vec<Row>, RecordsError> {
        let found = self.borrowed.connection().query(&sql.into(), params).await;
        found.map_err(|error| self.note(error))
    }

    /// Asks for rows without preparing the statement, which would take the last one's warnings away.
    pub(crate) async fn plain_query(
        &mut self,
        text: &'static str,
    ) -> Result<Vec<Row>, RecordsError> {
        let found = self.borrowed.connection().plain_query(text).await;
        found.map_err(|error| self.note(error))
    }

    /// Asks for rows that this transaction is going to change, and keeps others from changing
    /// them: with it they wait in line where otherwise both would read, and one be run again.
    ///
    /// # Errors
    ///
    /// As [`query`](Self::query).
    pub async fn lock(
        &mut self,
        select: &'static str,
        params: &[Value],
    ) -> Result<Vec<Row>, RecordsError> {
        let dialect = self.dialect();
        let sql = match (dialect, self.purpose) {
            (Dialect::MariaDb, Purpose::Write) => {
                Sql::built(dialect, format!("{select} FOR UPDATE"))
            }
            // In SQLite whoever writes is alone.
            _ => select.into(),
        };
        self.query(sql, params).await
    }

    /// Remembers a failure that ends the transaction.
    fn note(&mut self, error: RecordsError) -> RecordsError {
        if !matches!(error.kind(), Kind::Constraint(_)) && self.failed.is_none() {
            self.failed = Some(error.clone());
        }
        error
    }

    /// Ends the transaction for a reason that the database itself does not see.
    pub(crate) fn give_up(&mut self, error: RecordsError) -> RecordsError {
        self.failed.get_or_insert_with(|| error.clone());
        error
    }

    /// What ended it, if something did.
    pub(crate) fn failure(&self) -> Option<&RecordsError> {
        self.failed.as_ref()
    }

    pub(crate) async fn commit(
        mut self,
        records: &Records,
        deadline: Instant,
    ) -> Result<(), RecordsError> {
        let commit = self.borrowed.connection().command("COMMIT");
        match timeout_at(deadline, commit).await {
            Ok(Ok(())) => {
                self.borrowed.give_back(records);
                Ok(())
            }
            // A conflict is an answer: nothing has happened.
            Ok(Err(error)) if error.kind() != Kind::Unavailable => Err(error),
            _ if self.purpose == Purpose::Read => Err(RecordsError::late()),
            _ => Err(RecordsError::uncertain()),
        }
    }

    /// Takes everything back. A connection that does not answer to that is closed.
    pub(crate) async fn roll_back(mut self, records: &Records, deadline: Instant) {
        if self
            .failed
            .as_ref()
            .is_some_and(|e| e.kind() == Kind::Unavailable)
        {
            return;
        }
        let rollback = self.borrowed.connection().command("ROLLBACK");
        if let Ok(Ok(())) = timeout_at(deadline, rollback).await {
            self.borrowed.give_back(records);
        }
    }
}
