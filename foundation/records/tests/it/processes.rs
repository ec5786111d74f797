//! Several processes on one file of SQLite, and processes that are killed while they commit. They are
//! this test binary itself, run for one test alone.

use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use hydrant_records::{
    Config, Migration, Records, RecordsError, Sql, Transaction, params, read, transaction,
};

const TABLES: &[Migration] = &[Migration {
    version: 1,
    statements: &[
        Sql::both("CREATE TABLE IF NOT EXISTS total (id BIGINT NOT NULL PRIMARY KEY, n BIGINT)"),
        Sql::both(
            "CREATE TABLE IF NOT EXISTS line (n BIGINT NOT NULL PRIMARY KEY, words LONGTEXT)",
        ),
        Sql::both("INSERT INTO total (id, n) VALUES (1, 0)"),
    ],
}];

/// Names the file to the writer, and says how many transactions it makes.
const FILE: &str = "HYDRANT_TEST_RECORDS_FILE";
const ROUNDS: &str = "HYDRANT_TEST_RECORDS_ROUNDS";

async fn open(path: &Path) -> Records {
    let mut config = Config::new(&format!("sqlite:{}", path.display())).unwrap();
    config.deadline = Duration::from_secs(60);
    let records = Records::open(config);
    records.migrate("killed", TABLES).await.unwrap();
    records
}

/// One more, in two tables that have to agree.
async fn add(tx: &mut Transaction) -> Result<i64, RecordsError> {
    let n = tx.query("SELECT n FROM total WHERE id = 1", &[]).await?[0].get::<i64>(0)? + 1;
    tx.execute("UPDATE total SET n = ? WHERE id = 1", &params![n])
        .await?;
    let words = "x".repeat(20_000);
    tx.execute(
        "INSERT INTO line (n, words) VALUES (?, ?)",
        &params![n, words],
    )
    .await?;
    Ok(n)
}

/// Not a test of its own: what the other tests run as a process.
#[tokio::test]
async fn writer() {
    let Some(path) = std::env::var_os(FILE) else {
        return;
    };
    let rounds: u32 = std::env::var(ROUNDS).unwrap().parse().unwrap();
    let records = open(Path::new(&path)).await;
    for _ in 0..rounds {
        let n = transaction!(records, |tx| add(tx).await).unwrap();
        let mut out = std::io::stdout().lock();
        writeln!(out, "ack {n}").unwrap();
        out.flush().unwrap();
    }
}

fn start(path: &Path, rounds: u32) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "processes::writer", "--nocapture"])
        .env(FILE, path)
        .env(ROUNDS, rounds.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

async fn total(records: &Records) -> (i64, i64) {
    let found: Result<_, RecordsError> = read!(records, |tx| {
        let total = tx.query("SELECT n FROM total", &[]).await?[0].get::<i64>(0)?;
        let lines = tx.query("SELECT COUNT(*) FROM line", &[]).await?[0].get::<i64>(0)?;
        Ok((total, lines))
    });
    found.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_processes_write_one_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("records.db");
    let (processes, rounds) = (4, 25);
    let mut all: Vec<Child> = (0..processes).map(|_| start(&path, rounds)).collect();
    for child in &mut all {
        let status = child.wait().unwrap();
        assert!(status.success(), "{status}");
    }
    let expected = i64::from(rounds) * processes;
    assert_eq!(total(&open(&path).await).await, (expected, expected));
}

/// Without it another process could take itself for the last one, and remove the log with what is committed to it.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_connects_once_more_gives_up_no_lock_of_the_connections_before() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("records.db");
    let records = open(&path).await;
    total(&records).await;
    assert!(has_lock(&path), "the first one");
    // At the same time, so each over a connection of its own.
    futures::future::join_all((0..4).map(|_| total(&records))).await;
    assert!(has_lock(&path), "after the others have come");
}

/// Whether this process has a lock on a file, as proc_locks(5) tells.
#[cfg(target_os = "linux")]
fn has_lock(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let inode = format!(":{}", std::fs::metadata(path).unwrap().ino());
    let process = std::process::id().to_string();
    let locks = std::fs::read_to_string("/proc/locks").unwrap();
    locks.lines().any(|lock| {
        let mut parts = lock.split_whitespace().skip(4);
        parts.next() == Some(&process) && parts.next().is_some_and(|file| file.ends_with(&inode))
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_outlives_sigkill() {
    let kills = if hydrant_harness::is_soak() { 200 } else { 8 };
    let seed = 20_261_122;
    let mut random = fastrand::Rng::with_seed(seed);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("records.db");
    let mut known = 0;
    for round in 0..kills {
        let moment = Duration::from_micros(random.u64(0..60_000));
        known = known.max(run_and_kill(&path, moment));
        let (total, lines) = total(&open(&path).await).await;
        assert_eq!(
            total, lines,
            "half a transaction in round {round}, seed {seed}"
        );
        assert!(
            total >= known,
            "{known} acknowledged, {total} there, seed {seed}"
        );
    }
    assert!(known > 0, "the writer has never acknowledged anything");
    println!("{kills} kills, {known} acknowledged, all there");
}

/// Kills the writer `moment` after its first acknowledgement; the last one that it gave.
fn run_and_kill(path: &Path, moment: Duration) -> i64 {
    let mut child = start(path, 100_000);
    let out = BufReader::new(child.stdout.take().unwrap());
    let mut last = 0;
    for line in out.lines().map_while(Result::ok) {
        let Some(n) = line.strip_prefix("ack ").and_then(|n| n.parse().ok()) else {
            continue;
        };
        if last == 0 {
            let pid = child.id();
            std::thread::spawn(move || {
                hydrant_harness::pause(moment);
                hydrant_harness::kill(pid, rustix::process::Signal::KILL);
            });
        }
        last = n;
    }
    child.wait().unwrap();
    last
}
