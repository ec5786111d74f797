//! `[telemetry]` of the configuration file: what lines tell, what they never tell, and where they and
//! metrics go to.

use std::path::{Path, PathBuf};
use std::time::Duration;

use hydrant_node::{ExportsConfig, GraphiteConfig, SplunkConfig, collector_url};
use hydrant_runtime::client::{self, ClientHeaders};
use hydrant_runtime::redaction::{self, Redaction};
use serde::Deserialize;
use toml::Spanned;

use super::Mistake;

/// How often metrics are sent, when the file does not say.
const INTERVAL: Duration = Duration::from_secs(10);
/// What their paths begin with.
const PREFIX: &str = "hydrant";

/// The table, read and checked.
#[derive(Debug, Default)]
pub(crate) struct Telemetry {
    headers: Option<ClientHeaders>,
    names: Vec<String>,
    patterns: Vec<String>,
    exports: ExportsConfig,
    access_log: f64,
}

/// `[telemetry]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Table {
    /// The headers that tell whose work it is.
    context: Option<Vec<Spanned<String>>>,
    #[serde(default)]
    redact: Vec<Spanned<String>>,
    #[serde(default)]
    redact_patterns: Vec<Spanned<String>>,
    graphite: Option<Spanned<Graphite>>,
    splunk: Option<Splunk>,
    access_log: Option<Spanned<Share>>,
}

/// `access_log = 0.01`
#[derive(Debug, Deserialize)]
#[serde(
    untagged,
    expecting = "`access_log` is a share of the requests: 0.01 is one in a hundred, 1 all"
)]
enum Share {
    Number(f64),
}

/// `graphite = "host:2003"`, or a table.
#[derive(Debug, Deserialize)]
#[serde(
    untagged,
    expecting = "`graphite` is an address, as \"10.0.0.1:2003\", or a table with `address`, \
                               `prefix` and `interval`"
)]
enum Graphite {
    Address(String),
    Table(GraphiteTable),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct GraphiteTable {
    address: String,
    prefix: Option<String>,
    interval: Option<hydrant_runtime::Duration>,
}

/// `splunk = { url = "…", token_file = "…" }`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Splunk {
    url: Spanned<String>,
    token_file: PathBuf,
    ca: Option<PathBuf>,
}

impl Telemetry {
    pub(super) fn read(table: Option<Table>) -> Result<Self, Mistake> {
        let Some(table) = table else {
            return Ok(Self::default());
        };
        let graphite = table.graphite.map(graphite).transpose()?;
        let splunk = table.splunk.map(splunk).transpose()?;
        let access_log = table.access_log.map(share).transpose()?;
        for name in &table.redact {
            check(name, |name| Redaction::new(&[name], &[]))?;
        }
        for pattern in &table.redact_patterns {
            let has_break = pattern.get_ref().contains('\n');
            check(pattern, |pattern| match has_break {
                true => Err("a pattern is one line; write \\n for a line break".to_owned()),
                false => Redaction::new(&[], &[pattern]).map_err(|error| error.to_string()),
            })?;
        }
        let plain =
            |list: Vec<Spanned<String>>| list.into_iter().map(Spanned::into_inner).collect();
        let (names, patterns): (Vec<_>, Vec<_>) =
            (plain(table.redact), plain(table.redact_patterns));
        Redaction::new(&names, &patterns).map_err(|error| (0, error.to_string()))?;
        Ok(Self {
            headers: table.context.map(headers).transpose()?,
            names,
            patterns,
            exports: ExportsConfig { graphite, splunk },
            access_log: access_log.unwrap_or(0.0),
        })
    }

    /// Paths that are relative in the file begin where it lies.
    pub(super) fn start_paths_at(&mut self, folder: &Path) {
        let splunk = self.exports.splunk.iter_mut();
        for path in splunk.flat_map(|splunk| splunk.ca.iter_mut().chain([&mut splunk.token_file])) {
            *path = folder.join(&*path);
        }
    }

    /// Makes the rules those of this process, and begins to log.
    pub(crate) fn start(&self) {
        if let Some(headers) = &self.headers {
            headers.clone().share();
        }
        let adds = !self.names.is_empty() || !self.patterns.is_empty();
        if let Ok(rules) = Redaction::new(&self.names, &self.patterns)
            && adds
        {
            rules.share();
        }
        hydrant_runtime::telemetry::start();
    }

