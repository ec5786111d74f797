//! A request as RFC 9112 reads it, and as nothing else does: written from the grammar, apart from the
//! router's own code.

/// How the length of a body was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    Length(usize),
    Chunked,
}

/// A request as some reader understands it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub method: String,
    pub target: String,
    /// Names in lower case, values without the white space around them.
    pub fields: Vec<(String, Vec<u8>)>,
    pub framing: Framing,
    pub body: Vec<u8>,
    pub http11: bool,
    /// How many bytes it has.
    pub len: usize,
}

/// What a reader makes of bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reading {
    Request(Box<Request>),
    /// More must come before anything can be said.
    Incomplete,
    Malformed(&'static str),
}

impl Request {
    pub fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        let all = self.fields.iter();
        all.filter(move |(found, _)| found == name)
            .map(|(_, value)| &value[..])
    }

    /// The options of `connection`, in lower case.
    pub fn options(&self) -> Vec<String> {
        let values = self.values("connection");
        let text: Vec<_> = values.map(String::from_utf8_lossy).collect();
        let options = text.iter().flat_map(|value| value.split(','));
        options
            .map(|option| option.trim().to_ascii_lowercase())
            .collect()
    }

    /// Nothing that follows on its connection is a request.
    pub fn is_last(&self) -> bool {
        let options = self.options();
        let has = |option: &str| options.iter().any(|found| found == option);
        has("close") || (!self.http11 && !has("keep-alive"))
    }

    /// Path and query, also of an absolute target.
    pub fn path(&self) -> &str {
        match self.target.find("://") {
            Some(at) if !self.target.starts_with('/') => {
                let rest = &self.target[at + 3..];
                rest.find('/').map_or("/", |slash| &rest[slash..])
            }
            _ => &self.target,
        }
    }

    /// The host that is addressed.
    pub fn host(&self) -> String {
        if let Some(at) = self
            .target
            .find("://")
            .filter(|_| !self.target.starts_with('/'))
        {
            let rest = &self.target[at + 3..];
            return rest[..rest.find('/').unwrap_or(rest.len())].to_owned();
        }
        let named = self.values("host").next().unwrap_or_default();
        String::from_utf8_lossy(named).into_owned()
    }
}

/// The requests of a connection in turn, and what is behind them; `None` when nothing is.
pub fn all(bytes: &[u8], read: impl Fn(&[u8]) -> Reading) -> (Vec<Request>, Option<Reading>) {
    let (mut requests, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        match read(&bytes[at..]) {
            Reading::Request(request) => {
                at += request.len;
                requests.push(*request);
            }
            other => return (requests, Some(other)),
        }
    }
    (requests, None)
}

/// The same for what a client has sent: an empty line may stand before a request, and nothing
/// counts behind the last one.
pub fn from_client(bytes: &[u8]) -> (Vec<Request>, Option<Reading>) {
    let (mut requests, mut at) = (Vec::<Request>::new(), 0);
    while at < bytes.len() && !requests.last().is_some_and(Request::is_last) {
        at += 2 * usize::from(bytes[at..].starts_with(b"\r\n"));
        match strict(&bytes[at..]) {
            Reading::Request(request) => {
                at += request.len;
                requests.push(*request);
            }
            other => return (requests, Some(other)),
        }
    }
    (requests, None)
}

type Step<T> = Result<T, Reading>;

fn malformed<T>(what: &'static str) -> Step<T> {
    Err(Reading::Malformed(what))
}

/// Reads the request at the beginning of `bytes`.
pub fn strict(bytes: &[u8]) -> Reading {
    let cursor = Cursor { bytes, at: 0 };
    match cursor.request() {
        Ok(request) => Reading::Request(Box::new(request)),
        Err(reading) => reading,
    }
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn request(mut self) -> Step<Request> {
        let (method, target, http11) = request_line(self.line()?)?;
        let fields = self.fields()?;
        let mut request = Request {
            method,
            target,
            fields,
            framing: Framing::Length(0),
            body: Vec::new(),
            http11,
            len: 0,
        };
        check_host(&request)?;
        request.framing = framing(&request)?;
        request.body = match request.framing {
            Framing::Length(length) => self.take(length)?.to_vec(),
            Framing::Chunked => self.chunks()?,
        };
        request.len = self.at;
        Ok(request)
    }

    /// Up to the next CR LF, and neither of them alone.
    fn line(&mut self) -> Step<&'a [u8]> {
        let rest = &self.bytes[self.at..];
        let end = rest.iter().position(|byte| matches!(byte, b'\r' | b'\n'));
        let end = end.ok_or(Reading::Incomplete)?;
        match (rest[end], rest.get(end + 1)) {
            (b'\r', Some(b'\n')) => {
                self.at += end + 2;
                Ok(&rest[..end])
            }
            (b'\r', None) => Err(Reading::Incomplete),
            _ => malformed("a carriage return or a line feed alone"),
        }
    }

    fn take(&mut self, count: usize) -> Step<&'a [u8]> {
        let rest = &self.bytes[self.at..];
        self.at += count.min(rest.len());
        rest.get(..count).ok_or(Reading::Incomplete)
    }

    fn fields(&mut self) -> Step<Vec<(String, Vec<u8>)>> {
        let mut fields = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok(fields);
            }
            fields.push(field(line)?);
        }
    }

    fn chunks(&mut self) -> Step<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let size = chunk_size(self.line()?)?;
            if size == 0 {
                self.fields()?;
                return Ok(body);
            }
            body.extend_from_slice(self.take(size)?);
            match self.take(2)? {
                b"\r\n" => {}
                _ => return malformed("a chunk is longer than its size"),
            }
        }
    }
}

