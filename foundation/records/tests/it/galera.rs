//! A Galera cluster: servers that agree at each commit, and one that is killed.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use hydrant_harness::{Galera, skipped};
use hydrant_records::contract::Subject;
use hydrant_records::{
    Config, Kind, Migration, Records, RecordsError, Sql, params, read, records_contract,
    transaction,
};
use tokio::task::JoinSet;

/// One cluster for all tests of the contract; each has a database of its own.
fn shared() -> Option<Arc<Galera>> {
    static CLUSTER: Mutex<Weak<Galera>> = Mutex::new(Weak::new());
    let mut known = CLUSTER.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(cluster) = known.upgrade() {
        return Some(cluster);
    }
    let cluster = Arc::new(own(2)?);
    *known = Arc::downgrade(&cluster);
    Some(cluster)
}

fn own(servers: usize) -> Option<Galera> {
    Galera::start(servers).map_err(skipped).ok()
}

fn config(cluster: &Galera, node: usize, database: &str) -> Config {
    let mut config = Config::new(&cluster.node(node).url(database)).unwrap();
    config.password_file = Some(cluster.node(node).password_file());
    config
}

fn open() -> Option<Subject> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let cluster = shared()?;
    let database = format!("test{}", NUMBER.fetch_add(1, Ordering::Relaxed));
    cluster.node(0).create_database(&database);
    Some(Subject {
        config: config(&cluster, 0, &database),
        keep: Box::new(cluster),
    })
}

records_contract!(open());

const TABLES: &[Migration] = &[Migration {
    version: 1,
    statements: &[
        Sql::both("CREATE TABLE IF NOT EXISTS total (id BIGINT NOT NULL PRIMARY KEY, n BIGINT)"),
        Sql::both("CREATE TABLE IF NOT EXISTS line (n BIGINT NOT NULL PRIMARY KEY, who BIGINT)"),
        Sql::both("INSERT INTO total (id, n) VALUES (1, 0)"),
    ],
}];

/// As revisions are made: the head is locked, and the next number written. `tries` counts how often
/// the work was begun.
async fn add(records: &Records, who: i64, tries: &AtomicUsize) -> Result<i64, RecordsError> {
    transaction!(records, |tx| {
        tries.fetch_add(1, Ordering::Relaxed);
        let rows = tx.lock("SELECT n FROM total WHERE id = 1", &[]).await?;
        let n = rows[0].get::<i64>(0)? + 1;
        tx.execute("INSERT INTO line (n, who) VALUES (?, ?)", &params![n, who])
            .await?;
        tx.execute("UPDATE total SET n = ? WHERE id = 1", &params![n])
            .await?;
        Ok(n)
    })
}

async fn is_empty(records: &Records) -> bool {
    let found: Result<bool, RecordsError> = read!(records, |tx| {
        let rows = tx.query("SELECT n FROM total", &[]).await?;
        Ok(rows.is_empty())
    });
    found.unwrap_or(true)
}

