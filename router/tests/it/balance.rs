//! Which instances get how much, in a simulated fleet: virtual time, seeded.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use hydrant_contracts::{Caller, Identity, Server, TokenKey, header};
use hydrant_router::balance::{Chooser, Tried, choose};
use hydrant_router::decide::{Request, decide};
use hydrant_router::{
    EndpointId, ErrorKind, Explanation, InFlight, Instance, Listener, Live, Moment, Nearness,
    Priority, Reason, Snapshot, Table, explain,
};
use proptest::prelude::*;

use crate::decide::instance;

const START: Moment = Moment::from_nanos(1_000_000_000);
/// The first instance on this server.
const FIRST: &str = "api-files-1";
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
        rules: Arc::default(),
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
            priority: Priority::Normal,
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

/// Where so many requests a second go, once that has settled.
fn settled(simulation: &mut Simulation, per_second: f64) -> Shares {
    simulation.run(per_second, Duration::from_secs(3));
    simulation.run(per_second, Duration::from_secs(5))
}

fn by_nearness(shares: &Shares) -> [f64; 3] {
    Nearness::ALL.map(|nearness| shares.of(nearness))
}

#[test]
fn more_load_goes_farther_bit_by_bit() {
    let shares: Vec<_> = (10..=330)
        .step_by(20)
        .map(|percent| {
            let mut simulation = Simulation::new([4, 4, 8, 8], 7);
            let load = capacity(4) * f64::from(percent) / 100.0;
            let [here, zone, others] = by_nearness(&settled(&mut simulation, load));
            eprintln!("{percent:>4} %: here {here:.3}, zone {zone:.3}, others {others:.3}");
            (percent, [here, zone, others])
        })
        .collect();
    let at = |percent: i32| shares.iter().find(|(at, _)| *at == percent).unwrap().1;
    assert!(
        at(10)[0] > 0.97 && at(30)[0] > 0.94,
        "little load stays here"
    );
    assert!(at(70)[0] > 0.7, "{:?}", at(70));
    let used = at(110)[0] * 1.1;
    assert!((0.75..1.0).contains(&used), "{used} of this server is used");
    assert!(at(110)[2] < 0.05, "the zone has room: {:?}", at(110));
    assert!(at(310).iter().all(|share| *share > 0.2), "{:?}", at(310));
    for pair in shares.windows(2) {
        let [(percent, before), (_, after)] = pair else {
            unreachable!()
        };
        assert!(after[0] < before[0] + 0.03, "{percent} %: less, not more");
        for (before, after) in before.iter().zip(after) {
            assert!(
                (before - after).abs() < 0.15,
                "{percent} %: {before} to {after}"
            );
        }
    }
}

#[test]
fn slower_and_slower_near_ones_are_left_bit_by_bit() {
    let mut before = 1.0;
    for step in 0..=20 {
        let factor = 1.16_f64.powi(step);
        let slow = Strength {
            takes: USUAL.takes.mul_f64(factor),
            ..USUAL
        };
        let near = |instance: &Instance| instance.reach.nearness() == Some(Nearness::Server);
        let mut simulation = Simulation::new([4, 4, 8, 8], 11).strength(near, slow);
        let here = by_nearness(&settled(&mut simulation, capacity(4) * 0.2))[0];
        eprintln!("slower by {factor:.1}: here {here:.3}");
        assert!(
            here < before + 0.05 && before - here < 0.25,
            "{before} to {here}"
        );
        before = here;
    }
    assert!(before < 0.2);
}

#[test]
fn one_slow_near_instance_is_left_alone_and_its_neighbours_are_not() {
    let slow = Strength {
        takes: USUAL.takes * 10,
        ..USUAL
    };
    let is_first = |instance: &Instance| instance.info.id.as_str() == FIRST;
    let mut simulation = Simulation::new([4, 4, 8, 8], 3).strength(is_first, slow);
    let shares = settled(&mut simulation, capacity(4) * 0.4);
    let of_first = shares.by_instance.get(FIRST).copied().unwrap_or_default();
    let fair = shares.total() / 4;
    assert!(of_first * 4 < fair, "{of_first} of {}", shares.total());
    assert!(shares.of(Nearness::Server) > 0.85, "{shares:?}");
}

