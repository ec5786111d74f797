//! TLS with the outside: what is shown to whom, how files are replaced, what stalls hurts nobody.

use std::fs;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use hydrant_router::{CertificateFiles, Limits, MinimumVersion, Plain, Router, SecureConfig};

use crate::fleet::Authority;
use crate::raw::{Backend, PATIENCE, Wire, pause};
use crate::secure::{NEW, OLD, Secure, certificate, config, names, start, tls};

/// Waits until it is so.
fn until(what: &str, is: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is() {
        assert!(Instant::now() < end, "not within {PATIENCE:?}: {what}");
        pause(Duration::from_millis(20));
    }
}

fn plain(authority: &Authority, stem: &str) -> CertificateFiles {
    authority.sign(stem, names(&["localhost"]))
}

#[test]
fn each_name_is_shown_its_certificate_and_others_the_first() {
    let authority = Authority::new();
    let shop = authority.sign("shop", names(&["shop.example", "localhost"]));
    let wild = authority.sign("wild", names(&["*.wild.example"]));
    let exact = authority.sign("exact", names(&["a.wild.example"]));
    let backend = Backend::echo();
    let all = [shop.clone(), wild.clone(), exact.clone()];
    let router = start(config(tls(&all)), backend.address);
    let address = router.secure_addr().unwrap();
    let client = Secure::new(&authority);
    for (name, shown) in [
        ("shop.example", &shop),
        ("SHOP.example", &shop),
        ("b.wild.example", &wild),
        ("a.wild.example", &exact),
    ] {
        let client = client.connect(address, name).unwrap();
        assert_eq!(client.shown(), certificate(shown), "{name}");
        let version = client.session().protocol_version();
        assert_eq!(version, Some(rustls::ProtocolVersion::TLSv1_3), "preferred");
    }
    // Of nobody: the first, which does not have the name, so a client that checks goes away.
    let nobody = client.connect(address, "b.a.wild.example").err().unwrap();
    assert!(
        nobody.to_string().contains("not valid for name \"b.a"),
        "{nobody}"
    );
}

