//! Cleans up what a test process leaves when it is killed, or ends with servers in its statics.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::OnceLock;

use std::os::unix::process::CommandExt;
use tempfile::TempDir;

/// Every process that the harness starts, and all that these start, inherit it: by it the left
/// ones are found.
pub const MARK: &str = "HYDRANT_TEST_MARK";

/// Waits for the end of the test process: then its pipe is closed, however it ended. Ends what has
/// the mark until nothing is left, then removes network namespaces and folders. `$1` is the folder,
/// `$2` the prefix of the names of namespaces.
const SCRIPT: &str = r#"
read -r _
marked() { grep -lzsF "HYDRANT_TEST_MARK=$1/" /proc/[0-9]*/environ; }
for _ in 1 2 3 4 5 6 7 8 9 10; do
  found=$(marked "$1")
  [ -z "$found" ] && break
  for file in $found; do pid=${file#/proc/}; kill -KILL "${pid%/environ}" 2>/dev/null; done
  sleep 0.1
done
if command -v ip >/dev/null; then
  ip netns list 2>/dev/null | while read -r name _; do
    case $name in "$2"*) ip netns delete "$name" ;; esac
  done
  ip link show type bridge 2>/dev/null | sed -n 's/^[0-9]*: \([^:@]*\).*/\1/p' | while read -r name; do
    case $name in "$2"*) ip link delete "$name" ;; esac
  done
fi
rm -rf "$1"
"#;

/// The folder of this test process; every other folder of the harness is in it.
struct Base {
    path: PathBuf,
    /// Closed by the system when this process ends: that wakes the janitor.
    _pipe: Option<ChildStdin>,
}

fn base() -> &'static Base {
    static BASE: OnceLock<Base> = OnceLock::new();
    BASE.get_or_init(|| start().expect("a folder for the tests, and its janitor"))
}

fn start() -> io::Result<Base> {
    let folder = tempfile::Builder::new().prefix("hydrant-test-").tempdir()?;
    let path = folder.keep();
    // A process group of its own: what interrupts the tests must not end their janitor.
    let mut child = Command::new("sh")
        .args(["-c", SCRIPT, "janitor"])
        .arg(&path)
        .arg(prefix())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .current_dir("/")
        .process_group(0)
        .spawn()?;
    let pipe = child.stdin.take();
    Ok(Base { path, _pipe: pipe })
}

/// With what the names of this process's network namespaces and bridges begin.
pub(crate) fn prefix() -> String {
    format!("hy{}-", std::process::id())
}

/// A new temporary folder, removed when it is dropped, or when this process ends.
pub fn folder() -> TempDir {
    tempfile::tempdir_in(&base().path).expect("a temporary folder")
}

/// The living processes whose environment has the mark of this folder.
pub fn marked(folder: &Path) -> Vec<u32> {
    let mark = format!("{MARK}={}", folder.display());
    let has_mark = |pid: &u32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment
            .split(|byte| *byte == 0)
            .any(|variable| variable == mark.as_bytes())
    };
    let entries = fs::read_dir("/proc").expect("/proc is there").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(has_mark).collect()
}