#[test]
fn a_dead_server_is_passed_over_at_once_and_as_a_whole() {
    let mut simulation = Simulation::new([0, 4, 4, 0], 5);
    let load = capacity(4) * 0.3;
    assert!(settled(&mut simulation, load).of(Nearness::Zone) > 0.95);
    let peer = Arc::clone(simulation.snapshot.peer("two").unwrap());
    peer.eject(simulation.now);
    let shares = simulation.run(load, Duration::from_secs(5));
    assert_eq!(by_nearness(&shares), [0.0, 0.0, 1.0]);
    simulation
        .snapshot
        .peer("three")
        .unwrap()
        .eject(simulation.now);
    // Somebody may try each of them once its trial is due, and all others hear at once.
    simulation.now = simulation.now.after(Duration::from_secs(6));
    let route = decide(&simulation.snapshot, &REQUEST).unwrap();
    let chooser = Chooser {
        worker: 0,
        now: simulation.now,
        priority: Priority::Normal,
    };
    let tries = (0..100).map(|_| choose(&route, &Tried::default(), chooser, &mut simulation.rng));
    let servers: Vec<_> = tries
        .filter_map(Result::ok)
        .map(|instance| instance.info.server.as_str())
        .collect();
    assert_eq!(servers, ["two", "three"], "one each, the nearer first");
}

/// What one instance does not take, another one does, and nobody else is asked.
#[test]
fn one_that_refuses_afar_is_out_for_a_time() {
    let simulation = Simulation::new([0, 2, 0, 0], 5);
    let service = simulation.snapshot.service(&"api/files".parse().unwrap());
    let first = &service.unwrap().instances[0];
    InFlight::begin(&*first.live, 0, EndpointId::default(), START)
        .failed(ErrorKind::Connect, START);
    let route = decide(&simulation.snapshot, &REQUEST).unwrap();
    let mut rng = fastrand::Rng::with_seed(1);
    let mut chosen = |now: Moment| {
        let chooser = Chooser {
            worker: 0,
            now,
            priority: Priority::Normal,
        };
        let chosen = (0..100).map(|_| choose(&route, &Tried::default(), chooser, &mut rng));
        let first = chosen.filter(|chosen| Arc::ptr_eq(chosen.as_ref().unwrap(), first));
        first.count()
    };
    assert_eq!(chosen(START), 0);
    let forgiven = START.after(Duration::from_secs(60));
    let other = InFlight::begin(
        &*service.unwrap().instances[1].live,
        0,
        EndpointId::default(),
        START,
    );
    other.answered(200, forgiven);
    drop(other);
    assert!(
        chosen(forgiven) > 0,
        "nobody else finds out that it is back"
    );
}

#[test]
fn an_instance_of_a_server_that_is_not_there_gets_nothing() {
    let mut table = table([0, 1, 1, 0]);
    table.servers.retain(|server| server.name.as_str() != "two");
    let snapshot = Snapshot::empty(1).next(&table, START);
    let route = decide(&snapshot, &REQUEST).unwrap();
    assert_eq!(route.candidate_count(), 1);
    table.servers.retain(|server| server.name.as_str() == "one");
    let snapshot = snapshot.next(&table, START);
    assert_eq!(
        decide(&snapshot, &REQUEST).unwrap_err().reason,
        Reason::NoInstance
    );
    let explanation = explained(&snapshot, "/api/files/x", &[]);
    let excluded: Vec<_> = explanation
        .candidates
        .iter()
        .map(|c| &*c.excluded)
        .collect();
    assert_eq!(excluded.len(), 0, "refused before instances were looked at");
}

