//! Who is ready can answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::Value;

use super::{BULK, INIT, addresses, public, runtime};
use crate::harness::{Node, Setup, pause};

/// What one instance answers at once: the status of a bulk evaluation with its flags, and `init`.
async fn first(http: &reqwest::Client, base: &str) -> ((u16, Value), (u16, Value)) {
    let bulk = http.post(format!("http://{base}{BULK}")).body("{}");
    let init = http.get(format!("http://{base}{INIT}"));
    let (bulk, init) = tokio::join!(bulk.send(), init.send());
    let (bulk, init) = (bulk.expect("an answer"), init.expect("an answer"));
    let statuses = (bulk.status().as_u16(), init.status().as_u16());
    let bulk = bulk.json().await.expect("JSON");
    (
        (statuses.0, bulk),
        (statuses.1, init.json().await.expect("JSON")),
    )
}

#[test]
fn the_first_requests_after_ready_are_answered_right() {
    let runtime = runtime();
    let node = Setup::up().start();
    assert_eq!(node.line()["ready"], true, "{}", node.line());
    let http = reqwest::Client::new();
    let every = addresses(&node).into_iter().chain([public(&node)]);
    for base in every {
        let ((bulk, flags), (init, body)) = runtime.block_on(first(&http, &base));
        assert_eq!((bulk, init), (200, 200), "{base}: {flags} {body}");
        let count = flags["flags"].as_array().map_or(0, Vec::len);
        assert!(count > 0, "{base}: {flags}");
        assert_eq!(
            body["flags"].as_array().map_or(0, Vec::len),
            count,
            "{base}"
        );
        assert!(body["config"].is_object(), "{base}: {body}");
    }
}

#[test]
fn where_nothing_was_ever_changed_apps_get_an_empty_revision_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let sources = folder.path().join("sources.toml");
    std::fs::write(&sources, "").unwrap();
    let node = Setup::node(&crate::fleet::outage::services(&sources)).start();
    node.wait("it is ready", |node| {
        (addresses(node).len() == 1).then_some(())
    });
    let (runtime, http) = (runtime(), reqwest::Client::new());
    let ((bulk, flags), (init, body)) = runtime.block_on(first(&http, &public(&node)));
    assert_eq!((bulk, init), (200, 200), "{flags} {body}");
    assert_eq!(flags["flags"], serde_json::json!([]));
    assert_eq!(body["flags"], serde_json::json!([]), "{body}");
    let wrong = http
        .post(format!("http://{}{BULK}", public(&node)))
        .bearer_auth("hyk_none");
    let wrong = runtime.block_on(wrong.body("{}").send()).unwrap();
    assert_eq!(wrong.status().as_u16(), 401);
}

#[test]
fn instances_that_come_under_load_answer_from_their_first_request() {
    let node = Setup::up().start();
    let runtime = runtime();
    let (stop, good) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
    );
    let asking: Vec<_> = (0..8)
        .map(|_| {
            let (stop, good, base) = (Arc::clone(&stop), Arc::clone(&good), public(&node));
            runtime.spawn(async move { ask_until(&stop, &good, &base).await })
        })
        .collect();
    for to in ["4", "1", "3"] {
        node.json(&["scale", "api/mobile", to]);
        enough(&node, &good);
    }
    stop.store(true, Ordering::Relaxed);
    let failures: Vec<String> = runtime.block_on(async {
        let all = futures_of(asking).await;
        all.into_iter().flatten().collect()
    });
    println!("{} answers", good.load(Ordering::Relaxed));
    assert!(failures.is_empty(), "{failures:#?}");
}

async fn futures_of<T>(tasks: Vec<tokio::task::JoinHandle<T>>) -> Vec<T> {
    let mut all = Vec::new();
    for task in tasks {
        all.push(task.await.expect("a task does not panic"));
    }
    all
}

/// Evaluates all flags again and again, each time over a connection of its own; what was not right.
async fn ask_until(stop: &AtomicBool, good: &AtomicU64, base: &str) -> Vec<String> {
    let http = reqwest::Client::new();
    let mut failures = Vec::new();
    while !stop.load(Ordering::Relaxed) && failures.len() < 5 {
        let asked = http.post(format!("http://{base}{BULK}")).body("{}");
        match asked.send().await {
            Ok(answer) if answer.status().is_success() => {
                good.fetch_add(1, Ordering::Relaxed);
            }
            // Everybody who asks here has one address.
            Ok(answer) if answer.status().as_u16() == 429 => {}
            Ok(answer) => failures.push(format!("{}", answer.status())),
            Err(error) => failures.push(error.to_string()),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    failures
}

fn enough(node: &Node, good: &AtomicU64) {
    let before = good.load(Ordering::Relaxed);
    node.wait("requests are answered", |_| {
        pause(Duration::from_millis(20));
        (good.load(Ordering::Relaxed) > before + 50).then_some(())
    });
}
