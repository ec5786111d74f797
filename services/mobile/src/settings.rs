//! The settings of one revision, compiled: the document `settings/settings`.

use std::net::{IpAddr, Ipv6Addr};

use axum::http::{HeaderMap, HeaderValue};
use hydrant_flags::Mistake;
use serde::Deserialize;

use crate::bundle::Bundle;
use crate::documents::{DocumentId, Kind};
use crate::limits::Rate;
use crate::reading::read;

/// The name of the only document.
const NAME: &str = "settings";
/// For how many days people of an experiment that is over may be known: ten years at most.
const KEEP_DAYS: std::ops::RangeInclusive<u16> = 1..=3650;
/// Where the router writes who asked it, behind what the client claims.
const FORWARDED_FOR: &str = "x-forwarded-for";

/// What operators choose. Everything has a default, so there may be no document at all.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub(crate) struct Settings {
    pub(crate) anonymous: Anonymous,
    pub(crate) cors: Cors,
    pub(crate) streams: Streams,
    pub(crate) observations: Observations,
}

/// Who asks without a key.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub(crate) struct Anonymous {
    /// How often one address may ask.
    pub(crate) rate: Rate,
    /// How many proxies stand between clients and the node: each adds an address, and is believed.
    pub(crate) trusted_proxies: u8,
}

/// Pages of other origins in browsers.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub(crate) struct Cors {
    /// Which may ask: origins as `https://shop.example`, or `*` for all.
    pub(crate) origins: Vec<Origin>,
    /// How long a browser remembers that it may, in seconds.
    pub(crate) max_age_seconds: u32,
}

/// An origin as a browser writes it, or `*`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Origin(HeaderValue);

/// Streams that tell of changes.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub(crate) struct Streams {
    /// Whether clients are told of them; without, they poll.
    pub(crate) offered: bool,
    /// How many one process holds.
    pub(crate) most: usize,
    /// How many of them for one key.
    pub(crate) most_per_key: usize,
    /// How many of them for one address without a key.
    pub(crate) most_per_address: usize,
    /// After how long in the background a client closes its own, in seconds.
    pub(crate) inactivity_seconds: u32,
}

/// What apps report of experiments.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub(crate) struct Observations {
    /// For how many days it is known who was in an experiment that is over.
    pub(crate) keep_days: u16,
}

impl Default for Observations {
    fn default() -> Self {
        Self { keep_days: 90 }
    }
}

impl Observations {
    /// The same in milliseconds.
    pub(crate) fn keep_ms(&self) -> i64 {
        i64::from(self.keep_days) * 24 * 3_600_000
    }
}

impl Default for Anonymous {
    fn default() -> Self {
        Self {
            rate: Rate::new(200.0, 400),
            trusted_proxies: 0,
        }
    }
}

impl Default for Cors {
    fn default() -> Self {
        Self {
            origins: vec![Origin(HeaderValue::from_static("*"))],
            max_age_seconds: 7200,
        }
    }
}

impl Default for Streams {
    fn default() -> Self {
        Self {
            offered: true,
            most: 10_000,
            most_per_key: 10_000,
            most_per_address: 200,
            inactivity_seconds: 120,
        }
    }
}

impl Settings {
    /// Compiles `settings/settings`.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub(crate) fn compile(bundle: &Bundle) -> Result<Self, Vec<Mistake>> {
        let mut settings = Self::default();
        for (name, text) in bundle.of(Kind::Settings) {
            settings = Self::read(name, text).map_err(|mistake| vec![mistake])?;
        }
        Ok(settings)
    }

    fn read(name: &str, text: &str) -> Result<Self, Mistake> {
        let id = DocumentId::new(Kind::Settings, name).map_err(|error| Mistake::at("", error))?;
        if name != NAME {
            let message = "there is one document of settings, `settings/settings`";
            return Err(Mistake::at("", message)
                .of(id.to_string())
                .mend("put it there"));
        }
        let settings: Self = read(&id, text)?;
        if !KEEP_DAYS.contains(&settings.observations.keep_days) {
            let (least, most) = (KEEP_DAYS.start(), KEEP_DAYS.end());
            let message = format!("`keepDays` is a number from {least} to {most}");
            return Err(Mistake::at("/observations/keepDays", message).of(id.to_string()));
        }
        if settings.streams.inactivity_seconds == 0 {
            let message = "`inactivitySeconds` is at least 1";
            return Err(Mistake::at("/streams/inactivitySeconds", message).of(id.to_string()));
        }
        Ok(settings)
    }
}

impl Cors {
    /// What `access-control-allow-origin` says to a page of this origin; `None` when it may not ask.
    pub(crate) fn allowed(&self, origin: &HeaderValue) -> Option<HeaderValue> {
        if self.is_open() {
            return Some(HeaderValue::from_static("*"));
        }
        let known = self.origins.iter().find(|known| known.0 == origin)?;
        Some(known.0.clone())
    }

    /// Whether pages of every origin may ask.
    pub(crate) fn is_open(&self) -> bool {
        self.origins.iter().any(|origin| origin.0 == "*")
    }
}

impl TryFrom<String> for Origin {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong = || {
            let shown = text.escape_debug();
            format!("an origin is `*`, or as `https://shop.example`, unlike `{shown}`")
        };
        let host = text.split_once("://").map(|(_, host)| host);
        let is_origin = host.is_some_and(|host| {
            !host.is_empty()
                && host
                    .bytes()
                    .all(|byte| byte.is_ascii_graphic() && byte != b'/')
        });
        if text != "*" && (!is_origin || text != text.to_ascii_lowercase()) {
            return Err(wrong());
        }
        HeaderValue::from_str(&text).map(Self).map_err(|_| wrong())
    }
}

