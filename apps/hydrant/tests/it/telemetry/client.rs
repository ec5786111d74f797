//! For which client a line was told, over all the services on its request's way.

use std::path::Path;

use serde_json::{Value, json};

use crate::harness::{Node, Setup};

/// The example with a service of each tier; it logs in the last of three hops.
const PROGRAM: &str = "hydrant-example-registration";

fn services(program: &Path) -> String {
    let service = |tier: &str, name: &str| {
        format!(
            "[[service]]\nname = {name:?}\ntier = {tier:?}\nversion = \"1.0.0\"\nsdk = true\n\
             command = [{program:?}, {name:?}]\n"
        )
    };
    [
        ("api", "registration"),
        ("orchestration", "onboarding"),
        ("service", "customers"),
        ("service", "confirmations"),
    ]
    .map(|(tier, name)| service(tier, name))
    .concat()
}

fn start(telemetry: &str) -> Option<Node> {
    let program = Path::new(env!("CARGO_BIN_EXE_hydrant")).with_file_name(PROGRAM);
    if !program.is_file() {
        println!("SKIPPED: {} is not built", program.display());
        return None;
    }
    let node = Setup::node(&format!("{telemetry}{}", services(&program))).start();
    node.wait("the example is ready", |node| {
        let instances = node.instances("*");
        let ready = instances.iter().filter(|one| one["state"] == "ready");
        (ready.count() == 4).then_some(())
    });
    Some(node)
}

/// Signs somebody up, and gives the line of the last service.
fn sign_up(node: &Node, headers: &[(&str, &str)]) -> String {
    let url = format!(
        "http://{}/api/registration/registration.v1.Registration/SignUp",
        node.public()
    );
    let request = reqwest::Client::new().post(url);
    let request = headers.iter().fold(request, |request, (name, value)| {
        request.header(*name, *value)
    });
    let request = request.json(&json!({"name": "Ada", "email": "ada@example.com"}));
    let answer = async { request.send().await.unwrap().json::<Value>().await.unwrap() };
    let answer = hydrant_harness::runtime().block_on(answer);
    assert!(answer["customerId"].is_string(), "{answer}");
    node.wait("the line", |node| {
        let lines = node.run(&["logs", "service/confirmations"]).stdout;
        let lines = String::from_utf8_lossy(&lines).into_owned();
        lines
            .lines()
            .find(|line| line.contains("sent the confirmation"))
            .map(str::to_owned)
    })
}

#[test]
fn a_line_three_hops_away_tells_store_user_and_session() {
    let Some(node) = start("") else { return };
    let line = sign_up(
        &node,
        &[
            ("x-store-id", "0017"),
            ("x-user-id", "bob@example.com"),
            ("x-session-id", "s-7"),
        ],
    );
    for part in [
        "store_id=0017",
        "user_id=~5ff860bf1190596c",
        "session_id=s-7",
        "caller=orchestration/onboarding",
    ] {
        assert!(line.contains(part), "{part}: {line}");
    }
}

#[test]
fn one_line_of_the_file_names_other_headers_and_more_secrets() {
    let telemetry = "[telemetry]\ncontext = [\"X-Till\"]\nredact = [\"customer\"]\n\
                     redact_patterns = [\"T-[0-9]{4}\"]\n";
    let Some(node) = start(telemetry) else { return };
    let line = sign_up(&node, &[("x-store-id", "0017"), ("x-till", "9")]);
    assert!(
        line.contains("till=9") && line.contains("customer=[redacted]"),
        "{line}"
    );
    assert!(!line.contains("0017"), "{line}");
}
