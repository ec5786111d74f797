//! Heads of answers: read as strictly as those of requests, for an instance may be hostile too.

use hydrant_contracts::header;
use hydrant_contracts::rules::HeaderChanges;

use super::body::Framing;
use super::forward::write_changes;
use super::head::{
    FieldSet, Fields, HeadError, MAX_HEAD, check_line_ends, is_connection, is_framing, list,
    parse_length, refusal_of,
};
use crate::refusal::Verdict;

/// The head of an answer; all text lies in the buffer that it was read from.
#[derive(Debug)]
pub struct ResponseHead<'a> {
    /// How many bytes it has, with the empty line.
    pub len: usize,
    /// 100 to 999.
    pub status: u16,
    /// How its body is framed.
    pub framing: Framing,
    /// The instance keeps the connection open afterwards.
    pub keep_alive: bool,
    /// For how many seconds it does, when it says so.
    pub keep_alive_seconds: Option<u64>,
    /// The protocol that it changes to, or asks for.
    pub upgrade: Option<&'a [u8]>,
    /// Another node says that it has a connection to the instance.
    pub(crate) reached: bool,
    /// What another node says of the instance, when the answer is its own.
    pub(crate) verdict: Option<Verdict>,
    location: Option<usize>,
    coding: Option<usize>,
    fields: &'a [httparse::Header<'a>],
    dropped: FieldSet,
}

/// What an answer looks like on its way to the client.
#[derive(Clone, Copy, Debug, Default)]
pub struct Onward<'a> {
    /// The client speaks HTTP/1.1; chunks are only for such a one.
    pub http11: bool,
    /// The connection is closed after the answer.
    pub close: bool,
    /// What was cut off the request's path, and is put back before a `location`.
    pub cut: &'a [u8],
    /// What a rule changes.
    pub changes: Option<&'a HeaderChanges>,
}

/// Reads the head at the beginning of `bytes`; `None` when it is not complete yet. The answer to
/// HEAD has no body, whatever its head says.
pub fn parse_response<'a>(
    bytes: &'a [u8],
    room: &'a mut Fields<'a>,
    to_head: bool,
) -> Result<Option<ResponseHead<'a>>, HeadError> {
    let mut response = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let len = match config.parse_response_with_uninit_headers(&mut response, bytes, room) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) if bytes.len() > MAX_HEAD => return Err(HeadError::TooLarge),
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return Err(refusal_of(error)),
    };
    check_line_ends(&bytes[..len])?;
    let http11 = response.version == Some(1);
    let status = response.code.unwrap_or_default();
    if status < 100 || !bytes.starts_with(b"HTTP/1.") {
        return Err(HeadError::Malformed("the status line is malformed"));
    }
    let mut head = ResponseHead {
        len,
        status,
        framing: Framing::UntilClose,
        keep_alive: http11,
        keep_alive_seconds: None,
        upgrade: None,
        reached: false,
        verdict: None,
        location: None,
        coding: None,
        fields: response.headers,
        dropped: FieldSet::default(),
    };
    let length = head.read_fields(http11)?;
    head.settle_framing(length, to_head);
    Ok(Some(head))
}

impl<'a> ResponseHead<'a> {
    /// Whether another answer to the same request follows.
    pub fn is_interim(&self) -> bool {
        self.status < 200 && self.status != 101
    }

