//! Redis: one server; a master with a replica and three Sentinels; a cluster of three masters.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::port::Port;
use crate::process::Process;
use crate::{Certificates, Missing, READY, require, wait_until};

/// The name under which Sentinels know the master.
pub const MASTER: &str = "hydrant";

/// The user that the harness and the servers themselves use where there are users.
const OWN: &str = "harness";
/// How long one command may take, on a busy machine too.
const ANSWER: Duration = Duration::from_secs(5);

/// How Redis is started.
#[derive(Debug, Clone)]
pub struct Options {
    /// Only TLS is spoken, and clients need a certificate.
    pub tls: bool,
    /// With any, the default user is off.
    pub users: Vec<User>,
    /// After how much silence a Sentinel, or a server of a cluster, holds a server for down.
    pub down_after: Duration,
    /// More lines for `redis.conf` of the servers that hold data.
    pub more: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            tls: false,
            users: Vec::new(),
            // A Sentinel takes a second to connect to a master that has just become one.
            down_after: Duration::from_secs(2),
            more: Vec::new(),
        }
    }
}

/// A user of Redis's access control lists.
#[derive(Debug, Clone)]
pub struct User {
    /// Its name.
    pub name: String,
    /// Its password, in the clear.
    pub password: String,
    /// What it may do, as in `ACL SETUSER`: `~prefix:* &prefix:* +@all -@dangerous`.
    pub rules: String,
}

/// Servers that run. Dropped, they and their data are gone.
pub struct Redis {
    servers: Vec<Server>,
    sentinels: Vec<Server>,
    certificates: Option<Certificates>,
    password: Option<String>,
    folder: TempDir,
}

struct Server {
    process: Process,
    address: SocketAddr,
    _port: Port,
    _bus: Option<Port>,
}

/// What a server is for.
#[derive(Clone, Copy)]
enum Role {
    Single,
    Replica(u16),
    Member,
}

impl Redis {
    /// One server.
    pub fn single(options: Options) -> Result<Self, Missing> {
        let mut redis = Self::prepare(&options)?;
        redis.add_server(&options, Role::Single);
        redis.restart_all();
        Ok(redis)
    }

    /// A master, a replica that has its data, and three Sentinels that know both. The master is
    /// server 0 at first.
    pub fn with_sentinel(options: Options) -> Result<Self, Missing> {
        require("redis-sentinel", "redis-sentinel")?;
        let mut redis = Self::prepare(&options)?;
        let master = redis.add_server(&options, Role::Single);
        redis.add_server(&options, Role::Replica(master));
        redis.restart_all();
        redis.wait("the replica has no link to its master", || {
            let info = redis.cli(1, &["INFO", "replication"]).unwrap_or_default();
            info.contains("master_link_status:up")
        });
        for _ in 0..3 {
            redis.add_sentinel(&options, master);
        }
        for sentinel in &redis.sentinels {
            sentinel.process.start();
        }
        redis.wait(
            "the Sentinels do not know each other and the replica",
            || {
                redis.sentinels.iter().all(|sentinel| {
                    let told = redis.sentinel_says(sentinel, &["SENTINEL", "MASTER", MASTER]);
                    let told = told.unwrap_or_default();
                    field(&told, "num-slaves") == Some("1")
                        && field(&told, "num-other-sentinels") == Some("2")
                })
            },
        );
        Ok(redis)
    }

    /// A cluster of three masters that share all slots.
    pub fn cluster(options: Options) -> Result<Self, Missing> {
        let mut redis = Self::prepare(&options)?;
        for _ in 0..3 {
            redis.add_server(&options, Role::Member);
        }
        redis.restart_all();
        let addresses = redis.addresses();
        let mut arguments = vec!["--cluster", "create", "--cluster-yes"];
        arguments.extend(addresses.iter().map(String::as_str));
        let to = redis.servers[0].address;
        let created = redis.ask(to, redis.password.as_deref(), &arguments, READY);
        assert!(
            created
                .as_ref()
                .is_some_and(|told| told.contains("[OK] All")),
            "the cluster is not made: {created:?}\n{}",
            redis.servers[0].process.tail()
        );
        redis.wait_cluster();
        Ok(redis)
    }

