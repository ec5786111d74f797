//! More requests than instances can answer: in virtual time, seeded, where exact figures matter, and
//! through a real router.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hydrant_contracts::{Caller, Identity, TokenKey};
use hydrant_router::balance::{Chooser, Tried, choose};
use hydrant_router::decide::{Request, decide};
use hydrant_router::{
    EndpointId, InFlight, Listener, Live, Moment, Priority, Reason, Router, Snapshot, Table, stats,
};

use crate::decide::instance;
use crate::raw::{self, Backend, PATIENCE, SECRET, Wire, ok, pause};

const START: Moment = Moment::from_nanos(1_000_000_000);
const REQUEST: Request<'_> = Request {
    listener: Listener::Public,
    caller: &Caller::Outside,
    method: b"GET",
    target: b"/api/files/x",
    server: None,
    to: None,
};

/// An instance that works on so many requests at once, each for so long; more wait in its queue.
#[derive(Clone, Copy)]
struct Strength {
    at_once: usize,
    takes: Duration,
}

impl Strength {
    fn per_second(self) -> f64 {
        self.at_once as f64 / self.takes.as_secs_f64()
    }
}

/// One worker before instances that are all alike.
struct Simulation {
    snapshot: Snapshot,
    strength: Strength,
    instances: BTreeMap<String, Served>,
    events: BinaryHeap<Reverse<(Moment, u64)>>,
    under_way: BTreeMap<u64, (String, Sent)>,
    rng: fastrand::Rng,
    number: u64,
    now: Moment,
}

#[derive(Default)]
struct Served {
    busy: usize,
    waiting: VecDeque<Sent>,
}

struct Sent {
    request: InFlight<Arc<Live>>,
    priority: Priority,
    began: Moment,
}

/// What became of requests.
#[derive(Debug, Default)]
struct Tally {
    answered: [u64; 3],
    refused: [u64; 3],
    slowest: Duration,
    waiting: u64,
}

impl Tally {
    fn goodput(&self, time: Duration) -> f64 {
        self.answered.iter().sum::<u64>() as f64 / time.as_secs_f64()
    }

    fn refused(&self) -> u64 {
        self.refused.iter().sum()
    }

    /// The share of a priority's requests that were refused.
    fn lost(&self, priority: Priority) -> f64 {
        let (answered, refused) = (
            self.answered[priority as usize],
            self.refused[priority as usize],
        );
        refused as f64 / (answered + refused).max(1) as f64
    }
}

impl Simulation {
    fn new(instances: u16, strength: Strength, seed: u64) -> Self {
        let instances: Vec<_> = (1..=instances).map(|n| instance("api/files", n)).collect();
        let snapshot = Snapshot::empty(1).next(&Table::of_one_server(&instances), START);
        Self {
            snapshot,
            strength,
            instances: BTreeMap::new(),
            events: BinaryHeap::new(),
            under_way: BTreeMap::new(),
            rng: fastrand::Rng::with_seed(seed),
            number: 0,
            now: START,
        }
    }

    /// So many requests a second for so long, of priorities by their weights.
    fn run(&mut self, per_second: f64, time: Duration, weights: [f64; 3]) -> Tally {
        let (mut tally, end) = (Tally::default(), self.now.after(time));
        loop {
            let wait = -self.rng.f64().max(1e-9).ln() / per_second;
            let arrival = self.now.after(Duration::from_secs_f64(wait));
            while let Some(Reverse((at, number))) = self.events.peek().copied() {
                if at > arrival.min(end) {
                    break;
                }
                self.events.pop();
                self.complete(number, at, &mut tally);
            }
            if arrival > end {
                self.now = end;
                return tally;
            }
            self.now = arrival;
            self.arrive(weights, &mut tally);
        }
    }

    fn priority(&mut self, weights: [f64; 3]) -> Priority {
        let mut at = self.rng.f64() * weights.iter().sum::<f64>();
        for (priority, weight) in Priority::ALL.into_iter().zip(weights) {
            at -= weight;
            if at <= 0.0 {
                return priority;
            }
        }
        Priority::High
    }

