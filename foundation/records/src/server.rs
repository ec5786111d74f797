//! The server behind a database, for who makes it the primary or takes that from it. MariaDB only.

use std::collections::HashMap;

use futures::TryStreamExt as _;
use sqlx::{Column as _, Row as _};
use tokio::time::{Duration, Instant, timeout};

use crate::config::Address;
use crate::connection::Connection;
use crate::error::{RecordsError, sort};
use crate::fence::{self, FenceRow};
use crate::pool::Records;
use crate::rows;
use crate::value::Value;

/// The role in which the user may do this. Sessions that do not take it are kept out by `read_only`, as everybody is.
pub const FAILOVER_ROLE: &str = "hydrant_failover";

/// What the role needs, as MariaDB and the ones before call it.
const PRIVILEGES: [(&str, &[&str]); 4] = [
    ("READ_ONLY ADMIN", &["READ_ONLY ADMIN", "READ ONLY ADMIN"]),
    (
        "REPLICATION SLAVE ADMIN",
        &["REPLICATION SLAVE ADMIN", "REPLICATION REPLICA ADMIN"],
    ),
    ("SLAVE MONITOR", &["SLAVE MONITOR", "REPLICA MONITOR"]),
    ("RELOAD", &["RELOAD"]),
];

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(4);
/// How long one statement may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// A connection to the server, in the role for this where the user has it.
pub struct Server {
    connection: Connection,
}

/// How a server stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// It takes no writes of users.
    pub read_only: bool,
    /// The last GTID of each domain that it has.
    pub position: String,
    /// The server that it follows.
    pub follows: Option<Following>,
    /// The privileges that the user lacks to promote it.
    pub missing: Vec<&'static str>,
}

/// How a server follows another one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Following {
    /// The other one, as `host:port`.
    pub host: String,
    /// It hears what is new.
    pub receives: bool,
    /// It does what it has heard.
    pub applies: bool,
    /// It has done all that it has heard.
    pub is_drained: bool,
    /// How many seconds it is behind, where that is known.
    pub seconds_behind: Option<u64>,
    /// Why it can't go on.
    pub error: String,
    /// The name of the connection, empty for the usual one.
    connection: String,
}

type Named = HashMap<String, Value>;

impl Records {
    /// Connects to the server, as who may promote it.
    ///
    /// # Errors
    ///
    /// If it does not answer, or is a file.
    pub async fn server(&self) -> Result<Server, RecordsError> {
        if matches!(self.address(), Address::Sqlite(_)) {
            let message = "a file of SQLite has no server that could follow another one";
            return Err(RecordsError::broken(message));
        }
        let mut connection = self.connect(Instant::now() + CONNECT).await?;
        // Who does not have the role is told what is missing, by what it may do.
        let _ = connection.command("SET ROLE hydrant_failover").await;
        Ok(Server { connection })
    }
}

impl Server {
    /// How it stands.
    ///
    /// # Errors
    ///
    /// If it does not answer.
    pub async fn standing(&mut self) -> Result<Standing, RecordsError> {
        let missing = self.missing().await?;
        let rows = self
            .named("SELECT @@read_only AS read_only, @@gtid_current_pos AS position")
            .await?;
        let row = rows.first().cloned().unwrap_or_default();
        let follows = match missing.contains(&"SLAVE MONITOR") {
            true => None,
            false => self.following().await?,
        };
        Ok(Standing {
            read_only: number(&row, "read_only") == Some(1),
            position: text(&row, "position"),
            follows,
            missing,
        })
    }

