//! The admin API: the methods of `service/mobile`, for holders of a key of the role `admin`.
//!
//! `POST /api/mobile/hydrant.mobile.v1.{Service}/{Method}`, in Connect's form. A request goes on as it
//! came, but for its author: that is the name of the key, whatever the request says.

use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::any;
use hydrant_contracts::header::{CONNECT_TIMEOUT, TOKEN};
use hydrant_sdk::{Code, Context, Error, Hydrant};
use serde_json::{Map, Value};

use crate::api::gate::{Gate, Refusal};
use crate::keys::Role;

/// The largest request that is passed on: what a service takes.
const MAX_REQUEST: usize = 16 * 1024 * 1024;
/// How long an answer may take when the caller does not say.
const PATIENCE: Duration = Duration::from_secs(60);
/// How much of the author that a request claims is kept, in characters.
const MAX_CLAIM: usize = 60;
/// What of a request goes on, and what of an answer comes back.
const PASSED: [HeaderName; 3] = [
    header::CONTENT_TYPE,
    HeaderName::from_static("connect-protocol-version"),
    HeaderName::from_static(CONNECT_TIMEOUT),
];
/// The first byte of the field `author`, which is number 1 of every message that has it.
const AUTHOR_FIELD: u8 = 0x0a;

/// Whether a method has an author.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Author {
    /// It changes something: field 1, `author`, says who.
    Named,
    /// It only shows something, or what it does is nobody's.
    None,
}

/// What is passed on. Methods between our own processes are not among it.
const METHODS: [(&str, Author); 20] = [
    ("Documents/Apply", Author::Named),
    ("Documents/Revert", Author::Named),
    ("Documents/Get", Author::None),
    ("Documents/List", Author::None),
    ("Documents/History", Author::None),
    ("Documents/Diff", Author::None),
    ("Flags/Evaluate", Author::None),
    ("Experiments/List", Author::None),
    ("Experiments/Report", Author::None),
    ("Experiments/Who", Author::None),
    ("Operations/Status", Author::None),
    ("Configurations/Explain", Author::None),
    ("Configurations/Compare", Author::None),
    ("Configurations/Layers", Author::None),
    ("Content/CreatePreview", Author::None),
    ("Content/RevokePreviews", Author::None),
    ("Content/ExplainSlot", Author::None),
    ("Content/ListEntries", Author::None),
    ("Content/ListImages", Author::None),
    ("Content/RemoveImage", Author::Named),
];

/// Passes requests on.
#[derive(Clone)]
pub(crate) struct Admin {
    gate: Gate,
    http: reqwest::Client,
    base: String,
    token: Option<HeaderValue>,
}

impl Admin {
    pub(crate) fn new(hydrant: &Hydrant, gate: Gate) -> Self {
        let config = hydrant.config();
        let url = config.url.to_string();
        Self {
            gate,
            http: reqwest::Client::new(),
            base: format!("{}/service/mobile", url.trim_end_matches('/')),
            token: config.token.clone(),
        }
    }

    pub(crate) fn routes(self) -> axum::Router {
        axum::Router::new()
            .route("/{service}/{method}", any(pass))
            .with_state(self)
    }

    async fn pass(&self, method: &str, request: Request) -> Result<Response, Refused> {
        let key = self.holder(request.headers())?;
        let author = known(method)?;
        let (parts, body) = request.into_parts();
        let body = to_bytes(body, MAX_REQUEST).await.map_err(|_| too_large())?;
        let body = match author {
            Author::None => body,
            Author::Named => signed(&parts.headers, body, &key)?,
        };
        let url = format!("{}/hydrant.mobile.v1.{method}", self.base);
        let mut call = self.http.post(url).timeout(PATIENCE).body(body);
        call = call.headers(self.headers(&parts.headers));
        let answer = call.send().await.map_err(|_| broken())?;
        Ok(answered(answer))
    }

    /// The name of the key, which has to be one of an admin.
    fn holder(&self, headers: &HeaderMap) -> Result<String, Refused> {
        let admitted = self.gate.admit(headers)?;
        match admitted.caller.key() {
            Some(key) if key.role == Role::Admin => Ok(key.name.clone()),
            Some(key) => Err(not_admin(&key.name).into()),
            None => Err(no_key().into()),
        }
    }

