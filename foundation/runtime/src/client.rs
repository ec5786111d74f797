//! Whose work this is, as the client says: its store, its user and its session, from hop to hop and on
//! every line that is logged meanwhile.

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

use sha2::{Digest as _, Sha256};

use crate::Redaction;

/// The variable that names the headers: `X-Store-Id,X-User-Id,X-Session-Id`.
pub const CONTEXT: &str = "HYDRANT_CONTEXT";

/// The headers when nothing else is said.
const USUAL: &str = "X-Store-Id,X-User-Id,X-Session-Id";
/// How many headers there may be.
const MOST: usize = 8;
/// The longest name of a header, in bytes.
const LONGEST_NAME: usize = 40;
/// The longest value that stands as it came, in bytes.
const LONGEST: usize = 128;
/// The longest value that is looked at.
const LONGEST_READ: usize = 4096;

/// Names that have another meaning, in requests or on lines.
const TAKEN: &[&str] = &[
    "accept",
    "authorization",
    "connection",
    "cookie",
    "correlation-id",
    "host",
    "te",
    "trailer",
    "traceparent",
    "upgrade",
    "idempotency-key",
    "level",
    "message",
    "target",
    "time",
    "caller",
    "trace-id",
    "transfer-encoding",
];

/// The headers of a client that tell whose work it is, and the fields that they become on lines:
/// `X-Store-Id` becomes `store_id`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientHeaders(Vec<ClientHeader>);

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientHeader {
    /// In lower case, as `x-store-id`.
    pub header: String,
    /// As `store_id`.
    pub field: String,
}

/// A list of headers that can't be used, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidHeaders(String);

impl Default for ClientHeaders {
    fn default() -> Self {
        USUAL.parse().expect("our own headers are good")
    }
}

impl ClientHeaders {
    /// The headers of this process: those of [`ClientHeaders::share`], else those that its environment
    /// names, else the usual ones.
    pub fn shared() -> &'static Self {
        SHARED.get_or_init(Self::from_env)
    }

    /// Makes these the headers of this process. Without effect once they have been asked for.
    pub fn share(self) {
        let _ = SHARED.set(self);
    }

    fn from_env() -> Self {
        let Ok(text) = std::env::var(CONTEXT) else {
            return Self::default();
        };
        text.parse().unwrap_or_else(|error| {
            eprintln!("hydrant: {CONTEXT} is left out: {error}");
            Self::default()
        })
    }

    /// The headers, in order.
    pub fn iter(&self) -> impl Iterator<Item = &ClientHeader> {
        self.0.iter()
    }
}

static SHARED: OnceLock<ClientHeaders> = OnceLock::new();

impl fmt::Display for ClientHeaders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.0.iter().map(|one| one.header.as_str()).collect();
        f.write_str(&names.join(","))
    }
}

impl FromStr for ClientHeaders {
    type Err = InvalidHeaders;

    /// Names of headers with commas between them; nothing for none.
    fn from_str(text: &str) -> Result<Self, InvalidHeaders> {
        let names = text
            .split(',')
            .map(str::trim)
            .filter(|name| !name.is_empty());
        let headers = names.map(header).collect::<Result<Vec<_>, _>>()?;
        if headers.len() > MOST {
            return Err(InvalidHeaders(format!("there are at most {MOST} headers")));
        }
        for (at, one) in headers.iter().enumerate() {
            if let Some(other) = headers[..at].iter().find(|other| other.field == one.field) {
                let (one, other, field) = (&one.header, &other.header, &one.field);
                return Err(InvalidHeaders(format!(
                    "`{other}` and `{one}` would both be the field `{field}`"
                )));
            }
        }
        Ok(Self(headers))
    }
}

fn header(name: &str) -> Result<ClientHeader, InvalidHeaders> {
    let header = name.to_ascii_lowercase();
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    let shown = name.escape_debug();
    if !header.bytes().all(is_good) || header.starts_with('-') || header.len() > LONGEST_NAME {
        return Err(InvalidHeaders(format!(
            "`{shown}` is no name of a header: write up to {LONGEST_NAME} letters, digits and dashes, as \
             X-Store-Id"
        )));
    }
    let plain = header.strip_prefix("x-").unwrap_or(&header);
    let other_use = [
        "hydrant-", "content-", "if-", "grpc-", "connect-", "tus-", "upload-",
    ];
    if plain.is_empty()
        || TAKEN.contains(&plain)
        || other_use.iter().any(|begin| header.starts_with(begin))
    {
        return Err(InvalidHeaders(format!(
            "`{shown}` has another meaning; name another"
        )));
    }
    if Redaction::default().is_secret_name(&header) {
        return Err(InvalidHeaders(format!(
            "`{shown}` is the name of a secret; name another"
        )));
    }
    let field = plain.replace('-', "_");
    Ok(ClientHeader { header, field })
}

