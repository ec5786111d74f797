use std::borrow::Cow;
use std::fs::{DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::stream::BoxStream;
use sqlx::mysql::{MySqlArguments, MySqlConnectOptions, MySqlConnection, MySqlSslMode};
use sqlx::sqlite::{
    SqliteArguments, SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous,
};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection as _, Executor, SqlSafeStr, SqlStr};

use crate::config::{Address, Config, Tls};
use crate::error::{RecordsError, sort};
use crate::rows;
use crate::sql::{Dialect, Sql};
use crate::value::{Row, Value};

/// How long SQLite waits by itself for a lock of another process. Short, because nothing can end
/// this wait: the repeats with their deadline do the rest.
const BUSY: Duration = Duration::from_millis(500);

/// What every connection to MariaDB is told. Serializable, so that a transaction means the same as
/// in SQLite; the server's own limits end what a frozen or lost process has left behind.
const SESSION: &str = "SET SESSION \
    tx_isolation = 'SERIALIZABLE', \
    sql_mode = 'STRICT_ALL_TABLES,NO_ZERO_DATE,NO_ZERO_IN_DATE,NO_ENGINE_SUBSTITUTION,ERROR_FOR_DIVISION_BY_ZERO', \
    foreign_key_checks = 1, \
    autocommit = 1, \
    max_error_count = 65535, \
    innodb_lock_wait_timeout = 3, \
    lock_wait_timeout = 10, \
    max_statement_time = 20, \
    idle_transaction_timeout = 20, \
    wait_timeout = 900";

/// One connection. Dropped, it is closed, and what it had begun is taken back.
pub(crate) enum Connection {
    Sqlite(SqliteConnection),
    MariaDb(MySqlConnection),
}

/// What a transaction is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Read,
    Write,
}

impl Connection {
    /// Connects once; the caller limits the time.
    pub(crate) async fn open(config: &Config) -> Result<Self, RecordsError> {
        match &config.address {
            Address::Sqlite(path) => open_sqlite(path).await.map(Self::Sqlite),
            Address::MariaDb { .. } => open_mariadb(config).await.map(Self::MariaDb),
        }
    }

    pub(crate) fn dialect(&self) -> Dialect {
        match self {
            Self::Sqlite(_) => Dialect::Sqlite,
            Self::MariaDb(_) => Dialect::MariaDb,
        }
    }

    pub(crate) async fn begin(&mut self, purpose: Purpose) -> Result<(), RecordsError> {
        match (&mut *self, purpose) {
            // At once the only writer: a transaction that reads first and writes later could
            // otherwise not go on when somebody else wrote in between.
            (Self::Sqlite(_), Purpose::Write) => self.command("BEGIN IMMEDIATE").await,
            (Self::Sqlite(_), Purpose::Read) => self.command("BEGIN DEFERRED").await,
            (Self::MariaDb(_), Purpose::Write) => self.command("START TRANSACTION").await,
            (Self::MariaDb(_), Purpose::Read) => {
                self.command("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                    .await?;
                self.command("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")
                    .await
            }
        }
    }

    /// Runs a statement that has neither parameters nor rows.
    pub(crate) async fn command(&mut self, text: &'static str) -> Result<(), RecordsError> {
        self.command_text(text.into_sql_str()).await
    }

    /// The same for a text that this crate has put together.
    pub(crate) async fn built_command(&mut self, text: String) -> Result<(), RecordsError> {
        self.command_text(AssertSqlSafe(text).into_sql_str()).await
    }

    async fn command_text(&mut self, text: SqlStr) -> Result<(), RecordsError> {
        let text = sqlx::raw_sql(text);
        match self {
            Self::Sqlite(sqlite) => sqlite.execute(text).await.map(drop),
            Self::MariaDb(mariadb) => mariadb.execute(text).await.map(drop),
        }
        .map_err(sort)
    }

    /// Runs a statement; tells how many rows it has changed.
    pub(crate) async fn execute(
        &mut self,
        sql: &Sql,
        params: &[Value],
    ) -> Result<u64, RecordsError> {
        let text = safe(sql, self.dialect());
        match self {
            Self::Sqlite(sqlite) => {
                let query = sqlx::query_with(text, sqlite_arguments(params)?);
                let done = query.execute(sqlite).await.map_err(sort)?;
                Ok(done.rows_affected())
            }
            Self::MariaDb(mariadb) => {
                let query = sqlx::query_with(text, mariadb_arguments(params)?);
                let done = query.execute(mariadb).await.map_err(sort)?;
                Ok(done.rows_affected())
            }
        }
    }

    /// Asks for rows.
    pub(crate) async fn query(
        &mut self,
        sql: &Sql,
        params: &[Value],
    ) -> Result<Vec<Row>, RecordsError> {
        let text = safe(sql, self.dialect());
        match self {
            Self::Sqlite(sqlite) => {
                let query = sqlx::query_with(text, sqlite_arguments(params)?);
                rows::gather(query.fetch(sqlite), rows::of_sqlite).await
            }
            Self::MariaDb(mariadb) => {
                let query = sqlx::query_with(text, mariadb_arguments(params)?);
                rows::gather(query.fetch(mariadb), rows::of_mariadb).await
            }
        }
    }

    /// All rows of a statement that this crate has put together, one after the other.
    pub(crate) fn rows(&mut self, text: String) -> BoxStream<'_, Result<Row, RecordsError>> {
        let text = AssertSqlSafe(text);
        match self {
            Self::Sqlite(sqlite) => rows::each(sqlx::query(text).fetch(sqlite), rows::of_sqlite),
            Self::MariaDb(mariadb) => {
                rows::each(sqlx::query(text).fetch(mariadb), rows::of_mariadb)
            }
        }
    }

