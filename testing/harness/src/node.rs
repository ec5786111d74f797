//! Our own nodes: real processes on free ports with a data folder of their own, and nothing left
//! behind, also after a panic.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::port::Port;
use crate::{MARK, kill, marked, pause};

/// How long a node may take to be ready on a busy machine.
const READY: Duration = Duration::from_secs(30);

/// How long anything else may take on a busy machine: also three leases of 30 s, which who died leaves behind.
const PATIENCE: Duration = Duration::from_secs(90);

/// The program, cut off from the environment of whoever runs the tests.
pub fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    for name in [
        "HYDRANT_URL",
        "HYDRANT_TOKEN",
        "HYDRANT_DATA",
        "HYDRANT_LOG",
        "COLUMNS",
    ] {
        command.env_remove(name);
    }
    command
        .env_remove("XDG_DATA_HOME")
        .env("HOME", "/nonexistent");
    command
}

/// How a node is started.
#[derive(Clone)]
pub struct Setup {
    program: PathBuf,
    folder: Arc<TempDir>,
    arguments: Vec<String>,
    environment: Vec<(&'static str, String)>,
    /// Its ports, its own until it is dropped: nobody else listens there while it is down.
    ports: Vec<Arc<Port>>,
}

impl Setup {
    /// `hydrant up` on free ports and a new data folder.
    pub fn up(program: impl Into<PathBuf>) -> Self {
        let mut setup = Self::new(program);
        let [public, local] = [setup.port(), setup.port()].map(|port| format!("127.0.0.1:{port}"));
        let arguments = ["up", "--public", &public, "--local", &local];
        setup.arguments = arguments.map(str::to_owned).to_vec();
        setup
    }

    fn new(program: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            folder: Arc::new(crate::folder()),
            arguments: Vec::new(),
            environment: Vec::new(),
            ports: Vec::new(),
        }
    }

    /// `hydrant node` with the services of `text`, which is TOML, on free ports.
    pub fn node(program: impl Into<PathBuf>, text: &str) -> Self {
        Self::new(program).configured("", text)
    }

    /// Changes it to `hydrant node` with a configuration file: `node` are more lines of `[node]`,
    /// `text` are the tables behind it.
    fn configured(mut self, node: &str, text: &str) -> Self {
        let [public, local] = [self.port(), self.port()];
        let data = self.data();
        let file = format!(
            "[node]\ndata = {:?}\npublic = \"127.0.0.1:{public}\"\nlocal = \"127.0.0.1:{local}\"\n\
             {node}\n{text}",
            data.to_string_lossy()
        );
        let path = self.write(&file);
        self.arguments = vec!["node".into(), "--config".into(), path];
        self
    }

    fn port(&mut self) -> u16 {
        let port = Port::take();
        let number = port.number();
        self.ports.push(Arc::new(port));
        number
    }

    fn write(&self, text: &str) -> String {
        let path = self.folder.path().join("hydrant.toml");
        fs::write(&path, text).expect("the configuration can be written");
        path.to_string_lossy().into()
    }

    /// Adds a configuration file to `up`.
    #[must_use]
    pub fn config(mut self, text: &str) -> Self {
        let path = self.write(text);
        self.arguments.extend(["--config".into(), path]);
        self
    }

    /// Another address for `--public` or `--local` of `up`.
    #[must_use]
    pub fn override_address(mut self, listener: &str, address: &str) -> Self {
        if let Some(at) = self
            .arguments
            .iter()
            .position(|argument| argument == listener)
        {
            self.arguments[at + 1] = address.to_owned();
        }
        self
    }

    /// Sets a variable in the environment of the node.
    #[must_use]
    pub fn env(mut self, name: &'static str, value: String) -> Self {
        self.environment.push((name, value));
        self
    }

    /// The data folder.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// The command that starts the node; its JSON line goes to standard output.
    pub fn command(&self) -> Command {
        let mut command = command(&self.program);
        command
            .arg("--json")
            .args(&self.arguments)
            .envs(self.environment.iter().cloned())
            .env("HOME", self.folder.path())
            .env("HYDRANT_DATA", self.data())
            .env(MARK, self.folder.path())
            .stdin(Stdio::null());
        command
    }

