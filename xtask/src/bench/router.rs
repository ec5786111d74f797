//! `cargo xtask bench router`: our router beside nginx, HAProxy, Envoy and a relay of bytes.

mod idle;
mod load;
mod options;
mod paced;
mod peers;
mod plot;
mod report;
mod works;

use std::path::{Path, PathBuf};

use super::process::Cpu;
use super::{Folder, Result, cargo_build, median, which};
use options::Options;
use peers::{Field, Kind, Peer};
use report::Table;
use works::{Part, Work};

/// What the peers and the loads of them need, by the names of the system's packages.
const TOOLS: [(&str, &str); 5] = [
    ("nginx", "nginx"),
    ("haproxy", "haproxy"),
    ("wrk", "wrk"),
    ("h2load", "nghttp2-client"),
    ("taskset", "util-linux"),
];

/// Measures what was asked for, prints it, and writes it into docs/benchmarks.md.
pub fn router(root: &Path, arguments: &[&str]) -> Result<()> {
    let options = Options::read(arguments)?;
    for (tool, package) in TOOLS {
        if which(tool).is_none() {
            let mend = format!("install the system's package `{package}`");
            return Err(format!("`{tool}` is missing: {mend}"));
        }
    }
    cargo_build(root, &["-p", "hydrant-router", "--examples"])?;
    let bench = Bench {
        root: root.to_owned(),
        envoy: peers::envoy(root),
        counts_calls: load::counts_calls(),
        options,
    };
    load::prepare()?;
    bench.options.parts.iter().try_for_each(|part| {
        let table = bench.measure(*part)?;
        println!("\n{}", table.text());
        match bench.options.print_only {
            true => Ok(()),
            false => report::write(root, part.id(), &table),
        }
    })
}

struct Bench {
    root: PathBuf,
    /// Its program, where it can be had.
    envoy: Option<PathBuf>,
    counts_calls: bool,
    options: Options,
}

/// One peer's turn at a work.
struct Turn {
    requests: u64,
    cpu: Cpu,
}

/// All that was seen of one peer at a work.
struct Seen {
    kind: Kind,
    turns: Vec<Turn>,
    calls: Option<f64>,
}

impl Turn {
    /// Of a request, in microseconds: user and system.
    fn micros(&self) -> (f64, f64) {
        let (user, system) = self.cpu.user_and_system();
        (user / self.requests as f64, system / self.requests as f64)
    }

    fn sum(&self) -> f64 {
        let (user, system) = self.micros();
        user + system
    }
}

impl Bench {
    fn measure(&self, part: Part) -> Result<Table> {
        match part {
            Part::Work(work) => self.work(work),
            Part::Latency => self.latency(),
            Part::Memory => self.memory(),
        }
    }

    /// Starts the peers anew, so that none is what an earlier work has made of it.
    fn field(&self, kinds: &[Kind], folder: &Folder) -> Result<Field> {
        let here = |kind: &&Kind| **kind != Kind::Envoy || self.envoy.is_some();
        let kinds: Vec<Kind> = kinds.iter().filter(here).copied().collect();
        Field::start(&self.root, folder, self.envoy.as_deref(), &kinds)
    }

    /// The peers take turns for some rounds, of which the first warms up.
    fn work(&self, work: &Work) -> Result<Table> {
        let folder = Folder::new()?;
        let field = self.field(work.peers, &folder)?;
        let new = |peer: &Peer| Seen {
            kind: peer.kind,
            turns: Vec::new(),
            calls: None,
        };
        let mut seen: Vec<Seen> = field.peers.iter().map(new).collect();
        for round in 0..=self.options.rounds {
            for (peer, seen) in field.peers.iter().zip(&mut seen) {
                let turn = self.turn(work, peer)?;
                if round > 0 {
                    seen.turns.push(turn);
                }
            }
        }
        if self.counts_calls {
            for (peer, seen) in field.peers.iter().zip(&mut seen) {
                seen.calls = Some(self.calls(work, peer)?);
            }
        }
        if !self.options.print_only {
            plot::write(&self.root, work.id, &seen)?;
        }
        Ok(self.table(work, &seen))
    }

    fn turn(&self, work: &Work, peer: &Peer) -> Result<Turn> {
        let _idle = idle::open(peer.port, work.idle)?;
        let before = peer.process.cpu()?;
        let requests = work.load.run(&self.root, peer, self.options.seconds)?;
        let cpu = peer.process.cpu()? - before;
        Ok(Turn { requests, cpu })
    }