    fn prepare(options: &Options) -> Result<Self, Missing> {
        require("redis-server", "redis-server")?;
        require("redis-cli", "redis-tools")?;
        let folder = crate::folder();
        let certificates = options.tls.then(|| Certificates::make(folder.path(), &[]));
        let password = (!options.users.is_empty()).then(|| "a-password-of-the-harness".to_owned());
        Ok(Self {
            servers: Vec::new(),
            sentinels: Vec::new(),
            certificates,
            password,
            folder,
        })
    }

    fn add_server(&mut self, options: &Options, role: Role) -> u16 {
        let (port, bus) = (Port::take(), Port::take());
        let number = port.number();
        let name = format!("redis{}", self.servers.len());
        let mut lines = self.common(&port, &name);
        lines.extend([
            "appendonly yes".into(),
            "appendfsync always".into(),
            "save \"\"".into(),
            "repl-diskless-sync yes".into(),
            "repl-diskless-sync-delay 0".into(),
        ]);
        lines.extend(self.users(options));
        match role {
            Role::Single => {}
            Role::Replica(master) => lines.push(format!("replicaof 127.0.0.1 {master}")),
            Role::Member => lines.extend([
                "cluster-enabled yes".into(),
                format!("cluster-port {}", bus.number()),
                format!("cluster-node-timeout {}", options.down_after.as_millis()),
            ]),
        }
        lines.extend(options.more.iter().cloned());
        let process = self.process(&name, "redis-server", &lines, &[]);
        self.servers.push(Server {
            process,
            address: SocketAddr::from(([127, 0, 0, 1], number)),
            _port: port,
            _bus: Some(bus),
        });
        number
    }

    fn add_sentinel(&mut self, options: &Options, master: u16) {
        let port = Port::take();
        let name = format!("sentinel{}", self.sentinels.len());
        let mut lines = self.common(&port, &name);
        let down_after = options.down_after.as_millis();
        lines.extend([
            format!("sentinel monitor {MASTER} 127.0.0.1 {master} 2"),
            format!("sentinel down-after-milliseconds {MASTER} {down_after}"),
            format!("sentinel failover-timeout {MASTER} {}", 6 * down_after),
            format!("sentinel parallel-syncs {MASTER} 1"),
        ]);
        if let Some(password) = &self.password {
            lines.push(format!("sentinel auth-user {MASTER} {OWN}"));
            lines.push(format!("sentinel auth-pass {MASTER} {password}"));
        }
        let process = self.process(&name, "redis-sentinel", &lines, &["--sentinel"]);
        self.sentinels.push(Server {
            process,
            address: SocketAddr::from(([127, 0, 0, 1], port.number())),
            _port: port,
            _bus: None,
        });
    }

    /// What the configurations of all servers and Sentinels have in common.
    fn common(&self, port: &Port, name: &str) -> Vec<String> {
        let folder = self.folder.path().join(name);
        fs::create_dir_all(&folder).expect("a folder for the data");
        let mut lines = vec![
            "bind 127.0.0.1".into(),
            "daemonize no".into(),
            // Else it writes its title over its environment, and with it over the harness's mark.
            "set-proc-title no".into(),
            format!("dir {}", folder.display()),
        ];
        let Some(certificates) = &self.certificates else {
            lines.push(format!("port {}", port.number()));
            return lines;
        };
        lines.extend([
            "port 0".into(),
            format!("tls-port {}", port.number()),
            format!("tls-cert-file {}", certificates.server_pem().display()),
            format!("tls-key-file {}", certificates.server_key().display()),
            format!("tls-ca-cert-file {}", certificates.ca_pem().display()),
            "tls-auth-clients yes".into(),
            "tls-replication yes".into(),
            "tls-cluster yes".into(),
        ]);
        lines
    }

