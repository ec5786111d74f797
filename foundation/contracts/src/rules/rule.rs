use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::actions::{Avoid, Pin, Retry};
use super::limit::Limit;
use super::parts::{
    CallerPattern, HeaderName, HeaderText, HostPattern, HttpMethod, Percent, RuleName, Salt,
    Source, Span, is_parameter,
};
use crate::bucket::SLOTS;
use crate::name::{ServiceId, Version};

/// The most items of a list, and the most versions with a weight.
pub(super) const MAX_ITEMS: usize = 32;
/// The longest value that a header or a parameter is compared with, and the longest path, in bytes.
const MAX_TEXT: usize = 1024;
/// The answers that send a client elsewhere.
const REDIRECTS: [u16; 5] = [301, 302, 303, 307, 308];
/// What stands for the path and query of the request, and for what is behind the rule's own path.
const PATH: &str = "{path}";
const REST: &str = "{rest}";

/// Which requests of a service, and what becomes of them. Of a service's rules the first that matches decides,
/// and it alone: that of the highest priority; of the same priority, the first by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Its name, unique in the fleet.
    pub name: RuleName,
    /// Whose requests.
    pub service: ServiceId,
    /// A higher one is asked first.
    #[serde(default, skip_serializing_if = "is_default")]
    pub priority: i16,
    /// Where a request says whose it is, so that it gets the same version each time.
    #[serde(default, skip_serializing_if = "is_default")]
    pub sticky: Option<Source>,
    /// The draw of sticky requests; the rule's own when left out.
    #[serde(default, skip_serializing_if = "is_default")]
    pub salt: Option<Salt>,
    /// How long an answer may take to its end.
    #[serde(default, skip_serializing_if = "is_default")]
    pub timeout: Option<Span>,
    /// Which requests; all when left out.
    #[serde(default, rename = "match", skip_serializing_if = "is_default")]
    pub matches: Match,
    /// How many percent each version gets.
    #[serde(default, skip_serializing_if = "is_default")]
    pub weights: BTreeMap<Version, Percent>,
    /// What changes in the head of a request.
    #[serde(default, skip_serializing_if = "is_default")]
    pub request: HeaderChanges,
    /// What changes in the head of an answer.
    #[serde(default, skip_serializing_if = "is_default")]
    pub answer: HeaderChanges,
    /// The answer that sends the client elsewhere.
    #[serde(default, skip_serializing_if = "is_default")]
    pub redirect: Option<Redirect>,
    /// What stands in the place of the rule's path: an instance sees the request as if it had been asked there.
    #[serde(default, skip_serializing_if = "is_default")]
    pub rewrite: Option<String>,
    /// What is tried again, and how often.
    #[serde(default, skip_serializing_if = "is_default")]
    pub retry: Option<Retry>,
    /// Where nothing is sent as long as there is anything else.
    #[serde(default, skip_serializing_if = "is_default")]
    pub avoid: Option<Avoid>,
    /// Who gets all of it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub pin: Option<Pin>,
    /// How many requests go on.
    #[serde(default, skip_serializing_if = "is_default")]
    pub limit: Option<Limit>,
}

/// Which requests: those for which everything holds that is said. Of a list, one item has to hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Match {
    /// The path, without its query: one that ends in `/` stands for everything below it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub path: Option<String>,
    /// The hosts that are addressed.
    #[serde(default, skip_serializing_if = "is_default")]
    pub hosts: Vec<HostPattern>,
    /// The methods of HTTP.
    #[serde(default, skip_serializing_if = "is_default")]
    pub methods: Vec<HttpMethod>,
    /// Who calls.
    #[serde(default, skip_serializing_if = "is_default")]
    pub callers: Vec<CallerPattern>,
    /// Header fields and their values; `*` is any value.
    #[serde(default, skip_serializing_if = "is_default")]
    pub headers: BTreeMap<HeaderName, String>,
    /// Parameters of the query and their values, as they are without escapes; `*` is any value.
    #[serde(default, skip_serializing_if = "is_default")]
    pub query: BTreeMap<String, String>,
    /// A share of the people.
    #[serde(default, skip_serializing_if = "is_default")]
    pub users: Option<Share>,
}

