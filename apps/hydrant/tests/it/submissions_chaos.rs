//! Stores send submissions while services, workers and the node are killed. Whatever was acknowledged arrives:
//! none lost, none twice, the first consumer before the second for each; and the record of it is whole.
//!
//! Some seconds, drawn anew from a seed that is printed; a thousand submissions with `HYDRANT_SOAK`.

mod stores;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;
use tokio::task::JoinHandle;

use self::stores::{Sent, Stores, sha256_of};
use crate::harness::{Node, Setup, is_soak, kill, pause, seed};

/// How many stores send at the same time.
const STORES: u64 = 8;
/// How long the queue may take to be empty after the last fault.
const DRAINED: Duration = Duration::from_secs(180);

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
    let seed = seed();
    let wanted = if is_soak() { 1000 } else { 40 };
    let runtime = hydrant_harness::runtime();
    let mut node = Some(Setup::up().start());
    let stores = Arc::new(Stores {
        public: node.as_ref().unwrap().public(),
        left: AtomicUsize::new(wanted),
    });
    let sending: Vec<_> = (0..STORES)
        .map(|number| {
            let stores = Arc::clone(&stores);
            runtime.spawn(async move { stores.send_again_and_again(number, seed).await })
        })
        .collect();
    let begun = Instant::now();
    let is_over = || sending.iter().all(JoinHandle::is_finished);
    let counts = go_wrong(&mut node, is_over, seed);
    let sent: Vec<Sent> = runtime.block_on(async {
        let mut all = Vec::new();
        for one in sending {
            all.extend(one.await.expect("a store does not panic"));
        }
        all
    });
    let took = begun.elapsed();
    let node = node.expect("it was started again");
    let drained = until_drained(&node, &sent);
    let at_once = sent.iter().filter(|one| one.reference.is_some()).count();
    let attempts: usize = sent.iter().map(|one| one.attempts).sum();
    println!(
        "{} submissions in {took:?}, {attempts} requests, {at_once} with a reference at once; \
         the last was delivered {drained:?} later; faults: {counts:?}",
        sent.len()
    );
    assert_eq!(sent.len(), wanted);
    check(&node, &sent);
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

/// Waits until all is delivered; tells how long that took.
fn until_drained(node: &Node, sent: &[Sent]) -> Duration {
    let begun = Instant::now();
    let public = node.public();
    loop {
        let open = sent.iter().find(|one| {
            let status = get(public, &format!("submissions/v1/submissions/{}", one.id));
            status.is_none_or(|status| status["state"] != "delivered")
        });
        let Some(open) = open else {
            return begun.elapsed();
        };
        let late = get(public, &format!("submissions/v1/submissions/{}", open.id));
        assert!(begun.elapsed() < DRAINED, "not delivered: {late:?}");
        pause(Duration::from_millis(200));
    }
}

/// What must hold in the end.
fn check(node: &Node, sent: &[Sent]) {
    let public = node.public();
    let orders = get(public, "demo-consumer/v1/orders").expect("the consumer tells what came");
    let orders = orders.as_array().expect("a list");
    let by_id: BTreeMap<&str, &Value> = orders
        .iter()
        .map(|order| (order["key"].as_str().expect("a key"), order))
        .collect();
    assert_eq!(by_id.len(), orders.len(), "one order for each key");
    let ids: BTreeSet<&str> = sent.iter().map(|one| one.id.as_str()).collect();
    assert_eq!(by_id.keys().copied().collect::<BTreeSet<_>>(), ids);
    for one in sent {
        let status = get(public, &format!("submissions/v1/submissions/{}", one.id)).unwrap();
        let reference = &by_id[one.id.as_str()]["reference"];
        assert_eq!(
            &status["reference"], reference,
            "one reference for {}",
            one.id
        );
        if let Some(told) = &one.reference {
            assert_eq!(told, reference, "the client was told another one");
        }
        check_receipt(public, one);
    }
    check_folder(node, sent);
    let audit = node.wait("all events are sealed", |node| {
        let output = node.run(&["--json", "audit", "verify"]);
        let audit: Value = serde_json::from_slice(&output.stdout).ok()?;
        (audit["unsealed_events"] == 0).then_some(audit)
    });
    assert_eq!(
        audit["findings"],
        serde_json::json!([]),
        "the record is whole"
    );
    assert_eq!(audit["good_receipts"], sent.len());
}

