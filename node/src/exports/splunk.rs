use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hydrant_contracts::ServerName;
use hydrant_outbound::{authorization, client_config};
use hydrant_runtime::{Backoff, Redaction, with_causes};
use reqwest::StatusCode;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE};
use serde_json::{Map, Value, json};

use super::SplunkConfig;
use super::outbox::{Item, Outbox};
use crate::logs::LogLine;

/// How many bytes may wait.
pub(super) const MOST_WAITING: usize = 8 << 20;
/// How much is posted at once; a collector takes at least 800 KB.
const MOST_AT_ONCE: usize = 256 * 1024;
/// How long lines are gathered.
const GATHER: Duration = Duration::from_millis(250);
const POST_WITHIN: Duration = Duration::from_secs(10);
/// What a collector answers at.
const PATH: &str = "/services/collector/event";

/// The URL that events are posted to: where none is said, the path is the usual one.
pub fn collector_url(text: &str) -> Option<String> {
    let url: reqwest::Url = text.parse().ok()?;
    let is_http = matches!(url.scheme(), "http" | "https") && url.has_host();
    let plain = url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
    let path = if url.path() == "/" { PATH } else { "" };
    let base = if path.is_empty() {
        text
    } else {
        text.trim_end_matches('/')
    };
    (is_http && plain).then(|| format!("{base}{path}"))
}

/// Makes events of lines.
#[derive(Clone)]
pub(super) struct Events {
    server: String,
}

impl Events {
    pub(super) fn new(server: &ServerName) -> Self {
        Self {
            server: server.to_string(),
        }
    }

    pub(super) fn of_service(&self, line: &LogLine) -> String {
        let mut event = line.fields.clone();
        for (name, value) in [
            ("message", line.message.as_str()),
            ("level", line.level.as_str()),
            ("instance", line.instance.as_str()),
            ("stream", line.stream.as_str()),
        ] {
            if !value.is_empty() {
                event.insert(name.into(), value.into());
            }
        }
        self.event(line.time, &line.service.to_string(), event)
    }

    /// Of a line that the node itself has told.
    pub(super) fn of_node(&self, line: &str) -> Option<String> {
        let mut event: Map<String, Value> = serde_json::from_str(line).ok()?;
        let time = event.remove("time")?.as_i64()?;
        Some(self.event(time, "node", event))
    }

    fn event(&self, unix_ms: i64, source: &str, event: Map<String, Value>) -> String {
        let time = unix_ms as f64 / 1000.0;
        json!({
            "time": time, "host": self.server, "source": source, "sourcetype": "hydrant", "event": event,
        })
        .to_string()
    }
}

/// Posts what is in the box.
pub(super) async fn send(config: SplunkConfig, outbox: Arc<Outbox>) {
    let mut waits = Backoff::new(Duration::from_millis(500), Duration::from_secs(30));
    let mut client = None;
    while let Some(items) = outbox.take(MOST_AT_ONCE).await {
        loop {
            match post(&mut client, &config, &items).await {
                Ok(()) => break outbox.taken(&items),
                Err(Failure::Refused(why)) => break outbox.refused(&items, why),
                Err(Failure::NotNow(why)) => outbox.fails(why),
            }
            tokio::time::sleep(waits.next_wait()).await;
        }
        waits.reset();
        if !outbox.is_closed() {
            tokio::time::sleep(GATHER).await;
        }
    }
}

/// Why a post was not taken.
enum Failure {
    /// It may be taken later.
    NotNow(String),
    /// It is not one that the collector takes.
    Refused(String),
}

async fn post(
    client: &mut Option<reqwest::Client>,
    config: &SplunkConfig,
    items: &[Item],
) -> Result<(), Failure> {
    let failed = |why: String| {
        let why = format!("{}: {why}", config.url);
        Failure::NotNow(Redaction::shared().line(&why).into_owned())
    };
    let token = authorization("Splunk", &config.token_file).await;
    let token = token.map_err(|error| failed(error.to_string()))?;
    let client = match client {
        Some(client) => client,
        None => client.insert(new_client(config.ca.as_deref()).map_err(failed)?),
    };
    let body: String = items.iter().map(|item| item.text.as_str()).collect();
    let request = client
        .post(&config.url)
        .header(AUTHORIZATION, token)
        .header(CONTENT_TYPE, "application/json")
        .body(body);
    let answer = request
        .send()
        .await
        .map_err(|error| failed(with_causes(&error)))?;
    match answer.status() {
        status if status.is_success() => Ok(()),
        // Neither the token nor the collector is at fault, but what was sent.
        status @ (StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE) => {
            Err(Failure::Refused(format!("{}: {status}", config.url)))
        }
        status => Err(failed(status.to_string())),
    }
}

fn new_client(ca: Option<&Path>) -> Result<reqwest::Client, String> {
    let built = reqwest::Client::builder()
        .tls_backend_preconfigured(client_config(ca)?)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .timeout(POST_WITHIN)
        .build();
    built.map_err(|error| with_causes(&error))
}