    fn calls(&self, work: &Work, peer: &Peer) -> Result<f64> {
        let _idle = idle::open(peer.port, work.idle)?;
        work.load.calls(&self.root, peer, self.options.seconds)
    }

    fn table(&self, work: &Work, seen: &[Seen]) -> Table {
        let of = |seen: &Seen, what: &dyn Fn(&Turn) -> f64| {
            median(seen.turns.iter().map(what).collect())
        };
        let ratio = |other: &Seen| {
            let rounds = seen[0].turns.iter().zip(&other.turns);
            median(
                rounds
                    .map(|(ours, theirs)| ours.sum() / theirs.sum())
                    .collect(),
            )
        };
        let row = |one: &Seen| {
            let seconds = f64::from(self.options.seconds);
            vec![
                one.kind.name().to_owned(),
                format!("{:.1}", of(one, &Turn::sum)),
                format!("{:.1}", of(one, &|turn| turn.micros().0)),
                format!("{:.1}", of(one, &|turn| turn.micros().1)),
                format!("{:.0}", of(one, &|turn| turn.requests as f64 / seconds)),
                one.calls.map_or("–".into(), |calls| format!("{calls:.2}")),
                format!("{:.2}", ratio(one)),
            ]
        };
        Table {
            title: format!("{}: {}", work.id, work.what),
            columns: vec![
                "",
                "CPU µs per request",
                "user",
                "system",
                "requests/s",
                "syscalls per request",
                "ratio of the first to it",
            ],
            rows: seen.iter().map(row).collect(),
            note: self.note(),
            plot: Some(work.id),
        }
    }

    /// At a fixed rate: how much longer a request takes than without a proxy.
    fn latency(&self) -> Result<Table> {
        let folder = Folder::new()?;
        let field = self.field(&works::PLAIN, &folder)?;
        let mut added = vec![Vec::new(); field.peers.len()];
        for round in 0..=self.options.rounds {
            let direct = paced::run(field.backend, self.options.seconds)?;
            for (peer, added) in field.peers.iter().zip(&mut added) {
                let through = paced::run(peer.port, self.options.seconds)?;
                if round > 0 {
                    added.push((through.p50 - direct.p50, through.p99 - direct.p99));
                }
            }
        }
        let row = |(peer, added): (&Peer, &Vec<(f64, f64)>)| {
            let of = |what: fn(&(f64, f64)) -> f64| median(added.iter().map(what).collect());
            let (p50, p99) = (of(|added| added.0), of(|added| added.1));
            vec![
                peer.kind.name().into(),
                format!("{p50:.0}"),
                format!("{p99:.0}"),
            ]
        };
        Ok(Table {
            title: format!(
                "Added latency: GET 200 B at {} requests a second",
                paced::RATE
            ),
            columns: vec!["", "added p50, µs", "added p99, µs"],
            rows: field.peers.iter().zip(&added).map(row).collect(),
            note: self.note(),
            plot: None,
        })
    }

    /// Of each peer as it was started, and with connections that have each served a request.
    fn memory(&self) -> Result<Table> {
        let folder = Folder::new()?;
        let field = self.field(&works::PROXIES, &folder)?;
        let row = |peer: &Peer| {
            let mut row = vec![peer.kind.name().to_owned()];
            let bare = peer.process.resident();
            row.push(megabytes(bare));
            let mut held = Vec::new();
            for count in idle::COUNTS {
                held.push(idle::open(
                    peer.port,
                    count - held.iter().map(Vec::len).sum::<usize>(),
                )?);
                row.push(megabytes(peer.process.resident().saturating_sub(bare)));
            }
            Ok(row)
        };
        Ok(Table {
            title: "Memory of idle connections, each of which has served a request".into(),
            columns: vec![
                "",
                "bare, MB",
                "with 1,000, MB more",
                "with 10,000, MB more",
            ],
            rows: field.peers.iter().map(row).collect::<Result<_>>()?,
            note: report::today(),
            plot: None,
        })
    }

    fn note(&self) -> String {
        let Options {
            rounds, seconds, ..
        } = self.options;
        format!("{rounds} rounds of {seconds} s; {}", report::today())
    }
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / 1_000_000.0)
}