/// A share of the people, always the same ones; a larger share has all of a smaller one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Share {
    /// How many of them.
    pub percent: Percent,
    /// Where a request says whose it is. One that does not say it is not among them.
    pub by: Source,
    /// The draw; the rule's own when left out.
    #[serde(default, skip_serializing_if = "is_default")]
    pub salt: Option<Salt>,
}

/// What changes in a head. A header that is set replaces those of its name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeaderChanges {
    /// Taken off.
    #[serde(default, skip_serializing_if = "is_default")]
    pub remove: Vec<HeaderName>,
    /// There once, with this value.
    #[serde(default, skip_serializing_if = "is_default")]
    pub set: BTreeMap<HeaderName, HeaderText>,
    /// There beside those of its name that are there already.
    #[serde(default, skip_serializing_if = "is_default")]
    pub add: BTreeMap<HeaderName, HeaderText>,
}

impl HeaderChanges {
    /// Whether nothing changes.
    pub fn is_none(&self) -> bool {
        self.remove.is_empty() && self.set.is_empty() && self.add.is_empty()
    }

    /// Whether a header that is there goes.
    pub fn takes_off(&self, name: &[u8]) -> bool {
        let taken = self.remove.iter().chain(self.set.keys());
        let mut names = taken.map(|name| name.as_str().as_bytes());
        names.any(|taken| taken.eq_ignore_ascii_case(name))
    }

    /// The headers that come.
    pub fn comes(&self) -> impl Iterator<Item = (&HeaderName, &HeaderText)> {
        self.set.iter().chain(&self.add)
    }

    fn names(&self) -> impl Iterator<Item = &HeaderName> {
        self.remove.iter().chain(self.comes().map(|(name, _)| name))
    }
}

/// The answer that sends the client elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Redirect {
    /// Where to: a URL, or a path of this host. `{path}` stands for the path and query of the request, `{rest}`
    /// for what of them is behind the rule's own path.
    pub to: String,
    /// 301, 302, 303, 307 or 308.
    #[serde(default = "found", skip_serializing_if = "is_found")]
    pub status: u16,
}

const fn found() -> u16 {
    302
}

fn is_found(status: &u16) -> bool {
    *status == found()
}

impl Redirect {
    /// Where the client is sent that asked for `target`, its path and query, of which the first `own` bytes are
    /// the rule's path.
    pub fn location(&self, target: &str, own: usize) -> String {
        let rest = target.get(own..).unwrap_or_default();
        self.to.replace(PATH, target).replace(REST, rest)
    }
}

pub(super) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// What is wrong with a rule: the field, what it is, and what to write instead.
pub(super) type Mistake = (&'static str, String, &'static str);

impl Rule {
    /// Checks what no field tells by itself.
    pub(super) fn check(&self) -> Result<(), Mistake> {
        if self.service.is_node() {
            let message = "it is the node itself".to_owned();
            return Err(("service", message, "name a service of yours"));
        }
        self.matches.check(&self.service)?;
        self.check_weights()?;
        self.request.check("request")?;
        self.answer.check("answer")?;
        if let Some(redirect) = &self.redirect {
            redirect.check(self.matches.path.as_deref())?;
        }
        self.check_rewrite()?;
        if let Some(retry) = &self.retry {
            retry.check(self.timeout)?;
        }
        self.check_place()?;
        self.limit.as_ref().map_or(Ok(()), Limit::check)?;
        self.check_actions()
    }

    fn check_weights(&self) -> Result<(), Mistake> {
        let field = "weights";
        if self.weights.is_empty() {
            let (named, mend) = match (&self.sticky, &self.salt) {
                (Some(_), _) => ("sticky", "write weights too, or leave sticky out"),
                (_, Some(_)) => ("salt", "write weights and sticky too, or leave salt out"),
                _ => return Ok(()),
            };
            return Err((named, "it is for rules with weights".into(), mend));
        }
        if self.salt.is_some() && self.sticky.is_none() {
            let message = "without sticky nobody is drawn by it".to_owned();
            return Err(("salt", message, "write sticky too, as 'header user-id'"));
        }
        if self.weights.len() > MAX_ITEMS {
            let message = format!("{} versions are too many", self.weights.len());
            return Err((field, message, "name at most 32"));
        }
        let weights = self.weights.values();
        let slots: u32 = weights.map(|weight| u32::from(weight.slots())).sum();
        if slots != u32::from(SLOTS) {
            let message = format!("they sum to {} %", f64::from(slots) / 100.0);
            return Err((field, message, "write percentages that sum to 100"));
        }
        Ok(())
    }

