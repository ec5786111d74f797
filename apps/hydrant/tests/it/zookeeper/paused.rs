//! A node is frozen for longer than its session lives.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::town::{EACH, SERVICE, SESSION, Town};
use crate::fleet::echo;
use crate::fleet::engines::Engines;
use crate::harness::pause;

#[test]
fn the_instances_of_a_frozen_node_leave_and_come_back_without_a_ghost() {
    let Some(engines) = Engines::start(1) else {
        return;
    };
    let fleet = engines.fleet(SESSION);
    let server = |name| fleet.server(name, "a", &echo::table(SERVICE, name, EACH));
    let town = Town::start(["one", "two", "three"].map(server), 3 * EACH);
    let changes = town.changes();
    let load = town.load(0);

    let frozen = Instant::now();
    town.nodes[2].signal(Signal::STOP);
    for node in 0..2 {
        town.nodes[node].wait("its instances leave", |_| {
            (town.known(node).len() == 2 * EACH).then_some(())
        });
    }
    println!(
        "left {:?} after the node was frozen; its session lives for {SESSION:?}",
        frozen.elapsed()
    );
    pause((SESSION + Duration::from_secs(3)).saturating_sub(frozen.elapsed()));
    town.nodes[2].signal(Signal::CONT);
    let thawed = Instant::now();
    println!("right {:?} after it went on", town.right_in_time(thawed));

    // A ghost would show, or expire, by now.
    pause((SESSION + Duration::from_secs(2)).saturating_sub(thawed.elapsed()));
    town.right_in_time(Instant::now());
    let own: Vec<String> = own_of(&town, 2);
    for node in &changes[..2] {
        let strangers = node
            .all()
            .into_iter()
            .filter(|change| !own.contains(&change.id));
        let strangers: Vec<_> = strangers.filter(|change| change.now.is_some()).collect();
        assert!(strangers.is_empty(), "flapped: {strangers:#?}");
        let times: Vec<Duration> = node.all().iter().map(|c| c.at - frozen).collect();
        println!("{} changes told, at {times:?}", times.len());
    }
    town.finish(load);
}

/// The ids of a server's instances.
fn own_of(town: &Town, server: usize) -> Vec<String> {
    let processes = town.nodes[server].started();
    let known = town.known(server).into_iter();
    let own = known.filter(|one| processes.contains(&one.pid));
    own.map(|one| one.id.to_string()).collect()
}
