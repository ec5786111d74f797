//! What nobody of this project wrote, out of the package registries: installed once per target folder.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::is_there;

/// Where the scripts are that use the packages, and the lists of packages.
const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../clients");

/// The folder with the scripts for Node and the packages that they need. When they can't be had,
/// that is said aloud. `target` is the tests' `CARGO_TARGET_TMPDIR`.
pub fn npm(target: &Path) -> Option<PathBuf> {
    installed(target, "npm", &["node", "npm"], "package.json", |folder| {
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
pub fn pypi(target: &Path) -> Option<PathBuf> {
    installed(
        target,
        "pypi",
        &["python3", "pip3"],
        "requirements.txt",
        |folder| {
            let mut command = Command::new("python3");
            command
                .args(["-m", "pip", "install", "--quiet", "--upgrade"])
                .args(["--only-binary", ":all:", "--target", "."])
                .args(["-r", "requirements.txt"])
                .current_dir(folder);
            command
        },
    )
}

/// Carbon, the daemon of Graphite, and what reads its files: to be put into `PYTHONPATH`. They are
/// published as sources only.
pub fn graphite(target: &Path) -> Option<PathBuf> {
    installed(
        target,
        "graphite",
        &["python3", "pip3"],
        "graphite.txt",
        |folder| {
            let mut command = Command::new("python3");
            command
                .args(["-m", "pip", "install", "--quiet", "--upgrade"])
                .args([
                    "--only-binary",
                    ":all:",
                    "--no-binary",
                    "carbon,txAMQP,whisper",
                ])
                .args(["--target", ".", "-r", "graphite.txt"])
                // Else it goes to a folder of the system.
                .env("GRAPHITE_NO_PREFIX", "True")
                .current_dir(folder);
            command
        },
    )
}

/// The folder of a crate's sources, for the public test vectors that it carries. `version` is as in a
/// manifest.
pub fn crate_sources(target: &Path, name: &str, version: &str) -> Option<PathBuf> {
    let folder = target.join(format!("foreign-crate-{name}"));
    match sources(&folder, name, version) {
        Ok(folder) => Some(folder),
        Err(error) => {
            println!("SKIPPED: the crate {name} can't be had: {error}");
            None
        }
    }
}

/// Cargo fetches what a manifest names before it describes it.
fn sources(folder: &Path, name: &str, version: &str) -> io::Result<PathBuf> {
    fs::create_dir_all(folder.join("src"))?;
    let lock = File::create(folder.join("lock"))?;
    lock.lock()?;
    fs::write(folder.join("src/lib.rs"), "")?;
    let manifest = format!(
        "[package]\nname = \"vectors\"\nversion = \"0.0.0\"\nedition = \"2024\"\n[workspace]\n\
         [dependencies]\n{name} = {{ version = \"{version}\", default-features = false }}\n"
    );
    fs::write(folder.join("Cargo.toml"), manifest)?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1"])
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()?;
    if !output.status.success() {
        return Err(io::Error::other(complaint(&output)));
    }
    let metadata: Value = serde_json::from_slice(&output.stdout)?;
    let packages = metadata["packages"].as_array();
    let package = packages
        .into_iter()
        .flatten()
        .find(|package| package["name"] == name);
    let manifest = package.and_then(|package| package["manifest_path"].as_str());
    let folder = manifest.and_then(|manifest| Path::new(manifest).parent());
    folder
        .map(Path::to_owned)
        .ok_or_else(|| io::Error::other("cargo does not say where it is"))
}

fn installed(
    target: &Path,
    name: &str,
    programs: &[&str],
    list: &str,
    install: impl FnOnce(&Path) -> Command,
) -> Option<PathBuf> {
    if let Some(missing) = programs.iter().find(|program| !is_there(program)) {
        println!("SKIPPED: {missing} is not here");
        return None;
    }
    let folder = target.join(format!("foreign-{name}"));
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