    fn headers(&self, given: &HeaderMap) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for name in PASSED {
            if let Some(value) = given.get(&name) {
                headers.insert(name, value.clone());
            }
        }
        if let Some(token) = &self.token {
            headers.insert(TOKEN, token.clone());
        }
        if let Some(context) = Context::current() {
            context.forward(&mut headers);
        }
        headers
    }
}

async fn pass(
    State(admin): State<Admin>,
    Path((service, method)): Path<(String, String)>,
    request: Request,
) -> Response {
    let Some(service) = service.strip_prefix("hydrant.mobile.v1.") else {
        return Refused::from(super::no_such_page()).into_response();
    };
    if request.method() != axum::http::Method::POST {
        return Refused::from(only_post()).into_response();
    }
    let passed = admin.pass(&format!("{service}/{method}"), request).await;
    passed.unwrap_or_else(Refused::into_response)
}

fn known(method: &str) -> Result<Author, Error> {
    let found = METHODS.iter().find(|(name, _)| *name == method);
    found.map(|(_, author)| *author).ok_or_else(|| {
        let message = format!("`{}` is no method of the admin API", method.escape_debug());
        Error::new(Code::Unimplemented, "no_such_method", message)
    })
}

/// The request with the key's name as its author.
fn signed(headers: &HeaderMap, body: Bytes, key: &str) -> Result<Bytes, Error> {
    if headers.contains_key(header::CONTENT_ENCODING) {
        let message = "a request with an author is not compressed";
        return Err(Error::new(Code::Unimplemented, "compressed", message));
    }
    let form = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    match form.unwrap_or_default() {
        b"application/proto" => Ok(signed_proto(&body, key)),
        form if form.starts_with(b"application/json") => signed_json(&body, key),
        _ => {
            let message = "the content type is application/json or application/proto";
            Err(Error::new(
                Code::InvalidArgument,
                "bad_content_type",
                message,
            ))
        }
    }
}

fn signed_json(body: &[u8], key: &str) -> Result<Bytes, Error> {
    let mut request: Map<String, Value> = serde_json::from_slice(body).map_err(|error| {
        let message = format!("the request is no JSON object: {error}");
        Error::new(Code::InvalidArgument, "bad_json", message)
    })?;
    let claimed = request.get("author").and_then(Value::as_str);
    let author = author(key, claimed.unwrap_or_default());
    request.insert("author".into(), author.into());
    Ok(Value::Object(request).to_string().into())
}

/// The key's name, and in brackets who its holder says to be.
fn author(key: &str, claimed: &str) -> String {
    let shown = claimed
        .chars()
        .filter(|c| !c.is_control() && !"()".contains(*c));
    let claimed: String = shown.take(MAX_CLAIM).collect();
    match claimed.trim() {
        "" => key.to_owned(),
        claimed => format!("{key} ({claimed})"),
    }
}

/// Of a field that is there twice, the last one counts.
fn signed_proto(body: &[u8], key: &str) -> Bytes {
    let length = u8::try_from(key.len().min(127)).unwrap_or(127);
    let name = &key.as_bytes()[..usize::from(length)];
    [body, &[AUTHOR_FIELD, length], name].concat().into()
}

fn answered(answer: reqwest::Response) -> Response {
    let mut response = Response::builder().status(answer.status());
    for name in [header::CONTENT_TYPE, header::CONTENT_ENCODING] {
        if let Some(value) = answer.headers().get(&name) {
            response = response.header(name, value);
        }
    }
    let body = Body::from_stream(answer.bytes_stream());
    let response = response
        .header(header::CACHE_CONTROL, "no-store")
        .body(body);
    response.unwrap_or_else(|_| StatusCode::BAD_GATEWAY.into_response())
}

/// Why a request is not passed on, in Connect's form.
struct Refused {
    error: Error,
    refusal: Option<Refusal>,
}

impl Refused {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.error.http_status());
        let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let json = [(header::CONTENT_TYPE, "application/json")];
        let mut answer = (status, json, self.error.to_connect_json()).into_response();
        if let Some(refusal) = self.refusal {
            refusal.describe(answer.headers_mut());
        }
        answer
    }
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self {
            error,
            refusal: None,
        }
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self {
            error: refusal.error(),
            refusal: Some(refusal),
        }
    }
}

fn no_key() -> Error {
    let message = "changes are made with a key of the role admin, and there is none";
    Error::new(Code::Unauthenticated, "no_key", message)
        .mend("send it as `Authorization: Bearer KEY`")
}

