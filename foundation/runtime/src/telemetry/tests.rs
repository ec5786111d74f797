use std::process::Command;

use serde_json::Value;

use super::*;

/// Says to a process of this test that it is to tell.
const CHILD: &str = "HYDRANT_TEST_CHILD";

/// What a process tells on standard error when it panics, and when a library logs.
fn child() {
    start();
    log::trace!(target: "russh::wire", "write authorization: Bearer hunter2\nhost: a");
    tracing::trace!(target: "hyper::proto", bytes = ?b"password=hunter2\r\n", "flushed");
    let mut tap = tap(1).expect("it is opened once");
    tracing::info!("one token=hunter2");
    tracing::info!("two");
    assert!(super::tap(1).is_none());
    let line = tap.lines.try_recv().expect("a line");
    assert!(line.contains("one token=[redacted]"), "{line}");
    assert_eq!(
        tap.missed.load(Ordering::Relaxed),
        1,
        "nobody waits for the tap"
    );
    let thread = std::thread::Builder::new().name("worker".into());
    let panicked = thread.spawn(|| panic!("no card 4111-1111-1111-1111\n{{\"level\":\"info\"}}"));
    assert!(panicked.expect("a thread").join().is_err());
}

#[test]
fn panics_and_what_libraries_log_go_through_the_door() {
    if std::env::var_os(CHILD).is_some() {
        return child();
    }
    let own = std::env::current_exe().expect("this test");
    let name = "telemetry::tests::panics_and_what_libraries_log_go_through_the_door";
    let output = Command::new(own)
        .args(["--exact", name, "--nocapture"])
        .envs([(CHILD, "1"), (LEVELS, "trace")])
        .output()
        .expect("it starts");
    let text = String::from_utf8(output.stderr).expect("text");
    assert!(output.status.success(), "{text}");
    assert!(
        !text.contains("hunter2") && !text.contains("4111"),
        "{text}"
    );
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect(line))
        .collect();
    let of = |target: &str| {
        let line = lines.iter().find(|line| line["target"] == target);
        line.unwrap_or_else(|| panic!("{target}: {text}"))
    };
    assert_eq!(
        of("russh::wire")["message"],
        "write authorization: [redacted]\\u{a}host: a"
    );
    assert_eq!(of("hyper::proto")["level"], "trace");
    let panic = of("panic");
    assert_eq!(
        panic["message"],
        "panicked: no card [redacted]\\u{a}{\"level\":\"info\"}"
    );
    assert_eq!(
        (&panic["level"], &panic["thread"]),
        (&"error".into(), &"worker".into())
    );
    assert!(
        panic["place"]
            .as_str()
            .expect("a place")
            .contains("telemetry/tests.rs"),
        "{panic}"
    );
}
