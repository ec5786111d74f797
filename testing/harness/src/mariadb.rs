//! MariaDB: one server; several of them are a cluster of [`crate::galera`].

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use tempfile::TempDir;

use crate::port::Port;
use crate::process::Process;
use crate::{Certificates, Missing, READY, require, wait_until};

/// The user that clients are, with the rights to everything in the databases of the harness.
pub const USER: &str = "hydrant";
/// The database that is there from the beginning.
pub const DATABASE: &str = "hydrant";

/// The user's password at the beginning.
pub(crate) const PASSWORD: &str = "a password of the harness";

/// How MariaDB is started.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Clients have to use TLS; they need no certificate.
    pub tls: bool,
    /// More lines for the server's section of its configuration, as `key=value`.
    pub more: Vec<String>,
}

/// A server that runs. Dropped, it and its data are gone.
pub struct MariaDb {
    process: Process,
    port: Port,
    certificates: Option<Certificates>,
    folder: TempDir,
}

impl MariaDb {
    /// Starts a server, with an empty database and a user with a password.
    pub fn start(options: Options) -> Result<Self, Missing> {
        let mariadb = Self::start_bare(&options)?;
        let require = if options.tls { "REQUIRE SSL" } else { "" };
        mariadb.must(&format!(
            "CREATE USER {USER}@'%' IDENTIFIED BY '' {require}"
        ));
        mariadb.set_password(PASSWORD);
        mariadb.create_database(DATABASE);
        Ok(mariadb)
    }

    /// A server that has neither a database nor a user.
    pub(crate) fn start_bare(options: &Options) -> Result<Self, Missing> {
        Self::require()?;
        let mariadb = Self::make(options);
        copy(&template().join("data"), &mariadb.data());
        mariadb.restart();
        Ok(mariadb)
    }

    pub(crate) fn require() -> Result<(), Missing> {
        require("mariadbd", "mariadb-server")?;
        require("mariadb-install-db", "mariadb-server")?;
        require("mariadb", "mariadb-client")
    }

    /// A server that has no data yet, and does not run.
    pub(crate) fn make(options: &Options) -> Self {
        let folder = crate::folder();
        let certificates = (options.tls).then(|| Certificates::make(folder.path(), &[]));
        let port = Port::take();
        let config = folder.path().join("mariadb.conf");
        let arguments = [format!("--defaults-file={}", config.display())];
        let process = Process::new("mariadb", folder.path(), "mariadbd", &arguments);
        let mariadb = Self {
            process,
            port,
            certificates,
            folder,
        };
        mariadb.configure(&options.more);
        mariadb
    }

    /// Writes its configuration, for the next start.
    pub(crate) fn configure(&self, more: &[String]) {
        let mut lines = lines(self.folder(), &self.port, self.certificates.as_ref());
        lines.extend_from_slice(more);
        let config = self.folder().join("mariadb.conf");
        fs::write(config, lines.join("\n") + "\n").expect("the configuration can be written");
    }

    /// The folder of its data alone.
    pub(crate) fn data(&self) -> PathBuf {
        self.folder().join("data")
    }

    /// Makes another database, to which the user has all rights.
    pub fn create_database(&self, name: &str) {
        self.must(&format!("CREATE DATABASE {name}"));
        self.must(&format!("GRANT ALL ON {name}.* TO {USER}@'%'"));
    }

    /// Changes the user's password, and the file with it.
    pub fn set_password(&self, password: &str) {
        self.must(&format!("ALTER USER {USER}@'%' IDENTIFIED BY '{password}'"));
        self.write_password(password);
    }

    pub(crate) fn write_password(&self, password: &str) {
        fs::write(self.password_file(), format!("{password}\n")).expect("a file for the password");
    }

