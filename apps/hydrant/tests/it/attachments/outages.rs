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
fn an_upload_goes_on_in_the_other_store_when_the_near_one_goes_away_and_is_whole_without_it() {
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
        until_copied(&counter);
        // What is not a folder takes nothing, not even from root.
        fs::rename(&near, &away).expect("it is a folder");
        fs::write(&near, "").expect("a file");
    });
    let listed = counter.listed();
    assert_eq!(listed[0]["stored"], json!(["a", "b"]));
    let fetched = counter.fetch(&url, &counter.token());
    assert!(fetched.body == all, "what is in the near one has copies");
    let left = exposed(&counter);
    assert!(left["count"].as_u64() > Some(0), "{left}");
    assert!(left["oldestUnixMs"].is_number(), "{left}");
    fs::remove_file(&near).expect("a file");
    fs::rename(&away, &near).expect("a folder");
    until_copied(&counter);
    counter.node.wait("the gauge", |node| {
        let url = format!("http://{}/metrics", node.local());
        let page = async { counter.http.get(url).send().await?.text().await };
        let page = counter.runtime.block_on(page).ok()?;
        let gauge =
            r#"hydrant_service_gauge{service="service/submissions",name="exposed",of="objects"} 0"#;
        page.lines().any(|line| line == gauge).then_some(())
    });
    fs::remove_dir_all(&far).expect("a folder");
    let fetched = counter.fetch(&url, &counter.token());
    assert!(fetched.body == all, "and what is in the far one, too");
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
    let urls = [frozen, killed, url];
    for url in &urls {
        wait_whole(&counter, url, &all);
    }
    until_copied(&counter);
    near.process().kill();
    for url in &urls {
        wait_whole(&counter, url, &all);
    }
}

/// What `hydrant submissions exposure` says of attachments.
fn exposed(counter: &Counter) -> Value {
    let output = counter.node.run(&["--json", "submissions", "exposure"]);
    let told: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    told["objects"].clone()
}

/// A store that was away is left alone for up to half a minute.
fn until_copied(counter: &Counter) {
    let are_there = || exposed(counter)["count"] == 0;
    let copied = hydrant_harness::wait_until(3 * hydrant_harness::READY, are_there);
    assert!(copied, "{}", exposed(counter));
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
