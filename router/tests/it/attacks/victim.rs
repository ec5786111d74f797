//! A router in a process of its own, so that what an attack costs it can be told from what the attack
//! costs its attacker, and a client beside the attack that wants nothing but its answers.

use std::fmt;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hydrant_contracts::{Instance, PathPrefix};
use hydrant_router::{Limits, Table};

use crate::raw::{Wire, instance, pause, router_with};

/// Tells the process which instance it has, whether that speaks HTTP/2, and its limits in milliseconds.
const ORDER: &str = "HYDRANT_TEST_VICTIM";
const LISTENS: &str = "LISTENS ";

/// The program of the process below; a test only by its name, so that this very file can be started.
#[test]
fn stands_for_the_router_of_the_other_tests() {
    let Ok(order) = std::env::var(ORDER) else {
        return;
    };
    let mut order = order.split(' ');
    let address = order.next().unwrap().parse().unwrap();
    let mut instance = instance("t-0", address);
    instance.http2 = order.next() == Some("http2");
    let limit = Duration::from_millis(order.next().unwrap().parse().unwrap());
    let limits = Limits {
        head: limit,
        send: limit,
        ..Limits::default()
    };
    let router = router_with(limits, 1, &[]);
    router.publish(&Table::of_one_server(&[other(&instance), instance]));
    println!("\n{LISTENS}{}", router.public_addr());
    // Until the test that has started it lets go.
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

/// An instance of another service, `api/u`, in the same process: what one has too much of, is nothing to
/// the other.
fn other(instance: &Instance) -> Instance {
    let service = "api/u".parse().unwrap();
    Instance {
        id: "u-0".parse().unwrap(),
        prefixes: vec![PathPrefix::new(&service, "/api/u/", true).unwrap()],
        repeatable_paths: Vec::new(),
        service,
        ..instance.clone()
    }
}

/// A router with one worker in a process of its own.
pub struct Victim {
    process: Child,
    pub address: SocketAddr,
}

impl Victim {
    /// A head must come within `limit`, and bytes that wait be taken.
    pub fn start(instance: SocketAddr, http2: bool, limit: Duration) -> Self {
        let protocol = if http2 { "http2" } else { "http1" };
        let name = concat!(module_path!(), "::stands_for_the_router_of_the_other_tests");
        let name = name.split_once("::").map_or(name, |(_, name)| name);
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args([name, "--exact", "--nocapture"])
            .env(
                ORDER,
                format!("{instance} {protocol} {}", limit.as_millis()),
            )
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let address = lines.find_map(|line| line.unwrap().strip_prefix(LISTENS)?.parse().ok());
        Self {
            process,
            address: address.expect("the router listens"),
        }
    }

    pub fn client(&self) -> Wire {
        Wire::connect(self.address)
    }

    /// What it holds of memory, in bytes.
    pub fn memory(&self) -> i64 {
        let text = std::fs::read_to_string(format!("/proc/{}/statm", self.process.id()));
        let text = text.expect("the router lives");
        let pages = text
            .split(' ')
            .nth(1)
            .and_then(|pages| pages.parse::<i64>().ok());
        pages.expect("a number of pages") * 4096
    }

    /// What it has used of processors.
    pub fn cpu(&self) -> Duration {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", self.process.id()));
        let text = text.expect("the router lives");
        let fields: Vec<&str> = text.rsplit(") ").next().unwrap().split(' ').collect();
        let ticks = |at: usize| fields[at].parse::<u64>().unwrap();
        Duration::from_millis((ticks(11) + ticks(12)) * 10)
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What an attack costs: begun before it, and told after it.
pub struct Cost<'a> {
    victim: &'a Victim,
    memory: i64,
    cpu: Duration,
    began: Instant,
    bystander: Bystander,
}

/// What it has cost.
pub struct Figures {
    /// More memory than before, in megabytes.
    pub megabytes: i64,
    pub cpu: Duration,
    pub took: Duration,
    /// How many answers the client beside it got, and how long it waited for the slowest.
    pub served: usize,
    pub slowest: Duration,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} MB more, {:?} of a processor in {:?}; {} others served, the slowest in {:?}",
            self.megabytes, self.cpu, self.took, self.served, self.slowest
        )
    }
}

impl<'a> Cost<'a> {
    pub fn of(victim: &'a Victim) -> Self {
        // What the first request makes is not the attack's.
        assert_eq!(victim.client().get("/api/u/good").status(), 200);
        Self {
            victim,
            memory: victim.memory(),
            cpu: victim.cpu(),
            began: Instant::now(),
            bystander: Bystander::start(victim.address),
        }
    }

    /// Tells the figures, and that the client beside the attack got every answer.
    pub fn told(self, attack: &str) -> Figures {
        let megabytes = (self.victim.memory() - self.memory) / 1_000_000;
        let (served, slowest) = self.bystander.end();
        let figures = Figures {
            megabytes,
            cpu: self.victim.cpu() - self.cpu,
            took: self.began.elapsed(),
            served,
            slowest,
        };
        println!("{attack}: {figures}");
        assert!(served > 0, "{attack}: nobody else was served");
        figures
    }
}

/// A client that asks another service again and again, and fails the test when it gets no answer.
struct Bystander {
    ended: Arc<AtomicBool>,
    thread: JoinHandle<(usize, Duration)>,
}

impl Bystander {
    fn start(address: SocketAddr) -> Self {
        let ended = Arc::<AtomicBool>::default();
        let asked = Arc::clone(&ended);
        let thread = std::thread::spawn(move || {
            let (mut served, mut slowest) = (0, Duration::ZERO);
            let mut wire = Wire::connect(address);
            while !asked.load(Ordering::SeqCst) || served == 0 {
                let began = Instant::now();
                assert_eq!(wire.get("/api/u/good").status(), 200);
                slowest = slowest.max(began.elapsed());
                served += 1;
                pause(Duration::from_millis(2));
            }
            (served, slowest)
        });
        Self { ended, thread }
    }

    fn end(self) -> (usize, Duration) {
        self.ended.store(true, Ordering::SeqCst);
        self.thread
            .join()
            .expect("the client beside the attack was served")
    }
}
