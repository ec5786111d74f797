//! Workers that bring submissions away are killed or frozen in the middle: what lies at the consumers afterwards.

use std::time::Duration;

use hydrant_harness::WireMock;
use rustix::process::Signal;
use serde_json::Value;

use crate::harness::{kill, pause};
use crate::submissions_chaos::stores::sha256_of;
use crate::submissions_line::{CONSUMERS, Line};

const LEASE: Duration = Duration::from_secs(3);
const FLOW: &str = "lease = \"3s\"\nbackoff = { first = \"200ms\", most = \"1s\" }\n\
                    breaker = { failures = 5, first = \"200ms\", most = \"1s\" }\n";
const WORKER: &str = "orchestration/delivery";
/// A file that takes seconds, and what passes in a second.
const LARGE: usize = 12_000_000;
const BYTES_PER_SECOND: u64 = 3_000_000;

#[test]
fn a_worker_that_is_killed_in_the_middle_of_a_large_file_leaves_one_folder_with_the_right_content()
{
    let Some(line) = Line::start(FLOW) else {
        return;
    };
    line.to_archive.throttle(BYTES_PER_SECOND);
    let file = noise(LARGE);
    let sent = line.send("1", &[&file]);
    let half = wait_half(&line, &sent.id);
    assert_eq!(
        seen(&line, &sent.id),
        Vec::<String>::new(),
        "an importer sees nothing yet"
    );
    for pid in line.pids(WORKER) {
        kill(pid, Signal::KILL);
    }
    line.to_archive.restore();
    line.wait_delivered(&sent.id);
    check_archived(&line, &sent.id, &file);
    let step = &line.status(&sent.id)["steps"][1];
    println!(
        "killed after {half} bytes of {LARGE}; {} attempts",
        step["attempts"]
    );
}

#[test]
fn a_worker_that_is_frozen_for_longer_than_its_lease_commits_nothing_afterwards() {
    let Some(line) = Line::start(FLOW) else {
        return;
    };
    let scale = |to: &str| drop(line.node.json(&["scale", WORKER, to, "--no-wait"]));
    scale("1");
    line.node.wait("one worker", |_| {
        (line.pids(WORKER).len() == 1).then_some(())
    });
    let first = line.pids(WORKER)[0];
    line.shop.process().pause();
    let sent = line.send("1", &[&noise(1000)]);
    assert_eq!(sent.status, 202, "the shop does not answer");
    // The shop gets what the worker has sent, and answers somebody who does not listen.
    kill(first, Signal::STOP);
    line.shop.process().resume();
    line.node.wait("the shop has it", |_| {
        came(&line, &sent.id).gt(&0).then_some(())
    });
    pause(LEASE);
    scale("2");
    line.wait_delivered(&sent.id);
    let receipt = line.receipt(&sent.id);
    kill(first, Signal::CONT);
    pause(LEASE * 2);
    assert_eq!(
        line.receipt(&sent.id),
        receipt,
        "what the first one says counts no more"
    );
    let status = line.status(&sent.id);
    assert_eq!(status["reference"], WireMock::order_of(&sent.id));
    let came = came(&line, &sent.id);
    assert_eq!(line.shop.received().len(), 1, "all came under one key");
    assert!(came > 1, "the second one sent it again");
    check_archived(&line, &sent.id, &noise(1000));
    println!("it came to the shop {came} times under one key");
}

#[test]
fn a_worker_that_is_frozen_in_the_middle_of_a_large_file_changes_nothing_afterwards() {
    let Some(line) = Line::start(FLOW) else {
        return;
    };
    let scale = |to: &str| drop(line.node.json(&["scale", WORKER, to, "--no-wait"]));
    scale("1");
    line.node.wait("one worker", |_| {
        (line.pids(WORKER).len() == 1).then_some(())
    });
    let first = line.pids(WORKER)[0];
    line.to_archive.throttle(BYTES_PER_SECOND);
    let file = noise(LARGE);
    let sent = line.send("1", &[&file]);
    let half = wait_half(&line, &sent.id);
    kill(first, Signal::STOP);
    line.to_archive.restore();
    pause(LEASE);
    scale("2");
    line.wait_delivered(&sent.id);
    let receipt = line.receipt(&sent.id);
    kill(first, Signal::CONT);
    pause(LEASE * 2);
    assert_eq!(line.receipt(&sent.id), receipt);
    check_archived(&line, &sent.id, &file);
    println!("frozen after {half} bytes of {LARGE}");
}

/// How often the shop got it.
fn came(line: &Line, id: &str) -> usize {
    line.shop.received().get(id).map_or(0, Vec::len)
}

/// Waits until a part of a large file is at the archive; tells how much.
fn wait_half(line: &Line, id: &str) -> usize {
    line.node.wait("a part of the file is there", |_| {
        let files = line.archived(id);
        let part = files.iter().find(|(name, _)| name.ends_with(".part"))?;
        let size = part.1.len();
        assert!(size < LARGE, "it went too quickly");
        (size > LARGE / 8).then_some(size)
    })
}

/// What an importer takes: what begins with no dot.
fn seen(line: &Line, id: &str) -> Vec<String> {
    let names = line.archived(id).into_iter().map(|(name, _)| name);
    names.filter(|name| !name.starts_with('.')).collect()
}

/// One file with this content, the manifest that has its hash, and nothing else; each consumer once.
fn check_archived(line: &Line, id: &str, file: &[u8]) {
    let found = line.archived(id);
    let names: Vec<_> = found.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["001-photo.png", "manifest.json"]);
    assert!(found[0].1 == file, "these are other bytes");
    let manifest: Value = serde_json::from_slice(&found[1].1).expect("JSON");
    assert_eq!(manifest["attachments"][0]["sha256"], sha256_of(file));
    let receipt = line.receipt(id);
    let hops = receipt["hops"].as_array().expect("hops").iter().skip(2);
    let told = hops.map(|hop| {
        let record: Value = serde_json::from_str(hop["record"].as_str().unwrap()).unwrap();
        record["consumer"].as_str().unwrap().to_owned()
    });
    assert_eq!(told.collect::<Vec<_>>(), CONSUMERS, "one outcome of each");
}

fn noise(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    fastrand::Rng::with_seed(7).fill(&mut bytes);
    bytes
}
