//! What a client saw of a case and what the backend got, against what was sent.

use std::collections::HashMap;

use super::generate::Case;
use super::lenient::{lenient, readers};
use super::reading::{Reading, Request, all, from_client, strict};
use super::recorder::{Record, echo};

/// An answer as the client got it.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    closes: bool,
    body: Vec<u8>,
}

/// What the backend read, by the number of the case.
pub type ByCase = HashMap<usize, Vec<Request>>;

/// Reads what came on each connection strictly, and in every lenient way, and tells where any two
/// differ.
pub fn read_records(records: &[Record], wrong: &mut Vec<String>) -> ByCase {
    let mut by_case = ByCase::new();
    for record in records {
        let (requests, rest) = all(&record.bytes, strict);
        let shown = || {
            let end = &record.bytes[record.bytes.len().saturating_sub(1_000)..];
            String::from_utf8_lossy(end).escape_debug().to_string()
        };
        match rest {
            Some(Reading::Malformed(what)) => wrong.push(format!("malformed: {what}: {}", shown())),
            Some(_) if !record.closed => wrong.push(format!("half a request is left: {}", shown())),
            _ => {}
        }
        for habits in readers() {
            let (other, _) = all(&record.bytes, |bytes| lenient(bytes, habits));
            if other != requests {
                wrong.push(format!("{habits:?} reads it differently: {}", shown()));
                break;
            }
        }
        for request in requests {
            match case_of(&request) {
                Some(case) => by_case.entry(case).or_default().push(request),
                None => wrong.push(format!("a request of nobody: {request:?}")),
            }
        }
    }
    by_case
}

fn case_of(request: &Request) -> Option<usize> {
    let rest = request.path().strip_prefix("/api/t/c")?;
    rest.get(..5)?.parse().ok()
}

/// How many requests the backend answered, if all is as it should be. `got` is what the backend read
/// of the case.
pub fn check(case: &Case, answer: &[u8], got: Vec<Request>) -> Result<usize, String> {
    let (sent, rest) = from_client(&case.bytes);
    let answers = answers(answer, &sent, &case.bytes)?;
    let mut left = got;
    for (at, answer) in answers.iter().enumerate() {
        let is_last = at + 1 == answers.len();
        match answer.status {
            200 => {
                let request = sent
                    .get(at)
                    .ok_or("it passed what a strict reader refuses")?;
                same(request, answer, &mut left)?;
            }
            400.. if is_last => {}
            400.. if answer.closes => return Err("answers behind the last one".into()),
            400.. => {
                sent.get(at)
                    .ok_or("it went on behind what a strict reader refuses")?;
            }
            status => return Err(format!("an answer of {status}")),
        }
    }
    if let [request, ..] = &left[..] {
        return Err(format!("the client never heard of {request:?}"));
    }
    let refused_and_closed = answers
        .last()
        .is_some_and(|last| last.status >= 400 && last.closes);
    let owed = sent.len() + usize::from(matches!(rest, Some(Reading::Malformed(_))));
    if answers.len() < owed && !refused_and_closed {
        return Err(format!("{} answers to {owed} requests", answers.len()));
    }
    if answers.len() > sent.len() + usize::from(rest.is_some()) {
        return Err("more answers than requests".into());
    }
    Ok(answers.iter().filter(|answer| answer.status == 200).count())
}

/// The answer and the backend's record are of this very request.
fn same(sent: &Request, answer: &Answer, left: &mut Vec<Request>) -> Result<(), String> {
    let wanted = echo(sent);
    if sent.method != "HEAD" && answer.body != wanted.as_bytes() {
        let body = String::from_utf8_lossy(&answer.body);
        return Err(format!("`{wanted}` was read as `{body}`"));
    }
    let at = left.iter().position(|got| echo(got) == wanted);
    let got = left.remove(at.ok_or("the answer is not the backend's")?);
    if got.framing != sent.framing {
        return Err(format!(
            "framing {:?} became {:?}",
            sent.framing, got.framing
        ));
    }
    let host = String::from_utf8_lossy(got.values("host").next().unwrap_or_default());
    if (sent.http11 || !sent.host().is_empty()) && host != sent.host() {
        return Err(format!("host {:?} became {host:?}", sent.host()));
    }
    let (wanted, got) = (end_to_end(sent), end_to_end(&got));
    if wanted == got {
        Ok(())
    } else {
        Err(format!("fields {wanted:?} became {got:?}"))
    }
}

/// The fields that pass unchanged: not those of one hop, not those that the router sets.
fn end_to_end(request: &Request) -> Vec<(String, Vec<u8>)> {
    let named = request.options();
    let passes = |(name, _): &&(String, Vec<u8>)| !named.contains(name) && !is_ours(name);
    request.fields.iter().filter(passes).cloned().collect()
}

fn is_ours(name: &str) -> bool {
    const OURS: [&str; 14] = [
        "host",
        "connection",
        "keep-alive",
        "proxy-connection",
        "te",
        "upgrade",
        "http2-settings",
        "transfer-encoding",
        "content-length",
        "traceparent",
        "correlation-id",
        "forwarded",
        "x-forwarded-for",
        "x-forwarded-host",
    ];
    let plain: String = name
        .chars()
        .map(|sign| {
            if sign.is_ascii_alphanumeric() {
                sign
            } else {
                '-'
            }
        })
        .collect();
    let is_forwarded = plain.starts_with("x-forwarded-");
    let is_lookalike = plain != name
        && (is_forwarded || matches!(&*plain, "content-length" | "transfer-encoding"));
    OURS.contains(&name)
        || is_lookalike
        || plain.starts_with("hydrant-")
        || matches!(
            name,
            "x-forwarded-proto" | "x-forwarded-prefix" | "x-forwarded-port"
        )
}

/// The answers of a connection, each whole and well-formed, with nothing behind the last one.
pub fn answers(bytes: &[u8], sent: &[Request], case: &[u8]) -> Result<Vec<Answer>, String> {
    let (mut answers, mut rest) = (Vec::new(), bytes);
    while !rest.is_empty() {
        let method = sent.get(answers.len()).map(|request| &*request.method);
        let to_head = match method {
            Some(method) => method == "HEAD",
            // It was refused; whether it is one of HEAD is for the router to know.
            None => case.windows(5).any(|window| window == b"HEAD "),
        };
        let (answer, len) = answer(rest, to_head)
            .ok_or_else(|| format!("a malformed answer: {}", String::from_utf8_lossy(rest)))?;
        rest = &rest[len..];
        answers.push(answer);
    }
    Ok(answers)
}

fn answer(bytes: &[u8], to_head: bool) -> Option<(Answer, usize)> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&bytes[..end - 4]).ok()?;
    let mut lines = head.split("\r\n");
    let line = lines.next()?;
    let status: u16 = line.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    let (mut length, mut closes) = (None, false);
    for line in lines {
        let (name, value) = line.split_once(": ")?;
        if name.contains(['\r', '\n', ' ']) || value.contains(['\r', '\n']) {
            return None;
        }
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = Some(value.parse::<usize>().ok()?),
            "connection" => closes |= value.eq_ignore_ascii_case("close"),
            _ => {}
        }
    }
    let length = match length? {
        _ if to_head && (status == 200 || bytes.len() == end) => 0,
        length => length,
    };
    let body = bytes.get(end..end + length)?.to_vec();
    let answer = Answer {
        status,
        closes,
        body,
    };
    Some((answer, end + length))
}