    /// The variables by which services learn the rules.
    pub(crate) fn environment(&self) -> Vec<(String, String)> {
        let mut variables = Vec::new();
        let mut add = |name: &str, value: String| variables.push((name.to_owned(), value));
        if let Some(headers) = &self.headers {
            add(client::CONTEXT, headers.to_string());
        }
        if !self.names.is_empty() {
            add(redaction::NAMES, self.names.join(","));
        }
        if !self.patterns.is_empty() {
            add(redaction::PATTERNS, self.patterns.join("\n"));
        }
        variables
    }

    /// Where logs and metrics go to.
    pub(crate) fn exports(&self) -> &ExportsConfig {
        &self.exports
    }

    /// The share of requests that get a line in the log.
    pub(crate) fn access_log(&self) -> f64 {
        self.access_log
    }
}

fn check<T, E: ToString>(
    text: &Spanned<String>,
    read: impl FnOnce(String) -> Result<T, E>,
) -> Result<T, Mistake> {
    let at = text.span().start;
    read(text.get_ref().clone()).map_err(|error| (at, error.to_string()))
}

fn headers(names: Vec<Spanned<String>>) -> Result<ClientHeaders, Mistake> {
    for name in &names {
        check(name, |name| name.parse::<ClientHeaders>())?;
        if name.get_ref().contains(',') || name.get_ref().is_empty() {
            let message = "one header stands here: write [\"X-Store-Id\", \"X-User-Id\"]";
            return Err((name.span().start, message.into()));
        }
    }
    let at = names.first().map_or(0, |name| name.span().start);
    let all: Vec<_> = names.into_iter().map(Spanned::into_inner).collect();
    let headers = all.join(",").parse::<ClientHeaders>();
    headers.map_err(|error| (at, error.to_string()))
}

/// Of all requests.
fn share(given: Spanned<Share>) -> Result<f64, Mistake> {
    let Share::Number(share) = *given.get_ref();
    (0.0..=1.0)
        .contains(&share)
        .then_some(share)
        .ok_or_else(|| {
            let message =
                format!("`{share}` is no share of the requests: 0.01 is one in a hundred, 1 all");
            (given.span().start, message)
        })
}

fn graphite(given: Spanned<Graphite>) -> Result<GraphiteConfig, Mistake> {
    let at = given.span().start;
    let table = match given.into_inner() {
        Graphite::Table(table) => table,
        Graphite::Address(address) => GraphiteTable {
            address,
            prefix: None,
            interval: None,
        },
    };
    let refuse = |message: String| Err((at, message));
    if !is_address(&table.address) {
        let address = table.address.escape_debug();
        return refuse(format!(
            "`{address}` is no place of Graphite: write a host and the port of its plain text, as \
             10.0.0.1:2003"
        ));
    }
    let prefix = table.prefix.unwrap_or_else(|| PREFIX.into());
    let is_good = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if prefix.is_empty()
        || prefix.len() > 100
        || prefix.split('.').any(str::is_empty)
        || !prefix.chars().all(is_good)
    {
        return refuse(
            "`prefix` has letters, digits, `-`, `_` and dots between them, as fleet.hydrant".into(),
        );
    }
    let interval = table.interval.map_or(INTERVAL, |interval| interval.get());
    if !(Duration::from_secs(1)..=Duration::from_secs(3600)).contains(&interval) {
        return refuse("`interval` is 1s to 1h".into());
    }
    Ok(GraphiteConfig {
        address: table.address,
        prefix,
        interval,
    })
}

fn is_address(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else {
        return false;
    };
    let is_host = |c: char| c.is_ascii_alphanumeric() || "-._:[]".contains(c);
    !host.is_empty() && host.chars().all(is_host) && port.parse().is_ok_and(|port: u16| port > 0)
}

fn splunk(given: Splunk) -> Result<SplunkConfig, Mistake> {
    let url = collector_url(given.url.get_ref()).ok_or_else(|| {
        let message = "`url` names no collector: write \"https://HOST:8088/services/collector/event\"; the \
                       token stands in `token_file`";
        (given.url.span().start, message.to_owned())
    })?;
    Ok(SplunkConfig {
        url,
        token_file: given.token_file,
        ca: given.ca,
    })
}