    fn read_fields(&mut self, http11: bool) -> Result<Option<u64>, HeadError> {
        let mut length = None;
        let (mut named, mut closes) = (false, false);
        let (mut unsent, mut broken) = (None, None);
        for (index, field) in self.fields.iter().enumerate() {
            let is = |other: &str| field.name.eq_ignore_ascii_case(other);
            match field.name.len() {
                2 if is("te") => self.dropped.insert(index),
                7 if is("upgrade") => {
                    self.dropped.insert(index);
                    self.upgrade = Some(field.value);
                }
                8 if is("location") => self.location = Some(index),
                10 if is("connection") => {
                    self.dropped.insert(index);
                    named |= self.read_connection(field.value, &mut closes);
                }
                10 if is("keep-alive") => {
                    self.dropped.insert(index);
                    self.keep_alive_seconds = keep_alive_seconds(field.value);
                }
                // From an instance these say nothing, and from a node they are for us alone.
                10 if is(header::TO) => {
                    self.dropped.insert(index);
                    self.reached = true;
                }
                14 if is(header::UNSENT) => {
                    self.dropped.insert(index);
                    unsent = Some(field.value);
                }
                14 if is(header::BROKEN) => {
                    self.dropped.insert(index);
                    broken = Some(field.value);
                }
                14 if is("content-length") => self.read_length(index, field.value, &mut length)?,
                16 if is("proxy-connection") => self.dropped.insert(index),
                17 if is("transfer-encoding") => self.read_coding(index, field.value, http11)?,
                _ => {}
            }
        }
        self.verdict = Verdict::parse(unsent, broken);
        self.keep_alive &= !closes;
        if named {
            self.drop_named()?;
        }
        if self.coding.is_some() && length.is_some() {
            return Err(HeadError::Malformed(
                "there is a content-length and a transfer-encoding",
            ));
        }
        Ok(length)
    }

    /// Tells whether it names other fields.
    fn read_connection(&mut self, value: &[u8], closes: &mut bool) -> bool {
        let mut named = false;
        for option in list(value) {
            if option.eq_ignore_ascii_case(b"close") {
                *closes = true;
            } else if option.eq_ignore_ascii_case(b"keep-alive") {
                self.keep_alive = true;
            } else if !option.eq_ignore_ascii_case(b"upgrade") {
                named = true;
            }
        }
        named
    }

    /// The same length told twice is taken once; two lengths are an attack or a broken instance.
    fn read_length(
        &mut self,
        index: usize,
        value: &[u8],
        length: &mut Option<u64>,
    ) -> Result<(), HeadError> {
        let told = parse_length(value).ok_or(HeadError::Malformed(
            "content-length is not a decimal number",
        ))?;
        match length.replace(told) {
            Some(before) if before != told => {
                return Err(HeadError::Malformed("there are two content-lengths"));
            }
            Some(_) => self.dropped.insert(index),
            None => {}
        }
        Ok(())
    }

    fn read_coding(&mut self, index: usize, value: &[u8], http11: bool) -> Result<(), HeadError> {
        if !http11 || self.coding.is_some() || !value.eq_ignore_ascii_case(b"chunked") {
            return Err(HeadError::Malformed(
                "transfer-encoding is not exactly `chunked`",
            ));
        }
        self.coding = Some(index);
        Ok(())
    }

    fn drop_named(&mut self) -> Result<(), HeadError> {
        let connections = self.fields.iter().filter(|field| is_connection(field));
        for option in connections.flat_map(|field| list(field.value)) {
            if is_framing(option) {
                return Err(HeadError::Malformed(
                    "connection names a field that frames the answer",
                ));
            }
            for (index, field) in self.fields.iter().enumerate() {
                if field.name.as_bytes().eq_ignore_ascii_case(option) {
                    self.dropped.insert(index);
                }
            }
        }
        Ok(())
    }

    fn settle_framing(&mut self, length: Option<u64>, to_head: bool) {
        let bodiless = to_head || self.status < 200 || matches!(self.status, 204 | 304);
        self.framing = match length {
            _ if bodiless => Framing::Empty,
            _ if self.coding.is_some() => Framing::Chunked,
            Some(0) => Framing::Empty,
            Some(length) => Framing::Length(length),
            None => Framing::UntilClose,
        };
        if self.status < 200 || self.status == 204 {
            // Such answers must not have these fields; a client could wait for the body.
            for (index, field) in self.fields.iter().enumerate() {
                if is_framing(field.name.as_bytes()) {
                    self.dropped.insert(index);
                }
            }
        }
        self.keep_alive &= self.framing != Framing::UntilClose;
    }

