//! API keys: who holds one, what it allows, and how often it may be used. Only hashes are kept: a key
//! has 256 random bits, so its SHA-256 gives nothing away, and to look it up by its hash takes no longer
//! for a key that is nearly right.

use std::collections::HashMap;
use std::sync::Arc;

use axum::http::{HeaderMap, header};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hydrant_flags::{Flag, Mistake};
use hydrant_sdk::{Code, Error};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use crate::bundle::Bundle;
use crate::documents::{DocumentId, Kind};
use crate::limits::Rate;
use crate::reading::read;

/// What a key begins with, so that people and scanners for leaked secrets know it.
const PREFIX: &str = "hyk_";

/// The header of a key, beside `Authorization: Bearer`.
pub(crate) const API_KEY: &str = "x-api-key";

/// What the holder of a key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    /// Evaluate all flags. It is in an app that people have, so it is not secret for long.
    Client,
    /// Evaluate all flags: on a server, where it stays secret.
    Server,
    /// That, and change everything through the admin API.
    Admin,
}

/// A key that is known.
#[derive(Debug)]
pub(crate) struct Key {
    /// The name of its document.
    pub(crate) name: String,
    pub(crate) role: Role,
    /// How often it may be used; `None` as often as one likes.
    pub(crate) rate: Option<Rate>,
    /// Opens its stream of changes, and nothing else: a browser can send no key with that.
    pub(crate) ticket: String,
}

/// The keys of one revision, compiled.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    by_hash: HashMap<Hash, Arc<Key>>,
    by_ticket: HashMap<String, Arc<Key>>,
}

/// Who asks.
#[derive(Clone, Debug)]
pub(crate) enum Caller {
    /// Somebody without a key.
    Anonymous,
    /// The holder of a key.
    Holder(Arc<Key>),
}

/// A key was sent that is not known, or no key where one belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WrongKey {
    #[error("the key is not known, or was revoked")]
    Unknown,
    #[error("the header `authorization` has something else than `Bearer` and a key")]
    Unreadable,
    #[error("the headers `authorization` and `x-api-key` name different keys")]
    Two,
}

impl Keys {
    /// Compiles the documents `key/…`.
    ///
    /// # Errors
    ///
    /// All that is wrong with them.
    pub(crate) fn compile(bundle: &Bundle) -> Result<Self, Vec<Mistake>> {
        let (mut keys, mut mistakes) = (Self::default(), Vec::new());
        for (name, text) in bundle.of(Kind::Key) {
            if let Err(mistake) = keys.add(name, text) {
                mistakes.push(mistake);
            }
        }
        if mistakes.is_empty() {
            Ok(keys)
        } else {
            Err(mistakes)
        }
    }

    fn add(&mut self, name: &str, text: &str) -> Result<(), Mistake> {
        let id = DocumentId::new(Kind::Key, name).map_err(|error| Mistake::at("", error))?;
        let text: Text = read(&id, text)?;
        if let Some(other) = self.by_hash.get(&text.sha256) {
            let message = format!("`key/{}` has the same hash", other.name);
            return Err(Mistake::at("/sha256", message)
                .of(id.to_string())
                .mend("make each key with `hydrant mobile key create`"));
        }
        let key = Arc::new(Key {
            name: name.to_owned(),
            role: text.role,
            rate: text.rate,
            ticket: text.sha256.ticket(),
        });
        self.by_ticket.insert(key.ticket.clone(), Arc::clone(&key));
        self.by_hash.insert(text.sha256, key);
        Ok(())
    }

    /// Who asks, by the headers `authorization` and `x-api-key`.
    ///
    /// # Errors
    ///
    /// If a key is sent that is not known. It is never taken for nobody's.
    pub(crate) fn caller(&self, headers: &HeaderMap) -> Result<Caller, WrongKey> {
        let bearer = headers.get_all(header::AUTHORIZATION).iter();
        let bearer = bearer.map(|value| bearer_of(value.as_bytes()).ok_or(WrongKey::Unreadable));
        let plain = headers.get_all(API_KEY).iter();
        let plain = plain.map(|value| Ok(value.as_bytes()));
        let mut caller = Caller::Anonymous;
        for presented in bearer.chain(plain) {
            let key = self.find(presented?).ok_or(WrongKey::Unknown)?;
            if caller.key().is_some_and(|other| !Arc::ptr_eq(other, key)) {
                return Err(WrongKey::Two);
            }
            caller = Caller::Holder(Arc::clone(key));
        }
        Ok(caller)
    }