/// What a client says of itself. A value of 1 to 128 letters, digits and `-_.:` stands as it came, any
/// other one, and what looks like a secret or a person's address, as a hash: the same for the same value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Client(Vec<(&'static ClientHeader, String)>);

impl Client {
    /// What the headers of a request say; `header` gives the value of one.
    pub fn read<'a>(header: impl Fn(&str) -> Option<&'a [u8]>) -> Self {
        let headers = ClientHeaders::shared().iter();
        let values = headers.filter_map(|one| Some((one, clean(header(&one.header)?)?)));
        Self(values.collect())
    }

    /// The value of a field, as `store_id`.
    pub fn get(&self, field: &str) -> Option<&str> {
        let mut values = self.0.iter();
        let found = values.find(|(header, _)| header.field == field);
        found.map(|(_, value)| value.as_str())
    }

    /// The headers with their values, to be sent on.
    pub fn headers(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let pairs = self.0.iter();
        pairs.map(|(one, value)| (one.header.as_str(), value.as_str()))
    }

    /// Whether the client said nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// `store_id=17 user_id=bob`: no value has a space or a `=`.
impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (header, value)) in self.0.iter().enumerate() {
            let space = if at == 0 { "" } else { " " };
            write!(f, "{space}{}={value}", header.field)?;
        }
        Ok(())
    }
}

/// Takes apart what [`Client`] shows: the fields with their values. What is no field of a client is left out.
pub(crate) fn fields(shown: &str) -> impl Iterator<Item = (&'static str, &str)> {
    shown.split(' ').filter_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        let mut headers = ClientHeaders::shared().iter();
        let header = headers.find(|header| header.field == name)?;
        Some((header.field.as_str(), value))
    })
}

fn clean(value: &[u8]) -> Option<String> {
    let value = value.trim_ascii();
    if value.is_empty() || value.len() > LONGEST_READ {
        return None;
    }
    let text = str::from_utf8(value).ok().filter(|_| is_plain(value));
    match text {
        Some(text) if Redaction::shared().text(text) == text => Some(text.to_owned()),
        // So few digits that all of them could be tried.
        Some(text) if text.bytes().filter(u8::is_ascii_digit).count() * 2 > text.len() => {
            Some("redacted".into())
        }
        _ => Some(hash(value)),
    }
}

fn is_plain(value: &[u8]) -> bool {
    let is_good = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:~".contains(byte);
    value.len() <= LONGEST && value.iter().all(is_good)
}

/// `~` and 16 hexadecimal digits.
fn hash(value: &[u8]) -> String {
    let digest = Sha256::digest(value);
    let digits = digest[..8].iter().map(|byte| format!("{byte:02x}"));
    format!("~{}", digits.collect::<String>())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(value: &'static str) -> Option<String> {
        let client = Client::read(|name| (name == "x-store-id").then_some(value.as_bytes()));
        client.get("store_id").map(str::to_owned)
    }

    #[test]
    fn plain_values_stand_as_they_came_and_others_as_hashes() {
        assert_eq!(read(" 0017-a.b:c "), Some("0017-a.b:c".into()));
        assert_eq!(read(""), None);
        // printf %s bob@example.com | sha256sum
        assert_eq!(read("bob@example.com"), Some("~5ff860bf1190596c".into()));
        assert_eq!(read("~5ff860bf1190596c"), Some("~5ff860bf1190596c".into()));
        assert_eq!(read("a b=c\n{}").unwrap().len(), 17);
        assert_eq!(read("hyk_0123456789abcdef").unwrap().len(), 17);
        assert_eq!(read("078-05-1120"), Some("redacted".into()));
        assert_eq!(read("4111111111111111"), Some("redacted".into()));
        assert_eq!(read("größe").unwrap().len(), 17);
    }

    #[test]
    fn headers_become_fields() {
        let headers: ClientHeaders = "X-Store-Id, Till".parse().unwrap();
        let fields: Vec<_> = headers.iter().map(|one| one.field.as_str()).collect();
        assert_eq!(fields, ["store_id", "till"]);
        assert_eq!(headers.to_string().parse(), Ok(headers));
        assert_eq!("".parse::<ClientHeaders>().unwrap().iter().count(), 0);
        for (text, part) in [
            ("X Store", "is no name of a header"),
            ("Authorization", "another meaning"),
            ("X-Level", "another meaning"),
            ("hydrant-caller", "another meaning"),
            ("X-Api-Key", "name of a secret"),
            ("X-Store,store", "both be the field `store`"),
            ("a,b,c,d,e,f,g,h,i", "at most 8"),
        ] {
            let error = text.parse::<ClientHeaders>().unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_can_be_taken_apart(value in any::<Vec<u8>>()) {
            let client = Client::read(|name| (name == "x-user-id").then_some(value.as_slice()));
            let shown = client.to_string();
            let back: Vec<_> = fields(&shown).collect();
            let had: Vec<_> = client.get("user_id").map(|value| ("user_id", value)).into_iter().collect();
            prop_assert_eq!(back, had);
        }
    }
}
