//! Requests by hand: what is known to have been read in two ways somewhere, and what is near to it.

use super::generate::{Case, path};

const HIDDEN: &str = "GET /api/t/hidden HTTP/1.1\r\nhost: test\r\n\r\n";

/// All of them, with the tables of the other tests. Cases begin at `first`.
pub fn all(first: usize) -> Vec<Case> {
    let mut table = crate::hostile::table()
        .into_iter()
        .map(|(name, bytes, _)| (name.to_owned(), bytes.into_bytes()))
        .collect::<Vec<_>>();
    table.extend(codings());
    table.extend(lengths());
    table.extend(both());
    table.extend(chunks());
    table.extend(lines());
    table.extend(names());
    table.extend(hosts());
    table.extend(connections());
    table.extend(pipelines());
    let numbered = table.into_iter().enumerate();
    numbered
        .map(|(at, (name, bytes))| Case {
            name,
            bytes: tagged(&bytes, first + at),
            cuts: Vec::new(),
        })
        .collect()
}

/// With the path of its own that tells a case's requests from others.
fn tagged(bytes: &[u8], number: usize) -> Vec<u8> {
    let (plain, own) = (&b"/api/t/"[..], path(number));
    let mut tagged = Vec::new();
    let mut rest = bytes;
    while let Some(at) = rest.windows(plain.len()).position(|window| window == plain) {
        tagged.extend_from_slice(&rest[..at]);
        tagged.extend_from_slice(own.as_bytes());
        rest = &rest[at + plain.len()..];
    }
    tagged.extend_from_slice(rest);
    // A length in front of what grew is mended.
    let grown = own.len() - plain.len();
    mend_length(tagged, HIDDEN.len(), HIDDEN.len() + grown)
}

fn mend_length(bytes: Vec<u8>, from: usize, to: usize) -> Vec<u8> {
    let (from, to) = (
        format!("content-length: {from}\r\n"),
        format!("content-length: {to}\r\n"),
    );
    let Some(at) = bytes
        .windows(from.len())
        .position(|window| window == from.as_bytes())
    else {
        return bytes;
    };
    [&bytes[..at], to.as_bytes(), &bytes[at + from.len()..]].concat()
}

type Table = Vec<(String, Vec<u8>)>;

fn post(fields: &str, body: &str) -> Vec<u8> {
    format!("POST /api/t/ HTTP/1.1\r\nhost: test\r\n{fields}\r\n\r\n{body}").into_bytes()
}

fn get(fields: &str) -> Vec<u8> {
    format!("GET /api/t/ HTTP/1.1\r\nhost: test\r\n{fields}\r\n\r\n").into_bytes()
}

fn named(what: &str, spelled: &str, bytes: Vec<u8>) -> (String, Vec<u8>) {
    (format!("{what}: {}", spelled.escape_debug()), bytes)
}

fn codings() -> Table {
    [
        "Transfer-Encoding: chunked",
        "transfer-encoding:chunked",
        "transfer-encoding: \t chunked \t",
        "TRANSFER-ENCODING: CHUNKED",
        "transfer-encoding: chunked,",
        "transfer-encoding: ,chunked",
        "transfer-encoding: chunked;q=1",
        "transfer-encoding: chunked chunked",
        "transfer-encoding: chunked, chunked",
        "transfer-encoding: \x0bchunked",
        "transfer-encoding: \x0cchunked",
        "transfer-encoding: chunked\x0b",
        "transfer-encoding: \u{85}chunked",
        "transfer-encoding: \u{a0}chunked",
        "transfer-encoding: chun\tked",
        "transfer-encoding: 'chunked'",
        "transfer-encoding: (c) chunked",
        "transfer-encoding:",
        "transfer-encoding: identity, chunked",
        "transfer-encoding: cow\r\ntransfer-encoding: chunked",
        "transfer-encoding: chunked\r\ntransfer-encoding: cow",
        "transfer-encoding\t: chunked",
        "transfer-encoding\0: chunked",
        "transfer-encoding\x0b: chunked",
        "transfer-encoding\r: chunked",
        "transfer_encoding: chunked",
        "transfer.encoding: chunked",
        "transfer encoding: chunked",
        "x: y\ntransfer-encoding: chunked",
        "x: y\rtransfer-encoding: chunked",
        "x: y\r\n transfer-encoding: chunked",
        "x: y\r\n\ttransfer-encoding: chunked",
        "transfer-encoding:\r\n chunked",
        "\ttransfer-encoding: chunked",
        "te: chunked",
        "xtransfer-encoding: chunked",
    ]
    .into_iter()
    .map(|coding| {
        let body = format!("3\r\nabc\r\n0\r\n\r\n{HIDDEN}");
        named("a coding", coding, post(coding, &body))
    })
    .collect()
}

