use std::time::Duration;

use hydrant_contracts::proto;
use hydrant_sdk::{Code, Error, Instance, InstanceChange, InstanceState, Registration};

use crate::fake_node::FakeNode;
use crate::{soon, until};

fn instance() -> Instance {
    Instance {
        id: "test-1".parse().unwrap(),
        service: "service/test".parse().unwrap(),
        version: "1.0.0".parse().unwrap(),
        server: String::new(),
        address: "127.0.0.1:4000".parse().unwrap(),
        http2: false,
        methods: Vec::new(),
        prefixes: Vec::new(),
        state: InstanceState::Starting,
        detail: String::new(),
        since_unix_ms: 1,
        pid: 1,
        repeatable_paths: Vec::new(),
    }
}

#[tokio::test]
async fn an_instance_is_registered_reported_stopped_and_drained() {
    let node = FakeNode::start();
    let registration = Registration::start(&node.hydrant(), instance());
    soon(registration.registered()).await.unwrap();
    assert_eq!(registration.node_away(), None);
    soon(registration.reported()).await;
    assert!(
        node.seen.now().reports.is_empty(),
        "told when it registered"
    );
    registration.report(InstanceState::Ready, "up");
    soon(registration.reported()).await;
    node.seen.ask_to_stop("scaled down");
    assert_eq!(soon(registration.stop_requested()).await, "scaled down");
    assert_eq!(
        soon(registration.drain(Duration::from_secs(1))).await,
        Ok(0)
    );
    let seen = node.seen.now();
    assert_eq!(seen.registered[0].state, InstanceState::Starting);
    assert_eq!(
        seen.reports[0],
        (proto::InstanceState::INSTANCE_STATE_READY, "up".into())
    );
    assert_eq!(seen.drains, 1);
    assert!(
        seen.requests
            .iter()
            .all(|headers| headers["hydrant-token"] == "h1.service/test.abc")
    );
}

#[tokio::test]
async fn it_registers_again_when_the_node_is_back() {
    let node = FakeNode::start();
    let registration = Registration::start(&node.hydrant(), instance());
    soon(registration.registered()).await.unwrap();
    registration.report(InstanceState::Ready, "");
    let (address, seen) = (node.address, node.seen.clone());
    drop(node);
    until(|| registration.node_away().is_some()).await;
    soon(registration.abandoned(Duration::from_millis(50))).await;
    let _node = FakeNode::start_at(address, seen.clone());
    until(|| seen.now().registered.len() > 1).await;
    until(|| registration.node_away().is_none()).await;
    let again = seen.now().registered.last().unwrap().clone();
    assert_eq!(again.id.as_str(), "test-1");
    assert_eq!(again.state, InstanceState::Ready, "as it was reported last");
}

#[tokio::test]
async fn a_frozen_node_counts_as_away() {
    let node = FakeNode::start();
    node.seen.now().ttl_ms = 400;
    let registration = Registration::start(&node.hydrant(), instance());
    soon(registration.registered()).await.unwrap();
    until(|| node.seen.now().beats > 2).await;
    node.seen.now().silent = true;
    until(|| registration.node_away().is_some()).await;
    node.seen.now().silent = false;
    until(|| registration.node_away().is_none()).await;
    assert!(node.seen.now().registered.len() > 1);
}

#[tokio::test]
async fn a_refusal_is_told() {
    let node = FakeNode::start();
    let refusal = Error::new(
        Code::PermissionDenied,
        "not_yours",
        "the token is not for service/test",
    );
    node.seen.now().refuse = Some(refusal.clone());
    let registration = Registration::start(&node.hydrant(), instance());
    assert_eq!(soon(registration.registered()).await, Err(refusal));
}

#[tokio::test]
async fn instances_are_discovered_and_watched() {
    let node = FakeNode::start();
    let hydrant = node.hydrant();
    let registration = Registration::start(&hydrant, instance());
    soon(registration.registered()).await.unwrap();
    assert_eq!(hydrant.discover("test").await.unwrap(), [instance()]);
    let mut watch = hydrant.watch("test");
    let all = soon(watch.next()).await.unwrap();
    assert_eq!(all, InstanceChange::All(vec![instance()]));
    let removed = soon(watch.next()).await.unwrap();
    assert_eq!(removed, InstanceChange::Removed("test-1".into()));
}
