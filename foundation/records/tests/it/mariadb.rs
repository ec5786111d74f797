//! MariaDB: a real server.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use hydrant_harness::mariadb::{DATABASE, MariaDb, Options};
use hydrant_harness::skipped;
use hydrant_records::contract::Subject;
use hydrant_records::{
    Config, Kind, Migration, Records, RecordsError, Sql, Tls, params, read, records_contract,
    transaction,
};

/// One server for all tests that do it no harm; each has a database of its own.
fn shared() -> Option<Arc<MariaDb>> {
    static SERVER: Mutex<Weak<MariaDb>> = Mutex::new(Weak::new());
    let mut known = SERVER.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(server) = known.upgrade() {
        return Some(server);
    }
    let server = Arc::new(own(Options::default())?);
    *known = Arc::downgrade(&server);
    Some(server)
}

fn own(options: Options) -> Option<MariaDb> {
    match MariaDb::start(options) {
        Ok(server) => Some(server),
        Err(missing) => {
            skipped(missing);
            None
        }
    }
}

fn config(server: &MariaDb, database: &str) -> Config {
    let mut config = Config::new(&server.url(database)).unwrap();
    config.password_file = Some(server.password_file());
    config
}

fn open() -> Option<Subject> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let server = shared()?;
    let database = format!("test{}", NUMBER.fetch_add(1, Ordering::Relaxed));
    server.create_database(&database);
    Some(Subject {
        config: config(&server, &database),
        keep: Box::new(server),
    })
}

records_contract!(open());

const TABLES: &[Migration] = &[Migration {
    version: 1,
    statements: &[Sql::both(
        "CREATE TABLE IF NOT EXISTS line (n BIGINT NOT NULL PRIMARY KEY)",
    )],
}];

async fn add(records: &Records, n: i64) -> Result<(), RecordsError> {
    let sql = "INSERT INTO line (n) VALUES (?)";
    transaction!(records, |tx| tx.execute(sql, &params![n]).await.map(drop))
}

async fn lines(records: &Records) -> Vec<i64> {
    let found: Result<_, RecordsError> = read!(records, |tx| tx
        .query("SELECT n FROM line ORDER BY n", &[])
        .await);
    found
        .unwrap()
        .iter()
        .map(|row| row.get(0).unwrap())
        .collect()
}

