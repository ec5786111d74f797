//! A node that answers every question with a fixed file, so that what the command line makes of
//! an answer can be compared byte for byte.

use std::net::SocketAddr;
use std::time::UNIX_EPOCH;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;

/// The answers: the path of the method, and JSON.
const ANSWERS: &[(&str, &str)] = &[
    (
        "hydrant.v1.Node/Health",
        include_str!("../golden/answers/health.json"),
    ),
    (
        "hydrant.v1.Node/Servers",
        r#"{"server": "laptop", "zone": "default"}"#,
    ),
    (
        "hydrant.v1.Node/Stats",
        include_str!("../golden/answers/stats.json"),
    ),
    (
        "hydrant.v1.Node/Explain",
        include_str!("../golden/answers/explain.json"),
    ),
    ("hydrant.v1.Node/Scale", r#"{"before": 2, "after": 2}"#),
    (
        "hydrant.v1.Node/IssueToken",
        r#"{"token": "h1.service/greeter.c2VjcmV0"}"#,
    ),
    (
        "hydrant.v1.Rules/ListRules",
        include_str!("../golden/answers/rules.json"),
    ),
    (
        "hydrant.v1.Rules/ApplyRules",
        include_str!("../golden/answers/rules_changed.json"),
    ),
    (
        "hydrant.v1.Rules/RemoveRules",
        r#"{"epoch": "3", "changes": [{"name": "moved", "what": "removed"}]}"#,
    ),
    (
        "hydrant.v1.Rules/ServedRules",
        r#"{"server": "laptop", "epoch": "3"}"#,
    ),
    (
        "hydrant.v1.Registry/Discover",
        include_str!("../golden/answers/discover.json"),
    ),
    (
        "hydrant.v1.State/Get",
        include_str!("../golden/answers/state_get.json"),
    ),
    ("hydrant.v1.State/Put", r#"{"revision": "8"}"#),
    (
        "hydrant.v1.State/List",
        include_str!("../golden/answers/state_list.json"),
    ),
    ("hydrant.v1.State/Delete", r#"{"existed": true}"#),
];

/// What a node says of its fleet: a server whose node answers as it does itself, and one whose
/// node does not.
const FLEET: &str = r#"{"server": "laptop", "zone": "a", "servers": [
    {"name": "shed", "zone": "b"}, {"name": "laptop", "zone": "a"}, {"name": "desk", "zone": "a"}]}"#;

/// The answers that are streams: a message a line.
const STREAMS: &[(&str, &str)] = &[
    (
        "hydrant.v1.Node/Logs",
        include_str!("../golden/answers/logs.jsonl"),
    ),
    (
        "hydrant.v1.State/Watch",
        include_str!("../golden/answers/state_watch.jsonl"),
    ),
];

/// Starts it on a free port, for as long as the test's runtime lives.
pub async fn start() -> SocketAddr {
    start_one(false).await
}

/// Starts one that is the node of a fleet of three servers.
pub async fn start_fleet() -> SocketAddr {
    start_one(true).await
}

async fn start_one(of_fleet: bool) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let routes = Router::new()
        .route("/{service}/{method}", post(answer))
        .route("/service/mobile/{service}/{method}", post(answer_of_mobile))
        .route("/{tier}/{name}/{service}/{method}", post(refuse))
        .with_state(of_fleet);
    tokio::spawn(async move { axum::serve(listener, routes).await });
    address
}

/// Starts one whose mobile service has nothing yet.
pub async fn start_empty() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
    let listener = listener.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let nothing = || async { json(StatusCode::OK, "{}") };
    let routes = Router::new().route("/service/mobile/{service}/{method}", post(nothing));
    tokio::spawn(async move { axum::serve(listener, routes).await });
    address
}

/// What `service/mobile` says: a document of all its answers, by service and method.
async fn answer_of_mobile(Path((service, method)): Path<(String, String)>) -> Response {
    let answers = with_times(include_str!("../golden/answers/mobile.json"));
    let answers: serde_json::Value = serde_json::from_str(&answers).expect("the file is JSON");
    let service = service.rsplit('.').next().unwrap_or_default();
    match answers.get(format!("{service}/{method}")) {
        Some(answer) => json(StatusCode::OK, answer.to_string()),
        None => refuse().await,
    }
}

async fn answer(
    State(of_fleet): State<bool>,
    Path((service, method)): Path<(String, String)>,
    headers: HeaderMap,
    _body: Bytes,
) -> Response {
    let path = format!("{service}/{method}");
    let asked = headers.get("hydrant-server");
    if asked.is_some_and(|name| name == "shed") {
        return json(
            StatusCode::SERVICE_UNAVAILABLE,
            r#"{"code": "unavailable", "message": "the node of server shed does not answer"}"#,
        );
    }
    if of_fleet && method == "Servers" {
        return json(StatusCode::OK, FLEET);
    }
    let find = |answers: &[(&str, &'static str)]| {
        answers
            .iter()
            .find(|(name, _)| *name == path)
            .map(|(_, text)| with_times(text))
    };
    if let Some(text) = find(ANSWERS) {
        let text = match asked {
            Some(_) => text.replace("laptop", "desk"),
            None => text,
        };
        return json(StatusCode::OK, text);
    }
    if let Some(lines) = find(STREAMS) {
        let content_type = [(header::CONTENT_TYPE, "application/connect+json")];
        return (StatusCode::OK, content_type, stream(&lines)).into_response();
    }
    refuse().await
}

fn json(status: StatusCode, body: impl IntoResponse) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

async fn refuse() -> Response {
    json(
        StatusCode::FORBIDDEN,
        include_str!("../golden/answers/refusal.json"),
    )
}

/// Puts a time of day for `AGO(seconds)`, since a table shows how long ago something was.
fn with_times(text: &str) -> String {
    let now = hydrant_runtime::Clock::system()
        .now()
        .duration_since(UNIX_EPOCH);
    let now = now.expect("it is after 1970").as_secs();
    let mut parts = text.split("AGO(");
    let mut result = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (seconds, rest) = part.split_once(')').expect("AGO(seconds)");
        let seconds: u64 = seconds.parse().expect("a number of seconds");
        result += &format!("{}{rest}", (now - seconds) * 1000);
    }
    result
}

/// Messages as Connect streams them: a flag, the length, the message; the last with the end flag.
fn stream(lines: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let messages = lines.lines().map(|line| (0u8, line)).chain([(2u8, "{}")]);
    for (flag, message) in messages {
        bytes.push(flag);
        bytes.extend_from_slice(&(message.len() as u32).to_be_bytes());
        bytes.extend_from_slice(message.as_bytes());
    }
    bytes
}