    /// Appends the head as the client gets it. `bytes` is what it was parsed from.
    pub fn write(&self, bytes: &[u8], onward: Onward<'_>, out: &mut Vec<u8>) {
        let mut dropped = self.dropped;
        let relocated = self.location.filter(|index| {
            let target = self.fields[*index].value;
            !onward.cut.is_empty()
                && (self.status == 201 || (300..400).contains(&self.status))
                && target.starts_with(b"/")
                && !target.starts_with(b"//")
        });
        let unchunked = self.coding.filter(|_| !onward.http11);
        for index in relocated.into_iter().chain(unchunked) {
            dropped.insert(index);
        }
        if let Some(changes) = onward.changes {
            for (index, field) in self.fields.iter().enumerate() {
                if changes.takes_off(field.name.as_bytes()) {
                    dropped.insert(index);
                }
            }
        }
        out.reserve(self.len + 128);
        let line_end = memchr::memchr(b'\n', bytes).map_or(0, |at| at + 1);
        out.extend_from_slice(b"HTTP/1.1");
        out.extend_from_slice(&bytes["HTTP/1.1".len()..line_end]);
        copy_fields(&bytes[..self.len], self.fields, dropped, out);
        if let Some(index) = relocated {
            out.extend_from_slice(b"location: ");
            out.extend_from_slice(onward.cut);
            out.extend_from_slice(self.fields[index].value);
            out.extend_from_slice(b"\r\n");
        }
        if let Some(changes) = onward.changes {
            write_changes(changes, out);
        }
        self.write_connection(onward, out);
        out.extend_from_slice(b"\r\n");
    }

    fn write_connection(&self, onward: Onward<'_>, out: &mut Vec<u8>) {
        if let Some(upgrade) = self.upgrade.filter(|_| matches!(self.status, 101 | 426)) {
            out.extend_from_slice(b"connection: upgrade\r\nupgrade: ");
            out.extend_from_slice(upgrade);
            out.extend_from_slice(b"\r\n");
        } else if self.is_interim() {
            // What follows decides about the connection.
        } else if onward.close {
            out.extend_from_slice(b"connection: close\r\n");
        } else if !onward.http11 {
            out.extend_from_slice(b"connection: keep-alive\r\n");
        }
    }
}

/// Of `keep-alive: timeout=5, max=100`.
fn keep_alive_seconds(value: &[u8]) -> Option<u64> {
    list(value).find_map(|item| parse_length(item.strip_prefix(b"timeout=")?))
}

