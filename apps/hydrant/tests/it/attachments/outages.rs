//! Processes are killed and stores go away while an attachment comes.

use std::time::Duration;

use hydrant_harness::SeaweedFs;
use rustix::process::Signal;

use super::*;
use crate::harness::{Setup, kill, seed};

/// Sends the rest again and again, as a client does, until it is through; `trouble` is made once half is there.
fn upload(counter: &Counter, all: &[u8], mut trouble: impl FnMut()) -> String {
    let url = counter.create(all.len());
    let mut made = false;
    let end = std::time::Instant::now() + Duration::from_secs(120);
    loop {
        assert!(std::time::Instant::now() < end, "it does not get through");
        let head = counter.tus(Method::HEAD, &url, &[], b"");
        let Ok(offset) = head.header("upload-offset").parse::<usize>() else {
            hydrant_harness::pause(Duration::from_millis(50));
            continue;
        };
        if offset == all.len() {
            return url;
        }
        if offset > all.len() / 2 && !made {
            trouble();
            made = true;
        }
        let next = all.len().min(offset + 300_000);
        counter.patch(&url, offset as u64, &all[offset..next]);
    }
}

#[test]
fn an_upload_goes_on_when_the_services_are_killed_in_the_middle() {
    let counter = Counter::new(Setup::up().start());
    let all = bytes(6_000_000, seed());
    let url = upload(&counter, &all, || {
        for service in ["service/submissions", "api/submissions"] {
            for instance in counter.node.instances(service) {
                let pid = instance["pid"].as_u64().expect("a number") as u32;
                kill(pid, Signal::KILL);
            }
        }
    });
    let fetched = counter.node.wait("the attachment", |_| {
        let fetched = counter.fetch(&url, &counter.token());
        (fetched.status == 200).then_some(fetched)
    });
    assert!(fetched.body == all, "these are other bytes");
}

#[test]
fn an_upload_goes_on_in_the_other_store_when_the_near_one_goes_away() {
    let folder = hydrant_harness::folder();
    let [near, far] = ["near", "far"].map(|name| folder.path().join(name));
    let text = format!(
        "[objects]\nname = \"a\"\nurl = \"file://{}\"\n[objects.far]\nname = \"b\"\nurl = \"file://{}\"\n",
        near.display(),
        far.display()
    );
    let counter = Counter::new(Setup::up().config(&text).start());
    let all = bytes(6_000_000, seed());
    let away = folder.path().join("away");
    let url = upload(&counter, &all, || {
        // What is not a folder takes nothing, not even from root.
        fs::rename(&near, &away).expect("it is a folder");
        fs::write(&near, "").expect("a file");
    });
    let listed = counter.listed();
    assert_eq!(listed[0]["stored"], json!(["a", "b"]));
    let fetched = counter.fetch(&url, &counter.token()).body;
    assert!(fetched.len() < all.len(), "the beginning is away");
    fs::remove_file(&near).expect("a file");
    fs::rename(&away, &near).expect("a folder");
    let fetched = counter.fetch(&url, &counter.token());
    assert!(fetched.body == all, "these are other bytes");
    let submit = format!("{}/submit", counter.path);
    assert_eq!(
        counter.ask(Method::POST, &submit, &[], b"").status.as_u16() / 100,
        2
    );
    let receipt = counter
        .ask(Method::GET, &format!("{}/receipt", counter.path), &[], b"")
        .json();
    let record = receipt["hops"][1]["record"].as_str().expect("a text");
    assert!(record.contains(r#""stored":["a","b"]"#), "{record}");
}

#[test]
fn an_upload_goes_on_in_the_other_s3_store_while_one_does_not_answer_or_is_gone() {
    let target = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"));
    let (Some(near), Some(far)) = (SeaweedFs::start(target), SeaweedFs::start(target)) else {
        return;
    };
    let text = format!(
        "[objects]\n{}[objects.far]\n{}",
        near.lines("a"),
        far.lines("b")
    );
    let counter = Counter::new(Setup::up().config(&text).start());
    let all = bytes(3_000_000, seed());
    let frozen = upload(&counter, &all, || near.process().pause());
    near.process().resume();
    wait_whole(&counter, &frozen, &all);
    let killed = upload(&counter, &all, || far.process().kill());
    let url = upload(&counter, &all, || {
        far.restart();
        near.process().kill();
    });
    near.restart();
    for url in [frozen, killed, url] {
        wait_whole(&counter, &url, &all);
    }
}

/// A store that has just come back needs a while until it has all that it had.
fn wait_whole(counter: &Counter, url: &str, all: &[u8]) {
    let token = counter.token();
    let is_whole = || counter.fetch(url, &token).body == all;
    assert!(hydrant_harness::wait_until(
        hydrant_harness::READY,
        is_whole
    ));
}
