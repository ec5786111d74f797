use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hydrant_contracts::{Endpoint, Tier};
use hydrant_outbound::{Credentials, CredentialsTable, Header, HeaderText, SecretFile};
use hydrant_runtime::ByteSize;
use hydrant_runtime::config::{self, ConfigError};
use reqwest::Url;
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::sources::schema::Schema;

/// The variable that names the file with the definitions of the sources.
pub const SOURCES: &str = "HYDRANT_MOBILE_SOURCES";

/// Headers that the poller sets itself.
const OURS: [&str; 5] = [
    "content-type",
    "accept-encoding",
    "if-none-match",
    "if-modified-since",
    "hydrant-token",
];

/// The most sources that one file may define.
const MAX_SOURCES: usize = 64;
/// The shortest interval at which a source may be polled.
const MIN_INTERVAL: Duration = Duration::from_millis(100);
/// How long a source may take, when it does not say.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The longest time that a source may say.
const MAX_TIMEOUT: Duration = Duration::from_secs(60);
/// The largest value of a source, when it does not say.
const SIZE: ByteSize = ByteSize::new(256 * 1024);
/// The largest value that a source may say: with what is written around it, it fits into one value
/// of the shared state.
const MAX_SIZE: ByteSize = ByteSize::new(3 * 1024 * 1024);
/// The largest values of all sources together: every process of `api/mobile` keeps them in memory.
const MAX_TOTAL: ByteSize = ByteSize::new(64 * 1024 * 1024);
/// What stands in a URL for the address that clients use.
const PUBLIC_URL: &str = "${HYDRANT_PUBLIC_URL}";

/// The sources that one file defines.
#[derive(Clone, Debug)]
pub struct Sources(Vec<Source>);

/// A JSON document from somewhere else that is part of the answer.
#[derive(Clone, Debug)]
pub struct Source {
    /// Under which the value stands in the answer.
    pub(crate) name: String,
    /// Where the document is.
    pub(crate) location: Location,
    /// How often it is asked for.
    pub(crate) interval: Duration,
    /// How long one answer may take, from the first byte of the request to the last of the answer.
    pub(crate) timeout: Duration,
    /// The largest document, in bytes, as it is and unpacked.
    pub(crate) max_size: u64,
    /// Which part of the document is the value, as a JSON pointer; empty for the whole.
    pub(crate) pointer: String,
    /// What the value must be like.
    pub(crate) schema: Option<Arc<Schema>>,
    /// A mark of all that decides which value an answer gives.
    pub(crate) mark: String,
}

/// Where a document is.
#[derive(Clone, Debug)]
pub(crate) enum Location {
    /// A file of the server.
    File(PathBuf),
    /// An `http://` or `https://` URL.
    Url(Box<Remote>),
    /// Another service, through the node.
    Service(Box<Errand>),
}

/// A web server, and how to ask it.
#[derive(Clone, Debug)]
pub(crate) struct Remote {
    pub(crate) url: Url,
    /// Whom to trust; `None` for whom the system trusts.
    pub(crate) ca: Option<PathBuf>,
    pub(crate) headers: Vec<Header>,
    pub(crate) credentials: Option<Credentials>,
    pub(crate) allow_private_redirects: bool,
}

/// An endpoint of another service, and what to ask it.
#[derive(Clone, Debug)]
pub(crate) struct Errand {
    pub(crate) endpoint: Endpoint,
    /// The message for a Protobuf endpoint, as JSON; `None` asks plain HTTP with GET.
    pub(crate) request: Option<String>,
}

/// A file of definitions that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum SourcesError {
    /// It can't be read, or is not TOML of the right form.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// It says something that can't be.
    #[error("{}: {message}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong, and how to mend it.
        message: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    source: Vec<Definition>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Definition {
    name: String,
    file: Option<PathBuf>,
    url: Option<String>,
    service: Option<String>,
    request: Option<Value>,
    interval: hydrant_runtime::Duration,
    timeout: Option<hydrant_runtime::Duration>,
    max_size: Option<ByteSize>,
    #[serde(default)]
    pointer: String,
    schema: Option<PathBuf>,
    ca: Option<PathBuf>,
    #[serde(default)]
    headers: BTreeMap<String, HeaderText>,
    bearer: Option<SecretFile>,
    basic: Option<CredentialsTable>,
    #[serde(default)]
    allow_private_redirects: bool,
}

