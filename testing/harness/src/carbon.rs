//! Carbon: the daemon that takes metrics for Graphite and keeps them in files.

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::port::Port;
use crate::process::Process;
use crate::{READY, wait_until};

/// A value for each second of the last hour.
const SCHEMAS: &str = "[all]\npattern = .*\nretentions = 1s:1h\n";

/// Prints the values of a file that are there, the oldest first.
const READ: &str = "import sys, time, whisper\n\
    for value in whisper.fetch(sys.argv[1], time.time() - 3000)[1]:\n    \
        if value is not None: print(value)";

/// A daemon that runs. Dropped, it and its data are gone.
pub struct Carbon {
    process: Process,
    packages: PathBuf,
    folder: TempDir,
    ports: [Port; 3],
}

impl Carbon {
    /// Starts it from the folder that [`crate::foreign::graphite`] gives, and waits until it takes
    /// metrics.
    pub fn start(packages: &Path) -> Self {
        let folder = crate::folder();
        let ports = [Port::take(), Port::take(), Port::take()];
        let root = folder.path();
        let conf = root.join("conf");
        fs::create_dir_all(&conf).expect("a folder for the configuration");
        fs::create_dir_all(root.join("storage")).expect("a folder for the data");
        fs::write(conf.join("carbon.conf"), configuration(&ports)).expect("the configuration");
        fs::write(conf.join("storage-schemas.conf"), SCHEMAS).expect("the configuration");
        let program = packages.join("bin/carbon-cache.py");
        let arguments = [
            format!("PYTHONPATH={}", packages.display()),
            format!("GRAPHITE_ROOT={}", root.display()),
            "python3".into(),
            program.to_string_lossy().into_owned(),
            "--nodaemon".into(),
            "start".into(),
        ];
        let carbon = Self {
            process: Process::new("carbon", root, "env", &arguments),
            packages: packages.to_owned(),
            folder,
            ports,
        };
        carbon.restart();
        carbon
    }

    /// Where it takes metrics in plain text.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.ports[0].number())
    }

    /// Kills it.
    pub fn kill(&self) {
        self.process.kill();
    }

    /// Starts it again, with the files that it has.
    pub fn restart(&self) {
        // What a killed one leaves keeps the next one from its start.
        let _ = fs::remove_file(self.folder.path().join("storage/carbon-cache-a.pid"));
        self.process.start();
        let is_up = || {
            self.process.check();
            TcpStream::connect(self.address()).is_ok()
        };
        assert!(
            wait_until(READY, is_up),
            "carbon is not up: {}",
            self.process.tail()
        );
    }

    /// The values that it keeps of a metric, the oldest first; none when it does not know it.
    pub fn values(&self, path: &str) -> Vec<f64> {
        let file = format!("storage/whisper/{}.wsp", path.replace('.', "/"));
        let file = self.folder.path().join(file);
        if !file.is_file() {
            return Vec::new();
        }
        let read = Command::new("python3")
            .args(["-c", READ])
            .arg(file)
            .env("PYTHONPATH", &self.packages)
            .output();
        let text = String::from_utf8_lossy(&read.expect("python3 starts").stdout).into_owned();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }
}

fn configuration(ports: &[Port; 3]) -> String {
    let [line, pickle, query] = ports.each_ref().map(Port::number);
    format!(
        "[cache]\n\
         LINE_RECEIVER_INTERFACE = 127.0.0.1\nLINE_RECEIVER_PORT = {line}\n\
         PICKLE_RECEIVER_INTERFACE = 127.0.0.1\nPICKLE_RECEIVER_PORT = {pickle}\n\
         CACHE_QUERY_INTERFACE = 127.0.0.1\nCACHE_QUERY_PORT = {query}\n\
         ENABLE_UDP_LISTENER = False\nMAX_CREATES_PER_MINUTE = inf\nMAX_UPDATES_PER_SECOND = inf\n"
    )
}