fn lengths() -> Table {
    [
        "Content-Length: 5",
        "content-length:5",
        "content-length:\t5\t",
        "content-length: 005",
        "content-length: 5 ",
        "content-length: 5;",
        "content-length: 5.0",
        "content-length: 5e0",
        "content-length: 5 5",
        "content-length: 5,",
        "content-length: ,5",
        "content-length: 0,5",
        "content-length: 0x05",
        "content-length: 05h",
        "content-length: '5'",
        "content-length: \x0b5",
        "content-length: 5\x0b",
        "content-length: 5\0",
        "content-length: \u{ff15}",
        "content-length: 0\r\ncontent-length: 5",
        "content-length: 5\r\nContent-Length: 05",
        "content-length\t: 5",
        "content-length\0: 5",
        "content_length: 5",
        "content length: 5",
        "content-length;: 5",
        "x: y\ncontent-length: 5",
        "x: y\rcontent-length: 5",
        "x: y\r\n content-length: 5",
        "content-length:\r\n 5",
        "content-length: 5\r\n 6",
        "content-length: 184467440737095516165",
        "content-length: 9223372036854775808",
        "content-length: 4294967301",
    ]
    .into_iter()
    .map(|length| named("a length", length, post(length, &format!("hello{HIDDEN}"))))
    .collect()
}

/// A length and a coding that only some see.
fn both() -> Table {
    let mut table: Table = [
        "content-length: 6\r\ntransfer-encoding:\tchunked",
        "content-length: 6\r\ntransfer_encoding: chunked",
        "content-length: 6\r\ntransfer-encoding: chunked\r\nconnection: content-length",
        "content-length: 6\r\nx: y\r\n transfer-encoding: chunked",
        "content-length: 6\r\nx: y\rtransfer-encoding: chunked",
        "content-length: 6\r\ntransfer-encoding : chunked",
        "content_length: 6\r\ntransfer-encoding: chunked",
        "transfer-encoding: identity\r\ncontent-length: 6",
    ]
    .into_iter()
    .map(|fields| named("both", fields, post(fields, &format!("0\r\n\r\nG{HIDDEN}"))))
    .collect();
    for method in ["GET", "HEAD", "OPTIONS", "DELETE", "TRACE"] {
        for (framing, body) in [
            (
                format!("content-length: {}\r\n", HIDDEN.len()),
                HIDDEN.to_owned(),
            ),
            (
                "transfer-encoding: chunked\r\n".into(),
                format!("0\r\n\r\n{HIDDEN}"),
            ),
        ] {
            let bytes = format!("{method} /api/t/ HTTP/1.1\r\nhost: test\r\n{framing}\r\n{body}");
            table.push((
                format!("{method} with a body, {framing:?}"),
                bytes.into_bytes(),
            ));
        }
    }
    table
}

