//! Stores send submissions while services, workers, nodes, and all that these stand on, are killed. Whatever was acknowledged arrives:
//! none lost, none twice, the first consumer before the second for each; and the record of it is whole.
//!
//! Some seconds, drawn anew from a seed that is printed; a thousand submissions with `HYDRANT_SOAK`.

mod fleet;
pub mod record;
pub mod stores;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use self::record::get;
use self::stores::{Sent, Stores};
use crate::harness::{Node, Setup, is_soak, kill, pause, seed};

/// The long forms take turns: each alone has more processes than the machine has cores.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// How many submissions are sent; `short` when it is not the long form.
fn wanted(short: usize) -> usize {
    if is_soak() { 1000 } else { short }
}

/// Whose process is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Killed {
    Front,
    Keeper,
    Worker,
    Consumer,
    Node,
}

const FAULTS: [(Killed, &str); 5] = [
    (Killed::Front, "api/submissions"),
    (Killed::Keeper, "service/submissions"),
    (Killed::Worker, "orchestration/delivery"),
    (Killed::Consumer, "api/demo-consumer"),
    (Killed::Node, ""),
];

#[test]
fn no_submission_is_lost_or_arrives_twice_while_everything_is_killed() {
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let seed = seed();
    let (runtime, wanted) = (hydrant_harness::runtime(), wanted(40));
    let mut node = Some(Setup::up().start());
    let public = node.as_ref().unwrap().public();
    let sending = Stores::start(&runtime, vec![public], wanted, seed);
    let begun = Instant::now();
    let counts = go_wrong(&mut node, || sending.is_over(), seed);
    let (sent, refused) = sending.wait(&runtime);
    let took = begun.elapsed();
    let node = node.expect("it was started again");
    let drained = record::until_drained(node.public(), &sent);
    record::print(&sent, took, drained, &refused);
    println!("faults: {counts:?}");
    assert_eq!(sent.len(), wanted);
    check_orders(node.public(), &sent);
    record::check_receipts(node.public(), &sent, ["demo-consumer", "demo-folder"]);
    record::check_folder(&node.data().join("demo").join("delivered"), &sent);
    record::check_audit(&node, &sent);
}

/// One fault after the other, drawn from the seed, until the stores have ended.
fn go_wrong(
    node: &mut Option<Node>,
    is_over: impl Fn() -> bool,
    seed: u64,
) -> BTreeMap<Killed, usize> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut counts = BTreeMap::new();
    while !is_over() {
        pause(Duration::from_millis(random.u64(300..1500)));
        let (fault, service) = FAULTS[random.usize(..FAULTS.len())];
        if fault == Killed::Node {
            let setup = node.take().expect("a node").kill();
            pause(Duration::from_millis(random.u64(0..800)));
            *node = Some(setup.start());
        } else {
            kill_one(node.as_ref().expect("a node"), service, &mut random);
        }
        *counts.entry(fault).or_default() += 1;
    }
    counts
}

/// Kills any process of a service, also the last one.
fn kill_one(node: &Node, service: &str, random: &mut fastrand::Rng) {
    let pids: Vec<u64> = node
        .instances(service)
        .iter()
        .filter_map(|one| one["pid"].as_u64())
        .collect();
    if let Some(pid) = pids.get(random.usize(..pids.len().max(1))) {
        kill(*pid as u32, Signal::KILL);
    }
}

/// Orders by key, one each, with the references that clients were told.
fn check_orders(public: SocketAddr, sent: &[Sent]) {
    let orders = get(public, "demo-consumer/v1/orders").expect("the consumer tells what came");
    let orders = orders.as_array().expect("a list");
    let by_id: BTreeMap<&str, &Value> = orders
        .iter()
        .map(|order| (order["key"].as_str().expect("a key"), order))
        .collect();
    assert_eq!(by_id.len(), orders.len(), "one order for each key");
    let ids: BTreeSet<&str> = sent.iter().map(|one| one.id.as_str()).collect();
    assert_eq!(by_id.keys().copied().collect::<BTreeSet<_>>(), ids);
    record::check_references(public, sent, |one| {
        by_id[one.id.as_str()]["reference"].clone()
    });
}
