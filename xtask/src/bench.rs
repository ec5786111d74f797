//! `cargo xtask bench …`: ours beside others, on the same work.
//!
//! CPU time per request is what is compared, and only within one round: absolute figures drift by
//! a fifth between runs of a shared machine.

mod hydrant;
mod mobile;
mod process;
mod router;
mod submissions;
mod wrk;

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

pub use mobile::mobile;
use process::{Process, family_nanos};
pub use router::router;
pub use submissions::submissions;

type Result<T> = std::result::Result<T, String>;

const ROUNDS: usize = 5;
const SECONDS: u32 = 4;

/// Builds something for release.
fn cargo_build(root: &Path, what: &[&str]) -> Result<()> {
    let status = Command::new(env!("CARGO"))
        .current_dir(root)
        .args(["build", "--release"])
        .args(what)
        .status()
        .map_err(|error| format!("cannot run cargo: {error}"))?;
    let built = status.success().then_some(());
    built.ok_or_else(|| format!("`cargo build {}` failed", what.join(" ")))
}

/// Where cargo puts what it builds.
fn target(root: &Path) -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from)
}

/// A temporary folder, removed when it is dropped.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("hydrant-bench-{}", std::process::id()));
        fs::create_dir_all(&path).map_err(|error| error.to_string())?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn free_port() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
    listener
        .local_addr()
        .map(|address| address.port())
        .map_err(|error| error.to_string())
}

fn which(tool: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    folders
        .map(|folder| folder.join(tool))
        .find(|candidate| candidate.is_file())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
