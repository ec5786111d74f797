//! `cargo xtask bench mobile`: `init` beside nginx with the same bytes as a file, and bulk evaluation
//! of 100 flags beside a flag server of reference.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use super::hydrant::{Hydrant, again, read};
use super::wrk::{p99_ms, requests};
use super::{
    Folder, Process, ROUNDS, Result, SECONDS, cargo_build, family_nanos, free_port, median, target,
    which,
};

/// Where the package of the reference server is looked for, and how it is had.
const PACKAGE: &str = "@openfeature/flagd-core@4.0.1";
/// Connections of the rounds that count CPU time.
const CONNECTIONS: u32 = 16;
/// Of those at a fixed rate, and the pause of each between two requests: about 800 a second.
const PACED: (u32, u32) = (16, 20);
/// What an app asks.
const INIT: &str = "/v1/init?platform=ios&version=7.2.1&locale=en-US";
/// The same bytes as a file.
const FILE: &str = "/init.json?";
const BULK: &str = "/ofrep/v1/evaluate/flags";

/// Runs the benchmark and prints tables.
pub fn mobile(root: &Path) -> Result<()> {
    for tool in ["nginx", "wrk", "taskset", "node", "npm"] {
        if which(tool).is_none() {
            return Err(format!(
                "`{tool}` is missing: install the system's package of that name"
            ));
        }
    }
    cargo_build(root, &["-p", "hydrant"])?;
    let bench = Bench::start(root)?;
    bench.init()?;
    bench.bulk()
}

/// What is loaded: whose CPU time counts, where it listens, and what it is asked.
struct Peer<'a> {
    name: &'a str,
    processes: Vec<u32>,
    port: u16,
    path: String,
    script: &'a Path,
    environment: Vec<(&'a str, String)>,
}

struct Bench {
    node: Process,
    nginx: Process,
    proxy: Process,
    reference: Process,
    ports: Ports,
    /// The process of `api/mobile`.
    api: (u32, u16),
    key: String,
    root: PathBuf,
    www: PathBuf,
    _folder: Folder,
}

#[derive(Clone, Copy)]
struct Ports {
    public: u16,
    local: u16,
    nginx: u16,
    proxy: u16,
    reference: u16,
}

impl Bench {
    fn start(root: &Path) -> Result<Self> {
        let folder = Folder::new()?;
        let ports = Ports {
            public: free_port()?,
            local: free_port()?,
            nginx: free_port()?,
            proxy: free_port()?,
            reference: free_port()?,
        };
        let hydrant = Hydrant::new(root, folder.0.join("data"));
        let node = Process::start(
            "0",
            &hydrant.up(ports.public, ports.local, &[]),
            ports.public,
        )?;
        let flags = folder.0.join("flags.json");
        fs::write(&flags, definitions().to_string()).map_err(|error| error.to_string())?;
        let (api, key) = prepare(&hydrant, &flags)?;
        let www = folder.0.join("www");
        fs::create_dir_all(&www).map_err(|error| error.to_string())?;
        let nginx = start_nginx(root, &folder.0, "static.conf", ports.nginx, ports)?;
        let proxy = start_nginx(root, &folder.0, "nginx.conf", ports.proxy, ports)?;
        let reference = start_reference(root, &flags, ports.reference)?;
        Ok(Self {
            node,
            nginx,
            proxy,
            reference,
            ports,
            api,
            key,
            root: root.to_owned(),
            www,
            _folder: folder,
        })
    }

    /// The script of wrk with this name.
    fn script(&self, name: &str) -> PathBuf {
        self.root.join("testing/bench").join(name)
    }

    /// Asked with a key, so that all 100 flags belong to the answer.
    fn init(&self) -> Result<()> {
        let (tag, body) = get(self.api.1, INIT, &self.key)?;
        fs::write(self.www.join("init.json"), &body).map_err(|error| error.to_string())?;
        let (static_tag, _) = get(self.ports.nginx, FILE, &self.key)?;
        println!("\ninit: a body of {} bytes", body.len());
        let tags = |tag: &str| vec![("BENCH_TAG", tag.to_owned())];
        self.compare_init("init, 304", &tags(&tag), &tags(&static_tag))?;
        self.compare_init("init, the whole answer, asked again", &[], &[])?;
        let people = [("BENCH_PEOPLE", "1".to_owned())];
        self.compare_init(
            "init, composed for somebody new each time",
            &people,
            &people,
        )
    }

