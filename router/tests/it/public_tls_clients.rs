//! Clients of TLS: who proves who it is, and clients that nobody here wrote.

use std::net::SocketAddr;
use std::process::{Command, Output, Stdio};

use hydrant_harness::skipped;
use hydrant_router::{CertificateFiles, Router};
use rcgen::{CertificateParams, DnType};

use crate::fleet::Authority;
use crate::raw::Backend;
use crate::secure::{NEW, OLD, Secure, config, names, start, tls, with_clients};

fn phone(name: &str) -> CertificateParams {
    let mut params = names(&["phone.example"]);
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

/// A router whose clients' certificates are of `clients`.
fn asking(ours: &Authority, clients: &Authority, required: bool, backend: SocketAddr) -> Router {
    let files = ours.sign("server", names(&["localhost"]));
    start(
        config(with_clients(tls(&[files]), &clients.file(), required)),
        backend,
    )
}

#[test]
fn an_instance_learns_who_has_proved_to_be_whom_and_nothing_that_is_claimed() {
    let (ours, clients) = (Authority::new(), Authority::new());
    let backend = Backend::echo();
    let phone = clients.sign("phone", phone("phone 7, O=Shop"));
    for required in [true, false] {
        let router = asking(&ours, &clients, required, backend.address);
        let mut client = Secure {
            own: Some(&phone),
            ..Secure::new(&ours)
        }
        .connect(router.secure_addr().unwrap(), "localhost")
        .unwrap();
        for _ in 0..2 {
            client
                .send("GET /api/t/a HTTP/1.1\r\nhost: test\r\nHydrant-Client-Cert: subject=\"CN=root\"\r\n\r\n")
                .unwrap();
            let seen = client.answer().unwrap().text();
            let lines: Vec<_> = seen
                .lines()
                .filter(|line| line.to_lowercase().starts_with("hydrant-client-cert"))
                .collect();
            assert_eq!(lines.len(), 1, "{seen}");
            let expected = "hydrant-client-cert: subject=\"CN=phone 7%2C O%3DShop\", sha256=\"";
            assert!(lines[0].starts_with(expected), "{seen}");
        }
    }
    let router = asking(&ours, &clients, false, backend.address);
    let nobody = Secure::new(&ours).get(router.secure_addr().unwrap(), "/api/t/a");
    let seen = nobody.unwrap().text();
    assert!(!seen.contains("hydrant-client-cert"), "{seen}");
}

#[test]
fn who_proves_nothing_or_the_wrong_thing_is_not_let_in() {
    let (ours, clients) = (Authority::new(), Authority::new());
    let backend = Backend::echo();
    let of_others = ours.sign("other", phone("other"));
    let mut ended = phone("ended");
    (ended.not_before, ended.not_after) = (
        rcgen::date_time_ymd(2001, 1, 1),
        rcgen::date_time_ymd(2002, 1, 1),
    );
    let ended = clients.sign("ended", ended);
    let cases: [(&str, Option<&CertificateFiles>, bool, &str); 5] = [
        ("none", None, true, "CertificateRequired"),
        ("of others", Some(&of_others), true, "UnknownC"),
        ("ended", Some(&ended), true, "CertificateExpired"),
        (
            "of others, though none would do",
            Some(&of_others),
            false,
            "UnknownC",
        ),
        (
            "ended, though none would do",
            Some(&ended),
            false,
            "CertificateExpired",
        ),
    ];
    for (what, own, required, alert) in cases {
        let router = asking(&ours, &clients, required, backend.address);
        for versions in [NEW, OLD] {
            let client = Secure {
                own,
                versions,
                ..Secure::new(&ours)
            };
            let refused = client.get(router.secure_addr().unwrap(), "/api/t/a");
            let text = refused
                .err()
                .map(|error| error.to_string())
                .unwrap_or_default();
            let known = [alert, "HandshakeFailure", "reset", "Broken pipe"];
            assert!(
                known.iter().any(|known| text.contains(known)),
                "{what}: {text}"
            );
        }
    }
    assert_eq!(backend.requests(), 0);
}

/// A ticket would outlive the authority that is believed no longer.
#[test]
fn who_proves_who_it_is_does_so_on_each_connection() {
    let (ours, clients) = (Authority::new(), Authority::new());
    let backend = Backend::echo();
    let phone = clients.sign("phone", phone("phone"));
    let router = asking(&ours, &clients, true, backend.address);
    let client = Secure {
        own: Some(&phone),
        ..Secure::new(&ours)
    };
    let address = router.secure_addr().unwrap();
    // One configuration, and so one memory of tickets.
    for versions in [NEW, OLD] {
        let config = Secure { versions, ..client }.config();
        let connect = || crate::secure::Client::connect(config.clone(), address, "localhost");
        for _ in 0..3 {
            let mut one = connect().unwrap();
            assert_eq!(one.get("/api/t/a").unwrap().status(), 200);
            let kind = one.session().handshake_kind();
            assert_eq!(kind, Some(rustls::HandshakeKind::Full));
        }
    }
}

#[test]
fn who_comes_back_needs_no_full_handshake() {
    let ours = Authority::new();
    let backend = Backend::echo();
    let files = ours.sign("server", names(&["localhost"]));
    let router = start(config(tls(&[files])), backend.address);
    for versions in [NEW, OLD] {
        let config = Secure {
            versions,
            ..Secure::new(&ours)
        }
        .config();
        let kinds = [(); 2].map(|()| {
            let address = router.secure_addr().unwrap();
            let mut one =
                crate::secure::Client::connect(config.clone(), address, "localhost").unwrap();
            assert_eq!(one.get("/api/t/a").unwrap().status(), 200);
            one.session().handshake_kind().unwrap()
        });
        assert_eq!(
            kinds,
            [rustls::HandshakeKind::Full, rustls::HandshakeKind::Resumed]
        );
    }
}

fn run(program: &str, arguments: &[&str]) -> Option<Output> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null());
    match command.output() {
        Ok(output) => Some(output),
        Err(error) => {
            skipped(format_args!("{program} is not there: {error}"));
            None
        }
    }
}

