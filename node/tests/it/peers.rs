//! Two whole nodes of a fleet, on real sockets: a request that enters at one is answered by an
//! instance of the other.

use std::time::{Duration, Instant};

use connectrpc::client::{ClientConfig, HttpClient};
use hydrant_contracts::proto::__buffa::oneof::register_event::Event;
use hydrant_contracts::{Identity, TokenKey, header, proto};
use hydrant_node::{FleetConfig, Node, NodeConfig};

use crate::node::{get, web, web_instance};
use crate::support::{Client, SOON, Store, next};

fn fleet_key() -> TokenKey {
    TokenKey::new(&[9; 32])
}

async fn node(store: &Store, data: &std::path::Path, name: &str) -> Node {
    let mut config = NodeConfig::new(name.parse().unwrap(), data.join(name));
    config.workers = 1;
    config.fleet = Some(FleetConfig {
        peer: ([127, 0, 0, 1], 0).into(),
        advertise: None,
        tls: None,
        key: fleet_key(),
    });
    Node::start(config, store.engines.clone()).await.unwrap()
}

fn client(node: &Node, who: &str) -> Client {
    let identity = Identity::Service(who.parse().unwrap());
    let url = format!("http://{}/service/node", node.local_addr());
    let config = ClientConfig::new(url.parse().unwrap())
        .with_default_header(header::TOKEN, fleet_key().issue(&identity));
    Client::new(&HttpClient::plaintext(), &config)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_waits_for_what_came_through_other_nodes() {
    let (folder, store) = (tempfile::tempdir().unwrap(), Store::new());
    let one = node(&store, folder.path(), "one").await;
    let two = node(&store, folder.path(), "two").await;
    assert!(one.peer_addr().is_some());
    let registry = client(&one, "api/web").registry;
    let address = web(Duration::from_millis(500)).await;
    let registered = registry.register_instance(web_instance("web-1", address));
    let mut registered = registered.await.unwrap();
    let Some(Event::Registered(lease)) = next!(registered).unwrap() else {
        panic!("the first event");
    };
    client(&two, "api/web").discovers(&["web-1"]).await;
    // Whose address the second node is told, by the entry of the first one's server.
    let begun = Instant::now();
    loop {
        let health = client(&two, "api/web")
            .node
            .health(Default::default())
            .await;
        let servers = health.unwrap().into_owned().servers;
        let peer = servers.iter().find(|server| server.name == "one");
        if peer.is_some_and(|server| Some(server.peer.parse().unwrap()) == one.peer_addr()) {
            break;
        }
        assert!(begun.elapsed() < SOON, "{servers:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }

    let drain = async {
        tokio::time::sleep(Duration::from_millis(150)).await;
        let request = proto::DrainRequest {
            lease_id: lease.lease_id.clone(),
            timeout_ms: 10_000,
            ..Default::default()
        };
        let start = Instant::now();
        let left = registry.drain(request).await.unwrap().into_owned();
        (left.in_flight, start.elapsed())
    };
    let ((status, body), (left, waited)) = tokio::join!(get(two.public_addr(), "/api/web/"), drain);
    assert_eq!(status, 200, "{body}");
    assert_eq!(left, 0);
    assert!(
        waited >= Duration::from_millis(200),
        "it waited for the other node's request: {waited:?}"
    );
    let (status, body) = get(two.public_addr(), "/api/web/").await;
    assert_eq!(status, 503, "draining, also for the other node: {body}");
    drop(registered);
    one.shutdown().await;
    two.shutdown().await;
}