    /// The holder of a ticket for a stream of changes.
    pub(crate) fn by_ticket(&self, ticket: &str) -> Option<&Arc<Key>> {
        self.by_ticket.get(ticket)
    }

    fn find(&self, presented: &[u8]) -> Option<&Arc<Key>> {
        self.by_hash.get(&Hash::of(presented))
    }
}

impl Caller {
    /// The key that was sent.
    pub(crate) fn key(&self) -> Option<&Arc<Key>> {
        match self {
            Self::Anonymous => None,
            Self::Holder(key) => Some(key),
        }
    }

    /// Whether a flag may be shown to who asks. Whoever has no key gets what is public and no more.
    pub(crate) fn may_see(&self, flag: &Flag) -> bool {
        matches!(self, Self::Holder(_)) || flag.is_public()
    }
}

/// The key behind `Bearer`, whose case does not count.
fn bearer_of(value: &[u8]) -> Option<&[u8]> {
    let (scheme, key) = value.split_at_checked(7)?;
    scheme
        .eq_ignore_ascii_case(b"bearer ")
        .then(|| key.trim_ascii())
}

/// A document `key/…`, as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Text {
    sha256: Hash,
    role: Role,
    #[serde(default)]
    rate: Option<Rate>,
}

/// The SHA-256 of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "String")]
struct Hash([u8; 32]);

impl Hash {
    fn of(key: &[u8]) -> Self {
        Self(Sha256::digest(key).into())
    }

    /// Made of the hash, which nobody outside has, and does not lead back to it.
    fn ticket(self) -> String {
        let digest = Sha256::new()
            .chain_update(b"hydrant changes ")
            .chain_update(self.0);
        hex(&digest.finalize()[..16])
    }
}

impl TryFrom<String> for Hash {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong = || "`sha256` is the SHA-256 of a key, 64 hexadecimal digits".to_owned();
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(wrong());
        }
        let mut hash = [0; 32];
        for (byte, digits) in hash.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let digits = std::str::from_utf8(digits).map_err(|_| wrong())?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| wrong())?;
        }
        Ok(Self(hash))
    }
}

/// A key that was made just now.
pub struct NewKey {
    /// What its holder sends. It is nowhere else.
    pub secret: String,
    /// What its document has: its SHA-256 in hexadecimal digits.
    pub sha256: String,
}

impl NewKey {
    /// Makes a key of 256 random bits.
    ///
    /// # Errors
    ///
    /// If the system has no random bits.
    pub fn generate() -> Result<Self, Error> {
        let mut bits = [0; 32];
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        provider.secure_random.fill(&mut bits).map_err(|_| {
            let message = "the system gives no random bits to make a key of";
            Error::new(Code::Internal, "no_random_bits", message)
        })?;
        let secret = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bits));
        Ok(Self {
            sha256: hex(&Sha256::digest(&secret)),
            secret,
        })
    }
}

