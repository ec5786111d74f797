//! Answers of the router itself, as bytes.

use std::io::Write as _;

use super::head::RequestHead;
use crate::answer::{Answer, Style};
use crate::refusal::Refusal;

/// How the refusing answer is framed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Form {
    pub(super) style: Style,
    /// The connection is closed afterwards.
    pub(super) close: bool,
    /// The client speaks HTTP/1.1.
    pub(super) http11: bool,
    /// HEAD: no body follows.
    pub(super) to_head: bool,
}

impl Form {
    /// For a request that was not understood.
    pub(super) const UNKNOWN: Form = Form {
        style: Style::Plain,
        close: true,
        http11: true,
        to_head: false,
    };
}

/// In which style the sender of a request understands errors.
pub(super) fn style_of(head: &RequestHead<'_>) -> Style {
    Style::of(
        head.content_type,
        head.connect_protocol,
        head.path.as_bytes(),
    )
}

/// The whole answer.
pub(super) fn answer(refusal: &Refusal, form: Form) -> Vec<u8> {
    let answer = Answer::new(refusal, form.style);
    let phrase = http::StatusCode::from_u16(answer.status).ok();
    let phrase = phrase.and_then(|status| status.canonical_reason());
    let mut out = Vec::with_capacity(512 + answer.body.len());
    // Writing to a vector cannot fail.
    let _ = write!(
        out,
        "HTTP/1.1 {} {}\r\n",
        answer.status,
        phrase.unwrap_or("")
    );
    for (name, value) in &answer.headers {
        let _ = write!(out, "{name}: {value}\r\n");
    }
    let _ = write!(out, "content-length: {}\r\n", answer.body.len());
    match (form.close, form.http11) {
        (true, _) => out.extend_from_slice(b"connection: close\r\n"),
        (false, false) => out.extend_from_slice(b"connection: keep-alive\r\n"),
        (false, true) => {}
    }
    out.extend_from_slice(b"\r\n");
    if !form.to_head {
        out.extend_from_slice(&answer.body);
    }
    out
}
