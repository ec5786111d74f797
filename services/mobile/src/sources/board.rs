//! What the leader knows of the sources, and what of it has to be written.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use hydrant_runtime::Backoff;
use hydrant_sdk::{Entry, Error, State, StateChange};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use crate::sources::definition::{Location, Source};
use crate::sources::keep::Goods;
use crate::sources::snapshot::{DECLARED, Declared, Found, Outcome, SOURCE, Validator};

/// How long the first list waits for slow sources.
const PATIENCE: Duration = Duration::from_secs(2);
/// How soon a source that fails is asked again at first, when its interval is not shorter.
const FIRST_RETRY: Duration = Duration::from_secs(5);
/// How soon a source that has never answered is asked again at first: it may just be starting.
const FIRST_START: Duration = Duration::from_millis(200);
/// The longest wait between questions to a source that fails, when its interval is not longer.
const LAST_RETRY: Duration = Duration::from_secs(60);
/// How long an answer of the state is waited for.
const ANSWER: Duration = Duration::from_secs(2);

/// The key where the leader tells how its sources do: [`Polls`].
pub(crate) const POLLS: &str = "polls";

/// How the sources do, for operators; without their values.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Polls {
    pub(crate) epoch: u64,
    /// The instance that asks.
    pub(crate) leader: String,
    pub(crate) sources: BTreeMap<String, Poll>,
}

/// How one source does. Times are milliseconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Poll {
    /// When its value was last found to be different; `None` when there never was one.
    pub(crate) as_of: Option<i64>,
    /// Since when it fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) failing_since: Option<i64>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) reason: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) mend: String,
    /// When it is asked again, while it fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) next_try: Option<i64>,
}

pub(crate) struct Board {
    declared: Declared,
    found: BTreeMap<String, Found>,
    began: Instant,
    began_unix_ms: i64,
    /// Whether the tables have told what they have.
    is_kept_known: bool,
    last_good: HashMap<String, i64>,
    backoffs: HashMap<String, Backoff>,
    next_tries: HashMap<String, i64>,
    /// A hash of what was written last, by key.
    written: HashMap<String, [u8; 32]>,
    /// The keys that have to be written.
    dirty: BTreeSet<String>,
    /// The keys that have to be deleted.
    gone: BTreeSet<String>,
    /// The keys that may not be there as they were written.
    suspects: BTreeSet<String>,
}

impl Board {
    /// Begins with what the last leader has left.
    pub(crate) fn carry_over(declared: Declared, left: &[Entry], now: i64) -> Self {
        let mut board = Self {
            declared,
            found: BTreeMap::new(),
            began: Instant::now(),
            began_unix_ms: now,
            is_kept_known: false,
            last_good: HashMap::new(),
            backoffs: HashMap::new(),
            next_tries: HashMap::new(),
            written: HashMap::new(),
            dirty: BTreeSet::from([DECLARED.to_owned()]),
            gone: BTreeSet::new(),
            suspects: BTreeSet::new(),
        };
        for entry in left {
            board.take_over(entry);
        }
        board
    }

    fn take_over(&mut self, entry: &Entry) {
        let Some(name) = entry.key.strip_prefix(SOURCE) else {
            return;
        };
        if !self.declared.names.iter().any(|known| known == name) {
            self.gone.insert(entry.key.clone());
            return;
        }
        if let Ok(found) = serde_json::from_slice(&entry.value) {
            self.found.insert(name.to_owned(), found);
            self.written.insert(entry.key.clone(), hash(&entry.value));
        }
    }

    /// Whether the first list has to wait: somebody who begins with it would see less than there is.
    fn is_beginning(&self) -> bool {
        let is_unknown = |name: &String| {
            let found = self.found.get(name);
            found.is_none_or(|found| found.good.is_none() && !self.is_kept_known)
        };
        self.declared.names.iter().any(is_unknown) && self.began.elapsed() < PATIENCE
    }

    /// Takes what the tables have kept, where it is newer: the state was lost, or begun anew.
    pub(crate) fn take_kept(&mut self, goods: Goods) {
        self.is_kept_known = true;
        for (name, good) in goods {
            if !self.declared.names.contains(&name) {
                continue;
            }
            let found = self.found.entry(name.clone()).or_default();
            if found
                .good
                .as_ref()
                .is_none_or(|known| known.as_of < good.as_of)
            {
                tracing::info!(source = name, "its last good value comes from the tables");
                found.good = Some(good);
                self.dirty.insert(key_of(&name));
            }
        }
    }

    /// What makes the next request conditional, when there is a value to keep.
    pub(crate) fn validator(&self, source: &Source) -> Option<Validator> {
        let good = self.found.get(&source.name)?.good.as_ref()?;
        Some(good.validator.clone())
    }

    pub(crate) fn found(&self, name: &str) -> Option<&Found> {
        self.found.get(name)
    }

