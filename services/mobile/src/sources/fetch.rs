use std::path::Path;
use std::time::Duration;

use reqwest::header::{ETAG, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED};
use reqwest::{Client, Response, StatusCode};
use serde_json::Value;
use tokio::io::AsyncReadExt as _;

use crate::sources::snapshot::{Outcome, Validator};
use crate::sources::{Location, Source};

/// Asks sources for their documents.
#[derive(Clone)]
pub(crate) struct Fetcher {
    client: Client,
    instance: String,
}

impl Fetcher {
    /// `instance` is told to the sources, so that they see who polls them.
    pub(crate) fn new(instance: String) -> reqwest::Result<Self> {
        let client = Client::builder()
            .user_agent(concat!("hydrant-mobile/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(Duration::from_secs(5))
            .redirect(reqwest::redirect::Policy::limited(3))
            .build()?;
        Ok(Self { client, instance })
    }

    /// Asks once, within the source's time and size. `known` is what the last good answer gave, or
    /// `None` when there is no value to keep.
    pub(crate) async fn fetch(&self, source: &Source, known: Option<&Validator>) -> Outcome {
        let answer = async {
            match &source.location {
                Location::File(path) => read_file(path, source.max_size).await,
                Location::Url(url) => self.ask(url, source.max_size, known).await,
            }
        };
        tokio::time::timeout(source.timeout, answer)
            .await
            .unwrap_or_else(|_| Err(format!("no answer in {} ms", source.timeout.as_millis())))
            .unwrap_or_else(Outcome::Failed)
    }

    async fn ask(
        &self,
        url: &str,
        max_size: u64,
        known: Option<&Validator>,
    ) -> Result<Outcome, String> {
        let mut request = self
            .client
            .get(url)
            .header("hydrant-instance", &self.instance);
        if let Some(etag) = known.and_then(|known| known.etag.as_ref()) {
            request = request.header(IF_NONE_MATCH, etag);
        } else if let Some(time) = known.and_then(|known| known.last_modified.as_ref()) {
            request = request.header(IF_MODIFIED_SINCE, time);
        }
        let answer = request.send().await.map_err(|error| describe(&error))?;
        match answer.status() {
            StatusCode::NOT_MODIFIED if known.is_some() => Ok(Outcome::Unchanged),
            StatusCode::OK => read_answer(answer, max_size).await,
            status => Err(format!("it answered {status}")),
        }
    }
}

async fn read_answer(mut answer: Response, max_size: u64) -> Result<Outcome, String> {
    let text = |name| {
        let value = answer.headers().get(name)?;
        Some(value.to_str().ok()?.to_owned())
    };
    let validator = Validator {
        etag: text(ETAG),
        last_modified: text(LAST_MODIFIED),
    };
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(|error| describe(&error))? {
        if (body.len() + chunk.len()) as u64 > max_size {
            return Err(too_large(max_size));
        }
        body.extend_from_slice(&chunk);
    }
    read_value(&body, validator)
}

async fn read_file(path: &Path, max_size: u64) -> Result<Outcome, String> {
    let unreadable = |error| format!("cannot read {}: {error}", path.display());
    let file = tokio::fs::File::open(path).await.map_err(unreadable)?;
    let mut body = Vec::new();
    let mut limited = file.take(max_size + 1);
    limited.read_to_end(&mut body).await.map_err(unreadable)?;
    if body.len() as u64 > max_size {
        return Err(too_large(max_size));
    }
    read_value(&body, Validator::default())
}

fn read_value(body: &[u8], validator: Validator) -> Result<Outcome, String> {
    serde_json::from_slice::<Value>(body)
        .map(|value| Outcome::Changed { value, validator })
        .map_err(|error| format!("it is not JSON: {error}"))
}

fn too_large(max_size: u64) -> String {
    format!("it has more than {max_size} bytes")
}

/// The innermost cause: the outer ones only say that a request failed.
fn describe(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderMap;
    use axum::routing::get;
    use serde_json::json;

    use super::*;

    fn source(location: Location) -> Source {
        Source {
            name: "a".into(),
            location,
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(5),
            max_size: 100,
        }
    }

    async fn serve(routes: axum::Router) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, routes).await });
        format!("http://{address}")
    }

    async fn documents() -> axum::Router {
        let tagged = |headers: HeaderMap| async move {
            let asked = headers
                .get("if-none-match")
                .is_some_and(|tag| tag == "\"1\"");
            let status = if asked {
                StatusCode::NOT_MODIFIED
            } else {
                StatusCode::OK
            };
            let who = headers["hydrant-instance"].to_str().unwrap().to_owned();
            (
                status,
                [("etag", "\"1\"")],
                axum::Json(json!({ "who": who })),
            )
        };
        let slow = || async {
            tokio::time::sleep(Duration::from_secs(60)).await;
        };
        axum::Router::new()
            .route("/tagged", get(tagged))
            .route("/slow", get(slow))
            .route(
                "/large",
                get(|| async { format!("\"{}\"", "x".repeat(99)) }),
            )
            .route("/html", get(|| async { "<html>" }))
    }

    #[tokio::test]
    async fn asks_for_changes_only_and_says_what_is_wrong() {
        let base = serve(documents().await).await;
        let fetcher = Fetcher::new("mobile-1".into()).unwrap();
        let at = |path: &str| source(Location::Url(format!("{base}{path}")));
        let first = fetcher.fetch(&at("/tagged"), None).await;
        let Outcome::Changed { value, validator } = first else {
            panic!("{first:?}")
        };
        assert_eq!(value, json!({"who": "mobile-1"}));
        let again = fetcher.fetch(&at("/tagged"), Some(&validator)).await;
        assert_eq!(again, Outcome::Unchanged);
        for (path, part) in [
            ("/large", "more than 100 bytes"),
            ("/html", "not JSON"),
            ("/missing", "404"),
        ] {
            let outcome = fetcher.fetch(&at(path), None).await;
            assert!(format!("{outcome:?}").contains(part), "{path}: {outcome:?}");
        }
        let impatient = Source {
            timeout: Duration::from_millis(20),
            ..at("/slow")
        };
        let outcome = fetcher.fetch(&impatient, None).await;
        assert_eq!(outcome, Outcome::Failed("no answer in 20 ms".into()));
    }

    #[tokio::test]
    async fn files_are_read_within_their_size() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        let fetcher = Fetcher::new("mobile-1".into()).unwrap();
        let file = source(Location::File(path.clone()));
        let missing = fetcher.fetch(&file, None).await;
        assert!(matches!(missing, Outcome::Failed(reason) if reason.contains("a.json")));
        std::fs::write(&path, "[1]").unwrap();
        let found = fetcher.fetch(&file, None).await;
        assert!(matches!(found, Outcome::Changed { value, .. } if value == json!([1])));
        std::fs::write(&path, " ".repeat(101)).unwrap();
        let large = fetcher.fetch(&file, None).await;
        assert!(matches!(large, Outcome::Failed(reason) if reason.contains("100 bytes")));
    }
}
