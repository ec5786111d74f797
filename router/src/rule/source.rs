//! Whose a request is, as it says itself.

use std::io::Write as _;
use std::net::IpAddr;

use hydrant_contracts::bucket::{self, Slot};
use hydrant_contracts::rules::Source;

use super::matching::{Asked, parameters};

/// The longest id that somebody is drawn by, in bytes.
const MAX_ID: usize = 256;

/// Where somebody falls; `None` when the request does not say whose it is.
fn slot_of(salt: &str, id: &[u8]) -> Option<Slot> {
    let id = std::str::from_utf8(id).ok()?;
    (1..=MAX_ID)
        .contains(&id.len())
        .then(|| bucket::slot(salt, id))
}

/// The same, of what a request says where the source tells.
pub(super) fn slot(source: &Source, salt: &str, asked: &Asked<'_>) -> Option<Slot> {
    if *source == Source::Address {
        return slot_of_address(salt, asked.address?);
    }
    let mut found = None;
    with_id(source, asked, &mut |id| found = slot_of(salt, id));
    found
}

/// Tells whose a request is, if it says so itself.
pub(super) fn with_id(source: &Source, asked: &Asked<'_>, tell: &mut dyn FnMut(&[u8])) {
    let mut take = |id: &[u8]| {
        tell(id);
        true
    };
    match source {
        Source::Header(name) => {
            asked.fields.any(name.as_str(), &mut take);
        }
        Source::Cookie(name) => {
            asked.fields.any("cookie", &mut |line: &[u8]| {
                cookie(line, name).is_some_and(&mut take)
            });
        }
        Source::Query(name) => {
            let mut values = parameters(asked.target);
            if let Some((_, value)) = values.find(|(key, _)| *key == name.as_bytes()) {
                take(value);
            }
        }
        Source::Address => {}
    }
}

/// The value of a cookie in a header line.
fn cookie<'a>(line: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let mut pairs = line.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
    pairs.find_map(|pair| pair.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}

fn slot_of_address(salt: &str, address: IpAddr) -> Option<Slot> {
    let mut text = [0; 48];
    let mut rest = &mut text[..];
    write!(rest, "{}", address.to_canonical()).ok()?;
    let left = rest.len();
    slot_of(salt, &text[..text.len() - left])
}