#[test]
fn requests_go_on_as_those_in_clear_text_and_say_https() {
    let authority = Authority::new();
    let backend = Backend::echo();
    let router = start(config(tls(&[plain(&authority, "a")])), backend.address);
    let address = router.secure_addr().unwrap();
    for versions in [NEW, OLD] {
        let client = Secure {
            versions,
            alpn: &["http/1.1"],
            ..Secure::new(&authority)
        };
        let mut client = client.connect(address, "localhost").unwrap();
        for _ in 0..3 {
            client
                .send("GET /api/t/a HTTP/1.1\r\nhost: test\r\nx-forwarded-proto: http\r\nhydrant-client-cert: subject=\"CN=me\"\r\n\r\n")
                .unwrap();
            let seen = client.answer().unwrap().text();
            assert!(seen.contains("x-forwarded-proto: https\r\n"), "{seen}");
            assert!(!seen.contains("hydrant-client-cert"), "{seen}");
        }
        let body: Vec<u8> = (0..3_000_000_u32).map(|at| (at % 251) as u8).collect();
        let head = format!(
            "POST /api/t/a HTTP/1.1\r\nhost: test\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        client.send([head.as_bytes(), &body].concat()).unwrap();
        assert!(client.answer().unwrap().body == body, "3 MB there and back");
        let refused = client.get("/api/nobody/").unwrap();
        assert_eq!(refused.status(), 404, "{}", refused.text());
        assert_eq!(client.get("/api/t/b").unwrap().status(), 200);
    }
    let seen = Wire::connect(router.public_addr()).get("/api/t/a").text();
    assert!(seen.contains("x-forwarded-proto: http\r\n"), "{seen}");
}

#[test]
fn a_tunnel_goes_through_tls() {
    let authority = Authority::new();
    let backend = Backend::start(|mut wire, _| {
        let head = wire.head().unwrap();
        assert!(head.contains("upgrade: websocket\r\n"), "{head}");
        wire.send("HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\nwelcome");
        while let Some(bytes) = wire.exactly(5) {
            wire.send(bytes);
        }
    });
    let router = start(config(tls(&[plain(&authority, "a")])), backend.address);
    let client = Secure::new(&authority);
    let mut client = client
        .connect(router.secure_addr().unwrap(), "localhost")
        .unwrap();
    client
        .send("GET /api/t/ HTTP/1.1\r\nhost: test\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n")
        .unwrap();
    assert!(client.head().unwrap().starts_with("HTTP/1.1 101"));
    assert_eq!(client.exactly(7).unwrap(), b"welcome");
    for _ in 0..100 {
        client.send("12345").unwrap();
        assert_eq!(client.exactly(5).unwrap(), b"12345");
    }
}

/// While clients come and go, the certificate is replaced again and again, now and then by something
/// broken. No handshake and no request fails.
#[test]
fn certificates_are_replaced_under_load_without_a_failed_request() {
    let authority = Authority::new();
    let (files, other) = (
        plain(&authority, "a"),
        authority.sign("b", names(&["b.example"])),
    );
    let backend = Backend::echo();
    let router = start(
        config(tls(&[files.clone(), other.clone()])),
        backend.address,
    );
    let address = router.secure_addr().unwrap();
    let (over, requests) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut kept = Secure::new(&authority)
                    .connect(address, "localhost")
                    .unwrap();
                while !over.load(SeqCst) {
                    let new = Secure::new(&authority).get(address, "/api/t/a").unwrap();
                    let old = kept.get("/api/t/a").unwrap();
                    assert_eq!((new.status(), old.status()), (200, 200));
                    requests.fetch_add(2, SeqCst);
                    pause(Duration::from_millis(5));
                }
            });
        }
        let shown = |name: &str| {
            Secure::new(&authority)
                .connect(address, name)
                .unwrap()
                .shown()
        };
        let replaced = || {
            for _ in 0..2 {
                plain(&authority, "a");
                until("the new one is shown", || {
                    shown("localhost") == certificate(&files)
                });
            }
            let good = fs::read(&files.certificate).unwrap();
            let before = shown("localhost");
            fs::write(&files.certificate, "no certificate").unwrap();
            until("the broken one is told of", || {
                !router.tls_troubles().is_empty()
            });
            let told = router.tls_troubles().join("\n");
            assert!(told.contains("a.pem holds no certificate"), "{told}");
            assert!(told.contains("stays in use"), "{told}");
            assert_eq!(shown("localhost"), before, "the old one stays in use");
            // What is wrong with one keeps no other from being replaced.
            authority.sign("b", names(&["b.example"]));
            until("the other is shown", || {
                shown("b.example") == certificate(&other)
            });
            assert!(
                router
                    .tls_metrics()
                    .contains("\nhydrant_tls_unusable_files 1\n")
            );
            fs::write(&files.certificate, good).unwrap();
            until("all is well again", || router.tls_troubles().is_empty());
        };
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(replaced));
        over.store(true, SeqCst);
        outcome.unwrap();
    });
    println!("{} requests, none failed", requests.load(SeqCst));
    assert!(requests.load(SeqCst) > 0);
}

#[test]
fn a_certificate_that_has_ended_or_soon_will_is_told_of() {
    let authority = Authority::new();
    let mut old = names(&["localhost"]);
    (old.not_before, old.not_after) = (
        rcgen::date_time_ymd(2001, 1, 1),
        rcgen::date_time_ymd(2002, 1, 1),
    );
    let files = [authority.sign("old", old), plain(&authority, "new")];
    let router = start(config(tls(&files)), Backend::echo().address);
    let told = router.tls_troubles();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("of localhost has ended"), "{told:?}");
    let metrics = router.tls_metrics();
    let line =
        "hydrant_tls_certificate_ends_seconds{certificate=\"0\",name=\"localhost\"} 1009843200\n";
    assert!(metrics.contains(line), "{metrics}");
}

