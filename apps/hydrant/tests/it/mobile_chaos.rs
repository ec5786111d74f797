//! Apps ask and somebody changes flags, weights and configuration, while processes are killed and
//! servers restarted. No request fails, no arm is wrong, and nothing that was acknowledged is lost.
//!
//! Half a minute each, drawn anew from a seed that is printed; ten minutes with `HYDRANT_SOAK`.

mod admin;
mod apps;
mod oracle;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hydrant_harness::mariadb::{self, MariaDb};
use rustix::process::Signal;
use serde_json::Value;

use self::admin::{Admin, Worlds};
use self::apps::{Apps, Seen};
use crate::fleet::engines::Engines;
use crate::fleet::outage::services;
use crate::harness::{Node, Setup, is_soak, kill};

/// How many apps ask at the same time.
const APPS: u64 = 8;
const PAUSE: Duration = Duration::from_millis(15);
/// Long enough for a machine that has other work too.
const SESSION: Duration = Duration::from_secs(4);
/// A key of this test, and its hash: the document has no more.
const KEY: &str = "hyk_chaoschaoschaoschaoschaoschaoschaoschaoscha";
const KEY_HASH: &str = "5d75e8d0934fe04481e0b94a6980128d134487c8a4e02026eb8cbf217ee6bbe8";

/// What can go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    KillLeader,
    KillService,
    KillApi,
    RestartState,
    RestartTables,
}

/// The nodes, and what stands behind them.
struct Place {
    nodes: Vec<Node>,
    engines: Option<Engines>,
    tables: Option<MariaDb>,
}

#[test]
fn one_server_goes_wrong_and_no_app_notices() {
    let place = Place {
        nodes: vec![Setup::up().start()],
        engines: None,
        tables: None,
    };
    let faults = [Fault::KillLeader, Fault::KillService, Fault::KillApi];
    run(&place, &faults);
}

#[test]
fn a_fleet_with_its_servers_goes_wrong_and_no_app_notices() {
    let Some(engines) = Engines::start(1) else {
        return;
    };
    let tables = match MariaDb::start(mariadb::Options::default()) {
        Ok(tables) => tables,
        Err(missing) => return hydrant_harness::skipped(missing),
    };
    let all = engines.tables(SESSION) + &tables.table();
    let fleet = hydrant_harness::node::Fleet::new(crate::fleet::engines::program(), &all);
    let folder = tempfile::tempdir().unwrap();
    let sources = folder.path().join("sources.toml");
    std::fs::write(&sources, "").unwrap();
    let services = services(&sources);
    let nodes = ["one", "two"].map(|server| fleet.server(server, "here", &services).start());
    let place = Place {
        nodes: nodes.into(),
        engines: Some(engines),
        tables: Some(tables),
    };
    let faults = [
        Fault::KillLeader,
        Fault::KillService,
        Fault::KillApi,
        Fault::RestartState,
        Fault::RestartTables,
    ];
    run(&place, &faults);
}

