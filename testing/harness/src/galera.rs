//! A Galera cluster of MariaDB: several servers that all take writes, and agree at each commit.

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use crate::mariadb::{DATABASE, MariaDb, Options, PASSWORD, USER};
use crate::port::Port;
use crate::process::Process;
use crate::{Missing, READY, is_there, require, secondary, wait_until};

/// Where the system's package `galera-4` has its library.
const LIBRARY: &str = "/usr/lib/galera/libgalera_smm.so";
/// What the cluster is called.
const NAME: &str = "hydrant";
/// Who owns what `rsync` writes when it is started as root.
const NOBODY: u32 = 65_534;

/// A cluster that runs. Dropped, it and its data are gone.
pub struct Galera {
    nodes: Vec<Node>,
    /// Servers outside can follow it.
    is_replicated: bool,
    arbitrator: Option<Arbitrator>,
}

/// Has a vote and no data: with it a pair outlives the loss of one.
struct Arbitrator {
    process: Process,
    _group: Port,
    _folder: TempDir,
}

struct Node {
    server: MariaDb,
    /// Where it hears of the others.
    group: Port,
    /// Where it gets what it has missed.
    missed: Port,
    /// Where it gets everything.
    all: Port,
}

impl Galera {
    /// Starts so many servers; less than three do not outlive the loss of one.
    pub fn start(servers: usize) -> Result<Self, Missing> {
        Self::start_so(servers, false)
    }

    /// The same, of which each server can have a [secondary](MariaDb::secondary). One that was killed and has joined
    /// again begins a new log: what has followed it follows another one.
    pub fn replicated(servers: usize) -> Result<Self, Missing> {
        Self::start_so(servers, true)
    }

    fn start_so(servers: usize, is_replicated: bool) -> Result<Self, Missing> {
        MariaDb::require()?;
        if !Path::new(LIBRARY).exists() {
            let reason = format!("{LIBRARY} is not here; install the system's package `galera-4`");
            return Err(Missing::because(reason));
        }
        if !is_there("rsync") {
            return Err(Missing::program("rsync", "rsync"));
        }
        let first = Node::first(is_replicated)?;
        let mut cluster = Self {
            nodes: vec![first],
            is_replicated,
            arbitrator: None,
        };
        for _ in 1..servers {
            cluster
                .nodes
                .push(Node::new(MariaDb::make(&Options::default())));
            cluster.join(cluster.nodes.len() - 1);
        }
        // From now on it would join the others, and not begin a cluster of its own.
        cluster.configure(0);
        Ok(cluster)
    }

    /// Starts two [replicated](Self::replicated) servers and an arbitrator.
    pub fn pair() -> Result<Self, Missing> {
        require("garbd", "galera-arbitrator-4")?;
        let mut cluster = Self::replicated(2)?;
        cluster.arbitrator = Some(Arbitrator::start(&cluster.group()));
        cluster.wait_size(0, 3);
        Ok(cluster)
    }

    /// The table of a node's configuration file that names all servers, from `near` on.
    pub fn table(&self, near: usize) -> String {
        let (url, password) = (self.url(near), self.node(0).password_file());
        format!("[records]\nurl = {url:?}\npassword_file = {password:?}\n")
    }

    /// All servers, from `near` on.
    pub fn url(&self, near: usize) -> String {
        let nodes = self.nodes.iter().cycle().skip(near).take(self.nodes.len());
        let servers: Vec<_> = nodes
            .map(|node| node.server.address().to_string())
            .collect();
        format!("mysql://{USER}@{}/{DATABASE}", servers.join(","))
    }

    /// A server.
    pub fn node(&self, node: usize) -> &MariaDb {
        &self.nodes[node].server
    }

    /// Lets a server that was killed join again: it gets all data from the others.
    pub fn join(&self, node: usize) {
        let server = self.node(node);
        let data = server.data();
        let _ = fs::remove_dir_all(&data);
        fs::create_dir(&data).expect("a folder for the data");
        give_to_rsync(&data);
        self.configure(node);
        server.write_password(PASSWORD);
        server.restart();
        let joined = wait_until(READY, || self.is_synced(node));
        assert!(joined, "a server does not join");
    }

    /// Lets a server that was killed join again with its data: it gets what it has missed, and goes on with its log.
    pub fn rejoin(&self, node: usize) {
        give_to_rsync(&self.node(node).data());
        let position = self.node(node).recover();
        let lines = format!("wsrep_start_position={position}");
        self.configure_with(node, &[lines]);
        self.node(node).restart();
        self.configure(node);
        let joined = wait_until(READY, || self.is_synced(node));
        assert!(joined, "a server does not join again");
    }

    /// Kills all of it.
    pub fn kill_all(&self) {
        if let Some(arbitrator) = &self.arbitrator {
            arbitrator.process.kill();
        }
        self.nodes.iter().for_each(|node| node.server.kill());
    }

    /// Lets a server begin the cluster anew with what it has, after all were killed. The others can
    /// [join](Self::join) it.
    pub fn bootstrap(&self, node: usize) {
        let server = &self.nodes[node];
        // As whoever does so in earnest: it was not the last to leave in good order, and nobody else goes on.
        let state = server.server.data().join("grastate.dat");
        let told = fs::read_to_string(&state).expect("the state of its group");
        let told = told.replace("safe_to_bootstrap: 0", "safe_to_bootstrap: 1");
        fs::write(&state, told).expect("the state of its group");
        let of_log = self.is_replicated.then_some(node);
        server.server.configure(&server.lines("", of_log));
        server.server.restart();
        self.configure(node);
    }