/// What surrounds a definition: the folder of its file, and the address that clients use.
struct Around<'a> {
    folder: &'a Path,
    public_url: Option<&'a str>,
}

impl Sources {
    /// Reads a file of definitions. Paths in it are relative to its folder; `public_url` replaces
    /// `${HYDRANT_PUBLIC_URL}` in URLs.
    ///
    /// # Errors
    ///
    /// If the file can't be read, or says something that can't be.
    pub fn load(path: &Path, public_url: Option<&str>) -> Result<Self, SourcesError> {
        Self::checked(config::load(path)?, path, public_url)
    }

    /// The same of a text, as if it stood in the file.
    pub(crate) fn parse(
        path: &Path,
        text: &str,
        public_url: Option<&str>,
    ) -> Result<Self, SourcesError> {
        Self::checked(config::parse(path, text)?, path, public_url)
    }

    fn checked(file: File, path: &Path, public_url: Option<&str>) -> Result<Self, SourcesError> {
        let folder = path.parent().unwrap_or(Path::new("."));
        let around = Around { folder, public_url };
        Self::check(file, &around).map_err(|message| SourcesError::Invalid {
            path: path.into(),
            message,
        })
    }

    fn check(file: File, around: &Around<'_>) -> Result<Self, String> {
        if file.source.len() > MAX_SOURCES {
            return Err(format!("it defines more than {MAX_SOURCES} sources"));
        }
        let sources = file
            .source
            .into_iter()
            .map(|definition| definition.check(around))
            .collect::<Result<Vec<_>, _>>()?;
        let mut names = HashSet::new();
        if let Some(twice) = sources.iter().find(|source| !names.insert(&source.name)) {
            return Err(format!("it defines `{}` twice", twice.name));
        }
        let total: u64 = sources.iter().map(|source| source.max_size).sum();
        if total > MAX_TOTAL.get() {
            return Err("the max_size of all sources together is above 64MB".into());
        }
        Ok(Self(sources))
    }

    /// The sources, in the order of the file.
    pub(crate) fn list(&self) -> &[Source] {
        &self.0
    }
}

impl Definition {
    fn check(mut self, around: &Around<'_>) -> Result<Source, String> {
        let name = std::mem::take(&mut self.name);
        if !is_name(&name) {
            return Err(format!(
                "the source `{}` has a name with other characters than a-z, A-Z, 0-9, '-' and '_', or none, or more than 63",
                name.escape_debug()
            ));
        }
        self.checked(&name, around)
            .map_err(|what| format!("the source `{name}` {what}"))
    }

    fn checked(self, name: &str, around: &Around<'_>) -> Result<Source, String> {
        let (interval, timeout, max_size) = self.limits()?;
        check_pointer(&self.pointer)?;
        let pointer = self.pointer.clone();
        let schema = match &self.schema {
            Some(path) => Some(Arc::new(Schema::load(&around.folder.join(path))?)),
            None => None,
        };
        let location = self.location(around)?;
        Ok(Source {
            name: name.to_owned(),
            mark: mark(&location, &pointer, schema.as_deref()),
            location,
            interval,
            timeout,
            max_size,
            pointer,
            schema,
        })
    }

    fn limits(&self) -> Result<(Duration, Duration, u64), String> {
        let interval = self.interval.get();
        if interval < MIN_INTERVAL {
            return Err("has an interval below 100ms".into());
        }
        let timeout = self.timeout.map_or(TIMEOUT, hydrant_runtime::Duration::get);
        if timeout.is_zero() || timeout > MAX_TIMEOUT {
            return Err("has a timeout of nothing, or above 1m".into());
        }
        let max_size = self.max_size.unwrap_or(SIZE);
        if max_size > MAX_SIZE {
            return Err("has a max_size above 3MB".into());
        }
        Ok((interval, timeout, max_size.get()))
    }