/// Accepted, submitted, the first consumer, then the second, each once.
fn check_receipt(public: SocketAddr, one: &Sent) {
    let receipt = get(
        public,
        &format!("submissions/v1/submissions/{}/receipt", one.id),
    )
    .unwrap();
    let hops = receipt["hops"].as_array().expect("hops");
    let kinds: Vec<_> = hops.iter().filter_map(|hop| hop["kind"].as_str()).collect();
    assert_eq!(
        kinds,
        ["accepted", "submitted", "delivered", "delivered"],
        "{receipt}"
    );
    assert!(hops.is_sorted_by_key(|hop| hop["at"].as_i64()), "{receipt}");
    let consumers = hops[2..].iter().map(|hop| {
        let record: Value = serde_json::from_str(hop["record"].as_str().unwrap()).unwrap();
        record["consumer"].clone()
    });
    let consumers: Vec<_> = consumers.collect();
    assert_eq!(consumers, ["demo-consumer", "demo-folder"]);
}

/// Each has one manifest in the folder, and nothing unfinished is left beside it.
fn check_folder(node: &Node, sent: &[Sent]) {
    let mut manifests = BTreeMap::new();
    let mut unfinished = Vec::new();
    let mut folders = vec![node.data().join("demo").join("delivered")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)
            .expect("what was delivered")
            .flatten()
        {
            let (path, name) = (entry.path(), entry.file_name());
            let name = name.to_string_lossy();
            if path.is_dir() {
                folders.push(path);
            } else if name == "manifest.json" {
                let manifest = std::fs::read(&path).expect("a manifest");
                let manifest: Value = serde_json::from_slice(&manifest).expect("JSON");
                let id = manifest["id"].as_str().expect("an id").to_owned();
                let before = manifests.insert(id, (folder.clone(), manifest));
                assert!(before.is_none(), "{path:?} is there twice");
            } else if name.ends_with(".part") {
                unfinished.push(path);
            }
        }
    }
    for one in sent {
        let manifest = manifests.remove(&one.id);
        let manifest = manifest.unwrap_or_else(|| panic!("{} is not in the folder", one.id));
        let (folder, manifest) = manifest;
        assert_eq!(manifest["fields"]["name"], one.name.as_str());
        let told = manifest["attachments"].as_array().expect("a list");
        let told: Vec<_> = told
            .iter()
            .filter_map(|one| one["sha256"].as_str())
            .collect();
        assert_eq!(told, one.files, "{manifest}");
        assert_eq!(kept(&folder), one.files, "{folder:?}");
    }
    assert!(manifests.is_empty(), "more than was sent: {manifests:?}");
    assert!(unfinished.is_empty(), "{unfinished:?}");
}

/// The SHA-256 of each file beside the manifest, in order.
fn kept(folder: &Path) -> Vec<String> {
    let files = std::fs::read_dir(folder).expect("a folder").flatten();
    let files = files.map(|entry| entry.path());
    let mut files: Vec<_> = files
        .filter(|path| !path.ends_with("manifest.json"))
        .collect();
    files.sort();
    let hash = |path: &PathBuf| sha256_of(&std::fs::read(path).expect("a file"));
    files.iter().map(hash).collect()
}

/// The JSON at a path of the tier api, if it answers.
fn get(public: SocketAddr, path: &str) -> Option<Value> {
    let url = format!("http://{public}/api/{path}");
    hydrant_harness::runtime().block_on(async move {
        let answer = reqwest::get(url).await.ok()?.error_for_status().ok()?;
        answer.json().await.ok()
    })
}
