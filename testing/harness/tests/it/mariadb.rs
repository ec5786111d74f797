//! MariaDB, plain and with TLS.

use hydrant_harness::mariadb::{MariaDb, Options};
use hydrant_harness::{Galera, skipped};

fn keeps_its_data(options: Options) {
    let mariadb = match MariaDb::start(options) {
        Ok(mariadb) => mariadb,
        Err(missing) => return skipped(missing),
    };
    let made = "CREATE TABLE hydrant.t (a INT) ENGINE=InnoDB; INSERT INTO hydrant.t VALUES (7)";
    mariadb.sql(made).expect("it answers");
    mariadb.kill();
    assert_eq!(mariadb.sql("SELECT 1"), None);
    mariadb.restart();
    let found = mariadb.sql("SELECT a FROM hydrant.t");
    assert_eq!(found.as_deref(), Some("7\n"));
}

#[test]
fn a_server_keeps_its_data() {
    keeps_its_data(Options::default());
}

#[test]
fn a_server_with_tls_keeps_its_data() {
    keeps_its_data(Options {
        tls: true,
        ..Options::default()
    });
}

/// What is written to the first is found on the second, which takes writes from nobody else.
fn is_followed(primary: &MariaDb) {
    let secondary = primary.secondary(900).expect("MariaDB is here");
    let made = "CREATE TABLE hydrant.t (a INT PRIMARY KEY) ENGINE=InnoDB; INSERT INTO hydrant.t VALUES (7)";
    primary.sql(made).expect("it answers");
    assert!(secondary.catches_up_with(primary));
    let found = secondary.sql("SELECT a FROM hydrant.t; SELECT @@read_only");
    assert_eq!(found.as_deref(), Some("7\n1\n"));
    let lagging = secondary.sql("STOP SLAVE IO_THREAD");
    assert!(lagging.is_some());
    primary
        .sql("INSERT INTO hydrant.t VALUES (8)")
        .expect("it answers");
    let found = secondary.sql("SELECT COUNT(*) FROM hydrant.t");
    assert_eq!(
        found.as_deref(),
        Some("1\n"),
        "it lags as long as it is told to"
    );
    secondary.sql("START SLAVE").expect("it answers");
    assert!(secondary.catches_up_with(primary));
}

#[test]
fn a_secondary_follows_a_server() {
    match MariaDb::start(Options::default().with_log(100)) {
        Ok(primary) => is_followed(&primary),
        Err(missing) => skipped(missing),
    }
}

#[test]
fn a_secondary_follows_a_server_of_a_cluster() {
    match Galera::replicated(2) {
        Ok(cluster) => is_followed(cluster.node(1)),
        Err(missing) => skipped(missing),
    }
}
