use std::collections::VecDeque;

use async_trait::async_trait;
use bytes::Bytes;
use hydrant_ports::state::{Put, Under};
use hydrant_ports::{Entry, ErrorKind, Expect, Prefix, Watch};
use tokio::sync::watch;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// A store whose answers a test says one by one; without one it is away.
struct Scripted {
    answers: Mutex<VecDeque<Option<StateEntry>>>,
    /// How long it takes to answer.
    takes: Duration,
    failovers: watch::Sender<u64>,
}

#[async_trait]
impl State for Scripted {
    fn name(&self) -> &'static str {
        "scripted"
    }

    async fn get(&self, _: &Key) -> Result<Option<StateEntry>, EngineError> {
        let answer = self.answers.lock().unwrap().pop_front();
        tokio::time::sleep(self.takes).await;
        answer.ok_or_else(|| EngineError::new(ErrorKind::Unavailable, "away"))
    }

    async fn put(&self, _: &Key, _: Bytes, _: Put) -> Result<u64, EngineError> {
        unreachable!("the cache only reads")
    }

    async fn delete(&self, _: &Key, _: Expect, _: Option<Under>) -> Result<bool, EngineError> {
        unreachable!("the cache only reads")
    }

    async fn list(
        &self,
        _: &Prefix,
        _: Option<&Key>,
        _: usize,
    ) -> Result<Vec<StateEntry>, EngineError> {
        unreachable!("the cache only reads")
    }

    async fn watch(&self, _: &Prefix) -> Result<Watch, EngineError> {
        unreachable!("the cache only reads")
    }

    async fn raise(&self, _: &Key, _: u64) -> Result<(), EngineError> {
        unreachable!("the cache only reads")
    }

    async fn mark(&self, _: &Key) -> Result<u64, EngineError> {
        unreachable!("the cache only reads")
    }

    fn failovers(&self) -> watch::Receiver<u64> {
        self.failovers.subscribe()
    }

    async fn check(&self) -> Result<(), EngineError> {
        Ok(())
    }
}

fn cache(takes: Duration, answers: &[Option<&str>]) -> (Arc<Scripted>, Arc<NearCache>) {
    let answer = |value: &Option<&str>| value.map(|value| entry("k", value, None));
    let state = Arc::new(Scripted {
        answers: Mutex::new(answers.iter().map(answer).collect()),
        takes,
        failovers: watch::Sender::new(0),
    });
    (state.clone(), Arc::new(NearCache::new(state)))
}

fn entry(key: &str, value: &str, ttl: Option<Duration>) -> StateEntry {
    let entry = Entry {
        key: key.parse().unwrap(),
        value: Bytes::copy_from_slice(value.as_bytes()),
        revision: 1,
    };
    StateEntry { entry, ttl }
}

fn key() -> Key {
    "k".parse().unwrap()
}

/// What is read within `max_age`, and how old it says to be.
async fn read(cache: &NearCache, max_age: Duration) -> Result<(Option<String>, u128), ErrorKind> {
    let answer = cache.get(&key(), max_age).await;
    let answer = answer.map_err(|error| error.kind)?;
    let text = |found: StateEntry| String::from_utf8(found.entry.value.to_vec()).unwrap();
    Ok((answer.found.map(text), answer.age.as_millis()))
}