#[test]
fn an_explanation_tells_where_instances_are_and_why_they_are_passed_over() {
    let mut table = table([1, 1, 1, 1]);
    table
        .servers
        .retain(|server| server.name.as_str() != "four");
    let snapshot = Snapshot::empty(1).next(&table, Moment::now());
    snapshot.peer("two").unwrap().eject(Moment::now());
    let explanation = explained(&snapshot, "/api/files/x", &[]);
    let told: Vec<_> = explanation
        .candidates
        .iter()
        .map(|c| (&*c.server, &*c.zone, c.nearness, &*c.excluded))
        .collect();
    let expected = [
        ("one", "a", "this server", ""),
        (
            "two",
            "a",
            "this zone",
            "the node of its server refuses connections",
        ),
        ("three", "b", "another zone", ""),
        (
            "four",
            "",
            "unreachable",
            "the node of its server four is not known here",
        ),
    ];
    assert_eq!(told, expected);
    assert_eq!(explanation.chosen.as_deref(), Some(FIRST));
}

fn explained(snapshot: &Snapshot, path: &str, headers: &[(&str, &str)]) -> Explanation {
    let key = TokenKey::new(&[3; 32]);
    let mut headers: Vec<_> = headers
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    headers.push((header::TOKEN.to_owned(), key.issue(&Identity::Operator)));
    let request = explain::Request {
        method: "GET".into(),
        path: path.into(),
        headers,
        listener: Listener::Local,
    };
    let chooser = Chooser {
        worker: 0,
        now: Moment::now(),
        priority: Priority::Normal,
    };
    let mut rng = fastrand::Rng::with_seed(1);
    explain::explain(snapshot, &key, &request, chooser, &mut rng)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Nobody has a request twice, and what is out is taken only when nothing else is left.
    #[test]
    fn whoever_is_chosen_may_be(
        on_each in [0u16..4, 0..4, 0..4, 0..4],
        peers_out in proptest::collection::vec(any::<bool>(), 4),
        out in proptest::collection::vec(0usize..16, 0..8),
        busy in proptest::collection::vec(0usize..16, 0..20),
        seed in any::<u64>(),
    ) {
        let snapshot = Snapshot::empty(1).next(&table(on_each), START);
        let Some(service) = snapshot.service(&"api/files".parse().unwrap()) else { return Ok(()) };
        for (name, _) in ["one", "two", "three", "four"].iter().zip(&peers_out).filter(|(_, out)| **out) {
            if let Some(peer) = snapshot.peer(name) { peer.eject(START) }
        }
        let at = |number: usize| &service.instances[number % service.instances.len()];
        for number in out { at(number).live.eject(START) }
        let requests: Vec<_> = busy.into_iter()
            .map(|number| InFlight::begin(Arc::clone(&at(number).live), 0, EndpointId::default(), START))
            .collect();
        let route = decide(&snapshot, &REQUEST).unwrap();
        let chooser = Chooser { worker: 0, now: START.after(Duration::from_millis(1)), priority: Priority::Normal };
        let (mut tried, mut rng) = (Tried::default(), fastrand::Rng::with_seed(seed));
        let is_good = |instance: &Instance| {
            let peer = instance.reach.peer();
            !instance.live.is_ejected(chooser.now) && !peer.is_some_and(|peer| peer.is_ejected(chooser.now))
        };
        let mut good = service.instances.iter().filter(|instance| is_good(instance)).count();
        while let (Ok(chosen), false) = (choose(&route, &tried, chooser, &mut rng), tried.is_full()) {
            prop_assert!(!tried.contains(chosen));
            prop_assert!(is_good(chosen));
            tried.add(chosen);
            good -= 1;
        }
        prop_assert!(tried.is_full() || good == 0, "{good} good ones are left");
        drop(requests);
    }
}