#[test]
fn what_is_wrong_with_files_is_told_at_the_start() {
    let (authority, backend) = (Authority::new(), Backend::echo());
    let (good, other) = (plain(&authority, "a"), plain(&authority, "b"));
    let error =
        |files: &[CertificateFiles]| Router::start(config(tls(files))).unwrap_err().to_string();
    let mixed = CertificateFiles {
        certificate: good.certificate.clone(),
        key: other.key.clone(),
    };
    let missing = CertificateFiles {
        certificate: "nowhere.pem".into(),
        ..good.clone()
    };
    let turned = CertificateFiles {
        certificate: good.key.clone(),
        key: good.certificate.clone(),
    };
    for (files, part) in [
        (&[][..], "has 0 certificates"),
        (&[mixed], "b.key is not the key of"),
        (&[missing], "cannot read nowhere.pem: No such file"),
        (&[turned], "holds no certificate in PEM form"),
    ] {
        let text = error(files);
        assert!(
            text.contains(part) && text.contains("tls"),
            "{part} in {text}"
        );
    }
    drop(start(config(tls(&[good])), backend.address));
}

/// A ClientHello of TLS 1.1, byte by byte: no library of today sends one.
fn hello_of_tls11() -> Vec<u8> {
    let mut body = vec![3, 2];
    body.extend([7; 32]);
    body.extend([0, 0, 4, 0xc0, 0x14, 0, 0x2f, 1, 0]);
    let curves = [
        0, 10, 0, 4, 0, 2, 0, 23, 0, 11, 0, 2, 1, 0, 0, 13, 0, 4, 0, 2, 4, 3,
    ];
    body.extend([0, curves.len() as u8]);
    body.extend(curves);
    let mut message = vec![1, 0, 0, body.len() as u8];
    message.extend(body);
    let mut record = vec![0x16, 3, 1, 0, message.len() as u8];
    record.extend(message);
    record
}

#[test]
fn old_versions_are_refused() {
    let (authority, backend) = (Authority::new(), Backend::echo());
    let router = start(config(tls(&[plain(&authority, "a")])), backend.address);
    let mut wire = Wire::connect(router.secure_addr().unwrap());
    wire.send(hello_of_tls11());
    let alert = wire.exactly(7).expect("an alert");
    // Fatal, and `protocol_version`.
    assert_eq!((alert[0], &alert[5..]), (0x15, &[2, 70][..]), "{alert:?}");
    assert!(wire.is_closed());
    until("it is counted", || {
        router
            .tls_metrics()
            .contains("\nhydrant_tls_handshakes_failed_total 1\n")
    });

    let mut strict = tls(&[plain(&authority, "a")]);
    strict.minimum = MinimumVersion::Tls13;
    let router = start(config(strict), backend.address);
    let old = Secure {
        versions: OLD,
        ..Secure::new(&authority)
    };
    let refused = old
        .get(router.secure_addr().unwrap(), "/api/t/a")
        .unwrap_err();
    assert!(refused.to_string().contains("ProtocolVersion"), "{refused}");
    let new = Secure::new(&authority).get(router.secure_addr().unwrap(), "/api/t/a");
    assert_eq!(new.unwrap().status(), 200);
}

#[test]
fn clear_text_at_the_port_of_tls_hears_so() {
    let (authority, backend) = (Authority::new(), Backend::echo());
    let router = start(config(tls(&[plain(&authority, "a")])), backend.address);
    let mut wire = Wire::connect(router.secure_addr().unwrap());
    let answer = wire.get("/api/t/a");
    assert_eq!(answer.status(), 400, "{}", answer.text());
    assert!(
        answer.text().contains("ask by https://"),
        "{}",
        answer.text()
    );
    assert!(wire.is_closed());
    // And what is neither is closed.
    let mut noise = Wire::connect(router.secure_addr().unwrap());
    noise.send([0; 64]);
    let mut rest = Vec::new();
    let _ = std::io::Read::read_to_end(&mut noise.reader, &mut rest);
    assert!(!rest.starts_with(b"HTTP"), "{rest:?}");
    assert_eq!(backend.requests(), 0);
}