    fn arrive(&mut self, weights: [f64; 3], tally: &mut Tally) {
        let priority = self.priority(weights);
        let route = decide(&self.snapshot, &REQUEST).unwrap();
        let chooser = Chooser {
            worker: 0,
            now: self.now,
            priority,
        };
        let chosen = match choose(&route, &Tried::default(), chooser, &mut self.rng) {
            Ok(chosen) => chosen,
            Err(refusal) => {
                assert_eq!(refusal.reason, Reason::Overloaded);
                assert_eq!(refusal.retry_after(), Some(1));
                tally.refused[priority as usize] += 1;
                return;
            }
        };
        let id = chosen.info.id.to_string();
        let live = Arc::clone(&chosen.live);
        tally.waiting = tally.waiting.max(live.waiting() + 1);
        let sent = Sent {
            request: InFlight::begin(live, 0, EndpointId::default(), self.now),
            priority,
            began: self.now,
        };
        let served = self.instances.entry(id.clone()).or_default();
        served.waiting.push_back(sent);
        self.serve(&id);
    }

    fn serve(&mut self, id: &str) {
        let served = self.instances.get_mut(id).unwrap();
        while served.busy < self.strength.at_once
            && let Some(sent) = served.waiting.pop_front()
        {
            served.busy += 1;
            let takes = self.strength.takes.mul_f64(0.5 + self.rng.f64());
            self.number += 1;
            self.events
                .push(Reverse((self.now.after(takes), self.number)));
            self.under_way.insert(self.number, (id.to_owned(), sent));
        }
    }

    fn complete(&mut self, number: u64, at: Moment, tally: &mut Tally) {
        let (id, sent) = self.under_way.remove(&number).unwrap();
        sent.request.answered(200, at);
        tally.answered[sent.priority as usize] += 1;
        tally.slowest = tally.slowest.max(at.since(sent.began));
        drop(sent);
        self.now = at;
        self.instances.get_mut(&id).unwrap().busy -= 1;
        self.serve(&id);
    }
}

const NORMAL: [f64; 3] = [0.0, 1.0, 0.0];
const MIXED: [f64; 3] = [0.4, 0.4, 0.2];

/// From one thread with short requests to hundreds of them with long ones.
const STRENGTHS: [Strength; 5] = [
    Strength {
        at_once: 1,
        takes: Duration::from_millis(10),
    },
    Strength {
        at_once: 4,
        takes: Duration::from_millis(2),
    },
    Strength {
        at_once: 32,
        takes: Duration::from_millis(10),
    },
    Strength {
        at_once: 8,
        takes: Duration::from_millis(250),
    },
    Strength {
        at_once: 200,
        takes: Duration::from_millis(500),
    },
];

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn twice_the_load_leaves_the_goodput_and_the_latency_what_they_are() {
    for (strength, instances) in STRENGTHS.into_iter().flat_map(|s| [(s, 1), (s, 4)]) {
        let capacity = strength.per_second() * f64::from(instances);
        let mut simulation = Simulation::new(instances, strength, 7);
        // Fast ones show in a short time what slow ones show in a minute.
        let time = Duration::from_secs_f64((40_000.0 / capacity).clamp(3.0, 60.0));
        let settles = strength.takes * 20 + seconds(2);
        let calm = simulation.run(capacity * 0.6, time / 2, MIXED);
        assert_eq!(calm.refused(), 0, "below its capacity nothing is refused");
        simulation.run(capacity * 2.0, settles, MIXED);
        let over = simulation.run(capacity * 2.0, time, MIXED);
        let goodput = over.goodput(time) / capacity;
        let lost = Priority::ALL.map(|priority| over.lost(priority));
        simulation.run(capacity * 0.6, seconds(5), MIXED);
        let after = simulation.run(capacity * 0.6, time / 2, MIXED);
        eprintln!(
            "{instances} of {:>3} at once, {:>3} ms: goodput {goodput:.3}, lost {lost:.3?}, \
             slowest {:?} (calm {:?}), at most {} wait; after: {} refused",
            strength.at_once,
            strength.takes.as_millis(),
            over.slowest,
            calm.slowest,
            over.waiting,
            after.refused(),
        );
        assert!(goodput > 0.9, "goodput {goodput}");
        assert!(lost[0] > 0.8, "the lowest goes first");
        assert!(lost[2] < 0.02, "the highest stays");
        assert_eq!(after.refused(), 0, "over within five seconds");
    }
}

