//! `cargo xtask bench submissions`: submissions that are acknowledged, beside a bare loop that inserts the same
//! rows into the same tables, one transaction each, with the same number at the same time.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use hydrant_harness::mariadb::{DATABASE, MariaDb, Options};

use super::hydrant::{Hydrant, again};
use super::wrk::{p99_ms, requests};
use super::{
    Folder, Process, ROUNDS, Result, cargo_build, family_nanos, free_port, median, target, which,
};

/// How many are under way at the same time.
const CONNECTIONS: u32 = 64;
/// How long each takes its turn.
const SECONDS: u32 = 8;
/// How long the events of a turn are sealed after it, at most.
const SEALED: Duration = Duration::from_secs(3);
const PATH: &str = "/api/submissions/v1/submissions";
/// The one that is sent again and again.
const REPLAYED: &str = "0b9c1f0e-7a51-4c44-9d4e-2f6a5d1c8e77";
/// The services whose CPU time counts, beside the node.
const SERVICES: [&str; 2] = ["api/submissions", "service/submissions"];

/// Runs the benchmark and prints a table for each database.
pub fn submissions(root: &Path) -> Result<()> {
    for tool in ["wrk", "taskset"] {
        if which(tool).is_none() {
            let mend = "install the system's package of that name";
            return Err(format!("`{tool}` is missing: {mend}"));
        }
    }
    cargo_build(root, &["-p", "hydrant"])?;
    cargo_build(
        root,
        &["-p", "hydrant-records", "--example", "bare_inserts"],
    )?;
    on_sqlite(root)?;
    on_mariadb(root)
}

fn on_sqlite(root: &Path) -> Result<()> {
    let folder = Folder::new()?;
    let data = folder.0.join("data");
    let file = data.join("submissions/records.db");
    let bare = vec![format!("sqlite:{}", file.display())];
    Bench::start(root, data, &[], bare)?.measure("SQLite")
}

fn on_mariadb(root: &Path) -> Result<()> {
    let server = match MariaDb::start(Options::default()) {
        Ok(server) => server,
        Err(missing) => {
            println!("\nMariaDB: not measured: {missing}");
            return Ok(());
        }
    };
    let folder = Folder::new()?;
    let config = folder.0.join("hydrant.toml");
    std::fs::write(&config, server.table()).map_err(|error| error.to_string())?;
    let more = ["--config".to_owned(), config.display().to_string()];
    let password = server.password_file().display().to_string();
    let bare = vec![server.url(DATABASE), password];
    Bench::start(root, folder.0.join("data"), &more, bare)?.measure("MariaDB")
}

/// What is loaded, and what it is put beside.
struct Bench {
    node: Process,
    processes: Vec<u32>,
    public: u16,
    scripts: PathBuf,
    bare: Command,
}

/// One turn.
#[derive(Default)]
struct Turn {
    a_second: f64,
    p99_ms: f64,
    /// CPU time of node and services for each request, in microseconds.
    cpu_micros: f64,
}

impl Bench {
    /// `more` goes to the node, `bare` is the database: its URL, and the file with its password.
    fn start(root: &Path, data: PathBuf, more: &[String], bare: Vec<String>) -> Result<Self> {
        let (public, local) = (free_port()?, free_port()?);
        let hydrant = Hydrant::new(root, data);
        let node = Process::start("0-1", &hydrant.up(public, local, more), public)?;
        let scripts = root.join("testing/bench");
        let mut command = Command::new(target(root).join("release/examples/bare_inserts"));
        let (url, password) = bare.split_at(1);
        let load = [CONNECTIONS, SECONDS].map(|number| number.to_string());
        command.args(url).args(load).args(password);
        let mut processes = vec![node.0.id()];
        for service in SERVICES {
            let all = again(|| hydrant.processes(service))?;
            processes.extend(all.iter().map(|(pid, _)| pid));
        }
        Ok(Self {
            node,
            processes,
            public,
            scripts,
            bare: command,
        })
    }

    /// All take turns for some rounds; what is told is the median.
    fn measure(mut self, database: &str) -> Result<()> {
        // It makes the tables, too.
        again(|| self.send(Some(REPLAYED)))?;
        let mut turns: [Vec<Turn>; 3] = Default::default();
        for round in 0..=ROUNDS {
            let now = [self.send(None)?, self.bare()?, self.send(Some(REPLAYED))?];
            // The first round warms up.
            if round > 0 {
                turns
                    .iter_mut()
                    .zip(now)
                    .for_each(|(turns, turn)| turns.push(turn));
            }
        }
        drop(self.node);
        let [ours, bare, replayed] = &turns;
        let ratios = ours
            .iter()
            .zip(bare)
            .map(|(one, other)| one.a_second / other.a_second);
        println!("\n{database}, {CONNECTIONS} at the same time");
        println!(
            "{:<26} {:>10} {:>12} {:>18} {:>10}",
            "", "a second", "p99", "CPU µs/request", "ratio"
        );
        let ratio = format!("{:.2}", median(ratios.collect()));
        tell("submissions", ours, &ratio);
        tell("bare inserts", bare, "");
        tell("the same one, replayed", replayed, "");
        Ok(())
    }

    /// Sends submissions: under new ids, or one again and again.
    fn send(&self, id: Option<&str>) -> Result<Turn> {
        let before = self.nanos()?;
        let output = Command::new("wrk")
            .args(["-t1", "--latency"])
            .arg(format!("-c{CONNECTIONS}"))
            .arg(format!("-d{SECONDS}s"))
            .arg("-s")
            .arg(self.scripts.join("submissions.lua"))
            .arg(format!("http://127.0.0.1:{}{PATH}", self.public))
            .envs(id.map(|id| ("BENCH_ID", id)))
            .output();
        let told = told(output)?;
        if told.contains("Non-2xx") {
            return Err(format!("answers that are not good:\n{told}"));
        }
        let spent = self.nanos()? - before;
        let mut turn = Turn::read(&told)?;
        turn.cpu_micros = spent as f64 / 1000.0 / requests(&told)? as f64;
        Ok(turn)
    }

    /// After a pause, in which the service seals the events of the turn before.
    fn bare(&mut self) -> Result<Turn> {
        hydrant_harness::pause(SEALED);
        Turn::read(&told(self.bare.output())?)
    }

    fn nanos(&self) -> Result<u64> {
        self.processes
            .iter()
            .map(|process| family_nanos(*process))
            .sum()
    }
}

impl Turn {
    fn read(told: &str) -> Result<Self> {
        Ok(Self {
            a_second: requests(told)? as f64 / f64::from(SECONDS),
            p99_ms: p99_ms(told)?,
            cpu_micros: 0.0,
        })
    }
}

fn told(output: std::io::Result<std::process::Output>) -> Result<String> {
    let output = output.map_err(|error| error.to_string())?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

fn tell(name: &str, turns: &[Turn], ratio: &str) {
    let of = |what: fn(&Turn) -> f64| median(turns.iter().map(what).collect());
    let (a_second, p99) = (of(|turn| turn.a_second), of(|turn| turn.p99_ms));
    let cpu = match of(|turn| turn.cpu_micros) {
        0.0 => String::new(),
        micros => format!("{micros:.0}"),
    };
    println!("{name:<26} {a_second:>10.0} {p99:>9.1} ms {cpu:>18} {ratio:>10}");
}
