//! "Live" means that every instance answers from it.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{Operator, Town, addresses, answer_of, load, public, revision, runtime};
use crate::fleet::engines::state;
use crate::harness::Setup;

const CHANGES: u64 = 50;

#[test]
fn changes_are_live_on_four_instances_of_two_servers() {
    let Some(town) = Town::start(2, |engines| state(&engines.redis.addresses())) else {
        return;
    };
    let operators: Vec<Operator> = town.nodes.iter().map(Operator::of).collect();
    let addresses = addresses(&town.nodes[0]);
    assert_eq!(addresses.len(), 4);
    let (runtime, http) = (runtime(), reqwest::Client::new());
    let (mut seen, mut told) = (Vec::new(), Vec::new());
    runtime.block_on(async {
        for value in 1..=CHANGES {
            let operator = &operators[value as usize % 2];
            let began = Instant::now();
            let change = async {
                let done = operator.put(value).await.expect("it is taken");
                assert_eq!(done["published"], true, "{done}");
                told.push(began.elapsed());
            };
            let reach = async {
                for address in &addresses {
                    while answer_of(&http, address, None).await != Ok(value) {
                        tokio::time::sleep(Duration::from_millis(2)).await;
                    }
                }
                seen.push(began.elapsed());
            };
            tokio::join!(change, reach);
        }
    });
    print("seen on all four", &mut seen);
    print("said to be live", &mut told);
    // Well below a second where nobody else computes.
    assert!(seen[seen.len() / 2] < Duration::from_secs(5), "{seen:?}");
}

fn print(what: &str, times: &mut [Duration]) {
    let slow = |time: &&Duration| **time > Duration::from_secs(1);
    let late = times.iter().enumerate().filter(|(_, time)| slow(time));
    println!("{what}, of these late: {:?}", late.collect::<Vec<_>>());
    times.sort();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100];
    println!(
        "{what}: p50 {:?}, p90 {:?}, p99 {:?}, max {:?} of {} changes at a load of {}",
        at(50),
        at(90),
        at(99),
        at(100),
        times.len(),
        load()
    );
}

#[test]
fn what_is_said_to_be_live_is_what_every_instance_answers() {
    let node = Setup::up().start();
    node.json(&["scale", "api/mobile", "4"]);
    let addresses = addresses(&node);
    assert_eq!(addresses.len(), 4);
    let (runtime, http) = (runtime(), reqwest::Client::new());
    let operator = Operator::of(&node);
    for round in 1..=5 {
        let done = runtime.block_on(operator.put(round)).expect("it is taken");
        assert_eq!(done["published"], true, "{done}");
        let name = format!("k{round}");
        let create = [
            "mobile", "key", "create", &name, "--role", "client", "-m", "a test",
        ];
        let key = node.json(&create);
        assert_eq!(key["published"], true, "{key}");
        let key = key["key"].as_str().expect("a key");
        runtime.block_on(async {
            for number in 0..200 {
                let base = match number % 5 {
                    4 => public(&node),
                    one => addresses[one].clone(),
                };
                let answer = answer_of(&http, &base, Some(key)).await;
                assert_eq!(answer, Ok(round), "request {number} at {base}");
            }
        });
    }
}

#[test]
fn who_is_behind_is_named() {
    let proxy = std::sync::OnceLock::new();
    let through = |engines: &crate::fleet::engines::Engines| {
        let target = engines.redis.addresses()[0].parse().expect("an address");
        let proxy = proxy.get_or_init(|| hydrant_harness::Proxy::start(target));
        state(&[proxy.address().to_string()])
    };
    let Some(town) = Town::start(1, through) else {
        return;
    };
    let proxy = proxy.get().expect("it was started");
    let (runtime, http) = (runtime(), reqwest::Client::new());
    let [one, two] = &town.nodes[..] else {
        panic!("two servers")
    };
    let operator = Operator::of(one);
    let first = runtime.block_on(operator.put(1)).expect("it is taken");
    assert_eq!(first["published"], true, "{first}");
    // Its registration is kept by ZooKeeper, and nothing new reaches it. Nor does it lead any more,
    // or publish: whoever leads writes by another way.
    proxy.cut();
    let done = super::wait_long("a change is published without it", || {
        let done = runtime.block_on(operator.put(2)).ok()?;
        let behind = done["behind"].as_array().map_or(0, Vec::len);
        (behind == 1).then_some(done)
    });
    let behind = done["behind"][0].as_str().expect("an instance").to_owned();
    println!("behind: {done}");
    assert_ne!(done["published"], json!(true));
    let server = |node: &crate::harness::Node| {
        let all = node.instances("api/mobile");
        let found = all.iter().find(|one| one["instance"] == behind.as_str());
        found.expect("it is listed")["server"].clone()
    };
    assert_eq!(server(one), "two");
    let name = format!("instance/{behind}");
    let rose = Instant::now();
    let alarm = super::alarms::rises(one, &name);
    println!("{name} after {:?}: {alarm}", rose.elapsed());
    let old = runtime.block_on(async {
        let own = two.instances("api/mobile");
        let own = own.iter().find(|one| one["instance"] == behind.as_str());
        let address = own.expect("it is listed")["address"]
            .as_str()
            .expect("text")
            .to_owned();
        answer_of(&http, &address, None).await
    });
    assert_eq!(old, Ok(1), "it goes on with what it has");
    proxy.restore();
    super::alarms::falls(one, &name);
    let done = runtime.block_on(operator.put(3)).expect("it is taken");
    assert!(revision(&done) > revision(&first));
    for address in addresses(one) {
        one.wait("it is live everywhere", |_| {
            let answer = runtime.block_on(answer_of(&http, &address, None));
            (answer == Ok(3)).then_some(())
        });
    }
}
