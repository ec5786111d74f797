//! Who is let in between nodes, and how proofs are replaced.

use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hydrant_contracts::TokenKey;
use hydrant_router::{Config, Limits, PeerConfig, PeerTls, Router, StartError};

use crate::fleet::{Authority, Fleet, Node, errors, on};
use crate::raw::{Backend, PATIENCE, SECRET, Wire, pause};

fn fleet(tls: impl Fn(&str) -> PeerTls) -> Fleet {
    Fleet::with(&["one", "two"], |name| Some(tls(name)), Limits::default())
}

fn start_error(peer: PeerConfig) -> StartError {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let started = Router::start(Config {
        public: any,
        secure: None,
        local: any,
        peer: Some(peer),
        workers: 1,
        key: TokenKey::new(&SECRET),
        limits: Limits::default(),
        proxies: hydrant_router::Proxies::default(),
        expected: Vec::new(),
    });
    started.unwrap_err()
}

/// Each case takes a connection that fails; with nothing behind it, the request is refused and
/// nobody has seen it.
#[test]
fn who_is_not_of_the_fleet_is_not_let_in() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let two = ours.issue("two");
    // Their certificate; our authority is among those that they believe.
    let stranger = theirs.issue("one");
    fs::write(&stranger.ca, [&*ours.pem, &theirs.pem].concat()).unwrap();
    for (name, one, two) in [
        ("a first node of another authority", stranger, two.clone()),
        ("a second node of another server", ours.issue("one"), {
            let mut other = ours.issue("three");
            other.server = "three".parse().unwrap();
            other
        }),
        (
            "a second node of another authority",
            ours.issue("one"),
            theirs.issue("two"),
        ),
    ] {
        let backend = Backend::echo();
        let node =
            |name: &str, tls: &PeerTls| Node::start(name, Some(tls.clone()), Limits::default());
        let fleet = Fleet {
            nodes: vec![node("one", &one), node("two", &two)],
        };
        fleet.publish(&[on("two", "t-1", backend.address)]);
        let mut client = fleet.node("one").public();
        for _ in 0..5 {
            client.send("POST /api/t/a HTTP/1.1\r\nhost: test\r\ncontent-length: 1\r\n\r\nx");
            let answer = client.answer();
            assert_eq!(answer.status(), 503, "{name}: {}", answer.text());
        }
        assert_eq!(backend.requests(), 0, "{name}");
    }
}

/// What a node does not let in, it has not read: any request may go to another.
#[test]
fn a_request_that_is_not_let_in_goes_to_another_node() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let one = ours.issue("one");
    fs::write(&one.ca, [&*ours.pem, &theirs.pem].concat()).unwrap();
    let start = |name: &str, tls: PeerTls| Node::start(name, Some(tls), Limits::default());
    let fleet = Fleet {
        nodes: vec![
            start("one", one),
            start("two", theirs.issue("two")),
            start("three", ours.issue("three")),
        ],
    };
    let backend = Backend::echo();
    fleet.publish(&[
        on("two", "t-1", backend.address),
        on("two", "t-2", backend.address),
        on("three", "t-3", backend.address),
    ]);
    let mut client = fleet.node("one").public();
    for _ in 0..20 {
        client.send("POST /api/t/a HTTP/1.1\r\nhost: test\r\ncontent-length: 1\r\n\r\nx");
        let answer = client.answer();
        assert_eq!(answer.status(), 200, "{}", answer.text());
    }
    let stats = fleet.node("one").router.stats(&"api/t".parse().unwrap());
    let refused: u64 = stats.iter().map(|stats| errors(stats, "peer")).sum();
    assert!(refused >= 1 && backend.requests() == 20, "{stats:?}");
}

