//! MariaDB, plain and with TLS.

use hydrant_harness::mariadb::{MariaDb, Options};
use hydrant_harness::skipped;

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
