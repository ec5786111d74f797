//! The routes from outside, over sockets, with revisions made here.

mod evaluating;
mod keys;
mod streams;

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use hydrant_runtime::{Clock, Shutdown};
use reqwest::{Client, RequestBuilder, Response};
use serde_json::{Value, json};

use super::{Changes, changes};
use crate::api::serving::{Served, swap_compiled};
use crate::api::{Answers, routes};
use crate::bundle::Bundle;
use crate::compiled::Compiled;
use crate::documents::Kind;
use crate::keys::hex;

const ALL: &str = "/ofrep/v1/evaluate/flags";
const EVENTS: &str = "/ofrep/v1/events";
const CLIENT: &str = "hyk_client";

/// `api/mobile` without a node.
struct Api {
    base: String,
    served: Served,
    changes: Option<Changes>,
    leaving: Shutdown,
    client: Client,
}

impl Api {
    /// It answers, and no revision has come.
    async fn empty() -> Self {
        let (changes, heard) = changes();
        let clock = Clock::manual(UNIX_EPOCH + Duration::from_secs(1000));
        let answers = Answers::new(clock, heard);
        let served = Arc::clone(&answers.served);
        let leaving = answers.leaving.clone();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let routes = routes(answers);
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Self {
            base,
            served,
            changes: Some(changes),
            leaving,
            client: Client::new(),
        }
    }

    async fn start() -> Self {
        let api = Self::empty().await;
        api.publish(&shop());
        api
    }

    fn publish(&self, bundle: &Bundle) {
        let compiled = Compiled::compile(bundle).unwrap_or_else(|mistakes| panic!("{mistakes:?}"));
        let compiled = Arc::new(compiled);
        swap_compiled(&self.served, Arc::clone(&compiled));
        self.changes.as_ref().unwrap().tell(compiled);
    }

    fn post(&self, path: &str) -> RequestBuilder {
        let request = self.client.post(format!("{}{path}", self.base));
        request.header("content-type", "application/json")
    }

    /// Evaluates for somebody, with headers.
    async fn ask(&self, path: &str, context: Value, headers: &[(&str, &str)]) -> Response {
        let body = json!({ "context": context }).to_string();
        let request = headers
            .iter()
            .fold(self.post(path), |request, (name, value)| {
                request.header(*name, *value)
            });
        request.body(body).send().await.unwrap()
    }

    async fn one(&self, key: &str, headers: &[(&str, &str)]) -> (u16, Value) {
        let context = json!({ "targetingKey": "ada" });
        let answer = self.ask(&format!("{ALL}/{key}"), context, headers).await;
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    /// The keys of all flags that somebody gets.
    async fn keys(&self, headers: &[(&str, &str)]) -> Vec<String> {
        let answer = self.ask(ALL, json!({}), headers).await;
        let body: Value = answer.json().await.unwrap();
        let flags = body["flags"].as_array().unwrap().iter();
        flags
            .map(|flag| flag["key"].as_str().unwrap().to_owned())
            .collect()
    }
}

/// A revision with these documents.
fn revision(revision: u64, documents: &[(Kind, &str, Value)]) -> Bundle {
    let mut bundle = Bundle {
        revision,
        at_unix_ms: 1_771_622_898_000 + revision as i64,
        ..Bundle::default()
    };
    for (kind, name, document) in documents {
        let all = bundle.documents.entry(*kind).or_default();
        all.insert((*name).to_owned(), document.to_string());
    }
    bundle
}

/// Flags of every type, some of them public, and a key.
fn flags() -> Value {
    let public = json!({ "public": true });
    json!({
        "metadata": { "team": "shop" },
        "flags": {
            "welcome": {
                "state": "ENABLED", "metadata": public,
                "variants": { "hello": "Hello", "hallo": "Hallo" }, "defaultVariant": "hello",
                "targeting": { "if": [{ "==": [{ "var": "language" }, "de"] }, "hallo", null] },
            },
            "sale": {
                "state": "ENABLED", "metadata": { "public": true, "owner": "ada" },
                "variants": { "on": true, "off": false }, "defaultVariant": "on",
            },
            "limits": {
                "state": "ENABLED", "metadata": public,
                "variants": { "small": { "items": 5, "tags": ["a"] } }, "defaultVariant": "small",
            },
            "ratio": {
                "state": "ENABLED", "metadata": public,
                "variants": { "half": 0.5 }, "defaultVariant": "half",
            },
            "gone": {
                "state": "DISABLED", "metadata": public,
                "variants": { "on": true }, "defaultVariant": "on",
            },
            "yours": {
                "state": "ENABLED", "metadata": public,
                "variants": { "on": true }, "defaultVariant": null,
            },
            "secret": {
                "state": "ENABLED",
                "variants": { "one": 1, "two": 2 }, "defaultVariant": "one",
            },
        },
    })
}

fn key(secret: &str, rest: Value) -> Value {
    use sha2::Digest as _;
    let mut key = json!({ "sha256": hex(&sha2::Sha256::digest(secret)), "role": "client" });
    key.as_object_mut()
        .unwrap()
        .extend(rest.as_object().unwrap().clone());
    key
}

fn shop() -> Bundle {
    shop_with(1, &flags())
}

fn shop_with(number: u64, flags: &Value) -> Bundle {
    let key = key(CLIENT, json!({}));
    revision(
        number,
        &[
            (Kind::Flags, "shop", flags.clone()),
            (Kind::Key, "web", key),
        ],
    )
}
