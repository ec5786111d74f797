//! The form page and the browser library, as files that the program carries: a browser loads them as they stand
//! in `services/submissions/client`.

use std::borrow::Cow;
use std::sync::LazyLock;

use axum::Router;
use axum::extract::Path;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hydrant_sdk::{Code, Error, Problem};
use sha2::{Digest as _, Sha256};

macro_rules! files {
    ($($name:literal)*) => {
        [$(($name, include_bytes!(concat!("../../client/", $name)).as_slice())),*]
    };
}

/// The files that browsers may load.
const FILES: [(&str, &[u8]); 21] = files![
    "answers.js"
    "deliver.js"
    "form.d.ts"
    "form.js"
    "hydrant-submissions.d.ts"
    "hydrant-submissions.js"
    "icon-192.png"
    "icon-512.png"
    "icon.svg"
    "index.html"
    "lock.js"
    "manifest.webmanifest"
    "outbox.js"
    "pace.js"
    "page.css"
    "page.js"
    "schema.d.ts"
    "schema.js"
    "store.js"
    "upload.js"
    "worker.js"
];

/// What the page is, and what may serve all pages below it: they stand at the top.
const PAGE: &str = "index.html";
const WORKER: &str = "worker.js";

/// Where the worker has the version of all files.
const VERSION: &str = "\"development\"";

/// What the page may load: what comes with it, and pictures that its user attaches. No text that somebody typed
/// can become a script, whatever the page does with it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; \
    connect-src 'self'; manifest-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'";

/// Kept, and asked for again each time: by its ETag, that costs a few bytes, and none is ever old.
const CACHE: &str = "no-cache";

static SERVED: LazyLock<Vec<Served>> = LazyLock::new(|| {
    let version = version();
    FILES
        .iter()
        .map(|(name, bytes)| Served::new(name, bytes, &version))
        .collect()
});

/// A file as it is served.
struct Served {
    name: &'static str,
    kind: &'static str,
    bytes: Cow<'static, [u8]>,
    /// Strong, with its quotes.
    etag: String,
}

impl Served {
    fn new(name: &'static str, bytes: &'static [u8], version: &str) -> Self {
        let bytes = match name {
            WORKER => versioned(bytes, version),
            _ => Cow::Borrowed(bytes),
        };
        let etag = format!("\"{}\"", short(&Sha256::digest(&bytes)));
        let kind = kind(name);
        Self {
            name,
            kind,
            bytes,
            etag,
        }
    }

    fn answer(&'static self, asked: &HeaderMap) -> Response {
        let described = [
            (header::ETAG, self.etag.as_str()),
            (header::CACHE_CONTROL, CACHE),
            (header::CONTENT_SECURITY_POLICY, POLICY),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::REFERRER_POLICY, "no-referrer"),
            (
                HeaderName::from_static("cross-origin-opener-policy"),
                "same-origin",
            ),
        ];
        let tags = asked.get_all(header::IF_NONE_MATCH);
        if tags.iter().any(|tags| names(tags, &self.etag)) {
            return (StatusCode::NOT_MODIFIED, described).into_response();
        }
        let kind = [(header::CONTENT_TYPE, self.kind)];
        let body: axum::body::Bytes = match &self.bytes {
            Cow::Borrowed(bytes) => axum::body::Bytes::from_static(bytes),
            Cow::Owned(bytes) => axum::body::Bytes::from_static(bytes),
        };
        (described, kind, body).into_response()
    }
}

/// One hash of all files: another file is another worker, which loads all of them anew.
fn version() -> String {
    let hash = FILES.iter().fold(Sha256::new(), |hash, (name, bytes)| {
        hash.chain_update(name).chain_update(Sha256::digest(bytes))
    });
    short(&hash.finalize())
}

fn short(hash: &[u8]) -> String {
    hash.iter()
        .take(16)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn versioned(worker: &'static [u8], version: &str) -> Cow<'static, [u8]> {
    let text = String::from_utf8_lossy(worker);
    let text = text.replacen(VERSION, &format!("\"{version}\""), 1);
    Cow::Owned(text.into_bytes())
}

fn kind(name: &str) -> &'static str {
    match name.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("webmanifest") => "application/manifest+json",
        _ => "text/plain; charset=utf-8",
    }
}

/// Whether an `If-None-Match` names a tag, by the weak comparison. Our tags have no comma.
fn names(tags: &HeaderValue, etag: &str) -> bool {
    let tags = tags.to_str().unwrap_or_default();
    tags.split(',')
        .map(str::trim)
        .any(|tag| tag == "*" || tag.trim_start_matches("W/") == etag)
}

/// `/`, `/worker.js` and `/client/{file}`.
pub(crate) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new()
        .route(
            "/",
            get(|headers: HeaderMap| async move { file(PAGE, &headers) }),
        )
        .route(
            "/worker.js",
            get(|headers: HeaderMap| async move { file(WORKER, &headers) }),
        )
        .route("/client/{file}", get(library))
}

async fn library(Path(name): Path<String>, headers: HeaderMap) -> Result<Response, Problem> {
    match name.as_str() {
        // They would take what is beside them for what is below.
        PAGE | WORKER => Err(no_such_file().into()),
        name => file(name, &headers),
    }
}