/// Writers on all three servers, each against all others: a commit that loses against one of another
/// server is repeated. Meanwhile one server is killed, and joins again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_is_killed_while_all_are_written_to_and_nothing_is_lost_or_twice() {
    let Some(cluster) = own(3) else { return };
    let database = hydrant_harness::mariadb::DATABASE;
    let open = |node| {
        let mut config = config(&cluster, node, database);
        config.deadline = Duration::from_secs(20);
        Records::open(config)
    };
    let first = open(0);
    first.migrate("line", TABLES).await.unwrap();
    // Reads of one server may be a moment behind the commits of another.
    for node in 0..3 {
        let records = open(node);
        while is_empty(&records).await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    let stop = Arc::new(AtomicBool::new(false));
    let (tries, done) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut writers = JoinSet::new();
    for who in 0..6_usize {
        let records = open(who % 3);
        let (stop, tries, done) = (Arc::clone(&stop), Arc::clone(&tries), Arc::clone(&done));
        writers.spawn(async move {
            let (mut acknowledged, mut uncertain) = (Vec::new(), 0);
            while !stop.load(Ordering::Relaxed) {
                match add(&records, who as i64, &tries).await {
                    Ok(n) => {
                        acknowledged.push(n);
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                    Err(error) if error.kind() == Kind::Uncertain => uncertain += 1,
                    Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                }
            }
            (who as i64, acknowledged, uncertain)
        });
    }
    let more = async |count| {
        let before = done.load(Ordering::Relaxed);
        while done.load(Ordering::Relaxed) < before + count {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let waited = Duration::from_secs(120);
    tokio::time::timeout(waited, more(60))
        .await
        .expect("all write");
    cluster.node(2).kill();
    tokio::time::timeout(waited, more(60))
        .await
        .expect("the others go on");
    cluster.wait_size(0, 2);
    tokio::task::block_in_place(|| cluster.join(2));
    tokio::time::timeout(waited, more(30))
        .await
        .expect("all write again");
    stop.store(true, Ordering::Relaxed);
    let written = writers.join_all().await;
    let lines: Result<BTreeMap<i64, i64>, RecordsError> = read!(first, |tx| {
        let rows = tx.query("SELECT n, who FROM line", &[]).await?;
        rows.iter()
            .map(|row| Ok((row.get(0)?, row.get(1)?)))
            .collect()
    });
    let lines = lines.unwrap();
    let (mut acknowledged, mut uncertain) = (0, 0);
    for (who, own, open) in &written {
        for n in own {
            assert_eq!(lines.get(n), Some(who), "what was acknowledged is lost");
        }
        acknowledged += own.len();
        uncertain += open;
    }
    let extra = lines.len() - acknowledged;
    println!(
        "{} tries, {acknowledged} acknowledged, {uncertain} uncertain, {extra} of them there",
        tries.load(Ordering::Relaxed)
    );
    assert!(extra <= uncertain, "what was refused is there");
    let last = lines.keys().next_back().copied().unwrap_or(0);
    assert_eq!(
        last as usize,
        lines.len(),
        "each number once, and none left out"
    );
    assert!(
        tries.load(Ordering::Relaxed) > acknowledged,
        "there were conflicts"
    );
}

/// A pair with an arbitrator, and one URL with both: whoever asks is served by the other one soon after one of
/// them is cut off, frozen or killed, and sees there what was committed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_url_names_both_servers_of_a_pair_and_either_may_go() {
    let cluster = match Galera::pair() {
        Ok(cluster) => cluster,
        Err(missing) => return skipped(missing),
    };
    let [first, second] = [0, 1].map(|node| cluster.node(node).address());
    let url = cluster.node(0).url(hydrant_harness::mariadb::DATABASE);
    let url = url.replace(&first.to_string(), &format!("{first},{second}"));
    let mut config = Config::new(&url).unwrap();
    config.password_file = Some(cluster.node(0).password_file());
    let records = Records::open(config);
    records.migrate("line", TABLES).await.unwrap();
    let (tries, mut last) = (AtomicUsize::new(0), 0);
    type Fault = fn(&Galera);
    let faults: [(&str, Fault, Fault); 3] = [
        (
            "cut off",
            |all| all.isolate(0, true),
            |all| all.isolate(0, false),
        ),
        ("killed", |all| all.node(0).kill(), |all| all.rejoin(0)),
        (
            "frozen",
            |all| all.node(0).pause(),
            |all| all.node(0).resume(),
        ),
    ];
    for (what, begin, end) in faults {
        let grown = add(&records, 1, &tries).await.unwrap();
        assert!(grown > last, "{what}: what was committed is seen");
        tokio::task::block_in_place(|| begin(&cluster));
        let (gone, mut failed) = (std::time::Instant::now(), 0);
        last = loop {
            match add(&records, 1, &tries).await {
                Ok(n) => break n,
                Err(_) => failed += 1,
            }
            assert!(
                gone.elapsed() < Duration::from_secs(90),
                "{what}: never again"
            );
        };
        println!(
            "{what}: written again after {:?}, {failed} failed",
            gone.elapsed()
        );
        tokio::task::block_in_place(|| {
            end(&cluster);
            cluster.wait_size(0, 3);
        });
        // A server that was not well is left alone for a while: then it is asked again.
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}
