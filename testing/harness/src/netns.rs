//! Hosts in network namespaces, joined by a bridge: their cables can be pulled.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::{Missing, READY, janitor, require, wait_until};

/// Hosts that reach each other and this machine, each in a network namespace of its own. Dropped,
/// they are gone.
pub struct Network {
    bridge: String,
    hosts: Vec<Host>,
    address: Ipv4Addr,
    _claim: UnixListener,
}

/// A host. The default one is this machine itself, on its loopback.
#[derive(Debug, Clone, Default)]
pub struct Host {
    inner: Option<Inner>,
}

#[derive(Debug, Clone)]
struct Inner {
    namespace: String,
    /// The bridge's end of its cable.
    cable: String,
    address: Ipv4Addr,
}

impl Host {
    /// Where others reach it.
    pub fn address(&self) -> IpAddr {
        let inner = self.inner.as_ref();
        inner
            .map_or(Ipv4Addr::LOCALHOST, |inner| inner.address)
            .into()
    }

    /// The name of its network namespace.
    pub fn name(&self) -> Option<&str> {
        self.inner.as_ref().map(|inner| inner.namespace.as_str())
    }

    /// A command that runs on it.
    pub fn command(&self, program: &str) -> Command {
        let (program, arguments) = self.wrap(program, Vec::new());
        let mut command = Command::new(program);
        command.args(arguments);
        command
    }

    /// The program and arguments that run a program on it. The process keeps its number.
    pub(crate) fn wrap(&self, program: &str, arguments: Vec<String>) -> (String, Vec<String>) {
        let Some(inner) = &self.inner else {
            return (program.to_owned(), arguments);
        };
        let before = ["netns", "exec", &inner.namespace, program].map(str::to_owned);
        ("ip".into(), before.into_iter().chain(arguments).collect())
    }
}

impl Network {
    /// Makes a network of so many hosts. It needs the rights of the system's administrator.
    pub fn start(hosts: usize) -> Result<Self, Missing> {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        require("ip", "iproute2")?;
        // Whatever happens from here on, the janitor knows the names.
        drop(janitor::folder());
        let prefix = format!(
            "{}{}",
            janitor::prefix(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let (subnet, claim) = free_subnet();
        let mut network = Self {
            bridge: format!("{prefix}b"),
            hosts: Vec::new(),
            address: Ipv4Addr::new(10, 213, subnet, 1),
            _claim: claim,
        };
        let made = network.make(&prefix, hosts);
        made.map_err(|reason| {
            Missing::because(format!(
                "this machine allows no network namespaces: {reason}"
            ))
        })?;
        Ok(network)
    }

    fn make(&mut self, prefix: &str, hosts: usize) -> Result<(), String> {
        let (bridge, address) = (self.bridge.clone(), self.address);
        ip(&format!("link add {bridge} type bridge"))?;
        ip(&format!("address add {address}/24 dev {bridge}"))?;
        ip(&format!("link set {bridge} up"))?;
        for index in 0..hosts {
            let [a, b, c, _] = address.octets();
            let address = Ipv4Addr::new(a, b, c, 10 + index as u8);
            let namespace = format!("{prefix}n{index}");
            let cable = format!("{prefix}v{index}");
            ip(&format!("netns add {namespace}"))?;
            self.hosts.push(Host {
                inner: Some(Inner {
                    namespace: namespace.clone(),
                    cable: cable.clone(),
                    address,
                }),
            });
            ip(&format!(
                "link add {cable} type veth peer name eth0 netns {namespace}"
            ))?;
            ip(&format!("link set {cable} master {bridge} up"))?;
            ip(&format!("-n {namespace} address add {address}/24 dev eth0"))?;
            ip(&format!("-n {namespace} link set eth0 up"))?;
            ip(&format!("-n {namespace} link set lo up"))?;
            let state = format!("/sys/class/net/{cable}/operstate");
            let is_up = || fs::read_to_string(&state).is_ok_and(|state| state.trim() == "up");
            if !wait_until(READY, is_up) {
                return Err(format!("{cable} does not come up"));
            }
        }
        Ok(())
    }

    /// The hosts.
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// Where the hosts reach this machine.
    pub fn address(&self) -> IpAddr {
        self.address.into()
    }

    /// Pulls a host's cable: packets to it and from it are lost, and nobody is told.
    pub fn cut(&self, host: usize) {
        self.set(host, "down");
    }

    /// Puts the cable back.
    pub fn restore(&self, host: usize) {
        self.set(host, "up");
    }

    fn set(&self, host: usize, state: &str) {
        let inner = self.hosts[host].inner.as_ref();
        let cable = &inner.expect("a host in a namespace").cable;
        ip(&format!("link set {cable} {state}")).expect("a cable of this network");
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for inner in self.hosts.iter().filter_map(|host| host.inner.as_ref()) {
            // The cable goes with the namespace, but only when its last process is gone.
            let _ = ip(&format!("link delete {}", inner.cable));
            let _ = ip(&format!("netns delete {}", inner.namespace));
        }
        let _ = ip(&format!("link delete {}", self.bridge));
    }
}

/// A subnet that no other test on this machine uses, and what holds it.
fn free_subnet() -> (u8, UnixListener) {
    let claim = |subnet: u8| {
        let name = SocketAddr::from_abstract_name(format!("hydrant-test-net-{subnet}")).ok()?;
        Some((subnet, UnixListener::bind_addr(&name).ok()?))
    };
    let mut subnets = (1..=254).filter_map(claim);
    subnets.next().expect("a free subnet of 254")
}

fn ip(arguments: &str) -> Result<(), String> {
    let output = Command::new("ip").args(arguments.split(' ')).output();
    let output = output.map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    let told = String::from_utf8_lossy(&output.stderr);
    Err(format!("ip {arguments}: {}", told.trim()))
}