fn not_admin(name: &str) -> Error {
    let message = format!("the key `{name}` has not the role admin");
    Error::new(Code::PermissionDenied, "not_admin", message)
        .mend("make one that has: `hydrant mobile key create NAME --role admin`")
}

fn only_post() -> Error {
    let message = "methods of the admin API are called with POST";
    Error::new(Code::Unimplemented, "only_post", message)
}

fn too_large() -> Error {
    let message = "the request is larger than 16 MB, or broke off";
    Error::new(Code::ResourceExhausted, "request_too_large", message)
}

fn broken() -> Error {
    let message = "the node does not answer";
    Error::new(Code::Unavailable, "node_unavailable", message)
}

#[cfg(test)]
mod tests {
    use buffa::Message as _;

    use super::*;
    use crate::proto::{ApplyRequest, RevertRequest};

    fn headers(form: &'static str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(form));
        headers
    }

    #[test]
    fn the_author_is_the_key_in_every_form() {
        let json = br#"{"author": "Bob)\n", "reason": "x", "changes": []}"#;
        let signed_json = signed(&headers("application/json"), json.as_slice().into(), "ci");
        let read: Value = serde_json::from_slice(&signed_json.unwrap()).unwrap();
        assert_eq!(
            (&read["author"], &read["reason"]),
            (&"ci (Bob)".into(), &"x".into())
        );
        let request = RevertRequest {
            author: "root".into(),
            revision: 7,
            ..Default::default()
        };
        let body = request.encode_to_vec().into();
        let signed_proto = signed(&headers("application/proto"), body, "ci").unwrap();
        let read = RevertRequest::decode_from_slice(&signed_proto).unwrap();
        assert_eq!((read.author.as_str(), read.revision), ("ci", 7));
        let empty = signed(&headers("application/proto"), Bytes::new(), "ci").unwrap();
        assert_eq!(
            ApplyRequest::decode_from_slice(&empty).unwrap().author,
            "ci"
        );
        for form in ["text/plain", ""] {
            assert!(signed(&headers(form), Bytes::new(), "ci").is_err());
        }
    }

    /// What our own processes say to each other.
    const OWN: [&str; 5] = [
        "Operations/Report",
        "Operations/Bring",
        "Observations/Expose",
        "Observations/Measure",
        "Content/ReadPreview",
    ];

    /// All methods of the protocol, each with whether its request begins with an author.
    fn all() -> Vec<(String, Author)> {
        let protocols = [
            include_str!("../../proto/hydrant/mobile/v1/configuration.proto"),
            include_str!("../../proto/hydrant/mobile/v1/content.proto"),
            include_str!("../../proto/hydrant/mobile/v1/documents.proto"),
            include_str!("../../proto/hydrant/mobile/v1/experiments.proto"),
            include_str!("../../proto/hydrant/mobile/v1/operations.proto"),
        ];
        let text = protocols.join("\n");
        let (mut service, mut all) = ("", Vec::new());
        for line in text.lines().map(str::trim) {
            if let Some(rest) = line.strip_prefix("service ") {
                service = rest.trim_end_matches([' ', '{']);
            }
            let Some((name, rest)) = line
                .strip_prefix("rpc ")
                .and_then(|rest| rest.split_once('('))
            else {
                continue;
            };
            let message = rest.split(')').next().unwrap_or_default();
            let (_, fields) = text.split_once(&format!("message {message} {{")).unwrap();
            let fields = fields.split('}').next().unwrap_or_default();
            let author = match fields.contains("string author = 1;") {
                true => Author::Named,
                false => Author::None,
            };
            all.push((format!("{service}/{name}"), author));
        }
        all
    }

    #[test]
    fn every_method_is_passed_on_as_its_protocol_says_or_is_our_own() {
        let all = all();
        for (method, author) in &all {
            match known(method) {
                Ok(found) => assert_eq!(found, *author, "{method}"),
                Err(_) => assert!(
                    OWN.contains(&method.as_str()),
                    "{method} is in neither table"
                ),
            }
        }
        for named in METHODS.iter().map(|(name, _)| *name).chain(OWN) {
            assert!(
                all.iter().any(|(method, _)| method == named),
                "there is no {named}"
            );
        }
        assert!(
            OWN.iter().all(|own| known(own).is_err()),
            "our own stay inside"
        );
        assert!(known("Documents/../Apply").is_err());
    }
}