    fn location(self, around: &Around<'_>) -> Result<Location, String> {
        if self.url.is_none() {
            self.refuse_what_only_urls_have()?;
        }
        if self.service.is_none() && self.request.is_some() {
            return Err("has a `request`, which only a `service` takes".into());
        }
        match (&self.file, &self.url, &self.service) {
            (Some(file), None, None) => Ok(Location::File(around.folder.join(file))),
            (None, Some(_), None) => Ok(Location::Url(Box::new(self.remote(around)?))),
            (None, None, Some(_)) => Ok(Location::Service(Box::new(self.errand()?))),
            _ => Err("needs one of `file`, `url` and `service`".into()),
        }
    }

    fn refuse_what_only_urls_have(&self) -> Result<(), String> {
        let given = [
            ("headers", !self.headers.is_empty()),
            ("bearer", self.bearer.is_some()),
            ("basic", self.basic.is_some()),
            ("ca", self.ca.is_some()),
            ("allow_private_redirects", self.allow_private_redirects),
        ];
        match given.into_iter().find(|(_, given)| *given) {
            Some((key, _)) => Err(format!("has `{key}`, which only a `url` takes")),
            None => Ok(()),
        }
    }

    fn remote(self, around: &Around<'_>) -> Result<Remote, String> {
        let url = full_url(self.url.as_deref().unwrap_or_default(), around.public_url)?;
        if self.ca.is_some() && url.scheme() != "https" {
            return Err("has a `ca`, which only an https:// URL takes".into());
        }
        let headers = self
            .headers
            .into_iter()
            .map(|(name, text)| Header::checked(&name, text, &OURS, around.folder))
            .collect::<Result<_, _>>()?;
        let credentials = Credentials::checked(self.bearer, self.basic, around.folder)?;
        Ok(Remote {
            url,
            ca: self.ca.map(|ca| around.folder.join(ca)),
            headers,
            credentials,
            allow_private_redirects: self.allow_private_redirects,
        })
    }

    fn errand(self) -> Result<Errand, String> {
        let text = self.service.unwrap_or_default();
        let endpoint: Endpoint = format!("/{}", text.trim_start_matches('/'))
            .parse()
            .map_err(|error| format!("has a `service` that can't be: {error}"))?;
        if endpoint.path.is_empty() {
            return Err("has a `service` without a path; write service/catalog/v1/items".into());
        }
        let request = match (self.request, endpoint.method()) {
            (Some(Value::Object(request)), _) => Some(Value::Object(request).to_string()),
            (Some(_), _) => return Err("has a `request` that is no table".into()),
            (None, Some(_)) => Some("{}".into()),
            (None, None) => None,
        };
        Ok(Errand { endpoint, request })
    }
}

impl Errand {
    /// Whether the outside may call it, too: then nobody has to run the errand for the leader.
    pub(crate) fn is_open(&self) -> bool {
        self.endpoint.service.tier == Tier::Api
    }
}

pub(crate) fn is_name(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

/// RFC 6901: nothing, or parts that each begin with a slash.
fn check_pointer(pointer: &str) -> Result<(), String> {
    if pointer.is_empty() || pointer.starts_with('/') {
        return Ok(());
    }
    Err("has a `pointer` that does not begin with `/`; write /data/items".into())
}

fn full_url(text: &str, public_url: Option<&str>) -> Result<Url, String> {
    let text = match (text.strip_prefix(PUBLIC_URL), public_url) {
        (None, _) => text.to_owned(),
        (Some(path), Some(public_url)) => format!("{}{path}", public_url.trim_end_matches('/')),
        (Some(_), None) => return Err("needs HYDRANT_PUBLIC_URL, which is not set".into()),
    };
    if !text.starts_with("http://") && !text.starts_with("https://") {
        return Err("has a URL that does not begin with http:// or https://".into());
    }
    let mut url = Url::parse(&text).map_err(|_| "has a URL that can't be read")?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("has a password in its URL; write it into a file, and \
             basic = { user = \"NAME\", password = { file = \"FILE\" } }"
            .into());
    }
    url.set_fragment(None);
    Ok(url)
}

