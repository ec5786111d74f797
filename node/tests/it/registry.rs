use std::time::{Duration, Instant};

use hydrant_contracts::proto::__buffa::oneof::register_event::Event;
use hydrant_contracts::proto::__buffa::oneof::watch_instances_event::Event as Seen;
use hydrant_contracts::{Code, header, proto};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{SOON, Server, code, instance, next, register};

fn registered(event: Option<Event>) -> proto::register_event::Registered {
    match event {
        Some(Event::Registered(registered)) => *registered,
        other => panic!("{other:?}"),
    }
}

/// Registers over a connection of its own, by hand, and returns it with the answer open.
async fn registered_over_tcp(server: &Server, service: &str, id: &str) -> TcpStream {
    let request = register(service, id, 60_000);
    let message = serde_json::to_vec(&request).unwrap();
    let identity = hydrant_contracts::Identity::Service(service.parse().unwrap());
    let head = format!(
        "POST /hydrant.v1.Registry/RegisterInstance HTTP/1.1\r\nhost: x\r\n\
         content-type: application/connect+json\r\n{}: {}\r\ncontent-length: {}\r\n\r\n",
        header::TOKEN,
        server.key.issue(&identity),
        message.len() + 5,
    );
    let mut envelope = vec![0];
    envelope.extend((message.len() as u32).to_be_bytes());
    envelope.extend(message);
    let mut socket = TcpStream::connect(server.agent.address()).await.unwrap();
    socket.write_all(head.as_bytes()).await.unwrap();
    socket.write_all(&envelope).await.unwrap();
    let mut answer = String::new();
    while !answer.contains("registered") {
        let mut part = [0; 4096];
        let read = socket.read(&mut part).await.unwrap();
        assert_ne!(read, 0, "{answer}");
        answer.push_str(&String::from_utf8_lossy(&part[..read]));
    }
    socket
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_lives_as_long_as_its_stream() {
    let server = Server::start().await;
    let client = server.client("api/a");
    let mut stream = client
        .registry
        .register_instance(register("api/a", "a-1", 60_000))
        .await
        .unwrap();
    let told = registered(next!(stream).unwrap());
    assert_eq!((&*told.server, told.ttl_ms), ("one", 60_000));
    // Who is told that he is registered is routed to.
    assert_eq!(client.discover("a").await, ["a-1"]);
    {
        let published = server.traffic.published.lock().unwrap();
        let services: Vec<_> = published.iter().map(|i| i.service.to_string()).collect();
        assert_eq!(services, ["api/a", "service/node"]);
        assert_eq!(published[0].server, "one");
        assert!(published[0].since_unix_ms > 0);
    }
    drop(stream);
    client.discovers(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_connection_takes_the_instance_with_it() {
    let server = Server::start().await;
    let client = server.client("operator");

    let closed = registered_over_tcp(&server, "api/a", "closed").await;
    client.discovers(&["closed"]).await;
    drop(closed);
    client.discovers(&[]).await;

    let reset = registered_over_tcp(&server, "api/a", "reset").await;
    client.discovers(&["reset"]).await;
    reset.set_zero_linger().unwrap();
    drop(reset);
    client.discovers(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_instance_is_gone_though_its_connection_is_open() {
    let server = Server::start().await;
    let client = server.client("api/a");
    let mut frozen = client
        .registry
        .register_instance(register("api/a", "frozen", 700))
        .await
        .unwrap();
    let mut awake = client
        .registry
        .register_instance(register("api/a", "awake", 700))
        .await
        .unwrap();
    let lease_id = registered(next!(awake).unwrap()).lease_id;
    let frozen_lease = registered(next!(frozen).unwrap()).lease_id;
    let keep = |lease_id: &str| {
        client.registry.keep_alive(proto::KeepAliveRequest {
            lease_id: lease_id.into(),
            ..Default::default()
        })
    };
    let start = Instant::now();
    while client.discover("").await.len() == 2 {
        keep(&lease_id).await.unwrap();
        assert!(start.elapsed() < SOON);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(client.discover("").await, ["awake"]);
    assert!(
        start.elapsed() >= Duration::from_millis(500),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(code(next!(frozen)), Some(Code::Aborted), "told why");
    assert_eq!(
        code(keep(&frozen_lease).await),
        Some(Code::NotFound),
        "too late"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_registration_of_an_instance_takes_over() {
    let server = Server::start().await;
    let client = server.client("api/a");
    let open = |id| {
        client
            .registry
            .register_instance(register("api/a", id, 60_000))
    };
    let mut older = open("a-1").await.unwrap();
    registered(next!(older).unwrap());
    let mut newer = open("a-1").await.unwrap();
    registered(next!(newer).unwrap());
    assert!(matches!(next!(older).unwrap(), Some(Event::Stop(_))));
    assert!(next!(older).unwrap().is_none());
    drop(older);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(
        client.discover("").await,
        ["a-1"],
        "the older one took nothing with it"
    );
    drop(newer);
    client.discovers(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_id_of_another_service_cannot_be_taken() {
    let server = Server::start().await;
    let (one, two) = (server.client("api/a"), server.client("api/b"));
    let mut first = one
        .registry
        .register_instance(register("api/a", "same", 0))
        .await
        .unwrap();
    registered(next!(first).unwrap());
    let mut second = two
        .registry
        .register_instance(register("api/b", "same", 0))
        .await
        .unwrap();
    assert_eq!(code(next!(second)), Some(Code::AlreadyExists));
    assert_eq!(one.discover("").await, ["same"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_changes_the_state_and_only_ones_own() {
    let server = Server::start().await;
    let client = server.client("api/a");
    let mut starting = instance("api/a", "a-1");
    starting.state = proto::InstanceState::INSTANCE_STATE_STARTING.into();
    let mut stream = client
        .registry
        .register_instance(proto::RegisterRequest {
            instance: starting.into(),
            ..Default::default()
        })
        .await
        .unwrap();
    let lease_id = registered(next!(stream).unwrap()).lease_id;
    let report = || proto::ReportRequest {
        lease_id: lease_id.clone(),
        state: proto::InstanceState::INSTANCE_STATE_READY.into(),
        detail: "warm".into(),
        ..Default::default()
    };
    let foreign = server.client("api/b").registry.report(report()).await;
    assert_eq!(code(foreign), Some(Code::NotFound));
    client.registry.report(report()).await.unwrap();
    let published = server.traffic.published.lock().unwrap();
    assert_eq!(
        (published[0].state.as_str(), &*published[0].detail),
        ("ready", "warm")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_sees_all_then_every_change() {
    let server = Server::start().await;
    let client = server.client("service/watcher");
    let mut watch = client
        .registry
        .watch(proto::WatchInstancesRequest {
            pattern: "api/*".into(),
            ..Default::default()
        })
        .await
        .unwrap();
    assert!(matches!(next!(watch).unwrap(), Some(Seen::All(all)) if all.instances.is_empty()));
    let other = registered_over_tcp(&server, "service/b", "b-1").await;
    let socket = registered_over_tcp(&server, "api/a", "a-1").await;
    assert!(matches!(next!(watch).unwrap(), Some(Seen::Put(put)) if put.id == "a-1"));
    drop(socket);
    assert!(matches!(next!(watch).unwrap(), Some(Seen::Removed(id)) if id == "a-1"));
    drop(other);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_waits_for_the_last_request() {
    let server = Server::start().await;
    let client = server.client("api/a");
    let mut stream = client
        .registry
        .register_instance(register("api/a", "a-1", 60_000))
        .await
        .unwrap();
    let lease_id = registered(next!(stream).unwrap()).lease_id;
    let in_flight = |count| {
        let mut counts = server.traffic.in_flight.lock().unwrap();
        counts.insert("a-1".into(), count);
    };
    let drain = |timeout_ms| {
        client.registry.drain(proto::DrainRequest {
            lease_id: lease_id.clone(),
            timeout_ms,
            ..Default::default()
        })
    };
    in_flight(2);
    let left = drain(100).await.unwrap().into_owned().in_flight;
    assert_eq!(left, 2, "the time was over");
    assert_eq!(
        server.traffic.published.lock().unwrap()[0].state.as_str(),
        "draining"
    );

    let start = Instant::now();
    let (left, ()) = tokio::join!(drain(60_000), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        in_flight(0);
    });
    assert_eq!(left.unwrap().into_owned().in_flight, 0);
    assert!(
        start.elapsed() >= Duration::from_millis(300),
        "{:?}",
        start.elapsed()
    );
    assert!(start.elapsed() < SOON);
}
