//! Hosts in network namespaces reach each other, until a cable is pulled.

use std::time::Duration;

use hydrant_harness::netns::{Host, Network};
use hydrant_harness::{skipped, wait_until};

const PATIENCE: Duration = Duration::from_secs(20);

/// Whether a host reaches an address: it sends from there, and here it is seen.
fn reaches(from: &Host, to: std::net::SocketAddr) -> bool {
    let script = format!("exec 3<>/dev/tcp/{}/{}", to.ip(), to.port());
    let mut command = from.command("timeout");
    let status = command
        .args(["1", "bash", "-c", &script])
        .stderr(std::process::Stdio::null());
    status.status().expect("`ip` starts").success()
}

#[test]
fn a_pulled_cable_cuts_one_host_off() {
    let network = match Network::start(2) {
        Ok(network) => network,
        Err(missing) => return skipped(missing),
    };
    let listener = std::net::TcpListener::bind((network.address(), 0)).expect("a free port");
    let here = listener.local_addr().expect("an address");
    let [one, two] = network.hosts() else {
        panic!("two hosts");
    };
    assert!(wait_until(PATIENCE, || reaches(one, here) && reaches(two, here)));
    assert_ne!(one.address(), two.address());
    network.cut(0);
    assert!(!reaches(one, here), "cut off");
    assert!(reaches(two, here), "not cut off");
    network.restore(0);
    assert!(wait_until(PATIENCE, || reaches(one, here)));
}
