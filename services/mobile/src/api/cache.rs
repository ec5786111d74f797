//! Answers that were made, kept as long as what they are made from: bounded, and found by all that
//! they depend on.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use axum::http::HeaderValue;
use bytes::Bytes;

use crate::api::conditional::etag_of;
use crate::api::encoding::Coding;
use crate::keys::Caller;

/// The most that one generation keeps, in bytes.
const MAX_BYTES: usize = 64 << 20;
/// The largest answer that is kept, in bytes.
const MAX_BODY: usize = MAX_BYTES / 16;
/// The longest question that is kept, in bytes.
const MAX_KEY: usize = 4096;
/// What an entry takes beside its bytes, about.
const OVERHEAD: usize = 256;

/// Which call, and how it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    /// `GET init`: the question is the query.
    Init,
    /// `POST init`: the question is the body.
    InitByBody,
    /// `GET menu`: the question is the query.
    Menu,
}

/// All that an answer depends on, beside what it is made from: the call, whether who asks has a
/// key, and every byte of the question. Two questions share an answer only if they are equal.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key(Box<[u8]>);

impl Key {
    pub(crate) fn new(call: Call, caller: &Caller, question: &[u8]) -> Self {
        let has_key = u8::from(caller.key().is_some());
        let mut key = Vec::with_capacity(2 + question.len());
        key.extend_from_slice(&[call as u8, has_key]);
        key.extend_from_slice(question);
        Self(key.into())
    }
}

/// The bytes of an answer, with their tag and, once somebody has asked for them, their codings.
#[derive(Debug)]
pub(crate) struct Body {
    bytes: Bytes,
    etag: HeaderValue,
    weak: HeaderValue,
    coded: [OnceLock<Option<Bytes>>; Coding::ALL.len()],
}

impl Body {
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        let etag = etag_of(&bytes);
        let header = |text: &str| {
            HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static("\"\""))
        };
        Self {
            bytes: bytes.into(),
            weak: header(&format!("W/{etag}")),
            etag: header(&etag),
            coded: Default::default(),
        }
    }

    pub(crate) fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The tag: strong for the bytes as they are, weak for a coding of them, which is the same for
    /// a reader but not byte by byte.
    pub(crate) fn etag(&self, coding: Option<Coding>) -> &HeaderValue {
        match coding {
            None => &self.etag,
            Some(_) => &self.weak,
        }
    }

    /// The bytes in a coding: made once, for whoever asks first. `None` when that failed, or won
    /// nothing.
    pub(crate) fn coded(&self, coding: Coding) -> Option<&Bytes> {
        let make = || {
            let coded = coding.encode(&self.bytes).ok()?;
            (coded.len() < self.bytes.len()).then_some(coded)
        };
        self.coded[coding as usize].get_or_init(make).as_ref()
    }

    /// Whether the coding has been made already.
    pub(crate) fn has(&self, coding: Coding) -> bool {
        self.coded[coding as usize].get().is_some()
    }

    /// What it may come to take.
    fn size(&self) -> usize {
        2 * self.bytes.len() + OVERHEAD
    }
}

/// The answers of one generation. When it is half full, what has not been asked for since the last
/// time is forgotten.
#[derive(Debug)]
pub(crate) struct Cache {
    halves: Mutex<Halves>,
    max_bytes: usize,
}

#[derive(Debug, Default)]
struct Halves {
    young: Half,
    old: Half,
}

#[derive(Debug, Default)]
struct Half {
    answers: HashMap<Key, Kept>,
    /// The same bytes are kept once, however many questions they answer.
    bodies: HashMap<HeaderValue, Arc<Body>>,
    bytes: usize,
}

#[derive(Clone, Debug)]
struct Kept {
    body: Arc<Body>,
    /// When another answer may be right, in milliseconds since 1970.
    until: i64,
}

impl Default for Cache {
    fn default() -> Self {
        Self::with_limit(MAX_BYTES)
    }
}

impl Cache {
    fn with_limit(max_bytes: usize) -> Self {
        Self {
            halves: Mutex::default(),
            max_bytes,
        }
    }

    /// The answer to a question, if it is known and still right.
    pub(crate) fn get(&self, key: &Key, now_unix_ms: i64) -> Option<Arc<Body>> {
        let mut halves = self.halves.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kept) = halves.young.answers.get(key) {
            return kept.if_right(now_unix_ms);
        }
        let kept = halves.old.answers.remove(key)?;
        let body = kept.if_right(now_unix_ms);
        halves.put(key.clone(), kept, self.max_bytes);
        body
    }

    /// Takes in the answer to a question, right until `until`; returns it, or the same bytes if they
    /// were kept already.
    pub(crate) fn put(&self, key: Key, bytes: Vec<u8>, until: i64) -> Arc<Body> {
        let body = Arc::new(Body::new(bytes));
        if body.bytes.len() > MAX_BODY || key.0.len() > MAX_KEY {
            return body;
        }
        let mut halves = self.halves.lock().unwrap_or_else(PoisonError::into_inner);
        halves.put(key, Kept { body, until }, self.max_bytes)
    }
}