/// Bytes in hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn document(key: &str, rest: &str) -> String {
        let hash = hex(&Sha256::digest(key));
        format!(r#"{{"sha256": "{hash}", "role": "client"{rest}}}"#)
    }

    fn compiled(documents: &[(&str, String)]) -> Result<Keys, Vec<Mistake>> {
        let mut bundle = Bundle::default();
        let all = bundle.documents.entry(Kind::Key).or_default();
        all.extend(
            documents
                .iter()
                .map(|(name, text)| ((*name).to_owned(), text.clone())),
        );
        Keys::compile(&bundle)
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let value = |text: &str| HeaderValue::from_str(text).unwrap();
        pairs
            .iter()
            .map(|(name, text)| (name.parse().unwrap(), value(text)))
            .collect()
    }

    #[test]
    fn a_key_is_known_by_either_header_and_a_wrong_one_is_nobody() {
        let keys = compiled(&[
            ("web", document("hyk_one", "")),
            (
                "shop",
                document("hyk_two", r#", "rate": {"perSecond": 50}"#),
            ),
        ])
        .unwrap();
        let name = |pairs: &[(&'static str, &str)]| {
            let caller = keys.caller(&headers(pairs))?;
            Ok(caller.key().map(|key| key.name.clone()))
        };
        let some = |name: &str| Ok(Some(name.to_owned()));
        let (auth, plain) = ("authorization", "x-api-key");
        assert_eq!(name(&[]), Ok(None));
        assert_eq!(name(&[(auth, "Bearer hyk_one")]), some("web"));
        assert_eq!(name(&[(auth, "bearer  hyk_two ")]), some("shop"));
        assert_eq!(name(&[(plain, "hyk_two")]), some("shop"));
        let both = [(auth, "Bearer hyk_one"), (plain, "hyk_one")];
        assert_eq!(name(&both), some("web"));
        for (wrong, error) in [
            (vec![(auth, "Bearer hyk_three")], WrongKey::Unknown),
            (vec![(plain, "")], WrongKey::Unknown),
            (vec![(auth, "Bearer ")], WrongKey::Unknown),
            (vec![(auth, "Bearer")], WrongKey::Unreadable),
            (vec![(auth, "Basic aHk6")], WrongKey::Unreadable),
            (
                vec![(auth, "Bearer hyk_one"), (plain, "no")],
                WrongKey::Unknown,
            ),
            (
                vec![(auth, "Bearer hyk_one"), (plain, "hyk_two")],
                WrongKey::Two,
            ),
        ] {
            assert_eq!(name(&wrong), Err(error), "{wrong:?}");
        }
    }

    #[test]
    fn a_new_key_is_known_by_the_hash_that_stays() {
        let (one, two) = (NewKey::generate().unwrap(), NewKey::generate().unwrap());
        assert_ne!(one.secret, two.secret);
        assert_eq!(one.secret.len(), PREFIX.len() + 43);
        let text = format!(r#"{{"sha256": "{}", "role": "admin"}}"#, one.sha256);
        let keys = compiled(&[("web", text)]).unwrap();
        assert_eq!(keys.find(one.secret.as_bytes()).unwrap().role, Role::Admin);
        assert!(keys.find(two.secret.as_bytes()).is_none());
        assert!(
            keys.find(one.sha256.as_bytes()).is_none(),
            "the hash is no key"
        );
    }

    #[test]
    fn a_ticket_opens_what_its_key_opens_and_is_not_the_hash() {
        let keys = compiled(&[("web", document("hyk_one", ""))]).unwrap();
        let caller = keys.caller(&headers(&[("x-api-key", "hyk_one")])).unwrap();
        let ticket = &caller.key().unwrap().ticket;
        assert_eq!(keys.by_ticket(ticket).unwrap().name, "web");
        assert!(!hex(&Sha256::digest("hyk_one")).contains(ticket.as_str()));
        assert!(keys.by_ticket("").is_none());
    }

    #[test]
    fn what_is_wrong_with_a_key_is_told_with_its_document() {
        let good = document("hyk_one", "");
        for (text, words) in [
            ("{}".to_owned(), "missing field `sha256`"),
            (good.replace("client", "root"), "unknown variant `root`"),
            (
                r#"{"sha256": "ab", "role": "client"}"#.into(),
                "64 hexadecimal",
            ),
            (
                document("hyk_two", r#", "rate": {"perSecond": 0}"#),
                "perSecond",
            ),
            (
                document("hyk_two", r#", "key": "hyk_two""#),
                "unknown field",
            ),
            (good.clone(), "`key/a` has the same hash"),
        ] {
            let mistakes = compiled(&[("a", good.clone()), ("b", text)]).unwrap_err();
            assert_eq!(mistakes.len(), 1);
            assert_eq!(mistakes[0].document, "key/b");
            assert!(mistakes[0].message.contains(words), "{}", mistakes[0]);
        }
    }

    proptest! {
        #[test]
        fn any_header_is_nobody_and_never_a_panic(
            value in proptest::collection::vec(0x20_u8..0x7f, 0..80),
            name in prop_oneof![Just("authorization"), Just("x-api-key")],
        ) {
            let keys = compiled(&[("web", document("hyk_one", ""))]).unwrap();
            let value = HeaderValue::from_bytes(&value).unwrap();
            let headers = [(name.parse().unwrap(), value)].into_iter().collect();
            prop_assert!(keys.caller(&headers).is_err());
        }
    }
}
