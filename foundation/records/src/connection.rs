use std::borrow::Cow;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::stream::BoxStream;
use sqlx::mysql::{MySqlArguments, MySqlConnectOptions, MySqlConnection, MySqlRow, MySqlSslMode};
use sqlx::sqlite::{
    SqliteArguments, SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous,
};
use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection as _, Executor, Row as _, SqlSafeStr, SqlStr,
};
use tokio::time::timeout;

use crate::config::{Address, Config, Tls};
use crate::error::{RecordsError, sort};
use crate::rows;
use crate::servers::Servers;
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

/// What one to a server of a cluster is told as well: others of the same program may be on another
/// server, so whatever is asked waits until this server has what was committed there before.
const CAUSAL: &str = "SET SESSION wsrep_sync_wait = 7";

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
    /// Connects to the first server that is well; each has the time of the configuration for it.
    pub(crate) async fn open(config: &Config, servers: &Servers) -> Result<Self, RecordsError> {
        match &config.address {
            Address::Sqlite(path) => limited(config, open_sqlite(path)).await.map(Self::Sqlite),
            Address::MariaDb { .. } => open_mariadb(config, servers).await.map(Self::MariaDb),
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

    /// Makes a table that stands beside those of migrations.
    pub(crate) async fn make_table(&mut self, create: &'static str) -> Result<(), RecordsError> {
        crate::migration::change(self, &Sql::both(create)).await
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
///
/// A file that is there is never opened here, not even for a moment: with any descriptor of a file that a process
/// closes, it gives up the locks of all its connections to it (POSIX; sqlite.org/howtocorrupt, 2.2). Another process
/// would take its own last connection for the last of all, and remove the log with what is committed to it.
fn make_file(path: &Path) -> io::Result<()> {
    if path.exists() {
        return Ok(());
    }
    let folder = path.parent().unwrap_or(Path::new(""));
    if !folder.as_os_str().is_empty() {
        let mut made = DirBuilder::new();
        made.recursive(true).mode(0o700).create(folder)?;
    }
    let empty = folder.join(format!(".{}.new", fastrand::u64(..)));
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    options.open(&empty).map(drop)?;
    // Its name comes when it is closed, unless somebody else was quicker.
    let named = fs::hard_link(&empty, path);
    fs::remove_file(&empty)?;
    match named {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

async fn limited<T>(
    config: &Config,
    opening: impl Future<Output = Result<T, RecordsError>>,
) -> Result<T, RecordsError> {
    let opened = timeout(config.connect_timeout, opening).await;
    opened.unwrap_or_else(|_| Err(RecordsError::late()))
}

async fn open_mariadb(config: &Config, servers: &Servers) -> Result<MySqlConnection, RecordsError> {
    let mut failure = RecordsError::broken("this is no server");
    for (number, host, port) in servers.in_order() {
        match limited(
            config,
            open_server(config, host, port, servers.is_cluster()),
        )
        .await
        {
            Ok(connection) => return Ok(connection),
            Err(error) => failure = error,
        }
        servers.shun(number);
    }
    Err(failure)
}

async fn open_server(
    config: &Config,
    host: &str,
    port: u16,
    of_cluster: bool,
) -> Result<MySqlConnection, RecordsError> {
    let options = mariadb_options(config).await?.host(host).port(port);
    let mut connection = options.connect().await.map_err(sort)?;
    connection
        .execute(sqlx::raw_sql(SESSION))
        .await
        .map_err(sort)?;
    if of_cluster {
        join_cluster(&mut connection).await?;
    }
    Ok(connection)
}

/// Refuses a server that its cluster has left behind, and has the others wait for what it has not seen yet.
async fn join_cluster(connection: &mut MySqlConnection) -> Result<(), RecordsError> {
    let ready = sqlx::raw_sql("SHOW STATUS LIKE 'wsrep_ready'").fetch_optional(&mut *connection);
    let is_off = |row: MySqlRow| row.try_get::<String, _>(1).is_ok_and(|value| value != "ON");
    if ready.await.map_err(sort)?.is_some_and(is_off) {
        let message = "a server of the database is not in its cluster";
        return Err(RecordsError::unavailable(message));
    }
    connection
        .execute(sqlx::raw_sql(CAUSAL))
        .await
        .map_err(sort)?;
    Ok(())
}

async fn mariadb_options(config: &Config) -> Result<MySqlConnectOptions, RecordsError> {
    let Address::MariaDb { user, database, .. } = &config.address else {
        return Err(RecordsError::broken("this is no server"));
    };
    let mut options = MySqlConnectOptions::new()
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