fn chunks() -> Table {
    let hidden = HIDDEN;
    [
        format!("5\r\nhello\r\n0\r\n\r\n{hidden}"),
        format!("5;\r\nhello\r\n0\r\n\r\n{hidden}"),
        format!("5;a=b\r\nhello\r\n0\r\n\r\n{hidden}"),
        format!("5;a=\"b;c\"\r\nhello\r\n0\r\n\r\n{hidden}"),
        format!("5;a=\"b\\\"c\"\r\nhello\r\n0\r\n\r\n{hidden}"),
        format!("5;a=\"b\r\nhello\r\n0\r\n\r\n{hidden}"),
        format!("5 ;a\r\nhello\r\n0\r\n\r\n{hidden}"),
        format!("5\t\r\nhello\r\n0\r\n\r\n{hidden}"),
        format!("5;a\u{e4}\r\nhello\r\n0\r\n\r\n{hidden}"),
        format!("5;a\rb\r\nhello\r\n0\r\n\r\n{hidden}"),
        format!("2;\nxx\r\n4d\r\n0\r\n\r\n{hidden}"),
        format!("5\r\r\nhello\r\n0\r\n\r\n{hidden}"),
        format!("5\n\r\nhello\r\n0\r\n\r\n{hidden}"),
        format!("5\r\nhello\n0\r\n\r\n{hidden}"),
        format!("5\r\nhello\r0\r\n\r\n{hidden}"),
        format!("5\r\nhelloX\n0\r\n\r\n{hidden}"),
        format!("5\r\nhello0\r\n\r\n{hidden}"),
        format!("5\r\nhello\r\n\r\n0\r\n\r\n{hidden}"),
        format!("00005\r\nhello\r\n0\r\n\r\n{hidden}"),
        format!("0000000000000000005\r\nhello\r\n0\r\n\r\n{hidden}"),
        format!("10000000000000005\r\nhello\r\n0\r\n\r\n{hidden}"),
        format!("100000005\r\nhello\r\n0\r\n\r\n{hidden}"),
        format!("-0\r\n\r\n{hidden}"),
        format!("0_5\r\nhello\r\n0\r\n\r\n{hidden}"),
        format!("5h\r\nhello\r\n0\r\n\r\n{hidden}"),
        format!("5,5\r\nhello\r\n0\r\n\r\n{hidden}"),
        format!("\r\n5\r\nhello\r\n0\r\n\r\n{hidden}"),
        format!("5\r\nhello\r\n0\r\n{hidden}"),
        format!("5\r\nhello\r\n0\n\n{hidden}"),
        format!("5\r\nhello\r\n0\r\n\n{hidden}"),
        format!("5\r\nhello\r\n0\r\nx: y\r\n\r\n{hidden}"),
        format!("5\r\nhello\r\n0\r\nx: y\n\r\n{hidden}"),
        format!("5\r\nhello\r\n0\r\nx: y\r\n z\r\n\r\n{hidden}"),
        format!("5\r\nhello\r\n0\r\n: y\r\n\r\n{hidden}"),
        format!("5\r\nhello\r\n0\r\ntransfer-encoding: chunked\r\n\r\n{hidden}"),
        format!("5\r\nhello\r\n0\r\ntransfer_encoding: chunked\r\n\r\n{hidden}"),
        format!("5\r\nhello\r\n0\r\nhost: other\r\n\r\n{hidden}"),
        format!("5\r\nhello\r\n0\r\nx\r\n\r\n{hidden}"),
    ]
    .into_iter()
    .map(|body| named("chunks", &body, post("transfer-encoding: chunked", &body)))
    .collect()
}

