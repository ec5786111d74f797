//! What a database takes when nothing stands before it: the rows of a submission, inserted again and again in a
//! transaction each, by as many at once as are wished. The benchmark of submissions puts the service beside it.
//!
//!     bare_inserts URL CONCURRENT SECONDS [PASSWORD_FILE]
//!
//! The tables are those that the service made. SQLite has one writer at a time, so there all share a
//! connection: a line in one process is quicker than the lock of the file. MariaDB gets a connection for each.

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hydrant_runtime::Clock;
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Connection as _};
use tokio::sync::Mutex;
use tokio::task::JoinSet;

type Failed = Box<dyn Error + Send + Sync>;

const FORM: &str = "demo";
const FIELDS: &str = r#"{"name":"Ada"}"#;
const HASH: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const SUBMISSION: &str = "INSERT INTO submissions (id, nonce, form, state, version, fingerprint, fields, store, \
    person, session, accepted_ms, hops, hop_hash) VALUES (?, ?, ?, 'open', 1, ?, ?, '4711', '', '', ?, 1, ?)";
const HOP: &str = "INSERT INTO submission_hops (submission, number, kind, at_ms, record, hash) \
    VALUES (?, 0, 'accepted', ?, ?, ?)";
const EVENT: &str = "INSERT INTO audit_events (at_ms, kind, outcome, submission, form, store, person, session, \
    detail) VALUES (?, 'accepted', 'ok', ?, ?, '4711', '', '', '{}')";

/// One transaction; the connections of the two databases have no common type that would take it.
macro_rules! insert {
    ($connection:expr, $begin:literal) => {{
        let (id, now) = (new_id(), Clock::system().unix_ms());
        let record =
            format!(r#"{{"form":"{FORM}","id":"{id}","store":"4711","fieldsSha256":"{HASH}"}}"#);
        let connection = $connection;
        sqlx::query($begin).execute(&mut *connection).await?;
        sqlx::query(SUBMISSION)
            .bind(&id)
            .bind(new_id())
            .bind(FORM)
            .bind(HASH)
            .bind(FIELDS)
            .bind(now)
            .bind(HASH)
            .execute(&mut *connection)
            .await?;
        sqlx::query(HOP)
            .bind(&id)
            .bind(now)
            .bind(record)
            .bind(HASH)
            .execute(&mut *connection)
            .await?;
        sqlx::query(EVENT)
            .bind(now)
            .bind(&id)
            .bind(FORM)
            .execute(&mut *connection)
            .await?;
        sqlx::query("COMMIT").execute(&mut *connection).await?;
    }};
}

#[tokio::main]
async fn main() -> Result<(), Failed> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (url, concurrent, seconds, password) = match arguments.as_slice() {
        [url, concurrent, seconds] => (url, concurrent, seconds, None),
        [url, concurrent, seconds, password] => (url, concurrent, seconds, Some(password)),
        _ => return Err("bare_inserts URL CONCURRENT SECONDS [PASSWORD_FILE]".into()),
    };
    let concurrent: usize = concurrent.parse()?;
    let lasting = Duration::from_secs(seconds.parse()?);
    let taken = match url.strip_prefix("sqlite:") {
        Some(path) => in_sqlite(path, concurrent, lasting).await?,
        None => in_mariadb(url, password, concurrent, lasting).await?,
    };
    tell(taken, lasting);
    Ok(())
}

async fn in_sqlite(
    path: &str,
    concurrent: usize,
    lasting: Duration,
) -> Result<Vec<Duration>, Failed> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(Duration::from_secs(10))
        .disable_statement_logging();
    let connection = Arc::new(Mutex::new(options.connect().await?));
    let mut tasks = JoinSet::new();
    let end = Instant::now() + lasting;
    for _ in 0..concurrent {
        let connection = Arc::clone(&connection);
        tasks.spawn(async move {
            let mut taken = Vec::new();
            while Instant::now() < end {
                let begun = Instant::now();
                let mut connection = connection.lock().await;
                insert_in_sqlite(&mut connection).await?;
                drop(connection);
                taken.push(begun.elapsed());
            }
            Ok::<_, Failed>(taken)
        });
    }
    gathered(tasks).await
}

async fn insert_in_sqlite(connection: &mut SqliteConnection) -> Result<(), Failed> {
    insert!(connection, "BEGIN IMMEDIATE");
    Ok(())
}

async fn in_mariadb(
    url: &str,
    password: Option<&String>,
    concurrent: usize,
    lasting: Duration,
) -> Result<Vec<Duration>, Failed> {
    let mut options: MySqlConnectOptions = url.parse()?;
    if let Some(path) = password {
        options = options.password(std::fs::read_to_string(path)?.trim_end());
    }
    let options = options.disable_statement_logging();
    let mut connections = Vec::new();
    for _ in 0..concurrent {
        connections.push(MySqlConnection::connect_with(&options).await?);
    }
    let mut tasks = JoinSet::new();
    let end = Instant::now() + lasting;
    for mut connection in connections {
        tasks.spawn(async move {
            let mut taken = Vec::new();
            while Instant::now() < end {
                let begun = Instant::now();
                insert_in_mariadb(&mut connection).await?;
                taken.push(begun.elapsed());
            }
            Ok::<_, Failed>(taken)
        });
    }
    gathered(tasks).await
}

async fn insert_in_mariadb(connection: &mut MySqlConnection) -> Result<(), Failed> {
    insert!(connection, "START TRANSACTION");
    Ok(())
}

async fn gathered(
    mut tasks: JoinSet<Result<Vec<Duration>, Failed>>,
) -> Result<Vec<Duration>, Failed> {
    let mut all = Vec::new();
    while let Some(ended) = tasks.join_next().await {
        all.extend(ended??);
    }
    Ok(all)
}

/// As the load generator tells it, so that one reader does for both.
fn tell(mut taken: Vec<Duration>, lasting: Duration) {
    taken.sort_unstable();
    let at = |percent: usize| taken.get(taken.len() * percent / 100);
    for percent in [50, 99] {
        let took = at(percent).map_or(0.0, Duration::as_secs_f64) * 1000.0;
        println!("     {percent}%  {took:.2}ms");
    }
    println!(
        "  {} requests in {:.2}s",
        taken.len(),
        lasting.as_secs_f64()
    );
}

/// A random UUID; its digits come from a generator that is quick and not secret.
fn new_id() -> String {
    let bits = fastrand::u128(..);
    let (a, b) = ((bits >> 96) as u32, (bits >> 80) as u16);
    let (c, d) = (
        ((bits >> 64) as u16) & 0x0fff,
        ((bits >> 48) as u16) & 0x3fff,
    );
    format!(
        "{a:08x}-{b:04x}-4{c:03x}-{:04x}-{:012x}",
        d | 0x8000,
        bits as u64 & 0xffff_ffff_ffff
    )
}
