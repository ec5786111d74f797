//! Consumers that are web services.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hydrant_outbound::{Credentials, CredentialsTable, Header, HeaderText, SecretFile};
use reqwest::Method;
use reqwest::header::HeaderName;
use serde::Deserialize;

use super::flow::FlowTable;
use super::{Consumer, Place, Unknown, refuse_unknown};
use crate::forms::Around;
use crate::forms::template::{Document, Template};

/// What stands in a URL for the address that clients use.
const PUBLIC_URL: &str = "${HYDRANT_PUBLIC_URL}";
const TIMEOUT: Duration = Duration::from_secs(10);
const TIMEOUTS: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(300);
/// The most headers, and the most rules of statuses, of one consumer.
const MAX_RULES: usize = 32;
/// The longest pointer to a reference.
const MAX_POINTER: usize = 200;

/// Headers that delivery sets itself.
const OURS: [&str; 2] = ["idempotency-key", "correlation-id"];

/// A web service that gets submissions, and answers with a reference.
#[derive(Debug)]
pub(crate) struct Rest {
    pub(crate) method: Method,
    pub(crate) url: Template,
    pub(crate) headers: Vec<Header>,
    pub(crate) credentials: Option<Credentials>,
    /// A PEM file with the authorities that it proves itself to; those of the system when absent.
    pub(crate) ca: Option<PathBuf>,
    pub(crate) body: Body,
    /// How long one request may take as a whole.
    pub(crate) timeout: Duration,
    pub(crate) reference: Reference,
    /// Other statuses that mean that it has the submission.
    pub(crate) already: Vec<Already>,
    /// Statuses at which a repeat may help, beside 408, 429 and all of 500 to 599.
    pub(crate) retry: BTreeSet<u16>,
    /// Statuses of these at which none helps.
    pub(crate) refusals: BTreeSet<u16>,
}

/// What is sent.
#[derive(Debug)]
pub(crate) enum Body {
    /// All that is known of the submission.
    Whole,
    /// What a document says, with places filled in.
    Document(Document),
}

/// Where the reference stands in the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reference {
    /// A JSON pointer into the body.
    Pointer(String),
    Header(HeaderName),
}

/// A status that means that the consumer has the submission already.
#[derive(Debug)]
pub(crate) struct Already {
    pub(crate) status: u16,
    pub(crate) reference: Reference,
}

#[derive(Deserialize)]
pub(in crate::forms) struct RestTable {
    url: String,
    method: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, HeaderText>,
    bearer: Option<SecretFile>,
    basic: Option<CredentialsTable>,
    ca: Option<PathBuf>,
    body: Option<PathBuf>,
    timeout: Option<hydrant_runtime::Duration>,
    reference: ReferenceTable,
    #[serde(default)]
    already: Vec<AlreadyTable>,
    #[serde(default)]
    retry: BTreeSet<u16>,
    #[serde(default)]
    refusals: BTreeSet<u16>,
    #[serde(flatten)]
    flow: FlowTable,
    #[serde(flatten)]
    unknown: Unknown,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum ReferenceTable {
    Pointer(String),
    Header { header: String },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AlreadyTable {
    status: u16,
    reference: ReferenceTable,
}

impl RestTable {
    pub(super) fn checked(self, around: &Around<'_>) -> Result<Consumer, String> {
        refuse_unknown(&self.unknown)?;
        let public = around.public_url.unwrap_or_default();
        let rest = Rest {
            method: method(self.method.as_deref())?,
            url: url(&self.url.replace(PUBLIC_URL, public))?,
            headers: headers(self.headers, around.folder)?,
            credentials: Credentials::checked(self.bearer, self.basic, around.folder)?,
            ca: self.ca.map(|ca| around.folder.join(ca)),
            body: match self.body {
                None => Body::Whole,
                Some(path) => Body::Document(Document::load(&around.folder.join(path))?),
            },
            timeout: timeout(self.timeout)?,
            reference: self.reference.checked()?,
            already: already(self.already)?,
            retry: statuses("retry", self.retry)?,
            refusals: statuses("refusals", self.refusals)?,
        };
        Ok(Consumer {
            place: Place::Rest(Box::new(rest)),
            flow: self.flow.checked()?,
        })
    }
}

fn method(name: Option<&str>) -> Result<Method, String> {
    match name {
        None | Some("POST") => Ok(Method::POST),
        Some("PUT") => Ok(Method::PUT),
        Some(_) => Err("has a `method` that is neither POST nor PUT".into()),
    }
}

fn url(text: &str) -> Result<Template, String> {
    let template = Template::parse(text).map_err(|why| format!("has a `url` that {why}"))?;
    let begins = |scheme: &str| template.fixed_beginning().starts_with(scheme);
    let authority = template
        .fixed_beginning()
        .split_once("://")
        .map_or("", |(_, rest)| rest);
    // What a client sent may never say where it goes.
    let is_fixed = authority.contains('/') || template.is_fixed();
    let is_known = reqwest::Url::parse(template.fixed_beginning())
        .is_ok_and(|url| url.has_host() && url.username().is_empty() && url.password().is_none());
    match (begins("http://") || begins("https://")) && is_fixed && is_known {
        true => Ok(template),
        false => Err("has a `url` that does not begin with http:// or https:// and a host".into()),
    }
}

fn timeout(timeout: Option<hydrant_runtime::Duration>) -> Result<Duration, String> {
    let timeout = timeout.map_or(TIMEOUT, |timeout| timeout.get());
    match TIMEOUTS.contains(&timeout) {
        true => Ok(timeout),
        false => Err("has a `timeout` that is not from 100ms to 5m".into()),
    }
}

fn headers(table: BTreeMap<String, HeaderText>, folder: &Path) -> Result<Vec<Header>, String> {
    if table.len() > MAX_RULES {
        return Err(format!("has more than {MAX_RULES} headers"));
    }
    let table = table.into_iter();
    table
        .map(|(name, text)| Header::checked(&name, text, &OURS, folder))
        .collect()
}

impl ReferenceTable {
    fn checked(self) -> Result<Reference, String> {
        match self {
            Self::Pointer(pointer) if is_pointer(&pointer) => Ok(Reference::Pointer(pointer)),
            Self::Pointer(_) => Err(
                "has a `reference` that is no JSON pointer; write \"/id\", or { header = \"NAME\" }"
                    .into(),
            ),
            Self::Header { header } => HeaderName::try_from(header)
                .map(Reference::Header)
                .map_err(|_| "has a `reference` in a header with a name that can't be".into()),
        }
    }
}

fn is_pointer(text: &str) -> bool {
    text.len() <= MAX_POINTER && (text.is_empty() || text.starts_with('/'))
}

fn already(tables: Vec<AlreadyTable>) -> Result<Vec<Already>, String> {
    if tables.len() > MAX_RULES {
        return Err(format!("has more than {MAX_RULES} of `already`"));
    }
    let checked = |table: AlreadyTable| match table.status {
        300..=499 => Ok(Already {
            status: table.status,
            reference: table.reference.checked()?,
        }),
        _ => Err("has an `already` whose status is not from 300 to 499".to_owned()),
    };
    tables.into_iter().map(checked).collect()
}

fn statuses(name: &str, statuses: BTreeSet<u16>) -> Result<BTreeSet<u16>, String> {
    let is_good = statuses.iter().all(|status| (300..=599).contains(status));
    match is_good {
        true => Ok(statuses),
        false => Err(format!(
            "has in `{name}` a status that is not from 300 to 599"
        )),
    }
}