impl Anonymous {
    /// The address that is counted: the last that the router wrote, or the one in front of the
    /// proxies that are trusted. `None` when there is none to read.
    pub(crate) fn address(&self, headers: &HeaderMap) -> Option<IpAddr> {
        let lines = headers.get_all(FORWARDED_FOR).iter();
        let lines = lines.filter_map(|value| value.to_str().ok());
        let hops: Vec<&str> = lines.flat_map(|line| line.split(',')).collect();
        let from_the_end = usize::from(self.trusted_proxies).min(hops.len().checked_sub(1)?);
        let hop = hops[hops.len() - 1 - from_the_end].trim();
        hop.parse().ok().map(network_of)
    }
}

/// Who has one IPv6 address has all of its /64.
fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let network = address.to_bits() & !u128::from(u64::MAX);
            Ipv6Addr::from_bits(network).into()
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn compiled(name: &str, text: &str) -> Result<Settings, Vec<Mistake>> {
        let mut bundle = Bundle::default();
        let all = bundle.documents.entry(Kind::Settings).or_default();
        all.insert(name.to_owned(), text.to_owned());
        Settings::compile(&bundle)
    }

    #[test]
    fn everything_has_a_default() {
        let empty = Settings::compile(&Bundle::default()).unwrap();
        assert_eq!(empty, compiled("settings", "{}").unwrap());
        let one = compiled("settings", r#"{"streams": {"mostPerKey": 7}}"#).unwrap();
        assert_eq!(one.streams.most_per_key, 7);
        assert_eq!(one.streams.most, empty.streams.most);
    }

    #[test]
    fn what_is_wrong_is_told() {
        for (name, text, words) in [
            ("other", "{}", "settings/settings"),
            ("settings", "[]", "it is a list"),
            ("settings", "7", "invalid type"),
            ("settings", r#"{"cors": {"origin": []}}"#, "unknown field"),
            (
                "settings",
                r#"{"cors": {"origins": ["shop.example"]}}"#,
                "https://shop.example",
            ),
            (
                "settings",
                r#"{"cors": {"origins": ["https://shop.example/"]}}"#,
                "an origin",
            ),
            (
                "settings",
                r#"{"anonymous": {"rate": {"perSecond": -1}}}"#,
                "perSecond",
            ),
            (
                "settings",
                r#"{"observations": {"keepDays": 0}}"#,
                "from 1 to 3650",
            ),
            (
                "settings",
                r#"{"streams": {"inactivitySeconds": 0}}"#,
                "at least 1",
            ),
        ] {
            let mistakes = compiled(name, text).unwrap_err();
            assert!(mistakes[0].message.contains(words), "{}", mistakes[0]);
        }
    }

    #[test]
    fn origins_are_allowed_by_name() {
        let text = r#"{"cors": {"origins": ["https://shop.example", "http://localhost:3000"]}}"#;
        let cors = compiled("settings", text).unwrap().cors;
        let allowed = |origin: &'static str| cors.allowed(&HeaderValue::from_static(origin));
        assert_eq!(
            allowed("https://shop.example").unwrap(),
            "https://shop.example"
        );
        assert_eq!(
            allowed("http://localhost:3000").unwrap(),
            "http://localhost:3000"
        );
        assert_eq!(allowed("http://shop.example"), None);
        assert_eq!(allowed("null"), None);
        let open = Cors::default();
        assert_eq!(
            open.allowed(&HeaderValue::from_static("null")).unwrap(),
            "*"
        );
    }

    #[test]
    fn only_the_hop_that_the_router_wrote_is_believed() {
        let address = |proxies: u8, lines: &[&str]| {
            let anonymous = Anonymous {
                trusted_proxies: proxies,
                ..Anonymous::default()
            };
            let headers = lines
                .iter()
                .map(|line| (FORWARDED_FOR.parse().unwrap(), line.parse().unwrap()))
                .collect();
            anonymous
                .address(&headers)
                .map(|address| address.to_string())
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(address(0, &["1.1.1.1, 10.0.0.7"]), some("10.0.0.7"));
        assert_eq!(address(0, &["1.1.1.1", "10.0.0.7"]), some("10.0.0.7"));
        assert_eq!(address(1, &["9.9.9.9, 1.1.1.1, 10.0.0.7"]), some("1.1.1.1"));
        assert_eq!(address(3, &["10.0.0.7"]), some("10.0.0.7"));
        assert_eq!(
            address(0, &["2001:db8:1:2:3:4:5:6"]),
            some("2001:db8:1:2::")
        );
        assert_eq!(address(0, &["::ffff:10.0.0.7"]), some("10.0.0.7"));
        assert_eq!(address(0, &["1.1.1.1, nonsense"]), None);
        assert_eq!(address(0, &[]), None);
    }

    proptest! {
        #[test]
        fn any_list_of_hops_is_read_without_panic(text in "[ -~]{0,60}", proxies in any::<u8>()) {
            let anonymous = Anonymous { trusted_proxies: proxies, ..Anonymous::default() };
            let headers = [(FORWARDED_FOR.parse().unwrap(), text.parse().unwrap())];
            anonymous.address(&headers.into_iter().collect());
        }
    }
}