/// The server is killed while many write; what was acknowledged is there afterwards, once, and what
/// was refused for certain is not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_outlives_a_kill_of_the_server() {
    let Some(server) = own(Options::default()) else {
        return;
    };
    let records = Records::open(config(&server, DATABASE));
    records.migrate("a", TABLES).await.unwrap();
    let kills = if hydrant_harness::is_soak() { 30 } else { 3 };
    let next = Arc::new(AtomicU32::new(0));
    let outcomes = Arc::new(Mutex::new(Vec::new()));
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let writers: Vec<_> = (0..4)
        .map(|_| {
            let (records, next) = (records.clone(), next.clone());
            let (outcomes, stop) = (outcomes.clone(), stop.clone());
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let n = i64::from(next.fetch_add(1, Ordering::Relaxed));
                    let outcome = add(&records, n).await.map_err(|error| error.kind());
                    outcomes.lock().unwrap().push((n, outcome));
                }
            })
        })
        .collect();
    for _ in 0..kills {
        tokio::time::sleep(Duration::from_millis(300)).await;
        server.kill();
        tokio::time::sleep(Duration::from_millis(100)).await;
        server.restart();
    }
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.unwrap();
    }
    let there = lines(&records).await;
    let outcomes = outcomes.lock().unwrap();
    let mut counts = [0; 3];
    for (n, outcome) in outcomes.iter() {
        let is_there = there.binary_search(n).is_ok();
        match outcome {
            Ok(()) => assert!(is_there, "{n} was acknowledged and is lost"),
            Err(Kind::Uncertain) => {}
            Err(kind) => assert!(!is_there, "{n} was refused ({kind:?}) and is there"),
        }
        let which = match outcome {
            Ok(()) => 0,
            Err(Kind::Uncertain) => 1,
            Err(_) => 2,
        };
        counts[which] += 1;
    }
    println!("{kills} kills; acknowledged, uncertain, refused: {counts:?}");
    assert!(counts[0] > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadlock_is_seen_and_repeated() {
    let Some(subject) = open() else { return };
    let records = Records::open(subject.config.clone());
    records.migrate("a", TABLES).await.unwrap();
    add(&records, 1).await.unwrap();
    add(&records, 2).await.unwrap();
    let attempts = AtomicU32::new(0);
    let one = async |order: [i64; 2]| {
        let done: Result<(), RecordsError> = transaction!(records, |tx| {
            attempts.fetch_add(1, Ordering::Relaxed);
            for n in order {
                let sql = "SELECT n FROM line WHERE n = ?";
                tx.lock(sql, &params![n]).await?;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Ok(())
        });
        done.unwrap();
    };
    futures::future::join(one([1, 2]), one([2, 1])).await;
    let attempts = attempts.load(Ordering::Relaxed);
    assert!(attempts > 2, "{attempts} attempts: there was no deadlock");
}

#[tokio::test]
async fn a_server_that_is_away_or_frozen_is_unavailable_in_time() {
    let Some(server) = own(Options::default()) else {
        return;
    };
    let patient = Records::open(config(&server, DATABASE));
    let mut config = config(&server, DATABASE);
    config.deadline = Duration::from_secs(1);
    let records = Records::open(config);
    patient.ping().await.unwrap();
    server.pause();
    let start = Instant::now();
    let frozen = records.ping().await.unwrap_err();
    assert_eq!(frozen.kind(), Kind::Unavailable);
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "{:?}",
        start.elapsed()
    );
    server.resume();
    patient.ping().await.unwrap();
    server.kill();
    let away = records.ping().await.unwrap_err();
    assert_eq!(away.kind(), Kind::Unavailable);
    server.restart();
    patient.ping().await.unwrap();
}

/// A server that fails at first and then says nothing: what it failed with is what helps.
#[tokio::test]
async fn a_time_out_does_not_hide_what_went_wrong_before() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("mysql://user@{}/db", listener.local_addr().unwrap());
    tokio::spawn(async move {
        drop(listener.accept().await);
        let silent = listener.accept().await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        drop(silent);
    });
    let mut config = Config::new(&url).unwrap();
    config.deadline = Duration::from_secs(2);
    let told = Records::open(config).ping().await.unwrap_err();
    assert_eq!(told.kind(), Kind::Unavailable);
    assert!(!told.to_string().contains("in time"), "{told}");
}

#[tokio::test]
async fn a_password_that_was_changed_is_read_again() {
    let Some(server) = own(Options::default()) else {
        return;
    };
    let mut config = config(&server, DATABASE);
    config.deadline = Duration::from_secs(2);
    let records = Records::open(config);
    std::fs::write(server.password_file(), "wrong-one").unwrap();
    let refused = records.ping().await.unwrap_err();
    assert_eq!(refused.kind(), Kind::Unavailable);
    assert!(refused.to_string().contains("password"), "{refused}");
    assert!(!format!("{refused:?}").contains("wrong-one"));
    server.set_password("another");
    records.ping().await.unwrap();
    std::fs::remove_file(server.password_file()).unwrap();
    let fresh = Records::open(Config {
        deadline: Duration::from_millis(500),
        ..config_of(&server)
    });
    let refused = fresh.ping().await.unwrap_err().to_string();
    assert!(refused.contains("records.password"), "{refused}");
}

fn config_of(server: &MariaDb) -> Config {
    config(server, DATABASE)
}

#[tokio::test]
async fn tls_is_used_and_the_server_is_checked() {
    let Some(server) = own(Options {
        tls: true,
        ..Options::default()
    }) else {
        return;
    };
    let plain = Config {
        deadline: Duration::from_secs(5),
        ..config(&server, DATABASE)
    };
    let told = Records::open(plain.clone()).ping().await.unwrap_err();
    assert_eq!(told.kind(), Kind::Unavailable, "without TLS: {told}");
    let with = |ca| Config {
        tls: Some(Tls { ca, identity: None }),
        ..plain.clone()
    };
    let files = server.certificates().unwrap();
    let records = Records::open(with(files.ca_pem()));
    let cipher: Result<_, RecordsError> = read!(records, |tx| tx
        .query("SHOW STATUS LIKE 'Ssl_cipher'", &[])
        .await);
    let cipher = cipher.unwrap()[0].get::<String>(1).unwrap();
    assert!(!cipher.is_empty());
    let folder = tempfile::tempdir().unwrap();
    let others = hydrant_harness::Certificates::make(folder.path(), &[]);
    let told = Records::open(with(others.ca_pem()))
        .ping()
        .await
        .unwrap_err();
    assert!(told.to_string().contains("TLS"), "{told}");
}
