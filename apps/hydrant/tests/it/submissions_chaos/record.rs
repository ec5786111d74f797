//! What must hold in the end of all that stores have sent.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::stores::{Refused, Sent, sha256_of};
use crate::harness::{Node, pause};

/// How long the queue may take to be empty after the last fault.
const DRAINED: Duration = Duration::from_secs(180);

/// What was seen, in figures.
pub fn print(sent: &[Sent], took: Duration, drained: Duration, refused: &Refused) {
    let at_once = sent.iter().filter(|one| one.reference.is_some()).count();
    let attempts: usize = sent.iter().map(|one| one.attempts).sum();
    let files: usize = sent.iter().map(|one| one.files.len()).sum();
    let slowest = |of: fn(&Sent) -> Duration| {
        let mut times: Vec<_> = sent.iter().map(of).collect();
        times.sort();
        (times[times.len() / 2], times[times.len() - 1])
    };
    println!(
        "{} submissions with {files} files in {took:?}, {attempts} requests, {at_once} with a reference at once; \
         the last was delivered {drained:?} later",
        sent.len()
    );
    println!(
        "accepted after (median, slowest): {:?}; submitted after: {:?}; answered otherwise: {refused:?}",
        slowest(|one| one.accepted_in),
        slowest(|one| one.submitted_in)
    );
}

/// Waits until all is delivered; tells how long that took.
pub fn until_drained(public: SocketAddr, sent: &[Sent]) -> Duration {
    let begun = Instant::now();
    for one in sent {
        loop {
            let status = get(public, &format!("submissions/v1/submissions/{}", one.id));
            if status
                .as_ref()
                .is_some_and(|status| status["state"] == "delivered")
            {
                break;
            }
            assert!(begun.elapsed() < DRAINED, "not delivered: {status:?}");
            pause(Duration::from_millis(100));
        }
    }
    begun.elapsed()
}

/// Each has the reference that its consumer gave, and no client was told another one.
pub fn check_references(public: SocketAddr, sent: &[Sent], given: impl Fn(&Sent) -> Value) {
    for one in sent {
        let status = get(public, &format!("submissions/v1/submissions/{}", one.id)).unwrap();
        let reference = given(one);
        assert_eq!(
            status["reference"], reference,
            "one reference for {}",
            one.id
        );
        if let Some(told) = &one.reference {
            assert_eq!(*told, reference, "the client was told another one");
        }
    }
}

/// Accepted, submitted, the first consumer, then the second, each once.
pub fn check_receipts(public: SocketAddr, sent: &[Sent], consumers: [&str; 2]) {
    for one in sent {
        let path = format!("submissions/v1/submissions/{}/receipt", one.id);
        let receipt = get(public, &path).expect("a receipt");
        let hops = receipt["hops"].as_array().expect("hops");
        let kinds: Vec<_> = hops.iter().filter_map(|hop| hop["kind"].as_str()).collect();
        assert_eq!(
            kinds,
            ["accepted", "submitted", "delivered", "delivered"],
            "{receipt}"
        );
        assert!(hops.is_sorted_by_key(|hop| hop["at"].as_i64()), "{receipt}");
        let told = hops[2..].iter().map(|hop| {
            let record: Value = serde_json::from_str(hop["record"].as_str().unwrap()).unwrap();
            record["consumer"].clone()
        });
        assert_eq!(told.collect::<Vec<_>>(), consumers);
    }
}

/// Each has one manifest in the folder, which it gives back, and its files as they were sent; nothing unfinished
/// is left beside them.
pub fn check_folder(root: &Path, sent: &[Sent]) -> BTreeMap<String, Value> {
    let (mut found, unfinished) = manifests(root);
    let mut manifests = BTreeMap::new();
    for one in sent {
        let found = found.remove(&one.id);
        let (folder, manifest) = found.unwrap_or_else(|| panic!("{} is not in the folder", one.id));
        assert_eq!(manifest["fields"]["name"], one.name.as_str());
        let told = manifest["attachments"].as_array().expect("a list");
        let told: Vec<_> = told
            .iter()
            .filter_map(|one| one["sha256"].as_str())
            .collect();
        assert_eq!(told, one.files, "{manifest}");
        assert_eq!(kept(&folder), one.files, "{folder:?}");
        manifests.insert(one.id.clone(), manifest);
    }
    assert!(found.is_empty(), "more than was sent: {found:?}");
    assert!(unfinished.is_empty(), "{unfinished:?}");
    manifests
}

type Manifests = BTreeMap<String, (PathBuf, Value)>;

/// The folder and the manifest of each submission, and what is unfinished.
fn manifests(root: &Path) -> (Manifests, Vec<PathBuf>) {
    let (mut manifests, mut unfinished) = (BTreeMap::new(), Vec::new());
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder).expect("what was delivered");
        for path in entries.flatten().map(|entry| entry.path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.ends_with("manifest.json") {
                let manifest = std::fs::read(&path).expect("a manifest");
                let manifest: Value = serde_json::from_slice(&manifest).expect("JSON");
                let id = manifest["id"].as_str().expect("an id").to_owned();
                let before = manifests.insert(id, (folder.clone(), manifest));
                assert!(before.is_none(), "{path:?} is there twice");
            } else if path.extension().is_some_and(|ending| ending == "part") {
                unfinished.push(path);
            }
        }
    }
    (manifests, unfinished)
}

/// The SHA-256 of each file beside the manifest, in order.
fn kept(folder: &Path) -> Vec<String> {
    let files = std::fs::read_dir(folder).expect("a folder").flatten();
    let files = files.map(|entry| entry.path());
    let mut files: Vec<_> = files
        .filter(|path| !path.ends_with("manifest.json"))
        .collect();
    files.sort();
    let hash = |path: &PathBuf| sha256_of(&std::fs::read(path).expect("a file"));
    files.iter().map(hash).collect()
}

/// All events are sealed, the chain is whole, and so is each receipt.
pub fn check_audit(node: &Node, sent: &[Sent]) {
    assert_eq!(whole_audit(node)["good_receipts"], sent.len());
}

/// What is told of the record once all events are sealed: it is whole.
pub fn whole_audit(node: &Node) -> Value {
    let audit = node.wait("all events are sealed", |node| {
        let output = node.run(&["--json", "audit", "verify"]);
        let audit: Value = serde_json::from_slice(&output.stdout).ok()?;
        (audit["unsealed_events"] == 0).then_some(audit)
    });
    let none = serde_json::json!([]);
    assert_eq!(audit["findings"], none, "the record is whole");
    audit
}

/// The JSON at a path of the tier api, if it answers.
pub fn get(public: SocketAddr, path: &str) -> Option<Value> {
    let url = format!("http://{public}/api/{path}");
    hydrant_harness::runtime().block_on(async move {
        let answer = reqwest::get(url).await.ok()?.error_for_status().ok()?;
        answer.json().await.ok()
    })
}