    /// What stands behind the rule's path is put behind the new one, and the whole has to mean one path.
    fn check_rewrite(&self) -> Result<(), Mistake> {
        let Some(to) = &self.rewrite else {
            return Ok(());
        };
        let refuse = |message: &str, mend| Err(("rewrite", message.to_owned(), mend));
        let Some(from) = &self.matches.path else {
            let mend = "write match.path too, as /api/shop/v1/";
            return refuse(
                "it takes the place of the rule's path, and there is none",
                mend,
            );
        };
        if !to.starts_with(&format!("/{}/", self.service)) {
            let mend = "begin it with /TIER/SERVICE/, as /api/shop/v2/";
            return refuse("it does not begin with the rule's own service", mend);
        }
        if from.ends_with('/') && !to.ends_with('/') {
            let mend = "end it with '/', as match.path does";
            return refuse(
                "what is behind match.path would stick to its last part",
                mend,
            );
        }
        if to.len() > MAX_TEXT || !is_clean(to) {
            let mend = "write at most 1024 visible ASCII characters, without '?', '#', '%', ';', backslash, '//', '.' \
                        and '..'";
            return refuse("it is not a path that everybody reads alike", mend);
        }
        Ok(())
    }

    /// One of them says where a request goes.
    fn check_place(&self) -> Result<(), Mistake> {
        let places = [
            ("weights", !self.weights.is_empty()),
            ("avoid", self.avoid.is_some()),
            ("pin", self.pin.is_some()),
        ];
        let mut places = places.iter().filter(|(_, there)| *there);
        if let (Some((one, _)), Some((other, _))) = (places.next(), places.next()) {
            let message = format!("{one} says where a request goes, too");
            return Err((other, message, "leave one of them out, or write two rules"));
        }
        self.avoid.as_ref().map_or(Ok(()), Avoid::check)?;
        self.pin.as_ref().map_or(Ok(()), Pin::check)
    }

    fn check_actions(&self) -> Result<(), Mistake> {
        let shapes = [
            ("weights", !self.weights.is_empty()),
            ("request", !self.request.is_none()),
            ("answer", !self.answer.is_none()),
            ("timeout", self.timeout.is_some()),
            ("rewrite", self.rewrite.is_some()),
            ("retry", self.retry.is_some()),
            ("avoid", self.avoid.is_some()),
            ("pin", self.pin.is_some()),
            ("limit", self.limit.is_some()),
        ];
        let mut shapes = shapes.iter().filter(|(_, there)| *there);
        match (shapes.next(), &self.redirect) {
            (None, None) => Err((
                "name",
                "it does nothing".into(),
                "write what becomes of the requests: weights, avoid, pin, limit, rewrite, retry, timeout, request, answer or \
                 redirect",
            )),
            (Some((other, _)), Some(_)) => Err((
                "redirect",
                format!("no instance gets the request, so {other} has no effect"),
                "leave one of them out",
            )),
            _ => Ok(()),
        }
    }
}

impl Match {
    fn check(&self, service: &ServiceId) -> Result<(), Mistake> {
        self.check_path(service)?;
        for (field, items) in [
            ("match.hosts", self.hosts.len()),
            ("match.methods", self.methods.len()),
            ("match.callers", self.callers.len()),
            ("match.headers", self.headers.len()),
            ("match.query", self.query.len()),
        ] {
            if items > MAX_ITEMS {
                let message = format!("{items} items are too many");
                return Err((field, message, "write at most 32"));
            }
        }
        let is_long = |text: &String| text.len() > MAX_TEXT;
        let long = "a value is longer than 1024 bytes".to_owned();
        if self.headers.values().any(is_long) {
            return Err(("match.headers", long, "compare with a shorter one"));
        }
        if self.query.values().any(is_long) {
            return Err(("match.query", long, "compare with a shorter one"));
        }
        if let Some(ours) = self.headers.keys().find(|name| is_ours(name)) {
            let message = format!("{ours} says nothing that a client could not invent");
            return Err((
                "match.headers",
                message,
                "write match.callers for who calls",
            ));
        }
        match self.query.keys().find(|name| !is_parameter(name)) {
            Some(name) => Err((
                "match.query",
                format!("`{}` is not the name of a parameter", name.escape_debug()),
                "write 1 to 64 letters, digits and '-', '_', '.'",
            )),
            None => Ok(()),
        }
    }

