//! Attachments as clients meet them: clients that nobody of this project wrote, over lines that break, while
//! processes are killed and stores go away; and whatever else may be sent.

mod bad;
mod lines;
mod outages;

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::harness::Node;

const BASE: &str = "/api/submissions/v1/submissions";

/// A node, a submission that is open, and a client.
struct Counter {
    node: Node,
    runtime: Runtime,
    http: reqwest::Client,
    folder: tempfile::TempDir,
    /// The path of the submission.
    path: String,
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value.map_or("", |value| value.to_str().expect("ASCII"))
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }
}

impl Counter {
    fn new(node: Node) -> Self {
        let runtime = hydrant_harness::runtime();
        let http = reqwest::Client::builder().no_proxy().build();
        let mut counter = Self {
            node,
            runtime,
            http: http.expect("a client"),
            folder: tempfile::tempdir().expect("a folder"),
            path: String::new(),
        };
        counter.path = counter.begin();
        counter
    }

    /// Another submission that is open.
    fn begin(&self) -> String {
        let id = format!("{:032x}", fastrand::u128(..));
        let id = [&id[..8], &id[8..12], &id[12..16], &id[16..20], &id[20..]].join("-");
        let body = json!({"form": "demo", "fields": {"name": "Ada"}}).to_string();
        let begun = self.node.wait("a submission", |_| {
            let answer = self.ask(
                Method::POST,
                BASE,
                &[("correlation-id", &id)],
                body.as_bytes(),
            );
            (answer.status == 201).then_some(answer)
        });
        begun.header("location").to_owned()
    }

    fn attachments(&self) -> String {
        format!("{}/attachments", self.path)
    }

    /// The same, for clients that begin elsewhere.
    fn endpoint(&self, at: SocketAddr) -> String {
        format!("http://{at}{}", self.attachments())
    }

    fn ask(&self, method: Method, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let url = format!("http://{}{path}", self.node.public());
        let headers = headers.iter().map(|(name, value)| {
            let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
            (
                name,
                HeaderValue::from_bytes(value.as_bytes()).expect("a value"),
            )
        });
        let request = self.http.request(method, url).headers(headers.collect());
        let request = request.body(body.to_vec());
        self.runtime.block_on(async {
            let answer = request.send().await.expect("an answer");
            Answer {
                status: answer.status(),
                headers: answer.headers().clone(),
                body: answer.bytes().await.unwrap_or_default().into(),
            }
        })
    }

    /// The same with the version of tus.
    fn tus(&self, method: Method, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let headers = [&[("tus-resumable", "1.0.0")], headers].concat();
        self.ask(method, path, &headers, body)
    }

    /// A new upload of a picture.
    fn create(&self, length: usize) -> String {
        let length = length.to_string();
        let headers = [("upload-length", &*length), ("upload-metadata", PICTURE)];
        let answer = self.tus(Method::POST, &self.attachments(), &headers, b"");
        assert_eq!(
            answer.status,
            201,
            "{}",
            String::from_utf8_lossy(&answer.body)
        );
        answer.header("location").to_owned()
    }

    fn patch(&self, upload: &str, offset: u64, bytes: &[u8]) -> Answer {
        let offset = offset.to_string();
        let headers = [("upload-offset", &*offset), ("content-type", BYTES)];
        self.tus(Method::PATCH, upload, &headers, bytes)
    }

    fn offset(&self, upload: &str) -> u64 {
        let answer = self.tus(Method::HEAD, upload, &[], b"");
        assert_eq!(answer.status, 200);
        answer.header("upload-offset").parse().expect("a number")
    }

    /// The attachments, as the submission has them.
    fn listed(&self) -> Vec<Value> {
        let status = self.ask(Method::GET, &self.path, &[], b"").json();
        status["attachments"].as_array().expect("a list").clone()
    }

    /// The whole of an attachment, as those get it who deliver.
    fn fetch(&self, upload: &str, token: &str) -> Answer {
        let id = upload.rsplit('/').next().expect("an id");
        let url = format!(
            "http://{}/service/submissions/v1/attachments/{id}",
            self.node.local()
        );
        let request = self.http.get(url).header("hydrant-token", token);
        self.runtime.block_on(async {
            let answer = request.send().await.expect("an answer");
            Answer {
                status: answer.status(),
                headers: answer.headers().clone(),
                body: answer.bytes().await.unwrap_or_default().into(),
            }
        })
    }

    fn token(&self) -> String {
        let token = self.node.json(&["token", "orchestration/delivery"]);
        token["token"].as_str().expect("a token").to_owned()
    }

    fn file(&self, bytes: &[u8]) -> PathBuf {
        let path = self.folder.path().join("picture.png");
        fs::write(&path, bytes).expect("a file");
        path
    }
}

const BYTES: &str = "application/offset+octet-stream";
/// picture.png, image/png
const PICTURE: &str = "filename cGljdHVyZS5wbmc=,filetype aW1hZ2UvcG5n";

fn bytes(length: usize, seed: u64) -> Vec<u8> {
    let mut chance = fastrand::Rng::with_seed(seed);
    let mut bytes = vec![0; length];
    chance.fill(&mut bytes);
    bytes
}
