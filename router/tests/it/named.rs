//! Requests that name an instance or a server: those of other nodes, and those to other nodes.

use std::sync::Arc;

use hydrant_contracts::{Caller, Identity, InstanceState};
use hydrant_router::balance::{Chooser, Tried, choose};
use hydrant_router::decide::{Request, Route, decide};
use hydrant_router::{Listener, Moment, Priority, Refusal, Snapshot, Table};

use crate::balance::table;
use crate::decide::instance;

/// Two instances of `api/files` here and one on another server, an `orchestration/a` here, and
/// the node.
fn fleet() -> Table {
    let mut fleet = table([2, 1, 0, 0]);
    let here = |service| {
        let mut made = instance(service, 50);
        made.server = "one".into();
        Arc::new(made)
    };
    fleet.instances.push(here("orchestration/a"));
    fleet.instances.push(here("service/node"));
    fleet
}

fn snapshot(table: &Table) -> Snapshot {
    Snapshot::empty(1).next(table, Moment::now())
}

fn operator() -> Caller {
    Caller::Known(Identity::Operator)
}

/// What a request of another node leads to: an instance, or the reason and why nothing was sent.
fn sent_to(snapshot: &Snapshot, caller: &Caller, target: &str, to: Option<&str>) -> String {
    let request = Request {
        listener: Listener::Peer,
        caller,
        method: b"GET",
        target: target.as_bytes(),
        server: Some(b"two"),
        to: to.map(str::as_bytes),
    };
    told(decide(snapshot, &request))
}

fn told(decided: Result<Route<'_>, Refusal>) -> String {
    let chooser = Chooser {
        worker: 0,
        now: Moment::now(),
        priority: Priority::Normal,
    };
    let mut rng = fastrand::Rng::with_seed(1);
    let chosen = decided.and_then(|route| {
        let chosen = choose(&route, &Tried::default(), chooser, &mut rng)?;
        Ok(format!("{} on {}", chosen.info.id, chosen.info.server))
    });
    chosen.unwrap_or_else(|refusal| {
        let unsent = refusal.unsent.map_or("", |why| why.as_str());
        format!("{} {unsent}", refusal.reason.as_str())
            .trim()
            .into()
    })
}

#[test]
fn another_node_gets_the_instance_that_it_names_and_no_other() {
    let snapshot = snapshot(&fleet());
    let outside = |target, to| sent_to(&snapshot, &Caller::Outside, target, to);
    for id in ["api-files-1", "api-files-2"] {
        let told = outside("/api/files/x", Some(id));
        assert_eq!(told, format!("{id} on one"));
    }
    for (target, to, expected) in [
        ("/api/files/x", Some("api-files-101"), "no_instance unknown"),
        ("/api/files/x", Some("api-files-9"), "no_instance unknown"),
        (
            "/api/files/x",
            Some("orchestration-a-50"),
            "no_instance unknown",
        ),
        ("/api/files/x", Some(""), "no_instance unknown"),
        ("/api/other/x", Some("api-files-1"), "no_instance unknown"),
        (
            "/files.v1.Files/Get",
            Some("api-files-1"),
            "no_instance unknown",
        ),
        ("/api/files/x", None, "bad_request"),
        (
            "/orchestration/a/x",
            Some("orchestration-a-50"),
            "tier_refused",
        ),
        ("/service/node/x", Some("service-node-50"), "tier_refused"),
    ] {
        assert_eq!(outside(target, to), expected, "{target} {to:?}");
    }
}

#[test]
fn tiers_hold_for_callers_of_other_servers_too() {
    let snapshot = snapshot(&fleet());
    let to = |caller: &str| {
        let caller = Caller::Known(Identity::Service(caller.parse().unwrap()));
        sent_to(
            &snapshot,
            &caller,
            "/orchestration/a/x",
            Some("orchestration-a-50"),
        )
    };
    assert_eq!(to("api/files"), "orchestration-a-50 on one");
    assert_eq!(to("orchestration/b"), "tier_refused");
    assert_eq!(to("service/b"), "tier_refused");
    // Every server has one node, and others don't know the id that it has here.
    let node = sent_to(&snapshot, &operator(), "/service/node/x", Some("node-one"));
    assert_eq!(node, "service-node-50 on one");
}

#[test]
fn an_instance_that_takes_nothing_is_said_to_have_seen_nothing() {
    let mut fleet = fleet();
    let mut draining = instance("api/files", 1);
    draining.state = InstanceState::Draining;
    fleet.instances[0] = Arc::new(draining);
    let snapshot = snapshot(&fleet);
    let service = snapshot.service(&"api/files".parse().unwrap()).unwrap();
    let refusing = service
        .instances
        .iter()
        .find(|i| i.info.id.as_str() == "api-files-2");
    refusing.unwrap().live.eject(Moment::now());
    let to = |id| sent_to(&snapshot, &Caller::Outside, "/api/files/x", Some(id));
    assert_eq!(to("api-files-1"), "no_instance not-ready");
    assert_eq!(to("api-files-2"), "no_healthy_instance refused");
}

#[test]
fn the_node_of_another_server_is_asked_only_by_its_name() {
    let mut fleet = fleet();
    fleet
        .servers
        .retain(|server| server.name.as_str() != "four");
    let snapshot = snapshot(&fleet);
    let asked = |listener, target: &str, server: Option<&str>| {
        let request = Request {
            listener,
            caller: &operator(),
            method: b"GET",
            target: target.as_bytes(),
            server: server.map(str::as_bytes),
            to: Some(b"api-files-1"),
        };
        told(decide(&snapshot, &request))
    };
    let node = "/service/node/x";
    let here = "service-node-50 on one";
    assert_eq!(asked(Listener::Local, node, None), here);
    assert_eq!(asked(Listener::Local, node, Some("one")), here);
    assert_eq!(asked(Listener::Local, node, Some("two")), "node-two on two");
    for unknown in ["four", "", "TWO", "two.", "\u{e9}"] {
        assert_eq!(
            asked(Listener::Local, node, Some(unknown)),
            "no_such_server"
        );
    }
    // Nothing else is led by that name, and from the outside nobody asks a node.
    assert_eq!(
        asked(Listener::Local, "/orchestration/a/x", Some("two")),
        "orchestration-a-50 on one"
    );
    assert_eq!(asked(Listener::Public, node, Some("two")), "tier_refused");
    snapshot.peer("two").unwrap().eject(Moment::now());
    assert_eq!(
        asked(Listener::Local, node, Some("two")),
        "no_healthy_instance"
    );
}