impl Kept {
    fn if_right(&self, now_unix_ms: i64) -> Option<Arc<Body>> {
        (now_unix_ms < self.until).then(|| Arc::clone(&self.body))
    }
}

impl Halves {
    fn put(&mut self, key: Key, mut kept: Kept, max_bytes: usize) -> Arc<Body> {
        let etag = kept.body.etag.clone();
        let known = self
            .young
            .bodies
            .get(&etag)
            .or_else(|| self.old.bodies.get(&etag));
        if let Some(known) = known {
            kept.body = Arc::clone(known);
        }
        if self.young.bytes > max_bytes / 2 {
            self.old = std::mem::take(&mut self.young);
        }
        let body = Arc::clone(&kept.body);
        self.young.add(key, kept);
        body
    }
}

impl Half {
    fn add(&mut self, key: Key, kept: Kept) {
        self.bytes += key.0.len() + OVERHEAD;
        if !self.bodies.contains_key(&kept.body.etag) {
            self.bytes += kept.body.size();
            self.bodies
                .insert(kept.body.etag.clone(), Arc::clone(&kept.body));
        }
        self.answers.insert(key, kept);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(question: &str) -> Key {
        Key::new(Call::Init, &Caller::Anonymous, question.as_bytes())
    }

    #[test]
    fn an_answer_is_found_until_another_may_be_right() {
        let cache = Cache::default();
        assert!(cache.get(&key("a"), 0).is_none());
        cache.put(key("a"), b"one".into(), 100);
        assert_eq!(cache.get(&key("a"), 99).unwrap().bytes(), "one");
        assert!(cache.get(&key("a"), 100).is_none());
        assert!(cache.get(&key("b"), 0).is_none());
        cache.put(key("a"), b"two".into(), 200);
        assert_eq!(cache.get(&key("a"), 100).unwrap().bytes(), "two");
    }

    #[test]
    fn the_call_belongs_to_the_question() {
        let cache = Cache::default();
        let menu = Key::new(Call::Menu, &Caller::Anonymous, b"a");
        cache.put(key("a"), b"init".into(), i64::MAX);
        assert!(cache.get(&menu, 0).is_none());
    }

    #[test]
    fn the_same_bytes_are_kept_and_coded_once() {
        let cache = Cache::default();
        let text = "the same ".repeat(100);
        let one = cache.put(key("a"), text.clone().into(), i64::MAX);
        let two = cache.put(key("b"), text.into(), i64::MAX);
        assert!(Arc::ptr_eq(&one, &two));
        assert!(!one.has(Coding::Zstd));
        assert!(two.coded(Coding::Zstd).unwrap().len() < 100);
        assert!(one.has(Coding::Zstd));
        assert_eq!(one.coded(Coding::Zstd), two.coded(Coding::Zstd));
    }

    #[test]
    fn what_wins_nothing_is_not_coded() {
        assert_eq!(Body::new(b"x".into()).coded(Coding::Gzip), None);
    }

    #[test]
    fn what_is_asked_for_stays_when_it_becomes_full() {
        let cache = Cache::with_limit(100_000);
        cache.put(key("often"), b"often".into(), i64::MAX);
        for number in 0..10_000 {
            cache.put(
                key(&format!("{number}")),
                format!("{number}").into(),
                i64::MAX,
            );
            assert!(cache.get(&key("often"), 0).is_some(), "{number}");
            let halves = cache.halves.lock().unwrap();
            let bytes = halves.young.bytes + halves.old.bytes;
            assert!(bytes < 102_000, "{bytes}");
        }
        assert!(cache.get(&key("0"), 0).is_none(), "it was forgotten");
    }

    #[test]
    fn what_is_too_large_is_answered_and_not_kept() {
        let cache = Cache::default();
        let body = cache.put(key("large"), vec![b'x'; MAX_BODY + 1], i64::MAX);
        assert_eq!(body.bytes().len(), MAX_BODY + 1);
        assert!(cache.get(&key("large"), 0).is_none());
        let long = key(&"x".repeat(MAX_KEY));
        cache.put(long.clone(), b"x".into(), i64::MAX);
        assert!(cache.get(&long, 0).is_none());
    }

    proptest! {
        #[test]
        fn nobody_gets_the_answer_to_another_question(
            asked in proptest::collection::vec("[a-c]{0,3}", 1..200), limit in 500usize..5000,
        ) {
            let cache = Cache::with_limit(limit);
            for question in asked {
                if let Some(body) = cache.get(&key(&question), 0) {
                    prop_assert_eq!(body.bytes(), question.as_bytes());
                } else {
                    let put = cache.put(key(&question), question.clone().into(), i64::MAX);
                    prop_assert_eq!(put.bytes(), question.as_bytes());
                }
            }
        }
    }
}