    /// Takes in how a poll ended; tells how long after its start the next one is due.
    pub(crate) fn count(&mut self, source: &Source, outcome: Outcome, now: i64) -> Duration {
        let name = &source.name;
        let last_good = self.last_good(name);
        let is_good = !matches!(outcome, Outcome::Failed(_));
        let found = self.found.entry(name.clone()).or_default();
        if found.apply(outcome, now, last_good) {
            self.dirty.insert(key_of(name));
        }
        if is_good {
            self.last_good.insert(name.clone(), now);
            self.backoffs.remove(name);
            self.next_tries.remove(name);
            return source.interval;
        }
        let wait = self.next_wait(source);
        let next = now.saturating_add(i64::try_from(wait.as_millis()).unwrap_or(i64::MAX));
        self.next_tries.insert(name.clone(), next);
        wait
    }

    /// How often a source has failed since it was good.
    pub(crate) fn failures(&self, name: &str) -> u32 {
        self.backoffs.get(name).map_or(0, Backoff::attempts)
    }

    /// When a source was last good. One that the last leader left in good order was so until now.
    fn last_good(&self, name: &str) -> Option<i64> {
        let left_good = || {
            let found = self.found.get(name)?;
            (found.stale.is_none() && found.good.is_some()).then_some(self.began_unix_ms)
        };
        self.last_good.get(name).copied().or_else(left_good)
    }

    /// Ever longer while a source fails, with jitter. A file costs nothing and keeps its interval.
    fn next_wait(&mut self, source: &Source) -> Duration {
        let was_good = self
            .found
            .get(&source.name)
            .is_some_and(|found| found.good.is_some());
        let first = if was_good { FIRST_RETRY } else { FIRST_START };
        let most = match source.location {
            Location::File(_) => source.interval,
            _ if was_good => source.interval.max(LAST_RETRY.min(source.interval * 8)),
            _ => source.interval,
        };
        self.backoffs
            .entry(source.name.clone())
            .or_insert_with(|| Backoff::new(first.min(source.interval), most))
            .next_wait()
    }

    /// How the sources do, for operators.
    pub(crate) fn polls(&self, leader: &str) -> Polls {
        let poll = |name: &String| {
            let found = self.found.get(name).cloned().unwrap_or_default();
            let stale = found.stale.unwrap_or_default();
            let poll = Poll {
                as_of: found.good.map(|good| good.as_of),
                failing_since: (stale.since != 0).then_some(stale.since),
                reason: stale.reason,
                mend: stale.mend,
                next_try: self.next_tries.get(name).copied(),
            };
            (name.clone(), poll)
        };
        Polls {
            epoch: self.declared.epoch,
            leader: leader.to_owned(),
            sources: self.declared.names.iter().map(poll).collect(),
        }
    }

    pub(crate) fn is_written(&self) -> bool {
        self.dirty.is_empty() && self.gone.is_empty()
    }

    /// Writes what is new: the sources, then the list, then what is gone. The first list waits
    /// until each source was asked, so that no reader begins with less than there is.
    pub(crate) async fn write(&mut self, state: &State) -> Result<(), Error> {
        let sources: Vec<String> = self
            .dirty
            .iter()
            .filter(|key| *key != DECLARED)
            .cloned()
            .collect();
        for key in sources {
            self.write_one(state, &key).await?;
        }
        if self.is_beginning() {
            return Ok(());
        }
        if self.dirty.contains(DECLARED) {
            self.write_one(state, DECLARED).await?;
        }
        while let Some(key) = self.gone.first().cloned() {
            state.delete(&key).await?;
            self.gone.remove(&key);
        }
        Ok(())
    }

    async fn write_one(&mut self, state: &State, key: &str) -> Result<(), Error> {
        let text = match key.strip_prefix(SOURCE) {
            Some(name) => serde_json::to_vec(&self.found.get(name)),
            None => serde_json::to_vec(&self.declared),
        };
        let text = text.unwrap_or_default();
        let hash = hash(&text);
        state.put(key, text).await?;
        self.written.insert(key.to_owned(), hash);
        self.dirty.remove(key);
        Ok(())
    }

    /// Takes in what the state tells of itself. Nobody else writes: what is not there as it was
    /// written may be old news, or was lost; [`Board::look`] finds out.
    pub(crate) fn heard(&mut self, change: &StateChange) {
        match change {
            // It comes after a break. What it does not name may follow, or be lost.
            StateChange::All(entries) => {
                self.suspects.extend(self.written.keys().cloned());
                entries.iter().for_each(|entry| self.saw(entry));
            }
            StateChange::Put(entry) => self.saw(entry),
            StateChange::Removed(key) => {
                self.suspects.insert(key.clone());
            }
        }
    }

    fn saw(&mut self, entry: &Entry) {
        match self.written.get(&entry.key) {
            Some(written) if *written == hash(&entry.value) => self.suspects.remove(&entry.key),
            Some(_) => self.suspects.insert(entry.key.clone()),
            None => false,
        };
    }

    /// The list is looked after even when the state tells nothing.
    pub(crate) fn suspect_the_list(&mut self) {
        self.suspects.insert(DECLARED.to_owned());
    }