#[cfg(test)]
mod tests {
    use super::super::File;
    use super::*;

    fn parse(text: &str) -> Result<File, String> {
        let text = format!("[telemetry]\n{text}\n");
        let read = File::parse(Path::new("/etc/h.toml"), &text);
        read.map_err(|error| error.to_string())
    }

    #[test]
    fn rules_reach_the_services_and_receivers_the_node() {
        let file = parse(
            r#"context = ["X-Store-Id", "X-Till"]
               redact = ["badge", "employee_no"]
               redact_patterns = ["EMP-[0-9]{6}", "a,b"]
               graphite = "graphite.example.com:2003"
               splunk = { url = "https://splunk.example.com:8088", token_file = "splunk.token" }"#,
        );
        let telemetry = file.unwrap().telemetry;
        let variable = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        let expected = [
            ("HYDRANT_CONTEXT", "x-store-id,x-till"),
            ("HYDRANT_REDACT", "badge,employee_no"),
            ("HYDRANT_REDACT_PATTERNS", "EMP-[0-9]{6}\na,b"),
        ];
        assert_eq!(telemetry.environment(), expected.map(variable));
        let splunk = telemetry.exports().splunk.clone().unwrap();
        assert_eq!(
            splunk.url,
            "https://splunk.example.com:8088/services/collector/event"
        );
        assert_eq!(splunk.token_file, Path::new("/etc/splunk.token"));
        let graphite = telemetry.exports().graphite.clone().unwrap();
        assert_eq!((graphite.interval, &*graphite.prefix), (INTERVAL, PREFIX));
        let file =
            parse("graphite = { address = \"[::1]:2003\", prefix = \"a.b\", interval = \"60s\" }");
        let graphite = file.unwrap().telemetry.exports().graphite.clone().unwrap();
        assert_eq!(
            (graphite.interval.as_secs(), &*graphite.prefix),
            (60, "a.b")
        );
        let nothing = parse("").unwrap().telemetry;
        assert!(nothing.environment().is_empty() && nothing.access_log() == 0.0);
        let all = parse("access_log = 1").unwrap().telemetry;
        assert_eq!(all.access_log(), 1.0);
    }

    #[test]
    fn each_mistake_has_its_place_and_its_mend() {
        for (text, place, part) in [
            ("contxt = []", "2:1", "unknown field `contxt`"),
            (
                "context = [\"X-Store-Id\",\n\"X Y\"]",
                "3:1",
                "as X-Store-Id",
            ),
            ("context = [\"X-A,X-B\"]", "2:12", "one header stands here"),
            ("context = [\"Authorization\"]", "2:12", "another meaning"),
            ("redact = [\"ok_name\", \"a\"]", "2:22", "3 to 64"),
            ("redact_patterns = [\"(\"]", "2:20", "unclosed group"),
            ("redact_patterns = [\"x*\"]", "2:20", "also nothing"),
            ("access_log = 5", "2:14", "0.01 is one in a hundred"),
            ("access_log = true", "2:14", "0.01 is one in a hundred"),
            ("graphite = \"host\"", "2:12", "as 10.0.0.1:2003"),
            ("graphite = 2003", "2:12", "is an address"),
            (
                "graphite = { address = \"h:1\", interval = \"1ms\" }",
                "2:12",
                "1s to 1h",
            ),
            (
                "graphite = { address = \"h:1\", prefix = \"a..b\" }",
                "2:12",
                "`prefix` has",
            ),
            (
                "splunk = { url = \"ftp://h\", token_file = \"t\" }",
                "2:18",
                "https://HOST:8088",
            ),
            (
                "splunk = { url = \"https://a:b@h\", token_file = \"t\" }",
                "2:18",
                "`token_file`",
            ),
            (
                "splunk = { url = \"https://h\" }",
                "2:10",
                "missing field `token_file`",
            ),
        ] {
            let error = parse(text).unwrap_err();
            assert!(
                error.starts_with(&format!("/etc/h.toml:{place}: ")),
                "{text}: {error}"
            );
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
