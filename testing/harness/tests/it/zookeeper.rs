//! ZooKeeper, alone and as an ensemble.

use std::path::Path;
use std::time::Duration;

use hydrant_harness::zookeeper::{Options, ZooKeeper};
use hydrant_harness::{pause, skipped, wait_until};

/// A transaction that ZooKeeper has written, if any: it counts them.
fn zxid(zookeeper: &ZooKeeper, server: usize) -> u64 {
    let told = zookeeper.ask(server, "srvr").expect("it answers");
    let zxid = told.lines().find_map(|line| line.strip_prefix("Zxid: 0x"));
    u64::from_str_radix(zxid.expect("a number"), 16).expect("a number")
}

/// Opens a session by hand, which writes a transaction.
fn write(zookeeper: &ZooKeeper, server: usize) {
    use std::io::{Read, Write};
    let before = zxid(zookeeper, server);
    let address = &zookeeper.addresses()[server];
    let mut stream = std::net::TcpStream::connect(address).expect("it listens");
    // Protocol 0, no transaction seen, 10 s, no session yet, an empty password of 16 bytes.
    let mut request = vec![0, 0, 0, 44];
    request.extend([0; 4 + 8]);
    request.extend(10_000_i32.to_be_bytes());
    request.extend([0; 8]);
    request.extend(16_i32.to_be_bytes());
    request.extend([0; 16]);
    stream.write_all(&request).expect("it reads");
    let mut answer = [0; 4 + 4 + 4 + 8];
    stream.read_exact(&mut answer).expect("it answers");
    assert!(answer[12..].iter().any(|byte| *byte != 0), "a session");
    assert!(zxid(zookeeper, server) > before);
}

#[test]
fn a_single_server_comes_back_with_its_data() {
    let zookeeper = match ZooKeeper::start(Options::default()) {
        Ok(zookeeper) => zookeeper,
        Err(missing) => return skipped(missing),
    };
    assert_eq!(zookeeper.leader(), Some(0));
    write(&zookeeper, 0);
    let written = zxid(&zookeeper, 0);
    zookeeper.kill(0);
    assert_eq!(zookeeper.leader(), None);
    zookeeper.restart(0);
    assert_eq!(zookeeper.leader(), Some(0));
    assert!(zxid(&zookeeper, 0) >= written, "its data is there");
    zookeeper.wipe();
    assert!(zxid(&zookeeper, 0) < written, "its data is gone");
    assert!(zookeeper.log(0).contains("binding to port"));
}

#[test]
fn an_ensemble_outlives_its_leader_and_a_frozen_follower() {
    let options = Options {
        servers: 3,
        ..Options::default()
    };
    let zookeeper = match ZooKeeper::start(options) {
        Ok(zookeeper) => zookeeper,
        Err(missing) => return skipped(missing),
    };
    let first = zookeeper.leader().expect("a leader");
    write(&zookeeper, first);
    zookeeper.kill(first);
    assert!(wait_until(Duration::from_secs(30), || zookeeper
        .leader()
        .is_some()));
    let second = zookeeper.leader().expect("another leader");
    assert_ne!(first, second);
    zookeeper.restart(first);
    assert_eq!(zookeeper.leader(), Some(second));

    zookeeper.pause(first);
    pause(Duration::from_millis(300));
    write(&zookeeper, second);
    zookeeper.resume(first);

    zookeeper.kill_all();
    assert_eq!(zookeeper.leader(), None);
    zookeeper.restart_all();
    let third = zookeeper.leader().expect("a leader");
    write(&zookeeper, third);
}

#[test]
fn with_tls_a_client_needs_a_certificate() {
    let options = Options {
        tls: true,
        ..Options::default()
    };
    let zookeeper = match ZooKeeper::start(options) {
        Ok(zookeeper) => zookeeper,
        Err(missing) => return skipped(missing),
    };
    let files = zookeeper.certificates().expect("certificates");
    let (ca, pem, key) = (files.ca_pem(), files.client_pem(), files.client_key());
    let own = [Path::new("-cert"), &pem, Path::new("-key"), &key];
    match (
        says_it_is_well(&zookeeper, &ca, &own),
        says_it_is_well(&zookeeper, &ca, &[]),
    ) {
        (Some(with), Some(without)) => assert!(with && !without, "{with} {without}"),
        _ => skipped("`openssl` is not here; install the system's package `openssl`"),
    }
}

/// Asks by TLS whether it is well; none without a program that speaks it.
fn says_it_is_well(zookeeper: &ZooKeeper, ca: &Path, more: &[&Path]) -> Option<bool> {
    use std::io::Write;
    use std::process::{Command, Stdio};
    let mut client = Command::new("openssl")
        .args(["s_client", "-quiet", "-verify_return_error"])
        .args(["-connect", &zookeeper.addresses()[0], "-CAfile"])
        .arg(ca)
        .args(more)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let mut input = client.stdin.take().expect("a pipe");
    let _ = input.write_all(b"ruok");
    let output = client.wait_with_output().expect("it ends");
    Some(output.stdout == b"imok")
}