fn lines() -> Table {
    [
        "GET /api/t/ HTTP/1.1\r\nhost: test\r\n\r\n",
        "\r\nGET /api/t/ HTTP/1.1\r\nhost: test\r\n\r\n",
        "\r\n\r\nGET /api/t/ HTTP/1.1\r\nhost: test\r\n\r\n",
        "\nGET /api/t/ HTTP/1.1\r\nhost: test\r\n\r\n",
        "\rGET /api/t/ HTTP/1.1\r\nhost: test\r\n\r\n",
        "\0GET /api/t/ HTTP/1.1\r\nhost: test\r\n\r\n",
        "GET /api/t/\r\n\r\n",
        "GET /api/t/ \r\nhost: test\r\n\r\n",
        "GET /api/t/ HTTP/1.1\r\r\nhost: test\r\n\r\n",
        "GET /api/t/ HTTP/1.1\n\r\nhost: test\r\n\r\n",
        "GET /api/t/ HTTP/1.1\r\n\nhost: test\r\n\r\n",
        "GET\x0b/api/t/ HTTP/1.1\r\nhost: test\r\n\r\n",
        "GET /api/t/\x0bHTTP/1.1\r\nhost: test\r\n\r\n",
        "GET /api/t/\tHTTP/1.1\r\nhost: test\r\n\r\n",
        "GET /api/t/  HTTP/1.1\r\nhost: test\r\n\r\n",
        "GET /api/t/ HTTP/1.1x\r\nhost: test\r\n\r\n",
        "GET /api/t/ HTTP/1.10\r\nhost: test\r\n\r\n",
        "GET /api/t/ HTTP/01.1\r\nhost: test\r\n\r\n",
        "GET /api/t/ HTTP/0.9\r\nhost: test\r\n\r\n",
        "GET /api/t/ HTTP/3.0\r\nhost: test\r\n\r\n",
        "GET /api/t/ HTTP 1.1\r\nhost: test\r\n\r\n",
        "GET /api/t/ FTP/1.1\r\nhost: test\r\n\r\n",
        "get /api/t/ HTTP/1.1\r\nhost: test\r\n\r\n",
        "G\u{e4}T /api/t/ HTTP/1.1\r\nhost: test\r\n\r\n",
        " /api/t/ HTTP/1.1\r\nhost: test\r\n\r\n",
        "GET /api/t/\u{e4} HTTP/1.1\r\nhost: test\r\n\r\n",
        "GET /api/t/?\u{e4} HTTP/1.1\r\nhost: test\r\n\r\n",
        "GET /api/t/?a\0b HTTP/1.1\r\nhost: test\r\n\r\n",
        "GET /api/t/?a#b HTTP/1.1\r\nhost: test\r\n\r\n",
        "GET /api/t/?a\\b HTTP/1.1\r\nhost: test\r\n\r\n",
        "GET /api/t/{}|^`<> HTTP/1.1\r\nhost: test\r\n\r\n",
        "GET /api/t/%0d%0ax:%20y HTTP/1.1\r\nhost: test\r\n\r\n",
        "GET /api/t/x HTTP/1.1\r\nhost: test\r\n\r\nGET /api/t/y HTTP/1.1\r\nhost: test\r\n\r\n",
        "GET http://test/api/t/ HTTP/1.1\r\nhost: other\r\n\r\n",
        "GET HTTP://test/api/t/ HTTP/1.1\r\nhost: test\r\n\r\n",
        "GET https://test/api/t/ HTTP/1.1\r\nhost: test\r\n\r\n",
        "GET http://test:80/api/t/ HTTP/1.1\r\nhost: test\r\n\r\n",
        "GET http://test:x/api/t/ HTTP/1.1\r\nhost: test\r\n\r\n",
        "GET http:/api/t/ HTTP/1.1\r\nhost: test\r\n\r\n",
        "GET http://test?/api/t/ HTTP/1.1\r\nhost: test\r\n\r\n",
        "GET //test/api/t/ HTTP/1.1\r\nhost: test\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nhost: test\r\n\r\n",
        "OPTIONS http://test HTTP/1.1\r\nhost: test\r\n\r\n",
        "PRI * HTTP/1.1\r\nhost: test\r\n\r\n",
        "GET /api/t/ HTTP/1.1\r\nhost: test",
        "GET /api/t/ HT",
    ]
    .into_iter()
    .map(|text| named("lines", text, text.into()))
    .collect()
}

fn names() -> Table {
    [
        "a: b\r\nc",
        "a: b\r\n: c",
        "a: b\r\n\x0bc: d",
        "a(b): c",
        "a/b: c",
        "a=b: c",
        "\"a\": b",
        "a\u{e4}: b",
        "a:\x01b",
        "a: \x7f",
        "a: b\x1fc",
        "a: \u{80}\u{ff}",
        "a: b\r\na: c",
        "a: b:c: d",
        "a::b",
        "a:\t\tb",
        "a: b \t ",
        "expect: 100-continue",
        "expect: 200-ok",
        "cookie: a=b\r\ncookie: c=d",
        "hydrant-caller: operator",
        "hydrant_caller: operator",
        "hydrant-unsent: refused",
        "x-forwarded-for: 6.6.6.6",
        "x_forwarded_for: 6.6.6.6",
        "x-forwarded-prefix: /x",
        "content-type: a\r\ncontent-type: b",
    ]
    .into_iter()
    .map(|fields| named("a field", fields, get(fields)))
    .collect()
}

