//! HTTP/2 from the frames up, driven by tools that nobody here wrote: what RFC 9113 says that a server
//! must do, and nghttp2's own clients.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use axum::extract::Request;
use axum::routing::any;
use bytes::Bytes;
use hydrant_harness::{foreign, is_there, skipped};
use hydrant_router::{Reason, Router};
use serde_json::Value;

use crate::http2::{instance, router, serve, web};

const UPLOADED: &str = concat!("--data=", env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
const TARGET: &str = env!("CARGO_TARGET_TMPDIR");

/// A web server that counts what should never have come.
fn watched(bad: &Arc<AtomicUsize>) -> axum::Router {
    let bad = Arc::clone(bad);
    let slow = || async {
        tokio::time::sleep(Duration::from_secs(60)).await;
        "late"
    };
    let never = |_: Request| std::future::pending::<String>();
    // Only what has come as a whole was let through.
    let seen = move |_: Bytes| async move {
        bad.fetch_add(1, SeqCst);
        "bad"
    };
    axum::Router::new()
        .route("/good", any(|| async { "good" }))
        .route("/bad", any(seen))
        .route("/slow", any(slow))
        .route("/never", any(never))
}

/// Runs a program beside the event loop that serves it.
async fn run(mut command: Command) -> Output {
    let run = tokio::task::spawn_blocking(move || command.output());
    run.await.unwrap().expect("the program starts")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_server_of_http2_must_do_is_done() {
    let Some(scripts) = foreign::pypi(Path::new(TARGET)) else {
        return;
    };
    for http2 in [true, false] {
        let bad = Arc::<AtomicUsize>::default();
        let web = instance(1, serve(watched(&bad)).await, http2);
        let mut slow = crate::decide::instance("api/slow", 2);
        (slow.address, slow.http2) = (web.address, http2);
        let router = router(&[web, slow]);
        let mut command = Command::new("python3");
        command
            .arg(scripts.join("http2_rules.py"))
            .arg(router.public_addr().port().to_string())
            .env("PYTHONPATH", &scripts);
        let output = run(command).await;
        let (lines, complaint) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{complaint}");
        let rules: Vec<Value> = lines
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let broken: Vec<_> = rules.iter().filter(|rule| rule["ok"] != true).collect();
        let general = lines.matches("\"general\"").count();
        println!(
            "{} rules, {} broken, {general} refused by the general code instead of the particular one",
            rules.len(),
            broken.len()
        );
        let shown: String = broken.iter().map(|rule| format!("{rule}\n")).collect();
        assert!(broken.is_empty(), "{shown}");
        assert!(rules.len() > 100, "only {} rules", rules.len());
        assert_eq!(bad.load(SeqCst), 0, "an instance saw what breaks a rule");
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A program of the package nghttp2-client, with what it is called with.
async fn nghttp2(program: &str, arguments: &[&str], router: &Router) -> String {
    let url = format!("http://{}/api/web/good", router.public_addr());
    let mut command = Command::new(program);
    command.args(arguments).arg(url);
    let output = run(command).await;
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_clients_of_nghttp2_are_served() {
    if !is_there("nghttp") {
        skipped("`nghttp` is not here; install the system's package `nghttp2-client`");
        return;
    }
    for http2 in [true, false] {
        let router = router(&[instance(1, serve(watched(&Arc::default())).await, http2)]);
        // A window of 1 KB, padding in every frame, and a header in many pieces.
        let mut ways = vec![
            &["--no-dep"][..],
            &["--window-bits=10", "--connection-window-bits=16"],
            &["--padding=255"],
            &["--header-table-size=0", "--multiply=50"],
            &["--trailer=sum: 1", UPLOADED],
        ];
        if !http2 {
            // 18 KB of headers, which our instance of HTTP/2 does not take.
            ways.push(&["--continuation"]);
        }
        for arguments in ways {
            let body = nghttp2("nghttp", arguments, &router).await;
            assert!(body.contains("good"), "{arguments:?}: {body}");
        }
        let loaded = [
            "--requests=2000",
            "--clients=4",
            "--max-concurrent-streams=3",
        ];
        let told = nghttp2("h2load", &loaded, &router).await;
        let line = told.lines().find(|line| line.starts_with("requests:"));
        let line = line.expect("h2load tells of its requests");
        println!("{line}");
        // On a busy machine the instance may have more than it can answer, which is said at once.
        let refused = |reason| router.snapshot().totals().refusals(reason);
        let failed = refused(Reason::Overloaded);
        let rest = Reason::ALL.into_iter().map(refused).sum::<u64>() - failed;
        let expected = format!(
            "2000 done, {} succeeded, {failed} failed, 0 errored",
            2000 - failed
        );
        assert!(
            line.contains(&expected) && rest == 0,
            "{rest} refused; {told}"
        );
        assert!(failed < 1000, "{told}");
    }
}

/// Three megabytes, by the windows of both sides.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nghttp_uploads_come_back() {
    if !is_there("nghttp") {
        skipped("`nghttp` is not here; install the system's package `nghttp2-client`");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("upload");
    std::fs::write(&file, vec![b'x'; 3_000_000]).unwrap();
    for http2 in [true, false] {
        let router = router(&[instance(1, serve(web()).await, http2)]);
        let mut command = Command::new("nghttp");
        command
            .arg(format!("--data={}", file.display()))
            .arg(format!("http://{}/api/web/echo", router.public_addr()));
        let output = run(command).await;
        assert_eq!(output.stdout.len(), 3_000_000, "{}", text(&output.stderr));
    }
}
