//! A server is lost, its node and all its processes at once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hydrant_contracts::proto::{NodeClient, StatsRequest};
use hydrant_harness::node::{Node, Setup};
use hydrant_sdk::{Config, Hydrant, Transport};
use tokio::runtime::Runtime;

use super::echo;
use super::engines::Engines;
use crate::harness::pause;
use crate::load::Load;

const SESSION: Duration = Duration::from_secs(2);

/// Requests that take a while, of so many clients at once that they queue at the instances of the
/// server which they come to: those of other servers get their share only then.
const SLOWLY: &str = "/api/echo/slowly";
const CLIENTS: usize = 24;

#[test]
fn a_lost_server_fails_no_request_that_is_safe_to_repeat() {
    let Some(engines) = Engines::start(1) else {
        return;
    };
    let fleet = engines.fleet(SESSION);
    let spawn = |server: &str| {
        fleet
            .server(server, "a", &echo::table("api/echo", server, 2))
            .spawn()
    };
    let mut nodes = ["one", "two", "three"].map(spawn);
    for node in &mut nodes {
        node.wait_ready();
    }
    let [one, two, three] = nodes;
    for node in [&one, &two, &three] {
        node.wait("all six are there", |node| {
            (ready_on(node, "").len() == 6).then_some(())
        });
    }
    let lost = ready_on(&one, "three");
    assert_eq!(lost.len(), 2, "{lost:?}");

    let runtime = hydrant_harness::runtime();
    let loads = {
        let _inside = runtime.enter();
        [&one, &two]
            .map(|node| Load::start(node.public(), SLOWLY, CLIENTS, Duration::from_millis(5)))
    };
    one.wait("the load reaches the third server, from both", |_| {
        let reached = |node: &Node| {
            let counts = runtime.block_on(counts(&client(node), &lost));
            counts.len() == 2 && counts.values().all(|one| one.requests > 5)
        };
        (reached(&one) && reached(&two)).then_some(())
    });
    let stop = Arc::new(AtomicBool::new(false));
    let watched =
        [&one, &two].map(|node| runtime.spawn(watch(client(node), lost.clone(), stop.clone())));
    pause(Duration::from_millis(300));
    let killed = Instant::now();
    let three = three.kill_server();
    let gone = [&one, &two].map(|node| {
        node.wait("its instances leave the list", |node| {
            let is_gone = ready_on(node, "three").is_empty();
            is_gone.then(|| killed.elapsed())
        })
    });
    pause(Duration::from_millis(500));
    stop.store(true, Ordering::Relaxed);
    for load in loads {
        let outcome = runtime.block_on(load.finish());
        assert!(outcome.failures.is_empty(), "{:#?}", outcome.failures);
        assert!(outcome.good > 200, "there was load: {}", outcome.good);
        println!("{} requests, none failed", outcome.good);
    }
    println!("off the lists after {gone:?}; a session lives for {SESSION:?}");
    let patience = 5 * (SESSION + Duration::from_secs(1));
    assert!(gone.iter().all(|after| *after < patience), "{gone:?}");
    for (node, watched) in ["one", "two"].iter().zip(watched) {
        let samples = runtime.block_on(watched).expect("the task does not panic");
        let tail = tail_of(&samples, killed).expect("requests have failed there");
        println!("{node}: the last request went there {tail:?} after the first that failed");
        assert!(tail < 5 * Duration::from_millis(100), "{tail:?}");
    }
    comes_back(&runtime, &one, three);
}

/// The server is started again, and its instances get requests: of many at a time, as those of the
/// own server come first for who asks one after the other.
fn comes_back(runtime: &Runtime, one: &Node, three: Setup) {
    let _three = three.start();
    let back = one.wait("it is back", |node| {
        let back = ready_on(node, "three");
        (back.len() == 2).then_some(back)
    });
    let load = {
        let _inside = runtime.enter();
        Load::start(one.public(), SLOWLY, CLIENTS, Duration::from_millis(5))
    };
    let began = Instant::now();
    one.wait("it answers", |node| {
        let counts = runtime.block_on(counts(&client(node), &back));
        // One that was slow at first is asked again only after 10 s: there are faster ones.
        counts.values().any(|one| one.requests > 5).then_some(())
    });
    println!("back in the load after {:?}", began.elapsed());
    let outcome = runtime.block_on(load.finish());
    assert!(outcome.failures.is_empty(), "{:#?}", outcome.failures);
}

/// The ids of the instances that are ready, on a server or, when it is empty, on all.
fn ready_on(node: &Node, server: &str) -> Vec<String> {
    let mut ready = node.instances("api/echo");
    ready.retain(|one| one["state"] == "ready" && (server.is_empty() || one["server"] == server));
    let id = |one: &serde_json::Value| one["instance"].as_str().unwrap().to_owned();
    ready.iter().map(id).collect()
}

fn client(node: &Node) -> NodeClient<Transport> {
    let token = node.json(&["token", "api/looker"])["token"].clone();
    let config = Config::new(&format!("http://{}", node.local()), token.as_str()).unwrap();
    let hydrant = Hydrant::new(config).unwrap();
    hydrant.client("service/node", NodeClient::new).unwrap()
}

/// What a node's router has counted of one instance: what it sent there, and what failed there.
#[derive(Clone, Copy, Default)]
struct Counts {
    requests: u64,
    errors: u64,
}

type Sample = (Instant, BTreeMap<String, Counts>);

async fn counts(client: &NodeClient<Transport>, ids: &[String]) -> BTreeMap<String, Counts> {
    let request = StatsRequest {
        pattern: "api/echo".into(),
        ..Default::default()
    };
    let Ok(answer) = client.stats(request).await else {
        return BTreeMap::new();
    };
    let all = answer.into_owned().instances.into_iter();
    all.filter(|one| ids.contains(&one.instance))
        .map(|one| {
            let counts = Counts {
                requests: one.requests,
                errors: one.errors.values().sum(),
            };
            (one.instance, counts)
        })
        .collect()
}

async fn watch(
    client: NodeClient<Transport>,
    ids: Vec<String>,
    stop: Arc<AtomicBool>,
) -> Vec<Sample> {
    let mut samples = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        samples.push((Instant::now(), counts(&client, &ids).await));
        tokio::time::sleep(Duration::from_millis(4)).await;
    }
    samples
}

/// How long after the first failure at one of the instances the last request was sent there;
/// `None` when nothing failed there.
fn tail_of(samples: &[Sample], killed: Instant) -> Option<Duration> {
    let total = |sample: &Sample, of: fn(&Counts) -> u64| sample.1.values().map(of).sum::<u64>();
    let (mut first, mut last) = (None, None);
    for pair in samples.windows(2).filter(|pair| pair[1].0 >= killed) {
        let [before, after] = pair else { continue };
        // One that has left the list is counted no more.
        if after.1.len() < before.1.len() {
            break;
        }
        if total(after, |one| one.errors) > total(before, |one| one.errors) {
            first.get_or_insert(before.0);
        }
        if total(after, |one| one.requests) > total(before, |one| one.requests) {
            last = Some(after.0);
        }
    }
    let first = first?;
    Some(last.map_or(Duration::ZERO, |last| last.saturating_duration_since(first)))
}