    /// Starts the node and waits until it is ready.
    pub fn start(self) -> Node {
        let mut node = self.spawn();
        node.wait_ready();
        node
    }

    /// Starts the node, and does not wait: [`Node::wait_ready`] does.
    pub fn spawn(self) -> Node {
        let out = File::create(self.out()).expect("a file for the output");
        let errors = File::options()
            .create(true)
            .append(true)
            .open(self.errors())
            .expect("a file for the log");
        let child = self.command().stdout(out).stderr(errors).spawn();
        Node {
            setup: self,
            child: child.expect("the binary starts"),
            begun: Instant::now(),
            ready_after: Duration::ZERO,
            line: Value::Null,
            followed: false,
        }
    }

    fn out(&self) -> PathBuf {
        self.folder.path().join("stdout")
    }

    fn errors(&self) -> PathBuf {
        self.folder.path().join("stderr")
    }

    /// The living processes of nodes on this folder, and of all that they started.
    pub fn left(&self) -> Vec<u32> {
        marked(self.folder.path())
    }
}

/// Servers that belong together: they trust one authority and share their engines. A machine plays
/// all of them, each node with a data folder of its own.
pub struct Fleet {
    program: PathBuf,
    engines: String,
    tls: bool,
    folder: TempDir,
}

impl Fleet {
    /// A fleet that shares the engines that `engines` names: the tables `[coordination]` and
    /// `[state]` of the configuration file.
    pub fn new(program: impl Into<PathBuf>, engines: &str) -> Self {
        let fleet = Self {
            program: program.into(),
            engines: engines.to_owned(),
            tls: false,
            folder: crate::folder(),
        };
        fleet.ca(&[OsStr::new("init"), fleet.authority().as_os_str()]);
        fleet
    }

    /// Nodes prove to each other who they are, and what they say is encrypted.
    #[must_use]
    pub fn with_tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// A node on the server `server` in the zone `zone`; `services` are tables `[[service]]`.
    pub fn server(&self, server: &str, zone: &str, services: &str) -> Setup {
        self.server_with(server, zone, &self.engines, services)
    }

    /// A node whose way to the engines is its own, as through a [`crate::Proxy`].
    pub fn server_with(&self, server: &str, zone: &str, engines: &str, services: &str) -> Setup {
        let credentials = self.credentials(server);
        if !credentials.exists() {
            let authority = self.authority();
            let words = ["issue", server, "--dir"].map(OsStr::new);
            self.ca(&[&words[..], &[authority.as_os_str()]].concat());
        }
        let mut setup = Setup::new(&self.program);
        let peer = setup.port();
        let node = format!("server = \"{server}\"\nzone = \"{zone}\"\n");
        let text = format!(
            "[fleet]\npeer = \"127.0.0.1:{peer}\"\ncredentials = {credentials:?}\ntls = {}\n\n\
             {engines}\n{services}",
            self.tls
        );
        setup.configured(&node, &text)
    }

    /// The folder with what the node of a server proves itself by.
    pub fn credentials(&self, server: &str) -> PathBuf {
        self.authority().join(server)
    }

    /// The folder of the authority.
    pub fn authority(&self) -> PathBuf {
        self.folder.path().join("fleet")
    }