#[test]
fn curl_speaks_both_versions_of_http_with_it() {
    let (ours, backend) = (Authority::new(), Backend::echo());
    let files = ours.sign("server", names(&["localhost", "shop.example"]));
    let router = start(config(tls(&[files])), backend.address);
    let port = router.secure_addr().unwrap().port();
    let (ca, url) = (ours.file(), format!("https://shop.example:{port}/api/t/a"));
    let resolve = format!("shop.example:{port}:127.0.0.1");
    for (http, version) in [("--http1.1", "1.1"), ("--http2", "2")] {
        for tls in [&["--tlsv1.3"][..], &["--tls-max", "1.2"]] {
            let ca = ca.to_string_lossy();
            let fixed = [
                "-sS",
                "-m",
                "20",
                "--resolve",
                &resolve,
                "--cacert",
                &*ca,
                http,
            ];
            let told = ["-w", "\n%{http_version} %{http_code}", &url];
            let Some(output) = run("curl", &[&fixed[..], tls, &told].concat()) else {
                return;
            };
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let errors = String::from_utf8_lossy(&output.stderr).into_owned();
            let end = format!("\n{version} 200");
            assert!(text.ends_with(&end), "{http} {tls:?}: {text}{errors}");
            assert!(text.contains("x-forwarded-proto: https\r\n"), "{text}");
        }
    }
}

#[test]
fn openssl_is_shown_the_certificate_of_its_name_and_refused_with_tls_1_1() {
    let (ours, backend) = (Authority::new(), Backend::echo());
    let files = [
        ours.sign("first", names(&["first.example"])),
        ours.sign("second", names(&["*.second.example"])),
    ];
    let router = start(config(tls(&files)), backend.address);
    let address = router.secure_addr().unwrap().to_string();
    let ca = ours.file();
    let ca = ca.to_string_lossy();
    let ask = |more: &[&str]| {
        let fixed = ["s_client", "-connect", &address, "-CAfile", &ca];
        let output = run("openssl", &[&fixed[..], more].concat())?;
        let both = [output.stdout, output.stderr].concat();
        Some(String::from_utf8_lossy(&both).into_owned())
    };
    for (name, alpn) in [("first.example", "h2"), ("a.second.example", "http/1.1")] {
        let more = ["-servername", name, "-verify_hostname", name, "-alpn", alpn];
        let Some(text) = ask(&more) else { return };
        assert!(
            text.contains("Verify return code: 0 (ok)"),
            "{name}: {text}"
        );
        assert!(text.contains(&format!("ALPN protocol: {alpn}")), "{text}");
        assert!(text.contains("TLSv1.3"), "{text}");
    }
    let Some(nameless) = ask(&["-noservername", "-verify_hostname", "first.example"]) else {
        return;
    };
    assert!(
        nameless.contains("Verify return code: 0 (ok)"),
        "{nameless}"
    );
    let old = ["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"];
    let Some(text) = ask(&old) else { return };
    assert!(
        text.contains("alert handshake failure") && text.contains("Cipher is (NONE)")
            || text.contains("no protocols"),
        "{text}"
    );
}
