//! Parts of ZooKeeper fail, or the way to it.

use std::time::Duration;

use hydrant_harness::netns::Network;
use hydrant_harness::{Proxy, Redis, ZooKeeper, redis, skipped, zookeeper};

use super::town::{EACH, SERVICE, SESSION, Town};
use crate::fleet::echo;
use crate::fleet::engines::{self, Engines};
use crate::harness::pause;

const TICK: Duration = Duration::from_millis(250);

fn town(engines: &Engines) -> Town {
    let fleet = engines.fleet(SESSION);
    let server = |name| fleet.server(name, "a", &echo::table(SERVICE, name, EACH));
    Town::start(["one", "two"].map(server), 2 * EACH)
}

/// Lets `fault` happen while requests flow; right afterwards an instance is killed, and all nodes
/// have to know who came after it. Then `mend`, and as long again that what would expire does.
fn outlive(town: &Town, what: &str, fault: impl FnOnce(), mend: impl FnOnce()) {
    let changes = town.changes();
    let load = town.load(0);
    fault();
    let (killed, took) = town.change(1);
    println!("{what}: right routing {took:?} later");
    pause(SESSION + Duration::from_secs(2));
    mend();
    let (second, took) = town.change(0);
    println!("{what}, mended: right routing {took:?} after a change");
    pause(Duration::from_secs(1));
    changes
        .iter()
        .for_each(|node| node.check(&[&killed, &second]));
    town.finish(load);
}

#[test]
fn the_leader_is_killed() {
    let Some(engines) = Engines::start(3) else {
        return;
    };
    let town = town(&engines);
    let zookeeper = &engines.zookeeper;
    let leader = zookeeper.leader().expect("there is a leader");
    outlive(
        &town,
        "leader killed",
        || zookeeper.kill(leader),
        || zookeeper.restart(leader),
    );
}

#[test]
fn a_follower_is_cut_off() {
    let network = match Network::start(3) {
        Ok(network) => network,
        Err(missing) => return skipped(missing),
    };
    let options = zookeeper::Options {
        servers: 3,
        tick: TICK,
        hosts: network.hosts().to_vec(),
        ..Default::default()
    };
    let started = ZooKeeper::start(options)
        .and_then(|zookeeper| Ok((zookeeper, Redis::single(redis::Options::default())?)));
    let engines = match started {
        Ok((zookeeper, redis)) => Engines { zookeeper, redis },
        Err(missing) => return skipped(missing),
    };
    let town = town(&engines);
    let leader = engines.zookeeper.leader();
    // The one with the most clients, so that some node has to find another.
    let followers = (0..3).filter(|server| Some(*server) != leader);
    let clients = |server: &usize| {
        let told = engines.zookeeper.ask(*server, "cons").unwrap_or_default();
        told.lines().filter(|line| line.contains("sid=")).count()
    };
    let follower = followers.max_by_key(clients).expect("there are two");
    println!("{} clients have to move", clients(&follower));
    outlive(
        &town,
        "follower cut off",
        || network.cut(follower),
        || network.restore(follower),
    );
}

#[test]
fn a_connection_is_half_open() {
    let Some(engines) = Engines::start(1) else {
        return;
    };
    // Three ways to the same server, so that a client can change its way.
    let target = engines.zookeeper.addresses()[0]
        .parse()
        .expect("an address");
    let ways = [(); 3].map(|()| Proxy::start(target));
    let addresses: Vec<String> = ways.iter().map(|way| way.address().to_string()).collect();
    let state = engines::state(&engines.redis.addresses());
    let through = engines::coordination(&addresses, SESSION) + &state;
    let fleet = engines.fleet(SESSION);
    let services = |name| echo::table(SERVICE, name, EACH);
    let setups = [
        fleet.server_with("one", "a", &through, &services("one")),
        fleet.server("two", "a", &services("two")),
    ];
    let town = Town::start(setups, 2 * EACH);
    // A node has one session to read by, and one that its registrations hang on.
    // For a moment it may have three connections, while one of these finds another way.
    let used: Vec<&Proxy> = town.nodes[0].wait("a way is left over", |_| {
        let used: Vec<_> = ways.iter().filter(|way| way.connections() > 0).collect();
        (1..ways.len()).contains(&used.len()).then_some(used)
    });
    println!("{} of {} ways are in use", used.len(), ways.len());
    // One at a time, as one server of an ensemble: a client gives each way a third of its session, so
    // that of three ways two dead ones may cost it the session.
    for way in used.into_iter().filter(|way| way.connections() > 0) {
        outlive(&town, "half-open", || way.hold(), || way.restore());
    }
}
