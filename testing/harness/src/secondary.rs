//! A server that follows another one a moment behind, as the database of a second data centre does: asynchronous
//! replication by GTID, and nobody writes there.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::mariadb::{MariaDb, Options, USER};
use crate::{Missing, READY, wait_until};

/// Who reads the log of the primary.
const FOLLOWER: &str = "hydrant_follower";
const PASSWORD: &str = "another password of the harness";
/// What the user may do as this role, and not otherwise: to promote the server that follows.
const ROLE: &str = "hydrant_failover";

impl Options {
    /// A server that others can follow. `number` is its own: no two that follow each other have the same.
    #[must_use]
    pub fn with_log(mut self, number: u32) -> Self {
        self.more.extend(log(number));
        self.more.push("gtid_strict_mode=ON".into());
        self.more.push("gtid_domain_id=1".into());
        self
    }
}

/// The lines of the configuration that make a server keep the log that others read.
pub(crate) fn log(number: u32) -> [String; 4] {
    [
        format!("server_id={number}"),
        "log_bin=log".into(),
        "log_slave_updates=ON".into(),
        "binlog_format=ROW".into(),
    ]
}

impl MariaDb {
    /// Starts a server that follows this one, which was started [with a log](Options::with_log) or is one of a
    /// [replicated cluster](crate::Galera::replicated). It has the same databases, users and passwords.
    ///
    /// # Errors
    ///
    /// If MariaDB is not here.
    pub fn secondary(&self, number: u32) -> Result<Self, Missing> {
        let options = Options::default().with_log(number);
        let secondary = Self::start_bare(&options)?;
        self.must(&format!(
            "CREATE USER IF NOT EXISTS {FOLLOWER}@'%' IDENTIFIED BY '{PASSWORD}'; \
             GRANT REPLICATION SLAVE ON *.* TO {FOLLOWER}@'%'"
        ));
        self.allow_failover();
        secondary.restore(&self.dump());
        let password = std::fs::read_to_string(self.password_file()).expect("a password");
        secondary.write_password(password.trim());
        secondary.must("SET GLOBAL read_only = ON");
        secondary.follow(self);
        assert!(
            secondary.catches_up_with(self),
            "a secondary does not catch up"
        );
        Ok(secondary)
    }

    /// All that is here, with the position in the log at which it was so.
    fn dump(&self) -> PathBuf {
        let file = self.folder().join("dump.sql");
        let mut dump = self.client("mariadb-dump");
        dump.args([
            "--all-databases",
            "--single-transaction",
            "--flush-privileges",
        ])
        .args(["--gtid", "--master-data=1"])
        .arg(format!("--result-file={}", file.display()));
        done(dump);
        file
    }

    /// Takes a dump in, outside its own log.
    fn restore(&self, dump: &Path) {
        let mut client = self.client("mariadb");
        client
            .arg("--init-command=SET sql_log_bin = 0")
            .stdin(File::open(dump).expect("a dump"));
        done(client);
    }

    /// Lets the user take a role in which it may see, stop and promote what follows.
    fn allow_failover(&self) {
        self.must(&format!(
            "CREATE ROLE IF NOT EXISTS {ROLE}; \
             GRANT READ_ONLY ADMIN, REPLICATION SLAVE ADMIN, SLAVE MONITOR, RELOAD ON *.* TO {ROLE}; \
             GRANT {ROLE} TO {USER}@'%'"
        ));
    }

    /// Follows another server from where this one is. What it has taken as a primary counts, when the other one has it.
    pub fn follow(&self, primary: &Self) {
        self.must(&format!(
            "STOP SLAVE; CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT={}, MASTER_USER='{FOLLOWER}', \
             MASTER_PASSWORD='{PASSWORD}', MASTER_CONNECT_RETRY=1, MASTER_USE_GTID=slave_pos; START SLAVE",
            primary.address().port(),
        ));
    }

    /// Follows the one that has taken its place, in the role of a secondary.
    pub fn follow_as_former_primary(&self, primary: &Self) {
        self.must("SET GLOBAL read_only = ON");
        self.must(&format!(
            "CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT={}, MASTER_USER='{FOLLOWER}', \
             MASTER_PASSWORD='{PASSWORD}', MASTER_CONNECT_RETRY=1, MASTER_USE_GTID=slave_pos, \
             MASTER_DEMOTE_TO_SLAVE=1; START SLAVE",
            primary.address().port(),
        ));
    }

    /// Waits until all that the other one has by now is here.
    pub fn catches_up_with(&self, primary: &Self) -> bool {
        let Some(position) = primary.sql("SELECT @@gtid_binlog_pos") else {
            return false;
        };
        let all = format!("SELECT MASTER_GTID_WAIT('{}', 1)", position.trim());
        wait_until(READY, || self.sql(&all).as_deref() == Some("0\n"))
    }
}

fn done(mut command: Command) {
    let output = command.output().expect("a client of MariaDB starts");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {told}");
}
