//! Secrets in every part of a request, with every library telling all that it knows.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Node, Setup, is_there, pause};

/// Prints all that it is told, in the ways in which programs do.
const ECHO: &str = r#"
import http.server, json, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0))).decode()
        print(self.requestline)
        print(self.headers)
        print(dict(self.headers))
        print(body)
        print(repr(body), list(body.encode()))
        try:
            print(json.dumps({"message": "got", "level": "info", "body": json.loads(body)}))
            print("\n".join("%s: %s" % pair for pair in json.loads(body).items()))
        except ValueError:
            pass
        print(body, file=sys.stderr, flush=True)
        sys.stdout.flush()
        self.send_response(200)
        self.end_headers()
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"#;

/// What is never shown, wherever it came in.
const NEVER: [&str; 10] = [
    "canary",
    "4111-",
    "4111 ",
    "4111111",
    "1111 1111",
    "078-05",
    "05-1120",
    "078051120",
    "hunter2",
    "eyJhbGci",
];

const JWT: &str = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJjYW5hcnkifQ.c2lnbmF0dXJlLWNhbmFyeQ";
/// Query strings.
const QUERY: &str = "password=canary-1&api_key=canary-2&card=4111+1111+1111+1111&q=078-05-1120\
                     &mail=bob%40canary.example&next=%2Fx%3Ftoken%3Dcanary-3";

fn body() -> Value {
    json!({
        "password": "hunter2 canary", "card": 4_111_111_111_111_111_u64, "ssn": "078051120",
        "note": "call bob@canary.example, 078-05-1120\nsecret = canary-4\nnext line",
        "deep": {"apiKey": ["canary-5"], "n": 4_111_111_111_111_111_u64},
        "url": "https://bob:canary@host/?access_token=canary-6",
        "text": format!("Authorization: Bearer {JWT}"),
        "sql": "INSERT INTO users VALUES ('4111-1111-1111-1111')",
    })
}

struct Stage {
    node: Node,
    _folder: tempfile::TempDir,
}

impl Stage {
    fn start(levels: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("echo.py");
        std::fs::write(&path, ECHO).unwrap();
        let text = format!(
            "[[service]]\nname = \"echo\"\ntier = \"api\"\nversion = \"1.0.0\"\n\
             command = [\"python3\", {path:?}, \"$PORT\"]\n"
        );
        let node = Setup::up()
            .config(&text)
            .env("HYDRANT_LOG", levels.into())
            .start();
        node.wait("the echo is ready", |node| {
            let all = node.instances("api/echo");
            all.iter().any(|one| one["state"] == "ready").then_some(())
        });
        Self {
            node,
            _folder: folder,
        }
    }

    /// Sends the secrets to a path in every part of a request; gives what was answered.
    fn tell(&self, path: &str) -> String {
        let url = format!("http://{}{path}?{QUERY}", self.node.public());
        let request = reqwest::Client::new()
            .post(url)
            .header("authorization", format!("Bearer {JWT}"))
            .header("cookie", "sid=canary-7; theme=dark")
            .header("x-api-key", "canary-8")
            .header("x-store-id", "0017")
            .header("x-user-id", "bob@canary.example")
            .header("x-session-id", "4111111111111111")
            .json(&body());
        let answer = async { request.send().await.unwrap().text().await.unwrap() };
        hydrant_harness::runtime().block_on(answer)
    }

    /// Everything that anybody could read afterwards, each with its place.
    fn shown(&self) -> Vec<(String, String)> {
        let mut all = vec![("standard error of the node".into(), self.node.errors())];
        for arguments in [
            &["logs", "--tail", "10000"][..],
            &["--json", "logs", "--tail", "10000"],
        ] {
            let output = self.node.run(arguments);
            all.push((
                arguments.join(" "),
                String::from_utf8_lossy(&output.stdout).into_owned(),
            ));
        }
        for entry in std::fs::read_dir(self.node.data().join("logs")).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                all.push(read(&path));
            }
        }
        for entry in std::fs::read_dir(self.node.data().join("logs/raw")).unwrap() {
            let path = entry.unwrap().path();
            // What a foreign program has printed is read, and then given back to the disk.
            if !path.to_string_lossy().contains("echo") {
                all.push(read(&path));
            }
        }
        for page in ["metrics", "health"] {
            let url = format!("http://{}/{page}", self.node.local());
            let text = async { reqwest::get(url).await.unwrap().text().await.unwrap() };
            all.push((page.into(), hydrant_harness::runtime().block_on(text)));
        }
        all
    }
}

fn read(path: &Path) -> (String, String) {
    let text = String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned();
    (path.display().to_string(), text)
}

fn refuse_secrets(place: &str, text: &str) {
    for secret in NEVER {
        let line = text.lines().find(|line| line.contains(secret));
        assert!(
            line.is_none(),
            "{secret} in {place}: {}",
            line.unwrap_or_default()
        );
    }
}