/// What a service does not owe to its load, as another one on which it waits, is no reason to refuse.
#[test]
fn an_instance_that_is_slow_for_another_reason_gets_its_requests_again() {
    let wide = Strength {
        at_once: 10_000,
        takes: Duration::from_millis(300),
    };
    let mut simulation = Simulation::new(2, wide, 3);
    let before = simulation.run(400.0, seconds(20), NORMAL);
    simulation.strength.takes = Duration::from_millis(1200);
    let at_once = simulation.run(400.0, seconds(30), NORMAL);
    let later = simulation.run(400.0, seconds(30), NORMAL);
    eprintln!(
        "refused: {} while fast, {} of 12000 in the 30 s after it got slow, {} later",
        before.refused(),
        at_once.refused(),
        later.refused()
    );
    assert_eq!((before.refused(), later.refused()), (0, 0));
    assert!(at_once.refused() < 6000, "{at_once:?}");
}

/// Long polls and reports beside short requests are no queue.
#[test]
fn slow_requests_among_fast_ones_are_not_taken_for_a_queue() {
    for slow_share in [0.1, 0.5, 0.7] {
        let wide = Strength {
            at_once: 10_000,
            takes: Duration::from_millis(5),
        };
        let mut simulation = Simulation::new(1, wide, 5);
        simulation.run(500.0, seconds(10), NORMAL);
        // Chance decides about each request whether it is one of the slow ones.
        let mut refused = 0;
        for _ in 0..200 {
            let slow = simulation.rng.f64() < slow_share;
            simulation.strength.takes = Duration::from_millis(if slow { 800 } else { 5 });
            refused += simulation
                .run(500.0, Duration::from_millis(10), NORMAL)
                .refused();
        }
        assert_eq!(refused, 0, "{slow_share} are slow");
    }
}

/// What is silent for long, as long polls and streams that begin late, takes no places of others, also
/// not while these stand in a queue.
#[test]
fn silent_requests_fill_no_places() {
    let strength = STRENGTHS[0];
    let mut simulation = Simulation::new(1, strength, 9);
    simulation.run(50.0, seconds(5), MIXED);
    let live = Arc::clone(&simulation.snapshot.services().next().unwrap().instances[0].live);
    let silent = |now: Moment| -> Vec<_> {
        let begin = |_| InFlight::begin(Arc::clone(&live), 0, EndpointId::default(), now);
        (0..200).map(begin).collect()
    };
    let first = silent(simulation.now);
    let calm = simulation.run(50.0, seconds(10), MIXED);
    assert_eq!(
        calm.refused(),
        0,
        "two hundred that are silent are no queue"
    );
    simulation.run(200.0, seconds(10), MIXED);
    // More of them come while there is a limit, and fill all places.
    let second = silent(simulation.now);
    simulation.run(200.0, seconds(10), MIXED);
    let over = simulation.run(200.0, seconds(20), MIXED);
    let goodput = over.goodput(seconds(20)) / 100.0;
    eprintln!(
        "goodput {goodput:.3}, lost {:.3}, slowest {:?}",
        over.lost(Priority::High),
        over.slowest
    );
    assert!(goodput > 0.9, "{goodput}");
    assert!(
        over.slowest < seconds(1),
        "and the queue is short: {:?}",
        over.slowest
    );
    std::mem::forget((first, second));
}

/// A gate through which so many go at a time.
#[derive(Default)]
struct Gate(std::sync::Mutex<usize>, std::sync::Condvar);

impl Gate {
    fn pass(&self, at_once: usize, takes: Duration) {
        let busy = self.0.lock().unwrap();
        *self.1.wait_while(busy, |busy| *busy >= at_once).unwrap() += 1;
        pause(takes);
        *self.0.lock().unwrap() -= 1;
        self.1.notify_one();
    }
}

/// An instance of that strength, and how many requests it has answered.
fn backend(strength: Strength) -> Backend {
    let gate = Gate::default();
    Backend::answering(move |_| {
        gate.pass(strength.at_once, strength.takes);
        ok(b"done")
    })
}

/// What clients saw within a phase.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    answered: [usize; 3],
    refused: [usize; 3],
    others: usize,
    last_refusal: Option<Instant>,
    slowest: Duration,
}

