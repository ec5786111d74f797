//! `hydrant up`, as a newcomer meets it.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::golden::Transcript;
use crate::harness::{Setup, is_there, kill};
use crate::web::Shim;

#[test]
fn up_is_ready_lists_its_services_and_stops_without_a_trace() {
    let mut node = Setup::up().start();
    assert_eq!(node.line()["ready"], true, "{}", node.line());
    assert!(
        node.ready_after < Duration::from_secs(10),
        "{:?}",
        node.ready_after
    );
    let ready = |pattern: &str| {
        let instances = node.instances(pattern);
        instances
            .iter()
            .filter(|one| one["state"] == "ready")
            .count()
    };
    assert_eq!(
        ["api/mobile", "service/mobile", "demo-upstream"].map(ready),
        [2, 2, 1]
    );
    assert!(node.started().len() >= 5, "{:?}", node.started());

    let asked = Instant::now();
    node.signal(Signal::TERM);
    let status = node.wait_ended();
    assert!(status.success(), "{status}\n{}", node.errors());
    assert!(
        asked.elapsed() < Duration::from_secs(10),
        "{:?}",
        asked.elapsed()
    );
    assert_eq!(node.started(), Vec::<u32>::new(), "nothing is left running");
    assert!(!node.data().join("node.json").exists());
    assert_eq!(node.run(&["list"]).status.code(), Some(5));
}

#[test]
fn the_demo_answers_at_the_public_listener() {
    let node = Setup::up().start();
    let url = format!(
        "http://{}/api/mobile/v1/init?platform=ios&version=7.2.1&locale=en-US",
        node.public()
    );
    let runtime = hydrant_harness::runtime();
    let answer = runtime.block_on(async { reqwest::get(&url).await.unwrap() });
    assert_eq!(answer.status(), 200);
    let tag = answer.headers()["etag"].clone();
    let repeated = runtime.block_on(async {
        reqwest::Client::new()
            .get(&url)
            .header("if-none-match", tag)
            .send()
            .await
            .unwrap()
    });
    assert_eq!(repeated.status(), 304);
}