    fn users(&self, options: &Options) -> Vec<String> {
        let Some(password) = &self.password else {
            return Vec::new();
        };
        let mut lines = vec![
            // Off, but not without permissions: Redis replays its file as this user, and drops the
            // transactions in it that the user may not do.
            "user default off ~* &* +@all".into(),
            format!("user {OWN} on >{password} ~* &* +@all"),
            format!("masteruser {OWN}"),
            format!("masterauth {password}"),
        ];
        let users = options.users.iter();
        lines.extend(users.map(|u| format!("user {} on >{} {}", u.name, u.password, u.rules)));
        lines
    }

    fn process(&self, name: &str, program: &str, lines: &[String], more: &[&str]) -> Process {
        let config = self.folder.path().join(format!("{name}.conf"));
        fs::write(&config, lines.join("\n") + "\n").expect("the configuration can be written");
        let mut arguments = vec![config.display().to_string()];
        arguments.extend(more.iter().map(|&argument| argument.to_owned()));
        Process::new(name, self.folder.path(), program, &arguments)
    }

    /// Where clients find the servers that hold data, as `ip:port`.
    pub fn addresses(&self) -> Vec<String> {
        addresses(&self.servers)
    }

    /// Where clients find the Sentinels.
    pub fn sentinels(&self) -> Vec<String> {
        addresses(&self.sentinels)
    }

    /// The table of a node's configuration file that names it; without the user, where there are
    /// users.
    pub fn table(&self) -> String {
        let cluster = self.sentinels.is_empty() && self.servers.len() > 1;
        let (servers, more) = if cluster {
            (self.addresses(), "mode = \"cluster\"\n".to_owned())
        } else if self.sentinels.is_empty() {
            (self.addresses(), String::new())
        } else {
            let more = format!("mode = \"sentinel\"\nmaster = \"{MASTER}\"\n");
            (self.sentinels(), more)
        };
        let mut table = format!("[state]\nengine = \"redis\"\nservers = {servers:?}\n{more}");
        if let Some(files) = &self.certificates {
            let [ca, cert, key] = [files.ca_pem(), files.client_pem(), files.client_key()];
            table += &format!("tls = {{ ca = {ca:?}, certificate = {cert:?}, key = {key:?} }}\n");
        }
        table
    }

    /// The files for clients that use TLS.
    pub fn certificates(&self) -> Option<&Certificates> {
        self.certificates.as_ref()
    }

    /// Kills a server with SIGKILL.
    pub fn kill(&self, server: usize) {
        self.servers[server].process.kill();
    }

    /// Starts a server again, on its data and address, and waits until it answers.
    pub fn restart(&self, server: usize) {
        self.servers[server].process.start();
        self.wait_answering(server);
    }

    /// Freezes a server.
    pub fn pause(&self, server: usize) {
        self.servers[server].process.pause();
    }

    /// Lets a frozen server go on.
    pub fn resume(&self, server: usize) {
        self.servers[server].process.resume();
    }

    /// Kills all servers that hold data; Sentinels stay.
    pub fn kill_all(&self) {
        for server in &self.servers {
            server.process.kill();
        }
    }

    /// Starts all servers that do not run, and waits until all answer.
    pub fn restart_all(&self) {
        for server in &self.servers {
            server.process.start();
        }
        for server in 0..self.servers.len() {
            self.wait_answering(server);
        }
    }

    /// Kills a Sentinel.
    pub fn kill_sentinel(&self, sentinel: usize) {
        self.sentinels[sentinel].process.kill();
    }

    /// Starts a Sentinel again; it is ready a little later.
    pub fn restart_sentinel(&self, sentinel: usize) {
        self.sentinels[sentinel].process.start();
    }