impl Count {
    fn add(&mut self, other: Count) {
        for at in 0..3 {
            self.answered[at] += other.answered[at];
            self.refused[at] += other.refused[at];
        }
        self.others += other.others;
        self.last_refusal = self.last_refusal.max(other.last_refusal);
        self.slowest = self.slowest.max(other.slowest);
    }
}

/// Clients that together send so many requests a second, as long as each has its answer in time.
fn offer(router: &Router, per_second: f64, time: Duration) -> Count {
    const CLIENTS: usize = 120;
    let every = Duration::from_secs_f64(CLIENTS as f64 / per_second);
    let (begin, address) = (Instant::now(), router.public_addr());
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let start = begin + every.mul_f64(number as f64 / CLIENTS as f64);
            std::thread::spawn(move || {
                let mut wire = Wire::connect(address);
                let mut count = Count::default();
                let priority = Priority::ALL[[0, 1, 0, 1, 2][number % 5]];
                let mut next = start;
                while next < begin + time {
                    pause(next.saturating_duration_since(Instant::now()));
                    next += every;
                    ask(&mut wire, priority, &mut count);
                }
                count
            })
        })
        .collect();
    let mut all = Count::default();
    for client in clients {
        all.add(client.join().unwrap());
    }
    all
}

fn ask(wire: &mut Wire, priority: Priority, count: &mut Count) {
    let token = TokenKey::new(&SECRET).issue(&Identity::Service("api/shop".parse().unwrap()));
    let began = Instant::now();
    wire.send(format!(
        "GET /api/t/x HTTP/1.1\r\nhost: test\r\nhydrant-token: {token}\r\nhydrant-priority: {}\r\n\r\n",
        priority.as_str()
    ));
    let answer = wire.answer();
    count.slowest = count.slowest.max(began.elapsed());
    match answer.status() {
        200 => count.answered[priority as usize] += 1,
        503 => {
            assert_eq!(answer.header("retry-after"), Some("1"));
            assert!(
                answer.text().contains(r#""reason":"overloaded""#),
                "{}",
                answer.text()
            );
            count.refused[priority as usize] += 1;
            count.last_refusal = Some(Instant::now());
        }
        _ => count.others += 1,
    }
}

#[test]
fn a_router_before_instances_that_are_too_slow_keeps_their_goodput_and_recovers() {
    let strength = Strength {
        at_once: 2,
        takes: Duration::from_millis(20),
    };
    let backends = [backend(strength), backend(strength)];
    let addresses = backends.each_ref().map(|backend| backend.address);
    let router = raw::router(&addresses);
    let capacity = 2.0 * strength.per_second();
    let calm = offer(&router, capacity * 0.4, seconds(3));
    let over = offer(&router, capacity * 2.0, seconds(8));
    let ended = Instant::now();
    let after = offer(&router, capacity * 0.4, seconds(6));
    let goodput = over.answered.iter().sum::<usize>() as f64 / 8.0 / capacity;
    let recovery = after
        .last_refusal
        .map_or(Duration::ZERO, |last| last - ended);
    let metrics = stats::prometheus(&router.snapshot(), Moment::now());
    eprintln!(
        "goodput {goodput:.2} of the nominal capacity; answered {:?}, refused {:?} by priority, \
         slowest {:?} (calm {:?}); recovered after {recovery:?}",
        over.answered, over.refused, over.slowest, calm.slowest
    );
    assert_eq!(calm.others + over.others + after.others, 0);
    assert!(over.refused.iter().sum::<usize>() > 0, "{over:?}");
    assert!(
        goodput > 0.18 && over.answered[2] > over.answered[0],
        "{over:?}"
    );
    // When exactly it is over, virtual time tells; here other work on the machine may make a queue.
    let (answered, refused) = (after.answered.iter(), after.refused.iter());
    assert!(
        answered.sum::<usize>() > 4 * refused.sum::<usize>(),
        "{after:?}"
    );
    let shed = |priority: &str| {
        format!(r#"hydrant_shed_total{{tier="api",service="t",priority="{priority}"}}"#)
    };
    assert!(
        metrics.contains(&shed("low")) && metrics.contains(&shed("high")),
        "{metrics}"
    );
    let quiet = || stats::troubles(&router.snapshot(), Moment::now()).is_empty();
    let until = Instant::now() + PATIENCE;
    while !quiet() && Instant::now() < until {
        pause(Duration::from_millis(50));
    }
    assert!(quiet(), "it is said that it is over");
}