    /// Cuts a server off from the others, or ends that: it runs on and answers clients, but no word goes between
    /// it and the group.
    pub fn isolate(&self, node: usize, isolated: bool) {
        let option = format!("gmcast.isolate={}", u8::from(isolated));
        let set = format!("SET GLOBAL wsrep_provider_options='{option}'");
        assert!(self.node(node).sql(&set).is_some(), "{set}");
    }

    /// Panics, with its log, when the arbitrator has ended by itself.
    pub fn check(&self) {
        if let Some(arbitrator) = &self.arbitrator {
            arbitrator.process.check();
        }
    }

    /// Waits until a server sees so many of them, itself included, and takes writes.
    pub fn wait_size(&self, node: usize, servers: usize) {
        let sees = || {
            self.status(node, "wsrep_cluster_size").as_deref() == Some(&servers.to_string())
                && self.status(node, "wsrep_ready").as_deref() == Some("ON")
        };
        assert!(wait_until(READY, sees), "the cluster has another size");
    }

    /// Whether a server is in the cluster and has all that it missed.
    pub fn is_synced(&self, node: usize) -> bool {
        self.status(node, "wsrep_local_state_comment").as_deref() == Some("Synced")
    }

    fn status(&self, node: usize, name: &str) -> Option<String> {
        let told = self.node(node).sql(&format!("SHOW STATUS LIKE '{name}'"))?;
        Some(told.trim().split_once('\t')?.1.to_owned())
    }

    fn configure(&self, node: usize) {
        self.configure_with(node, &[]);
    }

    fn configure_with(&self, node: usize, more: &[String]) {
        let of_log = self.is_replicated.then_some(node);
        let node = &self.nodes[node];
        let lines = node.lines(&self.group(), of_log);
        node.server.configure(&[&lines, more].concat());
    }

    /// Where the servers hear of each other.
    fn group(&self) -> String {
        let groups = self.nodes.iter().map(|node| node.group.number());
        let groups: Vec<String> = groups.map(|port| format!("127.0.0.1:{port}")).collect();
        groups.join(",")
    }
}

fn give_to_rsync(data: &Path) {
    if rustix::process::geteuid().is_root() {
        let given = std::os::unix::fs::chown(data, Some(NOBODY), Some(NOBODY));
        given.expect("the folder can be given to rsync");
    }
}

impl Arbitrator {
    fn start(group: &str) -> Self {
        let (port, folder) = (Port::take(), crate::folder());
        let arguments = [
            format!("--address=gcomm://{group}"),
            format!("--group={NAME}"),
            format!(
                "--options=gmcast.listen_addr=tcp://127.0.0.1:{port}",
                port = port.number()
            ),
            format!("--workdir={}", folder.path().display()),
        ];
        let process = Process::new("garbd", folder.path(), "garbd", &arguments);
        process.start();
        Self {
            process,
            _group: port,
            _folder: folder,
        }
    }
}

impl Node {
    fn new(server: MariaDb) -> Self {
        Self {
            server,
            group: Port::take(),
            missed: Port::take(),
            all: Port::take(),
        }
    }

    /// The one that the others join. As a single server it makes the user and the database.
    fn first(is_replicated: bool) -> Result<Self, Missing> {
        let of_log = is_replicated.then_some(0);
        let options = Options {
            more: log_lines(of_log),
            ..Options::default()
        };
        let node = Self::new(MariaDb::start(options)?);
        node.server.kill();
        node.server.configure(&node.lines("", of_log));
        node.server.restart();
        Ok(node)
    }

    fn lines(&self, cluster: &str, of_log: Option<usize>) -> Vec<String> {
        let mut lines = log_lines(of_log);
        let [group, missed, all] = [&self.group, &self.missed, &self.all].map(Port::number);
        lines.extend([
            "binlog_format=ROW".into(),
            "innodb_autoinc_lock_mode=2".into(),
            "wsrep_on=ON".into(),
            format!("wsrep_provider={LIBRARY}"),
            format!("wsrep_cluster_name={NAME}"),
            format!("wsrep_cluster_address=gcomm://{cluster}"),
            "wsrep_node_address=127.0.0.1".into(),
            format!(
                "wsrep_provider_options=\"gmcast.listen_addr=tcp://127.0.0.1:{group};\
                 ist.recv_addr=127.0.0.1:{missed};gcache.size=16M\""
            ),
            "wsrep_sst_method=rsync".into(),
            format!("wsrep_sst_receive_address=127.0.0.1:{all}"),
        ]);
        lines
    }
}

/// The lines for the log of a server that others follow. What the cluster commits has one number in all logs, and is
/// of one origin; what a server does alone is of its own.
fn log_lines(server: Option<usize>) -> Vec<String> {
    let Some(server) = server else {
        return Vec::new();
    };
    let mut lines = secondary::log(1).to_vec();
    lines.extend([
        "wsrep_gtid_mode=ON".into(),
        "wsrep_gtid_domain_id=1".into(),
        format!("gtid_domain_id={}", 100 + server),
    ]);
    lines
}