#[test]
fn stalled_handshakes_end_count_as_connections_and_hurt_nobody() {
    let (authority, backend) = (Authority::new(), Backend::echo());
    let limits = Limits {
        head: Duration::from_secs(1),
        connections_per_address: 60,
        ..Limits::default()
    };
    let mut config = config(tls(&[plain(&authority, "a")]));
    config.limits = limits;
    let router = start(config, backend.address);
    let address = router.secure_addr().unwrap();
    let begin = |bytes: &[u8]| {
        let mut wire = Wire::connect(address);
        wire.send(bytes);
        wire
    };
    let hello = hello_of_tls11();
    let began = Instant::now();
    let mut stalled: Vec<_> = (0..50)
        .map(|at| begin([&b""[..], &hello[..1], &hello[..20]][at % 3]))
        .collect();
    let answered = Secure::new(&authority).get(address, "/api/t/a").unwrap();
    println!("answered beside 50 that stall in {:?}", began.elapsed());
    assert_eq!(answered.status(), 200);
    // With them the address has as many connections as it may have.
    let more: Vec<_> = (0..60)
        .map(|_| TcpStream::connect(address).unwrap())
        .collect();
    let refused = Secure::new(&authority).get(address, "/api/t/a");
    assert!(refused.is_err(), "{:?}", refused.map(|answer| answer.head));
    drop(more);
    for wire in &mut stalled {
        assert!(wire.is_closed(), "nothing is said, and it ends");
    }
    until("there is room again", || {
        Secure::new(&authority).get(address, "/api/t/a").is_ok()
    });
}

#[test]
fn clear_text_is_sent_to_tls_where_that_is_wanted() {
    let (authority, backend) = (Authority::new(), Backend::echo());
    let redirecting = |port| {
        let mut config = config(tls(&[plain(&authority, "a")]));
        let secure = config.secure.take().unwrap();
        config.secure = Some(SecureConfig {
            plain: Plain::Redirect(port),
            ..secure
        });
        start(config, backend.address)
    };
    let router = redirecting(None);
    let port = router.secure_addr().unwrap().port();
    let ask = |router: &Router, request: &str| {
        let mut wire = Wire::connect(router.public_addr());
        wire.send(request);
        let answer = wire.answer();
        let location = answer.header("location").map(str::to_owned);
        (answer.status(), location)
    };
    for (host, path, location) in [
        (
            "a.example",
            "/x/y?z=1",
            format!("https://a.example:{port}/x/y?z=1"),
        ),
        ("a.example:80", "/", format!("https://a.example:{port}/")),
        ("[::1]", "/a", format!("https://[::1]:{port}/a")),
        ("[::1]:80", "/a", format!("https://[::1]:{port}/a")),
    ] {
        let request = format!("POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-length: 0\r\n\r\n");
        assert_eq!(
            ask(&router, &request),
            (308, Some(location)),
            "{host}{path}"
        );
    }
    assert_eq!(
        ask(&router, "GET / HTTP/1.0\r\n\r\n"),
        (400, None),
        "no host"
    );
    assert_eq!(ask(&router, "GET / HTTP/1.1\r\nhost:\r\n\r\n"), (400, None));
    let usual = redirecting(Some(443));
    let request = "GET /a HTTP/1.1\r\nhost: a.example\r\n\r\n";
    let expected = (308, Some("https://a.example/a".to_owned()));
    assert_eq!(ask(&usual, request), expected);
    assert_eq!(backend.requests(), 0, "nothing is served in clear text");
    // The services of the server itself are not sent anywhere.
    let mut local = Wire::connect(router.local_addr());
    assert_eq!(local.get("/api/t/a").status(), 200);
    let secure = Secure::new(&authority).get(router.secure_addr().unwrap(), "/api/t/a");
    assert_eq!(secure.unwrap().status(), 200);
}
