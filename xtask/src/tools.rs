//! What tests need besides Rust: installed where that is possible, and told.

use std::io;
use std::process::{Command, Stdio};

/// A program that tests start, and the package of Debian that has it.
const TOOLS: &[(&str, &str)] = &[
    ("curl", "curl"),
    ("python3", "python3"),
    ("pip3", "python3-pip"),
    ("node", "nodejs"),
    ("npm", "npm"),
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

fn is_there(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

fn is_root() -> bool {
    let output = Command::new("id").arg("-u").output();
    output.is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}
