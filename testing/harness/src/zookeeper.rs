//! ZooKeeper: one server, or an ensemble of three.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use crate::netns::Host;
use crate::port::Port;
use crate::process::Process;
use crate::{Certificates, Missing, READY, require, wait_until};

/// Where Debian's packages put their libraries.
const JARS: &str = "/usr/share/java";

/// The libraries that the server needs and its own manifest does not name: TLS by Netty, logging.
const LIBRARIES: [&str; 5] = [
    "zookeeper",
    "netty-codec",
    "netty-resolver",
    "netty-transport-native-unix-common",
    "slf4j-simple",
];

/// A small and short-lived virtual machine: started fast, rather than fast later.
const JAVA: [&str; 4] = [
    "-Xmx128m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Xshare:auto",
];

const MAIN: &str = "org.apache.zookeeper.server.quorum.QuorumPeerMain";

/// How ZooKeeper is started.
#[derive(Debug, Clone)]
pub struct Options {
    /// One server, or an ensemble of three.
    pub servers: usize,
    /// Clients use TLS and need a certificate.
    pub tls: bool,
    /// ZooKeeper's unit of time: a session lives for 2 of them at least, and ends within one of
    /// its time-out.
    pub tick: Duration,
    /// More lines for `zoo.cfg`, as `key=value`.
    pub more: Vec<String>,
    /// Where the servers run, one on each: on this machine's loopback when there are none.
    pub hosts: Vec<Host>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            servers: 1,
            tls: false,
            tick: Duration::from_millis(500),
            more: Vec::new(),
            hosts: Vec::new(),
        }
    }
}

/// Servers that run. Dropped, they and their data are gone.
pub struct ZooKeeper {
    servers: Vec<Server>,
    certificates: Option<Certificates>,
    folder: TempDir,
}

struct Server {
    process: Process,
    /// Where clients connect.
    address: SocketAddr,
    /// Where it answers questions about itself, without TLS.
    plain: SocketAddr,
    data: PathBuf,
    _ports: Ports,
}

/// The ports of one server.
struct Ports {
    plain: Port,
    secure: Port,
    peer: Port,
    election: Port,
}

impl Ports {
    fn take() -> Self {
        Self {
            plain: Port::take(),
            secure: Port::take(),
            peer: Port::take(),
            election: Port::take(),
        }
    }
}

impl ZooKeeper {
    /// Starts the servers and waits until all of them serve.
    pub fn start(options: Options) -> Result<Self, Missing> {
        require("java", "default-jre-headless")?;
        if !Path::new(JARS).join("zookeeper.jar").is_file() {
            return Err(Missing::program("zookeeper.jar", "libzookeeper-java"));
        }
        let zookeeper = Self::prepare(&options);
        zookeeper.restart_all();
        Ok(zookeeper)
    }

    fn prepare(options: &Options) -> Self {
        let folder = crate::folder();
        let certificates = options.tls.then(|| Certificates::make(folder.path(), &[]));
        let ports: Vec<Ports> = (0..options.servers).map(|_| Ports::take()).collect();
        let host = |index: usize| options.hosts.get(index).cloned().unwrap_or_default();
        let members = members(&ports, host);
        let servers = ports.into_iter().enumerate().map(|(index, ports)| {
            let data = folder.path().join(index.to_string());
            fs::create_dir_all(&data).expect("a folder for the data");
            fs::write(data.join("myid"), (index + 1).to_string()).expect("a file can be written");
            let config = folder.path().join(format!("zoo{index}.cfg"));
            let host = host(index);
            let mut text = configuration(options, &host, &ports, &data, certificates.as_ref());
            text.push_str(&members);
            fs::write(&config, text).expect("the configuration can be written");
            let plain = SocketAddr::new(host.address(), ports.plain.number());
            let secure = SocketAddr::new(host.address(), ports.secure.number());
            Server {
                process: process(index, &host, folder.path(), &config),
                address: if options.tls { secure } else { plain },
                plain,
                data,
                _ports: ports,
            }
        });
        Self {
            servers: servers.collect(),
            certificates,
            folder,
        }
    }

    /// Where clients connect, as `ip:port`, one for each server.
    pub fn addresses(&self) -> Vec<String> {
        let addresses = self.servers.iter().map(|server| server.address.to_string());
        addresses.collect()
    }

