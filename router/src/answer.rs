use hydrant_contracts::Error;

use crate::refusal::Refusal;

/// In which language a caller understands errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Style {
    /// `application/problem+json`.
    Plain,
    /// Connect's JSON.
    Connect,
    /// Connect's last frame of a stream, with this content type.
    ConnectStream(&'static str),
    /// gRPC's trailers-only answer, with this content type.
    Grpc(&'static str),
}

impl Style {
    /// Tells the style by the headers of a request. `connect` says whether
    /// `connect-protocol-version` was sent; `target` is the path with its query.
    pub fn of(content_type: Option<&[u8]>, connect: bool, target: &[u8]) -> Self {
        let kind = content_type
            .unwrap_or(b"")
            .split(|byte| *byte == b';')
            .next();
        let kind = kind.unwrap_or(b"").trim_ascii();
        if let Some(framed) = framed_style(kind) {
            return framed;
        }
        let query = memchr::memchr(b'?', target).map(|at| &target[at + 1..]);
        let is_get = query.is_some_and(|query| query.split(|byte| *byte == b'&').any(is_version));
        let (path, _) = target.split_at(memchr::memchr(b'?', target).unwrap_or(target.len()));
        let is_codec = matches!(kind, b"application/proto" | b"application/json");
        if connect || is_get || (is_codec && names_a_method(path)) {
            Style::Connect
        } else {
            Style::Plain
        }
    }
}

fn framed_style(kind: &[u8]) -> Option<Style> {
    const GRPC: &str = "application/grpc";
    const WEB: &str = "application/grpc-web+proto";
    const WEB_TEXT: &str = "application/grpc-web-text+proto";
    if kind.starts_with(b"application/grpc-web-text") {
        Some(Style::Grpc(WEB_TEXT))
    } else if kind.starts_with(b"application/grpc-web") {
        Some(Style::Grpc(WEB))
    } else if kind.starts_with(GRPC.as_bytes()) {
        Some(Style::Grpc(GRPC))
    } else if kind == b"application/connect+json" {
        Some(Style::ConnectStream("application/connect+json"))
    } else if kind.starts_with(b"application/connect+") {
        Some(Style::ConnectStream("application/connect+proto"))
    } else {
        None
    }
}

fn is_version(parameter: &[u8]) -> bool {
    parameter == b"connect=v1"
}

/// Whether the path ends in `package.Service/Method`.
fn names_a_method(path: &[u8]) -> bool {
    let identifier = |part: &[u8]| {
        let first = part
            .first()
            .is_some_and(|byte| byte.is_ascii_alphabetic() || *byte == b'_');
        first
            && part
                .iter()
                .all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
    };
    let mut parts = path.rsplitn(3, |byte| *byte == b'/');
    let (method, service) = (parts.next().unwrap_or(b""), parts.next().unwrap_or(b""));
    identifier(method) && service.contains(&b'.') && service.split(|b| *b == b'.').all(identifier)
}

/// The router's own answer to a request that it refuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// Names in lower case, with ASCII values. `content-length` is not among them.
    pub headers: Vec<(&'static str, String)>,
    /// The whole body.
    pub body: Vec<u8>,
}

impl Answer {
    /// Puts a refusal in the words of the caller.
    pub fn new(refusal: &Refusal, style: Style) -> Self {
        if let Some(elsewhere) = &refusal.elsewhere {
            return Self {
                status: elsewhere.status,
                headers: vec![("location", elsewhere.location.clone())],
                body: Vec::new(),
            };
        }
        let error = Error::from(refusal);
        let mut answer = match style {
            Style::Plain => {
                let status = refusal.reason.status();
                let body = error.to_problem_json_of(status);
                Self::of(status, "application/problem+json", body)
            }
            Style::Connect => {
                let body = error.to_connect_json();
                Self::of(refusal.reason.status(), "application/json", body)
            }
            Style::ConnectStream(kind) => Self::of(200, kind, end_of_stream(&error)),
            Style::Grpc(kind) => Self::of(200, kind, Vec::new()),
        };
        if let Style::Grpc(_) = style {
            answer.headers.extend(error.to_grpc_trailers());
        }
        if let Some((name, value)) = refusal.verdict() {
            answer.headers.push((name, value.into()));
        }
        if let Some(seconds) = refusal.retry_after() {
            answer.headers.push(("retry-after", seconds.to_string()));
        }
        answer
    }

    fn of(status: u16, content_type: &str, body: Vec<u8>) -> Self {
        Self {
            status,
            headers: vec![("content-type", content_type.into())],
            body,
        }
    }
}

/// The frame that ends a Connect stream: flag 2, the length, and the error.
fn end_of_stream(error: &Error) -> Vec<u8> {
    let json = [b"{\"error\":", &*error.to_connect_json(), b"}"].concat();
    [&[2], &(json.len() as u32).to_be_bytes()[..], &json].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::refusal::Reason;

    fn style(content_type: &str, connect: bool, target: &str) -> Style {
        Style::of(Some(content_type.as_bytes()), connect, target.as_bytes())
    }

    #[test]
    fn callers_are_told_apart() {
        let method = "/api/files/files.v1.Files/Get";
        for (content_type, connect, target, expected) in [
            ("text/html", false, "/api/files/", Style::Plain),
            (
                "application/json",
                false,
                "/api/files/v1/users",
                Style::Plain,
            ),
            (
                "application/json",
                false,
                "/api/files/v1.2/users",
                Style::Plain,
            ),
            ("application/json", false, method, Style::Connect),
            (
                "application/json; charset=utf-8",
                false,
                method,
                Style::Connect,
            ),
            ("application/proto", false, method, Style::Connect),
            ("text/plain", false, method, Style::Plain),
            ("", true, "/x", Style::Connect),
            ("", false, "/x?a=b&connect=v1&message=", Style::Connect),
            (
                "application/connect+json",
                false,
                "/x",
                Style::ConnectStream("application/connect+json"),
            ),
            (
                "application/connect+proto",
                false,
                "/x",
                Style::ConnectStream("application/connect+proto"),
            ),
            (
                "application/grpc",
                true,
                "/x",
                Style::Grpc("application/grpc"),
            ),
            (
                "application/grpc+proto",
                false,
                "/x",
                Style::Grpc("application/grpc"),
            ),
            (
                "application/grpc-web",
                false,
                "/x",
                Style::Grpc("application/grpc-web+proto"),
            ),
        ] {
            let found = style(content_type, connect, target);
            assert_eq!(found, expected, "{content_type} {target}");
        }
    }

    #[test]
    fn every_refusal_has_an_answer_in_every_style() {
        for reason in Reason::ALL {
            let refusal = Refusal::new(reason, "what happened").mend("do this");
            let plain = Answer::new(&refusal, Style::Plain);
            let problem: serde_json::Value = serde_json::from_slice(&plain.body).unwrap();
            assert_eq!(problem["status"], plain.status);
            assert_eq!(problem["reason"], reason.as_str());
            assert_eq!(plain.status, reason.status());
            let connect = Answer::new(&refusal, Style::Connect);
            let error: serde_json::Value = serde_json::from_slice(&connect.body).unwrap();
            assert_eq!(error["code"], reason.code().as_str());
            let grpc = Answer::new(&refusal, Style::Grpc("application/grpc"));
            let code = reason.code().grpc_code().to_string();
            assert!(grpc.headers.contains(&("grpc-status", code)));
            assert_eq!((grpc.status, grpc.body.len()), (200, 0));
            let stream = Answer::new(&refusal, Style::ConnectStream("application/connect+proto"));
            assert_eq!(stream.body[0], 2);
            let frame: serde_json::Value = serde_json::from_slice(&stream.body[5..]).unwrap();
            assert_eq!(frame["error"]["code"], reason.code().as_str());
        }
    }
}
