mod fetch;
mod poll;
pub(crate) mod snapshot;

pub(crate) use fetch::Fetcher;
pub(crate) use poll::Poller;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hydrant_runtime::ByteSize;
use hydrant_runtime::config::{self, ConfigError};
use serde::Deserialize;

/// The variable that names the file with the definitions of the sources.
pub const SOURCES: &str = "HYDRANT_MOBILE_SOURCES";

/// The most sources that one file may define.
const MAX_SOURCES: usize = 64;
/// The shortest interval at which a source may be polled.
const MIN_INTERVAL: Duration = Duration::from_millis(100);
/// How long a source may take, when it does not say.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The largest value of a source, when it does not say.
const SIZE: ByteSize = ByteSize::new(256 * 1024);
/// The largest value that a source may say.
const MAX_SIZE: ByteSize = ByteSize::new(1024 * 1024);
/// What stands in a URL for the address that clients use.
const PUBLIC_URL: &str = "${HYDRANT_PUBLIC_URL}";

/// The sources that one file defines.
#[derive(Clone, Debug)]
pub struct Sources(Vec<Source>);

/// A JSON document from somewhere else that is part of the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Under which the value stands in the answer.
    pub name: String,
    /// Where the document is.
    pub location: Location,
    /// How often it is asked for.
    pub interval: Duration,
    /// How long one answer may take.
    pub timeout: Duration,
    /// The largest document, in bytes.
    pub max_size: u64,
}

/// Where a document is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// A file of the server.
    File(PathBuf),
    /// An `http://` URL.
    Url(String),
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
    interval: hydrant_runtime::Duration,
    timeout: Option<hydrant_runtime::Duration>,
    max_size: Option<ByteSize>,
}

impl Sources {
    /// Reads a file of definitions. Paths in it are relative to its folder; `public_url` replaces
    /// `${HYDRANT_PUBLIC_URL}` in URLs.
    ///
    /// # Errors
    ///
    /// If the file can't be read, or says something that can't be.
    pub fn load(path: &Path, public_url: Option<&str>) -> Result<Self, SourcesError> {
        let file: File = config::load(path)?;
        Self::check(file, path, public_url).map_err(|message| SourcesError::Invalid {
            path: path.into(),
            message,
        })
    }

    fn check(file: File, path: &Path, public_url: Option<&str>) -> Result<Self, String> {
        if file.source.len() > MAX_SOURCES {
            return Err(format!("it defines more than {MAX_SOURCES} sources"));
        }
        let folder = path.parent().unwrap_or(Path::new("."));
        let sources = file
            .source
            .into_iter()
            .map(|definition| definition.check(folder, public_url))
            .collect::<Result<Vec<_>, _>>()?;
        let mut names = HashSet::new();
        match sources.iter().find(|source| !names.insert(&source.name)) {
            Some(twice) => Err(format!("it defines `{}` twice", twice.name)),
            None => Ok(Self(sources)),
        }
    }

    /// The sources, in the order of the file.
    pub fn list(&self) -> &[Source] {
        &self.0
    }
}

impl Definition {
    fn check(self, folder: &Path, public_url: Option<&str>) -> Result<Source, String> {
        let name = self.name;
        let refuse = |what: &str| format!("the source `{}` {what}", name.escape_debug());
        if !is_name(&name) {
            return Err(refuse(
                "has a name with other characters than a-z, A-Z, 0-9, '-' and '_', or none, or more than 63",
            ));
        }
        let location = match (self.file, self.url) {
            (Some(file), None) => Location::File(folder.join(file)),
            (None, Some(url)) => Location::Url(full_url(&url, public_url).map_err(refuse)?),
            _ => return Err(refuse("needs either `file` or `url`")),
        };
        let interval = self.interval.get();
        if interval < MIN_INTERVAL {
            return Err(refuse("has an interval below 100ms"));
        }
        let max_size = self.max_size.unwrap_or(SIZE);
        if max_size > MAX_SIZE {
            return Err(refuse("has a max_size above 1MB"));
        }
        Ok(Source {
            location,
            interval,
            timeout: self.timeout.map_or(TIMEOUT, hydrant_runtime::Duration::get),
            max_size: max_size.get(),
            name,
        })
    }
}

fn is_name(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

fn full_url(text: &str, public_url: Option<&str>) -> Result<String, &'static str> {
    let url = match (text.strip_prefix(PUBLIC_URL), public_url) {
        (None, _) => text.to_owned(),
        (Some(path), Some(public_url)) => format!("{}{path}", public_url.trim_end_matches('/')),
        (Some(_), None) => return Err("needs HYDRANT_PUBLIC_URL, which is not set"),
    };
    if !url.starts_with("http://") {
        return Err("has a URL that does not begin with http://");
    }
    reqwest::Url::parse(&url).map_err(|_| "has a URL that can't be read")?;
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Sources, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sources.toml");
        std::fs::write(&path, text).unwrap();
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
            "#,
        )
        .unwrap();
        let [content, catalog] = sources.list() else {
            panic!("two sources")
        };
        let Location::File(file) = &content.location else {
            panic!("a file")
        };
        assert!(file.is_absolute(), "relative to the file of definitions");
        assert_eq!(content.timeout, TIMEOUT);
        let url = "http://one:8080/api/shop/catalog".to_owned();
        assert_eq!(catalog.location, Location::Url(url));
        assert_eq!((catalog.timeout.as_millis(), catalog.max_size), (500, 1024));
    }

    #[test]
    fn mistakes_are_named() {
        let one = |rest: &str| format!("[[source]]\nname = \"a\"\ninterval = \"1s\"\n{rest}");
        for (text, part) in [
            (one(""), "either `file` or `url`"),
            (
                one("file = \"a\"\nurl = \"http://b\""),
                "either `file` or `url`",
            ),
            (one("url = \"https://b\""), "http://"),
            (one("url = \"http://\""), "can't be read"),
            (one("file = \"a\"\nmax_size = \"2MB\""), "1MB"),
            (one("file = \"a\"\nretries = 3"), "unknown field"),
            (one("file = \"a\"").replace("1s", "1ms"), "100ms"),
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
