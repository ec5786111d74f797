//! The same on the parts of a fleet of two data centres: each of them goes too, the servers of the database in turn.

use std::sync::atomic::{AtomicBool, Ordering};

use hydrant_harness::WireMock;

use super::*;
use crate::submissions_fleet::{CONSUMERS, Parts, publics};

/// What goes wrong besides a server of the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    Front,
    Keeper,
    Worker,
    /// A node and all that it has started.
    Server,
    /// The object store of a data centre.
    Objects,
    ObjectsFrozen,
    Shop,
    ShopFrozen,
    Archive,
    /// A server of Galera.
    Database,
}

const FAULTS: [Fault; 9] = [
    Fault::Front,
    Fault::Keeper,
    Fault::Worker,
    Fault::Server,
    Fault::Objects,
    Fault::ObjectsFrozen,
    Fault::Shop,
    Fault::ShopFrozen,
    Fault::Archive,
];

type Counts = BTreeMap<Fault, usize>;

#[test]
fn no_submission_is_lost_or_arrives_twice_while_the_parts_of_two_data_centres_are_killed() {
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let seed = seed();
    let Some(parts) = Parts::start() else { return };
    let mut nodes: Vec<_> = parts.nodes().into_iter().map(Some).collect();
    let public = nodes.iter().flatten().map(Node::public).collect();
    let (runtime, wanted) = (hydrant_harness::runtime(), wanted(30));
    let sending = Stores::start(&runtime, public, wanted, seed);
    let begun = Instant::now();
    let counts = go_wrong(&parts, &mut nodes, || sending.is_over(), seed);
    let (sent, refused) = sending.wait(&runtime);
    let took = begun.elapsed();
    let nodes: Vec<Node> = nodes.into_iter().flatten().collect();
    let drained = record::until_drained(nodes[0].public(), &sent);
    record::print(&sent, took, drained, &refused);
    println!("faults: {counts:?}");
    assert_eq!(sent.len(), wanted);
    check(&parts, &nodes, &sent);
}

/// One fault after the other, drawn from the seed, until the stores have ended. The servers of the database have
/// their own turn, because it takes them longest to come back.
fn go_wrong(
    parts: &Parts,
    nodes: &mut [Option<Node>],
    is_over: impl Fn() -> bool,
    seed: u64,
) -> Counts {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let tables = scope.spawn(|| kill_databases(parts, &over, seed));
        // Also when this panics: the other one waits for it.
        let _ends = Ends(&over);
        let mut random = fastrand::Rng::with_seed(seed);
        let mut counts = Counts::new();
        while !is_over() {
            pause(Duration::from_millis(random.u64(300..1500)));
            let fault = FAULTS[random.usize(..FAULTS.len())];
            make(parts, nodes, fault, &mut random);
            *counts.entry(fault).or_default() += 1;
            parts.galera.check();
        }
        over.store(true, Ordering::Relaxed);
        counts.insert(
            Fault::Database,
            tables.join().expect("a server joins again"),
        );
        counts
    })
}

struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Kills one server of the pair after the other, each when the last one is back; tells how many.
fn kill_databases(parts: &Parts, over: &AtomicBool, seed: u64) -> usize {
    let mut random = fastrand::Rng::with_seed(!seed);
    let most = if is_soak() { 12_000 } else { 4_000 };
    let mut count = 0;
    while !over.load(Ordering::Relaxed) {
        pause(Duration::from_millis(random.u64(1_000..most)));
        let server = random.usize(..2);
        parts.galera.node(server).kill();
        pause(Duration::from_millis(random.u64(0..2_000)));
        // The others have to be sure first that it is gone.
        parts.galera.wait_size(1 - server, 2);
        parts.galera.rejoin(server);
        parts.galera.wait_size(1 - server, 3);
        count += 1;
    }
    count
}

fn make(parts: &Parts, nodes: &mut [Option<Node>], fault: Fault, random: &mut fastrand::Rng) {
    let away = Duration::from_millis(random.u64(0..2_500));
    let which = random.usize(..2);
    let node = nodes[which].as_ref().expect("a node");
    match fault {
        Fault::Front => kill_one(node, "api/submissions", random),
        Fault::Keeper => kill_one(node, "service/submissions", random),
        Fault::Worker => kill_one(node, "orchestration/delivery", random),
        Fault::Server => {
            let setup = nodes[which].take().expect("a node").kill_server();
            pause(away);
            nodes[which] = Some(setup.start());
        }
        Fault::Objects => {
            parts.objects[which].process().kill();
            pause(away);
            parts.objects[which].restart();
        }
        Fault::ObjectsFrozen => {
            parts.objects[which].process().pause();
            pause(away);
            parts.objects[which].process().resume();
        }
        Fault::Shop => {
            parts.shop.process().kill();
            pause(away);
            parts.shop.restart();
        }
        Fault::ShopFrozen => {
            parts.shop.process().pause();
            pause(away);
            parts.shop.process().resume();
        }
        Fault::Archive => {
            parts.sshd.stop_all();
            pause(away);
            parts.sshd.restart();
        }
        Fault::Database => {}
    }
}

/// What must hold in the end.
fn check(parts: &Parts, nodes: &[Node], sent: &[Sent]) {
    let public = publics(nodes);
    let received = parts.shop.received();
    let ids: BTreeSet<&str> = sent.iter().map(|one| one.id.as_str()).collect();
    let keys: BTreeSet<&str> = received.keys().map(String::as_str).collect();
    assert_eq!(keys, ids, "the shop has one order for each key");
    let came: usize = received.values().map(Vec::len).sum();
    let again = received.values().filter(|times| times.len() > 1).count();
    println!(
        "{came} requests came to the shop; {again} keys more than once, and {} once",
        keys.len() - again
    );
    record::check_references(public[0], sent, |one| WireMock::order_of(&one.id).into());
    record::check_receipts(public[1], sent, CONSUMERS);
    let manifests = record::check_folder(&parts.sshd.files(), sent);
    for (id, manifest) in &manifests {
        assert_eq!(
            manifest["reference"],
            WireMock::order_of(id),
            "the shop was first"
        );
    }
    verify_receipts(&nodes[0], sent);
    record::check_audit(&nodes[1], sent);
    let rows = parts.check_secondary();
    println!("the server that follows has all {rows} rows");
}

/// Some receipts, as who has one checks it.
fn verify_receipts(node: &Node, sent: &[Sent]) {
    for one in sent.iter().take(20) {
        let path = format!("submissions/v1/submissions/{}/receipt", one.id);
        let receipt = get(node.public(), &path).expect("a receipt");
        let file = node.data().join("receipt.json");
        std::fs::write(&file, receipt.to_string()).expect("a file");
        let output = node.run(&["receipt", "verify", &file.to_string_lossy()]);
        assert!(output.status.success(), "{receipt}: {output:?}");
    }
}