fn run(place: &Place, faults: &[Fault]) {
    let seed = hydrant_harness::seed();
    let time = match is_soak() {
        true => Duration::from_secs(600),
        false => Duration::from_secs(20),
    };
    println!("{time:?}");
    let runtime = hydrant_harness::runtime();
    let worlds = Worlds::default();
    let mut admin = Admin::new(place.doors(), Arc::clone(&worlds), seed);
    runtime.block_on(admin.begin(KEY_HASH));
    place.wait_for_revision(admin.head());
    let apps = Arc::new(Apps {
        public: place.nodes.iter().map(Node::public).collect(),
        key: KEY.into(),
        stop: Arc::new(AtomicBool::new(false)),
        seen: Arc::new(Mutex::new(Seen::default())),
    });
    let asking: Vec<_> = (0..APPS)
        .map(|number| {
            let apps = Arc::clone(&apps);
            runtime.spawn(async move {
                apps.ask_again_and_again(seed ^ (number << 32), PAUSE).await;
            })
        })
        .collect();
    let stop = Arc::clone(&apps.stop);
    let changing = runtime.spawn(async move {
        while !stop.load(Ordering::Relaxed) {
            admin.change().await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        admin
    });
    let counts = place.go_wrong(faults, seed, time, &apps, &worlds);
    apps.stop.store(true, Ordering::Relaxed);
    let admin = runtime.block_on(async {
        for one in asking {
            one.await.expect("an app does not panic");
        }
        changing
            .await
            .expect("no table is wrong, and no change refused")
    });
    place.wait_for_revision(admin.head());
    report(&runtime, &admin, &apps, &worlds, &counts);
}

/// What was seen, in figures; and what must hold.
fn report(
    runtime: &tokio::runtime::Runtime,
    admin: &Admin,
    apps: &Apps,
    worlds: &Worlds,
    counts: &BTreeMap<Fault, usize>,
) {
    let mut seen = apps.seen.lock().unwrap();
    seen.check(worlds);
    let mut took = admin.took.clone();
    took.sort();
    let at = |percent: usize| took.get(took.len().saturating_sub(1) * percent / 100);
    println!("faults: {counts:?}");
    println!(
        "{} answers of {} revisions, the slowest after {:?}; {} reports are to be sent later",
        seen.answers,
        seen.revisions.len(),
        seen.slowest,
        seen.later
    );
    println!(
        "{} revisions; {} acknowledged after {:?} (half), {:?} (99 of 100), {} without an answer or without effect",
        admin.head(),
        admin.acknowledged.len(),
        at(50),
        at(99),
        admin.refused
    );
    let faults = [&seen.wrong, &seen.failed];
    assert_eq!(
        faults,
        [&[] as &[String]; 2],
        "no answer is wrong, no request failed"
    );
    assert_eq!(seen.unknown(), 0, "answers of revisions that nobody made");
    assert!(
        seen.answers > 100 && !admin.acknowledged.is_empty(),
        "there was load"
    );
    let history = runtime.block_on(admin.history());
    for (revision, reason) in &admin.acknowledged {
        assert_eq!(
            history.get(revision),
            Some(reason),
            "an acknowledged change is lost"
        );
    }
    let newest = admin.newest();
    let documents = runtime.block_on(admin.documents());
    let expected = [
        newest.flags_document(),
        newest.experiment_document(),
        newest.config_document(),
    ];
    assert_eq!(
        documents, expected,
        "the last revision is what it was meant to be"
    );
}

impl Place {
    /// The local listeners, with the operators' tokens.
    fn doors(&self) -> Vec<(String, String)> {
        let door = |node: &Node| {
            let token = std::fs::read_to_string(node.data().join("operator.token"));
            (
                node.local().to_string(),
                token.expect("a token").trim().to_owned(),
            )
        };
        self.nodes.iter().map(door).collect()
    }

    /// Until every process of api/mobile answers from this revision.
    fn wait_for_revision(&self, revision: u64) {
        let began = Instant::now();
        self.nodes[0].wait("all answer from the newest revision", |node| {
            let instances = status(node)?["instances"].as_array()?.clone();
            let of_apps = |one: &&Value| one["service"] == "api/mobile";
            let all: Vec<u64> = instances
                .iter()
                .filter(of_apps)
                .map(|one| one["revision"].as_u64().unwrap_or(0))
                .collect();
            (!all.is_empty() && all.iter().all(|of| *of >= revision)).then_some(())
        });
        println!("revision {revision} everywhere after {:?}", began.elapsed());
    }

    /// One fault after the other, drawn from the seed, until the time is over.
    fn go_wrong(
        &self,
        faults: &[Fault],
        seed: u64,
        time: Duration,
        apps: &Apps,
        worlds: &Worlds,
    ) -> BTreeMap<Fault, usize> {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut counts = BTreeMap::new();
        let end = Instant::now() + time;
        let mut watch = Watch::default();
        while Instant::now() < end {
            let fault = faults[random.usize(..faults.len())];
            *counts.entry(fault).or_default() += usize::from(self.make(fault, &mut random));
            let calm = Instant::now() + Duration::from_millis(random.u64(800..3000));
            while Instant::now() < calm {
                watch.look(self);
                apps.seen.lock().unwrap().check(worlds);
                crate::harness::pause(Duration::from_millis(100));
            }
        }
        counts
    }

    /// Whether it was possible.
    fn make(&self, fault: Fault, random: &mut fastrand::Rng) -> bool {
        let away = Duration::from_millis(random.u64(100..1500));
        match fault {
            Fault::KillLeader => self.kill_one("service/mobile", random, true),
            Fault::KillService => self.kill_one("service/mobile", random, false),
            Fault::KillApi => self.kill_one("api/mobile", random, false),
            Fault::RestartState => {
                let engines = self.engines.as_ref().expect("a fleet");
                engines.redis.kill_all();
                crate::harness::pause(away);
                engines.redis.restart_all();
                true
            }
            Fault::RestartTables => {
                let tables = self.tables.as_ref().expect("a fleet");
                tables.kill();
                crate::harness::pause(away);
                tables.restart();
                true
            }
        }
    }

    /// Kills a ready process, when every node knows of another one that is left to answer.
    fn kill_one(&self, service: &str, random: &mut fastrand::Rng, leader: bool) -> bool {
        let node = &self.nodes[random.usize(..self.nodes.len())];
        let ready = living(node, service);
        if ready.is_empty() {
            return false;
        }
        let leads = leader
            .then(|| status(node))
            .flatten()
            .map(|status| status["leader"].clone());
        let chosen = ready
            .iter()
            .find(|one| Some(&one["instance"]) == leads.as_ref());
        let chosen = chosen.unwrap_or(&ready[random.usize(..ready.len())]);
        let is_another = |one: &Value| one["instance"] != chosen["instance"];
        let is_left = |node: &Node| living(node, service).iter().any(is_another);
        let may_die = self.nodes.iter().all(is_left);
        if let Some(pid) = chosen["pid"].as_u64().filter(|_| may_die) {
            kill(pid as u32, Signal::KILL);
        }
        may_die
    }
}

/// The ready instances whose processes live: a list may be behind on a busy machine, and all are here.
fn living(node: &Node, service: &str) -> Vec<Value> {
    let mut ready = node.instances(service);
    let lives = |one: &Value| std::fs::read_link(format!("/proc/{}/exe", one["pid"])).is_ok();
    ready.retain(|one| one["state"] == "ready" && lives(one));
    ready
}

/// What `hydrant mobile status` says, when it can.
fn status(node: &Node) -> Option<Value> {
    let output = node.run(&["--json", "mobile", "status"]);
    serde_json::from_slice(&output.stdout).ok()
}

/// Sees that the revision of a process never goes back.
#[derive(Default)]
struct Watch(BTreeMap<String, u64>);

impl Watch {
    fn look(&mut self, place: &Place) {
        let Some(status) = status(&place.nodes[0]) else {
            return;
        };
        for one in status["instances"].as_array().into_iter().flatten() {
            let (Some(name), Some(revision)) = (one["instance"].as_str(), one["revision"].as_u64())
            else {
                continue;
            };
            let before = self.0.insert(name.to_owned(), revision).unwrap_or(0);
            assert!(
                revision >= before,
                "{name} went back from {before} to {revision}"
            );
        }
    }
}