/// Appends the fields that are not dropped; runs of them are copied as they stand.
pub(super) fn copy_fields(
    head: &[u8],
    fields: &[httparse::Header<'_>],
    dropped: FieldSet,
    out: &mut Vec<u8>,
) {
    let place =
        |field: &httparse::Header<'_>| field.name.as_ptr() as usize - head.as_ptr() as usize;
    let end = head.len() - "\r\n".len();
    let mut run = None;
    for (index, field) in fields.iter().enumerate() {
        if !dropped.contains(index) {
            run.get_or_insert_with(|| place(field));
        } else if let Some(start) = run.take() {
            out.extend_from_slice(&head[start..place(field)]);
        }
    }
    if let Some(start) = run {
        out.extend_from_slice(&head[start..end]);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::http1::head::fields;

    fn rewritten(text: &str, onward: Onward<'_>) -> Result<(String, Framing, bool), HeadError> {
        let mut room = fields();
        let head = parse_response(text.as_bytes(), &mut room, false)?.expect("a complete head");
        let mut out = Vec::new();
        head.write(text.as_bytes(), onward, &mut out);
        Ok((
            String::from_utf8(out).unwrap(),
            head.framing,
            head.keep_alive,
        ))
    }

    const MODERN: Onward<'_> = Onward {
        http11: true,
        close: false,
        cut: b"",
        changes: None,
    };

    #[test]
    fn fields_of_one_hop_stay_behind() {
        let text = "HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Foo\r\nA: b\r\nX-Foo: 1\r\n\
                    Keep-Alive: timeout=5\r\nContent-Length: 3\r\n\r\nabc";
        let (out, framing, keep_alive) = rewritten(text, MODERN).unwrap();
        assert_eq!(out, "HTTP/1.1 200 OK\r\nA: b\r\nContent-Length: 3\r\n\r\n");
        assert_eq!((framing, keep_alive), (Framing::Length(3), true));
    }

    #[test]
    fn framing_follows_the_status_and_the_version() {
        let framing = |text: &str| {
            let mut room = fields();
            let head = parse_response(text.as_bytes(), &mut room, false);
            head.map(|head| head.unwrap())
                .map(|head| (head.framing, head.keep_alive))
        };
        assert_eq!(
            framing("HTTP/1.1 204 No\r\nContent-Length: 5\r\n\r\n"),
            Ok((Framing::Empty, true))
        );
        assert_eq!(
            framing("HTTP/1.1 304 No\r\nContent-Length: 5\r\n\r\n"),
            Ok((Framing::Empty, true))
        );
        assert_eq!(
            framing("HTTP/1.1 200 OK\r\n\r\n"),
            Ok((Framing::UntilClose, false))
        );
        assert_eq!(
            framing("HTTP/1.0 200 OK\r\n\r\n"),
            Ok((Framing::UntilClose, false))
        );
        assert_eq!(
            framing("HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\n"),
            Ok((Framing::Length(1), false))
        );
        assert_eq!(
            framing("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
            Ok((Framing::Chunked, true))
        );
        assert_eq!(
            framing("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n"),
            Ok((Framing::Length(1), true))
        );
        for closing in [
            "close\r\nConnection: keep-alive",
            "keep-alive, close",
            "keep-alive\r\nConnection: close",
        ] {
            let text =
                format!("HTTP/1.1 200 OK\r\nConnection: {closing}\r\nContent-Length: 1\r\n\r\n");
            assert_eq!(framing(&text), Ok((Framing::Length(1), false)), "{closing}");
        }
        for bad in [
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\nContent-Length: 1\n\n",
            "HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA : b\r\n\r\n",
            "HTTP/1.1 200 OK\r\nConnection: content-length\r\nContent-Length: 1\r\n\r\n",
            "HTTP/1.1 099 OK\r\n\r\n",
            "HTTP/2.0 200 OK\r\n\r\n",
        ] {
            assert!(framing(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_location_gets_back_what_was_cut() {
        let cut = Onward {
            cut: b"/api/files",
            ..MODERN
        };
        let location = |status: u16, target: &str| {
            let text =
                format!("HTTP/1.1 {status} X\r\nLocation: {target}\r\nContent-Length: 0\r\n\r\n");
            let (out, ..) = rewritten(&text, cut).unwrap();
            let line = out
                .lines()
                .find(|line| line.to_lowercase().starts_with("location"));
            line.unwrap().split_once(": ").unwrap().1.to_owned()
        };
        assert_eq!(location(302, "/new"), "/api/files/new");
        assert_eq!(location(201, "/new"), "/api/files/new");
        assert_eq!(location(200, "/new"), "/new");
        assert_eq!(location(302, "//host/new"), "//host/new");
        assert_eq!(location(302, "https://host/new"), "https://host/new");
        assert_eq!(location(302, "new"), "new");
    }

    #[test]
    fn an_old_client_gets_no_chunks() {
        let text = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nA: b\r\n\r\n";
        let old = Onward {
            http11: false,
            close: true,
            cut: b"",
            changes: None,
        };
        let (out, ..) = rewritten(text, old).unwrap();
        assert_eq!(out, "HTTP/1.1 200 OK\r\nA: b\r\nconnection: close\r\n\r\n");
    }

    proptest! {
        #[test]
        fn parsing_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut room = fields();
            let _ = parse_response(&bytes, &mut room, false);
        }
    }
}
