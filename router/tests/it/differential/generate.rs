//! Requests by chance: most of them nearly right, as those of attackers are.

use fastrand::Rng;

/// What is sent on one connection.
#[derive(Clone, Debug)]
pub struct Case {
    pub name: String,
    pub bytes: Vec<u8>,
    /// Where it is cut into writes.
    pub cuts: Vec<usize>,
}

/// The path of a case's requests, by which the backend's records are told apart.
pub fn path(number: usize) -> String {
    format!("/api/t/c{number:05}/")
}

/// The case of this number.
pub fn case(number: usize, rng: &mut Rng) -> Case {
    let count = if rng.u8(..4) == 0 { 2 } else { 1 };
    let mut bytes: Vec<u8> = (0..count).flat_map(|at| request(number, at, rng)).collect();
    if rng.bool() {
        let tag = path(number).into_bytes();
        for _ in 0..rng.usize(1..=3) {
            mutate(&mut bytes, &tag, rng);
        }
    }
    let cuts = (0..rng.usize(..4))
        .map(|_| rng.usize(..bytes.len()))
        .collect();
    Case {
        name: format!("generated {number}"),
        bytes,
        cuts,
    }
}

fn pick<'a>(rng: &mut Rng, from: &[&'a str]) -> &'a str {
    from[rng.usize(..from.len())]
}

fn request(number: usize, at: usize, rng: &mut Rng) -> Vec<u8> {
    let path = path(number);
    let method = pick(
        rng,
        &[
            "GET", "GET", "POST", "POST", "POST", "PUT", "HEAD", "OPTIONS", "PATCH", "X-odd",
        ],
    );
    let target = match rng.u8(..10) {
        0 => format!("http://other{path}{at}"),
        1 => format!("{path}{at}?a=b&c=%20"),
        2 => format!(
            "{path}{}",
            pick(rng, &["a;b", "%41", "a%2fb", "../x", "a//b", "*", "@", "|"])
        ),
        _ => format!("{path}{at}"),
    };
    let version = match rng.u8(..12) {
        0 | 1 => "HTTP/1.0",
        2 => pick(
            rng,
            &["HTTP/1.2", "HTTP/2.0", "HTTP/1.1 ", "HTTP/1.01", "http/1.1"],
        ),
        _ => "HTTP/1.1",
    };
    let mut lines = vec![format!("{method} {target} {version}")];
    if rng.u8(..20) > 0 {
        lines.push("Host: test".into());
    }
    for _ in 0..rng.usize(..4) {
        lines.push(pick(rng, ODD).into());
    }
    let payload = payload(number, rng);
    let body = framed(&mut lines, &payload, rng);
    let first = lines.remove(0);
    rng.shuffle(&mut lines);
    lines.insert(0, first);
    [lines.join("\r\n").as_bytes(), b"\r\n\r\n", &body].concat()
}

/// Often a request of its own, which nobody may ever see as one.
fn payload(number: usize, rng: &mut Rng) -> Vec<u8> {
    let hidden = format!("GET {}hidden HTTP/1.1\r\nHost: test\r\n\r\n", path(number));
    match rng.u8(..4) {
        0 => Vec::new(),
        1 => b"hello".to_vec(),
        2 => format!("0\r\n\r\n{hidden}").into_bytes(),
        _ => hidden.into_bytes(),
    }
}

/// Adds the lines that frame the payload, mostly rightly, and gives the body as it is sent.
fn framed(lines: &mut Vec<String>, payload: &[u8], rng: &mut Rng) -> Vec<u8> {
    let length = format!("Content-Length: {}", payload.len());
    match rng.u8(..20) {
        0..6 => Vec::new(),
        6..11 => {
            lines.push(length);
            payload.to_vec()
        }
        11..15 => {
            lines.push("Transfer-Encoding: chunked".into());
            chunked(payload, rng)
        }
        15 => {
            lines.push(length);
            lines.push("Transfer-Encoding: chunked".into());
            chunked(payload, rng)
        }
        16 => {
            let skewed = payload.len() + rng.usize(1..6) - 3.min(payload.len());
            lines.push(format!("Content-Length: {skewed}"));
            payload.to_vec()
        }
        17 => {
            lines.push(length);
            lines.push(pick(rng, LENGTHS).into());
            payload.to_vec()
        }
        _ => {
            lines.push(pick(rng, CODINGS).into());
            chunked(payload, rng)
        }
    }
}