#[test]
fn call_reaches_the_node_and_tells_errors_by_their_exit_code() {
    let node = Setup::up().start();
    let health = node.json(&["call", "hydrant.v1.Node/Health"]);
    assert_eq!(health["healthy"], true, "{health}");
    let output = node.run(&["call", "/service/nobody/greet.v1.Greet/Hello"]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let output = node.run(&["call", "hydrant.v1.Node/Scale", r#"{"service": "nobody"}"#]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
}

#[test]
fn health_explain_stats_and_logs_speak_of_the_services() {
    let node = Setup::up().start();
    assert_eq!(node.json(&["health"])["healthy"], true);
    let path = "/api/mobile/v1/init?platform=ios&version=7.2.1&locale=en-US";
    let explained = node.json(&["explain", "GET", path]);
    assert_eq!(explained["outcome"], "forward", "{explained}");
    let explained = node.json(&["explain", "--public", "GET", "/service/mobile/x"]);
    assert_eq!(
        (&explained["outcome"], &explained["status"]),
        (&"refuse".into(), &403.into())
    );
    let answer = hydrant_harness::runtime()
        .block_on(reqwest::get(format!("http://{}{path}", node.public())));
    assert_eq!(answer.unwrap().status(), 200);
    node.wait("the request is counted", |node| {
        let stats = node.json(&["stats", "api/mobile"]);
        let counts = stats["instances"].as_array()?.iter();
        (counts
            .filter_map(|one| one["requests"].as_u64())
            .sum::<u64>()
            > 0)
        .then_some(())
    });
    node.wait("the logs are there", |node| {
        let output = node.run(&["--json", "logs", "service/mobile"]);
        (output.status.success() && !output.stdout.is_empty()).then_some(())
    });
}

#[test]
fn scale_changes_the_number_of_processes() {
    let node = Setup::up().start();
    let scaled = node.json(&["scale", "api/mobile", "3"]);
    assert_eq!(
        (&scaled["before"], &scaled["after"]),
        (&2.into(), &3.into())
    );
    assert_eq!(node.instances("api/mobile").len(), 3);
    node.json(&["scale", "api/mobile", "1"]);
    assert_eq!(node.instances("api/mobile").len(), 1);
    let output = node.run(&["scale", "api/nobody", "1"]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
}

#[test]
fn scale_does_not_count_what_was_started_by_hand() {
    if !is_there("python3") {
        println!("SKIPPED: python3 is not here");
        return;
    }
    let server = [
        "python3",
        "-m",
        "http.server",
        "$PORT",
        "--bind",
        "127.0.0.1",
    ];
    let node = Setup::node(&format!(
        "[[service]]\nname = \"web\"\ntier = \"api\"\nversion = \"1.0.0\"\ncommand = {server:?}\n"
    ))
    .start();
    let folder = tempfile::tempdir().unwrap();
    let _by_hand = Shim::start(&node, folder.path(), &server);
    node.wait("both are ready", |node| {
        let instances = node.instances("web");
        let ready = instances.iter().filter(|one| one["state"] == "ready");
        (ready.count() == 2).then_some(())
    });
    let scaled = node.json(&["scale", "api/web", "2", "--timeout", "20s"]);
    assert_eq!(scaled["after"], 2);
    assert_eq!(node.instances("web").len(), 3);
}

#[test]
fn a_killed_process_comes_back_by_itself() {
    let node = Setup::up().start();
    let killed = node.instances("api/mobile")[0].clone();
    kill(killed["pid"].as_u64().unwrap() as u32, Signal::KILL);
    node.wait("a new one is ready", |node| {
        let instances = node.instances("api/mobile");
        let ready = instances.iter().filter(|one| one["state"] == "ready");
        let is_gone = instances
            .iter()
            .all(|one| one["instance"] != killed["instance"]);
        (is_gone && ready.count() == 2).then_some(())
    });
}

#[test]
fn state_is_read_and_written() {
    let node = Setup::up().start();
    let state = |arguments: &[&str]| {
        node.run(&[&["state", "--namespace", "service/notes"], arguments].concat())
    };
    assert!(state(&["put", "one", "first"]).status.success());
    assert_eq!(state(&["get", "one"]).stdout, b"first");
    assert_eq!(
        state(&["put", "one", "x", "--if-revision", "0"])
            .status
            .code(),
        Some(5)
    );
    let listed = String::from_utf8(state(&["list"]).stdout).unwrap();
    assert!(
        listed.contains("one") && listed.contains("first"),
        "{listed}"
    );
    assert!(state(&["delete", "one"]).status.success());
    assert_eq!(state(&["get", "one"]).status.code(), Some(3));
}

#[test]
fn a_token_is_for_one_service() {
    let node = Setup::up().start();
    let token = node.json(&["token", "service/greeter"])["token"]
        .as_str()
        .unwrap()
        .to_owned();
    let as_greeter = |arguments: &[&str]| {
        node.command(arguments)
            .env("HYDRANT_TOKEN", &token)
            .output()
            .unwrap()
    };
    assert!(as_greeter(&["state", "put", "mine", "1"]).status.success());
    let other = as_greeter(&["state", "--namespace", "service/mobile", "put", "its", "1"]);
    assert_eq!(other.status.code(), Some(4), "{other:?}");
    let scale = as_greeter(&["scale", "api/mobile", "0", "--no-wait"]);
    assert_eq!(scale.status.code(), Some(4), "{scale:?}");
}

#[test]
fn a_port_in_the_environment_is_not_meant_for_the_services() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let node = Setup::up().env("PORT", port.to_string()).start();
    assert_eq!(node.line()["ready"], true, "{}", node.errors());
}

#[test]
fn a_port_in_use_is_told_with_its_mend() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for listener in ["--public", "--local"] {
        let output = Setup::up()
            .override_address(listener, &address)
            .command()
            .output()
            .unwrap();
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{errors}");
        let told: serde_json::Value = last_line(&errors);
        let (message, mend) = (&told["error"]["message"], &told["error"]["mend"]);
        assert!(message.as_str().unwrap().contains(&address), "{told}");
        assert!(mend.as_str().unwrap().contains(listener), "{told}");
    }
}

#[test]
fn a_data_folder_in_use_is_told_with_its_mend() {
    let setup = Setup::up();
    let command = setup.command();
    let node = setup.start();
    let mut second = command;
    let output = second.output().unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{errors}");
    let told = last_line(&errors);
    assert!(
        told["error"]["message"]
            .as_str()
            .unwrap()
            .contains(&node.pid().to_string())
    );
    assert!(
        told["error"]["mend"].as_str().unwrap().contains("--data"),
        "{told}"
    );
    assert_eq!(
        node.json(&["health"])["healthy"],
        true,
        "the first one is unharmed"
    );
}

#[test]
fn mistakes_in_the_configuration_have_their_place_and_their_mend() {
    let service = "[[service]]\nname = \"files\"\ntier = \"api\"\nversion = \"1.0.0\"\n\
                   command = [\"python3\", \"app.py\"]\n";
    let folder = tempfile::tempdir().unwrap();
    let mut transcript = Transcript::default();
    for (name, text) in [
        (
            "unknown-key.toml",
            "[node]\npubic = \"127.0.0.1:80\"\n".to_owned(),
        ),
        ("wrong-unit.toml", "[node]\ngrace = 30\n".into()),
        (
            "bad-address.toml",
            "[node]\npublic = \"localhost:80\"\n".into(),
        ),
        ("bad-name.toml", service.replace("files", "My Files")),
        ("duplicate.toml", format!("{service}\n{service}")),
        (
            "foreign-route.toml",
            format!("{service}route = \"/api/other/\"\n"),
        ),
        ("not-toml.toml", "node {\n".into()),
        (
            "no-data.toml",
            "[node]\npublic = \"127.0.0.1:0\"\nlocal = \"127.0.0.1:0\"\n".into(),
        ),
    ] {
        std::fs::write(folder.path().join(name), text).unwrap();
        transcript.run_in(folder.path(), &["node", "--config", name]);
    }
    let double = service.replace("files", "mobile");
    std::fs::write(folder.path().join("built-in.toml"), double).unwrap();
    let line = ["up", "--config", "built-in.toml", "--data", "data"];
    transcript.run_in(folder.path(), &line);
    transcript.run_in(folder.path(), &["node", "--config", "missing.toml"]);
    transcript.check("configuration.txt");
}

fn last_line(text: &str) -> serde_json::Value {
    let line = text.lines().last().unwrap_or_default();
    serde_json::from_str(line).unwrap_or_else(|_| panic!("not JSON: {text}"))
}
