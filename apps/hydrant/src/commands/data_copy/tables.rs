//! The tables of `service/mobile`, from the SQLite of a server that was alone to the database of a
//! fleet.

use std::path::{Path, PathBuf};

use hydrant_records::{Address, Config, Records, TableState, compare_tables, copy_table};

use crate::failure::{Failure, Result, wrong};

/// The tables of both sides, all of them brought up to this program.
pub(super) struct Tables {
    from: Records,
    to: Records,
    /// Tables that nobody has written to: what a new database looks like.
    fresh: Records,
    fresh_file: PathBuf,
}

impl Tables {
    /// Connects to the target; none when there is nothing to copy from.
    pub(super) async fn open(from: Config, to: Config, data: &Path) -> Result<Option<Self>> {
        let Address::Sqlite(file) = &from.address else {
            return Ok(None);
        };
        if !file.is_file() {
            return Ok(None);
        }
        let fresh_file = data.join("copy.db");
        remove(&fresh_file);
        let fresh = Config::new(&Address::Sqlite(fresh_file.clone()).to_string());
        let tables = Self {
            from: Records::open(from),
            to: Records::open(to),
            fresh: Records::open(
                fresh
                    .map_err(hydrant_records::RecordsError::from)
                    .map_err(failure)?,
            ),
            fresh_file,
        };
        for records in [&tables.from, &tables.to, &tables.fresh] {
            hydrant_mobile::make_tables(records)
                .await
                .map_err(failure)?;
        }
        Ok(Some(tables))
    }

    /// How each table is on both sides.
    pub(super) async fn compare(&self) -> Result<Vec<TableState>> {
        let states = compare_tables(&self.from, &self.to, &self.fresh).await;
        states.map_err(failure)
    }

    /// Copies the tables that are not the same.
    pub(super) async fn carry_out(&self, states: &[TableState]) -> Result<()> {
        for state in states.iter().filter(|state| !state.same) {
            copy_table(&self.from, &self.to, &state.name)
                .await
                .map_err(failure)?;
        }
        Ok(())
    }

    pub(super) async fn close(self) {
        for records in [&self.from, &self.to, &self.fresh] {
            records.close().await;
        }
        remove(&self.fresh_file);
    }
}

/// Removes a database with its companions; one that is not there is no failure.
fn remove(file: &Path) {
    for end in ["", "-wal", "-shm"] {
        let mut path = file.as_os_str().to_owned();
        path.push(end);
        let _ = std::fs::remove_file(path);
    }
}

/// Whether the target has something of its own in a table.
pub(super) fn is_different(state: &TableState) -> bool {
    !state.same && !state.new
}

/// How a table is named among keys.
pub(super) fn name(state: &TableState) -> String {
    format!("table {}", state.name)
}

/// The databases that a copy goes between, if it does.
pub(super) fn check(from: &Config, to: Option<Config>) -> Result<Option<Config>> {
    match to {
        Some(to) if matches!(to.address, Address::Sqlite(_)) => Err(wrong(
            "not_shared",
            "the target's [records] names SQLite, which is of one server",
            "write url = \"mysql://user@host:3306/database\" there",
        )),
        Some(_) if !matches!(from.address, Address::Sqlite(_)) => Ok(None),
        to => Ok(to),
    }
}

fn failure(error: hydrant_records::RecordsError) -> Failure {
    hydrant_contracts::Error::from(error)
        .mend("each table is copied as a whole or not at all; run the copy again")
        .into()
}