fn chunked(payload: &[u8], rng: &mut Rng) -> Vec<u8> {
    let mut body = Vec::new();
    for part in payload.chunks(rng.usize(1..40)) {
        let extension = match rng.u8(..12) {
            0 => pick(
                rng,
                &[";a=b", "; a", ";a=\"b c\"", ";", " ", ";a\t", ";=", "\t"],
            ),
            _ => "",
        };
        let zeros = "0".repeat(usize::from(rng.u8(..12) == 0) * rng.usize(..20));
        body.extend_from_slice(format!("{zeros}{:x}{extension}\r\n", part.len()).as_bytes());
        body.extend_from_slice(part);
        body.extend_from_slice(b"\r\n");
    }
    let end = match rng.u8(..8) {
        0 => pick(
            rng,
            &[
                "0\r\na: b\r\n\r\n",
                "00\r\n\r\n",
                "0;a\r\n\r\n",
                "0\r\nhost: x\r\n\r\n",
            ],
        ),
        _ => "0\r\n\r\n",
    };
    body.extend_from_slice(end.as_bytes());
    body
}

const LENGTHS: &[&str] = &[
    "Content-Length: 0",
    "Content-Length: 5",
    "content-length:\t5",
    "Content_Length: 5",
    "Content-Length : 5",
    "X: y\r\n Content-Length: 5",
    "Content-Length: 5, 5",
];

const CODINGS: &[&str] = &[
    "Transfer-Encoding: Chunked",
    "transfer-encoding:chunked",
    "Transfer-Encoding:\tchunked",
    "Transfer-Encoding: chunked ",
    "Transfer-Encoding: gzip, chunked",
    "Transfer-Encoding: chunked, identity",
    "Transfer-Encoding: \"chunked\"",
    "Transfer_Encoding: chunked",
    "Transfer-Encoding : chunked",
    "Transfer-Encoding: x\r\n chunked",
    "Connection: close, Transfer-Encoding\r\nTransfer-Encoding: chunked",
];

/// Fields that servers disagree about.
const ODD: &[&str] = &[
    "A: b",
    "A:",
    "A:  b\t",
    "Cookie: a=b",
    "Accept: */*",
    "Connection: close",
    "Connection: keep-alive",
    "Connection: A, x-y",
    "Connection: host",
    "Connection: upgrade\r\nUpgrade: websocket",
    "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA",
    "Upgrade: x",
    "Keep-Alive: timeout=5",
    "Proxy-Connection: close",
    "TE: trailers",
    "Trailer: a",
    "Expect: 100-continue",
    "Expect: nonsense",
    "X-Forwarded-For: 6.6.6.6",
    "X_Forwarded_For: 6.6.6.6",
    "X-Forwarded-Host: evil",
    "Forwarded: for=6.6.6.6",
    "Hydrant-Caller: operator",
    "Hydrant_Token: x",
    "Host: other",
    "A: \u{e4}\u{20ac}",
    "A: b\x0bc",
    "A b: c",
    "A\u{e4}: c",
    " folded",
    "no colon",
];

/// Signs and pieces at which readers part.
const SIGNS: &[&[u8]] = &[
    b"\r",
    b"\n",
    b"\r\n",
    b"\0",
    b" ",
    b"\t",
    b":",
    b";",
    b",",
    b"\x0b",
    b"\x0c",
    b"\x1c",
    b"\x85",
    b"\xa0",
    b"\xff",
    b"/",
    b"-",
    b"_",
    b"0",
    b"1",
    b"+",
    b"x",
    b"#",
    b"?",
    b"\\",
    b"\"",
    b"(",
    b"\r\n\r\n",
    b"0\r\n",
    b"\r\nContent-Length: 3\r\n",
    b"\r\nTransfer-Encoding: chunked\r\n",
];

/// One change, nowhere within `tag`.
fn mutate(bytes: &mut Vec<u8>, tag: &[u8], rng: &mut Rng) {
    if bytes.is_empty() {
        return;
    }
    let at = rng.usize(..bytes.len());
    let around = &bytes[at.saturating_sub(tag.len())..(at + tag.len()).min(bytes.len())];
    if around.windows(tag.len()).any(|window| window == tag) {
        return;
    }
    let sign = SIGNS[rng.usize(..SIGNS.len())];
    match rng.u8(..6) {
        0 | 1 => drop(bytes.splice(at..at, sign.iter().copied())),
        2 => drop(bytes.splice(at..=at, sign.iter().copied())),
        3 => drop(bytes.remove(at)),
        4 => bytes[at] ^= 0x20,
        _ => {
            let end = (at + rng.usize(1..8)).min(bytes.len());
            let again = bytes[at..end].to_vec();
            drop(bytes.splice(at..at, again));
        }
    }
}