fn is(value: &str, age_ms: u128) -> Result<(Option<String>, u128), ErrorKind> {
    Ok((Some(value.into()), age_ms))
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_as_old_as_the_reader_allows_and_no_older() {
    let (_state, cache) = cache(Duration::ZERO, &[Some("one"), Some("two")]);
    assert_eq!(read(&cache, SECOND).await, is("one", 0));
    tokio::time::advance(SECOND).await;
    assert_eq!(read(&cache, SECOND).await, is("one", 1000));
    tokio::time::advance(Duration::from_nanos(1)).await;
    assert_eq!(read(&cache, SECOND).await, is("two", 0));
}

#[tokio::test(start_paused = true)]
async fn an_age_counts_from_before_the_store_answered() {
    let (_state, cache) = cache(SECOND, &[Some("one"), Some("two")]);
    read(&cache, SECOND * 2).await.unwrap();
    assert_eq!(read(&cache, SECOND * 2).await, is("one", 1000));
    tokio::time::advance(SECOND + Duration::from_millis(1)).await;
    assert_eq!(read(&cache, SECOND * 2).await, is("two", 0));
}

#[tokio::test(start_paused = true)]
async fn absence_is_remembered_too_and_no_age_asks_the_store() {
    let (_state, cache) = cache(Duration::ZERO, &[None, Some("new"), Some("newer")]);
    assert_eq!(read(&cache, SECOND).await, Ok((None, 0)));
    assert_eq!(read(&cache, SECOND).await, Ok((None, 0)));
    tokio::time::advance(Duration::from_millis(1)).await;
    assert_eq!(read(&cache, Duration::ZERO).await, is("new", 0));
    // What was seen fresh is not taken back.
    tokio::time::advance(Duration::from_millis(1)).await;
    assert_eq!(read(&cache, SECOND).await, is("new", 1));
}

#[tokio::test(start_paused = true)]
async fn while_the_store_is_away_what_is_young_enough_answers() {
    let (_state, cache) = cache(Duration::ZERO, &[Some("one")]);
    read(&cache, SECOND).await.unwrap();
    tokio::time::advance(SECOND * 5).await;
    assert_eq!(read(&cache, SECOND).await, Err(ErrorKind::Unavailable));
    assert_eq!(read(&cache, SECOND * 5).await, is("one", 5000));
    assert_eq!(
        read(&cache, Duration::ZERO).await,
        Err(ErrorKind::Unavailable)
    );
}

#[tokio::test(start_paused = true)]
async fn a_write_is_read_by_who_wrote_it_also_when_a_read_was_under_way() {
    let (_state, cache) = cache(SECOND, &[Some("old"), Some("new")]);
    let under_way = tokio::spawn({
        let cache = cache.clone();
        async move { read(&cache, SECOND * 60).await }
    });
    tokio::time::sleep(SECOND / 2).await;
    drop(cache.writing(&key()));
    assert_eq!(under_way.await.unwrap(), is("old", 0));
    assert_eq!(read(&cache, SECOND * 60).await, is("new", 0));
}

#[tokio::test(start_paused = true)]
async fn a_failover_empties_it() {
    let (state, cache) = cache(Duration::ZERO, &[Some("lost"), Some("kept")]);
    let shutdown = Shutdown::new();
    let empties = cache.clone();
    shutdown.spawn({
        let shutdown = shutdown.clone();
        async move { empties.empty_on_failovers(&shutdown).await }
    });
    tokio::task::yield_now().await;
    read(&cache, SECOND).await.unwrap();
    state.failovers.send_replace(1);
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(read(&cache, SECOND).await, is("kept", 0));
}

#[tokio::test(start_paused = true)]
async fn what_has_run_out_is_asked_for_again() {
    let (state, cache) = cache(Duration::ZERO, &[]);
    let mortal = entry("k", "mortal", Some(SECOND));
    state.answers.lock().unwrap().push_back(Some(mortal));
    cache.get(&key(), SECOND * 9).await.unwrap();
    tokio::time::advance(SECOND / 2).await;
    let answer = cache.get(&key(), SECOND * 9).await.unwrap();
    assert_eq!(answer.found.unwrap().ttl, Some(SECOND / 2));
    tokio::time::advance(SECOND / 2).await;
    assert_eq!(read(&cache, SECOND * 9).await, Err(ErrorKind::Unavailable));
}

#[test]
fn what_was_used_longest_ago_gives_way() {
    let key = |number: usize| format!("k/{number}").parse::<Key>().unwrap();
    let mut kept = Kept::default();
    let large = "x".repeat(1 << 20);
    for number in 0..100 {
        kept.put(&key(number), Some(entry("k", &large, None)), Instant::now());
        kept.get(&key(0), SECOND * 60);
    }
    assert!(kept.bytes <= MOST.1, "{}", kept.bytes);
    assert!(kept.answers.contains_key(&key(0)) && kept.answers.contains_key(&key(99)));
    assert!(!kept.answers.contains_key(&key(1)));
    for number in 100..30_000 {
        kept.put(&key(number), None, Instant::now());
    }
    assert_eq!(kept.answers.len(), MOST.0);
    assert_eq!(kept.uses.len(), MOST.0);
    for number in 0..30_000 {
        kept.remove(&key(number));
    }
    assert_eq!((kept.bytes, kept.uses.len()), (0, 0));
}