    /// Asks for rows without preparing the statement.
    pub(crate) async fn plain_query(
        &mut self,
        text: &'static str,
    ) -> Result<Vec<Row>, RecordsError> {
        let text = sqlx::raw_sql(text);
        match self {
            Self::Sqlite(sqlite) => rows::gather(text.fetch(sqlite), rows::of_sqlite).await,
            Self::MariaDb(mariadb) => rows::gather(text.fetch(mariadb), rows::of_mariadb).await,
        }
    }

    /// Closes it in order; the caller limits the time.
    pub(crate) async fn close(self) {
        let closed = match self {
            Self::Sqlite(sqlite) => sqlite.close().await,
            Self::MariaDb(mariadb) => mariadb.close().await,
        };
        if let Err(error) = closed {
            let _ = sort(error);
        }
    }
}

/// The text is the program's own: see [`Sql`].
fn safe(sql: &Sql, dialect: Dialect) -> SqlStr {
    match sql.text(dialect) {
        Cow::Borrowed(text) => text.into_sql_str(),
        Cow::Owned(text) => AssertSqlSafe(text.clone()).into_sql_str(),
    }
}

macro_rules! add {
    ($arguments:ident, $param:ident) => {{
        use sqlx::Arguments as _;
        if $param.size() > crate::MAX_VALUE {
            let most = crate::MAX_VALUE >> 20;
            let message = format!("a value has more than {most} MB");
            return Err(RecordsError::broken(message));
        }
        let added = match $param.clone() {
            Value::Null => $arguments.add(None::<i64>),
            Value::Integer(number) => $arguments.add(number),
            Value::Real(number) => $arguments.add(number),
            Value::Text(text) => $arguments.add(text),
            Value::Bytes(bytes) => $arguments.add(bytes),
        };
        added.map_err(|_| RecordsError::broken("a parameter can't be sent"))?;
    }};
}

fn sqlite_arguments(params: &[Value]) -> Result<SqliteArguments, RecordsError> {
    let mut arguments = SqliteArguments::default();
    for param in params {
        add!(arguments, param);
    }
    Ok(arguments)
}

fn mariadb_arguments(params: &[Value]) -> Result<MySqlArguments, RecordsError> {
    let mut arguments = MySqlArguments::default();
    for param in params {
        add!(arguments, param);
    }
    Ok(arguments)
}

async fn open_sqlite(path: &Path) -> Result<SqliteConnection, RecordsError> {
    make_file(path).map_err(|error| {
        let message = format!("the file {} can't be made: {error}", path.display());
        RecordsError::unavailable(message)
    })?;
    SqliteConnectOptions::new()
        .filename(path)
        .busy_timeout(BUSY)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .disable_statement_logging()
        .connect()
        .await
        .map_err(sort)
}

/// Makes an empty file that only its owner reads; SQLite gives its companions the same mode.
fn make_file(path: &Path) -> io::Result<()> {
    if let Some(folder) = path.parent().filter(|folder| !folder.exists()) {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)?;
    }
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(0o600);
    options.open(path).map(drop)
}

async fn open_mariadb(config: &Config) -> Result<MySqlConnection, RecordsError> {
    let options = mariadb_options(config).await?;
    let mut connection = options.connect().await.map_err(sort)?;
    connection
        .execute(sqlx::raw_sql(SESSION))
        .await
        .map_err(sort)?;
    Ok(connection)
}

async fn mariadb_options(config: &Config) -> Result<MySqlConnectOptions, RecordsError> {
    let Address::MariaDb {
        host,
        port,
        user,
        database,
    } = &config.address
    else {
        return Err(RecordsError::broken("this is no server"));
    };
    let mut options = MySqlConnectOptions::new()
        .host(host)
        .port(*port)
        .username(user)
        .database(database)
        .charset("utf8mb4")
        .collation("utf8mb4_nopad_bin")
        .pipes_as_concat(false)
        .no_engine_substitution(false)
        .ssl_mode(MySqlSslMode::Disabled)
        .disable_statement_logging();
    if let Some(file) = &config.password_file {
        options = options.password(&read_password(file.clone()).await?);
    }
    Ok(match &config.tls {
        Some(tls) => encrypted(options, tls),
        None => options,
    })
}

fn encrypted(options: MySqlConnectOptions, tls: &Tls) -> MySqlConnectOptions {
    let options = options
        .ssl_mode(MySqlSslMode::VerifyIdentity)
        .ssl_ca(&tls.ca);
    match &tls.identity {
        Some((certificate, key)) => options.ssl_client_cert(certificate).ssl_client_key(key),
        None => options,
    }
}

/// Read for each connection, so that a password that was changed is taken up without a restart.
async fn read_password(file: PathBuf) -> Result<String, RecordsError> {
    let read = tokio::fs::read_to_string(&file).await;
    read.map(|text| text.trim().to_owned()).map_err(|error| {
        let message = format!(
            "the password file {} can't be read: {error}",
            file.display()
        );
        RecordsError::unavailable(message)
    })
}
