//! Programs that nobody of this project wrote, out of npm and PyPI: installed once per target
//! folder.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::harness::is_there;

/// Where the scripts are that use the packages, and the lists of packages.
const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testing/clients");

/// The folder with the scripts for Node and the packages that they need. When they can't be had,
/// that is said aloud.
pub fn npm() -> Option<PathBuf> {
    installed("npm", &["node", "npm"], "package.json", |folder| {
        let arguments = [
            "install",
            "--no-package-lock",
            "--no-audit",
            "--no-fund",
            "--ignore-scripts",
        ];
        let mut command = Command::new("npm");
        command.args(arguments).current_dir(folder);
        command
    })
}

/// The same for Python: to be put into `PYTHONPATH`.
pub fn pypi() -> Option<PathBuf> {
    installed("pypi", &["python3", "pip3"], "requirements.txt", |folder| {
        let mut command = Command::new("python3");
        command
            .args(["-m", "pip", "install", "--quiet", "--upgrade"])
            .args(["--only-binary", ":all:", "--target", "."])
            .args(["-r", "requirements.txt"])
            .current_dir(folder);
        command
    })
}

fn installed(
    name: &str,
    programs: &[&str],
    list: &str,
    install: impl FnOnce(&Path) -> Command,
) -> Option<PathBuf> {
    if let Some(missing) = programs.iter().find(|program| !is_there(program)) {
        println!("SKIPPED: {missing} is not here");
        return None;
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("foreign-{name}"));
    if let Err(error) = once(&folder, list, install) {
        println!("SKIPPED: {name} can't install {list}: {error}");
        return None;
    }
    Some(folder)
}

/// Installs what `list` names, unless that is done already. Tests in other processes wait
/// meanwhile.
fn once(folder: &Path, list: &str, install: impl FnOnce(&Path) -> Command) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let lock = File::create(folder.join("lock"))?;
    lock.lock()?;
    copy_scripts(folder)?;
    let (wanted, stamp) = (fs::read(folder.join(list))?, folder.join("installed"));
    if fs::read(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    let output = install(folder).stdin(Stdio::null()).output()?;
    if !output.status.success() {
        return Err(io::Error::other(complaint(&output)));
    }
    fs::write(stamp, wanted)
}

/// The scripts stand beside the packages, because that is where Node looks for them.
fn copy_scripts(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(SCRIPTS)? {
        let entry = entry?;
        if !entry.file_type()?.is_file() {
            continue;
        }
        let (text, copy) = (fs::read(entry.path())?, folder.join(entry.file_name()));
        // Another test may be running the one that is there.
        if fs::read(&copy).is_ok_and(|there| there == text) {
            continue;
        }
        fs::write(&copy, text)?;
    }
    Ok(())
}

/// The status and the first complaint.
fn complaint(output: &Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    let mut lines = errors.lines();
    let line = lines.find(|line| line.to_ascii_lowercase().contains("error"));
    format!("{}: {}", output.status, line.unwrap_or("no reason given"))
}
