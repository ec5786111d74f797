//! SeaweedFS: an S3 store in one process, which nobody of this project wrote.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::port::Port;
use crate::process::Process;
use crate::{READY, foreign, wait_until};

/// The credentials that it takes.
const ACCESS_KEY: &str = "AKIAEXAMPLE";
const SECRET_KEY: &str = "secret";
/// The bucket; it is made by the first write.
const BUCKET: &str = "hydrant";

/// The ports that it needs: for each of its parts one for HTTP and one for gRPC.
const PORTS: [&str; 8] = [
    "master.port",
    "master.port.grpc",
    "volume.port",
    "volume.port.grpc",
    "filer.port",
    "filer.port.grpc",
    "s3.port",
    "s3.port.grpc",
];

/// A store that runs. Dropped, it and its data are gone.
pub struct SeaweedFs {
    process: Process,
    ports: Vec<Port>,
    folder: TempDir,
}

impl SeaweedFs {
    /// Starts one. When it can't be had, that is said aloud. `target` is the tests' `CARGO_TARGET_TMPDIR`.
    pub fn start(target: &Path) -> Option<Self> {
        let program = foreign::pypi(target)?.join("bin/weed");
        let folder = crate::folder();
        let ports: Vec<_> = PORTS.iter().map(|_| Port::take()).collect();
        let arguments = arguments(folder.path(), &ports);
        let identity = format!(
            r#"{{"identities":[{{"name":"hydrant","actions":["Admin","Read","Write","List"],
            "credentials":[{{"accessKey":"{ACCESS_KEY}","secretKey":"{SECRET_KEY}"}}]}}]}}"#
        );
        fs::write(folder.path().join("s3.json"), identity).expect("a file");
        let credentials =
            format!("access_key_id = \"{ACCESS_KEY}\"\nsecret_access_key = \"{SECRET_KEY}\"\n");
        fs::write(folder.path().join("s3.toml"), credentials).expect("a file");
        let program = program.to_string_lossy();
        let store = Self {
            process: Process::new("seaweedfs", folder.path(), &program, &arguments),
            ports,
            folder,
        };
        store.restart();
        Some(store)
    }

    /// The URL of its S3.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.s3())
    }

    /// The lines of `[objects]`, or of `[objects.far]`, for a store of this name.
    pub fn lines(&self, name: &str) -> String {
        format!(
            "name = \"{name}\"\nurl = \"s3://{BUCKET}/{name}\"\nendpoint = \"{}\"\ncredentials_file = {:?}\n",
            self.endpoint(),
            self.credentials()
        )
    }

    /// The file with its credentials.
    pub fn credentials(&self) -> PathBuf {
        self.folder.path().join("s3.toml")
    }

    /// Its process, to end or to freeze it.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Starts it, if it does not run, and waits until it answers.
    pub fn restart(&self) {
        self.process.start();
        let address = ("127.0.0.1", self.s3());
        let ready = wait_until(READY, || {
            self.process.check();
            std::net::TcpStream::connect(address).is_ok()
        });
        assert!(ready, "not ready: {}", self.process.tail());
    }

    fn s3(&self) -> u16 {
        self.ports[6].number()
    }
}

fn arguments(folder: &Path, ports: &[Port]) -> Vec<String> {
    let folder = folder.to_string_lossy();
    let named = PORTS.iter().zip(ports);
    let named = named.map(|(name, port)| format!("-{name}={}", port.number()));
    let fixed = [
        "server".into(),
        format!("-dir={folder}"),
        "-ip=127.0.0.1".into(),
        "-ip.bind=127.0.0.1".into(),
        "-master.telemetry=false".into(),
        "-master.volumeSizeLimitMB=64".into(),
        "-volume.max=20".into(),
        "-filer".into(),
        format!("-filer.localSocket={folder}/filer.sock"),
        "-s3".into(),
        "-s3.config=s3.json".into(),
        "-s3.port.iceberg=0".into(),
        "-s3.port.lance=0".into(),
    ];
    fixed.into_iter().chain(named).collect()
}