fn is_token(text: &[u8]) -> bool {
    let is_one = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !text.is_empty() && text.iter().all(is_one)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn request_line(line: &[u8]) -> Step<(String, String, bool)> {
    let words: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    let [method, target, version] = words[..] else {
        return malformed("not two spaces in the first line");
    };
    let http11 = match version {
        b"HTTP/1.1" => true,
        b"HTTP/1.0" => false,
        _ => return malformed("another version"),
    };
    if !is_token(method) {
        return malformed("the method");
    }
    // Browsers write a query as it was typed.
    let query = target.iter().position(|byte| *byte == b'?');
    let is_visible = |(at, byte): (usize, &u8)| {
        matches!(byte, 0x21..=0x7e) || (*byte >= 0x80 && query.is_some_and(|query| at > query))
    };
    let is_path = target.starts_with(b"/") || (target == b"*" && method == b"OPTIONS");
    let lower = target.to_ascii_lowercase();
    let is_absolute = [&b"http://"[..], b"https://"].iter().any(|scheme| {
        let rest = lower.strip_prefix(*scheme);
        let host = rest.and_then(|rest| rest.split(|byte| *byte == b'/').next());
        host.is_some_and(|host| !host.is_empty() && is_authority(host))
    });
    if !(is_path || is_absolute) || !target.iter().enumerate().all(is_visible) {
        return malformed("the target");
    }
    Ok((text(method), text(target), http11))
}

fn field(line: &[u8]) -> Step<(String, Vec<u8>)> {
    let Some(colon) = line.iter().position(|byte| *byte == b':') else {
        return malformed("a field without a colon");
    };
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    let is_of_value = |byte: &u8| matches!(byte, b'\t' | 0x20..=0x7e | 0x80..);
    if !is_token(name) || !value.iter().all(is_of_value) {
        return malformed("a field's name or value");
    }
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\t');
    let begin = value.iter().position(|byte| !is_space(byte));
    let end = value.iter().rposition(|byte| !is_space(byte));
    let value = begin
        .zip(end)
        .map_or(&[][..], |(begin, end)| &value[begin..=end]);
    Ok((text(name).to_ascii_lowercase(), value.to_vec()))
}

fn check_host(request: &Request) -> Step<()> {
    let hosts: Vec<&[u8]> = request.values("host").collect();
    match (hosts.len(), request.http11) {
        (1, _) | (0, false) => {}
        _ => return malformed("not exactly one host"),
    }
    if hosts.iter().all(|host| is_authority(host)) {
        Ok(())
    } else {
        malformed("the host")
    }
}

/// `uri-host [ ":" port ]` of RFC 3986: a name, or an address in brackets.
pub fn is_authority(host: &[u8]) -> bool {
    let (name, port) = match host.iter().position(|byte| *byte == b']') {
        Some(end) => host.split_at(end + 1),
        None => host.split_at(
            host.iter()
                .position(|byte| *byte == b':')
                .unwrap_or(host.len()),
        ),
    };
    let is_port = match port {
        [] => true,
        [b':', digits @ ..] => digits.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    let is_name = match name {
        [b'[', inner @ .., b']'] => {
            !inner.is_empty()
                && inner
                    .iter()
                    .all(|byte| byte.is_ascii_hexdigit() || b":.".contains(byte))
        }
        _ => is_registered_name(name),
    };
    is_port && is_name
}

fn is_registered_name(name: &[u8]) -> bool {
    let mut rest = name;
    while let [byte, after @ ..] = rest {
        rest = match (byte, after) {
            (b'%', [high, low, after @ ..])
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                after
            }
            _ if byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(byte) => after,
            _ => return false,
        };
    }
    true
}

fn framing(request: &Request) -> Step<Framing> {
    let lengths: Vec<&[u8]> = request.values("content-length").collect();
    let codings: Vec<&[u8]> = request.values("transfer-encoding").collect();
    match (&lengths[..], &codings[..]) {
        ([], []) => Ok(Framing::Length(0)),
        ([length], []) => length_of(length),
        ([], [coding]) if request.http11 && coding.eq_ignore_ascii_case(b"chunked") => {
            Ok(Framing::Chunked)
        }
        _ => malformed("more than one framing, or one that nobody knows"),
    }
}

fn length_of(value: &[u8]) -> Step<Framing> {
    let is_number = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    let length = text(value).parse().ok().filter(|_| is_number);
    length.map_or_else(
        || malformed("the length"),
        |length| Ok(Framing::Length(length)),
    )
}

fn chunk_size(line: &[u8]) -> Step<usize> {
    let digits = line
        .iter()
        .take_while(|byte| byte.is_ascii_hexdigit())
        .count();
    let (size, extension) = line.split_at(digits);
    let Ok(size) = usize::from_str_radix(&text(size), 16) else {
        return malformed("a chunk's size");
    };
    let is_printable = |byte: &u8| matches!(byte, b'\t' | 0x20..=0x7e);
    let is_extension = match extension {
        [] => true,
        [b';', rest @ ..] => {
            let name = rest.iter().find(|byte| !matches!(byte, b' ' | b'\t'));
            name.is_some_and(|byte| is_token(&[*byte])) && rest.iter().all(is_printable)
        }
        _ => false,
    };
    if is_extension {
        Ok(size)
    } else {
        malformed("a chunk's extension")
    }
}