    fn check_path(&self, service: &ServiceId) -> Result<(), Mistake> {
        let Some(path) = &self.path else {
            return Ok(());
        };
        let refuse = |message: &str, mend| Err(("match.path", message.to_owned(), mend));
        let visible = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#' | b'\\');
        if !path.starts_with(&format!("/{service}/")) {
            let mend = "begin it with /TIER/SERVICE/, as /api/shop/v1/";
            return refuse("it does not begin with the rule's own service", mend);
        }
        if path.len() > MAX_TEXT || !path.bytes().all(visible) {
            let mend =
                "write at most 1024 visible ASCII characters, without '?', '#' and backslash";
            return refuse("it is not a path", mend);
        }
        Ok(())
    }
}

/// A header that the router takes off or writes anew.
fn is_ours(name: &HeaderName) -> bool {
    name.as_str().starts_with("hydrant-")
}

impl HeaderChanges {
    fn check(&self, field: &'static str) -> Result<(), Mistake> {
        if self.names().count() > MAX_ITEMS {
            let message = "more than 32 headers change".to_owned();
            return Err((field, message, "change at most 32"));
        }
        match self.names().find(|name| !name.may_change()) {
            Some(name) => Err((
                field,
                format!("{name} frames a message, or is the router's own"),
                "leave it out; a time-out is set by `timeout`",
            )),
            None => Ok(()),
        }
    }
}

impl Redirect {
    fn check(&self, own_path: Option<&str>) -> Result<(), Mistake> {
        let refuse = |message: &str, mend| Err(("redirect", message.to_owned(), mend));
        if !REDIRECTS.contains(&self.status) {
            let message = format!("{} does not send anybody elsewhere", self.status);
            return refuse(
                &message,
                "write one of 301, 302, 303, 307 and 308 as its status",
            );
        }
        let place = self.to.replace(PATH, "/p").replace(REST, "r");
        let visible = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'{' | b'}' | b'\\');
        if self.to.len() > MAX_TEXT || !place.bytes().all(visible) {
            let mend = "write at most 1024 visible characters; of braces only {path} and {rest}";
            return refuse("`to` is not a URL", mend);
        }
        if !is_place(&place) {
            let mend = "write it as https://HOST/…, or as a path that begins with one '/'";
            return refuse("`to` is neither a URL with a host nor a path", mend);
        }
        self.check_rest(own_path)
    }

    /// What a client writes may only stand where it can't become a part of the host.
    fn check_rest(&self, own_path: Option<&str>) -> Result<(), Mistake> {
        let refuse = |message: &str, mend| Err(("redirect", message.to_owned(), mend));
        let Some((before, _)) = self.to.split_once(REST) else {
            return Ok(());
        };
        if !own_path.is_some_and(|path| path.ends_with('/')) {
            let mend = "write match.path with a '/' at its end, or use {path}";
            return refuse(
                "{rest} is what is behind the rule's path, and there is none",
                mend,
            );
        }
        let behind_host = before.split_once("://").map_or(before, |(_, rest)| rest);
        match behind_host.contains('/') {
            true => Ok(()),
            false => refuse("{rest} is in the place of a host", "write a '/' before it"),
        }
    }
}

/// Whether every server takes it for the same path.
fn is_clean(path: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_graphic() && !b"?#%;\\".contains(&byte);
    let segment = |at: &str| !matches!(at, "" | "." | "..");
    let inner = path.strip_prefix('/').unwrap_or(path);
    let inner = inner.strip_suffix('/').unwrap_or(inner);
    path.bytes().all(plain) && inner.split('/').all(segment)
}

/// A URL with a host, or a path of this host. Two slashes in front would be another host.
fn is_place(to: &str) -> bool {
    let url = ["http://", "https://"].into_iter();
    let mut host = url.filter_map(|scheme| to.strip_prefix(scheme));
    match host.next() {
        Some(host) => !host.is_empty() && !host.starts_with('/'),
        None => to.starts_with('/') && !to.starts_with("//"),
    }
}