fn hosts() -> Table {
    [
        "",
        "host:",
        "host: a",
        "host: a:80",
        "host: a:",
        "host: :80",
        "host: a:b",
        "host: a:80:90",
        "host: [::1]",
        "host: [::1]:80",
        "host: [::1",
        "host: ::1",
        "host: [a]b",
        "host: a%41",
        "host: a%zz",
        "host: a\\b",
        "host: a?b",
        "host: a#b",
        "host: a,b",
        "host: a;b",
        "host: a\tb",
        "host: \u{e4}",
        "host: a\r\nhost:",
        "host : a",
        "host\t: a",
        " host: a",
        "x: y\r\nhost: a",
        "host: a\r\nconnection: host",
    ]
    .into_iter()
    .map(|fields| {
        let end = if fields.is_empty() { "" } else { "\r\n" };
        let text = format!("GET /api/t/ HTTP/1.1\r\n{fields}{end}\r\n");
        named("hosts", fields, text.into_bytes())
    })
    .collect()
}

fn connections() -> Table {
    let mut table: Table = [
        "connection: close",
        "connection: Close, x",
        "connection: x, close\r\nx: y",
        "connection: keep-alive, close",
        "connection: close\r\nconnection: keep-alive",
        "connection: transfer-encoding",
        "connection: x-forwarded-for, hydrant-caller, traceparent",
        "connection: ,,,",
        "connection: \"close\"",
        "connection:",
        "connection: upgrade\r\nupgrade: websocket",
        "connection: upgrade\r\nupgrade: websocket\r\ncontent-length: 3",
        "connection: upgrade\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAARAAAAAAAIAAAAA",
        "connection: upgrade\r\nupgrade: TLS/1.0",
        "upgrade: websocket",
        "proxy-connection: close",
        "keep-alive: timeout=1",
        "connection: authorization\r\nauthorization: x",
    ]
    .into_iter()
    .map(|fields| named("connection", fields, get(fields)))
    .collect();
    for fields in [
        "",
        "connection: keep-alive\r\n",
        "host: a\r\nhost: b\r\n",
        "content-length: 5\r\n",
    ] {
        let text = format!("POST /api/t/ HTTP/1.0\r\n{fields}\r\nhello");
        table.push(named("HTTP/1.0", fields, text.into_bytes()));
    }
    table
}

fn pipelines() -> Table {
    let ten: String = (0..10)
        .map(|at| format!("GET /api/t/{at} HTTP/1.1\r\nhost: a\r\n\r\n"))
        .collect();
    let post =
        |at: u8| format!("POST /api/t/{at} HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello");
    let bad = "GET /api/t/ HTTP/1.1\r\nhost: a\r\na b: c\r\n\r\n";
    let missing = "GET /api/none/ HTTP/1.1\r\nhost: a\r\n\r\n";
    let refused = "POST /api/none/ HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello";
    [
        ("ten in a row", ten.clone()),
        (
            "bodies in a row",
            format!("{}{}{}", post(1), post(2), post(3)),
        ),
        (
            "a bad one behind a good one",
            format!("{}{bad}{ten}", post(1)),
        ),
        (
            "a good one behind one that is refused",
            format!("{missing}{ten}"),
        ),
        (
            "a body behind a head that is refused",
            format!("{refused}{}", post(2)),
        ),
        (
            "more body than was told",
            format!("{}world{}", post(1), post(2)),
        ),
        ("empty lines between", format!("{}\r\n{}", post(1), post(2))),
        (
            "many empty lines between",
            format!("{}\r\n\r\n\r\n{}", post(1), post(2)),
        ),
        (
            "HEAD, then GET",
            format!("HEAD /api/t/ HTTP/1.1\r\nhost: a\r\n\r\n{ten}"),
        ),
        (
            "a length that never comes",
            "POST /api/t/ HTTP/1.1\r\nhost: a\r\ncontent-length: 900\r\n\r\nhello".into(),
        ),
        (
            "chunks that never end",
            "POST /api/t/ HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhel".into(),
        ),
    ]
    .into_iter()
    .map(|(name, text)| (name.to_owned(), text.into_bytes()))
    .collect()
}
