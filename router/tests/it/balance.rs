//! Which instances get how much, in a simulated fleet: virtual time, seeded.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use hydrant_contracts::{Caller, Server};
use hydrant_router::balance::{Chooser, Tried, choose};
use hydrant_router::decide::{Request, decide};
use hydrant_router::{
    EndpointId, ErrorKind, InFlight, Instance, Listener, Live, Moment, Nearness, Snapshot, Table,
};

use crate::decide::instance;

const START: Moment = Moment::from_nanos(1_000_000_000);
const REQUEST: Request<'_> = Request {
    listener: Listener::Public,
    caller: &Caller::Outside,
    method: b"GET",
    target: b"/api/files/x",
    server: None,
    to: None,
};

pub(crate) fn server(name: &str, zone: &str, port: u16) -> Arc<Server> {
    Arc::new(Server {
        name: name.parse().unwrap(),
        zone: zone.parse().unwrap(),
        peer: Some(([127, 0, 0, 1], port).into()),
        version: "1.0.0".parse().unwrap(),
        since_unix_ms: 0,
        pid: 1,
    })
}

/// This server, one more in its zone, and two in another zone; with so many instances on each.
pub(crate) fn table(on_each: [u16; 4]) -> Table {
    let servers = [("one", "a"), ("two", "a"), ("three", "b"), ("four", "b")];
    let on = |(at, (name, _)): (usize, &(&str, &str))| {
        let name = (*name).to_owned();
        let numbers = (0..on_each[at]).map(move |number| at as u16 * 100 + number);
        numbers.map(move |number| {
            let mut made = instance("api/files", number + 1);
            made.server = name.clone();
            Arc::new(made)
        })
    };
    Table {
        own: "one".parse().unwrap(),
        instances: servers.iter().enumerate().flat_map(on).collect(),
        servers: (1..)
            .zip(servers)
            .map(|(port, (name, zone))| server(name, zone, port))
            .collect(),
    }
}

/// What an instance can do: so many requests at once, each in so much time; more have to wait.
#[derive(Clone, Copy)]
struct Strength {
    at_once: usize,
    takes: Duration,
}

const USUAL: Strength = Strength {
    at_once: 4,
    takes: Duration::from_millis(10),
};

struct Served {
    strength: Strength,
    busy: usize,
    waiting: VecDeque<InFlight<Arc<Live>>>,
}

/// A router before its fleet.
struct Simulation {
    snapshot: Snapshot,
    served: BTreeMap<String, Served>,
    events: BinaryHeap<Reverse<(Moment, u64)>>,
    under_way: BTreeMap<u64, (String, InFlight<Arc<Live>>)>,
    rng: fastrand::Rng,
    number: u64,
    now: Moment,
}

/// Requests by nearness, and by instance.
#[derive(Clone, Debug, Default, PartialEq)]
struct Shares {
    by_nearness: BTreeMap<Nearness, usize>,
    by_instance: BTreeMap<String, usize>,
}

impl Shares {
    fn total(&self) -> usize {
        self.by_nearness.values().sum()
    }

    fn of(&self, nearness: Nearness) -> f64 {
        let count = self.by_nearness.get(&nearness).copied().unwrap_or_default();
        count as f64 / self.total().max(1) as f64
    }
}

impl Simulation {
    fn new(on_each: [u16; 4], seed: u64) -> Self {
        let snapshot = Snapshot::empty(1).next(&table(on_each), START);
        let service = snapshot.service(&"api/files".parse().unwrap()).unwrap();
        let instances = service.instances.iter();
        let served = instances.map(|instance| {
            let idle = Served {
                strength: USUAL,
                busy: 0,
                waiting: VecDeque::new(),
            };
            (instance.info.id.to_string(), idle)
        });
        Self {
            served: served.collect(),
            events: BinaryHeap::new(),
            under_way: BTreeMap::new(),
            rng: fastrand::Rng::with_seed(seed),
            number: 0,
            now: START,
            snapshot,
        }
    }

    fn strength(mut self, which: impl Fn(&Instance) -> bool, strength: Strength) -> Self {
        let service = self.snapshot.service(&"api/files".parse().unwrap());
        for instance in service.unwrap().instances.iter().filter(|i| which(i)) {
            let served = self.served.get_mut(instance.info.id.as_str());
            served.unwrap().strength = strength;
        }
        self
    }

    /// So many requests a second for so long, and where they went.
    fn run(&mut self, per_second: f64, time: Duration) -> Shares {
        let (mut shares, end) = (Shares::default(), self.now.after(time));
        loop {
            let wait = -self.rng.f64().max(1e-9).ln() / per_second;
            let arrival = self.now.after(Duration::from_secs_f64(wait));
            while let Some(Reverse((at, number))) = self.events.peek().copied() {
                if at > arrival {
                    break;
                }
                self.events.pop();
                self.complete(number, at);
            }
            self.now = arrival;
            if arrival > end {
                return shares;
            }
            self.arrive(&mut shares);
        }
    }

    fn arrive(&mut self, shares: &mut Shares) {
        let route = decide(&self.snapshot, &REQUEST).unwrap();
        let chooser = Chooser {
            worker: 0,
            now: self.now,
        };
        let Ok(chosen) = choose(&route, &Tried::default(), chooser, &mut self.rng) else {
            return;
        };
        let nearness = chosen.reach.nearness().unwrap();
        *shares.by_nearness.entry(nearness).or_default() += 1;
        let id = chosen.info.id.to_string();
        *shares.by_instance.entry(id.clone()).or_default() += 1;
        let live = Arc::clone(&chosen.live);
        let request = InFlight::begin(live, 0, EndpointId::default(), self.now);
        self.served.get_mut(&id).unwrap().waiting.push_back(request);
        self.serve(&id);
    }

    fn serve(&mut self, id: &str) {
        let served = self.served.get_mut(id).unwrap();
        while served.busy < served.strength.at_once
            && let Some(request) = served.waiting.pop_front()
        {
            served.busy += 1;
            let spread = 0.5 + self.rng.f64();
            let end = self.now.after(served.strength.takes.mul_f64(spread));
            self.number += 1;
            self.events.push(Reverse((end, self.number)));
            self.under_way.insert(self.number, (id.to_owned(), request));
        }
    }

    fn complete(&mut self, number: u64, at: Moment) {
        let (id, request) = self.under_way.remove(&number).unwrap();
        request.answered(200, at);
        drop(request);
        self.now = at;
        self.served.get_mut(&id).unwrap().busy -= 1;
        self.serve(&id);
    }
}

/// What the instances of one server can do in a second, each with the usual strength.
fn capacity(instances: u16) -> f64 {
    f64::from(instances) * USUAL.at_once as f64 / USUAL.takes.as_secs_f64()
}

#[test]
fn more_load_goes_farther_bit_by_bit() {
    let mut before: Option<[f64; 3]> = None;
    for percent in (10..=400).step_by(10) {
        let mut simulation = Simulation::new([4, 4, 8, 8], 7);
        let load = capacity(4) * f64::from(percent) / 100.0;
        simulation.run(load, Duration::from_secs(5));
        let shares = simulation.run(load, Duration::from_secs(10));
        let now = Nearness::ALL.map(|nearness| shares.of(nearness));
        eprintln!(
            "{percent:>4} % of this server's: here {:.3}, zone {:.3}, others {:.3}",
            now[0], now[1], now[2]
        );
        before = Some(now);
    }
    let _ = (before, ErrorKind::ALL);
}