    pub(crate) fn has_suspects(&self) -> bool {
        !self.suspects.is_empty()
    }

    /// Looks whether what was written is there still: a fail-over of the state may have lost it.
    /// While the state is away, that is not known.
    pub(crate) async fn look(&mut self, state: &State) {
        while let Some(key) = self.suspects.first().cloned() {
            let Ok(Ok(entry)) = tokio::time::timeout(ANSWER, state.get(&key)).await else {
                return;
            };
            self.suspects.remove(&key);
            self.check(&key, entry.as_ref().map(|entry| entry.value.as_slice()));
        }
    }

    fn check(&mut self, key: &str, stored: Option<&[u8]>) {
        let Some(written) = self.written.get(key) else {
            return;
        };
        if stored.map(hash) != Some(*written) {
            tracing::warn!(key, "the state has lost what was written; writing it again");
            self.dirty.insert(key.to_owned());
        }
    }
}

fn key_of(name: &str) -> String {
    format!("{SOURCE}{name}")
}

fn hash(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::*;
    use crate::sources::snapshot::Failure;

    fn source(file: bool) -> Source {
        let toml = if file {
            "file = \"a.json\""
        } else {
            "url = \"http://127.0.0.1:1/\""
        };
        let text = format!("[[source]]\nname = \"catalog\"\ninterval = \"6s\"\n{toml}");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sources.toml");
        std::fs::write(&path, text).unwrap();
        let sources = crate::sources::Sources::load(&path, None).unwrap();
        sources.list()[0].clone()
    }

    fn board(left: &[Entry]) -> Board {
        let names = vec!["catalog".to_owned()];
        let declared = Declared {
            epoch: 2,
            names,
            orders: Vec::new(),
        };
        Board::carry_over(declared, left, 1000)
    }

    fn good(text: &str) -> Outcome {
        Outcome::Changed {
            value: RawValue::from_string(text.into()).unwrap(),
            validator: Validator::default(),
        }
    }

    fn failed() -> Outcome {
        Outcome::Failed(Failure::new("refused", "start it"))
    }

    fn entry(key: &str, found: &Found) -> Entry {
        Entry {
            key: key.into(),
            value: serde_json::to_vec(found).unwrap(),
            revision: 1,
            ttl: None,
        }
    }

    #[tokio::test]
    async fn a_source_that_fails_is_asked_ever_less_often() {
        let (mut board, source) = (board(&[]), source(false));
        let first = board.count(&source, failed(), 1);
        assert!(first <= FIRST_START, "it may just be starting: {first:?}");
        assert!(board.validator(&source).is_none(), "no value to keep");
        assert_eq!(board.count(&source, good("1"), 2), source.interval);
        assert!(board.validator(&source).is_some());
        let mut waits = Vec::new();
        for _ in 0..8 {
            waits.push(board.count(&source, failed(), 3).as_secs_f64());
        }
        println!("{waits:?}");
        assert!((2.5..=5.0).contains(&waits[0]), "{waits:?}");
        assert!((24.0..=48.0).contains(&waits[7]), "{waits:?}");
        assert_eq!(
            (
                board.failures("catalog"),
                board.polls("a").sources["catalog"].failing_since
            ),
            (8, Some(2))
        );
        assert_eq!(board.count(&source, good("1"), 4), source.interval);
        assert_eq!(board.failures("catalog"), 0);
    }

    #[tokio::test]
    async fn a_file_keeps_its_interval() {
        let (mut board, source) = (board(&[]), source(true));
        board.count(&source, good("1"), 1);
        for _ in 0..8 {
            assert!(board.count(&source, failed(), 1) <= source.interval);
        }
    }

    #[tokio::test]
    async fn a_new_leader_takes_the_old_ones_values_as_good_until_now() {
        let mut found = Found::default();
        found.apply(good("1"), 5, None);
        let other = entry("source/other", &found);
        let mut board = board(&[entry("source/catalog", &found), other]);
        assert_eq!(board.gone.first().unwrap(), "source/other");
        board.count(&source(false), failed(), 1500);
        let found = board.found("catalog").unwrap();
        assert_eq!(found.stale.as_ref().unwrap().since, 1000);
        assert_eq!(found.good.as_ref().unwrap().value.get(), "1");
    }

    #[tokio::test]
    async fn what_the_state_has_lost_is_written_again() {
        let mut found = Found::default();
        found.apply(good("1"), 5, None);
        let left = entry("source/catalog", &found);
        let mut board = board(std::slice::from_ref(&left));
        board.heard(&StateChange::Put(left.clone()));
        assert!(!board.has_suspects(), "it is there");
        board.heard(&StateChange::All(Vec::new()));
        assert!(board.has_suspects());
        board.check("source/catalog", Some(&left.value));
        assert!(!board.dirty.contains("source/catalog"));
        for lost in [Some(b"old".as_slice()), None] {
            board.dirty.clear();
            board.check("source/catalog", lost);
            assert!(board.dirty.contains("source/catalog"), "{lost:?}");
        }
    }
}