    async fn missing(&mut self) -> Result<Vec<&'static str>, RecordsError> {
        let rows = self.named("SHOW GRANTS").await?;
        let mut grants = String::new();
        for grant in rows.iter().flat_map(HashMap::values) {
            if let Value::Text(text) = grant
                && text.contains(" ON *.* ")
            {
                grants += text;
            }
        }
        let has = |names: &[&str]| names.iter().any(|name| grants.contains(name));
        if grants.contains("ALL PRIVILEGES") {
            return Ok(Vec::new());
        }
        let missing = PRIVILEGES.iter().filter(|(_, names)| !has(names));
        Ok(missing.map(|(name, _)| *name).collect())
    }

    async fn following(&mut self) -> Result<Option<Following>, RecordsError> {
        let rows = self.named("SHOW ALL SLAVES STATUS").await?;
        Ok(rows.first().map(read_following))
    }

    /// Raises the fence in its database, or leaves it where it is farther; returns how it is then.
    ///
    /// # Errors
    ///
    /// If it does not answer, or refuses.
    pub async fn raise_fence(&mut self, row: &FenceRow) -> Result<FenceRow, RecordsError> {
        in_time(fence::raise(&mut self.connection, row)).await
    }

    /// It hears nothing new any more, and does what it has heard.
    ///
    /// # Errors
    ///
    /// If it does not answer, or refuses.
    pub async fn stop_receiving(&mut self, following: &Following) -> Result<(), RecordsError> {
        let stop = format!("STOP SLAVE {} IO_THREAD", quoted(&following.connection)?);
        in_time(self.connection.built_command(stop)).await
    }

    /// It follows nobody any more, and takes writes.
    ///
    /// # Errors
    ///
    /// If it does not answer, or refuses.
    pub async fn promote(&mut self) -> Result<(), RecordsError> {
        while let Some(following) = self.following().await? {
            let name = quoted(&following.connection)?;
            in_time(self.connection.built_command(format!("STOP SLAVE {name}"))).await?;
            let reset = format!("RESET SLAVE {name} ALL");
            in_time(self.connection.built_command(reset)).await?;
        }
        in_time(self.connection.command("SET GLOBAL read_only = 0")).await
    }

    /// It takes no writes any more, but of whom `read_only` does not stop.
    ///
    /// # Errors
    ///
    /// If it does not answer, or refuses.
    pub async fn close_to_writes(&mut self) -> Result<(), RecordsError> {
        in_time(self.connection.command("SET GLOBAL read_only = 1")).await
    }

    async fn named(&mut self, text: &'static str) -> Result<Vec<Named>, RecordsError> {
        let Connection::MariaDb(connection) = &mut self.connection else {
            return Err(RecordsError::broken("this is no server"));
        };
        let asked = async {
            let mut found = sqlx::raw_sql(text).fetch(connection);
            let mut all = Vec::new();
            while let Some(row) = found.try_next().await.map_err(sort)? {
                let names = row.columns().iter().map(|column| column.name().to_owned());
                let names: Vec<_> = names.collect();
                let values = rows::of_mariadb(&row)?;
                all.push(names.into_iter().zip(values.values().to_vec()).collect());
            }
            Ok(all)
        };
        in_time(asked).await
    }
}

async fn in_time<T>(
    work: impl Future<Output = Result<T, RecordsError>>,
) -> Result<T, RecordsError> {
    let done = timeout(PATIENCE, work).await;
    done.unwrap_or_else(|_| Err(RecordsError::late()))
}

fn read_following(row: &Named) -> Following {
    let has = |name| text(row, name) == "Yes";
    let errors = [text(row, "Last_SQL_Error"), text(row, "Last_IO_Error")];
    let heard = (
        text(row, "Master_Log_File"),
        number(row, "Read_Master_Log_Pos"),
    );
    let done = (
        text(row, "Relay_Master_Log_File"),
        number(row, "Exec_Master_Log_Pos"),
    );
    Following {
        host: format!(
            "{}:{}",
            text(row, "Master_Host"),
            number(row, "Master_Port").unwrap_or_default()
        ),
        receives: has("Slave_IO_Running"),
        applies: has("Slave_SQL_Running"),
        is_drained: heard == done,
        seconds_behind: number(row, "Seconds_Behind_Master").and_then(|n| u64::try_from(n).ok()),
        error: errors
            .into_iter()
            .find(|error| !error.is_empty())
            .unwrap_or_default(),
        connection: text(row, "Connection_name"),
    }
}

/// The name of a connection as it stands in a statement.
fn quoted(name: &str) -> Result<String, RecordsError> {
    let is_good = |letter: char| letter.is_ascii_alphanumeric() || "_-. ".contains(letter);
    match name.chars().all(is_good) {
        true => Ok(format!("'{name}'")),
        false => Err(RecordsError::broken(
            "the connection that this server follows has a name that can't be used here",
        )),
    }
}

fn text(row: &Named, name: &str) -> String {
    match row.get(name) {
        Some(Value::Text(text)) => text.clone(),
        Some(Value::Bytes(bytes)) => String::from_utf8_lossy(bytes).into_owned(),
        Some(Value::Integer(number)) => number.to_string(),
        _ => String::new(),
    }
}

fn number(row: &Named, name: &str) -> Option<i64> {
    match row.get(name) {
        Some(Value::Integer(number)) => Some(*number),
        Some(Value::Text(text)) => text.parse().ok(),
        _ => None,
    }
}