/// Clear text, and a client without a certificate, get no answer of HTTP.
#[test]
fn who_proves_nothing_is_not_let_in() {
    let authority = Authority::new();
    let fleet = fleet(|name| authority.issue(name));
    let backend = Backend::echo();
    fleet.publish(&[on("two", "t-1", backend.address)]);
    let mut wire = Wire::connect(fleet.node("two").peer());
    wire.send("GET /api/t/a HTTP/1.1\r\nhost: test\r\nhydrant-to: t-1\r\n\r\n");
    let mut rest = Vec::new();
    let _ = std::io::Read::read_to_end(&mut wire.reader, &mut rest);
    assert!(!rest.starts_with(b"HTTP"), "{rest:?}");

    let roots = {
        use rustls::pki_types::pem::PemObject as _;
        let mut roots = rustls::RootCertStore::empty();
        let ca = rustls::pki_types::CertificateDer::from_pem_slice(authority.pem.as_bytes());
        roots.add(ca.unwrap()).unwrap();
        roots
    };
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = "two.servers.hydrant".try_into().unwrap();
    let mut session = rustls::ClientConnection::new(std::sync::Arc::new(config), name).unwrap();
    let mut tcp = std::net::TcpStream::connect(fleet.node("two").peer()).unwrap();
    tcp.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut stream = rustls::Stream::new(&mut session, &mut tcp);
    let request = b"GET /api/t/a HTTP/1.1\r\nhost: test\r\nhydrant-to: t-1\r\n\r\n";
    let _ = std::io::Write::write_all(&mut stream, request);
    let mut rest = Vec::new();
    let error = std::io::Read::read_to_end(&mut stream, &mut rest).unwrap_err();
    assert!(error.to_string().contains("CertificateRequired"), "{error}");
    assert!(rest.is_empty() && backend.requests() == 0);
}

/// Of those who hold a certificate of the fleet, only nodes speak to nodes.
#[test]
fn a_certificate_of_no_server_is_not_let_in() {
    let authority = Authority::new();
    let outsider = authority.issue_for("one", "redis.example");
    let error = start_error(PeerConfig {
        listen: ([127, 0, 0, 1], 0).into(),
        tls: Some(outsider),
    });
    let text = error.to_string();
    assert!(text.contains("is not for the server one"), "{text}");
}

/// The authority is replaced while requests run: both are believed, then each node gets a
/// certificate of the new one, then the old one is forgotten. No request fails.
#[test]
fn certificates_and_authorities_are_replaced_without_a_restart() {
    let (old, new) = (Authority::new(), Authority::new());
    let files = ["one", "two"].map(|name| old.issue(name));
    let tls = |name: &str| {
        files
            .iter()
            .find(|files| files.server.as_str() == name)
            .cloned()
    };
    // Keeps no connection, so that every request takes a new one.
    let limits = Limits {
        upstream_idle: Duration::ZERO,
        ..Limits::default()
    };
    let fleet = Fleet::with(&["one", "two"], tls, limits);
    let backend = Backend::echo();
    let phase = Duration::from_millis(1600);
    fleet.publish(&[on("two", "t-1", backend.address)]);
    let mut client = fleet.node("one").public();
    let mut check = |when: &str| {
        let start = Instant::now();
        let mut count = 0;
        while start.elapsed() < phase {
            let answer = client.get("/api/t/a");
            assert_eq!(answer.status(), 200, "{when}: {}", answer.text());
            count += 1;
            pause(Duration::from_millis(20));
        }
        println!("{when}: {count} requests");
    };
    check("with the old authority");
    for files in &files {
        fs::write(&files.ca, [&*old.pem, &new.pem].concat()).unwrap();
    }
    check("with both authorities");
    for files in &files {
        new.write(files, &format!("{}.servers.hydrant", files.server));
    }
    check("with new certificates");
    for files in &files {
        fs::write(&files.ca, &new.pem).unwrap();
    }
    check("with the new authority");
    // A node with a certificate of the old one is refused now, and one of the new one is not.
    for (authority, status) in [(&old, 503), (&new, 200)] {
        let late = authority.issue("three");
        fs::write(&late.ca, [&*old.pem, &new.pem].concat()).unwrap();
        let three = Node::start("three", Some(late), Limits::default());
        crate::fleet::publish(
            &three,
            &fleet.servers(),
            &[on("two", "t-1", backend.address)],
        );
        let answer = three.public().get("/api/t/a");
        assert_eq!(answer.status(), status, "{}", answer.text());
    }
    // What is wrong is not used.
    fs::write(&files[0].key, "no key").unwrap();
    check("with a damaged key");
}

