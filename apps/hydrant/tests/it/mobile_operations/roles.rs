//! Who may call the admin API, method by method, as its protocol files name them.

use serde_json::{Value, json};

use super::{public, runtime};
use crate::harness::Setup;

const PROTOCOLS: [&str; 5] = [
    include_str!("../../../../../services/mobile/proto/hydrant/mobile/v1/configuration.proto"),
    include_str!("../../../../../services/mobile/proto/hydrant/mobile/v1/content.proto"),
    include_str!("../../../../../services/mobile/proto/hydrant/mobile/v1/documents.proto"),
    include_str!("../../../../../services/mobile/proto/hydrant/mobile/v1/experiments.proto"),
    include_str!("../../../../../services/mobile/proto/hydrant/mobile/v1/operations.proto"),
];

/// `Documents/Apply` and all others.
fn methods() -> Vec<String> {
    let mut methods = Vec::new();
    for protocol in PROTOCOLS {
        let mut service = "";
        for line in protocol.lines().map(str::trim) {
            if let Some(rest) = line.strip_prefix("service ") {
                service = rest.trim_end_matches([' ', '{']);
            } else if let Some(rest) = line.strip_prefix("rpc ") {
                let name = rest.split('(').next().unwrap_or_default();
                methods.push(format!("{service}/{name}"));
            }
        }
    }
    methods
}

#[test]
fn every_method_of_the_admin_api_is_for_admins_alone() {
    let node = Setup::up().start();
    let key = |role: &str| {
        let made = node.json(&[
            "mobile", "key", "create", role, "--role", role, "-m", "a test",
        ]);
        made["key"].as_str().expect("a key").to_owned()
    };
    let keys = ["client", "server", "admin"].map(key);
    let (runtime, http) = (runtime(), reqwest::Client::new());
    let call = |method: &str, key: Option<&str>| {
        let url = format!("http://{}/hydrant.mobile.v1.{method}", public(&node));
        let asked = http.post(url).json(&json!({}));
        let asked = key
            .into_iter()
            .fold(asked, |asked, key| asked.bearer_auth(key));
        runtime.block_on(async {
            let answer = asked.send().await.expect("an answer");
            let status = answer.status().as_u16();
            (status, answer.json::<Value>().await.unwrap_or_default())
        })
    };
    let methods = methods();
    assert!(methods.len() > 20, "{methods:?}");
    for method in &methods {
        for (who, key, status) in [
            ("nobody", None, 401),
            ("a wrong key", Some("hyk_wrong"), 401),
            ("a client", Some(keys[0].as_str()), 403),
            ("a server", Some(keys[1].as_str()), 403),
        ] {
            let (found, body) = call(method, key);
            assert_eq!(found, status, "{method} by {who}: {body}");
            let message = body["message"].as_str().unwrap_or_default();
            assert!(!message.is_empty(), "{method} by {who}: {body}");
        }
        let (found, body) = call(method, Some(&keys[2]));
        assert!(![401, 403].contains(&found), "{method} by an admin: {body}");
    }
    let images = |key: Option<&str>| {
        let url = format!("http://{}/v1/images?reason=x", public(&node));
        let asked = http.post(url).body("no image");
        let asked = key
            .into_iter()
            .fold(asked, |asked, key| asked.bearer_auth(key));
        runtime
            .block_on(asked.send())
            .expect("an answer")
            .status()
            .as_u16()
    };
    assert_eq!(images(None), 401);
    assert_eq!([images(Some(&keys[0])), images(Some(&keys[1]))], [403, 403]);
}