#[test]
fn no_secret_is_shown_anywhere_also_when_every_library_tells_all() {
    if !is_there("python3") {
        println!("SKIPPED: python3 is not here");
        return;
    }
    let stage = Stage::start("trace");
    for path in [
        "/api/echo/4111-1111-1111-1111",
        "/api/mobile/v1/init",
        "/api/mobile/v1/exposures",
        "/api/mobile/ofrep/v1/evaluate/flags",
        "/api/submissions/v1/submissions",
        "/api/nobody/x",
    ] {
        let answer = stage.tell(path);
        refuse_secrets(&format!("the answer of {path}"), &answer);
    }
    stage.tell("/api/echo/the-end");
    stage.node.wait("all is read", |node| {
        let output = node.run(&["logs", "api/echo", "--tail", "10000"]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let (_, last) = text.split_once("the-end")?;
        last.contains(" next line\n").then_some(())
    });
    // Lines of standard error are read on their own.
    pause(Duration::from_millis(500));
    let shown = stage.shown();
    let lines: usize = shown.iter().map(|(_, text)| text.lines().count()).sum();
    println!("{lines} lines in {} places", shown.len());
    for (place, text) in &shown {
        refuse_secrets(place, text);
    }
    let all: String = shown.iter().map(|(_, text)| text.as_str()).collect();
    for there in ["[redacted]", "0017", "next line", "hyper"] {
        assert!(all.contains(there), "{there}");
    }
}

#[test]
fn what_stands_in_a_submission_is_in_no_log_audit_row_metric_or_screen() {
    if !is_there("python3") {
        println!("SKIPPED: python3 is not here");
        return;
    }
    let stage = Stage::start("trace");
    let id = uuid::Uuid::new_v4().to_string();
    let base = format!(
        "http://{}/api/submissions/v1/submissions",
        stage.node.public()
    );
    let post = |path: &str, headers: &[(&str, &str)], body: String| {
        let url = format!("{base}{path}?{QUERY}");
        let mut request = reqwest::Client::new().post(url).body(body);
        let usual = [
            ("correlation-id", id.as_str()),
            ("authorization", JWT),
            ("cookie", "sid=canary-7"),
            ("x-api-key", "canary-8"),
            ("x-store-id", "0017"),
        ];
        for (name, value) in usual.iter().chain(headers) {
            request = request.header(*name, *value);
        }
        hydrant_harness::runtime().block_on(async {
            let answer = request.send().await.unwrap();
            (answer.status().as_u16(), answer.text().await.unwrap())
        })
    };
    let refused = json!({ "form": "demo", "fields": { "name": 4_111_111_111_111_111_u64 } });
    let (status, problem) = post("", &[], refused.to_string());
    assert_eq!(status, 422, "{problem}");
    refuse_secrets("the problem", &problem);
    let name = format!("canary 4111-1111-1111-1111, 078-05-1120, secret=canary-4, {JWT}");
    let good = json!({ "form": "demo", "fields": { "name": name } });
    assert_eq!(post("", &[], good.to_string()).0, 201);
    let other = json!({ "form": "demo", "fields": { "name": "canary" } });
    let (status, problem) = post("", &[], other.to_string());
    assert_eq!(status, 422, "{problem}");
    refuse_secrets("the problem", &problem);
    // canary 078-05-1120.txt
    let upload = [
        ("tus-resumable", "1.0.0"),
        ("upload-length", "5"),
        ("content-type", "application/offset+octet-stream"),
        (
            "upload-metadata",
            "filename Y2FuYXJ5IDA3OC0wNS0xMTIwLnR4dA==,filetype dGV4dC9wbGFpbg==",
        ),
    ];
    let uploaded = post(&format!("/{id}/attachments"), &upload, "hello".into());
    assert_eq!(uploaded.0, 201, "{}", uploaded.1);
    post(&format!("/{id}/submit"), &[], String::new());
    stage.node.wait("it is delivered", |node| {
        let told = node.json(&["submissions", "status", &id]);
        (told["state"] == "delivered").then_some(())
    });
    stage.node.wait("the refused are on record", |node| {
        let told = node.run(&["audit", "list", "--kind", "refused"]);
        let text = String::from_utf8_lossy(&told.stdout).into_owned();
        (text.contains("fields_invalid") && text.contains("key_reused")).then_some(())
    });
    for screen in [
        &["audit", "list", "--limit", "1000"][..],
        &["--json", "audit", "list", "--limit", "1000"],
        &["audit", "report", "--format", "html"],
        &["submissions", "status", &id],
        &["submissions", "backlog"],
        &["submissions", "parked"],
        &["stats"],
    ] {
        let output = stage.node.run(screen);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        refuse_secrets(&screen.join(" "), &text);
    }
    for (place, text) in stage.shown() {
        refuse_secrets(&place, &text);
    }
}

#[test]
fn what_comes_in_forges_no_line() {
    if !is_there("python3") {
        println!("SKIPPED: python3 is not here");
        return;
    }
    let stage = Stage::start("trace");
    let url = format!("http://{}/api/echo/x", stage.node.public());
    let forged =
        "a\r\n{\"message\":\"forged\",\"level\":\"error\"}\n<script>\u{1b}[2J\u{202e}\u{2028}";
    let request = reqwest::Client::new()
        .post(url)
        .header("x-store-id", "1 level=error")
        .json(&json!({"text": forged, forged: 1, "the": "end"}));
    hydrant_harness::runtime().block_on(async { request.send().await.unwrap() });
    stage.node.wait("it is read", |node| {
        let output = node.run(&["logs", "api/echo"]);
        String::from_utf8_lossy(&output.stdout)
            .contains("the: end")
            .then_some(())
    });
    for (place, text) in stage.shown() {
        for line in text.lines() {
            let is_plain = !line
                .chars()
                .any(|c| c.is_control() || "\u{202e}\u{2028}".contains(c));
            assert!(is_plain && !line.contains("<script"), "{place}: {line:?}");
        }
    }
    for line in stage.node.errors().lines() {
        let line: Value = serde_json::from_str(line).expect("each line is JSON");
        assert_ne!(line["message"], "forged");
    }
}