    /// The server that holds itself for the master and runs, as the majority of Sentinels say;
    /// without Sentinels the first that says so itself.
    pub fn master(&self) -> Option<usize> {
        let votes = self.sentinels.iter().filter_map(|sentinel| {
            let question = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER];
            let told = self.sentinel_says(sentinel, &question)?;
            let (ip, port) = told.trim().split_once('\n')?;
            let address = format!("{}:{}", ip.trim(), port.trim());
            self.addresses().iter().position(|known| *known == address)
        });
        let votes: Vec<usize> = votes.collect();
        let is_master = |server: &usize| {
            let role = self.cli(*server, &["ROLE"]);
            role.is_some_and(|role| role.starts_with("master"))
        };
        let elected = |server: &usize| {
            let count = votes.iter().filter(|vote| *vote == server).count();
            self.sentinels.is_empty() || count > self.sentinels.len() / 2
        };
        (0..self.servers.len()).find(|server| elected(server) && is_master(server))
    }

    /// Waits until every server of a cluster sees all slots served.
    pub fn wait_cluster(&self) {
        self.wait("the cluster is not whole", || {
            (0..self.servers.len()).all(|server| {
                let info = self.cli(server, &["CLUSTER", "INFO"]).unwrap_or_default();
                info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:3")
            })
        });
    }

    /// What a server answers to a command, as `redis-cli` prints it; none when it does not answer,
    /// or with an error.
    pub fn cli(&self, server: usize, arguments: &[&str]) -> Option<String> {
        let server = &self.servers[server];
        if !server.process.is_active() {
            return None;
        }
        let password = self.password.as_deref();
        self.ask(server.address, password, arguments, ANSWER)
    }

    fn sentinel_says(&self, sentinel: &Server, arguments: &[&str]) -> Option<String> {
        if !sentinel.process.is_active() {
            return None;
        }
        self.ask(sentinel.address, None, arguments, ANSWER)
    }

    /// Gives up after `patience`: a frozen server would hold it for ever.
    fn ask(
        &self,
        to: SocketAddr,
        password: Option<&str>,
        arguments: &[&str],
        patience: Duration,
    ) -> Option<String> {
        let mut command = Command::new("timeout");
        command.args([&patience.as_secs().to_string(), "redis-cli"]);
        command.args(["-h", &to.ip().to_string(), "-p", &to.port().to_string()]);
        command.arg("-e");
        if let Some(certificates) = &self.certificates {
            command.arg("--tls");
            command.arg("--cacert").arg(certificates.ca_pem());
            command.arg("--cert").arg(certificates.client_pem());
            command.arg("--key").arg(certificates.client_key());
        }
        if let Some(password) = password {
            command.args(["--user", OWN]).env("REDISCLI_AUTH", password);
        }
        let output = command.args(arguments).output().expect("redis-cli starts");
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        output.status.success().then_some(told)
    }

    /// The folder of data, configuration and logs.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The folder of a server's data.
    pub fn data(&self, server: usize) -> PathBuf {
        self.folder.path().join(format!("redis{server}"))
    }

    /// What a server has printed.
    pub fn log(&self, server: usize) -> String {
        self.servers[server].process.log()
    }

    /// Panics, with the log, when one of the servers has ended by itself.
    pub fn check(&self) {
        for server in self.servers.iter().chain(&self.sentinels) {
            server.process.check();
        }
    }

    /// The process of a server.
    pub fn pid(&self, server: usize) -> Option<u32> {
        self.servers[server].process.pid()
    }

    fn wait_answering(&self, server: usize) {
        let process = &self.servers[server].process;
        let answers = || {
            process.check();
            let told = self.cli(server, &["PING"]);
            told.is_some_and(|told| told.trim() == "PONG")
        };
        let answered = wait_until(READY, answers);
        assert!(answered, "Redis does not answer: {}", process.tail());
    }

    fn wait(&self, what: &str, ready: impl FnMut() -> bool) {
        let logs = || {
            let all = self.servers.iter().chain(&self.sentinels);
            all.map(|server| server.process.tail()).collect::<String>()
        };
        assert!(wait_until(READY, ready), "{what}: {}", logs());
    }
}

fn addresses(servers: &[Server]) -> Vec<String> {
    let addresses = servers.iter().map(|server| server.address.to_string());
    addresses.collect()
}

/// The value of a field in what `redis-cli` prints: name and value on lines that follow each other.
fn field<'a>(told: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = told.lines();
    lines.find(|line| *line == name)?;
    lines.next()
}
