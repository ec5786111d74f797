//! Images of a server that was alone, carried to where a fleet keeps them.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use super::s3::Store;
use super::{Desk, pears};
use crate::fleet::engines::Engines;
use crate::harness::Setup;

/// A node that was stopped, and the engines of a fleet.
struct Move {
    desk: Desk,
    engines: Engines,
    target: PathBuf,
}

impl Move {
    /// The demo and an image of one's own: two files, and the three widths that both have.
    fn start() -> Option<Self> {
        let engines = Engines::start(1)?;
        let mut desk = Desk::start(Setup::up());
        desk.add_image("pears.png", &pears());
        desk.node.signal(Signal::TERM);
        desk.node.wait_ended();
        let target = desk.node.data().join("target.toml");
        Some(Self {
            desk,
            engines,
            target,
        })
    }

    /// The target's file, with this table of objects.
    fn to(&self, objects: &str) {
        let engines = self.engines.tables(Duration::from_secs(4));
        let fleet = "[fleet]\npeer = \"127.0.0.1:1\"\ncredentials = \"none\"\n\n";
        fs::write(&self.target, format!("{fleet}{engines}\n{objects}")).unwrap();
    }

    /// What a copy says, and how it ends.
    fn copy(&self, more: &[&str]) -> (Value, Option<i32>) {
        let from = format!("embedded:{}", self.desk.node.data().display());
        let target = self.target.to_string_lossy();
        let line = ["--json", "data", "copy", "--from", &from, "--to", &target];
        let output = self.desk.node.run(&[&line[..], more].concat());
        let told = match output.status.success() {
            true => output.stdout,
            false => output.stderr,
        };
        let told = serde_json::from_slice(&told);
        (told.unwrap_or_default(), output.status.code())
    }

    fn images(&self, more: &[&str]) -> Value {
        let (told, code) = self.copy(more);
        assert_eq!(code, Some(0), "{told}");
        told["images"].clone()
    }
}

fn images(same: u64, new: u64, different: &[String]) -> Value {
    json!({"found": 5, "same": same, "new": new, "different": different})
}

#[test]
fn images_go_along_to_a_folder_and_each_is_checked() {
    let Some(moved) = Move::start() else { return };
    moved.to("");
    assert_eq!(
        moved.images(&["--plan"]),
        Value::Null,
        "there is no place for them"
    );
    let folder = moved.desk.node.data().join("images of all");
    let url = folder.to_string_lossy().replace(' ', "%20");
    moved.to(&format!("[objects]\nurl = \"file://{url}\"\n"));
    assert_eq!(moved.images(&["--plan"]), images(0, 5, &[]));
    assert_eq!(files(&folder), 0, "a plan writes nothing");
    assert_eq!(moved.images(&[]), images(0, 5, &[]));
    assert_eq!(files(&folder), 5);
    assert_eq!(moved.images(&[]), images(5, 0, &[]));

    let spoiled = a_file(&folder).unwrap();
    fs::write(&spoiled, "half").unwrap();
    let name = spoiled.file_name().unwrap().to_string_lossy().into_owned();
    let (told, code) = moved.copy(&[]);
    let message = told["error"]["message"].as_str().unwrap_or_default();
    assert_eq!(code, Some(2), "{told}");
    assert!(message.contains(&format!("image {name}")), "{told}");
    assert_eq!(moved.images(&["--overwrite"]), images(4, 0, &[name]));
    assert_eq!(moved.images(&[]), images(5, 0, &[]));

    fs::remove_file(&spoiled).unwrap();
    let own = moved.desk.node.data().join("mobile/objects");
    fs::write(own.join(spoiled.strip_prefix(&folder).unwrap()), "half").unwrap();
    let (told, _) = moved.copy(&[]);
    assert_eq!(told["error"]["reason"], "objects_broken", "{told}");
    assert_eq!(files(&folder), 4, "what is broken is not copied");
}

#[test]
fn images_go_along_to_s3() {
    let Some(store) = Store::start() else {
        return hydrant_harness::skipped("moto does not run here");
    };
    let Some(moved) = Move::start() else { return };
    moved.to(&store.objects());
    assert_eq!(moved.images(&[]), images(0, 5, &[]));
    assert_eq!(store.keys().len(), 5);
    assert_eq!(moved.images(&[]), images(5, 0, &[]));
    let key = store.keys().remove(0);
    assert!(store.put(&format!("images/{key}"), "half"));
    let name = key.rsplit('/').next().unwrap().to_owned();
    assert_eq!(moved.images(&["--overwrite"]), images(4, 0, &[name]));
    assert_eq!(moved.images(&[]), images(5, 0, &[]));
}

/// How many files there are below a folder.
fn files(folder: &Path) -> usize {
    let below = |entry: fs::DirEntry| match entry.file_type().unwrap().is_dir() {
        true => files(&entry.path()),
        false => 1,
    };
    let entries = fs::read_dir(folder).into_iter().flatten();
    entries.map(|entry| below(entry.unwrap())).sum()
}

/// One of them.
fn a_file(folder: &Path) -> Option<PathBuf> {
    let mut entries = fs::read_dir(folder)
        .ok()?
        .map(|entry| entry.unwrap().path());
    entries.find_map(|path| match path.is_dir() {
        true => a_file(&path),
        false => Some(path),
    })
}