    fn ca(&self, arguments: &[&OsStr]) {
        let mut command = command(&self.program);
        command.arg("ca").args(arguments);
        let output = command.output().expect("the binary starts");
        assert!(
            output.status.success(),
            "{command:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

/// A node that runs. Dropped, it and all that it started are gone.
pub struct Node {
    setup: Setup,
    child: Child,
    line: Value,
    begun: Instant,
    /// How long it took until it was ready.
    pub ready_after: Duration,
    /// Another node follows on the same folder: the clean-up is its.
    followed: bool,
}

impl Node {
    /// Waits until it is ready.
    pub fn wait_ready(&mut self) {
        let end = Instant::now() + READY;
        loop {
            let text = fs::read_to_string(self.setup.out()).unwrap_or_default();
            if let Some((line, _)) = text.split_once('\n') {
                self.line = serde_json::from_str(line).expect("the first line is JSON");
                self.ready_after = self.begun.elapsed();
                return;
            }
            if let Some(status) = self.child.try_wait().expect("the node can be awaited") {
                panic!("the node ended before it was ready: {status}");
            }
            assert!(Instant::now() < end, "not ready in time");
            pause(Duration::from_millis(10));
        }
    }

    /// What it printed when it was ready.
    pub fn line(&self) -> &Value {
        &self.line
    }

    /// The process of the node.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The data folder.
    pub fn data(&self) -> PathBuf {
        self.setup.data()
    }

    /// The public listener, as node.json tells it.
    pub fn public(&self) -> SocketAddr {
        self.address("public")
    }

    /// The local listener, as node.json tells it.
    pub fn local(&self) -> SocketAddr {
        self.address("local")
    }

    fn address(&self, name: &str) -> SocketAddr {
        let text = fs::read_to_string(self.data().join("node.json")).expect("node.json is there");
        let node: Value = serde_json::from_str(&text).expect("node.json is JSON");
        node[name]
            .as_str()
            .expect("an address")
            .parse()
            .expect("an address")
    }

    /// A command line to this node.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = command(&self.setup.program);
        command.arg("--data").arg(self.data()).args(arguments);
        command
    }

    /// Runs a command line to this node.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("the binary starts")
    }

    /// Runs a command line that has to succeed, and gives its JSON.
    pub fn json(&self, arguments: &[&str]) -> Value {
        let output = self.run(&[&["--json"], arguments].concat());
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "{arguments:?}: {}\n{errors}",
            output.status
        );
        serde_json::from_slice(&output.stdout).expect("the output is JSON")
    }

    /// The instances that match.
    pub fn instances(&self, pattern: &str) -> Vec<Value> {
        let listed = self.json(&["list", pattern]);
        listed["instances"].as_array().expect("a list").clone()
    }

    /// Waits until `found` gives something.
    pub fn wait<T>(&self, what: &str, mut found: impl FnMut(&Self) -> Option<T>) -> T {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = found(self) {
                return found;
            }
            assert!(Instant::now() < end, "{what}: not in time");
            pause(Duration::from_millis(50));
        }
    }

    /// Sends the node a signal.
    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal);
    }

    /// Waits until the node has ended by itself.
    pub fn wait_ended(&mut self) -> ExitStatus {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("the node can be awaited") {
                return status;
            }
            assert!(Instant::now() < end, "the node did not end");
            pause(Duration::from_millis(10));
        }
    }

    /// Kills the node alone with SIGKILL; what it started lives on. Gives the setup, with the same
    /// data folder and addresses, to start it again.
    pub fn kill(mut self) -> Setup {
        self.signal(Signal::KILL);
        self.wait_ended();
        self.followed = true;
        self.setup.clone()
    }

    /// Kills the whole server with SIGKILL, the node and all that it started, and gives the setup
    /// to start it again.
    pub fn kill_server(mut self) -> Setup {
        let setup = self.setup.clone();
        self.end();
        self.followed = true;
        setup
    }

    /// The processes that the node, or an earlier one on its data folder, has started.
    pub fn started(&self) -> Vec<u32> {
        let own = self.pid();
        marked(self.setup.folder.path())
            .into_iter()
            .filter(|pid| *pid != own)
            .collect()
    }

    /// What the node told on standard error.
    pub fn errors(&self) -> String {
        fs::read_to_string(self.setup.errors()).unwrap_or_default()
    }

    /// Ends it and all that it started.
    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        for pid in marked(self.setup.folder.path()) {
            kill(pid, Signal::KILL);
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let path = self.setup.errors();
            eprintln!(
                "what the node told ({}):\n{}",
                path.display(),
                self.errors()
            );
        }
        if !self.followed {
            self.end();
        }
    }
}
