//! All of ZooKeeper is away for a while.

use std::time::{Duration, Instant};

use super::reigns::Reigns;
use super::town::{EACH, SERVICE, SESSION, Town};
use crate::fleet::echo;
use crate::fleet::engines::Engines;
use crate::harness::{is_soak, pause};

#[test]
fn requests_and_instances_outlive_zookeeper() {
    let away = Duration::from_secs(if is_soak() { 60 } else { 8 });
    let Some(engines) = Engines::start(3) else {
        return;
    };
    let fleet = engines.fleet(SESSION);
    // The first server has no instance that it could prefer.
    let server = |name| fleet.server(name, "a", &echo::table(SERVICE, name, EACH));
    let town = Town::start(
        [fleet.server("one", "a", ""), server("two"), server("three")],
        2 * EACH,
    );
    let reigns = Reigns::start(&town);
    town.nodes[0].wait("somebody leads", |_| (reigns.count() > 0).then_some(()));
    let changes = town.changes();
    let loads = [town.load(0), town.load(1)];

    let begun = Instant::now();
    engines.zookeeper.kill_all();
    pause(Duration::from_secs(1));
    let killed = town.kill_one(1);
    pause(Duration::from_millis(500));
    let still = town.known(0).iter().any(|one| one.id.to_string() == killed);
    assert!(
        still,
        "nobody can have told the first node of the end of {killed}"
    );
    passed_over(&town, &killed);
    pause(away.saturating_sub(begun.elapsed()));
    println!("ZooKeeper was away for {:?}", begun.elapsed());
    engines.zookeeper.restart_all();
    let back = Instant::now();
    println!(
        "right again {:?} after ZooKeeper was back",
        town.right_in_time(back)
    );

    // Whatever would expire now, would.
    pause((SESSION + Duration::from_secs(2)).saturating_sub(back.elapsed()));
    town.right_in_time(Instant::now());
    changes.iter().for_each(|node| node.check(&[&killed]));
    reigns.check();
    loads.into_iter().for_each(|load| town.finish(load));
}

/// The first node sends a killed instance of another server next to nothing, though its table
/// still has it.
fn passed_over(town: &Town, killed: &str) {
    let requests = |id: &str| -> u64 {
        let stats = town.nodes[0].json(&["stats", id]);
        let all = stats["instances"].as_array().expect("a list").iter();
        all.map(|one| one["requests"].as_u64().expect("a number"))
            .sum()
    };
    let before = (requests(killed), requests(SERVICE));
    pause(Duration::from_secs(2));
    let [dead, all] = [requests(killed) - before.0, requests(SERVICE) - before.1];
    println!("{dead} of {all} attempts went to the killed instance meanwhile");
    assert!(dead * 20 < all, "{dead} of {all}");
}