    /// The file with the user's password.
    pub fn password_file(&self) -> PathBuf {
        self.folder.path().join("records.password")
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port.number()))
    }

    /// The URL of a database on it, without the password.
    pub fn url(&self, database: &str) -> String {
        format!("mysql://{USER}@{}/{database}", self.address())
    }

    /// The table of a node's configuration file that names it.
    pub fn table(&self) -> String {
        let (url, password) = (self.url(DATABASE), self.password_file());
        let mut table = format!("[records]\nurl = {url:?}\npassword_file = {password:?}\n");
        if let Some(files) = &self.certificates {
            table += &format!("tls = {{ ca = {:?} }}\n", files.ca_pem());
        }
        table
    }

    /// The files for clients that use TLS.
    pub fn certificates(&self) -> Option<&Certificates> {
        self.certificates.as_ref()
    }

    /// Kills it with SIGKILL.
    pub fn kill(&self) {
        self.process.kill();
    }

    /// Starts it again, on its data and address, and waits until it answers.
    pub fn restart(&self) {
        self.process.start();
        let answers = || {
            self.process.check();
            self.sql("SELECT 1").is_some()
        };
        let answered = wait_until(READY, answers);
        assert!(answered, "MariaDB does not answer: {}", self.process.tail());
    }

    /// Where in the history of its cluster the data of a server that was killed end, as `UUID:NUMBER`.
    pub(crate) fn recover(&self) -> String {
        let config = self.folder().join("mariadb.conf");
        let output = Command::new("mariadbd")
            .arg(format!("--defaults-file={}", config.display()))
            .arg("--wsrep-recover")
            .stdin(Stdio::null())
            .output()
            .expect("mariadbd starts");
        let told = String::from_utf8_lossy(&output.stderr);
        let position = told.rsplit_once("Recovered position: ");
        let position = position.and_then(|(_, rest)| rest.split_whitespace().next());
        position
            .unwrap_or_else(|| panic!("no position: {told}"))
            .to_owned()
    }

    /// Freezes it.
    pub fn pause(&self) {
        self.process.pause();
    }

    /// Lets it go on.
    pub fn resume(&self) {
        self.process.resume();
    }

    /// What it answers to statements of its administrator: a line for each row, with tabs between
    /// columns. None when it does not answer, or refuses.
    pub fn sql(&self, statements: &str) -> Option<String> {
        if !self.process.is_active() {
            return None;
        }
        let output = self
            .client("mariadb")
            .args(["--batch", "--skip-column-names", "-e"])
            .arg(statements)
            .output()
            .expect("mariadb starts");
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        output.status.success().then_some(told)
    }

    /// A program that speaks with it as its administrator.
    pub(crate) fn client(&self, program: &str) -> Command {
        let mut client = Command::new(program);
        client
            .arg("--no-defaults")
            .arg(format!("--socket={}", self.socket().display()))
            .arg("--user=root")
            .stdin(Stdio::null());
        client
    }

    pub(crate) fn must(&self, statement: &str) {
        let done = self.sql(statement);
        assert!(
            done.is_some(),
            "MariaDB refuses: {statement}\n{}",
            self.process.tail()
        );
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    /// The folder of data, configuration and log.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Its process.
    pub fn pid(&self) -> Option<u32> {
        self.process.pid()
    }

    /// Panics, with the log, when it has ended by itself.
    pub fn check(&self) {
        self.process.check();
    }
}

fn lines(folder: &Path, port: &Port, certificates: Option<&Certificates>) -> Vec<String> {
    let mut lines = vec![
        "[mariadbd]".to_owned(),
        format!("datadir={}", folder.join("data").display()),
        format!("socket={}", folder.join("socket").display()),
        format!("pid-file={}", folder.join("pid").display()),
        format!("port={}", port.number()),
        "bind-address=127.0.0.1".into(),
        "skip-name-resolve".into(),
        "performance_schema=OFF".into(),
        "innodb_buffer_pool_size=64M".into(),
        "innodb_log_file_size=32M".into(),
    ];
    lines.extend(as_root());
    if let Some(files) = certificates {
        lines.extend([
            format!("ssl-ca={}", files.ca_pem().display()),
            format!("ssl-cert={}", files.server_pem().display()),
            format!("ssl-key={}", files.server_key().display()),
        ]);
    }
    lines
}

/// MariaDB does not run as root unless it is told to.
fn as_root() -> Option<String> {
    let is_root = rustix::process::geteuid().is_root();
    is_root.then(|| "user=root".to_owned())
}

/// The data of a server that has never run: to make it takes seconds, to copy it does not.
fn template() -> &'static Path {
    static TEMPLATE: OnceLock<TempDir> = OnceLock::new();
    TEMPLATE.get_or_init(make_template).path()
}

fn make_template() -> TempDir {
    let folder = crate::folder();
    let mut command = Command::new("mariadb-install-db");
    command
        .arg("--no-defaults")
        .arg(format!(
            "--datadir={}",
            folder.path().join("data").display()
        ))
        .args([
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
            "--skip-name-resolve",
            "--force",
            "--innodb-log-file-size=32M",
            "--innodb-flush-method=nosync",
        ])
        .args(as_root().map(|user| format!("--{user}")))
        .current_dir(folder.path())
        .stdin(Stdio::null());
    let output = command.output().expect("mariadb-install-db starts");
    assert!(
        output.status.success(),
        "mariadb-install-db fails: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    folder
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder for the data");
    for entry in fs::read_dir(from).expect("a folder with data").flatten() {
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).expect("data can be copied");
        }
    }
}
