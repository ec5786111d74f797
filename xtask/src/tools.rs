//! What tests need besides Rust: installed where that is possible, and told.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// A program that tests start, or a library, and the package of Debian that has it.
const TOOLS: &[(&str, &str)] = &[
    ("curl", "curl"),
    ("python3", "python3"),
    ("pip3", "python3-pip"),
    ("node", "nodejs"),
    ("npm", "npm"),
    ("/usr/bin/chromium", "chromium"),
    ("openssl", "openssl"),
    ("nginx", "nginx"),
    ("haproxy", "haproxy"),
    ("nghttp", "nghttp2-client"),
    ("strace", "strace"),
    ("ip", "iproute2"),
    ("redis-server", "redis-server"),
    ("redis-sentinel", "redis-sentinel"),
    ("redis-cli", "redis-tools"),
    ("mariadbd", "mariadb-server"),
    ("mariadb", "mariadb-client"),
    ("/usr/lib/galera/libgalera_smm.so", "galera-4"),
    ("garbd", "galera-arbitrator-4"),
    ("rsync", "rsync"),
    ("sshd", "openssh-server"),
    ("ssh-keygen", "openssh-client"),
    ("java", "default-jre-headless"),
    // The package `zookeeper` has nothing more that tests need, and brings a desktop's Java.
    ("/usr/share/java/zookeeper.jar", "libzookeeper-java"),
];

/// Installs what is missing, when this is root on a machine with apt. Tests that miss something
/// all the same say so themselves.
pub fn install_missing() {
    let missing: Vec<_> = TOOLS
        .iter()
        .filter(|(program, _)| !is_there(program))
        .collect();
    if missing.is_empty() {
        return;
    }
    let programs: Vec<_> = missing.iter().map(|(program, _)| *program).collect();
    let packages: Vec<_> = missing.iter().map(|(_, package)| *package).collect();
    if !is_there("apt-get") || !is_root() {
        println!(
            "xtask: not here: {}; the tests that need them are skipped",
            programs.join(", ")
        );
        return;
    }
    println!("xtask: installing {} with apt-get", packages.join(", "));
    if let Err(error) = install(&packages) {
        println!("xtask: that failed: {error}; the tests that need them are skipped");
    }
}

fn install(packages: &[&str]) -> io::Result<()> {
    let _quiet = NoServices::here();
    apt_get(&["update", "--quiet"])?;
    apt_get(
        &[
            &["install", "--yes", "--quiet", "--no-install-recommends"],
            packages,
        ]
        .concat(),
    )
}

fn apt_get(arguments: &[&str]) -> io::Result<()> {
    let status = Command::new("apt-get")
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()?;
    if status.success() {
        Ok(())
    } else {
        Err(io::Error::other(format!(
            "apt-get {}: {status}",
            arguments.join(" ")
        )))
    }
}

/// While it lives, packages that are installed start no service: on a machine without an init,
/// Debian's Redis would leave a server on its usual port that nobody asked for.
struct NoServices {
    /// Somebody else has decided what may start.
    decided: bool,
}

/// What Debian's packages ask whether they may start a service.
const POLICY: &str = "/usr/sbin/policy-rc.d";

impl NoServices {
    fn here() -> Self {
        let decided = Path::new(POLICY).exists();
        if !decided && let Err(error) = Self::forbid() {
            println!("xtask: {POLICY}: {error}; packages may start services");
        }
        Self { decided }
    }

    fn forbid() -> io::Result<()> {
        fs::write(POLICY, "#!/bin/sh\nexit 101\n")?;
        fs::set_permissions(POLICY, fs::Permissions::from_mode(0o755))
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if !self.decided {
            let _ = fs::remove_file(POLICY);
        }
    }
}

fn is_there(what: &str) -> bool {
    if what.starts_with('/') {
        return Path::new(what).exists();
    }
    hydrant_harness::is_there(what)
}

fn is_root() -> bool {
    let output = Command::new("id").arg("-u").output();
    output.is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}