fn mark(location: &Location, pointer: &str, schema: Option<&Schema>) -> String {
    let place = match location {
        Location::File(path) => path.to_string_lossy().into_owned(),
        Location::Url(remote) => remote.url.to_string(),
        Location::Service(errand) => format!("{} {:?}", errand.endpoint, errand.request),
    };
    let mut hash = Sha256::new();
    for part in [place.as_str(), pointer, schema.map_or("", Schema::text)] {
        hash.update(part.len().to_le_bytes());
        hash.update(part);
    }
    let hash = hash.finalize();
    hash[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Sources, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sources.toml");
        std::fs::write(&path, text).unwrap();
        std::fs::write(folder.path().join("good.json"), r#"{"type": "object"}"#).unwrap();
        std::fs::write(folder.path().join("bad.json"), r#"{"type": 7}"#).unwrap();
        Sources::load(&path, Some("http://one:8080/")).map_err(|error| error.to_string())
    }

    #[test]
    fn definitions_become_sources() {
        let sources = read(
            r#"
            [[source]]
            name = "content"
            file = "content.json"
            interval = "2s"
            [[source]]
            name = "catalog"
            url = "${HYDRANT_PUBLIC_URL}/api/shop/catalog"
            interval = "5s"
            timeout = "500ms"
            max_size = "1KB"
            pointer = "/data/items"
            schema = "good.json"
            headers = { accept-language = "de", x-api-key = { file = "key" } }
            bearer = { file = "token" }
            [[source]]
            name = "stores"
            service = "service/stores/stores.v1.Stores/List"
            interval = "5s"
            request = { country = "DE" }
            "#,
        )
        .unwrap();
        let [content, catalog, stores] = sources.list() else {
            panic!("three sources")
        };
        let Location::File(file) = &content.location else {
            panic!("a file")
        };
        assert!(file.is_absolute(), "relative to the file of definitions");
        assert_eq!(content.timeout, TIMEOUT);
        let Location::Url(remote) = &catalog.location else {
            panic!("a URL")
        };
        assert_eq!(remote.url.as_str(), "http://one:8080/api/shop/catalog");
        assert_eq!((catalog.timeout.as_millis(), catalog.max_size), (500, 1024));
        let Location::Service(errand) = &stores.location else {
            panic!("a service")
        };
        assert_eq!(errand.request.as_deref(), Some(r#"{"country":"DE"}"#));
        assert_ne!(catalog.mark, content.mark);
    }

    #[test]
    fn mistakes_are_named() {
        let one = |rest: &str| format!("[[source]]\nname = \"a\"\ninterval = \"1s\"\n{rest}");
        let url = |rest: &str| one(&format!("url = \"https://b/\"\n{rest}"));
        for (text, part) in [
            (one(""), "one of `file`, `url` and `service`"),
            (one("file = \"a\"\nurl = \"http://b\""), "one of `file`"),
            (one("url = \"ftp://b\""), "https://"),
            (one("url = \"http://\""), "can't be read"),
            (one("url = \"http://u:p@b\""), "a password in its URL"),
            (one("file = \"a\"\nmax_size = \"4MB\""), "3MB"),
            (one("file = \"a\"\ntimeout = \"2m\""), "timeout"),
            (one("file = \"a\"\nretries = 3"), "unknown field"),
            (
                one("file = \"a\"\nbearer = { file = \"t\" }"),
                "only a `url`",
            ),
            (one("file = \"a\"\nrequest = {}"), "only a `service`"),
            (one("service = \"stores\""), "`service`"),
            (one("service = \"service/stores\""), "without a path"),
            (one("file = \"a\"").replace("1s", "1ms"), "100ms"),
            (url("pointer = \"data\""), "begin with `/`"),
            (url("schema = \"bad.json\""), "bad.json"),
            (url("schema = \"none.json\""), "none.json"),
            (url("headers = { authorization = \"Basic x\" }"), "file"),
            (url("headers = { host = \"b\" }"), "host"),
            (url("headers = { \"a b\" = \"b\" }"), "a b"),
            (
                url(
                    "bearer = { file = \"t\" }\nbasic = { user = \"u\", password = { file = \"p\" } }",
                ),
                "both",
            ),
            (
                one("url = \"http://b\"\nca = \"ca.pem\""),
                "only an https:// URL",
            ),
            (
                one("file = \"a\"").replace("\"a\"\ni", "\"a b\"\ni"),
                "characters",
            ),
            (format!("{0}\n{0}", one("file = \"a\"")), "twice"),
        ] {
            let error = read(&text).unwrap_err();
            assert!(error.contains(part), "{text}\n{error}");
        }
    }
}
