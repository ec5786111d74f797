//! Starts real nodes: free ports, a data folder of their own, and nothing left behind, also after
//! a panic.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::golden::hydrant;

/// Every process that a node starts inherits it: by it the left ones are found.
pub const MARK: &str = "HYDRANT_TEST_MARK";

/// How long a node may take to be ready on a busy machine.
const READY: Duration = Duration::from_secs(30);

/// How long anything else may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// How a node is started.
pub struct Setup {
    folder: Arc<TempDir>,
    arguments: Vec<String>,
    environment: Vec<(&'static str, String)>,
}

impl Setup {
    /// `hydrant up` on free ports and a new data folder.
    pub fn up() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let arguments = ["up", "--public", "127.0.0.1:0", "--local", "127.0.0.1:0"];
        Self {
            folder: Arc::new(folder),
            arguments: arguments.map(str::to_owned).to_vec(),
            environment: Vec::new(),
        }
    }

    /// `hydrant node` with the services of `text`, which is TOML, on free ports.
    pub fn node(text: &str) -> Self {
        let mut setup = Self::up();
        let path = setup.folder.path().join("hydrant.toml");
        let data = setup.data();
        let node = format!(
            "[node]\ndata = {:?}\npublic = \"127.0.0.1:0\"\nlocal = \"127.0.0.1:0\"\n\n{text}",
            data.to_string_lossy()
        );
        fs::write(&path, node).expect("the configuration can be written");
        setup.arguments = vec![
            "node".into(),
            "--config".into(),
            path.to_string_lossy().into(),
        ];
        setup
    }

    /// Adds a configuration file to `up`.
    #[must_use]
    pub fn config(mut self, text: &str) -> Self {
        let path = self.folder.path().join("hydrant.toml");
        fs::write(&path, text).expect("the configuration can be written");
        self.arguments
            .extend(["--config".into(), path.to_string_lossy().into()]);
        self
    }

    /// Another address for `--public` or `--local`.
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
        let mut command = hydrant();
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
        let out = self.folder.path().join("stdout");
        let errors = self.folder.path().join("stderr");
        let begun = Instant::now();
        let child = self
            .command()
            .stdout(File::create(&out).expect("a file for the output"))
            .stderr(
                File::options()
                    .create(true)
                    .append(true)
                    .open(&errors)
                    .expect("a file"),
            )
            .spawn()
            .expect("the binary starts");
        let mut node = Node {
            setup: self,
            child,
            ready_after: Duration::ZERO,
            line: Value::Null,
        };
        node.line = node.wait_ready(&out);
        node.ready_after = begun.elapsed();
        node
    }
}

/// A node that runs. Dropped, it and all that it started are gone.
pub struct Node {
    setup: Setup,
    child: Child,
    line: Value,
    /// How long it took until it was ready.
    pub ready_after: Duration,
}

impl Node {
    fn wait_ready(&mut self, out: &Path) -> Value {
        let end = Instant::now() + READY;
        loop {
            let text = fs::read_to_string(out).unwrap_or_default();
            if let Some((line, _)) = text.split_once('\n') {
                return serde_json::from_str(line).expect("the first line is JSON");
            }
            if let Some(status) = self.child.try_wait().expect("the node can be awaited") {
                panic!(
                    "the node ended before it was ready: {status}\n{}",
                    self.errors()
                );
            }
            assert!(Instant::now() < end, "not ready in time\n{}", self.errors());
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
        let mut command = hydrant();
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
            assert!(
                Instant::now() < end,
                "{what}: not in time\n{}",
                self.errors()
            );
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
            assert!(
                Instant::now() < end,
                "the node did not end\n{}",
                self.errors()
            );
            pause(Duration::from_millis(10));
        }
    }

    /// Kills the node alone with SIGKILL; what it started lives on. Gives the setup, with the same
    /// data folder and addresses, to start it again.
    pub fn kill(mut self) -> Setup {
        let (public, local) = (self.public().to_string(), self.local().to_string());
        self.signal(Signal::KILL);
        self.wait_ended();
        let again = Setup {
            folder: self.setup.folder.clone(),
            arguments: self.setup.arguments.clone(),
            environment: self.setup.environment.clone(),
        }
        .override_address("--public", &public)
        .override_address("--local", &local);
        // The clean-up belongs to the node that comes next.
        std::mem::forget(self);
        again
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
        fs::read_to_string(self.setup.folder.path().join("stderr")).unwrap_or_default()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("what the node told:\n{}", self.errors());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        for pid in marked(self.setup.folder.path()) {
            kill(pid, Signal::KILL);
        }
    }
}

impl Setup {
    /// The living processes of nodes on this folder, and of all that they started.
    pub fn left(&self) -> Vec<u32> {
        marked(self.folder.path())
    }
}

/// Whether the long forms of the tests run.
pub fn is_soak() -> bool {
    std::env::var_os("HYDRANT_SOAK").is_some()
}

/// Whether a program is on this machine.
pub fn is_there(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// Sends a process a signal; one that is gone already is no failure.
pub fn kill(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let _ = kill_process(pid.expect("a process id"), signal);
}

/// The living processes whose environment has the mark of this folder.
pub fn marked(folder: &Path) -> Vec<u32> {
    let mark = format!("{MARK}={}", folder.display());
    let has_mark = |pid: &u32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment
            .split(|byte| *byte == 0)
            .any(|variable| variable == mark.as_bytes())
    };
    let entries = fs::read_dir("/proc").expect("/proc is there").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(has_mark).collect()
}

#[expect(
    clippy::disallowed_methods,
    reason = "these tests have no event loop that it could block"
)]
pub fn pause(time: Duration) {
    std::thread::sleep(time);
}