fn file(name: &str, headers: &HeaderMap) -> Result<Response, Problem> {
    let found = SERVED.iter().find(|file| file.name == name);
    let found = found.ok_or_else(no_such_file)?;
    Ok(found.answer(headers))
}

fn no_such_file() -> Error {
    let message = "the browser library has no such file";
    Error::new(Code::NotFound, "no_such_file", message)
        .mend("ask for /api/submissions/client/hydrant-submissions.js")
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn ask(path: &str, tag: Option<&str>) -> (u16, HeaderMap, Vec<u8>) {
        use tower_service::Service as _;
        let mut request = axum::http::Request::builder().uri(path);
        if let Some(tag) = tag {
            request = request.header(header::IF_NONE_MATCH, tag);
        }
        let request = request.body(axum::body::Body::empty()).unwrap();
        let answer = routes::<()>().with_state(()).call(request).await.unwrap();
        let (head, body) = answer.into_parts();
        let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
        (head.status.as_u16(), head.headers, body.to_vec())
    }

    #[tokio::test]
    async fn each_file_has_its_kind_and_its_tag() {
        for (path, kind) in [
            ("/", "text/html; charset=utf-8"),
            ("/worker.js", "text/javascript; charset=utf-8"),
            ("/client/page.css", "text/css; charset=utf-8"),
            ("/client/page.js", "text/javascript; charset=utf-8"),
            (
                "/client/hydrant-submissions.d.ts",
                "text/plain; charset=utf-8",
            ),
            ("/client/manifest.webmanifest", "application/manifest+json"),
            ("/client/icon.svg", "image/svg+xml"),
            ("/client/icon-192.png", "image/png"),
        ] {
            let (status, headers, body) = ask(path, None).await;
            assert_eq!(
                (status, &headers["content-type"]),
                (200, &HeaderValue::from_static(kind)),
                "{path}"
            );
            assert_eq!(headers["cache-control"], "no-cache");
            assert_eq!(headers["x-content-type-options"], "nosniff");
            assert!(!body.is_empty());
            let tag = headers["etag"].to_str().unwrap();
            let (status, again, body) = ask(path, Some(&format!("\"x\", W/{tag}"))).await;
            assert_eq!((status, body.len()), (304, 0), "{path}");
            assert_eq!(again["etag"], headers["etag"]);
            assert_eq!(ask(path, Some("\"x\"")).await.0, 200);
        }
    }

    #[tokio::test]
    async fn nothing_else_is_served() {
        for path in [
            "/client/",
            "/client/index.html",
            "/client/worker.js",
            "/client/package.json",
            "/client/..%2fmod.rs",
        ] {
            assert_eq!(ask(path, None).await.0, 404, "{path}");
        }
    }

    #[tokio::test]
    async fn a_page_runs_no_script_but_its_own() {
        let (_, headers, page) = ask("/", None).await;
        let policy = headers["content-security-policy"].to_str().unwrap();
        assert!(
            policy.contains("default-src 'none'") && policy.contains("script-src 'self'"),
            "{policy}"
        );
        assert!(!policy.contains("unsafe"), "{policy}");
        let page = String::from_utf8(page).unwrap();
        for inline in ["<style", " style=", " onclick=", "<script>"] {
            assert!(!page.contains(inline), "{inline} would not work");
        }
    }

    /// A file that is not in the shell would be missing without a connection.
    #[tokio::test]
    async fn the_worker_keeps_all_that_the_page_is_made_of() {
        let (_, _, worker) = ask("/worker.js", None).await;
        let worker = String::from_utf8(worker).unwrap();
        assert!(
            worker.contains(&version()) && !worker.contains(VERSION),
            "its version"
        );
        let shell = worker.split("const SHELL = [").nth(1).unwrap();
        let shell = shell.split(']').next().unwrap();
        for (name, _) in FILES {
            let is_kept = shell.contains(&format!("\"client/{name}\""));
            let is_shell = name.ends_with(".js") && name != WORKER
                || [
                    "page.css",
                    "icon.svg",
                    "icon-192.png",
                    "manifest.webmanifest",
                ]
                .contains(&name);
            assert_eq!(is_kept, is_shell, "{name}");
        }
        let named = shell.matches("client/").count();
        assert_eq!(
            named,
            FILES
                .iter()
                .filter(|(name, _)| shell.contains(name))
                .count()
        );
    }

    #[test]
    fn what_the_modules_import_is_there() {
        for (name, bytes) in FILES.iter().filter(|(name, _)| name.ends_with(".js")) {
            let text = String::from_utf8_lossy(bytes);
            let lines = text
                .lines()
                .filter(|line| line.starts_with("import ") || line.starts_with("export {"));
            for from in lines.filter_map(|line| line.split("from \"").nth(1)) {
                let from = from.trim_end_matches("\";").rsplit('/').next().unwrap();
                assert!(
                    FILES.iter().any(|(name, _)| *name == from),
                    "{name} imports {from}"
                );
            }
        }
    }
}