    /// Beside nginx: our process beside the one with the file, and with the router before it beside
    /// nginx as a proxy before the other.
    fn compare_init(
        &self,
        name: &str,
        asked: &[(&'static str, String)],
        asked_of_nginx: &[(&'static str, String)],
    ) -> Result<()> {
        let script = self.script("get.lua");
        let key = ("BENCH_KEY", self.key.clone());
        let peer = |name, processes, port, path: &str, asked: &[(&'static str, String)]| Peer {
            name,
            processes,
            port,
            path: path.to_owned(),
            script: &script,
            environment: asked.iter().chain([&key]).cloned().collect(),
        };
        let (api, node) = (self.api.0, self.node.0.id());
        let (nginx, proxy) = (self.nginx.0.id(), self.proxy.0.id());
        let ports = self.ports;
        let routed = format!("/api/mobile{INIT}");
        let both = vec![proxy, nginx];
        let peers = [
            peer("api/mobile", vec![api], self.api.1, INIT, asked),
            peer("nginx", vec![nginx], ports.nginx, FILE, asked_of_nginx),
            peer(
                "router + api/mobile",
                vec![node, api],
                ports.public,
                &routed,
                asked,
            ),
            peer(
                "nginx before nginx",
                both,
                ports.proxy,
                FILE,
                asked_of_nginx,
            ),
        ];
        compare(name, &peers, &[(0, 1), (2, 3)])
    }

    fn bulk(&self) -> Result<()> {
        let script = self.script("bulk.lua");
        let key = [("BENCH_KEY", self.key.clone())];
        let peer = |name, processes, port, path: &str| Peer {
            name,
            processes,
            port,
            path: path.to_owned(),
            script: &script,
            environment: key.to_vec(),
        };
        let (api, node) = (self.api.0, self.node.0.id());
        let reference = vec![self.reference.0.id()];
        let routed = format!("/api/mobile{BULK}");
        let peers = [
            peer("api/mobile", vec![api], self.api.1, BULK),
            peer("flagd-core on Node", reference, self.ports.reference, BULK),
            peer(
                "router + api/mobile",
                vec![node, api],
                self.ports.public,
                &routed,
            ),
        ];
        compare("bulk evaluation of 100 flags", &peers, &[(0, 1), (2, 1)])
    }
}

/// One process of `api/mobile`, 100 flags, a key without a rate. Gives the process and its port,
/// and the key.
fn prepare(hydrant: &Hydrant, flags: &Path) -> Result<((u32, u16), String)> {
    let flags = flags.display().to_string();
    let put = [
        "mobile",
        "put",
        "flags/bench",
        &flags,
        "--reason",
        "benchmark",
    ];
    again(|| hydrant.run(&put))?;
    let empty = json!({ "flags": {} }).to_string();
    let demo = hydrant.data.with_file_name("none.json");
    fs::write(&demo, empty).map_err(|error| error.to_string())?;
    let demo = demo.display().to_string();
    let _ = hydrant.run(&[
        "mobile",
        "put",
        "flags/demo",
        &demo,
        "--reason",
        "benchmark",
    ]);
    let create = [
        "mobile",
        "key",
        "create",
        "bench",
        "--role",
        "server",
        "--reason",
        "benchmark",
    ];
    let made: Value = read(&hydrant.run(&create)?)?;
    let key = made["key"].as_str().ok_or("no key was printed")?.to_owned();
    hydrant.run(&["scale", "api/mobile", "1"])?;
    let api = again(|| hydrant.one("api/mobile"))?;
    Ok((api, key))
}

/// nginx with one of the configurations of `testing/bench`; what it stands before is the one with the file.
fn start_nginx(root: &Path, folder: &Path, name: &str, port: u16, ports: Ports) -> Result<Process> {
    let text = fs::read_to_string(root.join("testing/bench").join(name));
    let text = text.map_err(|error| error.to_string())?;
    let text = text
        .replace("{dir}", &folder.display().to_string())
        .replace("{backend1}", &ports.nginx.to_string())
        .replace("{backend2}", &ports.nginx.to_string())
        .replace("{listen}", &port.to_string());
    let path = folder.join(name);
    fs::write(&path, text).map_err(|error| error.to_string())?;
    let command = ["nginx".into(), "-c".into(), path.display().to_string()];
    Process::start("0", &command, port)
}

/// Node finds packages beside the script, so both are in one folder, installed once.
fn start_reference(root: &Path, flags: &Path, port: u16) -> Result<Process> {
    let folder = target(root).join("bench-reference");
    fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
    let script = folder.join("reference-flags.mjs");
    fs::copy(root.join("testing/bench/reference-flags.mjs"), &script)
        .map_err(|error| error.to_string())?;
    if !folder.join("node_modules/@openfeature/flagd-core").is_dir() {
        let options = [
            "--no-audit",
            "--no-fund",
            "--ignore-scripts",
            "--no-package-lock",
        ];
        let installed = Command::new("npm")
            .args(["install", "--prefix", "."])
            .args(options)
            .arg(PACKAGE)
            .current_dir(&folder)
            .status();
        if !installed.is_ok_and(|status| status.success()) {
            return Err(format!("npm can't install {PACKAGE}"));
        }
    }
    let arguments = [script.display(), flags.display()].map(|path| path.to_string());
    let mut command = vec!["node".to_owned()];
    command.extend(arguments);
    command.push(port.to_string());
    Process::start("0", &command, port)
}

/// Interleaves the peers for some rounds: CPU time per request with all connections busy, then the
/// slowest 1 % at a fixed rate. Each of `pairs` puts the first beside the second.
fn compare(name: &str, peers: &[Peer<'_>], pairs: &[(usize, usize)]) -> Result<()> {
    let mut micros = vec![Vec::new(); peers.len()];
    let mut slowest = vec![Vec::new(); peers.len()];
    for round in 0..=ROUNDS {
        for (index, peer) in peers.iter().enumerate() {
            let before = peer.nanos()?;
            let told = peer.load(CONNECTIONS, None)?;
            let spent = peer.nanos()? - before;
            let paced = peer.load(PACED.0, Some(PACED.1))?;
            // The first round warms up.
            if round > 0 {
                micros[index].push(spent as f64 / 1000.0 / requests(&told)? as f64);
                slowest[index].push(p99_ms(&paced)?);
            }
        }
    }
    println!("\n{name}");
    println!(
        "{:<22} {:>15} {:>16} {:>22}",
        "", "CPU µs/request", "ratio", "p99 at a fixed rate"
    );
    for (index, peer) in peers.iter().enumerate() {
        let pair = pairs.iter().find(|(ours, _)| *ours == index);
        let ratio = pair.map(|(_, other)| {
            let ratios = micros[index].iter().zip(&micros[*other]);
            let ratio = median(ratios.map(|(one, other)| one / other).collect());
            format!("{ratio:.2}")
        });
        let ratio = ratio.unwrap_or_default();
        let (cpu, p99) = (
            median(micros[index].clone()),
            median(slowest[index].clone()),
        );
        println!("{:<22} {cpu:>15.1} {ratio:>16} {p99:>19.2} ms", peer.name);
    }
    Ok(())
}

impl Peer<'_> {
    fn nanos(&self) -> Result<u64> {
        self.processes
            .iter()
            .map(|process| family_nanos(*process))
            .sum()
    }

    /// What wrk tells after some seconds; at a fixed rate when each connection pauses.
    fn load(&self, connections: u32, pause_ms: Option<u32>) -> Result<String> {
        let output = Command::new("taskset")
            .args(["-c", "1", "wrk", "-t1", "--latency"])
            .arg(format!("-c{connections}"))
            .arg(format!("-d{SECONDS}s"))
            .arg("-s")
            .arg(self.script)
            .arg(format!("http://127.0.0.1:{}{}", self.port, self.path))
            .envs(self.environment.iter().cloned())
            .env("BENCH_DELAY_MS", pause_ms.unwrap_or(0).to_string())
            .output()
            .map_err(|error| format!("cannot run wrk: {error}"))?;
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        match told.contains("Non-2xx") {
            true => Err(format!("{}: answers that are not good:\n{told}", self.name)),
            false => Ok(told),
        }
    }
}

/// One plain request: the tag and the body of the answer.
fn get(port: u16, path: &str, key: &str) -> Result<(String, Vec<u8>)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).map_err(|error| error.to_string())?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {key}\r\nconnection: close\r\n\r\n"
    );
    let mut answer = Vec::new();
    stream
        .write_all(request.as_bytes())
        .and_then(|()| stream.read_to_end(&mut answer))
        .map_err(|error| error.to_string())?;
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n");
    let end = end.ok_or_else(|| format!("no answer to {path}"))?;
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let tag = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("etag")
            .then(|| value.trim().to_owned())
    });
    let tag = tag.ok_or_else(|| format!("{path} has no tag:\n{head}"))?;
    Ok((tag, answer.split_off(end + 4)))
}

/// 100 flags as teams have them: most are plain, the rest target by country, version, e-mail and
/// share.
fn definitions() -> Value {
    let flags = (0..100).map(|n| (format!("flag-{n:02}"), flag(n)));
    json!({
        "$evaluators": { "staff": { "ends_with": [{ "var": "email" }, "@example.com"] } },
        "flags": Value::Object(flags.collect()),
    })
}

fn flag(n: u32) -> Value {
    let targeting = match n % 10 {
        0..=3 => json!({}),
        4 | 5 => json!({ "if": [{ "in": [{ "var": "country" }, ["de", "fr"]] }, "on", "off"] }),
        6 => json!({ "if": [{ "sem_ver": [{ "var": "version" }, ">=", "7.4.0"] }, "on", "off"] }),
        7 => {
            json!({ "if": [{ "and": [{ "$ref": "staff" }, { ">": [{ "var": "age" }, 40] }] }, "on", "off"] })
        }
        _ => json!({ "fractional": [["on", 20 + n % 60], ["off", 80 - n % 60]] }),
    };
    json!({
        "state": "ENABLED",
        "variants": { "on": true, "off": false },
        "defaultVariant": "off",
        "targeting": targeting,
        "metadata": { "team": format!("team-{}", n % 7) },
    })
}
