//! Two nodes on one coordination and one state, as in a fleet of two servers.

use std::time::{Duration, Instant};

use hydrant_contracts::proto::__buffa::oneof::register_event::Event;
use hydrant_contracts::proto::__buffa::oneof::watch_instances_event::Event as Seen;
use hydrant_contracts::{InstanceState, proto};
use hydrant_node::StartError;
use hydrant_ports::coordination::SessionState;
use hydrant_ports::{Change, Expect, Key};

use crate::shaky::Shaky;
use crate::support::{Client, SOON, Server, Store, next, register};

fn lease(event: Option<Event>) -> String {
    match event {
        Some(Event::Registered(registered)) => registered.lease_id,
        other => panic!("{other:?}"),
    }
}

/// Waits for something to be so.
async fn until(what: &str, mut so: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !so().await {
        assert!(start.elapsed() < SOON, "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn health(client: &Client) -> proto::HealthResponse {
    let health = client.node.health(Default::default()).await;
    health.unwrap().into_owned()
}

async fn servers(client: &Client) -> Vec<String> {
    let servers = health(client).await.servers.into_iter();
    servers.map(|server| server.name).collect()
}

/// The state of an instance in a server's routing table; `None` when it is not there.
fn routed(server: &Server, id: &str) -> Option<InstanceState> {
    let published = server.traffic.published.lock().unwrap();
    let found = published.iter().find(|instance| instance.id.as_str() == id);
    found.map(|instance| instance.state)
}

/// What a process of this name would have left, as it would see itself.
fn left_behind(process: &str) -> bytes::Bytes {
    let record = serde_json::json!({
        "name": "one", "zone": "a", "peer": "10.0.0.9:9081", "version": "1.0.0",
        "since_unix_ms": 0, "pid": 4_000_000, "incarnation": "of-another-run",
        "process": process, "pid_space": std::fs::read_link("/proc/self/ns/pid").unwrap(),
    });
    record.to_string().into()
}

fn this_boot() -> String {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    boot.trim().into()
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_know_each_other_and_route_to_each_others_instances() {
    let store = Store::new();
    let one = store.server("one").await;
    let two = store.server("two").await;
    let (on_one, on_two) = (one.client("service/a"), two.client("service/a"));
    until("one knows two", async || {
        servers(&on_one).await == ["one", "two"]
    })
    .await;
    until("two knows one", async || {
        servers(&on_two).await == ["one", "two"]
    })
    .await;
    assert_eq!(health(&on_two).await.zone, "zone-of-two");

    let registered = on_one
        .registry
        .register_instance(register("service/a", "a-1", 60_000));
    let mut registered = registered.await.unwrap();
    let lease_id = lease(next!(registered).unwrap());
    on_two.discovers(&["a-1"]).await;
    assert!(
        health(&on_two).await.instances.is_empty(),
        "it is on the other server"
    );
    assert_eq!(routed(&two, "a-1"), Some(InstanceState::Ready));
    {
        let published = two.traffic.published.lock().unwrap();
        assert_eq!(published[0].server, "one");
    }

    // Who drains is seen to, and what the own router carries for others counts.
    one.traffic
        .in_flight
        .lock()
        .unwrap()
        .insert("a-1".into(), 1);
    let drained = on_one.registry.drain(proto::DrainRequest {
        lease_id,
        timeout_ms: 1000,
        ..Default::default()
    });
    let seen = until("two sees that it drains", async || {
        routed(&two, "a-1") == Some(InstanceState::Draining)
    });
    let (drained, ()) = tokio::join!(drained, seen);
    assert_eq!(drained.unwrap().into_owned().in_flight, 1);

    one.agent.stop().await;
    until("two is alone", async || servers(&on_two).await == ["two"]).await;
    on_two.discovers(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_twin_is_refused_and_the_living_node_stays() {
    let store = Store::new();
    let one = store.server("one").await;
    let error = store.start("one").await.err().expect("the name is taken");
    assert!(matches!(error, StartError::NameTaken { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("running as the server `one`"), "{text}");
    assert!(
        text.contains(&format!("process {}", std::process::id())),
        "{text}"
    );
    assert!(health(&one.client("operator")).await.healthy);
    let entries = store
        .engines
        .coordination
        .list(&"servers/".parse().unwrap())
        .await;
    let keys: Vec<_> = entries
        .unwrap()
        .into_iter()
        .map(|e| e.key.to_string())
        .collect();
    assert_eq!(keys, ["servers/one"], "the claim is gone");
    // Only a node that has gone makes place.
    one.agent.stop().await;
    store.server("one").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_node_follows_its_predecessor_without_asking() {
    let store = Store::new();
    let coordination = &store.engines.coordination;
    let earlier = coordination.open_session("one", SOON).await.unwrap();
    let key: Key = "servers/one".parse().unwrap();
    let dead = left_behind(&format!("1@{}", this_boot()));
    earlier
        .put_ephemeral(&key, dead, Expect::Absent)
        .await
        .unwrap();
    let mut watch = coordination
        .watch(&"servers/".parse().unwrap())
        .await
        .unwrap();
    assert!(matches!(watch.next().await, Some(Change::All(_))));
    let begun = Instant::now();
    let one = store.server("one").await;
    println!("a restarted node was there after {:?}", begun.elapsed());
    match watch.next().await {
        Some(Change::Put(entry)) => assert_eq!(entry.key, key, "no claim, no gap"),
        other => panic!("{other:?}"),
    }
    earlier.close().await;
    assert!(health(&one.client("operator")).await.healthy);
    assert!(
        coordination.get(&key).await.unwrap().is_some(),
        "its own one stays"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_answer_for_its_name_loses_it_and_withdraws() {
    let store = Store::new();
    let coordination = &store.engines.coordination;
    // Another machine: nobody here can tell whether its process lives.
    let elsewhere = coordination.open_session("one", SOON).await.unwrap();
    let key: Key = "servers/one".parse().unwrap();
    let entry = left_behind("1@another-machine");
    elsewhere
        .put_ephemeral(&key, entry.clone(), Expect::Absent)
        .await
        .unwrap();
    let one = store.server("one").await;
    let client = one.client("service/a");
    let registered = client
        .registry
        .register_instance(register("service/a", "a-1", 60_000));
    let mut registered = registered.await.unwrap();
    lease(next!(registered).unwrap());

    // Now this one is taken for dead: the other one writes over its entry.
    elsewhere
        .put_ephemeral(&key, entry.clone(), Expect::Any)
        .await
        .unwrap();
    until("it has withdrawn, and says so", async || {
        let read = health(&client).await;
        let detail = &read.engines[0].detail;
        !read.healthy && detail.contains("withdrawn") && detail.contains("10.0.0.9:9081")
    })
    .await;
    until("its registrations are gone", async || {
        let instances = coordination.list(&"instances/".parse().unwrap()).await;
        instances.unwrap().is_empty()
    })
    .await;
    // It fights for nothing, and routes on.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(coordination.get(&key).await.unwrap().unwrap().value, entry);
    assert_eq!(routed(&one, "a-1"), Some(InstanceState::Ready));
    // When the other one is gone it is back, with all that is registered with it.
    elsewhere.close().await;
    until("it is back", async || health(&client).await.healthy).await;
    until("with its registrations", async || {
        let instances = coordination.list(&"instances/".parse().unwrap()).await;
        instances.unwrap().len() == 1
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_session_flaps_nothing_and_leaves_no_ghost() {
    let store = Store::new();
    let shaky = Shaky::new(store.engines.coordination.clone());
    let one = store.server_on("one", shaky.clone()).await;
    let two = store.server("two").await;
    let (on_one, on_two) = (one.client("service/a"), two.client("service/a"));
    let mut streams = Vec::new();
    for id in ["a-1", "a-2", "a-3"] {
        let registered = on_one
            .registry
            .register_instance(register("service/a", id, 60_000));
        let mut registered = registered.await.unwrap();
        lease(next!(registered).unwrap());
        streams.push(registered);
    }
    on_two.discovers(&["a-1", "a-2", "a-3"]).await;
    // A process of the node's past, whose service still lives and is about to register again.
    let earlier = shaky_past(&store).await;
    on_two.discovers(&["a-0", "a-1", "a-2", "a-3"]).await;
    let mut seen = on_two.registry.watch(Default::default()).await.unwrap();
    assert!(matches!(next!(seen).unwrap(), Some(Seen::All(_))));
    let below = "instances/".parse().unwrap();
    let mut told = store.engines.coordination.watch(&below).await.unwrap();
    told.next().await;

    // The server is away; for the client the session is lost, but the server still holds it.
    shaky.mood.away();
    shaky.tell(SessionState::Suspended);
    shaky.tell(SessionState::Lost);
    drop(streams.remove(1));
    on_one.discovers(&["a-0", "a-1", "a-3"]).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    shaky.mood.well();
    until("there is a second session", async || shaky.sessions() == 2).await;
    match next!(seen).unwrap() {
        Some(Seen::Removed(id)) => assert_eq!(id, "a-2", "the only one that ended"),
        other => panic!("{other:?}"),
    }
    until("all is under the new session", async || {
        on_two.discover("").await == ["a-0", "a-1", "a-3"]
    })
    .await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    shaky.expire_earlier().await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let more = tokio::time::timeout(Duration::from_millis(50), seen.message()).await;
    assert!(more.is_err(), "nothing else was seen: {more:?}");
    let (mut puts, mut removed) = (Vec::new(), Vec::new());
    while let Ok(Some(change)) = tokio::time::timeout(Duration::from_millis(50), told.next()).await
    {
        match change {
            Change::Put(entry) => puts.push(entry.key.to_string()),
            Change::Removed(key) => removed.push(key.to_string()),
            Change::All(_) => panic!("there was no gap"),
        }
    }
    puts.sort();
    println!(
        "a lost session of 3 instances: {} writes, {} removals",
        puts.len(),
        removed.len()
    );
    assert_eq!(removed, ["instances/service/a/a-2"]);
    assert_eq!(puts, ["instances/service/a/a-1", "instances/service/a/a-3"]);
    assert_eq!(on_two.discover("").await, ["a-0", "a-1", "a-3"]);
    earlier.close().await;
}

/// A session of an earlier process of the server one, with an instance.
async fn shaky_past(store: &Store) -> Box<dyn hydrant_ports::coordination::Session> {
    let coordination = &store.engines.coordination;
    let session = coordination.open_session("one", SOON).await.unwrap();
    let mut instance =
        hydrant_contracts::Instance::try_from(&crate::support::instance("service/a", "a-0"))
            .unwrap();
    instance.server = "one".into();
    let value = serde_json::to_vec(&instance).unwrap().into();
    let key = "instances/service/a/a-0".parse().unwrap();
    session
        .put_ephemeral(&key, value, Expect::Absent)
        .await
        .unwrap();
    session
}

#[tokio::test(flavor = "multi_thread")]
async fn while_coordination_is_away_services_come_and_go_on_their_own_server() {
    let store = Store::new();
    let shaky = Shaky::new(store.engines.coordination.clone());
    let one = store.server_on("one", shaky.clone()).await;
    let two = store.server("two").await;
    let (on_one, on_two) = (one.client("service/a"), two.client("service/a"));
    let open = |id| {
        on_one
            .registry
            .register_instance(register("service/a", id, 60_000))
    };
    let mut stays = open("stays").await.unwrap();
    lease(next!(stays).unwrap());
    let mut ends = open("ends").await.unwrap();
    lease(next!(ends).unwrap());
    on_two.discovers(&["ends", "stays"]).await;

    shaky.mood.away();
    shaky.tell(SessionState::Suspended);
    until("the node says so", async || {
        let coordination = health(&on_one).await.engines.swap_remove(0);
        !coordination.healthy && coordination.detail.contains("degraded")
    })
    .await;
    let mut comes = open("comes").await.unwrap();
    let lease_id = lease(next!(comes).unwrap());
    assert_eq!(routed(&one, "comes"), Some(InstanceState::Ready));
    drop(ends);
    on_one.discovers(&["comes", "stays"]).await;
    let drained = on_one.registry.drain(proto::DrainRequest {
        lease_id,
        timeout_ms: 100,
        ..Default::default()
    });
    assert_eq!(drained.await.unwrap().into_owned().in_flight, 0);
    assert_eq!(routed(&one, "comes"), Some(InstanceState::Draining));
    assert_eq!(
        on_two.discover("").await,
        ["ends", "stays"],
        "the other one knows the past"
    );

    shaky.mood.well();
    shaky.tell(SessionState::Connected);
    on_two.discovers(&["comes", "stays"]).await;
    assert_eq!(routed(&two, "comes"), Some(InstanceState::Draining));
    assert_eq!(shaky.sessions(), 1, "suspended is not lost");
    until("all is well", async || health(&on_one).await.healthy).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_id_of_another_server_is_refused() {
    let store = Store::new();
    let (one, two) = (store.server("one").await, store.server("two").await);
    let (on_one, on_two) = (one.client("service/a"), two.client("service/a"));
    let registered = on_one
        .registry
        .register_instance(register("service/a", "a-1", 60_000));
    let mut registered = registered.await.unwrap();
    lease(next!(registered).unwrap());
    let same = on_two
        .registry
        .register_instance(register("service/a", "a-1", 60_000));
    let mut same = same.await.unwrap();
    let refused = crate::support::error(next!(same));
    assert_eq!(refused.reason, "instance_exists");
    on_two.discovers(&["a-1"]).await;
    until("two routes to the other server", async || {
        let published = two.traffic.published.lock().unwrap();
        published
            .iter()
            .any(|i| i.id.as_str() == "a-1" && i.server == "one")
    })
    .await;
    let key = "instances/service/a/a-1".parse().unwrap();
    assert!(
        store
            .engines
            .coordination
            .get(&key)
            .await
            .unwrap()
            .is_some()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordination_that_hangs_does_not_hang_the_local_api() {
    let store = Store::new();
    let shaky = Shaky::new(store.engines.coordination.clone());
    let one = store.server_on("one", shaky.clone()).await;
    let client = one.client("service/a");
    shaky.mood.hang();
    let begun = Instant::now();
    let registered = client
        .registry
        .register_instance(register("service/a", "a-1", 60_000));
    let mut registered = registered.await.unwrap();
    lease(next!(registered).unwrap());
    println!(
        "registered with a hanging coordination after {:?}",
        begun.elapsed()
    );
    assert_eq!(client.discover("").await, ["a-1"]);
    let observed = client.election.observe(proto::ObserveRequest {
        election: "leader".into(),
        ..Default::default()
    });
    let mut observed = tokio::time::timeout(SOON, observed).await.unwrap().unwrap();
    let refused = tokio::time::timeout(SOON, observed.message())
        .await
        .unwrap();
    assert_eq!(crate::support::error(refused).reason, "engine_unavailable");
    // Nor does it hold up the end of the node.
    let begun = Instant::now();
    tokio::time::timeout(SOON, one.agent.stop()).await.unwrap();
    println!(
        "stopped with a hanging coordination after {:?}",
        begun.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_among_ten_thousand_instances_is_told_alone() {
    let store = Store::new();
    let session = store
        .engines
        .coordination
        .open_session("three", SOON)
        .await
        .unwrap();
    let instance = |number: usize| {
        let (service, id) = (format!("service/s{}", number / 10), format!("i-{number}"));
        let mut instance =
            hydrant_contracts::Instance::try_from(&crate::support::instance(&service, &id))
                .unwrap();
        instance.server = "three".into();
        instance
    };
    let put = async |instance: &hydrant_contracts::Instance| {
        let key: Key = format!("instances/{}/{}", instance.service, instance.id)
            .parse()
            .unwrap();
        let value = serde_json::to_vec(instance).unwrap().into();
        session
            .put_ephemeral(&key, value, Expect::Any)
            .await
            .unwrap();
    };
    let all: Vec<_> = (0..10_000).map(instance).collect();
    futures::future::join_all(all.iter().map(&put)).await;

    let begun = Instant::now();
    let one = store.server("one").await;
    let known = || one.traffic.published.lock().unwrap().len();
    until("all are known", async || known() == 10_001).await;
    println!("a node knew 10,000 instances after {:?}", begun.elapsed());
    let client = one.client("operator");
    let mut seen = client.registry.watch(Default::default()).await.unwrap();
    assert!(matches!(next!(seen).unwrap(), Some(Seen::All(_))));
    let before: Vec<_> = one.traffic.published.lock().unwrap().clone();

    let mut changed = all[4321].clone();
    changed.state = InstanceState::Draining;
    let begun = Instant::now();
    put(&changed).await;
    let draining = Some(InstanceState::Draining);
    while routed(&one, "i-4321") != draining {
        assert!(begun.elapsed() < SOON);
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
    println!("one change was routed after {:?}", begun.elapsed());
    match next!(seen).unwrap() {
        Some(Seen::Put(put)) => assert_eq!(put.id, "i-4321"),
        other => panic!("{other:?}"),
    }
    let after = one.traffic.published.lock().unwrap();
    let same = before
        .iter()
        .zip(&*after)
        .filter(|(a, b)| std::sync::Arc::ptr_eq(a, b));
    assert_eq!(
        same.count(),
        10_000,
        "the others are shared, not made again"
    );
}