    /// The table of a node's configuration file that names it.
    pub fn table(&self) -> String {
        let servers = self.addresses();
        let mut table = format!("[coordination]\nengine = \"zookeeper\"\nservers = {servers:?}\n");
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

    /// Starts a server again, on its data and address; waits until it serves, if enough servers
    /// run to elect a leader.
    pub fn restart(&self, server: usize) {
        self.servers[server].process.start();
        let active = self.servers.iter().filter(|s| s.process.is_active());
        if active.count() > self.servers.len() / 2 {
            self.wait_serving(&self.servers[server]);
        }
    }

    /// Freezes a server.
    pub fn pause(&self, server: usize) {
        self.servers[server].process.pause();
    }

    /// Lets a frozen server go on.
    pub fn resume(&self, server: usize) {
        self.servers[server].process.resume();
    }

    /// Kills all servers.
    pub fn kill_all(&self) {
        for server in &self.servers {
            server.process.kill();
        }
    }

    /// Starts all servers that do not run, and waits until all serve.
    pub fn restart_all(&self) {
        for server in &self.servers {
            server.process.start();
        }
        for server in &self.servers {
            self.wait_serving(server);
        }
    }

    /// Rebuilds it from nothing: the addresses stay, all data and sessions are gone.
    pub fn wipe(&self) {
        self.kill_all();
        for server in &self.servers {
            let _ = fs::remove_dir_all(server.data.join("version-2"));
        }
        self.restart_all();
    }

    /// The server that leads, or the only one.
    pub fn leader(&self) -> Option<usize> {
        let leads = |server: &Server| {
            let mode = server.mode();
            mode.is_some_and(|mode| mode == "leader" || mode == "standalone")
        };
        self.servers.iter().position(leads)
    }

    /// Asks a server one of its four-letter questions, as `srvr`, `mntr`, `cons`, `dump`.
    pub fn ask(&self, server: usize, question: &str) -> Option<String> {
        ask(self.servers[server].plain, question)
    }

    /// The folder of data, configuration and logs.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What a server has printed.
    pub fn log(&self, server: usize) -> String {
        self.servers[server].process.log()
    }

    /// Panics, with the log, when one of the servers has ended by itself.
    pub fn check(&self) {
        for server in &self.servers {
            server.process.check();
        }
    }

    /// The process of a server.
    pub fn pid(&self, server: usize) -> Option<u32> {
        self.servers[server].process.pid()
    }

    fn wait_serving(&self, server: &Server) {
        let served = wait_until(READY, || {
            server.process.check();
            server.mode().is_some()
        });
        assert!(
            served,
            "ZooKeeper does not serve: {}",
            server.process.tail()
        );
    }
}

impl Server {
    /// What it says it is, once it serves: `standalone`, `leader` or `follower`.
    fn mode(&self) -> Option<String> {
        if !self.process.is_active() {
            return None;
        }
        let answer = ask(self.plain, "srvr")?;
        let mode = answer
            .lines()
            .find_map(|line| line.strip_prefix("Mode: "))?;
        Some(mode.trim().to_owned())
    }
}

fn ask(address: SocketAddr, question: &str) -> Option<String> {
    const PATIENCE: Duration = Duration::from_secs(2);
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    stream.write_all(question.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

/// The lines that name the servers of an ensemble; none for a single server.
fn members(ports: &[Ports], host: impl Fn(usize) -> Host) -> String {
    if ports.len() == 1 {
        return String::new();
    }
    let lines = ports.iter().enumerate().map(|(index, ports)| {
        let (peer, election) = (ports.peer.number(), ports.election.number());
        let address = host(index).address();
        format!("server.{}={address}:{peer}:{election}\n", index + 1)
    });
    lines.collect()
}

fn configuration(
    options: &Options,
    host: &Host,
    ports: &Ports,
    data: &Path,
    certificates: Option<&Certificates>,
) -> String {
    let tick = options.tick.as_millis().max(1);
    let ticks_of = |millis: u128| (millis / tick).max(5);
    let mut lines = vec![
        format!("tickTime={tick}"),
        format!("initLimit={}", ticks_of(20_000)),
        format!("syncLimit={}", ticks_of(5_000)),
        format!("minSessionTimeout={}", 2 * tick),
        "maxSessionTimeout=60000".into(),
        "maxClientCnxns=0".into(),
        format!("dataDir={}", data.display()),
        format!("clientPort={}", ports.plain.number()),
        format!("clientPortAddress={}", host.address()),
        "admin.enableServer=false".into(),
        "4lw.commands.whitelist=*".into(),
    ];
    if let Some(certificates) = certificates {
        lines.extend([
            format!("secureClientPort={}", ports.secure.number()),
            format!("secureClientPortAddress={}", host.address()),
            "serverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory".into(),
            format!(
                "ssl.keyStore.location={}",
                certificates.server_both().display()
            ),
            format!(
                "ssl.trustStore.location={}",
                certificates.ca_pem().display()
            ),
            "ssl.clientAuth=need".into(),
        ]);
    }
    lines.extend(options.more.iter().cloned());
    lines.join("\n") + "\n"
}

fn process(index: usize, host: &Host, folder: &Path, config: &Path) -> Process {
    let libraries = LIBRARIES.map(|name| format!("{JARS}/{name}.jar"));
    let mut arguments: Vec<String> = JAVA.map(str::to_owned).to_vec();
    arguments.extend([
        "-Dorg.slf4j.simpleLogger.showDateTime=true".into(),
        "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS".into(),
        "-cp".into(),
        libraries.join(":"),
        MAIN.into(),
        config.display().to_string(),
    ]);
    let (program, arguments) = host.wrap("java", arguments);
    Process::new(&format!("zookeeper{index}"), folder, &program, &arguments)
}