#[test]
fn what_is_wrong_with_proofs_is_told_at_the_start() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let error = |change: &dyn Fn(&mut PeerTls)| {
        let mut files = ours.issue("one");
        change(&mut files);
        let error = start_error(PeerConfig {
            listen,
            tls: Some(files),
        });
        error.to_string()
    };
    let write = |path: &std::path::Path, text: &str| fs::write(path, text).unwrap();
    for (text, part) in [
        (
            error(&|files| fs::remove_file(&files.ca).unwrap()),
            "cannot read",
        ),
        (error(&|files| write(&files.ca, "")), "holds no certificate"),
        (
            error(&|files| write(&files.certificate, "x")),
            "holds no certificate",
        ),
        (
            error(&|files| write(&files.key, "x")),
            "holds no private key",
        ),
        (
            error(&|files| files.server = "two".parse().unwrap()),
            "not for the server two",
        ),
        (
            error(&|files| write(&files.ca, &theirs.pem)),
            "is not accepted by",
        ),
        (
            error(&|files| {
                let other = rcgen::KeyPair::generate().unwrap();
                write(&files.key, &other.serialize_pem());
            }),
            "is not the key of",
        ),
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let clear = start_error(PeerConfig {
        listen: ([0, 0, 0, 0], 0).into(),
        tls: None,
    });
    assert!(clear.to_string().contains("without TLS"), "{clear}");
}

/// The system accepts connections for a node that is frozen. One that does not finish its handshake
/// is passed over with all that is behind it, and stays so: that it can be connected to is no sign
/// of life.
#[test]
fn a_frozen_node_is_passed_over_until_it_answers() {
    let authority = Authority::new();
    let limits = Limits {
        connect: Duration::from_secs(1),
        ..Limits::default()
    };
    let fleet = Fleet::with(&["one", "two"], |name| Some(authority.issue(name)), limits);
    let frozen = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let backend = Backend::echo();
    let mut servers = fleet.servers();
    servers.push(crate::fleet::server("three", frozen.local_addr().unwrap()));
    let instances = [
        on("three", "t-1", backend.address),
        on("three", "t-2", backend.address),
        on("two", "t-3", backend.address),
    ];
    crate::fleet::publish(fleet.node("two"), &servers, &instances);
    crate::fleet::publish(fleet.node("one"), &servers, &instances);
    let mut client = fleet.node("one").public();
    for _ in 0..40 {
        client.send("POST /api/t/a HTTP/1.1\r\nhost: test\r\ncontent-length: 1\r\n\r\nx");
        assert_eq!(client.answer().status(), 200);
        pause(Duration::from_millis(30));
    }
    let stats = fleet.node("one").router.stats(&"api/t".parse().unwrap());
    let errors: u64 = stats.iter().map(|stats| errors(stats, "peer")).sum();
    assert_eq!((errors, backend.requests()), (1, 40), "{stats:?}");
}

/// A connection that never finishes its handshake is closed.
#[test]
fn a_slow_handshake_is_ended() {
    let authority = Authority::new();
    let limits = Limits {
        head: Duration::from_millis(200),
        ..Limits::default()
    };
    let fleet = Fleet::with(&["one"], |name| Some(authority.issue(name)), limits);
    let mut wire = Wire::connect(fleet.node("one").peer());
    wire.send([0x16, 3, 1]);
    assert!(wire.is_closed());
}
